import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from sslkit.data import ImageError, LabelledImages


def picture(shape=(30, 52, 3)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = 128 + 100 * np.sin(x / 9) * np.cos(y / 13)
    return Image.fromarray(np.stack([wave, x % 200, y % 200], 2).astype(np.uint8))


def one(source, size=224, name="the set"):
    return LabelledImages([source], torch.tensor([0]), ["a"], size, name)[0][0]


def encoded(image, suffix="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer


@pytest.mark.parametrize("shape", [(300, 520, 3), (400, 230, 3), (40, 120, 3)])
def test_default_size_is_the_papers_crop(tmp_path, shape):
    """Shorter side to 224, bicubic and antialiased, then the centre."""
    whole = picture(shape)
    whole.save(tmp_path / "a.png")
    image = one(tmp_path / "a.png")
    assert image.shape == (3, 224, 224)
    wanted = center_crop(resize(whole, 224, InterpolationMode.BICUBIC, antialias=True), [224, 224])
    gap = (image.float() - pil_to_tensor(wanted).float()).abs()
    assert gap.mean() < 1.5


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", ["PNG", "JPEG"])
def test_file_bytes_and_picture_are_the_same_image(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(), suffix, exif=exif)
    (tmp_path / "a").write_bytes(content.getvalue())
    file = one(tmp_path / "a", 26)
    assert torch.equal(one(content, 26), file)
    assert torch.equal(one(content, 26), file)  # read a second time
    assert torch.equal(one(Image.open(content), 26), file)
    upright = one(picture(), 26)
    turned = upright if orientation == 1 else upright.rot90(-1, (1, 2))
    assert (file.float() - turned.float()).abs().mean() < (0.3 if suffix == "PNG" else 3)


def test_bytes_above_pils_limit(monkeypatch):
    """A JPEG of which a smaller draft is within the limit."""
    content = encoded(picture((400, 400, 3)), "JPEG", quality=95)
    wanted = one(content, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    assert torch.equal(one(content, 40), wanted)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1"])
def test_picture_of_any_mode(mode):
    image = Image.new(mode, (12, 9), 0 if mode != "RGBA" else (0, 0, 0, 255))
    assert one(image, 8).flatten().tolist() == [0] * 192


def damaged(folder):
    """Three files that cannot be read, one that can, and why."""
    (folder / "a.jpg").write_bytes(b"<html>not found</html>")
    content = encoded(Image.effect_noise((64, 64), 90), "JPEG").getvalue()
    (folder / "b.jpg").write_bytes(content[:900])
    (folder / "d.jpg").write_bytes(content)
    (folder / "e.jpg").write_bytes(b"")
    whys = {"a": "not an image", "b": "truncated", "c": "No such file", "d": "", "e": "empty file"}
    return [folder / f"{name}.jpg" for name in whys], list(whys.values())


def test_damaged_file(tmp_path):
    paths, whys = damaged(tmp_path)
    data = LabelledImages(paths, torch.arange(5), list("abcde"))
    for i, why in enumerate(whys):
        if not why:
            assert data[i][1] == i
            continue
        with pytest.raises(ImageError, match=rf"^cannot read the image '.*{paths[i]}': .*{why}"):
            data[i]
        with pytest.raises(ValueError, match=why):
            data[i]
        with pytest.raises(OSError, match=why):
            data[i]


@pytest.mark.parametrize(("content", "why"), [(b"<html>", "not an image"), (b"", "empty file")])
def test_damaged_bytes(content, why):
    with pytest.raises(ImageError, match=f"^cannot read image 0 of hf:cats: {why}$"):
        one(io.BytesIO(content), name="hf:cats")


def test_source_that_cannot_be_read():
    class Broken:
        def __getitem__(self, index):
            raise OSError(f"unrecognized data stream\ncontents at {index}")

    data = LabelledImages(Broken(), torch.tensor([0, 1]), ["a", "b"], name="torchvision:SVHN")
    line = "cannot read image 1 of torchvision:SVHN: unrecognized data stream contents at 1"
    with pytest.raises(ImageError, match=f"^{line}$"):
        data[-1]


def test_damaged_file_in_a_worker_process_is_one_line(tmp_path):
    paths, _ = damaged(tmp_path)
    loader = DataLoader(
        LabelledImages(paths, torch.arange(5), list("abcde"), 8), batch_size=5, num_workers=1
    )
    with pytest.raises(ImageError) as error:
        next(iter(loader))
    assert str(error.value) == f"cannot read the image '{paths[0]}': not an image"
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_labels(tmp_path):
    picture().save(tmp_path / "a.png")
    marks = torch.tensor([[1, 0, -1], [0, 1, 0]])
    data = LabelledImages([tmp_path / "a.png"] * 2, marks, list("abc"), 8)
    assert [label.tolist() for _, label in data] == marks.tolist()
    (image, label), *_ = LabelledImages([picture()], torch.tensor([2]), list("abc"), 8)
    assert image.dtype == torch.uint8
    assert type(label) is int


def test_head(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for i, path in enumerate(paths):
        Image.new("L", (8, 8), i).save(path)
    data = LabelledImages(paths, torch.arange(3), "abc", 4)
    part = data.head(2)
    assert (len(part), part.labels.tolist(), part.classes) == (2, [0, 1], ("a", "b", "c"))
    assert torch.equal(part[-1][0], data[1][0])
    assert part.paths == paths[:2]
    assert len(list(part)) == 2
    with pytest.raises(IndexError):
        part[2]
    assert len(data) == len(data.head(9)) == 3
    assert part.queries is None
    data.queries = torch.tensor([False, True, True])
    assert data.head(2).queries.tolist() == [False, True]
    assert data.paths == paths
    assert LabelledImages([picture()], torch.tensor([0]), "a").head(1).paths is None
