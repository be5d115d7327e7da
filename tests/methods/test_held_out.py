import copy
import math

import pytest
import torch
from torch import nn

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset, DataModule
from sslkit.methods.held_out import (
    HeldOut,
    features_of,
    held_out_of,
    neighbourhood_loss,
    recall_at_1,
)
from sslkit.views import EvaluationView


def test_the_loss_and_recall_by_loops():
    torch.manual_seed(0)
    z = torch.randn(9, 4, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    total = right = 0.0
    for i in range(9):
        cosine = {j: float(z[i] @ z[j] / z[i].norm() / z[j].norm()) for j in range(9) if j != i}
        mine = sum(math.exp(c / 0.1) for j, c in cosine.items() if labels[j] == labels[i])
        total -= math.log(mine / sum(math.exp(c / 0.1) for c in cosine.values()))
        right += labels[max(cosine, key=cosine.get)] == labels[i]
    assert neighbourhood_loss(z, labels).item() == pytest.approx(total / 9)
    assert recall_at_1(z, labels).item() == pytest.approx(right / 9)


def test_a_draw_is_of_whole_classes():
    labels = torch.arange(5).repeat_interleave(4)
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    held = HeldOut(ArrayDataset(images, labels), torch.arange(20).view(5, 4)[:, :3])
    seen = set()
    for most, classes in ((100, 5), (9, 3), (11, 3), (3, 2)):
        found, of = held.draw(most)
        rows = found[:, 0, 0, 0].long()
        assert labels[rows].tolist() == of.tolist()
        assert len(rows) == len(set(rows.tolist())) == 3 * classes
        assert of.view(classes, 3).unique(dim=1).shape == (classes, 1)
        seen |= set(rows.tolist())
    assert seen == {row for row in range(20) if row % 4 < 3}


@pytest.mark.parametrize("frozen", [False, True])
def test_features_leave_the_backbone_as_it_is(frozen):
    torch.manual_seed(0)
    net, view = ResNet9(4), EvaluationView(32)
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    expected = copy.deepcopy(net).eval()(view(images))
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    norm.train(not frozen)
    before = copy.deepcopy(net.state_dict())
    found = features_of(net, view, images, at_once=2)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert norm.training != frozen


@pytest.mark.parametrize("held_out", [0, 1])
def test_data_that_holds_nothing_out_is_refused(held_out):
    data = DataModule("shapes", limit=64, batch_size=8, per_class=2, held_out=held_out)
    data.setup("fit")
    with pytest.raises(ValueError, match=f"DEDSP .* data.held_out to 2 or more, not {held_out}$"):
        held_out_of(data, "DEDSP")


def test_a_class_that_is_too_small_is_said():
    data = DataModule("shapes", limit=64, batch_size=4, per_class=2, held_out=5)
    data.setup("fit")
    with pytest.raises(ValueError, match="left beside those held out, but per_class is 2"):
        held_out_of(data, "DEDSP")
