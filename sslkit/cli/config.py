"""Configurations of ``sslkit pretrain``: found by name, parsed, mistakes told in one line."""

import argparse
import difflib
import inspect
import io
import re
import sys
import warnings
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from sslkit.backbones import Backbone
from sslkit.data import DataModule
from sslkit.methods import Method
from sslkit.views import View


class PretrainCLI(LightningCLI):
    """LightningCLI with a run's own options; the trainer is built on demand."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="name of the run")
        parser.add_argument("--out", type=str, default="runs", help="where run folders are")
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="Weights & Biases mode",
        )
        parser.add_argument(
            "--online_every", type=int, default=1, help="epochs between online signals; 0: none"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        super().parse_arguments(parser, args)
        # jsonargparse reads a limit of 1 batch as 1.0, which to Lightning is every batch.
        key = "limit_train_batches"
        given = [(config.get("trainer") or {}).get(key) for config in _configs(args)]
        if "1" in [str(value) for value in (*given, *values(args, f"--trainer.{key}"))][-1:]:
            self.config.trainer[key] = 1

    def instantiate_classes(self) -> None:
        self.config_init = self.parser.instantiate(self.config)
        self.model, self.datamodule = self.config_init.model, self.config_init.data

    def plain(self) -> dict[str, Any]:
        """The whole configuration as plain data, ready to be a config file again."""
        config = self.config.clone()
        config.pop("config", None)
        return yaml.safe_load(self.parser.dump(config, skip_unset=False, skip_validation=True))


def parse(argv: list[str]) -> PretrainCLI:
    """Model and data from the command line.

    Raises:
        ValueError: an option or a value that is not valid, in one line.
    """
    try:
        _one_method(argv)
        with redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            cli = PretrainCLI(
                Method,
                DataModule,
                subclass_mode_model=True,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                run=False,
                args=argv,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            )
    except (argparse.ArgumentError, yaml.YAMLError, ValueError) as error:
        raise ValueError(one_line(str(error))) from error
    sys.stderr.write(said.getvalue())  # without the usage that goes with an error
    return cli


def config_names() -> list[str]:
    """The short names of the configs that come with sslkit."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of a config, given its path or short name.

    Raises:
        FileNotFoundError: neither.
    """
    path, packaged = Path(name), _folder() / f"{name}.yaml"
    if path.is_file():
        return path
    if packaged.is_file():
        return packaged
    near = difflib.get_close_matches(name, config_names(), 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise FileNotFoundError(
        f"no config {name!r}{hint}: give a file, or one of {', '.join(config_names())}"
    )


def _folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def with_config_files(argv: list[str]) -> list[str]:
    """The arguments with short names of configs turned into their files."""
    resolved = []
    for before, arg in pairwise(["", *argv]):
        if before == "--config":
            arg = str(find_config(arg))
        elif arg.startswith("--config="):
            arg = f"--config={find_config(arg.removeprefix('--config='))}"
        resolved.append(arg)
    return resolved


def values(argv: list[str], option: str) -> list[str]:
    """What an option is given, each time it is.

    >>> values(["--a", "1", "--a=2", "--b"], "--a")
    ['1', '2']
    """
    found = []
    for arg, after in pairwise([*argv, ""]):
        if arg == option:
            found.append(after)
        elif arg.startswith(f"{option}="):
            found.append(arg.partition("=")[2])
    return found


def without(argv: list[str], option: str) -> list[str]:
    """The arguments without an option and its values.

    >>> without(["--a", "1", "--b", "--a=2"], "--a")
    ['--b']
    """
    pairs = pairwise(["", *argv])
    return [x for before, x in pairs if option not in (before, x, x.partition("=")[0])]


def _configs(argv: list[str]) -> list[dict[str, Any]]:
    configs = []
    for path in values(argv, "--config"):
        config = yaml.safe_load(Path(path).read_text())
        if not isinstance(config, dict):
            raise ValueError(f"{path} is not a config: it holds no keys")
        configs.append(config)
    return configs


def _one_method(argv: list[str]) -> None:
    """Refuse another method over a config's: jsonargparse would drop its arguments silently."""
    models = [(config.get("model") or {}).get("class_path") for config in _configs(argv)]
    models += [*values(argv, "--model"), *values(argv, "--model.class_path")]
    first, *others = [model for model in models if model] or [""]
    for other in others:
        if other.rpartition(".")[2] != first.rpartition(".")[2]:
            raise ValueError(
                f"--model {other} over the config's {first} would drop the config's model "
                "arguments: use a config of that method"
            )


def one_line(message: str) -> str:
    """What is wrong and what the choices are, out of jsonargparse's many lines.

    >>> print(one_line("Errors:\\n  - lr must be above 0\\n  - Expected a <class 'NoneType'>"))
    lr must be above 0
    """
    kept = []
    for line in message.splitlines():
        line = line.replace("Does not validate against any of the Union subtypes", "").strip(" -")
        if line and not line.startswith(_NOISE):
            kept.append(line)
    text = " ".join(kept)
    if found := re.search(r"class_path '([\w.]+)': Option '(\w+)' is not accepted", text):
        path, option = found.groups()
        module, _, name = path.rpartition(".")
        choices = list(inspect.signature(getattr(sys.modules[module], name)).parameters)
        return f"{path} has no option {option!r}{_near(option, choices)}"
    if found := re.search(r"(?:Expected a dot import path string|Import of): ?(\w+)", text):
        names = [kind.__name__ for base in (Method, Backbone, View) for kind in _concrete(base)]
        return f"no class {found[1]!r}{_near(found[1], names)}"
    if found := re.search(r"unrecognized arguments: (\S+)", text):
        option = found[1].partition("=")[0]
        close = difflib.get_close_matches(option, _options(), 1)
        near = f": did you mean {close[0]}?" if close else "; --help_all lists what there is"
        return f"no option {option}{near}"
    return text


_NOISE = (
    "Subtypes:",
    "Errors:",
    "Given value",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
)


def _near(given: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(given, choices, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{hint}; choose from {', '.join(choices)}"


def _concrete(base: type) -> list[type]:
    kinds = [kind for child in base.__subclasses__() for kind in (child, *_concrete(child))]
    return [kind for kind in kinds if not inspect.isabstract(kind)]


def _options() -> list[str]:
    groups = {"data": DataModule, "trainer": Trainer}
    return ["--name", "--out", "--wandb", "--online_every", "--config", "--resume"] + [
        f"--{group}.{option}"
        for group, kind in groups.items()
        for option in inspect.signature(kind).parameters
    ]
