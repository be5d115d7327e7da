import pytest
import torch
from torch import nn

from sslkit.heads import Projector


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
