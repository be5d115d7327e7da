import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch.nn.functional import normalize

from sslkit.backbones import ResNet9
from sslkit.data import LabelledImages, load_splits
from sslkit.evaluation import evaluate, extract
from sslkit.evaluation.features import Features
from sslkit.evaluation.metrics import map_at_r, recall_at_k
from sslkit.evaluation.protocols import PROTOCOLS, Task
from sslkit.evaluation.retrieval import _start, kmeans, retrieval
from sslkit.views import EvaluationView


def embedded(n, classes, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 16, generator=generator)
    return Features(centres[labels] + spread * torch.randn(n, 16, generator=generator), labels)


def test_classes_apart_score_100_whatever_the_length_of_their_features():
    test = embedded(200, 8, 0.01)
    test = Features(test.features * torch.logspace(-20, 15, 200)[:, None], test.labels)
    scores = retrieval(test)
    assert list(scores) == [
        *("recall@1", "recall@2", "recall@4", "recall@8"),
        *("map@r", "nmi", "f1"),
    ]
    assert set(scores.values()) == {100.0}


def test_retrieval_is_its_metrics_and_repeats(capfd):
    test = embedded(300, 6, 1.5)
    before = torch.get_rng_state()
    scores = retrieval(test, ks=(1, 5), seed=3)
    assert retrieval(test, ks=(1, 5), seed=3) == scores
    assert torch.equal(torch.get_rng_state(), before)
    assert list(capfd.readouterr()) == ["", ""]
    recall = recall_at_k(*test, (1, 5))
    assert [scores["recall@1"], scores["recall@5"]] == list(recall.values())
    assert scores["map@r"] == map_at_r(*test)
    assert 0 < scores["f1"] < scores["nmi"] + 20 < 120


def test_retrieval_is_pytorch_metric_learnings_on_the_same_clusters():
    test = embedded(300, 6, 1.5)
    points = normalize(test.features)
    peer = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "NMI"),
        device=torch.device("cpu"),
        kmeans_func=lambda points, clusters: kmeans(points, clusters, seed=0),
    ).get_accuracy(points, test.labels)
    scores = retrieval(test)
    assert scores["recall@1"] == pytest.approx(100 * peer["precision_at_1"])
    assert scores["map@r"] == pytest.approx(100 * peer["mean_average_precision_at_r"])
    assert scores["nmi"] == pytest.approx(100 * peer["NMI"])


def test_queries_are_searched_among_the_gallery_and_all_images_are_clustered():
    test = embedded(300, 6, 1.5)
    queries = torch.arange(300) % 5 < 2
    scores, whole = retrieval(test, ks=(1, 5), queries=queries), retrieval(test, ks=(1, 5))
    points, labels = normalize(test.features.double()), test.labels
    gallery, hits = (~queries).nonzero()[:, 0], {1: 0, 5: 0}
    for i in queries.nonzero()[:, 0]:
        near = gallery[(points[gallery] @ points[i]).argsort(descending=True)]
        for k in hits:
            hits[k] += bool((labels[near[:k]] == labels[i]).any())
    for k, count in hits.items():
        assert scores[f"recall@{k}"] == pytest.approx(100 * count / int(queries.sum()))
    assert scores["map@r"] == map_at_r(*test, queries=queries)
    assert scores["recall@1"] != whole["recall@1"]
    assert (scores["nmi"], scores["f1"]) == (whole["nmi"], whole["f1"])


def test_the_protocol_asks_the_set_for_its_queries():
    test = embedded(60, 4, 1.5)
    images = LabelledImages([], test.labels, "abcd")
    splits = SimpleNamespace(test=images)
    task = Task(None, None, splits, {"test": test}.get)
    run, parameters = PROTOCOLS["retrieval"].run, PROTOCOLS["retrieval"].parameters
    assert run(task, parameters) == {"metric": "recall@1", **retrieval(test)}
    images.queries = torch.arange(60) % 3 == 0
    found = run(task, parameters)
    assert found == {"metric": "recall@1", **retrieval(test, queries=images.queries)}
    assert found["map@r"] != retrieval(test)["map@r"]


def test_images_that_no_search_can_find_are_counted():
    features = torch.randn(6, 3)
    run, parameters = PROTOCOLS["retrieval"].run, {"ks": (1,), "seed": 0}

    def left_out(labels, queries=None):
        images = SimpleNamespace(labels=torch.tensor(labels), queries=queries)
        test = Features(features, images.labels)
        task = Task(None, None, SimpleNamespace(test=images), {"test": test}.get)
        return run(task, parameters).get("left_out")

    assert left_out([0, 0, 1, 1, 2, 2]) is None
    said = "2 of 6 images, alone in their class, are left out of recall and MAP"
    assert left_out([0, 0, 1, 3, 2, 2]) == said
    # of the queries 0, 2 and 3 the gallery has the class of the first
    queries = torch.tensor([True, False, True, True, False, False])
    said = "2 of 3 queries, of no class in the gallery, are left out of recall and MAP"
    assert left_out([0, 0, 1, 1, 2, 2], queries) == said


def test_in_shop_is_scored_by_its_queries(tmp_path):
    base, lines = tmp_path / "In-shop_Clothes_Retrieval_Benchmark", []
    for i in range(40):
        status = "train" if i < 10 else ("query", "gallery")[i % 3 > 0]
        path = f"img/MEN/Tees/id_{i % 5 + 5 * (i >= 10)}/{i}.jpg"
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        noise = Image.effect_noise((16, 16), 9 * (i % 5) + 20)
        noise.save(base / path, "PNG")
        lines.append(f"{path} {path.split('/')[3]} {status}")
    (base / "Eval").mkdir()
    head = ["40", "image_name item_id evaluation_status"]
    (base / "Eval" / "list_eval_partition.txt").write_text("\n".join([*head, *lines]))
    torch.manual_seed(0)
    net, view = ResNet9(4), EvaluationView(16, "cifar10")
    found = evaluate(net, view, "inshop", ["retrieval"], root=str(tmp_path), cache=tmp_path / "f")
    test = load_splits("inshop", root=tmp_path, size=16).test
    assert (len(test), int(test.queries.sum())) == (30, 10)
    expected = retrieval(extract(net, test, view), queries=test.queries)
    scores = found["protocols"]["retrieval"]
    assert {name: scores[name] for name in expected} == expected
    assert scores["map@r"] != retrieval(extract(net, test, view))["map@r"]


def test_kmeans_is_as_good_as_scikit_learns():
    test = embedded(600, 10, 1.0)
    points = normalize(test.features)
    ours = kmeans(points, 10)
    assert ours.shape == (600,)
    peer = KMeans(10, n_init=10, random_state=0).fit(points.numpy())
    cost = 0.0
    for cluster in ours.unique():
        members = points[ours == cluster]
        cost += float((members - members.mean(0)).square().sum())
    assert cost <= 1.02 * peer.inertia_
    agreed = normalized_mutual_info_score(test.labels, peer.labels_)
    assert normalized_mutual_info_score(test.labels, ours) == pytest.approx(agreed, abs=0.03)


def test_a_start_is_greedy_k_means_plus_plus():
    """Of 2 + log(K) points, drawn by the squared distance to the centres, the best, in turn."""
    points, classes = normalize(embedded(400, 8, 1.0).features), 40
    generator = torch.Generator().manual_seed(5)
    centres = points[torch.randint(400, (1,), generator=generator)]
    for _ in range(classes - 1):
        near = torch.cdist(points, centres).square().min(1).values
        drawn = near.clamp_min(1e-12).multinomial(5, replacement=True, generator=generator)
        costs = [torch.cdist(points, points[i, None]).square().squeeze(1) for i in drawn]
        best = min(range(5), key=lambda i: float(costs[i].minimum(near).double().sum()))
        centres = torch.cat([centres, points[drawn[best], None]])
    assert torch.equal(_start(points, classes, torch.Generator().manual_seed(5)), centres)


def test_kmeans_uses_every_point():
    # faiss would draw 256 a cluster: the far one would rarely be among them.
    points = torch.cat([0.1 * torch.randn(5000, 2), torch.tensor([[1000.0, 0.0]])])
    for seed in range(3):
        assert kmeans(points, 2, seed=seed).bincount().sort().values.tolist() == [1, 5000]


def test_kmeans_finds_small_classes_far_away():
    labels = torch.cat([torch.zeros(2000), torch.arange(1, 10).repeat(3)]).long()
    centres = 10 * torch.eye(10)
    noise = torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        found = kmeans(centres[labels] + 0.01 * noise, 10, seed=seed)
        assert normalized_mutual_info_score(labels, found) == pytest.approx(1)


def test_features_that_are_all_one_have_scores_and_print_nothing(capfd):
    scores = retrieval(Features(torch.ones(40, 5), torch.arange(40) % 4))
    assert all(0 <= score <= 100 for score in scores.values())
    assert list(capfd.readouterr()) == ["", ""]


def test_kmeans_refuses():
    for clusters in (0, 4):
        with pytest.raises(ValueError, match=f"from 1 to the 3 points, not {clusters}"):
            kmeans(torch.randn(3, 2), clusters)
    with pytest.raises(ValueError, match="seed must be at least 0, not -1"):
        kmeans(torch.randn(3, 2), 2, seed=-1)


def test_retrieval_refuses_what_has_no_answer():
    features, labels = embedded(20, 4, 1.0)
    for test, says in (
        (Features(features, labels * 0), "2 classes or more, but all labels are one"),
        (Features(features, labels - 1), "at least 0, but one is -1"),
        (Features(features[:1], labels[:1]), "no two of the 1 labels"),
        (Features(features[:8], labels[:8]), "from 1 to the 7 others there are, not"),
        (Features(features * 0, labels), "only zeros"),
        (Features(features * math.nan, labels), "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=says):
            retrieval(test)
