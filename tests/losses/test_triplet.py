import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, reducers
from pytorch_metric_learning import losses as peer

from sslkit.losses import triplet_margin
from sslkit.miners import Triplets


def loop(z, labels, margin, normalize=True):
    """The paper's loss, triplet by triplet; a tensor, for its gradient."""
    z = F.normalize(z, dim=1) if normalize else z
    terms = []
    for a in range(len(z)):
        for p in range(len(z)):
            for n in range(len(z)):
                if a != p and labels[a] == labels[p] != labels[n]:
                    gap = (z[a] - z[p]).square().sum() - (z[a] - z[n]).square().sum()
                    terms.append((gap + margin).clamp_min(0))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("margin", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("labels", [[0, 0, 1], [5, 5, 2, 5, 2, 7, 5], [0, 1, 2, 3, 0, 1, 2, 0]])
def test_equals_the_papers_equation_and_its_gradient(labels, margin, normalize):
    torch.manual_seed(len(labels))
    z = torch.randn(len(labels), 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels)
    expected = loop(z, labels, margin, normalize)
    value = triplet_margin(z, labels, margin=margin, normalize=normalize)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_ties():
    z = torch.tensor([[0.0], [1.0], [1.0], [-1.0], [2.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 1])
    for margin in (1.0, 3.0):  # some negatives lie at the margin itself
        value = triplet_margin(z, labels, margin=margin, normalize=False)
        assert value.item() == pytest.approx(loop(z, labels, margin, False).item(), rel=1e-12)


def test_over_given_triplets():
    z = torch.eye(2)[[0, 0, 1]]
    triplets = Triplets(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([2, 1]))
    value = triplet_margin(z, triplets=triplets, margin=0.5)  # -2 + 0.5 and 2 + 0.5
    assert value.item() == pytest.approx((0 + 2.5) / 2)


def test_equals_pytorch_metric_learning():
    z, labels = torch.randn(24, 8), torch.arange(6).repeat(4)
    square = distances.LpDistance(p=2, power=2, normalize_embeddings=True)
    loss = peer.TripletMarginLoss(0.3, distance=square, reducer=reducers.MeanReducer())
    torch.testing.assert_close(triplet_margin(z, labels, margin=0.3), loss(z, labels))
