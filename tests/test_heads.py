import pytest
import torch
from torch import nn

from sslkit.heads import LateFusion, Projector


def test_layers():
    torch.manual_seed(0)
    projector = Projector(6, 5, 4, layers=3)
    kinds = [type(m) for m in projector]
    one = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*one, *one, nn.Linear, nn.BatchNorm1d]
    assert [tuple(m.weight.shape) for m in projector if isinstance(m, nn.Linear)] == [
        (5, 6),
        (5, 5),
        (4, 5),
    ]
    assert projector(torch.randn(8, 6)).shape == (8, 4)


def test_bad_input():
    with pytest.raises(ValueError, match="out_dim=0"):
        Projector(4, 4, 0)
    with pytest.raises(ValueError, match="layers=0"):
        Projector(4, 4, 4, layers=0)


def test_late_fusion_shares_a_layer_and_then_sees_the_parts_side_by_side():
    torch.manual_seed(0)
    head = LateFusion(6, 5, parts=3, classes=4, fused_dim=7).double()
    parts = torch.randn(2, 3, 6, dtype=torch.float64)
    (shared, _), (fused, _, out) = head.shared, head.fused
    assert (shared.weight.shape, fused.weight.shape, out.weight.shape) == ((5, 6), (7, 15), (4, 7))
    for row, logits in zip(parts, head(parts), strict=True):
        hidden = torch.cat([(shared.weight @ part + shared.bias).clamp(min=0) for part in row])
        expected = out.weight @ (fused.weight @ hidden + fused.bias).clamp(min=0) + out.bias
        torch.testing.assert_close(logits, expected)
    assert not torch.allclose(head(parts), head(parts.flip(1)))
    assert LateFusion(6, 5, parts=3, classes=4).fused[0].out_features == 5


def test_bad_late_fusion():
    with pytest.raises(ValueError, match="parts=0"):
        LateFusion(4, 4, parts=0, classes=2)
    with pytest.raises(ValueError, match="fused_dim=0"):
        LateFusion(4, 4, parts=1, classes=2, fused_dim=0)
