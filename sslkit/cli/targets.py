"""The backbone that a command is given: of a run or a file, of timm or torchvision, or random."""

import http.client
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
import torchvision
import yaml

from sslkit.backbones import Backbone, ResNet, Timm, build, describe
from sslkit.data.network import answers
from sslkit.training import load_backbone
from sslkit.training.weights import check_fit, read_weights

TIMEOUT = 8.0  # seconds without an answer before a download is given up
FIRST = {  # what "random" is where no target is before it
    "class_path": "sslkit.backbones.ResNet",
    "init_args": {"name": "resnet18", "stem": "cifar"},
}

Target = tuple[Backbone, dict[str, Any]]


def load_target(target: str, before: Target | None = None, seed: int = 0) -> Target:
    """A backbone by what it is called on the command line.

    Args:
        target: a run folder, a checkpoint or a ``.safetensors`` file of sslkit; the name of a timm
            model, also as ``timm:NAME``, or ``torchvision:NAME``, a ResNet, for that library's
            own weights, ``NAME.TAG`` for those of a tag, and ``timm:NAME=FILE`` or
            ``torchvision:NAME=FILE`` for a state dict on disk; or ``random``.
        before: what this returned of the target before: ``random`` is of its architecture.
        seed: of the random weights.

    Returns:
        The backbone, on the CPU, and a card that says at least its "size" and "normalize".

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no such target, or weights that cannot be had or do not fit.

    >>> backbone, card = load_target("random")
    >>> backbone.feature_dim, card["size"]
    (512, 32)
    """
    if target == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = build(describe(before[0]) if before else FIRST)
        return backbone, before[1] if before else {"size": 32, "normalize": "cifar10"}
    library, _, rest = target.partition(":")
    if library in ("timm", "torchvision"):
        name, _, file = rest.partition("=")
        return (_timm if library == "timm" else _torchvision)(name, file)
    if _is_path(target):
        return load_backbone(target)
    if timm.is_model(target):
        return _timm(target, "")
    raise ValueError(
        f"no target {target!r}: it is neither a run folder, a checkpoint, a .safetensors file, "
        "a timm model's name, torchvision:NAME, one of these two with =FILE, nor 'random'"
    )


def _is_path(target: str) -> bool:
    return Path(target).exists() or "/" in target or target.endswith((".ckpt", ".safetensors"))


def _timm(name: str, file: str) -> Target:
    if file:
        backbone = Timm(name)
        heads = backbone.model.pretrained_cfg.get("classifier") or ()
        heads = [heads] if isinstance(heads, str) else heads
        _fill(backbone, file, heads, f"timm's {name}")
    else:
        if not answers(huggingface_hub.constants.ENDPOINT):
            huggingface_hub.constants.HF_HUB_OFFLINE = True  # its cache alone, without retries
        try:
            with _patience():
                backbone = Timm(name, pretrained=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise ValueError(_unobtainable("timm", name, error)) from None
    config = backbone.model.pretrained_cfg
    card = {"size": config["input_size"][-1], "normalize": (config["mean"], config["std"])}
    return backbone, card


def _torchvision(name: str, file: str) -> Target:
    name, _, tag = name.partition(".")
    backbone = ResNet(name)
    known = torchvision.models.get_model_weights(name)
    if tag and tag not in known.__members__:
        tags = ", ".join(weights.name for weights in known)
        raise ValueError(f"torchvision has no weights {tag!r} of {name}; choose from {tags}")
    weights = known[tag] if tag else known.DEFAULT
    _fill(backbone, file or _downloaded(weights, name), ["fc"], f"torchvision's {name}")
    view = weights.transforms()
    return backbone, {"size": view.crop_size[0], "normalize": (view.mean, view.std)}


def _fill(backbone: Backbone, file: str | Path, heads: list[str], architecture: str) -> None:
    """Load a file of the library's own keys; a classifier, which no backbone has, is left out."""
    heads = tuple(f"{head}." for head in heads)
    state = {k: v for k, v in read_weights(file).items() if not k.startswith(heads)}
    check_fit(backbone.export_state(), state, f"{file}, loaded into {architecture},")
    backbone.load_exported(state)


def _downloaded(weights: Any, name: str) -> Path:
    """The file in torch's cache, fetched into it where it is not there yet."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if file.is_file():
        return file
    try:
        if not answers(weights.url):
            raise OSError(f"no answer from {weights.url}")
        with _patience():
            torch.hub.load_state_dict_from_url(
                weights.url,
                map_location="cpu",
                progress=sys.stderr.isatty(),
                check_hash=True,
                weights_only=True,
            )
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ValueError(_unobtainable("torchvision", name, error)) from None
    return file


def _unobtainable(library: str, name: str, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"{library}'s weights for {name!r} cannot be had: {reason}; "
        f"{library}:{name}=FILE takes them from a file"
    )


@contextmanager
def _patience() -> Iterator[None]:
    """Sockets that are made meanwhile give up after ``TIMEOUT``."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def seed_of(folder: Path | None) -> int:
    """The seed of a run folder, which the random weights that it is compared with have too."""
    config = folder / "config.yaml" if folder else None
    kept = yaml.safe_load(config.read_text()) if config and config.is_file() else {}
    return int(kept.get("seed_everything") or 0)


def device_of(name: str | None) -> str:
    """The device, by default a GPU where there is one; ValueError where it cannot be used."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here: {reason}") from None
    return name


def weights_of(target: str) -> str:
    """Where the weights of a target that was loaded come from.

    >>> [weights_of(target) for target in ("random", "torchvision:resnet50", "resnet50", "a/b")]
    ['random', 'torchvision', 'timm', 'trained']
    """
    library = target.partition(":")[0]
    if target == "random" or library in ("timm", "torchvision"):
        return library
    return "trained" if _is_path(target) else "timm"


def file_name(target: str) -> str:
    """A target as a part of a file's name.

    >>> file_name("runs/x y"), file_name("torchvision:resnet50")
    ('runs_x_y', 'torchvision_resnet50')
    """
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in target)
