import os
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from sslkit.backbones import ResNet9
from sslkit.data import ImageError, LabelledImages, load_splits
from sslkit.data.class_disjoint import CLASS_DISJOINT
from sslkit.data.downstream import differs
from sslkit.evaluation.fingerprint import fingerprint
from sslkit.views import EvaluationView

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()


def paint(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (40 * label + 20, 20, 90)).save(path, "JPEG", quality=95)


def shown(data):
    return [round((image[0].float().mean().item() - 20) / 40) for image, _ in data]


def strokes(data):
    """What ``stroke`` put into images of 8 pixels a side: rows of black above rows of white."""
    found = []
    for image, _ in data:
        black = (image == 0).all(0).all(1).tolist()
        assert (image == 255).all(0).all(1).tolist() == [not row for row in black]
        found.append(sum(black) - 1)
    return found


def write_cub200(root):
    """As the authors' archive: images sorted by class, and an official split, not used."""
    base, names = root / "CUB_200_2011", ["Laysan_Albatross", "Ani", "Brewer_Blackbird", "Cardinal"]
    folders = [f"{i:03d}.{name}" for i, name in enumerate(names, 1)]
    labels = [0, 0, 1, 2, 2, 2, 3]
    paths = [f"{folders[c]}/{names[c]}_{i:04d}_{900 + i}.jpg" for i, c in enumerate(labels)]
    for path, label in zip(paths, labels, strict=True):
        paint(base / "images" / path, label)
    tables = {
        "classes.txt": folders,
        "images.txt": paths,
        "image_class_labels.txt": [label + 1 for label in labels],
        "train_test_split.txt": [i % 2 for i in range(len(labels))],
    }
    tables["bounding_boxes.txt"] = ["0.0 0.0 12.0 8.0"] * len(labels)
    for file, values in tables.items():
        lines = (f"{i} {value}\n" for i, value in enumerate(values, 1))
        (base / file).write_text("".join(lines))
    return names, [0, 0, 1], [2, 2, 2, 3]


def write_cars196(root, boxes=((1, 1, 12, 8),) * 8):
    base, classes = root / "stanford_cars", ["AM General Hummer", "Acura RL", "Audi TT", "Volvo"]
    truth = {"train": [2, 0, 3, 1], "test": [1, 2, 0, 3]}
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (base / "devkit").mkdir(parents=True)
    named = np.array([[np.array([name], object) for name in classes]], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": named.reshape(1, -1)})
    fields = [(f, object) for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    boxes = [tuple(map(np.uint8, box)) for box in boxes]
    for split, labels in truth.items():
        four = boxes[:4] if split == "train" else boxes[4:]
        rows = [(*four[i], np.uint8(c + 1), f"{i + 1:05d}.jpg") for i, c in enumerate(labels)]
        savemat(base / files[split], {"annotations": np.array([rows], fields)})
        for i, label in enumerate(labels):
            paint(base / f"cars_{split}" / f"{i + 1:05d}.jpg", label)
    return classes, [0, 1, 1, 0], [2, 3, 2, 3]


def write_sop(root):
    """Lists of four columns; classes numbered from 1 through both, no folder of their own."""
    base, head = root / "Stanford_Online_Products", "image_id class_id super_class_id path\n"
    kinds, number = ("bicycle_final", "sofa_final"), 0
    for file, classes in (("Ebay_train.txt", (1, 1, 2)), ("Ebay_test.txt", (3, 4, 4, 3))):
        lines = []
        for i, c in enumerate(classes):
            number += 1
            path = f"{kinds[c % 2]}/11108512{c}_{i}.JPG"
            paint(base / path, c - 1)
            lines.append(f"{number} {c} {c % 2 + 1} {path}\n")
        (base / file).write_text(head + "".join(lines))
    return list("1234"), [0, 0, 1], [2, 3, 3, 2]


def write_inshop(root, images="Img"):
    """One list for all, columns filled up by spaces; queries and gallery in any order."""
    base, lines = root / "In-shop_Clothes_Retrieval_Benchmark", []
    items = [f"id_0000000{i}" for i in (7, 2, 4, 3)]
    listed = ["1 gallery", "3 train", "0 query", "1 query", "0 gallery", "2 train", "1 gallery"]
    listed += ["3 train", "0 gallery"]
    label = {3: 0, 2: 1, 0: 2, 1: 3}
    for i, entry in enumerate(listed):
        item, status = entry.split()
        path = f"img/WOMEN/Dresses/{items[int(item)]}/{i:02d}_1_front.jpg"
        paint(base / images / path, label[int(item)])
        lines.append(f"{path:<50}{items[int(item)]:<14}{status}\n")
    (base / "Eval").mkdir()
    head = f"{len(lines)}\nimage_name item_id evaluation_status\n"
    (base / "Eval" / "list_eval_partition.txt").write_text(head + "".join(lines))
    return [items[i] for i in label], [0, 1, 0], [2, 3, 3, 2, 3, 2]


def stroke(path, label):
    """A black stroke on white, one bit a pixel: as long as the label says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("1", (8, 8), 1)
    image.paste(0, (0, 0, 8, label + 1))
    image.save(path, "PNG")


def write_omniglot(root, parts=("images_background", "images_evaluation")):
    """Two characters a part, that of the second alphabet with one more drawing."""
    classes, labels = [], []
    for part, names in zip(parts, (("Greek", "Latin"), ("Angelic", "Tibetan")), strict=True):
        labels.append([])
        for i, alphabet in enumerate(names):
            for drawing in range(1, 2 + i):
                file = f"{len(classes):04d}_{drawing:02d}.png"
                path = root / "omniglot-py" / part / alphabet / "character01" / file
                stroke(path, len(classes))
                path.with_name(f"._{file}").write_text("no image")
                labels[-1].append(len(classes))
            classes.append(f"{alphabet}/character01")
        (root / "omniglot-py" / part / "README.md").write_text("no alphabet")
        (root / "omniglot-py" / part / ".cache" / "empty").mkdir(parents=True)
    return classes, *labels


WRITERS = {
    "cub200": write_cub200,
    "cub200_cropped": write_cub200,
    "cars196": write_cars196,
    "cars196_cropped": write_cars196,
    "sop": write_sop,
    "inshop": write_inshop,
    "omniglot": write_omniglot,
}


@pytest.mark.parametrize("name", WRITERS)
def test_layout(tmp_path, name):
    classes, *truth = WRITERS[name](tmp_path)
    found = load_splits(name, root=tmp_path, size=8)
    see = strokes if name == "omniglot" else shown
    row = CLASS_DISJOINT[name]
    assert (found.title, found.metric) == (row.title, "accuracy")
    assert found.homepage == row.homepage
    assert found.differs.startswith(f"4 of {row.classes} classes, ")
    for data, labels in zip(found[:2], truth, strict=True):
        assert data.labels.tolist() == labels == see(data) == [label for _, label in data]
        assert data.classes == tuple(classes)


def test_cars_without_the_labels_of_the_official_test_half(tmp_path):
    write_cars196(tmp_path)
    (tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat").unlink()
    train, test, *_ = load_splits("cars196", root=tmp_path, size=6)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [2, 3])
    assert shown(test) == [2, 3]


def told_apart(paths):
    """Other pixels in each file, no two of which are alike: 12 x 8, as arrays by their path."""
    pixels = {}
    for i, path in enumerate(sorted(paths)):
        y, x = np.mgrid[:8, :12]
        pixels[path] = np.stack([20 * x, 30 * y, 0 * x + i], 2).astype(np.uint8)
        Image.fromarray(pixels[path]).save(path, "PNG")
    return pixels


def check_cropped(name, root, slices):
    """``slices`` by the names of files: rows and columns of what is inside the box."""
    whole, cropped = (load_splits(x, root=root, size=6) for x in (name, f"{name}_cropped"))
    assert cropped.title == f"{whole.title}, cropped"
    pixels = told_apart([*whole.train.paths, *whole.test.paths])
    for before, data in zip(whole[:2], cropped[:2], strict=True):
        assert (data.paths, data.classes) == (before.paths, before.classes)
        assert data.labels.tolist() == before.labels.tolist()
        for i, path in enumerate(data.paths):
            inside = pixels[path][slices[path.name]]
            assert np.asarray(data.sources[i]).tolist() == inside.tolist()
            alone = LabelledImages([Image.fromarray(inside)], torch.tensor([0]), ["a"], 6)
            assert torch.equal(data[i][0], alone[0][0])
            assert torch.equal(data.head(i + 1)[i][0], alone[0][0])


def test_cub200_cropped(tmp_path):
    """From 0: left, top, width, height; clipped to the image, and widened to whole pixels."""
    write_cub200(tmp_path)
    boxes = {
        "2.0 1.0 4.0 5.0": np.s_[1:6, 2:6],
        "0.0 0.0 1.0 1.0": np.s_[:1, :1],
        "11.0 7.0 1.0 1.0": np.s_[7:, 11:],
        "-3.0 4.0 5.0 90.0": np.s_[4:, :2],
        "2.5 1.5 2.0 2.0": np.s_[1:4, 2:5],
        "0.0 0.0 12.0 8.0": np.s_[:, :],
        "7 0 400 1": np.s_[:1, 7:],
    }
    base = tmp_path / "CUB_200_2011"
    lines = [f"{i} {box}\n" for i, box in enumerate(boxes, 1)]
    (base / "bounding_boxes.txt").write_text("".join(reversed(lines)))
    names = [line.rpartition("/")[2] for line in (base / "images.txt").read_text().splitlines()]
    check_cropped("cub200", tmp_path, dict(zip(names, boxes.values(), strict=True)))


def test_cars196_cropped(tmp_path):
    """The first and the last pixel, from 1."""
    boxes = [(1, 1, 12, 8), (3, 2, 5, 4), (12, 8, 12, 8), (0, 0, 12, 8)]
    write_cars196(tmp_path, [*boxes, *[(2, 3, 200, 200)] * 4])
    inside = [np.s_[:, :], np.s_[1:4, 2:5], np.s_[7:, 11:], np.s_[:, :]]
    slices = {f"{i:05d}.jpg": part for i, part in enumerate(inside, 1)}
    base = tmp_path / "stanford_cars"
    (base / "cars_test_annos_withlabels.mat").rename(base / "x")
    check_cropped("cars196", tmp_path, slices)
    (base / "x").rename(base / "cars_test_annos_withlabels.mat")
    for data in load_splits("cars196_cropped", root=tmp_path)[:2]:
        sizes = [data.sources[i].size for i in range(4) if data.paths[i].parent.name == "cars_test"]
        assert sizes == [(11, 6)] * 2


def test_a_cropped_image_is_turned_upright(tmp_path):
    write_cub200(tmp_path)
    (tmp_path / "CUB_200_2011" / "bounding_boxes.txt").write_text(
        "".join(f"{i} 0 0 8 8\n" for i in range(1, 8))
    )
    train, *_ = load_splits("cub200_cropped", root=tmp_path, size=8)
    upright = told_apart(train.paths)[train.paths[0]]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).save(train.paths[0], "PNG", exif=exif)
    turned = np.rot90(upright[:, :8], -1)
    assert train[0][0].permute(1, 2, 0).tolist() == turned.tolist()


def test_a_cropped_set_has_a_fingerprint_of_its_boxes_and_files(tmp_path):
    def key():
        data = load_splits("cub200_cropped", root=tmp_path, size=6).train
        return fingerprint(net, data, EvaluationView(6))

    net = ResNet9(2)
    write_cub200(tmp_path)
    train = load_splits("cub200", root=tmp_path, size=6).train
    keys = [fingerprint(net, train, EvaluationView(6)), key()]
    assert key() == keys[-1]
    boxes = tmp_path / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace("2 0.0", "2 1.0"))
    keys.append(key())
    os.utime(train.paths[0], ns=(10**18, 10**18))
    keys.append(key())
    assert len(set(keys)) == 4


@pytest.mark.parametrize("images", ["Img", ""])
def test_inshop_tells_queries_from_the_gallery(tmp_path, images):
    write_inshop(tmp_path, images)
    train, test, *_ = load_splits("inshop", root=tmp_path, size=6)
    assert train.queries is None
    assert test.queries.tolist() == [True, True, False, False, False, False]
    assert test.head(3).queries.tolist() == [True, True, False]
    assert shown(test) == test.labels.tolist()


SMALL = ("images_background_small1", "images_background_small2")


def write_small_omniglot(root):
    """Four characters in the first set; in the second a fifth, and one of them again, and more."""
    base = root / "omniglot-py"
    for i, name in enumerate(("Greek/character02", "Latin/character01", "Greek/character10")):
        stroke(base / SMALL[0] / name / "0001_01.png", i)
    stroke(base / SMALL[0] / "Korean" / "character01" / "0001_01.png", 3)
    stroke(base / SMALL[1] / "Sanskrit" / "character01" / "0001_01.png", 4)
    stroke(base / SMALL[1] / "Latin" / "character01" / "0001_01.png", 1)
    stroke(base / SMALL[1] / "Latin" / "character01" / "0001_02.png", 5)
    return [f"{x}/character{i:02d}" for x, i in (("Greek", 2), ("Greek", 10), ("Korean", 1))] + [
        "Latin/character01",
        "Sanskrit/character01",
    ]


def test_the_small_sets_of_omniglot_are_one_and_halved(tmp_path):
    classes = write_small_omniglot(tmp_path)
    train, test, *rest = load_splits("omniglot", root=tmp_path, size=8)
    assert train.classes == tuple(classes)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [2, 3, 3, 4])
    assert (strokes(train), strokes(test)) == ([0, 2], [3, 1, 5, 4])
    assert [path.parts[-4] for path in test.paths] == [SMALL[i] for i in (0, 0, 1, 1)]
    assert rest[2] == "5 of 1623 classes, 2 + 4 images"


def test_the_small_sets_of_omniglot_train_where_the_evaluation_alphabets_test(tmp_path):
    write_small_omniglot(tmp_path)
    stroke(tmp_path / "omniglot-py/images_evaluation/Angelic/character01/0001_01.png", 6)
    stroke(tmp_path / "omniglot-py/images_evaluation/Angelic/character02/0001_01.png", 7)
    train, test, *_ = load_splits("omniglot", root=tmp_path, size=8)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 3, 4], [5, 6])
    assert strokes(test) == [6, 7]
    assert test.classes[5:] == ("Angelic/character01", "Angelic/character02")


def test_the_background_of_omniglot_goes_before_the_small_sets(tmp_path):
    write_small_omniglot(tmp_path)
    write_omniglot(tmp_path)
    train, _, *rest = load_splits("omniglot", root=tmp_path, size=8)
    assert train.labels.tolist() == [0, 1, 1]
    assert rest[2] == "4 of 1623 classes, 3 + 3 images"


def test_classes_of_a_folder(tmp_path):
    names = ["10", "9", "Cat", "ant", "cat"]
    for i, name in enumerate(names):
        for j in range(i + 1):
            paint(tmp_path / "my pets" / name / "deep" / f"{j}.jpg", i)
    (tmp_path / "my pets" / ".hidden").mkdir()
    (tmp_path / "my pets" / "list.txt").write_text("no class")
    found = load_splits(f"classes:{tmp_path}/my pets", size=6)
    assert found[2:] == ("my pets", "accuracy", None, "")
    assert found.train.classes == found.test.classes == tuple(names)
    assert found.train.labels.tolist() == shown(found.train) == [0, 1, 1]
    assert found.test.labels.tolist() == shown(found.test) == [2] * 3 + [3] * 4 + [4] * 5


@pytest.mark.parametrize(
    ("names", "kind", "why"),
    [
        (None, FileNotFoundError, "no folder '.*/set': classes:DIR is a folder that has a folder"),
        ("", ValueError, "^classes:.*/set takes 4 folders of images or more, .* not 0; folder:DIR"),
        ("abc", ValueError, "^classes:.*/set takes 4 folders of images or more, .* not 3; folder:"),
        ("abcd-", ValueError, "no image in '.*/set/-'"),
    ],
)
def test_classes_of_a_folder_that_will_not_do(tmp_path, names, kind, why):
    folder = tmp_path / "set"
    if names is not None:
        folder.mkdir()
    for name in names or "":
        (folder / name).mkdir()
        if name != "-":
            paint(folder / name / "1.jpg", 0)
    with pytest.raises(kind, match=why) as error:
        load_splits(f"classes:{folder}")
    assert "\n" not in str(error.value)


PUBLISHED = {  # classes and images to train with, and to test with
    "cub200": ((100, 5_864), (100, 5_924)),  # 11,788 images: both official halves
    "cub200_cropped": ((100, 5_864), (100, 5_924)),
    "cars196": ((98, 8_054), (98, 8_131)),  # 16,185 images: both official halves
    "cars196_cropped": ((98, 8_054), (98, 8_131)),
    "sop": ((11_318, 59_551), (11_316, 60_502)),
    "inshop": ((3_997, 25_882), (3_985, 14_218 + 12_612)),
    "omniglot": ((964, 964 * 20), (659, 659 * 20)),
}


def test_published_sizes():
    assert list(CLASS_DISJOINT) == list(PUBLISHED)
    for row, ((classes, n), (others, m)) in zip(
        CLASS_DISJOINT.values(), PUBLISHED.values(), strict=True
    ):
        assert (row.classes, row.train, row.test) == (classes + others, n, m)
        train, test = torch.arange(n) % classes, classes + torch.arange(m) % others
        assert differs(row, train, test) is None
        assert differs(row, train[1:], test) == f"{row.train - 1:,} + {row.test:,} images"


@pytest.mark.parametrize("name", WRITERS)
def test_absent(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"^{name} is not at .*: get it from https://"):
        load_splits(name, root=tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("classes.txt", None, "No such file"),
        ("image_class_labels.txt", None, "No such file"),
        (
            "image_class_labels.txt",
            lambda t: t.replace("7 4\n", ""),
            "'004.*0006.*jpg' none of the 4",
        ),
        (
            "image_class_labels.txt",
            lambda t: t.replace("7 4\n", "7 5\n"),
            "'004.*0006.*jpg' none of the 4",
        ),
        ("images.txt", lambda t: t.replace("7 004", "7 ../004"), "images.txt: .* outside"),
        ("images.txt", lambda t: t.replace("_0006_", "_0009_"), "1 of the 4 images to test with"),
        ("images.txt", lambda t: "one\n", "images.txt: the row 'one' is no number and a value"),
        ("classes.txt", lambda t: t + "5\n", "classes.txt: the row '5' is no number and a value"),
        ("images.txt", lambda t: "", "no image to train with"),
    ],
)
def test_damaged_cub200(tmp_path, file, change, why):
    write_cub200(tmp_path)
    path = tmp_path / "CUB_200_2011" / file
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"cub200 at .* is damaged or incomplete .*{why}") as error:
        load_splits("cub200", root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (None, r"damaged or incomplete .*No such file"),
        (lambda t: t.replace("5 0.0 0.0 12.0 8.0\n", ""), "has no box of '003.*Blackbird_0004"),
        (
            lambda t: t.replace("5 0.0 0.0 12.0", "5 0.0 12.0"),
            "bounding_boxes.txt: the box of '003.*' is not four numbers, but",
        ),
        (lambda t: t.replace("5 0.0", "5 zero"), r"is not four numbers, but \['zero', '0.0', '12"),
        (
            lambda t: t.replace("5 0.0", "5 nan"),
            "bounding_boxes.txt: the box of '003.*' is empty: from nan, 0 to nan, 8",
        ),
        (lambda t: t.replace("5 0.0 0.0 12.0", "5 0.0 0.0 0.0"), "is empty: from 0, 0 to 0, 8"),
        (lambda t: t.replace("5 0.0 0.0 12.0 8", "5 0.0 0.0 12.0 -8"), "is empty: .* to 12, -8"),
        (lambda t: t.replace("5 0.0 0.0 12.0", "5 0.0 0.0 inf"), "is empty: from 0, 0 to inf, 8"),
    ],
)
def test_damaged_cub200_boxes(tmp_path, change, why):
    check_damage(tmp_path, "cub200_cropped", "bounding_boxes.txt", change, why)


@pytest.mark.parametrize(
    ("box", "why"),
    [((5, 1, 4, 8), "'00003.jpg' is empty: from 4, 0 to 4, 8"), ((1, 9, 12, 8), "8 to 12, 8")],
)
def test_damaged_cars196_boxes(tmp_path, box, why):
    boxes = [(1, 1, 12, 8)] * 8
    write_cars196(tmp_path, [*boxes[:6], box, boxes[0]])
    why = f"cars_test_annos_withlabels.mat: .*{why}"
    with pytest.raises(ValueError, match=f"^cars196_cropped at .* damaged or incomplete .*{why}"):
        load_splits("cars196_cropped", root=tmp_path)


@pytest.mark.parametrize("name", ["cars196", "cars196_cropped"])
@pytest.mark.parametrize(
    "file",
    ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"],
)
@pytest.mark.parametrize(
    "content", [b"", b"junk", b"longer junk" * 99, "other", "class of the fifth", "cut short"]
)
def test_damaged_lists_of_cars196(tmp_path, name, file, content):
    write_cars196(tmp_path)
    path = tmp_path / "stanford_cars" / file
    if content == "other":
        savemat(path, {"nothing": np.zeros(3)})
    elif content == "class of the fifth" and "annos" in file:
        fields = [(f, object) for f in ("class", "fname")]
        savemat(path, {"annotations": np.array([[(np.uint8(5), "00001.jpg")]], fields)})
    else:
        path.write_bytes(path.read_bytes()[:200] if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=f"^{name} at .* incomplete .*{path.name}: ") as error:
        load_splits(name, root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cub200", "images.txt"),
        ("cub200_cropped", "bounding_boxes.txt"),
        ("sop", "Ebay_test.txt"),
        ("inshop", "Eval/list_eval_partition.txt"),
    ],
)
def test_a_list_that_is_no_text_is_named(tmp_path, name, file):
    WRITERS[name](tmp_path)
    path = tmp_path / CLASS_DISJOINT[name].folder / file
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    with pytest.raises(ValueError, match=f"incomplete .{path.name}: 'utf-8' codec can't decode"):
        load_splits(name, root=tmp_path)


def test_cars196_without_boxes(tmp_path):
    write_cars196(tmp_path)
    path = tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat"
    fields = [("class", object), ("fname", object)]
    rows = [(np.uint8(i + 1), f"{i + 1:05d}.jpg") for i in range(4)]
    savemat(path, {"annotations": np.array([rows], fields)})
    load_splits("cars196", root=tmp_path)
    with pytest.raises(ValueError, match=r"incomplete .*cars_train_annos.mat: .*bbox_x1"):
        load_splits("cars196_cropped", root=tmp_path)


def test_a_cropped_image_that_cannot_be_read(tmp_path):
    write_cub200(tmp_path)
    boxes = tmp_path / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace("1 0.0", "1 12.0"))
    train, *_ = load_splits("cub200_cropped", root=tmp_path)
    with pytest.raises(
        ImageError, match=r"0000_900.jpg': its box .* is outside the 12 x 8 pixels$"
    ):
        train[0]
    train.paths[1].write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"^cannot read image 1 .*_0001_901.jpg': not an image$"):
        train[1]


def check_damage(tmp_path, name, file, change, why):
    WRITERS[name](tmp_path)
    path = tmp_path / CLASS_DISJOINT[name].folder / file
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))
    with pytest.raises(ValueError, match=why) as error:
        load_splits(name, root=tmp_path)
    assert str(error.value).startswith(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("Ebay_test.txt", None, r"damaged or incomplete .*No such file"),
        ("Ebay_test.txt", lambda t: "", "Ebay_test.txt has no line 'image_id class_id super_"),
        ("Ebay_train.txt", lambda t: t.partition("\n")[2], "Ebay_train.txt has no line 'image_id"),
        ("Ebay_train.txt", lambda t: t + "9 2 so", "has the row '9 2 so', which is not 'image_id"),
        ("Ebay_train.txt", lambda t: t.partition("\n")[0], "no image to train with"),
        (
            "Ebay_test.txt",
            lambda t: t.replace(" sofa", " ../sofa"),
            "Ebay_test.txt: .*sofa.*', outside '",
        ),
        ("Ebay_test.txt", lambda t: t.replace(" sofa", " /sofa"), "'/sofa.*', outside '"),
        ("Ebay_test.txt", lambda t: t.replace("_1.JPG", "_7.JPG"), "1 of the 4 images to test"),
        ("Ebay_test.txt", lambda t: t.replace(" 3 ", " 2 "), "sop: class '2' is in train and in t"),
        ("Ebay_test.txt", lambda t: t.replace(" 3 ", " 4 "), "4 images to test with show one cl"),
        ("Ebay_train.txt", lambda t: t.replace(" 2 1 ", " 1 1 "), "3 images to train with show"),
    ],
)
def test_damaged_sop(tmp_path, file, change, why):
    check_damage(tmp_path, "sop", file, change, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (None, r"damaged or incomplete .*No such file"),
        (lambda t: "", "has no line 'image_name item_id evaluation_status' above its rows"),
        (lambda t: t.partition("\n")[2], "has no line 'image_name item_id evaluation_status'"),
        (lambda t: t.rpartition("img")[0], "list_eval_partition.txt has 8 rows, and says '9'"),
        (lambda t: t.replace("query", "quarry"), r"status 'quarry', none of \('train', 'query', '"),
        (lambda t: t.replace("query", ""), "has the row 'img/.*', which is not 'image_name item"),
        (lambda t: t.replace("query", "gallery"), "has no image of the status 'query'"),
        (lambda t: t.replace("gallery", "query"), "has no image of the status 'gallery'"),
        (lambda t: t.replace("img/WOMEN", "../../WOMEN"), "outside '"),
        (lambda t: t.replace("00_1", "09_1"), "1 of the 6 images to test with are missing"),
        (
            lambda t: t.replace("/04_1", "/02_1"),
            "partition.txt: .*02_1_front.jpg' is a query and in",
        ),
        (lambda t: t.replace("7   query", "3   query"), "class 'id_00000003' is in train and"),
    ],
)
def test_damaged_inshop(tmp_path, change, why):
    check_damage(tmp_path, "inshop", "Eval/list_eval_partition.txt", change, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda base: (base / "images_background").rename(base / "x"),
            "No such.*_background'",
        ),
        (
            lambda base: (base / "images_evaluation/Tibetan/two").mkdir(),
            "no image in '.*an/two",
        ),
        (lambda base: rmtree(base / "images_evaluation/Tibetan"), "images to test with show one"),
        (lambda base: rmtree(base / "images_background/Latin"), "images to train with show one cl"),
        (
            lambda base: copytree(
                base / "images_evaluation/Angelic", base / "images_background/Angelic"
            ),
            "class 'Angelic/character01' is in train and in test",
        ),
        (
            lambda base: rmtree(base / "images_evaluation"),
            "images to train with show one class",
        ),
    ],
)
def test_damaged_omniglot(tmp_path, change, why):
    write_omniglot(tmp_path)
    change(tmp_path / "omniglot-py")
    with pytest.raises(ValueError, match=f"^omniglot.*{why}") as error:
        load_splits("omniglot", root=tmp_path)
    assert "\n" not in str(error.value)


def test_one_small_set_of_omniglot_is_not_the_two(tmp_path):
    write_small_omniglot(tmp_path)
    rmtree(tmp_path / "omniglot-py" / SMALL[1])
    with pytest.raises(ValueError, match=r"incomplete \(.*No such file.*_small2"):
        load_splits("omniglot", root=tmp_path)


@pytest.mark.data
def test_real_omniglot():
    """The two small sets have two alphabets in common, and the same images in them."""
    base = REAL / "omniglot-py"
    found = load_splits("omniglot", root=REAL, size=28)
    assert found.train.labels.unique().tolist() == list(range(121))
    assert found.test.labels.unique().tolist() == list(range(121, 242))
    for data in found[:2]:
        assert data.labels.unique(return_counts=True)[1].tolist() == [20] * 121
        values = torch.stack([data[i][0] for i in range(0, len(data), 97)]).float()
        assert 200 < values.mean() < 250  # black on white
        assert (values[:, 0] == values[:, 1]).all()
    both = [path for path in base.glob("*small1/*/*/*.png")]
    others = [base / SMALL[1] / path.relative_to(base / SMALL[0]) for path in both]
    shared = [pair for pair in zip(both, others, strict=True) if pair[1].is_file()]
    assert len(shared) == 1000
    assert all(a.read_bytes() == b.read_bytes() for a, b in shared)


@pytest.mark.data
def test_real_cars196():
    found = load_splits("cars196", root=REAL, size=32)
    assert found.train.labels.unique().tolist() == list(range(98))
    assert found.test.labels.unique().tolist() == list(range(98, 196))
    assert (len(found.train), len(found.test), found.differs) == (980, 980, "10 a class")
    assert found.test.classes[98] != found.test.classes[97]
    assert found.test[0][0].shape == (3, 32, 32)
