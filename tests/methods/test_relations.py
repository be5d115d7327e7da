import math

import pytest
import torch
from torch.nn.functional import normalize

from sslkit.methods.relations import Relations


def test_batches_move_the_relations_of_their_classes_as_a_loop_does():
    torch.manual_seed(0)
    relations = Relations(torch.ones(6, dtype=torch.bool), 3)
    centres, losses, last = {}, {}, {}
    for step in range(30):
        classes = torch.randperm(5)[:3]  # the last is never met
        z, of_rows = normalize(torch.randn(3, 4, 3), dim=2), torch.rand(3, 4)
        relations.update(classes, z, of_rows)
        for i, c in enumerate(classes.tolist()):
            mean = [sum(z[i, :, j].tolist()) / 4 for j in range(3)]
            loss = sum(of_rows[i].tolist()) / 4
            if c in centres:
                mean = [0.9 * old + 0.1 * new for old, new in zip(centres[c], mean, strict=True)]
                loss = 0.9 * losses[c] + 0.1 * loss
            length = math.sqrt(sum(x * x for x in mean))
            centres[c], losses[c], last[c] = [x / length for x in mean], loss, step
        for c in range(6):
            found = relations.centres[c].tolist()
            assert found == pytest.approx(centres.get(c, [0.0] * 3), abs=1e-5)
            assert relations.losses[c].item() == pytest.approx(losses.get(c, 0), abs=1e-6)
            assert relations.last[c] == last.get(c, -1)
            assert relations.met[c] == (c in last)
        assert relations.step == step + 1


def test_what_tells_classes_apart_beside_the_seeds():
    relations = Relations(torch.tensor([True, True, True, True, False]), 2)
    relations.update(
        torch.tensor([0, 1]),
        torch.tensor([[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2]),
        torch.tensor([[1.0, 1.0], [3.0, 3.0]]),
    )
    relations.update(
        torch.tensor([2]), torch.tensor([[[-1.0, 0.0]] * 2]), torch.tensor([[2.0, 2.0]])
    )
    found = relations.beside(torch.tensor([0, 1]))
    root = math.sqrt(2)
    assert found[:4, 0].tolist() == pytest.approx([0, 0, root, 1], abs=1e-3)
    assert found[:4, 1].tolist() == pytest.approx([root / 2, root / 2, 1 + root / 2, 1], abs=1e-3)
    deviation = math.sqrt(2 / 3)
    expected = [-1 / deviation, 1 / deviation, 0, 0]  # of those met; the others are average
    assert found[:4, 2].tolist() == pytest.approx(expected, abs=1e-6)
    since = [math.log(1 + n) for n in (2, 2, 1, 3)]
    mean = sum(since) / 4
    deviation = math.sqrt(sum((s - mean) ** 2 for s in since) / 4)
    assert found[:4, 3].tolist() == pytest.approx([(s - mean) / deviation for s in since], abs=1e-5)
    assert found[:4, 4].tolist() == [1, 1, 1, 0]
