import json

import pytest
import torch
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.data import load_splits
from sslkit.evaluation import (
    PROTOCOLS,
    absent,
    evaluate,
    evaluate_layers,
    extract_layers,
    protocols_of,
)
from sslkit.evaluation.protocols import Protocol, headline
from sslkit.views import EvaluationView

VIEW = EvaluationView(32, "cifar10")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return ResNet9(4)


def counted(calls, name="counted", version=1, **parameters):
    """A protocol that notes that it was run."""

    def run(task, parameters):
        calls.append(name)
        return {"metric": "accuracy", "accuracy": 100.0 * len(calls)}

    return Protocol(name, version, run, parameters, reads=())


def test_a_result_is_plain_and_says_what_made_it(backbone, few_test_images):
    result = evaluate(backbone, VIEW, "shapes", ["knn", "linear"], limit=400)
    assert json.loads(json.dumps(result)) == result
    assert (result["data"], result["metric"]) == ("shapes", "accuracy")
    assert "400" in result["differs"]
    assert result["n_train"] == 400
    for name, scores in result["protocols"].items():
        assert scores["protocol"] == PROTOCOLS[name].id
        assert 10 < headline(scores) < 100
    assert list(result["protocols"]) == ["knn", "linear"]


def test_an_id_changes_with_parameters_and_version_alone():
    ids = {
        Protocol("x", version, None, parameters).id
        for version in (1, 2)
        for parameters in ({"k": 1}, {"k": 2}, {"k": 1, "l": 1})
    }
    assert len(ids) == 6
    assert (
        Protocol("x", 1, None, {"a": 1, "b": 2}).id == Protocol("x", 1, None, {"b": 2, "a": 1}).id
    )


def test_ids_are_those_that_were_published():
    """A changed id is a new version: what carries the old one no longer compares."""
    assert {name: protocol.id for name, protocol in PROTOCOLS.items()} == {
        "knn": "knn/1:e6ed10f4",
        "linear": "linear/2:3efdcc39",
        "finetune": "finetune/1:3f8adafd",
        "semi1": "semi1/1:a430025c",
        "semi10": "semi10/1:d89d649f",
        "retrieval": "retrieval/1:1abdf84d",
    }


def test_a_budget_is_another_protocol():
    (whole,), (cut,) = protocols_of(["finetune"]), protocols_of(["finetune"], steps=5, grid=(1, 2))
    assert whole.id == PROTOCOLS["finetune"].id != cut.id
    assert protocols_of(["knn"], steps=5)[0] is PROTOCOLS["knn"]
    with pytest.raises(ValueError, match="no protocol named 'svm'; choose from knn, linear, fine"):
        protocols_of(["svm"])


def test_finished_scores_are_taken_over(backbone, few_test_images):
    calls = []
    options = {"limit": 100}
    first = evaluate(backbone, VIEW, "shapes", [counted(calls)], **options)
    again = evaluate(backbone, VIEW, "shapes", [counted(calls)], before=[first], **options)
    assert calls == ["counted"]
    assert again["protocols"] == first["protocols"]
    kept = []
    evaluate(
        backbone,
        VIEW,
        "shapes",
        [counted(calls), counted(calls, "other")],
        before=[first],
        keep=lambda result, name: kept.append((name, list(result["protocols"]))),
        **options,
    )
    assert calls == ["counted", "other"]
    assert kept == [("counted", ["counted"]), ("other", ["counted", "other"])]
    alone = evaluate(backbone, VIEW, "shapes", [counted(calls, "third")], before=[first], **options)
    assert list(alone["protocols"]) == ["third"]  # what was not asked for is not taken over


def test_scores_of_anything_else_are_not_taken_over(backbone, few_test_images):
    first = evaluate(backbone, VIEW, "shapes", [counted([])], limit=100)
    torch.manual_seed(1)
    other = ResNet9(4)
    for changed, protocol, options in (
        (other, counted(calls := []), {"limit": 100}),
        (backbone, counted(calls, version=2), {"limit": 100}),
        (backbone, counted(calls, k=3), {"limit": 100}),
        (backbone, counted(calls), {"limit": 101}),
    ):
        evaluate(changed, VIEW, "shapes", [protocol], before=[first], **options)
    assert len(calls) == 4


def test_a_failure_is_said_and_the_rest_goes_on(backbone, few_test_images):
    calls = []
    names = [*protocols_of(["knn"]), counted(calls)]
    with pytest.raises(ValueError, match="k = 200 is above the 150"):
        evaluate(backbone, VIEW, "shapes", names, limit=150)
    result = evaluate(backbone, VIEW, "shapes", names, limit=150, failures=True)
    assert list(result["protocols"]) == ["counted"]
    assert result["failed"] == {"knn": "k = 200 is above the 150 features there are"}


def test_a_set_of_untrained_classes_is_refused_before_its_features(tmp_path, monkeypatch):
    for name in "abcd":
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.effect_noise((8, 8), 9 * ord(name) % 80 + i).save(tmp_path / name / f"{i}.png")
    data, net = f"classes:{tmp_path}", ResNet9(4)
    own = counted([])  # a protocol of somebody else's may be for it
    found = evaluate(net, VIEW, data, [own, *protocols_of(["knn"])], failures=True)
    assert list(found["protocols"]) == ["counted"]
    says = "tests with classes that no training image shows: it is for --protocol retrieval"
    assert found["failed"] == {"knn": f"{data} {says}, not for knn"}
    monkeypatch.setattr(ResNet9, "forward", None)
    with pytest.raises(ValueError, match=says):
        evaluate(net, VIEW, data, ["knn"])


def test_features_are_extracted_once_and_kept(backbone, few_test_images, tmp_path, monkeypatch):
    seen = []
    forward = ResNet9.forward
    monkeypatch.setattr(ResNet9, "forward", lambda net, x: seen.append(len(x)) or forward(net, x))
    options = {"limit": 250, "cache": tmp_path}
    first = evaluate(backbone, VIEW, "shapes", ["knn", "linear", "retrieval"], **options)
    extracted = len(seen)
    second = evaluate(backbone, VIEW, "shapes", ["knn", "linear", "retrieval"], **options)
    assert len(seen) == extracted
    without = evaluate(backbone, VIEW, "shapes", ["knn", "linear", "retrieval"], limit=250)
    for name, scores in first["protocols"].items():
        for other in (second, without):
            assert headline(other["protocols"][name]) == headline(scores)
    assert headline(first["protocols"]["retrieval"]) == first["protocols"]["retrieval"]["recall@1"]


def test_scores_of_features_are_shown_with_those_that_are_at_hand(
    backbone, few_test_images, tmp_path, monkeypatch
):
    seen = []

    def shown(protocols, **options):
        seen.clear()

        def show(result, protocol, images, features):
            test = features()
            seen.append((protocol, result.get("layer"), test and test.features.clone()))
            assert torch.equal(images.labels, test.labels if test else images.labels)

        results = evaluate_layers(backbone, VIEW, "shapes", protocols, show=show, **options)
        return results, list(seen)

    options = {"limit": 250, "layers": ["stem", "stage3"]}
    results, made = shown(["retrieval"], cache=tmp_path, **options)
    expected = extract_layers(backbone, load_splits("shapes").test, VIEW, options["layers"])
    assert [entry[:2] for entry in made] == [("retrieval", "stem"), ("retrieval", "stage3")]
    for _, layer, features in made:
        assert torch.equal(features, expected[layer].features)
    for name in ("forward", "feature_maps"):
        monkeypatch.setattr(ResNet9, name, lambda *_: pytest.fail("extracted again"))
    _, found = shown(["retrieval"], cache=tmp_path, before=results, **options)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(made, found, strict=True))
    _, found = shown(["retrieval"], before=results, **options)
    assert [entry[2] for entry in found] == [None, None]


def test_finetune_is_run_on_the_images(backbone, few_test_images, tmp_path):
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    chosen = protocols_of(["finetune", "semi10"], steps=3, grid=(1, 2))
    result = evaluate(backbone, VIEW, "shapes", chosen, limit=200, cache=tmp_path)
    tuned = result["protocols"]["finetune"]
    assert tuned["cut"] == "3 of 20,000 steps, 1 x 2 of 7 x 8"
    assert len(list(tmp_path.glob("finetune-*/*.json"))) == 2
    assert 0 <= headline(tuned) <= 100
    assert result["protocols"]["semi10"]["images"] == 20
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(ValueError, match="finetune trains the whole network"):
        evaluate_layers(backbone, VIEW, "shapes", ["finetune"], limit=100)


def test_layers_have_a_result_each(backbone, few_test_images):
    results = evaluate_layers(
        backbone, VIEW, "shapes", ["knn"], layers=["stem", "stage3"], limit=250
    )
    assert [r["layer"] for r in results] == ["stem", "stage3"]
    whole = evaluate(backbone, VIEW, "shapes", ["knn"], limit=250)
    assert headline(results[1]["protocols"]["knn"]) == headline(whole["protocols"]["knn"])
    found = evaluate_layers(
        backbone, VIEW, "shapes", ["knn"], layers=["stage3", "stem"], limit=250, before=results
    )
    assert [r["protocols"] for r in found] == [r["protocols"] for r in results[::-1]]


def test_what_is_absent_is_said():
    result = absent("flowers102", "get it from ...")
    assert (result["title"], result["metric"]) == ("Flowers-102", "mean_per_class")
    assert (result["protocols"], result["absent"]) == ({}, "get it from ...")
    with pytest.raises(FileNotFoundError, match="dtd is not at"):
        evaluate(ResNet9(4), VIEW, "dtd", root="/nowhere")
