"""The configuration of ``sslkit pretrain``, parsed, with mistakes told in one line."""

import argparse
import difflib
import inspect
import io
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from pydoc import ErrorDuringImport, locate
from typing import Any, Literal, get_type_hints

import pytorch_lightning as pl
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch import nn

from sslkit import backbones, losses, methods, miners, views
from sslkit.backbones import Backbone
from sslkit.callbacks import ProgressiveResizing
from sslkit.cli.arguments import read_configs, values
from sslkit.data import DataModule
from sslkit.methods import Method
from sslkit.methods.metric_learning import metric_losses
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
            "--start", type=str | None, default=None, help="begin with the weights of this target"
        )
        parser.add_argument(
            "--online_every", type=int, default=1, help="epochs between online signals; 0: none"
        )
        parser.add_argument(
            "--compile", type=bool, default=False, help="compile the backbone for training steps"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        super().parse_arguments(parser, args)
        # jsonargparse reads a limit of 1 batch as 1.0, which to Lightning is every batch.
        key = "limit_train_batches"
        given = [(config.get("trainer") or {}).get(key) for config in read_configs(args)]
        given += values(args, f"--trainer.{key}")
        if [str(value) for value in given if value is not None][-1:] == ["1"]:
            self.config.trainer[key] = 1

    def instantiate_classes(self) -> None:
        self.config_init = self.parser.instantiate(self.config)
        key = "limit_train_batches"  # which is parsed once more
        self.config_init.trainer[key] = self.config.trainer[key]
        self.model, self.datamodule = self.config_init.model, self.config_init.data

    def plain(self) -> dict[str, Any]:
        """The whole configuration as plain data, ready to be a config file again."""
        config = self.config.clone()
        config.pop("config", None)
        return yaml.safe_load(self.parser.dump(config, skip_unset=False, skip_validation=True))


def parse(argv: list[str], own: Sequence[str] = ()) -> PretrainCLI:
    """Model and data from the command line.

    Args:
        argv: options, with the files of configs; ``--help_all`` prints all there are and exits.
        own: options that a command took out of them, of which a message may remind.

    Raises:
        ValueError: an option or a value that is not valid, in one line.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    argv = ["--help" if arg == "--help_all" else arg for arg in argv]
    try:
        _one_method(argv)
        _one_class_each(argv)
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
        raise ValueError(one_line(str(error), own)) from error
    sys.stderr.write(said.getvalue())  # without the usage that goes with an error
    return cli


def _one_method(argv: list[str]) -> None:
    """Refuse another method over a config's: jsonargparse would drop its arguments silently."""
    models = [(config.get("model") or {}).get("class_path") for config in read_configs(argv)]
    models += [*values(argv, "--model"), *values(argv, "--model.class_path")]
    first, *others = [model for model in models if model] or [""]
    known = [kind.__name__ for kind in _concrete(Method)]
    for other in others:
        name = other.rpartition(".")[2]
        if name not in known and "." not in other:
            raise ValueError(f"no method {other!r}{_near(other, known)}")
        if name != first.rpartition(".")[2]:
            raise ValueError(
                f"--model {other} over the config's {first} would drop the config's model "
                "arguments: use a config of that method"
            )


def _one_class_each(argv: list[str]) -> None:
    """Refuse another class for an option over a config's, if it would take arguments from it.

    Those of its base, such as a view's size, mean the same in both. Losses have no such base: of
    them another takes some and loses the others, so any is refused.
    """
    models = [config.get("model") or {} for config in read_configs(argv)]
    argv = [arg.replace(".init_args.", ".") for arg in argv]
    for model in models:
        method = _class_named(model.get("class_path", ""))
        wanted = get_type_hints(method.__init__) if method else {}
        for option, found in (model.get("init_args") or {}).items():
            key, base = f"--model.{option}", wanted.get(option, object)
            if not (isinstance(base, type) and isinstance(found, dict) and "class_path" in found):
                continue
            kind = found["class_path"]
            for other in [*values(argv, key), *values(argv, f"{key}.class_path")]:
                taker = _class_named(other)
                if not taker or taker is _class_named(kind) or not issubclass(taker, base):
                    continue
                taken = inspect.signature(taker).parameters.keys()
                taken -= inspect.signature(base).parameters.keys()
                kept = [
                    x
                    for x in found.get("init_args") or {}
                    if (x in taken or base is nn.Module) and not values(argv, f"{key}.{x}")
                ]
                if kept:
                    raise ValueError(
                        f"{key} {other} over the config's {kind} would mix what it says of that "
                        f"({', '.join(kept)}) with the other's own: use a config of that {option}"
                        + (
                            ""
                            if base is nn.Module
                            else f", or give {' and '.join(f'{key}.{x}' for x in kept)} too"
                        )
                    )


def one_line(message: str, own: Sequence[str] = ()) -> str:
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
    # Where a callback is wanted, its base is tried too: a class without options.
    text, based = re.subn(f" ?{_OF_A_CALLBACK}", "", text)
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    if based and "Problem with" not in text:
        return f"{keys[0]} has no callback yet: put --{keys[0]}+=NAME before its options"
    if found := re.search(r"class_path '([\w.]+)': Option '(\w+)' is not accepted", text):
        path, option = found.groups()
        choices = list(inspect.signature(_class(path)).parameters)
        return f"{path} has no option {option!r}{_near(option, choices)}"
    if found := re.search(r"(?:Expected a dot import path string|Import of): ?(\w+)", text):
        key = keys[-1] if keys else ""
        names = _choices(key)
        if key == "trainer.callbacks":
            names = sorted([*pl.callbacks.__all__, ProgressiveResizing.__name__])
        taker = re.search(r"class_path '([\w.]+)':", text)
        if taker and found[1] in names:  # a class that there is, but this is no place for it
            names = [k.__name__ for k in _concrete(get_type_hints(_class(taker[1]).__init__)[key])]
            return f"{key} {found[1]} does not fit {taker[1]}; choose from {', '.join(names)}"
        return f"no class {found[1]!r}{_near(found[1], names)}"
    if found := re.search(r"module 'sslkit\.[\w.]+' has no attribute '(\w+)'", text):
        return f"no {keys[-1]} {found[1]!r}{_near(found[1], _choices(keys[-1]))}"
    if keys and (found := re.search(r'": (Expected .*?)(?:\. Got value: (.*))?$', text)):
        return _wanted(".".join(keys), found[1], found[2])
    if found := re.search(r"unrecognized arguments: (\S+)", text):
        option = found[1].partition("=")[0]
        close = difflib.get_close_matches(option, [*own, *_options()], 1, cutoff=0.7)
        near = f": did you mean {close[0]}?" if close else "; --help_all lists what there is"
        return f"no option {option}{near}"
    return text


_OF_A_CALLBACK = (
    r"Problem with given class_path 'pytorch_lightning\.Callback': Option '\w+' is not accepted"
)
_NOISE = (
    "a class path (str)",
    "a dict with",
    "Not a valid subclass of",
    "Subclass types expect",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
)


def _wanted(key: str, expected: str, given: str | None) -> str:
    names = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    names["collections.abc.Sequence"] = "a list"
    kinds = [names.get(kind, kind) for kind in re.findall(r"<class '([\w.]+)'>", expected)]
    if choices := re.findall(r"'([\w.-]+)'", re.sub(r"<class '[\w.]+'>", "", expected)):
        kinds = [f"one of {', '.join(choices)}"]
    return f"{key} must be {' or '.join(dict.fromkeys(kinds))}{f', not {given}' if given else ''}"


def _choices(key: str) -> list[str]:
    """The classes, or functions, that an option takes."""
    if key == "loss":
        return [f"sslkit.losses.{name}" for name in metric_losses()]
    if key == "miner":
        found = [name for name in miners.__all__ if name not in ("Pairs", "Triplets")]
        return [f"sslkit.miners.{name}" for name in found]
    base = {"backbone": Backbone, "view": View}.get(key, Method)
    return [kind.__name__ for kind in _concrete(base)]


def _near(given: str, choices: list[str]) -> str:
    names = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(given, names, 1)
    hint = f" (did you mean {names[close[0]]}?)" if close else ""
    return f"{hint}; choose from {', '.join(choices)}"


def _class_named(path: Any) -> type | None:
    """A class by its path, or one of sslkit's by its name; None if there is none."""
    if not isinstance(path, str):
        return None
    named = [vars(room).get(path) for room in (backbones, losses, methods, views)]
    try:
        found = next(filter(None, named), None) or ("." in path and locate(path))
    except ErrorDuringImport:
        return None
    return found if isinstance(found, type) else None


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules[module], name)


def _concrete(base: type) -> list[type]:
    kinds = [base, *(kind for child in base.__subclasses__() for kind in _concrete(child))]
    return [kind for kind in kinds if not inspect.isabstract(kind)]


def _options() -> list[str]:
    groups = {"data": DataModule, "trainer": Trainer}
    own = [
        "--name",
        "--out",
        "--wandb",
        "--online_every",
        "--compile",
        "--config",
        "--resume",
        "--start",
    ]
    return [*own, "--profile-step"] + [
        f"--{group}.{option}"
        for group, kind in groups.items()
        for option in inspect.signature(kind).parameters
    ]
