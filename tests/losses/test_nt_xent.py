import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from sslkit.losses import NTXentLoss, nt_xent


def loop(z0: Tensor, z1: Tensor, temperature: float) -> float:
    """The paper's equation 1, anchor by anchor, in float64."""
    z = torch.cat([z0, z1]).double()
    n, total = len(z0), 0.0
    for i in range(2 * n):
        similarity = [torch.cosine_similarity(z[i], z[k], dim=0).item() for k in range(2 * n)]
        positive = similarity[(i + n) % (2 * n)] / temperature
        others = [math.exp(s / temperature) for k, s in enumerate(similarity) if k != i]
        total += math.log(sum(others)) - positive
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 3, 17])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_equals_the_papers_equation(n, temperature):
    torch.manual_seed(n)
    z0, z1 = torch.randn(2, n, 8, dtype=torch.float64)
    expected = loop(z0, z1, temperature)
    assert nt_xent(z0, z1, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)
    single = nt_xent(z0.float(), z1.float(), temperature=temperature).item()
    assert single == pytest.approx(expected, rel=1e-5)


def test_equals_pytorch_metric_learning():
    peer = pytest.importorskip("pytorch_metric_learning.losses").NTXentLoss(temperature=0.2)
    z0, z1 = torch.randn(2, 6, 4)
    labels = torch.arange(6).repeat(2)
    expected = peer(torch.cat([z0, z1]), labels)
    torch.testing.assert_close(nt_xent(z0, z1, temperature=0.2), expected)


def test_gradients():
    z0, z1 = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, t: nt_xent(a, b, temperature=t), (z0, z1, temperature)
    )


def test_is_symmetric_and_blind_to_scale():
    z0, z1 = torch.randn(2, 5, 4)
    loss = nt_xent(z0, z1, temperature=0.5)
    torch.testing.assert_close(nt_xent(z1, z0, temperature=0.5), loss)
    torch.testing.assert_close(nt_xent(1e4 * z0, 1e-3 * z1, temperature=0.5), loss)


def test_float32_under_autocast_and_for_bf16_input():
    z0, z1 = torch.randn(2, 64, 32)
    exact = nt_xent(z0, z1, temperature=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(z0, z1, temperature=0.1), exact)
    low = nt_xent(z0.bfloat16(), z1.bfloat16(), temperature=0.1)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(exact.item(), rel=1e-2)


def test_large_logits_stay_finite():
    z = torch.eye(4)
    assert nt_xent(z, z, temperature=1e-4).item() == 0
    assert math.isfinite(nt_xent(z, -z, temperature=1e-4).item())


def test_nan_is_not_hidden():
    z = torch.randn(3, 4)
    assert nt_xent(z, z.clone().fill_(math.nan), temperature=0.5).isnan()


@pytest.mark.parametrize(
    ("shapes", "temperature", "message"),
    [
        (((1, 4), (1, 4)), 0.5, "at least 2 pairs.* not 1"),
        (((0, 4), (0, 4)), 0.5, "at least 2 pairs.* not 0"),
        (((3, 4), (2, 4)), 0.5, r"\(3, 4\) and \(2, 4\)"),
        (((3,), (3,)), 0.5, r"\(N, D\)"),
        (((3, 4), (3, 4)), 0.0, "above 0, not 0.0"),
        (((3, 4), (3, 4)), -1.0, "above 0, not -1.0"),
        (((3, 4), (3, 4)), math.nan, "above 0, not nan"),
    ],
)
def test_bad_input(shapes, temperature, message):
    z0, z1 = (torch.ones(s) for s in shapes)
    with pytest.raises(ValueError, match=message):
        nt_xent(z0, z1, temperature=temperature)


def test_module():
    z0, z1 = torch.randn(2, 5, 4)
    module = NTXentLoss(temperature=0.2)
    assert torch.equal(module(z0, z1), nt_xent(z0, z1, temperature=0.2))
    with pytest.raises(ValueError, match="above 0, not -2"):
        NTXentLoss(temperature=-2)


def test_importing_losses_brings_in_torch_alone():
    heavy = ["pytorch_lightning", "kornia", "torchvision", "faiss", "wandb", "matplotlib", "timm"]
    code = f"import sslkit.losses, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
