import base64
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from sslkit.dashboard import views_sheet, write_report

EVIL = "<script>alert('x')</script>&\"<b>"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def images(self):
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]


@pytest.fixture
def run(tmp_path):
    """A run folder whose every text tries to be markup."""
    folder = tmp_path / "a <b> run"
    for name in ("pictures", "evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "metrics.csv").write_text(f"step,epoch,train/loss,{EVIL}\n0,0,2.5,1\n9,1,1.25,nan\n")
    (folder / "config.yaml").write_text(f"# {EVIL}\nlr: 0.1\n")
    (folder / "backbone.json").write_text(json.dumps({"method": EVIL, "data": "cifar10", "x": {}}))
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    views_sheet(images, ()).save(folder / "pictures" / "views.png")
    for weights, knn in (("trained", 61.26), ("random", 31.0)):
        row = {"data": EVIL, "weights": weights, "backbone": EVIL, "protocols": {}}
        row["protocols"] = {"knn": {"accuracy": knn}, EVIL: {EVIL: 0.5, "note": EVIL}}
        (folder / "evaluation" / f"{weights}.json").write_text(json.dumps(row))
    return folder


def test_everything_is_on_the_page_and_nothing_of_it_is_markup(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text())
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "b", "link", "iframe"} & set(tags)
    assert (
        page.text.count(EVIL) >= 8
    )  # method, data and backbone twice, protocol, its metric, config
    for shown in ("a <b> run", "61.3", "31.0", "1.25", "epochs", "lr: 0.1", "0.5"):
        assert shown in page.text
    assert len(page.images()) == 4  # loss, the other metric, bars, views
    assert sorted(p.name for p in run.iterdir() if p.is_file()) == [
        "backbone.json",
        "config.yaml",
        "metrics.csv",
        "report.html",
    ]


def test_nothing_is_fetched(run):
    text = write_report(run).read_text()
    page = Page(text)
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", src) for src in page.images())
    assert not any({"href", "onload", "style"} & set(attrs) for _, attrs in page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in re.sub(r'src="data:[^"]*"', "", text)


def test_random_weights_stand_above_the_trained(run):
    text = Page(write_report(run).read_text()).text
    assert text.index("31.0") < text.index("61.3")


def test_an_empty_folder_says_what_is_missing(tmp_path):
    page = Page(write_report(tmp_path).read_text())
    for note in ("no metrics yet", "Not evaluated yet", "No metrics", "No pictures", "No config"):
        assert note in page.text
    assert page.images() == []


def test_one_row_and_nan(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,nan\n")
    page = Page(write_report(tmp_path).read_text())
    assert "nan" in page.text
    assert len(page.images()) == 1


def test_protocols_without_accuracy_make_no_bars(tmp_path):
    (tmp_path / "evaluation").mkdir()
    row = {"data": "d", "weights": "trained", "protocols": {"retrieval": {"recall@1": 40.5}}}
    (tmp_path / "evaluation" / "a.json").write_text(json.dumps(row))
    page = Page(write_report(tmp_path).read_text())
    assert "recall@1 40.5" in page.text
    assert page.images() == []


def test_layers_stand_in_their_order_in_a_plot_of_their_own(tmp_path):
    (tmp_path / "evaluation").mkdir()
    row = {"data": "d", "weights": "trained", "layers": ["stem", "b", "a"]}
    for layer, knn in (("a", 33.0), ("b", 22.0), ("stem", 11.0)):
        scores = {"layer": layer, "protocols": {"knn": {"accuracy": knn}}}
        (tmp_path / "evaluation" / f"{layer}.json").write_text(json.dumps(row | scores))
    page = Page(write_report(tmp_path).read_text())
    places = [page.text.index(number) for number in ("11.0", "22.0", "33.0")]
    assert places == sorted(places)
    assert len(page.images()) == 1


def test_pictures_of_test_images_stand_under_the_scores(tmp_path):
    (tmp_path / "evaluation").mkdir()
    row = {"data": "d", "title": "The <b> set", "protocols": {"retrieval": {"recall@1": 40.5}}}
    for stem, about in (
        ("d-random", {"weights": "random"}),
        ("d", {"weights": "trained"}),
        ("d-stage1", {"weights": "trained", "layer": "stage1", "layers": ["stage1"]}),
        ("a", {"weights": "trained", "data": "a", "title": "A"}),
    ):
        (tmp_path / "evaluation" / f"{stem}.json").write_text(json.dumps(row | about))
        for name in ("retrieval", "embedding"):
            path = tmp_path / "evaluation" / f"{stem}-{name}.png"
            path.write_bytes(f"{stem} {name}".encode())
    (tmp_path / "evaluation" / "a-embedding.png").unlink()
    page = Page(write_report(tmp_path).read_text())
    pictures = [s for s in page.images() if s.startswith("data:image/png")]
    shown = [base64.b64decode(s.partition(",")[2]).decode() for s in pictures]
    assert shown == [
        "a retrieval",
        *("d retrieval", "d embedding"),
        *("d-random retrieval", "d-random embedding"),
    ]
    for caption in (
        "Test images of The <b> set (weights: trained): queries of different classes",
        "Test images of The <b> set (weights: random): how far apart",
        "Test images of A (weights: trained)",
    ):
        assert caption in page.text
    at = [page.text.index(words) for words in ("Scores", "Test images of", "Training", "Pictures")]
    assert at == sorted(at)


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "half.json").write_text('{"data": "ci')
    with pytest.raises(ValueError, match=r"half\.json is no JSON"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
