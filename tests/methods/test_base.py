import pytest

from sslkit.backbones import ResNet9
from sslkit.methods import Colorization, Jigsaw, RelativePosition, Rotation, SimCLR
from sslkit.views import SimCLRViews


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
