"""The backbones that are scored, and where the scores of each go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslkit.backbones import Backbone, title_of
from sslkit.cli.targets import file_name, load_target, seed_of, weights_of
from sslkit.evaluation import check_layers
from sslkit.views import EvaluationView


@dataclass
class ScoredTarget:
    """A backbone to score, and where its scores go: a run's folder, or with ``out`` by title."""

    name: str
    backbone: Backbone
    card: dict[str, Any]
    folder: Path | None
    title: str

    @property
    def about(self) -> dict[str, Any]:
        """What a result says of it, in plain data."""
        return {
            "target": self.name,
            "backbone": title_of(self.backbone),
            "weights": weights_of(self.name),
            "step": self.card.get("step") if self.name != "random" else None,
        }

    @property
    def view(self) -> EvaluationView:
        """What its weights were trained to see."""
        grayscale = self.card.get("grayscale", False)
        return EvaluationView(self.card["size"], self.card["normalize"], grayscale=grayscale)

    def path(self, data: str, limit: int | None, layer: str | None, out: str | None) -> Path | None:
        """Where the result of a data set goes; None for what is only printed."""
        stem = file_name(data) + ("" if limit is None else f"-limit{limit}")
        stem += f"-{file_name(layer)}" if layer else ""
        if out:
            return Path(out) / f"{self.title}-{stem}.json"
        random = "-random" if self.name == "random" else ""
        return self.folder / "evaluation" / f"{stem}{random}.json" if self.folder else None


def load_targets(targets: list[str], layers: list[str] | None) -> list[ScoredTarget]:
    """All of them before the first is scored; 'random' belongs to the target before it."""
    loaded: list[ScoredTarget] = []
    last, folder, trained = None, None, ""
    for name in targets:
        last = load_target(name, last, seed=seed_of(folder))
        check_layers(last[0], layers_of(layers, last[0]))
        if name != "random":
            folder, trained = Path(name) if Path(name).is_dir() else None, f"{name}-"
        title = file_name(f"{trained}random" if name == "random" else name)
        loaded.append(ScoredTarget(name, *last, folder, title))
    return loaded


def layers_of(layers: list[str] | None, backbone: Backbone) -> list[str]:
    """The layers asked for, in the backbone's order where that is all of them."""
    return list(backbone.layers) if layers == ["all"] else list(dict.fromkeys(layers or []))
