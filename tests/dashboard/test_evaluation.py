from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from sslkit.dashboard import log_evaluation, wandb_run

RESULTS = [
    {"data": "cifar10", "protocols": {"knn": {"accuracy": 61.0}, "linear": {"accuracy": 70.0}}},
    {"data": "shapes", "protocols": {"knn": {"accuracy": 90.0}}},
    {"data": "shapes", "layer": "stage2", "protocols": {"knn": {"accuracy": 80.0}}},
]


class Board:
    """Stands for wandb: keeps what it is asked for and told."""

    def __init__(self, disabled=False):
        self.summary, self.asked, self.finished, self.disabled = {}, [], 0, disabled
        self.images = {}

    def __call__(self, run_dir, **options):
        self.asked.append((run_dir.name, options["mode"]))
        board = SimpleNamespace(experiment=self, log_image=self.images.__setitem__)
        return None if self.disabled else board

    def finish(self):
        self.finished += 1


@pytest.fixture
def run(tmp_path):
    (tmp_path / "x" / "wandb").mkdir(parents=True)
    (tmp_path / "x" / "wandb" / "run_id.txt").write_text("abc")
    return tmp_path / "x"


@pytest.mark.parametrize(
    ("config", "mode"), [({"wandb": "offline"}, "offline"), ({"data": {}}, "auto")]
)
def test_scores_go_into_the_summary_of_the_runs_own_mode(run, monkeypatch, config, mode):
    monkeypatch.setattr(wandb_run, "wandb_logger", board := Board())
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    log_evaluation(run, RESULTS, [run / "evaluation" / "shapes-retrieval.png"])
    path = f"{run}/evaluation/shapes-retrieval.png"
    assert board.images == {"pictures/shapes-retrieval": [path]}
    assert board.summary == {
        "evaluation/cifar10/knn": 61.0,
        "evaluation/cifar10/linear": 70.0,
        "evaluation/shapes/knn": 90.0,
        "evaluation/shapes/stage2/knn": 80.0,
    }
    assert (board.asked, board.finished) == ([("x", mode)], 1)


def test_pictures_lie_in_the_offline_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    run, picture = tmp_path / "x", tmp_path / "cars196-embedding.png"
    Image.new("RGB", (5, 4), (1, 2, 3)).save(picture)
    logger = wandb_run.wandb_logger(run, mode="offline", name="x", config={})
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.experiment.finish()
    training = (run / "wandb" / "latest-run").resolve()
    (run / "config.yaml").write_text("wandb: offline\n")
    log_evaluation(run, RESULTS, [picture])
    kept = list(run.glob("wandb/offline-run-*/files/media/images/pictures/cars196-embedding*.png"))
    assert [path.read_bytes() for path in kept] == [picture.read_bytes()]
    assert (run / "wandb" / "latest-run").resolve() == training
    wandb.teardown()


def test_without_a_wandb_run_nothing_is_started(run, monkeypatch):
    monkeypatch.setattr(wandb_run, "wandb_logger", board := Board())
    log_evaluation(run, [])
    (run / "wandb" / "run_id.txt").unlink()
    log_evaluation(run, RESULTS)
    assert board.asked == []


def test_a_disabled_board_is_left_alone(run, monkeypatch):
    monkeypatch.setattr(wandb_run, "wandb_logger", board := Board(disabled=True))
    (run / "config.yaml").write_text("wandb: disabled\n")
    log_evaluation(run, RESULTS)
    assert (board.summary, board.finished) == ({}, 0)
