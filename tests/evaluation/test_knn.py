import math
import sys

import pytest
import torch
from torch.nn.functional import normalize

from sslkit.evaluation import KNN, Features, knn, nearest, voc_ap11


def clusters(n, seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % 4
    return Features(centres[labels] + spread * torch.randn(n, 6, generator=generator), labels)


def votes_by_hand(train, test, k, temperature=0.07):
    """Brute force in float64: the votes of each query, divided by their sum."""
    cosine = normalize(test.features.double()) @ normalize(train.features.double()).T
    votes = torch.zeros(len(test.labels), 4, dtype=torch.float64)
    for query, row in enumerate(cosine):
        for i in sorted(range(len(row)), key=lambda i: -row[i])[:k]:
            votes[query, train.labels[i]] += math.exp(row[i] / temperature)
    return votes / votes.sum(1, keepdim=True)


@pytest.mark.parametrize("k", [1, 20, 80])
def test_votes_are_those_by_hand(k, monkeypatch):
    monkeypatch.setattr(sys.modules["sslkit.evaluation.knn"], "BLOCK", 7)
    train, test = clusters(80, 0), clusters(30, 1)
    found = KNN(k).fit(*train).votes(test.features)[k]
    by_hand = votes_by_hand(train, test, k)
    torch.testing.assert_close(found, by_hand.float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.argmax(1), by_hand.argmax(1))


@pytest.mark.parametrize("k", [1, 5, 200])
def test_predictions_are_lightlys(k):
    from lightly.utils.benchmarking import knn_predict

    train, test = clusters(500, 0), clusters(200, 1)
    ranked = knn_predict(
        normalize(test.features), normalize(train.features).T, train.labels, 4, k, 0.07
    )
    assert torch.equal(KNN(k).fit(*train).predict(test.features), ranked[:, 0])


def test_one_search_serves_every_k():
    train, test = clusters(300, 0), clusters(100, 1)
    scores = knn(train, test, ks=(50, 5))
    for k in (50, 5):
        alone = KNN(k).fit(*train).score(*test)
        assert scores[f"accuracy_k{k}"] == pytest.approx(alone)
    assert scores["accuracy"] == scores["accuracy_k50"]
    assert (scores["k"], scores["temperature"], scores["metric"]) == (50, 0.07, "accuracy")


def test_weights_do_not_overflow():
    votes = KNN(2, temperature=1e-3).fit(*clusters(8, 0)).votes(clusters(8, 1).features)[2]
    assert votes.isfinite().all()
    torch.testing.assert_close(votes.sum(1), torch.ones(8))


def test_several_labels_are_voted_on_one_by_one():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
    y = torch.tensor([[1, 0], [-1, 1], [0, 1]])
    fitted = KNN(2).fit(x, y)
    votes = fitted.votes(torch.tensor([[1.0, 0.0]]))[2]
    torch.testing.assert_close(votes, torch.tensor([[0.5, 0.5]]), atol=1e-3, rtol=0)
    assert fitted.predict(torch.tensor([[0.0, 1.0]])).tolist() == [[False, True]]
    test = Features(x, y)
    expected = voc_ap11(fitted.votes(x)[2], y)
    assert knn(test, test, metric="map11", ks=(2,))["map11"] == pytest.approx(expected)


def test_nearest_is_exact():
    queries, bank = torch.randn(2, 50, 8)
    similarity, rows = nearest(queries, bank, 5)
    full = normalize(queries) @ normalize(bank).T
    torch.testing.assert_close(similarity, full.topk(5).values)
    assert torch.equal(rows, full.topk(5).indices)
    with pytest.raises(ValueError, match="between 1 and the 50"):
        nearest(queries, bank, 51)


def test_bad_input_is_named():
    train, test = clusters(9, 0), clusters(9, 1)
    for options in ({"ks": (1, 0)}, {"ks": ()}):
        with pytest.raises(ValueError, match="kNN takes ks of at least 1"):
            knn(train, test, **options)
    for options in ({"k": 0}, {"temperature": 0.0}, {"temperature": math.inf}):
        with pytest.raises(ValueError, match="a k of at least 1 and a temperature above 0"):
            KNN(**options)
    with pytest.raises(ValueError, match="k = 200 is above the 9 features there are"):
        knn(train, test)
    empty = train.features.clone()
    empty[2] = 0
    with pytest.raises(ValueError, match="1 of 9 features are all zeros, which have no direction"):
        KNN(1).fit(empty, train.labels)
    with pytest.raises(ValueError, match="the first is row 2"):
        knn(train, Features(empty, test.labels), ks=(1,))
    few = Features(train.features[:3], train.labels[:3])
    with pytest.raises(ValueError, match="class 3 has no training image"):
        knn(few, test, ks=(1,))
    with pytest.raises(ValueError, match="some are -1, which stands for none"):
        KNN(1).fit(train.features, train.labels - 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1.0, 1e13, 1e30])
def test_the_size_of_features_does_not_matter(scale):
    train, test = clusters(80, 0), clusters(30, 1)
    usual = KNN(5).fit(*train).votes(test.features)[5]
    fitted = KNN(5).fit(train.features * scale, train.labels)
    torch.testing.assert_close(fitted.votes(test.features * scale)[5], usual)
    assert (
        KNN(1).fit(train.features * scale, train.labels).score(train.features * scale, train.labels)
        == 100
    )
    with pytest.raises(ValueError, match=r"each k must be from 1 to the 80 fitted, not \(81,\)"):
        fitted.votes(test.features, (81,))


def test_a_metric_fits_its_labels():
    x, y = clusters(20, 0)
    with pytest.raises(ValueError, match=r"'map11' is not for labels \(N,\)"):
        KNN(1, metric="map11").fit(x, y)
    several = KNN(1).fit(x, y).fit(x, torch.nn.functional.one_hot(y))
    assert several.score(x, torch.nn.functional.one_hot(y)) == 100
    with pytest.raises(ValueError, match="labels must be one integer or more"):
        KNN(1).fit(x, y > 1)
