import warnings

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from sslkit.evaluation import Features, LinearProbe, linear
from sslkit.evaluation.linear import L2, held_out
from sslkit.evaluation.logistic import Objective, minimise


def clusters(n, seed, classes=4, width=6, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    noise = torch.randn(n, width, generator=generator)
    return Features(centres[labels] + spread * noise, labels)


def objective(weight, bias, x, y, l2):
    logits = F.linear(x.double(), weight.double(), bias.double())
    return (F.cross_entropy(logits, y) + l2 / 2 * weight.double().square().sum()).item()


def peer(x, y, l2):
    """scikit-learn's optimum, in float64, by Newton's method."""
    fitted = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-9, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(x.double().numpy(), y.numpy())
    return torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)


HARD = {
    "plain": lambda x: x,
    "far from 0": lambda x: x + 100,
    "of scales 1e-3 to 1e3": lambda x: x * torch.logspace(-3, 3, x.shape[1]),
    "correlated": lambda x: torch.cat([x, x @ torch.ones(6, 6) + 1e-3 * x.flip(1)], 1),
    "with a constant": lambda x: torch.cat([x, torch.ones(len(x), 1)], 1),
}


@pytest.mark.parametrize("shape", HARD)
@pytest.mark.parametrize("l2", [1e-6, 1e-3, 1e-1, 1e3])
def test_a_probe_is_sklearns_optimum(shape, l2):
    features, labels = clusters(300, 0)
    x = HARD[shape](features)
    probe = LinearProbe(l2).fit(x, labels)
    weight, bias = peer(x, labels, l2)
    best = objective(weight, bias, x, labels, l2)
    assert objective(probe.weight, probe.bias, x, labels, l2) == pytest.approx(best, rel=1e-4)
    agree = probe.predict(x) == F.linear(x.double(), weight, bias).argmax(1)
    assert l2 > 1 or agree.float().mean() >= 0.99  # at 1e3 the logits are all but equal


def test_the_whole_path_is_sklearns_optima():
    features, labels = clusters(800, 1, classes=10, width=20, spread=3.0)
    x = features - features.mean(0)
    found = Objective(x, labels, 10)
    state = found.start()
    calls = []
    at, found.at = found.at, lambda *args: calls.append(args) or at(*args)
    for l2 in sorted(L2, reverse=True):
        state = minimise(found, state, l2)
        ours = objective(state.weight[:, :-1], state.weight[:, -1], x, labels, l2)
        assert ours == pytest.approx(objective(*peer(x, labels, l2), x, labels, l2), rel=1e-4)
    assert len(calls) < 4 * len(L2)  # what a step costs here is carried on from value to value


def test_blocks_of_rows_are_the_whole():
    features, labels = clusters(300, 0)
    both = Objective(features, labels, 4), Objective(features, labels, 4)
    both[1].rows = 7
    weight = torch.randn(4, 7)
    one, many = (found.at(weight) for found in both)
    assert one.loss == pytest.approx(many.loss, rel=1e-6)
    torch.testing.assert_close(one.gradient, many.gradient)
    torch.testing.assert_close(one.curvature, many.curvature)


@pytest.mark.parametrize("several", [False, True])
def test_the_derivatives_are_autograds(several):
    x, labels = clusters(50, 0)
    y = labels
    if several:
        y = torch.randint(-1, 2, (50, 4), generator=torch.Generator().manual_seed(0))
    weight = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    logits = F.linear(x.double(), weight[:, :-1], weight[:, -1])
    if several:
        losses = F.binary_cross_entropy_with_logits(logits, (y == 1).double(), reduction="none")
        loss = ((losses * (y >= 0)).sum(0) / (y >= 0).sum(0)).sum()
    else:
        loss = F.cross_entropy(logits, y)
    loss.backward()
    state = Objective(x, y, 4).at(weight.detach().float())
    assert state.loss == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(state.gradient, weight.grad.float(), rtol=1e-4, atol=1e-5)


def test_several_labels_are_one_regression_each():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator)
    y = (x @ torch.randn(5, 3, generator=generator) > 0.8).long()
    y[torch.rand(200, 3, generator=generator) < 0.2] = -1
    probe = LinearProbe(1e-2).fit(x, y)
    for column in range(3):
        seen = y[:, column] >= 0
        fitted = LogisticRegression(C=1 / (1e-2 * int(seen.sum())), tol=1e-9, max_iter=1000)
        fitted.fit(x[seen].double().numpy(), y[seen, column].numpy())
        weight = torch.from_numpy(fitted.coef_[0]).float()
        torch.testing.assert_close(probe.weight[column], weight, rtol=1e-2, atol=3e-3)
    assert probe.predict(x).shape == (200, 3)
    assert probe.predict(x).dtype == torch.bool
    assert probe.score(x, y) > 90


def test_two_features_that_differ_in_scale_are_one_problem_when_standardised():
    x, y = clusters(200, 0)
    scaled = x * torch.logspace(-2, 2, 6)
    one, two = (LinearProbe(0.01, standardize=True).fit(z, y) for z in (x, scaled))
    torch.testing.assert_close(
        one.decision_function(x), two.decision_function(scaled), rtol=1e-2, atol=1e-2
    )
    plain = LinearProbe(0.01).fit(scaled, y).decision_function(scaled)
    assert (plain - two.decision_function(scaled)).abs().max() > 0.1


def test_the_regulariser_is_chosen_on_validation_and_refitted_on_all():
    x, y = clusters(400, 0, spread=3.0)
    probe = LinearProbe().fit(x, y)
    kept, held = held_out(y, 0.1)
    scores = {
        l2: 100 * (LinearProbe(l2).fit(x[kept], y[kept]).predict(x[held]) == y[held]).float().mean()
        for l2 in L2[::8]
    }
    assert len(probe.validation_scores) == 45
    for l2, score in scores.items():
        assert probe.validation_scores[l2] == pytest.approx(score.item(), abs=2.6)  # of 40 images
    assert probe.validation_scores[probe.l2] == max(probe.validation_scores.values())
    alone = LinearProbe(probe.l2).fit(x, y)
    torch.testing.assert_close(probe.weight, alone.weight, rtol=2e-2, atol=2e-3)


def test_test_labels_choose_nothing():
    train, test = clusters(400, 0), clusters(200, 1)
    wrong = Features(test.features, test.labels.flip(0))
    one, two = linear(train, test), linear(train, wrong)
    assert one["l2"] == two["l2"]
    assert one["validation"] == two["validation"]
    assert one["accuracy"] != two["accuracy"]


def test_the_metric_is_the_sets():
    train = clusters(400, 0)
    x, y = clusters(300, 1)
    uneven = torch.cat([torch.arange(300)[y == 0], torch.arange(300)[y == 1][:5]])
    test = Features(x[uneven], y[uneven])
    found = linear(train, test, metric="mean_per_class")
    predicted = LinearProbe(metric="mean_per_class").fit(*train).predict(test.features)
    hits = predicted == test.labels
    by_hand = 50 * (hits[:75].double().mean() + hits[75:].double().mean())
    assert found["metric"] == "mean_per_class"
    assert found["mean_per_class"] == pytest.approx(by_hand.item())
    assert "accuracy" not in found


def test_held_out_is_of_each_class_alike():
    labels = torch.tensor([0] * 100 + [1] * 30 + [2] * 2 + [3])
    kept, held = held_out(labels, 0.1, seed=5)
    assert labels[held].bincount(minlength=4).tolist() == [10, 3, 1, 0]
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(133))
    assert not torch.equal(held, held_out(labels, 0.1, seed=6)[1])
    many = torch.randint(0, 2, (200, 5), generator=torch.Generator().manual_seed(0))
    many[:, 4] = 0
    many[:2, 4] = 1
    kept, held = held_out(many, 0.1)
    assert ((many[held] == 1).sum(0) >= torch.tensor([8, 8, 8, 8, 1])).all()
    assert (many[kept, 4] == 1).sum() == 1
    assert len(kept) + len(held) == 200


LABELS = torch.arange(40) % 4
BAD = {
    "2 classes or more, but every label is 0": (torch.zeros(40).long(), {}),
    "labels must be at least 0, but some are -1": (LABELS - 1, {}),
    "class 2 has no training image, one of 1 of the 4": (LABELS[LABELS != 2].repeat(2)[:40], {}),
    "labels must be one integer or more": (LABELS.float(), {}),
    "there must be a label a row": (LABELS[:39], {}),
    "class 1 has no image to train on": (F.one_hot(LABELS * 0, 2), {}),
    "labels (N, C) must be 1, 0 or -1 (left out), not 2": (2 * F.one_hot(LABELS), {}),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_labels_are_named(says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(").replace(")", r"\)")):
        LinearProbe().fit(torch.randn(40, 3), BAD[says][0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LinearProbe(0), "above 0, not 0"),
        (lambda: LinearProbe(()), "one or more numbers above 0"),
        (lambda: LinearProbe(metric="top1"), "'top1': choose from accuracy, mean_per_class, map11"),
        (lambda: LinearProbe(validation=1), "between 0 and 1, not 1"),
        (lambda: LinearProbe().predict(torch.ones(2, 3)), "not fitted"),
        (lambda: LinearProbe().fit(torch.ones(9, 2), torch.arange(9) % 2), "10 rows to fit, not 9"),
        (lambda: LinearProbe().fit(torch.ones(40, 2).long(), LABELS), "must be floats"),
    ],
)
def test_bad_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_what_was_not_fitted_is_refused():
    train = clusters(40, 0)
    broken = train.features.clone()
    broken[3, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 40 features hold NaN or infinity, the first is ro"):
        LinearProbe().fit(broken, train.labels)
    probe = LinearProbe(0.1).fit(*train)
    with pytest.raises(ValueError, match="6 dimensions, not 5"):
        probe.predict(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"class 4 has no training image, but 2 of the 2 labels"):
        probe.score(torch.ones(2, 6), torch.tensor([4, 4]))
    few = Features(train.features[train.labels < 3], train.labels[train.labels < 3])
    with pytest.raises(ValueError, match="class 3 has no training image, but 10 of the 40 labels"):
        linear(few, train)


def test_a_second_fit_knows_nothing_of_the_first():
    easy, hard = clusters(200, 0, spread=0.3), clusters(200, 1, spread=6.0)
    probe = LinearProbe().fit(*easy).fit(*hard)
    fresh = LinearProbe().fit(*hard)
    assert probe.l2 == fresh.l2
    assert probe.validation_scores == fresh.validation_scores


def test_what_cannot_be_fitted_is_named():
    x, y = clusters(40, 0)
    with pytest.raises(ValueError, match="no class has 2 rows"):
        LinearProbe().fit(x, torch.arange(40))
    with pytest.raises(ValueError, match=r"within 1e\+15 of 0 to fit, but one is"):
        LinearProbe().fit(x * 1e20, y)
    with pytest.raises(ValueError, match=r"'accuracy' is not for labels \(N, C\)"):
        LinearProbe(metric="accuracy").fit(x, F.one_hot(y))
    with pytest.raises(ValueError, match=r"'map11' is not for labels \(N,\)"):
        linear(Features(x, y), Features(x, y), metric="map11")
