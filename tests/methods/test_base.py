import pytest
import torch

from sslkit.backbones import ResNet9
from sslkit.data import load
from sslkit.methods import (
    Colorization,
    InstanceDiscrimination,
    Jigsaw,
    RelativePosition,
    Rotation,
    SimCLR,
    Supervised,
)
from sslkit.views import (
    ColorizationView,
    JigsawView,
    RelativePositionView,
    RotationView,
    SimCLRViews,
    SwAVViews,
    View,
)


class Doubled(View):
    """Two rows an image."""

    def make(self, images):
        return torch.cat((images, images)), torch.cat((images, images))


@pytest.mark.parametrize("kind", [Colorization, Jigsaw, RelativePosition, Rotation])
def test_a_view_of_another_task_is_refused(kind):
    with pytest.raises(
        ValueError, match=rf"{kind.__name__} takes a view of class {kind.__name__}View, not SimCLR"
    ):
        kind(ResNet9(4), SimCLRViews(32))


def test_a_subclass_may_leave_its_constructor_untyped():
    class Untyped(SimCLR):
        def __init__(self, backbone, view):
            super().__init__(backbone, view)

    Untyped(ResNet9(4), SimCLRViews(32))
    with pytest.raises(ValueError, match="takes a view of class View, not ResNet9"):
        Untyped(ResNet9(4), ResNet9(4))


JIGSAW = JigsawView(32, tile=1, cell=10, permutations=4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda b: InstanceDiscrimination(b, RotationView(32)), "does not take targets beside"),
        (lambda b: Supervised(b, ColorizationView(32), classes=10), "ColorizationView is not for"),
        (
            lambda b: SimCLR(b, RelativePositionView(32, patch=8, gap=2, jitter=1)),
            "does not take targets",
        ),
        (lambda b: SimCLR(b, Doubled(32)), "one size, one an image: Doubled makes others"),
        (lambda b: Supervised(b, SwAVViews(32, local_size=16), classes=10), "views of one size"),
        (
            lambda b: Jigsaw(b, JIGSAW),
            r"ResNet9 cannot take what JigsawView makes, \(2, 9, 3, 1, 1\): .*too small",
        ),
    ],
)
def test_views_that_do_not_fit_the_method_or_the_backbone_are_refused(make, said):
    method = make(ResNet9(4))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        method.prepare(load("shapes", "train", limit=4), 4)
    assert method.training
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
