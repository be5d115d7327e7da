"""Views a second of SimCLR's augmentation, and their memory, beside kornia, torchvision, lightly.

    pip install -e '.[bench]'
    python eval/benchmarks/views.py                   # eval/results/views.json and views.png
    python eval/benchmarks/views.py --device cuda --batches 2048 1024 256

Crop, flip, colour jitter, grayscale and, with --blur, blur: from uint8 images as large as the views
to a batch of normalised float32. In every repeat the contenders take turns in one process, after a
call that does not count; rates are medians over repeats. What is "one core" goes image by image on
one thread; the workers are those of a DataLoader, as many as there are cores, started beforehand;
both make batches of up to 64. A whole batch in torchvision shares one draw: its images all get the
same crop and colours, which is less than was asked for.

Memory is the peak, above the images, of making two views, over the bytes of the views themselves;
on a processor it is the median of three processes, each new but for a tiny call.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from records import RESULTS, at_least, command_line, provenance

from sslkit.views import NORMALIZATIONS, Augment, SimCLRViews

BATCHES = {32: 512, 96: 128, 224: 64}
FEW = 64  # images of a batch of who goes image by image
ROUNDS = 4  # batches that each worker makes in a call
MEAN, STD = NORMALIZATIONS["imagenet"]
OURS, SLICE, RESAMPLE = "sslkit", "kornia (slice)", "kornia (resample)"
WHOLE = "torchvision, whole batch, one draw"
Contender = Callable[[], int]  # makes views, and says how many


def strength(size: int) -> float:
    """SimCLR's of the colour jitter: a half on CIFAR-10, one on ImageNet."""
    return 0.5 if size <= 32 else 1.0


def factors(size: int) -> tuple[float, float, float, float]:
    s = strength(size)
    return 0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s


def sslkit(size: int, blur: bool) -> nn.Module:
    return Augment(
        size, jitter=factors(size), grayscale=0.2, blur=0.5 * blur, normalize=(MEAN, STD)
    )


def kornia(size: int, blur: bool, mode: str) -> nn.Module:
    """kornia's own classes, image by image or by one warp, as `cropping_mode` says."""
    import kornia.augmentation as K

    taps = size // 20 * 2 + 1
    return nn.Sequential(
        K.RandomResizedCrop((size, size), cropping_mode=mode),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*factors(size), p=0.8),
        K.RandomGrayscale(p=0.2),
        *[K.RandomGaussianBlur((taps, taps), (0.1, 2.0), p=0.5)] * blur,
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )


def torchvision(size: int, blur: bool) -> Callable[[Any], Tensor]:
    """v2's transforms of a PIL image, or of a uint8 tensor."""
    from torchvision.transforms import v2

    taps = size // 20 * 2 + 1
    return v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*factors(size))], p=0.8),
            v2.RandomGrayscale(p=0.2),
            *[v2.RandomApply([v2.GaussianBlur(taps, (0.1, 2.0))], p=0.5)] * blur,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def lightly(size: int, blur: bool) -> Callable[[Any], Any]:
    """Two views of a PIL image."""
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(
        input_size=size, cj_strength=strength(size), gaussian_blur=0.5 if blur else 0.0
    )


@contextmanager
def one_core() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_by_one(transform: Callable[[Any], Any], images: Any) -> int:
    with one_core():
        views = [transform(image) for image in images]
        if isinstance(views[0], list):  # lightly makes two views of an image
            return sum(len(torch.stack(batch)) for batch in zip(*views, strict=True))
        return len(torch.stack(views))


class Transformed(Dataset):
    """Images, over and over, each transformed anew."""

    def __init__(self, images: list[Any], transform: Callable[[Any], Tensor], length: int) -> None:
        self.images, self.transform, self.length = images, transform, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Tensor:
        return self.transform(self.images[i % len(self.images)])


def on_workers(transform: Callable[[Any], Tensor], images: list[Any], workers: int) -> Contender:
    data = Transformed(images, transform, ROUNDS * workers * len(images))
    loader = DataLoader(data, len(images), num_workers=workers, persistent_workers=True)
    return lambda: sum(len(views) for views in loader)


def contenders(images: Tensor, blur: bool) -> dict[str, Contender]:
    """Everyone, from the same images; without those of a processor where they are elsewhere."""
    size = images.shape[-1]
    ours, theirs, batched = sslkit(size, blur), torchvision(size, blur), torchvision(size, blur)
    of_kornia = {
        name: kornia(size, blur, mode).to(images.device)
        for name, mode in ((SLICE, "slice"), (RESAMPLE, "resample"))
    }
    on_batches: dict[str, Contender] = {
        OURS: lambda: len(ours(images)),
        SLICE: lambda: len(of_kornia[SLICE](images.float() / 255)),
        RESAMPLE: lambda: len(of_kornia[RESAMPLE](images.float() / 255)),
        WHOLE: lambda: len(batched(images)),
    }
    if images.is_cuda:
        return on_batches
    from torchvision.transforms.v2.functional import to_pil_image

    few = images[:FEW]
    pictures = [to_pil_image(image) for image in few]
    peer = lightly(size, blur)
    return on_batches | {
        "torchvision, tensors, one core": lambda: one_by_one(theirs, few),
        "torchvision, PIL, one core": lambda: one_by_one(theirs, pictures),
        "torchvision, PIL, workers": on_workers(theirs, pictures, torch.get_num_threads()),
        "lightly, PIL, one core": lambda: one_by_one(peer, pictures),
    }


def smooth(n: int, size: int) -> Tensor:
    """(n, 3, size, size) in uint8, with patches of colour such as pictures have."""
    patches = torch.rand(n, 3, max(size // 8, 1), max(size // 8, 1))
    return F.interpolate(patches, (size, size), mode="bilinear").mul_(255).byte()


def waiting(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def rate(contender: Contender, seconds: float, device: str) -> float:
    """Views a second, of at least one call."""
    wait = waiting(device)
    contender()
    wait()
    views, started = 0, time.perf_counter()
    while not views or time.perf_counter() - started < seconds:
        views += contender()
        wait()
    return views / (time.perf_counter() - started)


@torch.no_grad()
def rates(size: int, batch: int, args: argparse.Namespace, bar: Any) -> dict[str, float]:
    """The median views a second of contenders that take turns."""
    torch.manual_seed(0)
    who = contenders(smooth(batch, size).to(args.device), args.blur)
    found: dict[str, list[float]] = {name: [] for name in who}
    for _ in range(args.repeats):
        for name, contender in who.items():
            bar.set_postfix_str(f"{size} px, {name}")
            found[name].append(rate(contender, args.seconds, args.device))
            bar.update()
    return {name: significant(statistics.median(values)) for name, values in found.items()}


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


@torch.no_grad()
def memory(name: str, size: int, batch: int, device: str, blur: bool) -> float:
    """Peak memory of making two views of a batch, over the bytes of the views."""
    torch.manual_seed(0)
    make: Callable[[Tensor], Any] = SimCLRViews(size, jitter=strength(size), blur=blur)
    if name != OURS:
        steps = kornia(size, blur, "slice" if name == SLICE else "resample").to(device)

        def make(images: Tensor) -> tuple[Tensor, Tensor]:
            images = images.float() / 255
            return steps(images), steps(images)

    shape = (batch, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    make(images[:4])
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status("VmRSS")
        views = make(images)
        peak = status("VmHWM") - before
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        views = make(images)
        peak = torch.cuda.max_memory_allocated() - before
    return round(peak / sum(view.nbytes for view in views), 2)


def in_a_process(function: Callable[..., float], *call: Any) -> float:
    """The result of a fork, which is like a fresh process while this one has not worked yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        return process.submit(function, *call).result()


def memories(size: int, batch: int, args: argparse.Namespace, bar: Any) -> dict[str, float]:
    """Those of ours and kornia's."""
    found = {}
    for name in (OURS, SLICE, RESAMPLE):
        bar.set_postfix_str(f"{size} px, memory, {name}")
        call = (name, size, batch, args.device, args.blur)
        if args.device == "cpu":
            found[name] = statistics.median(in_a_process(memory, *call) for _ in range(3))
        else:
            found[name] = memory(*call)
        bar.update()
    return found


def training_step(model: nn.Module, images: Tensor, blur: bool, rounds: int = 10) -> dict[str, Any]:
    """Two views of a batch beside a model in bf16, forward and backward, on one of them."""
    device = images.device.type
    views = SimCLRViews(images.shape[-1], blur=blur)

    def step() -> None:
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = model(view).square().mean()
        loss.backward()

    view, _ = views(images)
    taken: dict[str, list[float]] = {"two views": [], "forward and backward": []}
    wait = waiting(device)
    for _ in range(3 + rounds):
        for name, work in zip(taken, (lambda: views(images), step), strict=True):
            wait()
            started = time.perf_counter()
            work()
            wait()
            taken[name].append(1e3 * (time.perf_counter() - started))
    medians = {name: significant(statistics.median(ms[3:])) for name, ms in taken.items()}
    share = medians["two views"] / sum(medians.values())
    return {"batch": len(images), "milliseconds": medians, "share of views": round(share, 4)}


def draw(record: dict[str, Any], path: Path) -> None:
    """Views a second, a panel a size."""
    from matplotlib.figure import Figure

    sizes = record["sizes"]
    names = list(next(iter(sizes.values()))["views per second"])
    figure = Figure((2.8 + 3 * len(sizes), 1.4 + 0.33 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, (size, cell) in zip(panels, sizes.items(), strict=True):
        values = cell["views per second"].values()
        colours = ["#0072b2" if name == OURS else "#b8bcc6" for name in names]
        bars = axes.barh(names, values, color=colours, height=0.7)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
        axes.set(xscale="log", xlim=(min(values) / 3, max(values) * 5))
        axes.set_title(f"{size} px, batches of {cell['batch']}")
        axes.tick_params("y", length=0)
        axes.minorticks_off()
        axes.grid(axis="x", color="#d9d9e0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].invert_yaxis()
    blur = ", with blur" if record["blur"] else ""
    figure.suptitle(f"SimCLR's views a second{blur}, {record['hardware']}")
    figure.savefig(path, dpi=110)


def arguments(argv: list[str] | None) -> tuple[argparse.Namespace, str]:
    """The options, and the command that repeats them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", nargs="+", type=at_least(8, int), default=list(BATCHES), help="pixels of a side")
    add("--batches", nargs="+", type=at_least(1, int), help="images of a batch, for each size")
    add("--repeats", type=at_least(1, int), default=5, help="turns of each contender")
    add("--seconds", type=at_least(0, float), default=0.5, help="least time of a turn")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--blur", action="store_true", help="blur half of the views")
    add("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args(argv)
    command = command_line("eval/benchmarks/views.py", args, parser)
    args.batches = args.batches or [BATCHES.get(size, 64) for size in args.sizes]
    if len(args.batches) != len(args.sizes):
        parser.error(f"{len(args.batches)} --batches for {len(args.sizes)} --sizes")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    if args.results.exists() and not args.results.is_dir():
        parser.error(f"--results: {args.results} is no folder")
    return args, command


def main(argv: list[str] | None = None) -> None:
    args, command = arguments(argv)
    record = provenance(command)
    record["versions"] |= {name: version(name) for name in ("lightly", "pillow")}
    sizes: dict[str, Any] = {}
    record |= {"cores": torch.get_num_threads(), "blur": args.blur, "sizes": sizes}
    args.results.mkdir(parents=True, exist_ok=True)
    stem = "views" + "_blur" * args.blur + "_cuda" * (args.device == "cuda")
    path = args.results / f"{stem}.json"
    turns = args.repeats * (4 if args.device == "cuda" else 8)
    with tqdm(total=len(args.sizes) * (3 + turns), unit="cell") as bar:
        peaks = [  # first, see in_a_process
            memories(size, batch, args, bar)
            for size, batch in zip(args.sizes, args.batches, strict=True)
        ]
        for size, batch, peak in zip(args.sizes, args.batches, peaks, strict=True):
            found = rates(size, batch, args, bar)
            sizes[str(size)] = {
                "batch": batch,
                "views per second": found,
                "ours over theirs": {
                    name: significant(found[OURS] / value)
                    for name, value in found.items()
                    if name != OURS
                },
                "peak memory over views": peak,
            }
            path.write_text(json.dumps(record, indent=2) + "\n")
    if args.device == "cuda":
        from torchvision.models import resnet50

        model = resnet50().to("cuda", memory_format=torch.channels_last)
        record["training step"] = training_step(model, smooth(256, 224).cuda(), args.blur)
        path.write_text(json.dumps(record, indent=2) + "\n")
    draw(record, path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main()
