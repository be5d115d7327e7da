import pytest
import torch

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset, load
from sslkit.methods import Batch, Supervised
from sslkit.views import SimCLRViews, SupervisedView


def model(view=None, classes=10):
    return Supervised(ResNet9(4), view or SupervisedView(32), classes=classes)


def test_objective_is_the_mean_cross_entropy_of_all_views():
    method = model(SimCLRViews(32)).eval()
    views, labels = torch.randn(2, 5, 3, 32, 32), torch.tensor([3, 1, 4, 1, 5])
    found = method.objective(Batch(tuple(views), None, labels, None))
    terms, right = [], 0
    for view in views:
        for row, label in zip(method.classifier(method.backbone(view)), labels, strict=True):
            terms.append(-torch.log_softmax(row.double(), 0)[label])
            right += int(row.argmax() == label)
    assert found["loss"].item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(right / 10)


def test_labels_are_looked_at_before_the_first_step():
    shapes = load("shapes", "train", limit=8)
    model().prepare(shapes, 4)
    with pytest.raises(ValueError, match=r"model\.classes is 7, but the data has 10"):
        model(classes=7).prepare(shapes, 4)
    with pytest.raises(ValueError, match="needs labels, and the data has none"):
        model().prepare(ArrayDataset(shapes.images), 4)
    with pytest.raises(ValueError, match="2 or more, not 1"):
        model(classes=1)
