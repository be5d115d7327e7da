import itertools
import json
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from sslkit.data import load
from sslkit.losses.multi_view import nt_xent_multi_view


@pytest.fixture
def recipe(script):
    return script("recipe")["main"].__globals__


@pytest.fixture
def step_costs(script):
    return script("step_costs")["main"].__globals__


def priced(step_costs, seconds=lambda part, setting: 1.0):
    """Costs of every part that is timed."""
    costs = {part: [] for part in step_costs["PARTS"]}
    for part, setting in step_costs["settings"]():
        costs[part].append({**setting, "seconds": seconds(part, setting)})
    whole = {"eager": 2.0, "bf16": 10.0, "compiled": 3.0}
    return {**costs, "whole step": whole, "width": 2, "hardware": "a", "commit": "b", "date": "c"}


def test_a_step_by_hand(step_costs):
    start, seconds = step_costs["START"], step_costs["seconds"]
    costs = priced(
        step_costs,
        lambda part, setting: {
            "views and backbone": setting.get("size", 0) / 32,
            "projector and loss": 0.25 if setting.get("loss") == "NT-Xent" else 0.5,
            "optimiser": 0.125 if setting.get("optimizer") == "adamw" else 0.75,
        }[part],
    )
    assert seconds(start, costs) == 1.0 + 0.25 + 0.125
    # 40 % at 16 px, 40 % at 24 px, 20 % at 32 px: 0.4 x 0.5 + 0.4 x 0.75 + 0.2 x 1
    small = {**start, "sizes": [16, 24], "share": 0.8, "optimizer": "muon"}
    assert seconds(small, costs) == pytest.approx(0.7 + 0.25 + 0.75)
    assert seconds({**start, "compiled": True}, costs) == 1.5 * seconds(start, costs)
    assert seconds({**start, "precision": "bf16"}, costs) == 5 * seconds(start, costs)
    with pytest.raises(KeyError, match="projector and loss"):
        seconds({**start, "hidden": 7}, costs)


def test_all_that_can_go_together_is_timed(recipe, step_costs):
    """One change of each kind, or none, in every combination."""
    costs, kinds = priced(step_costs), recipe["CHANGES"].values()
    costly = {"sizes", "batch", "views", "optimizer", "hidden", "loss", "precision", "compiled"}
    kinds = [[{}, *(change for change in kind if change.keys() & costly)] for kind in kinds]
    for changes in itertools.product(*kinds):
        made = {k: v for change in changes for k, v in change.items()}
        assert step_costs["seconds"]({**step_costs["START"], **made}, costs) > 0


@pytest.mark.parametrize("setting", [{"views": 4}, {"loss": "hard negatives"}, {"batch": 6}])
def test_every_part_is_timed_with_its_gradients(step_costs, monkeypatch, setting):
    made = []
    monkeypatch.setitem(step_costs, "START", {**step_costs["START"], "batch": 8})
    monkeypatch.setitem(step_costs, "_second", lambda call: made.append(call()) or 1.0)
    build = step_costs["simclr"]
    kept = []
    monkeypatch.setitem(step_costs, "simclr", lambda *of: kept.append(build(*of)) or kept[-1])
    for part in step_costs["PARTS"]:
        assert step_costs["timed"](part, {**setting, "size": 16}, 2) == 1.0
    views, head, _ = kept
    assert all(p.grad is not None for p in views.backbone.parameters())
    assert all(p.grad is not None for p in head.projector.parameters())
    assert all(p.grad is None for p in head.backbone.parameters())


def test_many_views_lose_the_mean_over_pairs(recipe):
    torch.manual_seed(0)
    for loss in ("decoupled", "hard negatives", "NT-Xent"):
        method = recipe["simclr"]({**recipe["START"], "views": 3, "loss": loss}, 1.0, 2)
        features = torch.randn(12, method.backbone.feature_dim)
        z = method.projector(features).chunk(3)
        pairs = [method.loss(z[i], z[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        expected = sum(pairs) / 3
        if loss == "NT-Xent":
            expected = nt_xent_multi_view(list(z), temperature=0.2)
        torch.testing.assert_close(method.contrast(features, 3), expected)


class Told:
    """A pool whose runs have the accuracy that a function says."""

    def __init__(self, accuracy):
        self.accuracy, self.jobs = accuracy, []

    def submit(self, run, job):
        self.jobs.append(job)
        future = Future()
        future.set_result({"seed": job["seed"], "accuracy": self.accuracy(job)})
        return future


def search(recipe, step_costs, accuracy, kinds, record=None):
    setup = {"seeds": [0, 1, 2], "seeds to confirm": [3], "least gain": 0.3, "seconds": 100.0}
    record = record or {"setup": setup, "alone": {}, "together": []}
    pool = Told(accuracy)
    found = recipe["Search"](record, priced(step_costs), pool, {"width": 2}, lambda: None)
    found.go(kinds)
    return record, pool.jobs


def test_what_only_helps_without_another_is_dropped_alone(recipe, step_costs):
    """Hard negatives and a low temperature help, not both; one goes, and the better one stays."""

    def accuracy(job):
        r = job["recipe"]
        cold, hard, muon = r["temperature"] == 0.1, r["loss"] == "hard negatives", r["lr"] == 0.006
        lucky = (r["crop"] == 0.08) * (1.0 if job["seed"] != 1 else -0.1)
        little = 0.2 * (r["jitter"] == 1.0)
        both = cold and hard
        return 50 + 3 * cold + 2 * hard - 4 * both + 5 * muon + lucky + little + job["seed"]

    kinds = ["optimiser and its rate", "temperature", "crop", "jitter", "loss"]
    record, jobs = search(recipe, step_costs, accuracy, kinds)
    alone = {key: {json.dumps(e["change"]): e for e in of} for key, of in record["alone"].items()}
    assert alone["loss"]['{"loss": "hard negatives"}']["gain"] == 2.0
    assert alone["crop"]['{"crop": 0.08}']["gain"] == 0.63  # one seed loses
    assert alone["jitter"]['{"jitter": 1.0}']["gain"] == 0.2  # too little
    first, second = record["together"]
    assert list(first["without"]) == ["optimiser and its rate", "temperature", "loss"]
    # Of all three (56): without temperature 57, without loss 58: only the worst of them goes.
    assert {kind: e["gain"] for kind, e in first["without"].items()} == {
        "optimiser and its rate": -5.0,
        "temperature": 1.0,
        "loss": 2.0,
    }
    assert list(second["without"]) == ["optimiser and its rate", "temperature"]
    changed = {"optimizer": "muon", "momentum": 0.95, "lr": 0.006, "temperature": 0.1}
    assert record["result"]["change"] == changed
    kept = [e for of in record["alone"].values() for e in of if e.get("kept")]
    assert [e["gain together"] for e in kept] == [5.0, 3.0]
    assert alone["loss"]['{"loss": "hard negatives"}']["gain together"] == -2.0
    assert alone["loss"]['{"loss": "hard negatives"}']["kept"] is False
    for entry in (record["start"], record["result"]):
        assert [run["seed"] for run in entry["runs"]] == [0, 1, 2, 3]
    assert {job["steps"] for job in jobs} == {33}  # of 3 s in 100 s
    trained = [(json.dumps(job["recipe"]), job["seed"]) for job in jobs]
    assert len(set(trained)) == len(trained)  # none twice: what was trained before is taken over
    before = json.dumps(record)
    again, jobs = search(recipe, step_costs, accuracy, kinds, json.loads(before))
    assert jobs == []
    assert json.dumps(again) == before


def test_a_table_by_hand(recipe, step_costs, script):
    def accuracy(job):
        cold = job["recipe"]["temperature"] == 0.1
        return 50.0 + 2 * cold - (job["recipe"]["temperature"] == 0.5) + cold * (job["seed"] == 3)

    record, _ = search(recipe, step_costs, accuracy, ["temperature", "bf16"])
    record["setup"] |= {"held out": 7, "costs": {"hardware": "a slow one"}}
    record |= {"hardware": "a quick one", "versions": {"torch": "1"}, "command": "x"}
    table = script("fast_tables")["recipe"]
    lines = table(record).splitlines()
    assert lines[2:] == [
        "| start |  | 1.00 | 33 | 50.0 50.0 50.0 |  |  |  |",
        "| temperature | temperature 0.1 | 1.00 | 33 | 52.0 52.0 52.0 | +2.0 | +2.0 | **kept** |",
        "|  | temperature 0.5 | 1.00 | 33 | 49.0 49.0 49.0 | -1.0 |  | dropped |",
        "| bf16 | precision bf16 | 5.00 | 7 | only timed |  |  | dropped |",
        "| result |  | 1.00 | 33 | 52.0 52.0 52.0 | +2.0 |  |  |",
        "",
        lines[-1],
    ]
    assert "As many steps as 100 s hold on a slow one" in lines[-1]
    assert (
        "On seeds that chose nothing (3): +3.0. Trained on a quick one, torch 1: `x`." in lines[-1]
    )
    del record["result"]
    assert table(record) == "Not measured yet."


def test_nothing_helps(recipe, step_costs):
    record, _ = search(recipe, step_costs, lambda job: 50.0, ["crop", "bf16"])
    assert record["result"]["change"] == {}
    assert not any(e.get("kept") for of in record["alone"].values() for e in of)
    (slow,) = record["alone"]["bf16"]
    assert slow["runs"] == []  # it computes the same and is slower
    assert slow["steps"] == 7  # 100 / (3 x 5)


def trained(recipe, monkeypatch, seed=1, **change):
    """What a run gave, and the trainer and the loader that it made."""
    made, loaders = [], []
    trainer, loader = recipe["pl"].Trainer, recipe["Loader"]
    monkeypatch.setattr(recipe["pl"], "Trainer", lambda **o: made.append(trainer(**o)) or made[-1])
    monkeypatch.setitem(recipe, "Loader", lambda *a: loaders.append(loader(*a)) or loaders[-1])
    job = {"recipe": {**recipe["START"], "batch": 16, **change}, "steps": 3, "width": 2}
    job |= {"images": 100, "held out": 20, "device": "cpu", "threads": torch.get_num_threads()}
    found = recipe["run"]({**job, "seed": seed})
    del found["seconds of the run"]
    monkeypatch.setattr(recipe["pl"], "Trainer", trainer)
    monkeypatch.setitem(recipe, "Loader", loader)
    return found, made[0], loaders[0]


def test_a_run_is_scored_on_images_it_did_not_see(recipe, cifar, monkeypatch):
    found, trainer, loader = trained(recipe, monkeypatch)
    assert found.keys() == {"seed", "accuracy"}
    assert found["accuracy"] / 5 == round(found["accuracy"] / 5)  # of 20 images
    assert trainer.global_step == 3
    whole = load("cifar10", "train")
    bank, held_out = recipe["data"](100, 20, "cpu")[1:]
    for part, rows in ((loader.dataset, slice(80)), (held_out, slice(80, 100)), (bank, slice(80))):
        assert torch.equal(torch.as_tensor(part.images), torch.as_tensor(whole.images[rows]))
        assert torch.equal(torch.as_tensor(part.labels), torch.as_tensor(whole.labels[rows]))
    assert trained(recipe, monkeypatch)[0] == found


def test_a_run_does_what_its_recipe_says(recipe, cifar, monkeypatch):
    change = {"sizes": [16], "share": 0.5, "EMA": 0.5, "views": 4, "precision": "bf16"}
    _, trainer, loader = trained(recipe, monkeypatch, **change)
    assert trainer.precision == "bf16-mixed"
    assert loader.batch_size == 8
    (resizing,) = (c for c in trainer.callbacks if type(c).__name__ == "ProgressiveResizing")
    assert (resizing.sizes, resizing.share) == ([16], 0.5)
    assert "EMAWeightAveraging" in [type(c).__name__ for c in trainer.callbacks]
    method = trainer.lightning_module
    assert len(method.view.augments) == 4
    assert isinstance(method.loss, recipe["simclr"].__globals__["NTXentLoss"])


def test_a_search_from_the_command_line(recipe, step_costs, cifar, monkeypatch, capsys):
    out = cifar / "results"
    out.mkdir()
    argv = ["--seconds", "9", "--images", "200", "--held-out", "40", "--seeds", "0"]
    argv += ["--confirm", "1", "--only", "schedule", "bf16", "--results", str(out)]
    with pytest.raises(SystemExit) as stopped:
        recipe["main"](argv)
    assert stopped.value.code == 2
    assert "step_costs.json is not there: run eval/step_costs.py first" in capsys.readouterr().err
    for text, said in (("[", "no record, not even JSON"), ("{}", "no record with width, whole")):
        (out / "step_costs.json").write_text(text)
        with pytest.raises(SystemExit) as stopped:
            recipe["main"](argv)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    few = {**priced(step_costs), "optimiser": []}
    (out / "step_costs.json").write_text(json.dumps(few))
    with pytest.raises(SystemExit) as stopped:
        recipe["main"](argv)
    assert stopped.value.code == 2
    assert "step_costs.json lacks optimiser of {'optimizer': 'adamw'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        recipe["main"]([*argv, "--seeds", "1"])
    assert stopped.value.code == 2
    assert "--seeds and --confirm must differ, not 1 1" in capsys.readouterr().err
    (out / "step_costs.json").write_text(json.dumps(priced(step_costs)))
    monkeypatch.setitem(recipe, "START", {**recipe["START"], "batch": 64})
    monkeypatch.setitem(
        recipe, "seconds", lambda made, costs: 60.0 if made["precision"] == "bf16" else 3.0
    )
    monkeypatch.setitem(
        recipe, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs)
    )
    threads = torch.get_num_threads()
    try:
        recipe["main"](argv)
    finally:
        torch.set_num_threads(threads)
    record = json.loads((out / "recipe.json").read_text())
    assert [run["seed"] for run in record["start"]["runs"]] == [0, 1]
    assert record["start"]["steps"] == 3
    assert (out / "recipe.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "recipe.json")
    for option, value in (("--seconds", "nan"), ("--jobs", "0"), ("--images", "40")):
        with pytest.raises(SystemExit) as stopped:
            recipe["main"]([*argv, option, value])
        assert stopped.value.code == 2
        assert option in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit) as stopped:
        recipe["main"]([*argv, "--least", "1"])
    assert stopped.value.code == 2
    assert "recipe.json is of other setup: move it away" in capsys.readouterr().err
