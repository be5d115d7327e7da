import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset
from sslkit.evaluation import (
    Features,
    alignment,
    evaluate,
    evaluate_layers,
    extract,
    extract_layers,
    feature_std,
    knn,
    linear,
    nearest,
    rankme,
    uniformity,
)
from sslkit.evaluation.linear import fit
from sslkit.views import EvaluationView


def clusters(n, seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, 4, (n,), generator=generator)
    return Features(centres[labels] + spread * torch.randn(n, 6, generator=generator), labels)


def test_knn_is_the_vote_by_hand():
    train, test = clusters(80, 0), clusters(30, 1)
    correct = 0
    for x, label in zip(*test, strict=True):
        cosine = [torch.cosine_similarity(x, b, dim=0).item() for b in train.features]
        votes = [0.0] * 4
        for i in sorted(range(80), key=lambda i: -cosine[i])[:20]:
            votes[train.labels[i]] += math.exp(cosine[i] / 0.07)
        correct += votes.index(max(votes)) == label
    assert knn(train, test, ks=(20,))["accuracy"] == pytest.approx(100 * correct / 30)


def test_nearest_is_exact():
    queries, bank = torch.randn(2, 50, 8)
    similarity, rows = nearest(queries, bank, 5)
    full = nn.functional.normalize(queries) @ nn.functional.normalize(bank).T
    torch.testing.assert_close(similarity, full.topk(5).values)
    assert torch.equal(rows, full.topk(5).indices)
    with pytest.raises(ValueError, match="between 1 and the 50"):
        nearest(queries, bank, 51)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_fit_is_sklearns_optimum(l2):
    x, y = clusters(200, 0)
    ours = fit(x.double(), y, l2, torch.zeros(4, 7, dtype=torch.float64))
    peer = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=5000).fit(x.numpy(), y)
    torch.testing.assert_close(
        ours[:, :-1], torch.from_numpy(np.asarray(peer.coef_, dtype=float)), atol=1e-3, rtol=1e-2
    )


def test_linear_learns_and_says_what_it_chose():
    scores = linear(clusters(400, 0, 0.5), clusters(200, 1, 0.5))
    assert scores["accuracy"] > 90
    assert scores["l2"] in [10.0**e for e in range(-6, 2)]
    with pytest.raises(ValueError, match=r"2 classes and 10 images.*not 1 and 3"):
        linear(Features(torch.randn(3, 2), torch.zeros(3).long()), clusters(5, 0))


def test_extract_leaves_the_backbone_bit_identical():
    backbone = ResNet9(4).train()
    backbone.stem.eval()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    images = torch.randint(0, 256, (10, 3, 32, 32)).byte()
    data = ArrayDataset(images, torch.arange(10))
    features = extract(backbone, data, EvaluationView(32), batch_size=3)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert backbone.training
    assert not backbone.stem.training
    expected = backbone.eval()(EvaluationView(32)(images))
    torch.testing.assert_close(features.features, expected.detach())
    assert features.labels.tolist() == list(range(10))


def test_layers_are_means_over_the_cells_of_a_grid():
    backbone = ResNet9(4).train()
    images = torch.randint(0, 256, (5, 3, 32, 32)).byte()
    data, view = ArrayDataset(images, torch.arange(5)), EvaluationView(32)
    found = extract_layers(backbone, data, view, ["stage1", "stage3", "stem"], batch_size=2)
    assert list(found) == ["stage1", "stage3", "stem"]
    maps = dict(zip(backbone.layers, backbone.eval().feature_maps(view(images)), strict=True))
    # 32 numbers at most: 4 channels on 2 x 2 cells, 8 channels on 2 x 2, 32 channels on 1.
    for name, grid in (("stem", 2), ("stage1", 2), ("stage3", 1)):
        side = maps[name].shape[-1] // grid
        cells = [
            maps[name][:, :, i * side : (i + 1) * side, j * side : (j + 1) * side].mean((2, 3))
            for i in range(grid)
            for j in range(grid)
        ]
        expected = torch.stack(cells, 2).flatten(1).detach()
        torch.testing.assert_close(found[name].features, expected)
        assert found[name].labels.tolist() == list(range(5))
    features = extract(backbone, data, view).features
    torch.testing.assert_close(found["stage3"].features, features)


def test_evaluate_layers_scores_each(few_test_images):
    results = evaluate_layers(ResNet9(4), EvaluationView(32), "shapes", ["knn"], limit=300)
    assert [r["layer"] for r in results] == ["stem", "stage1", "stage2", "stage3"]
    whole = evaluate(ResNet9(4), EvaluationView(32), "shapes", ["knn"], limit=300)
    assert whole.keys() == results[0].keys() - {"layer", "layers"}
    assert all(10 < r["protocols"]["knn"]["accuracy"] < 60 for r in results)
    with pytest.raises(ValueError, match="ResNet9 has no layer 'layer4'; choose from stem, stage1"):
        evaluate_layers(ResNet9(4), EvaluationView(32), "shapes", layers=["stem", "layer4"])


def test_extract_refuses_nan():
    data = ArrayDataset(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))

    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1) * math.nan

    with pytest.raises(ValueError, match="NaN or infinity"):
        extract(Broken(), data, EvaluationView(4))


def test_signals_by_hand():
    x = torch.randn(20, 5)
    p = torch.linalg.svdvals(x) / torch.linalg.svdvals(x).sum()
    assert rankme(x) == pytest.approx(math.exp(-(p * p.log()).sum().item()), rel=1e-4)
    z = nn.functional.normalize(x)
    pairs = [math.exp(-2 * (z[i] - z[j]).square().sum()) for i in range(20) for j in range(i)]
    assert uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-4)
    y = torch.randn(20, 5)
    w = nn.functional.normalize(y)
    assert alignment(x, y) == pytest.approx((z - w).norm(dim=1).square().mean().item(), rel=1e-5)


def test_evaluate_bad_names():
    with pytest.raises(ValueError, match="'svm'; choose from knn, linear"):
        evaluate(ResNet9(4), EvaluationView(32), "shapes", ["svm"])
    with pytest.raises(ValueError, match="cifar10"):
        evaluate(ResNet9(4), EvaluationView(32), "cifar11", ["knn"])


def test_the_test_split_picks_nothing():
    train, test = clusters(400, 0), clusters(200, 1)
    shuffled = Features(test.features, test.labels[torch.randperm(200)])
    scores, others = linear(train, test), linear(train, shuffled)
    for key in ("l2", "validation_accuracy"):
        assert scores[key] == others[key]
    assert scores["accuracy"] != others["accuracy"]


def test_fit_in_float32_is_as_good_as_in_float64_at_the_weakest_penalty():
    x, y = clusters(400, 0)

    def objective(weight):
        logits = nn.functional.linear(x.double(), weight[:, :-1].double(), weight[:, -1].double())
        return nn.functional.cross_entropy(logits, y) + 5e-7 * weight[:, :-1].square().sum()

    single = fit(x, y, 1e-6, torch.zeros(4, 7))
    double = fit(x.double(), y, 1e-6, torch.zeros(4, 7, dtype=torch.float64))
    assert objective(single).item() == pytest.approx(objective(double).item(), rel=1e-4)


def test_knn_reports_the_k_it_used():
    train = clusters(15, 0)
    scores = knn(train, train)
    assert scores["k"] == 15
    assert scores["accuracy"] == scores["accuracy_k15"]


@pytest.mark.parametrize("options", [{"ks": (1, 0)}, {"ks": ()}, {"temperature": 0.0}])
def test_knn_refuses_what_has_no_answer(options):
    with pytest.raises(ValueError, match="kNN takes ks of at least 1 and a temperature above 0"):
        knn(clusters(9, 0), clusters(9, 1), **options)


def test_protocols_need_labels():
    unlabelled = Features(torch.randn(30, 6), torch.full((30,), -1))
    for protocol in (knn, linear):
        with pytest.raises(ValueError, match="needs labels, but some are -1"):
            protocol(clusters(30, 0), unlabelled)


def test_signals_need_two_rows_of_one_shape():
    for signal in (feature_std, rankme, uniformity):
        with pytest.raises(ValueError, match=r"N of at least 2, not \(1, 5\)"):
            signal(torch.randn(1, 5))
    with pytest.raises(ValueError, match=r"one shape, not \(4, 3\) and \(1, 3\)"):
        alignment(torch.randn(4, 3), torch.randn(1, 3))
