"""A backbone for other libraries: plain torchvision or timm, ONNX; each compared with it."""

import importlib.util
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from sslkit.backbones import Backbone, ResNet, Timm
from sslkit.training.checkpoint import load_backbone
from sslkit.training.files import write_atomically

NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31  # bytes, of a protobuf message, which an ONNX file is
SAME = 1e-5  # relative, of the same weights in the same library
CLOSE = 1e-4  # relative, of another library's kernels


def home_model(backbone: Backbone) -> nn.Module | None:
    """The architecture out of the library that it comes from, with fresh weights.

    Returns:
        Images (N, 3, H, W) to features (N, D), with the keys of ``backbone.export_state``; None
        for an architecture of sslkit's own.

    >>> model = home_model(ResNet("resnet18", stem="cifar"))
    >>> type(model).__module__, model(torch.zeros(2, 3, 32, 32)).shape
    ('torchvision.models.resnet', torch.Size([2, 512]))
    """
    if type(backbone) is Timm:
        return timm.create_model(backbone.name, num_classes=0, **backbone.options)
    if type(backbone) is not ResNet:
        return None
    model = getattr(torchvision.models, backbone.name)()
    model.fc = nn.Identity()
    if backbone.stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    return model


def check_weights(path: Path, backbone: Backbone, images: Tensor) -> str:
    """Load a ``.safetensors`` file without sslkit, where that is possible, and compare features.

    Args:
        path: of the file, its card beside it. backbone: what was exported.
        images: (N, 3, H, W), normalised.

    Returns:
        Which library loaded it, and how close its features are.

    Raises:
        ValueError: features further apart than 1e-5 of the largest.

    >>> import tempfile
    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.training import export_backbone
    >>> backbone, path = ResNet9(2), Path(tempfile.mkdtemp(), "backbone.safetensors")
    >>> export_backbone(backbone, path, {"size": 32, "normalize": "half"})
    >>> check_weights(path, backbone, torch.rand(2, 3, 32, 32))
    'features in sslkit equal to the last bit'
    """
    model = home_model(backbone)
    library = type(model).__module__.partition(".")[0] if model else "sslkit"
    if model is None:
        model, _ = load_backbone(path)
    else:
        model.load_state_dict(load_file(path))
    with torch.no_grad():
        found = model.eval()(images)
    return f"features in {library} {_compared(found, _features(backbone, images), SAME, path)}"


def require_onnx() -> None:
    """Raise ValueError, which says how to install it, where a package for ONNX is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {', '.join(missing)}, not installed: pip install 'sslkit[export]', or "
            "leave it out by --no_onnx"
        )


def export_onnx(
    backbone: Backbone, path: Path, size: int, about: Mapping[str, str] | None = None
) -> None:
    """Write the backbone as an ONNX graph of one file, atomically.

    Its input "images" is float32 (batch, 3, size, size), normalised, of any batch; its output
    "features" is (batch, D).

    Args:
        about: what to write into the file's own metadata.

    Raises:
        ValueError: a package is missing, or the architecture cannot be exported.
    """
    require_onnx()
    import onnx

    frozen, images = deepcopy(backbone).cpu().eval(), torch.zeros(2, 3, size, size)
    if sum(value.nbytes for value in frozen.state_dict().values()) >= LARGEST:
        raise ValueError(
            "the weights are over the 2 GiB of an ONNX file: leave it out by --no_onnx"
        )
    try:
        program = torch.onnx.export(
            frozen,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["features"],
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        kind = type(backbone).__name__
        raise ValueError(f"{kind} has no ONNX ({reason}): leave it out by --no_onnx") from error
    model = program.model_proto
    for part in (model.graph, *model.functions):
        for thing in (*part.node, *part.value_info):
            del thing.metadata_props[:]  # where in which file of this machine each comes from
    onnx.helper.set_model_props(model, {"made_with": "sslkit", **(about or {})})
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString())


def check_onnx(path: Path, backbone: Backbone, images: Tensor) -> str:
    """Run an ONNX file by onnxruntime, on all images and on one, and compare features.

    Args:
        path: of the file. backbone: what was exported. images: (N, 3, H, W), normalised.

    Returns:
        How close its features are.

    Raises:
        ValueError: features further apart than 1e-4 of the largest.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"images": part.numpy()})[0] for part in (images, images[:1])]
    found = torch.cat([torch.from_numpy(part) for part in parts])
    expected = _features(backbone, images)
    expected = torch.cat([expected, expected[:1]])
    return f"features in onnxruntime {_compared(found, expected, CLOSE, path)}"


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.no_grad():
        return deepcopy(backbone).cpu().eval()(images)


def _compared(found: Tensor, expected: Tensor, most: float, path: Path) -> str:
    if torch.equal(found, expected):
        return "equal to the last bit"
    largest = expected.abs().max().item()
    error = (found - expected).abs().max().item() / largest if largest else float("inf")
    if not error <= most:  # NaN too
        raise ValueError(
            f"{path.name} was not exported: its features differ from the backbone's by {error:.1e} "
            f"of the largest, and {most:g} is allowed"
        )
    return f"within {error:.1e} of the largest"
