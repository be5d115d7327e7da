import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as peer

from sslkit.losses import angular, n_pair, n_pair_angular


def loop(z, labels, alpha):
    """The paper's loss, over all ordered pairs of one label."""
    z, t = F.normalize(z, dim=1), math.tan(math.radians(alpha)) ** 2
    n, terms = len(z), []
    for a in range(n):
        for p in range(n):
            if a != p and labels[a] == labels[p]:
                exponents = [
                    4 * t * (z[a] + z[p]) @ z[k] - 2 * (1 + t) * z[a] @ z[p]
                    for k in range(n)
                    if labels[k] != labels[a]
                ]
                terms.append(math.log1p(sum(math.exp(e) for e in exponents)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [[0, 0, 1], [4, 1, 4, 1, 1, 9], [3, 2, 1, 1, 2, 3, 3, 0, 8, 8]])
@pytest.mark.parametrize("alpha", [5.0, 45.0, 60.0])
def test_equals_the_papers_equation(labels, alpha):
    torch.manual_seed(len(labels))
    z, labels = torch.randn(len(labels), 4, dtype=torch.float64), torch.tensor(labels)
    expected = loop(z, labels, alpha)
    assert angular(z, labels, alpha=alpha).item() == pytest.approx(expected, rel=1e-12)
    assert angular(z.float(), labels, alpha=alpha).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_nothing_underflows_at_the_widest_angle(sign):
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [sign, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    value = angular(z, labels, alpha=60.0)  # 12 * 2 * sign - 8
    value.backward()
    assert value.item() == pytest.approx(math.log1p(math.exp(24 * sign - 8)), rel=1e-5)
    assert z.grad.isfinite().all()
    far = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    angular(far, labels, alpha=60.0).backward()  # 12 * 0 + 8
    assert far.grad.isfinite().all()


def test_with_n_pair():
    z, labels = torch.randn(8, 4), torch.arange(4).repeat(2)
    expected = n_pair(z, labels, l2=0.1) + 0.5 * angular(z, labels, alpha=40.0)
    value = n_pair_angular(z, labels, alpha=40.0, weight=0.5, l2=0.1)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("alpha", [36, 45, 60])
def test_equals_pytorch_metric_learning(alpha):
    z, labels = F.normalize(torch.randn(24, 8)), torch.arange(6).repeat(4)
    # where the rows of other labels keep the length they are given with
    expected = peer.AngularLoss(alpha)(z, labels)
    torch.testing.assert_close(angular(z, labels, alpha=alpha), expected.float())
