import math
from itertools import permutations

import pytest
import torch

from sslkit.methods.sampling import (
    NEVER,
    Scorer,
    bumps,
    gumbel_top_k,
    log_probabilities,
    ranks,
    relative_entropy,
    standardised,
    tell_of_rate,
)
from sslkit.training import Optimizer


def by_hand(scores, picks):
    """The probability of each draw given those before it."""
    left, found = list(range(len(scores))), []
    for pick in picks:
        found.append(math.exp(scores[pick]) / sum(math.exp(scores[i]) for i in left))
        left.remove(pick)
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_probabilities_of_draws_are_plackett_and_luces(k):
    torch.manual_seed(0)
    scores = torch.randn(4, dtype=torch.float64)
    total = 0
    for picks in permutations(range(4), k):
        found = log_probabilities(scores, torch.tensor(picks)).exp()
        assert found.tolist() == pytest.approx(by_hand(scores.tolist(), picks))
        total += found.prod().item()
    assert total == pytest.approx(1)


def test_their_gradient():
    torch.manual_seed(0)
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    picks = torch.stack([torch.randperm(5)[:4] for _ in range(3)])
    assert torch.autograd.gradcheck(lambda s: log_probabilities(s, picks), scores)
    every = torch.randn(3, requires_grad=True)
    log_probabilities(every, torch.tensor([1, 0, 2])).sum().backward()  # nothing is left
    assert every.grad.isfinite().all()


def test_what_must_not_be_drawn_has_no_part_in_it():
    torch.manual_seed(0)
    scores = torch.randn(3)
    masked = torch.stack([scores[0], torch.tensor(NEVER), scores[1], scores[2]]).requires_grad_()
    found = log_probabilities(masked, torch.tensor([2, 0, 3]))
    torch.testing.assert_close(found, log_probabilities(scores, torch.tensor([1, 0, 2])))
    found.sum().backward()
    assert masked.grad.isfinite().all()
    assert masked.grad[1] == 0
    assert not (gumbel_top_k(masked.detach().expand(999, 4), 3) == 1).any()


def test_draws_come_as_often_as_their_probabilities_say():
    generator = torch.Generator().manual_seed(0)
    scores, n = torch.tensor([1.0, 0.0, -1.0, 0.5]), 40_000
    drawn = gumbel_top_k(scores.expand(n, 4), 2, generator)
    for picks in permutations(range(4), 2):
        p = math.prod(by_hand(scores.tolist(), picks))
        share = (drawn == torch.tensor(picks)).all(1).double().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_a_scorer_begins_with_no_preference_and_learns_nothing_for_its_input():
    torch.manual_seed(0)
    scorer, given = Scorer(5), torch.randn(7, 5, requires_grad=True)
    scores = scorer(given)
    assert (scores == 0).all()
    scores.square().sum().backward()
    assert given.grad is None
    scorer[2].weight.data.normal_()
    assert scorer(given.double()).std() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bumps(dtype):
    x = torch.tensor([-7.0, -0.8, 0.05, 0.3, 7.0], dtype=dtype)
    found = bumps(x, 17)
    assert found.shape == (5, 17)
    assert found.argmax(1).tolist()[::3] == [0, 11]
    assert torch.equal(found[0], found[1])
    for place, value in enumerate(found[2].tolist()):
        expected = math.exp(-(((0.05 - (place - 8) / 10) / 0.1) ** 2) / 2)
        assert value == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 0.03)


def test_entropy_as_a_part_of_the_uniform_one():
    scores = torch.tensor([[0.0, math.log(3), NEVER], [NEVER, NEVER, 2.0]])
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert relative_entropy(scores).tolist() == pytest.approx([expected, 1.0])


def test_standardised():
    x = torch.tensor([1.0, 5.0, 3.0, 100.0])
    found = standardised(x, torch.tensor([True, True, True, False]))
    assert found[:3].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[:3].square().mean().item() == pytest.approx(1)
    assert standardised(torch.full((3,), 0.1)).tolist() == [0.0] * 3
    assert standardised(x, torch.zeros(4, dtype=torch.bool)).isfinite().all()


def test_ranks_are_of_the_candidates_alone():
    torch.manual_seed(0)
    far = torch.rand(6, 6)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    candidates = labels[:, None] != labels
    found = ranks(far, candidates)
    for i in range(6):
        mine = [j for j in range(6) if labels[j] != labels[i]]
        for j in mine:
            nearer = sum(float(far[i, k]) < float(far[i, j]) for k in mine)
            assert found[i, j].item() == pytest.approx(nearer / (len(mine) - 1))


def test_a_rate_for_another_optimiser_is_told(caplog):
    tell_of_rate("PADS", Optimizer(name="adamw"), 0.02)
    tell_of_rate("PADS", Optimizer(name="lars"), 0.0)
    assert not caplog.records
    tell_of_rate("PADS", Optimizer(name="lars"), 0.02)
    assert "PADS: policy_lr 0.02 is a rate for AdamW; by lars the policy may" in caplog.text
