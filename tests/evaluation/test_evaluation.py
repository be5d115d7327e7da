import math

import pytest
import torch
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
    rankme,
    uniformity,
)
from sslkit.views import EvaluationView


def clusters(n, seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, 4, (n,), generator=generator)
    return Features(centres[labels] + spread * torch.randn(n, 6, generator=generator), labels)


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
    torch.manual_seed(0)
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
    with pytest.raises(ValueError, match="'svm'; choose from knn, linear, finetune"):
        evaluate(ResNet9(4), EvaluationView(32), "shapes", ["svm"])
    with pytest.raises(ValueError, match="cifar10"):
        evaluate(ResNet9(4), EvaluationView(32), "cifar11", ["knn"])


def test_protocols_need_labels():
    unlabelled = Features(torch.randn(30, 6), torch.full((30,), -1))
    for protocol in (knn, linear):
        with pytest.raises(ValueError, match="some are -1, which stands for none"):
            protocol(clusters(30, 0), unlabelled)


def test_signals_need_two_rows_of_one_shape():
    for signal in (feature_std, rankme, uniformity):
        with pytest.raises(ValueError, match=r"N of at least 2, not \(1, 5\)"):
            signal(torch.randn(1, 5))
    with pytest.raises(ValueError, match=r"one shape, not \(4, 3\) and \(1, 3\)"):
        alignment(torch.randn(4, 3), torch.randn(1, 3))
