"""What stands on a command line, before anything heavy is imported: options and config files."""

import difflib
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


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


def read_configs(argv: list[str]) -> list[dict[str, Any]]:
    """The contents of every ``--config`` file, in order.

    Raises:
        ValueError: a file that is not a config.
    """
    configs = []
    for path in values(argv, "--config"):
        try:
            config = yaml.safe_load(Path(path).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a config: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path} is not a config: it holds no keys")
        configs.append(config)
    return configs
