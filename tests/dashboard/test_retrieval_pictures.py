import io

import pytest
import torch
from PIL import Image

from sslkit.dashboard import retrieval_pictures
from sslkit.dashboard.retrieval_pictures import beside, retrieval_sheet, save_retrieval_pictures
from sslkit.data import ArrayDataset
from sslkit.evaluation import Features


class Numbered(ArrayDataset):
    """Image i is of the grey i; what is read is noted."""

    def __init__(self, labels, queries=None):
        greys = torch.arange(len(labels), dtype=torch.uint8)
        images = greys[:, None, None, None].expand(-1, 3, 8, 8)
        names = [f"class {i}" for i in range(int(labels.max()) + 1)]
        super().__init__(images, labels, names)
        self.queries, self.read = queries, []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def spread(labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(len(labels), 6, generator=generator), labels)


@pytest.fixture
def drawn(monkeypatch):
    """What the sheet is made of, as it is made: rows (Q, 1 + K), labels, cosines."""
    made = []
    true = retrieval_pictures.neighbour_sheet

    def noted(queries, near, labels, classes, scores):
        rows = torch.cat([queries[:, None], near], 1)[:, :, 0, 0, 0].long()
        made.append((rows, labels, scores, classes))
        return true(queries, near, labels, classes, scores)

    monkeypatch.setattr(retrieval_pictures, "neighbour_sheet", noted)
    return made


def by_loop(features, query, among):
    """The cosines of a query with each of some rows, nearest first."""
    z = features.double()
    cosine = {i: float(z[i] @ z[query] / z[i].norm() / z[query].norm()) for i in among}
    return sorted(cosine.items(), key=lambda item: -item[1])


LABELS = torch.tensor([i % 11 for i in range(110)] + [11, 12])  # two classes of one image


def test_each_query_stands_beside_its_nearest_and_their_true_labels(drawn):
    images, test = Numbered(LABELS), spread(LABELS)
    png = retrieval_sheet(images, test)
    ((rows, labels, cosines, classes),) = drawn
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert rows.shape == (8, 9)
    assert torch.equal(labels, LABELS[rows])
    assert classes == images.classes
    assert len(set(labels[:, 0].tolist())) == 8
    for row, near in zip(rows.tolist(), cosines.tolist(), strict=True):
        nearest = by_loop(test.features, row[0], set(range(112)) - {row[0]})[:8]
        assert row[1:] == [i for i, _ in nearest]
        assert near == pytest.approx([cosine for _, cosine in nearest], abs=1e-5)
    assert sorted(set(images.read)) == sorted(set(rows.flatten().tolist()))  # and no other


def test_queries_are_drawn_by_lot_and_are_those_of_any_backbone(drawn):
    for seed in range(5):
        retrieval_sheet(Numbered(LABELS), spread(LABELS, seed))
    first = drawn[0][0][:, 0]
    assert all(torch.equal(rows[:, 0], first) for rows, *_ in drawn)
    assert not torch.equal(drawn[0][0], drawn[1][0])
    classes = LABELS[first]
    assert not {11, 12} & set(classes.tolist())  # nothing could be found
    assert classes.tolist() != sorted(classes.tolist())
    assert first.max() > 50


def test_marked_queries_are_searched_for_in_the_gallery(drawn):
    queries = torch.arange(112) % 3 == 0
    queries[LABELS == 4] = True  # of which none is in the gallery
    images, test = Numbered(LABELS, queries), spread(LABELS)
    retrieval_sheet(images, test)
    rows, labels, *_ = drawn[0]
    gallery = (~queries).nonzero()[:, 0].tolist()
    assert queries[rows[:, 0]].all()
    assert not {4, 11, 12} & set(labels[:, 0].tolist())
    for row in rows.tolist():
        assert row[1:] == [i for i, _ in by_loop(test.features, row[0], gallery)[:8]]


@pytest.mark.parametrize(
    ("labels", "queries", "shape"),
    [
        ([0, 0, 1], None, (1, 3)),
        ([0, 0, 1, 1], None, (2, 4)),
        ([0, 1, 0, 1], [True, True, False, False], (2, 3)),
        ([0, 1, 0], [True, True, False], (1, 2)),
    ],
)
def test_sets_of_a_few_images(labels, queries, shape, drawn):
    labels = torch.tensor(labels)
    retrieval_sheet(Numbered(labels, queries and torch.tensor(queries)), spread(labels))
    assert drawn[0][0].shape == shape


def test_a_set_without_a_query_is_refused():
    labels = torch.arange(5)
    with pytest.raises(ValueError, match="no class of the 5 images has another image"):
        retrieval_sheet(Numbered(labels), spread(labels))
    marked = torch.tensor([True, True, False, False, False])
    with pytest.raises(ValueError, match="no class of the 5 images has another image"):
        retrieval_sheet(Numbered(labels, marked), spread(labels))


def test_pictures_are_written_beside_the_score_once(tmp_path):
    score, images = tmp_path / "torchvision_resnet50.v1-x.json", Numbered(LABELS)
    paths = beside(score)
    assert [path.name for path in paths.values()] == [
        "torchvision_resnet50.v1-x-retrieval.png",
        "torchvision_resnet50.v1-x-embedding.png",
    ]
    written = save_retrieval_pictures(score, images, lambda: spread(LABELS), anew=False)
    assert sorted(written) == sorted(paths.values()) == sorted(tmp_path.iterdir())
    first = [path.read_bytes() for path in paths.values()]
    assert save_retrieval_pictures(score, images, None, anew=False) == []  # asks for no features
    other = save_retrieval_pictures(score, images, lambda: spread(LABELS, 1), anew=True)
    assert sorted(other) == sorted(written)
    assert all(path.read_bytes() != old for path, old in zip(paths.values(), first, strict=True))
    paths["retrieval"].unlink()
    assert save_retrieval_pictures(score, images, lambda: None, anew=False) is None
    assert sorted(tmp_path.iterdir()) == [paths["embedding"]]


@pytest.mark.parametrize("gone", ["retrieval", "embedding"])
def test_only_the_picture_that_is_missing_is_drawn(tmp_path, gone):
    score, images = tmp_path / "x.json", Numbered(LABELS)
    paths = beside(score)
    save_retrieval_pictures(score, images, lambda: spread(LABELS), anew=False)
    first = paths[gone].read_bytes()
    for name, path in paths.items():
        path.unlink() if name == gone else path.write_bytes(b"mine")
    written = save_retrieval_pictures(score, images, lambda: spread(LABELS), anew=False)
    assert written == [paths[gone]]
    assert paths[gone].read_bytes() == first
    assert [p.read_bytes() for name, p in paths.items() if name != gone] == [b"mine"]
