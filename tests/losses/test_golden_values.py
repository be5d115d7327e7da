"""Golden values: every loss of one fixed batch, as it was when it last moved.

`python tests/losses/test_golden_values.py` writes them anew; the commit then says why they moved.
That they are right is for the loops of the other files; that they stay is for this one.
"""

import json
from pathlib import Path

import pytest
import torch

from sslkit import losses

GOLDEN = Path(__file__).with_name("golden.json")
ROWS = torch.arange(24, dtype=torch.float64)
Z0, Z1 = (torch.outer(ROWS + k, torch.tensor([1.0, 2.3, 3.1, 4.7])).sin() for k in (0, 0.05))
LABELS = torch.arange(24) // 4
VALUES = {
    "nt_xent": lambda: losses.nt_xent(Z0, Z1, temperature=0.5),
    "nt_xent, sharp": lambda: losses.nt_xent(Z0, Z1, temperature=0.05),
    "nt_xent_multi_view": lambda: losses.nt_xent_multi_view((Z0, Z1, -Z0), temperature=0.5),
    "info_nce": lambda: losses.info_nce(Z0, Z1, temperature=0.2),
    "info_nce, queue": lambda: losses.info_nce(Z0, Z1, Z1.flip(1), temperature=0.2),
    "sup_con": lambda: losses.sup_con(Z0, LABELS, temperature=0.1),
    "decoupled_nt_xent": lambda: losses.decoupled_nt_xent(Z0, Z1, temperature=0.2, sigma=0.5),
    "hard_nt_xent": lambda: losses.hard_nt_xent(Z0, Z1, temperature=0.5),
    "nt_logistic": lambda: losses.nt_logistic(Z0, Z1, temperature=0.5),
    "margin_triplet": lambda: losses.margin_triplet(Z0, Z1, margin=0.4),
    "negative_cosine": lambda: losses.negative_cosine(Z0, Z1),
    "barlow_twins": lambda: losses.barlow_twins(Z0, Z1),
    "vicreg": lambda: losses.vicreg(Z0, Z1),
    "contrastive": lambda: losses.contrastive(Z0, LABELS),
    "ddml": lambda: losses.ddml(Z0, LABELS),
    "triplet_margin": lambda: losses.triplet_margin(Z0, LABELS),
    "n_pair": lambda: losses.n_pair(Z0, LABELS, l2=0.02),
    "lifted_structure": lambda: losses.lifted_structure(Z0, LABELS),
    "angular": lambda: losses.angular(Z0, LABELS),
    "n_pair_angular": lambda: losses.n_pair_angular(Z0, LABELS),
    "facility_location": lambda: losses.facility_location(Z0, LABELS),
    "nce": lambda: losses.nce(Z0[:, 0], Z1, classes=24),
    "soft_cross_entropy": lambda: losses.soft_cross_entropy(Z0, Z1.softmax(1)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_golden_ones(name):
    assert VALUES[name]().item() == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-9)


def test_every_loss_has_one():
    functions = {name for name in losses.__all__ if name[0].islower()}
    assert functions == {name.split(",")[0] for name in VALUES}


if __name__ == "__main__":
    values = {name: value().item() for name, value in VALUES.items()}
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n")
