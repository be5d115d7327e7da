"""kNN accuracy over training time on CIFAR-10, beside lightly: eval/results/time_to_accuracy.json.

    pip install -e '.[bench]'
    python eval/benchmarks/time_to_accuracy.py             # and time_to_accuracy.png
    python eval/benchmarks/time_to_accuracy.py --seconds 6 --points 2 --width 4 --seeds 0

Three arms train the backbone of `--config` from the same weights: SimCLR of lightly, as its
documentation and its CIFAR-10 benchmark set it up (a plain loop, two workers); SimCLR of sslkit
with the same settings; and `--config`, its warm-up, decay and sizes over the run's own length.
Each run has a fresh process, one after the other. It first measures what a step takes, loading
included, and plans as many as fill its time; the true time is recorded. The clock counts training
alone: it starts before the first batch and stands still while the network is judged (meanwhile
lightly's workers may fetch four batches ahead). Imports, reading and set-up are in "seconds before
the first step"; measuring and judging, which are this benchmark's, are in neither.

No test image is read. The last `--held-out` training images, on which no arm trains, are classified
by the vote of 10,000 others, each arm's with the statistics that its views are normalised by. The
record is written after each run; started again, the script goes on where it was.
"""

import argparse
import copy
import dataclasses
import functools
import importlib
import itertools
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.curves import LIGHTLY, RECIPE, SAME, Curve, Record, draw, summary, table
from records import (
    RESULTS,
    at_least,
    command_line,
    commit,
    held_out_cifar10,
    provenance,
    read_record,
)

# What one arm needs and another does not is imported where it does: it counts for that arm.

# Takes steps, what to call before the first, and after each with its number: it says when to stop.
Train = Callable[[int, Callable[[], None], Callable[[int], bool]], None]
SIZE, TEMPERATURE, MOMENTUM, DECAY = 32, 0.5, 0.9, 5e-4  # lightly's
RATE = 0.06 / 128  # times the batch
ENDLESS = 10**9  # steps
WARM = 5  # steps before steps are timed: lightly's workers have four batches ready


def now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


class Views(NamedTuple):
    """What a run shows: smaller sizes, if any, for a share of its steps, the full one last."""

    normalize: Any
    sizes: list[int]
    share: float = 0.0
    resize: Callable[[int], None] = lambda size: None


class Meter:
    """Seconds a step, measured for so long."""

    def __init__(self, seconds: float, cuda: bool) -> None:
        self.seconds, self.cuda = seconds, cuda

    def stepped(self, done: int) -> bool:
        """Whether that was enough."""
        if done == WARM:
            self.since = now(self.cuda)
        enough = done >= WARM + 3 and time.perf_counter() - self.since >= self.seconds
        if enough:
            self.cost = (now(self.cuda) - self.since) / (done - WARM)
        return enough


class Watch:
    """The clock of a run, which stands still while the network is judged."""

    def __init__(self, steps: int, points: int, judge: Callable[[], float], cuda: bool) -> None:
        self.steps, self.judge, self.cuda = steps, judge, cuda
        self.marks = {round(steps * (i + 1) / points) for i in range(points)}
        self.curve: Curve = []
        self.seconds = 0.0

    def start(self) -> None:
        self.bar = tqdm(total=self.steps, unit="step", position=1, leave=False, disable=None)
        self.began, self.since = time.time(), now(self.cuda)

    def stepped(self, done: int) -> bool:
        """Whether that was the last."""
        self.bar.update()
        if done in self.marks:
            self.seconds += now(self.cuda) - self.since
            self.curve.append([round(self.seconds, 2), round(self.judge(), 2)])
            self.since = now(self.cuda)
        return done == self.steps


def planned(seconds: float, costs: list[float], share: float, points: int) -> int:
    """Steps that take so many seconds, one for each point of the curve at least.

    Args:
        costs: seconds a step at each size of views, the full one last.
        share: of the steps that are divided evenly among the smaller sizes.
    """
    *small, full = costs
    mean = share * statistics.mean(small) + (1 - share) * full if small else full
    return max(points, round(seconds / mean))


data = functools.cache(held_out_cifar10)


class Run:
    """What a process is given: arm, budget in seconds, seed, and the settings of the record."""

    def __init__(self, job: Record) -> None:
        self.job, self.settings = job, job["settings"]
        self.arm, self.budget, self.seed = job["arm"], job["budget"], job["seed"]
        self.device, self.cuda = self.settings["device"], self.settings["device"] == "cuda"
        self.sizes = self.settings["images"], self.settings["held out"]
        torch.manual_seed(self.seed)
        spec = self.settings["backbone"]
        module, _, name = spec["class_path"].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        self.backbone = kind(**spec.get("init_args", {}))

    def accuracy(self, normalize: Any) -> float:
        """Of kNN on the held-out images, in percent."""
        from sslkit.evaluation import KNN, extract
        from sslkit.views import EvaluationView

        view, parts = EvaluationView(SIZE, normalize), data(*self.sizes)[1:]
        bank, asked = (extract(self.backbone, x, view, device=self.device) for x in parts)
        return KNN(min(200, len(bank.labels))).fit(*bank).score(*asked)

    def timed(self, train: Train, model: nn.Module, batch: int, views: Views) -> Record:
        """Measure what a step takes, plan, and train by the clock."""
        normalize, sizes, share, resize = views
        before, state, costs = time.time(), copy.deepcopy(model.state_dict()), []
        for size in sizes:
            resize(size)
            meter = Meter(min(10.0, self.budget / 10) / len(sizes), self.cuda)
            train(ENDLESS, lambda: None, meter.stepped)
            costs.append(meter.cost)
        model.load_state_dict(state)
        torch.manual_seed(self.seed)
        points, measuring = self.settings["points"], time.time() - before
        steps = planned(self.budget, costs, share, points)
        watch = Watch(steps, points, lambda: self.accuracy(normalize), self.cuda)
        train(steps, watch.start, watch.stepped)
        watch.bar.close()
        images = steps * batch
        return {
            **{"arm": self.arm, "budget": self.budget, "seed": self.seed},
            **{"curve": watch.curve, "seconds": round(watch.seconds, 2), "images": images},
            "epochs": round(images / (self.sizes[0] - self.sizes[1]), 2),
            "images per second": float(f"{images / watch.seconds:.4g}"),
            "seconds before the first step": round(watch.began - self.job["began"] - measuring, 1),
        }


def lightly(run: Run) -> Record:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import CIFAR10

    dim, batch, device = run.backbone.feature_dim, run.settings["batch"], run.device
    model = nn.Sequential(run.backbone, SimCLRProjectionHead(dim, dim, 128)).to(device)
    transform = SimCLRTransform(input_size=SIZE, gaussian_blur=0.0)
    images = CIFAR10(run.job["root"], transform=transform)
    images = Subset(images, range(run.sizes[0] - run.sizes[1]))
    options = {"shuffle": True, "drop_last": True, "num_workers": 2, "persistent_workers": True}
    criterion, lr = NTXentLoss(), RATE * batch

    def train(steps: int, start: Any, stepped: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr, MOMENTUM, weight_decay=DECAY)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        loader: Any = DataLoader(images, batch, **options)  # no batch is left in it from before
        first, others = iter(loader), itertools.chain.from_iterable(itertools.repeat(loader))
        start()
        for done, ((x0, x1), _) in enumerate(itertools.chain(first, others), 1):
            x0, x1 = x0.to(device), x1.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=run.cuda):
                loss = criterion(model(x0), model(x1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            if stepped(done):
                return

    return run.timed(train, model, batch, Views("imagenet", [SIZE]))


def same_settings(run: Run) -> tuple[Any, int, float, list[Any], Record]:
    """Our SimCLR as lightly's: method, batch, share of steps to warm up, callbacks, trainer."""
    from sslkit.methods import SimCLR
    from sslkit.training import Optimizer
    from sslkit.views import SimCLRViews

    class LightlysSGD(Optimizer):
        """Without Nesterov's step, and all parameters decay."""

        def build(
            self, module: nn.Module, batch_size: int, rates: Any = None
        ) -> torch.optim.Optimizer:
            lr, decay = RATE * batch_size, self.weight_decay
            return torch.optim.SGD(module.parameters(), lr, self.momentum, weight_decay=decay)

    view = SimCLRViews(SIZE, jitter=1.0, blur=False, normalize="cifar10")
    optimizer = LightlysSGD(name="sgd", momentum=MOMENTUM, weight_decay=DECAY)
    method = SimCLR(run.backbone, view, optimizer, temperature=TEMPERATURE)
    return method, run.settings["batch"], 0.0, [], {}


def our_recipe(run: Run) -> tuple[Any, int, float, list[Any], Record]:
    """The same of the config."""
    from sslkit.callbacks import CompiledBackbone
    from sslkit.cli.config import parse

    cli = parse([*run.job["argv"], "--seed_everything", str(run.seed)])
    cli.model.backbone.load_state_dict(run.backbone.state_dict())
    run.backbone, options = cli.model.backbone, dict(cli.config_init.trainer.items())
    given = options.pop("callbacks") or []
    callbacks = [*(given if isinstance(given, list) else [given])]
    callbacks += [CompiledBackbone()] * cli.config.compile
    warmup = cli.model.optimizer.warmup_epochs / options["max_epochs"]
    return cli.model, cli.datamodule.batch_size, warmup, callbacks, options


def sslkit(run: Run) -> Record:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import LambdaCallback

    from sslkit.callbacks import ProgressiveResizing
    from sslkit.data import BatchOrder, Loader
    from sslkit.training import keep_freed_memory

    keep_freed_memory()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    build = same_settings if run.arm == SAME else our_recipe
    method, batch, warmup, callbacks, options = build(run)
    method.seed, images = run.seed, data(*run.sizes)[0].to(run.device)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options |= {"max_epochs": -1, "devices": 1, **dict.fromkeys(off, False)}
    options |= {"accelerator": "gpu" if run.cuda else "cpu"}
    options |= {"precision": "bf16-mixed"} if run.cuda else {}
    resizing = next((c for c in callbacks if isinstance(c, ProgressiveResizing)), None)

    def train(steps: int, start: Any, stepped: Any) -> None:
        torch.compiler.reset()  # as in a fresh process

        def after(trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = stepped(trainer.global_step)

        loader = Loader(images, BatchOrder(len(images), batch, seed=run.seed))
        epochs = warmup * steps / len(loader)
        method.optimizer = dataclasses.replace(method.optimizer, warmup_epochs=epochs)
        hooks = LambdaCallback(on_train_start=lambda *_: start(), on_train_batch_end=after)
        some = callbacks
        if steps == ENDLESS:  # one size at a time, and nothing that the run itself would inherit
            some = copy.deepcopy([c for c in callbacks if c is not resizing])
        own = {"max_steps": steps, "callbacks": [*some, hooks]}
        pl.Trainer(**{**options, **own}).fit(method, loader)

    def resize(size: int) -> None:
        for augment in method.view.augments:
            augment.resize(size)

    small, share = (resizing.sizes, resizing.share) if resizing else ([], 0.0)
    views = Views(method.view.normalize, [*small, method.view.size], share, resize)
    return run.timed(train, method, batch, views)


def in_a_process(job: Record) -> Record:
    text = json.dumps({**job, "began": time.time()})
    command = [sys.executable, str(Path(__file__).resolve()), "--job", text]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{job['arm']}, seed {job['seed']}, failed: it says why above")
    return json.loads(done.stdout.splitlines()[-1])


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=at_least(0.1, float), default=600.0, help="training time of a run")
    words = "ours train for SECONDS over each of these"
    add("--fractions", nargs="+", type=at_least(1), default=[1, 3], help=words)
    add("--points", type=at_least(1), default=8, help="of a curve")
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2])
    add("--config", default="simclr_cifar10_cpu", help="our recipe, and the backbone")
    add("--width", type=at_least(1), help="of the backbone; by default the config's")
    add("--batch", type=at_least(2), default=256, help="of lightly and of the same settings")
    add("--images", type=at_least(2), default=50_000, help="of the training split")
    add("--held-out", type=at_least(1), default=5000, help="of those, the last, to judge by")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--results", type=Path, default=RESULTS, help="folder of the record")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    return parser, args


def prepared(args: argparse.Namespace) -> Record:
    """What every job has: the settings of the record, and where things are on this machine.

    Raises:
        ValueError: a config or data that cannot be used. FileNotFoundError: they are not there.
    """
    from sslkit.cli.arguments import read_configs, with_config_files
    from sslkit.cli.config import parse
    from sslkit.data import load
    from sslkit.data.storage import data_root
    from sslkit.methods import SimCLR

    argv = with_config_files(["--config", args.config])
    recipe = read_configs(argv)[0]
    argv += ["--model.backbone.width", str(args.width)] if args.width else []
    cli = parse(argv)
    trainer, batch = cli.config.trainer, max(args.batch, cli.datamodule.batch_size)
    plain = (trainer.accumulate_grad_batches, trainer.limit_train_batches) == (1, None)
    if not isinstance(cli.model, SimCLR) or (trainer.max_epochs or 0) < 1 or not plain:
        raise ValueError(f"{args.config} must be of SimCLR and max_epochs, all batches, one a step")
    there = len(load("cifar10", "train"))
    if not batch <= args.images - args.held_out <= there - args.held_out:
        raise ValueError(
            f"--images {args.images} must be no more than the {there} there are, and without "
            f"--held-out {args.held_out} no fewer than a batch of {batch}"
        )
    settings = {k.replace("_", " "): v for k, v in vars(args).items() if k != "results"}
    settings |= {"backbone": cli.plain()["model"]["init_args"]["backbone"], "recipe": recipe}
    return {"argv": argv, "root": str(data_root()), "settings": settings}


def main(argv: list[str] | None = None) -> None:
    parser, args = arguments(argv)
    try:
        needed = prepared(args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    from sslkit.training import write_atomically

    path = args.results / f"time_to_accuracy{'_cuda' if args.device == 'cuda' else ''}.json"
    command = command_line("eval/benchmarks/time_to_accuracy.py", args, parser)
    record = {**provenance(command), "settings": needed["settings"], "runs": []}
    record["versions"]["lightly"] = version("lightly")
    if path.exists():
        try:
            old, new = read_record(path, "settings", "hardware", "versions", "runs"), record
        except ValueError as error:
            parser.error(str(error))
        for key in ("settings", "hardware", "versions"):
            if old[key] != new[key]:
                parser.error(f"{path} is of other {key}: move it away, or give another --results")
        record = old
    budgets = [round(args.seconds / fraction, 3) for fraction in args.fractions]
    arms = [(LIGHTLY, args.seconds), *((arm, b) for b in budgets for arm in (SAME, RECIPE))]
    jobs = list(dict.fromkeys((*arm, seed) for seed in args.seeds for arm in arms))
    done = [(run["arm"], run["budget"], run["seed"]) for run in record["runs"]]
    total, before = (round(sum(job[1] for job in some)) for some in (jobs, done))
    with tqdm(total=total, initial=before, unit=" s of training") as bar:
        for job in [job for job in jobs if job not in done]:
            given = dict(zip(("arm", "budget", "seed"), job, strict=True))
            record["runs"].append({**in_a_process({**needed, **given}), "commit": commit()})
            record["summary"] = summary(record["runs"])
            write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())
            bar.update(round(job[1]))
    draw(record, path.with_suffix(".png"))
    print(table(record), path, sep="\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        one = Run(json.loads(sys.argv[2]))
        print(json.dumps((lightly if one.arm == LIGHTLY else sslkit)(one)))
    else:
        main()
