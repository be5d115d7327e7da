import io
import itertools
import logging
import os
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sslkit.data import decode as module
from sslkit.data.folder import ImageFolder

SIZE = 16


@pytest.fixture(autouse=True)
def no_warning_escapes():
    limits = Image.MAX_IMAGE_PIXELS
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert limits == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


def colours(width=48, height=48):
    """Top left red, top right green, bottom left blue, bottom right yellow."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255, 0, 0
    pixels[: height // 2, width // 2 :] = 0, 255, 0
    pixels[height // 2 :, : width // 2] = 0, 0, 255
    pixels[height // 2 :, width // 2 :] = 255, 255, 0
    return Image.fromarray(pixels)


def noise(width=48, height=48):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def corners(image):
    return [tuple(image[:, y, x].tolist()) for y, x in ((2, 2), (2, -3), (-3, 2), (-3, -3))]


def only(root, size=SIZE):
    """The single image of a folder, decoded."""
    data = ImageFolder(root, size)
    assert len(data) == 1
    image, label = data[0]
    assert image.shape == (3, size, size)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert label == -1
    assert data.skipped == {}
    return image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows):
    """A PNG written by hand from raw rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def named(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "sslkit"]


# what is found


def test_nested_sorted_and_only_images(tmp_path):
    for name in ("b/z.PNG", "b/a/deep.Jpeg", "a.tif", "b-c/x.webp", ".hidden/x.png", ".x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            colours().save(file, "PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "b" / "clip.mp4").write_bytes(b"0")
    data = ImageFolder(tmp_path, SIZE)
    names = [path.relative_to(tmp_path).as_posix() for path in data.paths]
    assert names == ["a.tif", "b-c/x.webp", "b/a/deep.Jpeg", "b/z.PNG"]
    assert data.skipped == {}
    assert data.classes is None
    assert len(list(itertools.islice(data, 10))) == len(data) == 4


def test_links(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    colours().save(tmp_path / "outside.png")
    (root / "linked.png").symlink_to(tmp_path / "outside.png")
    (root / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "sub" / "cycle").symlink_to(root, target_is_directory=True)
    data = ImageFolder(root, SIZE)
    assert [path.name for path in data.paths] == ["linked.png"]
    assert data.skipped == {"broken.png": "broken link", "self.png": "broken link"}
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert len(ImageFolder(tmp_path / "alias", SIZE)) == 1


def test_a_pipe_does_not_block(tmp_path):
    colours().save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert ImageFolder(tmp_path, SIZE).skipped == {"pipe.png": "not a file"}


def test_name_that_is_not_utf8(tmp_path, caplog):
    colours().save(tmp_path / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"")
    assert list(ImageFolder(tmp_path, SIZE).skipped.values()) == ["empty file"]
    assert named(caplog)[0].encode()  # can be written to any log


def test_index(tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    data = ImageFolder(str(tmp_path), 4)
    assert [int(data[i][0].max()) for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"image {index} of a folder of 3"):
            data[index]


# geometry


@pytest.mark.parametrize("extent", [(48, 48), (100, 48), (48, 100), (301, 200), (16, 16), (5, 9)])
def test_shorter_side_then_centre_crop(tmp_path, extent):
    """Against the two steps done one after the other, on a smooth image."""
    x, y = np.meshgrid(np.linspace(0, 1, extent[0]), np.linspace(0, 1, extent[1]))
    smooth = np.stack([x, y, (x + y) / 2], -1) * 255
    source = Image.fromarray(smooth.astype(np.uint8))
    source.save(tmp_path / "a.png")
    scale = SIZE / min(extent)
    width, height = (round(side * scale) for side in extent)
    whole = source.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIZE) / 2, (height - SIZE) / 2
    wanted = np.asarray(whole.crop((int(left), int(top), int(left) + SIZE, int(top) + SIZE)))
    got = only(tmp_path).permute(1, 2, 0).numpy()
    # half a pixel of the crop where a margin is odd, at the gradient of the image
    step = 255 / min(width, height) * (0.5 + 0.5 * (left % 1 or top % 1 or 0)) + 2
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= step


def test_antialiased(tmp_path):
    board = np.indices((512, 512)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    image = only(tmp_path).float()
    assert (image - 127.5).abs().max() < 3


def test_a_thread_of_an_image_takes_no_memory(tmp_path):
    """Resized whole, 60000 x 2 at 224 would be 6.7 million columns."""
    Image.new("RGB", (60000, 2), "red").save(tmp_path / "line.png")
    assert corners(only(tmp_path, 224)) == [(255, 0, 0)] * 4


R, G, B, Y = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
UPRIGHT = {  # corners a viewer shows for the stored R G / B Y, from the EXIF standard
    1: [R, G, B, Y],
    2: [G, R, Y, B],
    3: [Y, B, G, R],
    4: [B, Y, R, G],
    5: [R, B, G, Y],
    6: [B, R, Y, G],
    7: [Y, G, B, R],
    8: [G, Y, R, B],
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [*UPRIGHT, 0, 99])
def test_exif_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    colours().save(tmp_path / f"a.{suffix}", exif=exif, **options.get(suffix, {}))
    got = np.array(corners(only(tmp_path))).astype(int)
    assert np.abs(got - np.array(UPRIGHT.get(orientation, UPRIGHT[1]))).max() < 8


@pytest.mark.parametrize("exif", [b"XX*\0\0\0\0\x08", b"Exif\0\0MM\0*\0"])
def test_exif_that_cannot_be_parsed(tmp_path, exif):
    colours().save(tmp_path / "a.png", exif=exif)
    assert corners(only(tmp_path)) == UPRIGHT[1]


def test_corrupt_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    colours().save(tmp_path / "a.png", exif=data[: len(data) // 2])
    (tmp_path / "b").mkdir()
    colours().save(tmp_path / "b" / "b.jpg", exif=b"Exif\0\0XX*\0" + b"\xff" * 40)
    images = ImageFolder(tmp_path, SIZE)
    assert corners(images[0][0]) == UPRIGHT[1]
    assert np.abs(np.subtract(corners(images[1][0]), UPRIGHT[1])).max() < 40
    assert images.skipped == {}


# modes


GREY = np.linspace(0, 255, SIZE * SIZE).round().astype(np.uint8).reshape(SIZE, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "pgm", "webp"])
def test_greyscale(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}", **{"quality": 100})
    image = only(tmp_path).numpy().astype(int)
    assert np.abs(image - GREY).max() <= (6 if suffix in ("jpg", "webp") else 0)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled(tmp_path, suffix):
    dim = GREY // 2
    Image.fromarray(dim.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert np.abs(only(tmp_path).numpy().astype(int) - dim).max() <= 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (GREY.astype(np.int32) * 257, GREY),
        (GREY.astype(np.int32) * 2**20 - 2**27, GREY),  # of no known range
        (GREY.astype(np.float32) / 255, GREY),
        (GREY.astype(np.float32) * 40 - 2000, GREY),
        (np.full((SIZE, SIZE), 1e6, np.float32), GREY * 0),
        (np.full((SIZE, SIZE), np.nan, np.float32), GREY * 0),
        (np.where(GREY > 127, np.float32(3e38), np.float32(-3e38)), (GREY > 127) * 255),
    ],
    ids=["I", "I wide", "F", "F wide", "F flat", "F nan", "F extreme"],
)
def test_integers_and_floats(tmp_path, values, wanted):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(only(tmp_path).numpy().astype(int) - wanted).max() <= 1


def test_sixteen_bit_rgb(tmp_path):
    rows = [struct.pack(">3H", 0x1234, 0x8000, 0xFFFF) * 4] * 4
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 2, rows))
    assert np.abs(np.subtract(corners(only(tmp_path)), [(0x12, 0x80, 0xFF)])).max() <= 1


def test_cmyk(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.subtract(corners(only(tmp_path)), [R])).max() <= 6


def test_transparency_is_laid_on_white(tmp_path):
    half = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    half.paste((0, 0, 0, 0), (0, 0, 10, 20))
    half.save(tmp_path / "rgba.png")
    half.save(tmp_path / "rgba.webp", lossless=True, exact=True)
    grey = Image.new("LA", (20, 20), (0, 0))
    grey.save(tmp_path / "la.png")
    palette = colours().quantize(4)
    red = palette.getpixel((0, 0))
    palette.save(tmp_path / "p.png", transparency=red)
    palette.save(tmp_path / "p.gif", transparency=red)
    alphas = bytes(128 if i == red else 255 for i in range(4))
    palette.save(tmp_path / "palpha.png", transparency=alphas)
    colours().save(tmp_path / "rgb.png", transparency=R)
    data = ImageFolder(tmp_path, SIZE)
    got = {p.name: corners(data[i][0]) for i, p in enumerate(data.paths)}
    white, pink = (255, 255, 255), (255, 127, 127)
    for name in ("rgba.png", "rgba.webp"):
        assert got[name] == [white, pink] * 2
    assert got["la.png"] == [white] * 4
    for name in ("p.png", "p.gif", "rgb.png"):
        assert got[name] == [white, G, B, Y]
    assert got["palpha.png"] == [pink, G, B, Y]
    assert data.skipped == {}


def test_palette_and_one_bit(tmp_path):
    colours().quantize(4).save(tmp_path / "p.png")
    Image.fromarray(GREY > 127).save(tmp_path / "bits.tif", compression="group4")
    data = ImageFolder(tmp_path, SIZE)
    assert (data[0][0].numpy() == (GREY > 127) * 255).all()
    assert corners(data[1][0]) == [R, G, B, Y]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "mpo"])
def test_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    options = {"webp": {"lossless": True}}.get(suffix, {})
    name = tmp_path / f"a.{suffix}"
    frames[0].save(name, save_all=True, append_images=frames[1:], **options)
    if suffix == "mpo":
        name.rename(tmp_path / "a.jpg")  # what two-lens and telephone cameras write
    assert np.abs(np.subtract(corners(only(tmp_path)), [R])).max() <= 2


def test_lab(tmp_path):
    Image.new("LAB", (20, 20), (255, 128, 128)).save(tmp_path / "a.tif")
    assert np.abs(np.subtract(corners(only(tmp_path)), [(255, 255, 255)])).max() <= 1


# huge


def big_jpeg(path, width, height, **options):
    """A JPEG header of a size that its pixels need not have; the decoder draws the rest grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG", **options)
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    path.write_bytes(data)


def test_large_jpeg_is_decoded_small(tmp_path, monkeypatch):
    """Above the bomb limit, with 1/8 of each side below it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    colours(640, 480).save(tmp_path / "a.jpg", quality=95)
    image = only(tmp_path)
    assert np.abs(np.subtract(corners(image), UPRIGHT[1])).max() < 25
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30 * 30)  # above it even as a draft
    with pytest.raises(ValueError, match=r"can be read; the first is 'a.jpg': .*exceeds limit"):
        ImageFolder(tmp_path, SIZE)


def test_draft_is_used(tmp_path):
    colours(640, 480).save(tmp_path / "a.jpg")
    with module.open_image(tmp_path / "a.jpg", SIZE) as image:
        assert image.size == (80, 60)
    with module.open_image(tmp_path / "a.jpg", 224) as image:
        assert image.size == (640, 480)


def test_bombs_are_skipped(tmp_path):
    colours().save(tmp_path / "z.png")
    (tmp_path / "bomb.png").write_bytes(png(60000, 60000, 8, 2, [b""]))
    big_jpeg(tmp_path / "progressive.jpg", 20000, 15000, progressive=True)
    data = ImageFolder(tmp_path, SIZE)
    assert sorted(data.skipped) == ["bomb.png", "progressive.jpg"]
    assert all("exceeds limit" in reason for reason in data.skipped.values())


def test_large_but_allowed_is_quiet(tmp_path, monkeypatch):
    """Between one and two times PIL's limit it warns, which is no concern of the user."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 48 * 3 // 4)
    colours().save(tmp_path / "a.png")
    assert corners(only(tmp_path)) == UPRIGHT[1]


# damage


DAMAGE = {
    "empty.png": b"",
    "text.jpg": b"this is no image",
    "magic.png": b"\x89PNG\r\n\x1a\n",
    "page.gif": b"<!doctype html><html></html>",
    "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
}


def test_unreadable_headers_are_left_out(tmp_path, caplog):
    for name, data in DAMAGE.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    colours().save(tmp_path / "good.png")
    data = ImageFolder(tmp_path, SIZE)
    assert [p.name for p in data.paths] == ["good.png"]
    assert sorted(data.skipped) == sorted(DAMAGE)
    assert data.skipped["empty.png"] == "empty file"
    assert data.skipped["text.jpg"] == data.skipped["script.jpg"] == "not an image"
    (message,) = named(caplog)
    assert "left out 5 of 6" in message
    assert "'empty.png': empty file" in message


def encoded(suffix):
    buffer = io.BytesIO()
    kinds = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}
    image = noise().convert("L") if suffix == "pgm" else noise()
    image.save(buffer, kinds.get(suffix, suffix.upper()))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "ppm", "pgm", "webp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_truncated(tmp_path, suffix, part, caplog):
    data = encoded(suffix)
    (tmp_path / f"cut.{suffix}").write_bytes(data[: int(len(data) * part)])
    colours().save(tmp_path / "good.png")
    images = ImageFolder(tmp_path, SIZE)
    assert corners(images[0][0]) == corners(images[-1][0]) == UPRIGHT[1]
    assert list(images.skipped) == [f"cut.{suffix}"]
    assert len(named(caplog)) == 1
    assert f"'cut.{suffix}'" in named(caplog)[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "ppm", "pgm", "webp"])
def test_random_damage_never_ends_a_run(tmp_path, suffix):
    rng = np.random.default_rng(3)
    for i in range(12):
        data = bytearray(encoded(suffix))
        for at in rng.integers(0, len(data) if i % 2 else 120, 4):
            data[at] = rng.integers(256)
        (tmp_path / f"{i}.{suffix}").write_bytes(data)
    colours().save(tmp_path / "good.png")
    images = ImageFolder(tmp_path, SIZE)
    for image, _ in images:
        assert image.shape == (3, SIZE, SIZE)


def cut(path):
    data = encoded("png")
    path.write_bytes(data[: len(data) // 2])


def test_next_readable_takes_the_place(tmp_path, caplog):
    for i in (0, 3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    for i in (1, 2, 4):
        cut(tmp_path / f"{i}.png")
    data = ImageFolder(tmp_path, SIZE)
    assert len(data) == 5
    for _ in range(2):
        assert [int(data[i][0].max()) for i in range(5)] == [0, 3, 3, 3, 0]
    assert sorted(data.skipped) == ["1.png", "2.png", "4.png"]
    assert len(named(caplog)) == 3
    assert "truncated" in data.skipped["1.png"]


def test_file_that_disappears(tmp_path):
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    data = ImageFolder(tmp_path, SIZE)
    (tmp_path / "0.png").unlink()
    assert int(data[0][0].max()) == 1
    assert data.skipped == {"0.png": "No such file or directory"}


def test_none_can_be_decoded(tmp_path):
    for name in "ab":
        cut(tmp_path / f"{name}.png")
    data = ImageFolder(tmp_path, SIZE)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no image under .* can be decoded.*'b.png': .*trunc"):
            data[1]


def test_workers_name_the_bad_file(tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    cut(tmp_path / "3.png")
    data = ImageFolder(tmp_path, 8)
    log = logging.FileHandler(tmp_path / "log")
    logging.getLogger("sslkit").addHandler(log)
    loader = DataLoader(data, 4, num_workers=1, multiprocessing_context="fork")
    try:
        images, labels = next(iter(loader))
    finally:
        logging.getLogger("sslkit").removeHandler(log)
        log.close()
    assert images.amax((1, 2, 3)).tolist() == [0, 1, 2, 0]
    assert labels.tolist() == [-1] * 4
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "skipped '3.png'" in line


def test_batches_and_pickle(tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    data = pickle.loads(pickle.dumps(ImageFolder(tmp_path, 8)))
    images, labels = next(iter(DataLoader(data, 3)))
    assert images.shape == (3, 3, 8, 8)
    assert labels.tolist() == [-1, -1, -1]


def test_threads_leave_the_warning_filters_as_they_were(tmp_path, monkeypatch):
    """``catch_warnings`` in interleaved threads would leave the process muted."""
    colours().save(tmp_path / "a.png")
    data = ImageFolder(tmp_path, SIZE)
    both_inside, first_out = threading.Barrier(2), threading.Event()
    real, before = module._rgb, list(warnings.filters)

    def slow(image):
        turn = both_inside.wait(5)
        if turn:
            first_out.wait(5)
        return real(image)

    monkeypatch.setattr(module, "_rgb", slow)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(data.__getitem__, 0) for _ in range(2)]
        while not any(f.done() for f in futures):
            pass
        first_out.set()
        assert all(f.result()[1] == -1 for f in futures)
    assert list(warnings.filters) == before


# errors


@pytest.mark.parametrize("size", [0, -3])
def test_size(tmp_path, size):
    with pytest.raises(ValueError, match=f"size must be at least 1 pixel, got {size}"):
        ImageFolder(tmp_path, size)


def test_root_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such image folder: '.*nowhere'"):
        ImageFolder(tmp_path / "nowhere", SIZE)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"not a folder of images: '.*file'"):
        ImageFolder(tmp_path / "file", SIZE)


def test_no_image(tmp_path):
    for name in ("a.txt", "b.heic"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"looked for .*\.jpg .* saw 2 other files") as error:
        ImageFolder(tmp_path, SIZE)
    assert "\n" not in str(error.value)


def test_all_unreadable(tmp_path):
    (tmp_path / "b.png").write_bytes(b"junk")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"can be read; the first is 'a.png': empty file"):
        ImageFolder(tmp_path, SIZE)


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch, caplog):
    colours().save(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    data = ImageFolder(tmp_path, SIZE)
    assert data.skipped == {"locked": "cannot list: Permission denied"}
    assert "'locked'" in named(caplog)[0]
