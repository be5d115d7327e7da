from types import SimpleNamespace

import pytest
import yaml

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

    def __call__(self, run_dir, **options):
        self.asked.append((run_dir.name, options["mode"]))
        return None if self.disabled else SimpleNamespace(experiment=self)

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
    log_evaluation(run, RESULTS)
    assert board.summary == {
        "evaluation/cifar10/knn": 61.0,
        "evaluation/cifar10/linear": 70.0,
        "evaluation/shapes/knn": 90.0,
        "evaluation/shapes/stage2/knn": 80.0,
    }
    assert (board.asked, board.finished) == ([("x", mode)], 1)


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
