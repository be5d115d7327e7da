import pytest
import torch
from PIL import Image

from sslkit.dashboard.neighbours import closest, pictures_of
from sslkit.data import LabelledImages


def test_closest_agree_with_a_loop():
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.tensor([3, 0, 29, -1])
    queries = torch.cat([features[own[:3]], torch.ones(1, 4, dtype=torch.float64)])
    index, scores = closest(queries, features, own, 3)
    for q in range(4):
        cosine = [
            -2.0 if i == own[q] else float(f @ queries[q] / f.norm() / queries[q].norm())
            for i, f in enumerate(features)
        ]
        best = sorted(range(30), key=lambda i: -cosine[i])[:3]
        assert index[q].tolist() == best
        assert scores[q].tolist() == pytest.approx([cosine[i] for i in best])


def test_twins_are_neighbours_of_each_other_and_not_of_themselves():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    rows = torch.tensor([0, 1, 3])
    index, scores = closest(bank[rows], bank, rows, 2)
    for own, near in zip(rows.tolist(), index.tolist(), strict=True):
        assert set(near) == {0, 1, 3} - {own}
    assert torch.equal(scores, torch.ones(3, 2))
    outside, _ = closest(bank[:1], bank, torch.tensor([-1]), 3)
    assert set(outside[0].tolist()) == {0, 1, 3}


def test_a_query_from_outside_may_have_the_whole_bank():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert closest(bank[:1], bank, torch.tensor([-1]), 3)[0].tolist() == [[0, 2, 1]]
    assert closest(bank[:1], bank, torch.tensor([0]), 2)[0].tolist() == [[2, 1]]


def test_files_are_drawn_at_a_side_of_their_own(tmp_path):
    for i in range(2):
        Image.new("RGB", (40, 50), (100 * i, 0, 0)).save(tmp_path / f"{i}.png")
    paths = [tmp_path / name for name in ("0.png", "absent.png", "1.png")]
    data = LabelledImages(paths, torch.tensor([0, 0, 1]), "ab", 32)
    drawn = pictures_of(data, torch.tensor([2, 0]))
    assert drawn.shape == (2, 3, 128, 128)
    assert drawn[:, 0, 64, 64].tolist() == [100, 0]
    assert data.size == 32
