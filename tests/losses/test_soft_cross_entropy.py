import math

import pytest
import torch
import torch.nn.functional as F

from sslkit.losses import SoftCrossEntropyLoss, soft_cross_entropy


def loop(logits, targets, smoothing):
    """The definition, row by row, in float64."""
    total, c = 0.0, logits.shape[1]
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(x) for x in row))
        for x, t in zip(row, target, strict=True):
            total -= ((1 - smoothing) * t + smoothing / c) * (x - normaliser)
    return total / len(logits)


def probabilities(n, c):
    return torch.randn(n, c, dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 5])
def test_equals_the_definition(n, smoothing):
    logits, targets = torch.randn(n, 4, dtype=torch.float64), probabilities(n, 4)
    loss = soft_cross_entropy(logits, targets, label_smoothing=smoothing).item()
    assert loss == pytest.approx(loop(logits, targets, smoothing), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_indices_are_one_hot_targets(dtype, smoothing):
    logits, index = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    loss = soft_cross_entropy(logits, index.to(dtype), label_smoothing=smoothing)
    one_hot = F.one_hot(index, 3).float()
    torch.testing.assert_close(loss, soft_cross_entropy(logits, one_hot, label_smoothing=smoothing))
    torch.testing.assert_close(loss, F.cross_entropy(logits, index, label_smoothing=smoothing))


def test_mixup_is_linear_in_the_targets():
    logits, a, b = torch.randn(5, 3), probabilities(5, 3).float(), probabilities(5, 3).float()
    mixed = soft_cross_entropy(logits, 0.3 * a + 0.7 * b)
    apart = 0.3 * soft_cross_entropy(logits, a) + 0.7 * soft_cross_entropy(logits, b)
    torch.testing.assert_close(mixed, apart)


def test_limits():
    uniform = soft_cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    assert uniform.item() == pytest.approx(math.log(4))
    assert soft_cross_entropy(1e4 * torch.eye(4), torch.arange(4)).item() == 0
    logits = probabilities(3, 4).log()
    entropy = -(logits.exp() * logits).sum(1).mean().item()
    assert soft_cross_entropy(logits, logits.exp()).item() == pytest.approx(entropy)


def test_targets_do_not_lower_the_precision():
    logits, targets = torch.randn(4, 3), torch.eye(4, 3)
    expected = soft_cross_entropy(logits, targets)
    assert torch.equal(soft_cross_entropy(logits, targets.bfloat16()), expected)
    assert soft_cross_entropy(logits.half(), torch.tensor([0, 1, 2, 0])).dtype == torch.float32


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.ones(3), torch.zeros(3).long(), r"logits must be \(N, D\), not \(3,\)"),
        (torch.ones(3, 4).int(), torch.zeros(3).long(), "logits must be of a floating-point"),
        (torch.ones(0, 4), torch.zeros(0).long(), r"a row and a class, not \(0, 4\)"),
        (torch.ones(3, 0), torch.zeros(3, 0), r"a dimension, not \(3, 0\)"),
        (torch.ones(3, 4), torch.zeros(3), r"targets must be .* not torch.float32 of shape \(3,\)"),
        (torch.ones(3, 4), torch.zeros(3, 4).long(), r"\(3, 4\) or .* not torch.int64 of shape"),
        (torch.ones(3, 4), torch.zeros(2).long(), r"class indices \(3,\), not .* \(2,\)"),
        (torch.ones(3, 4), torch.zeros(3, 5), r"probabilities \(3, 4\) or .* \(3, 5\)"),
        (torch.ones(3, 4), torch.zeros(3).bool(), "not torch.bool"),
    ],
)
def test_bad_input(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        soft_cross_entropy(logits, targets)


def test_rows_left_out_do_not_count():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([0, -100, 2, -100])
    expected = torch.nn.functional.cross_entropy(logits, targets)
    for gather in (True, False):
        loss = SoftCrossEntropyLoss(gather=gather)
        torch.testing.assert_close(loss(logits, targets), expected)
        none = loss(logits, torch.full((4,), -100))
        assert none == 0
        assert not torch.autograd.grad(none, logits)[0].any()
