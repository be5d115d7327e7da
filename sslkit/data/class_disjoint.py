"""The sets of deep metric learning whose test classes no training image shows.

Of CUB-200-2011 and Cars196 the split (Oh Song et al. 2016; arXiv:1511.06452) is not the authors'
own: the first half of the classes trains, the second half tests.
"""

from pathlib import Path

from torchvision import datasets as tv

from sslkit.data.downstream import Downstream
from sslkit.data.layouts import Listing, by_mat
from sslkit.data.split_by_class import INSHOP, halves, inshop, omniglot, sop


def cub200(root: Path) -> Listing:
    """CUB-200-2011 as its authors unpack it: lists of "number value", numbers from 1."""
    folder = root / "CUB_200_2011"

    def table(name: str) -> dict[str, str]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    names, images = table("classes.txt"), table("images.txt")
    number, labels = {key: i for i, key in enumerate(names)}, table("image_class_labels.txt")
    items = [(folder / "images" / path, number[labels[key]]) for key, path in images.items()]
    return halves([name.partition(".")[2] for name in names.values()], items)


def cars196(root: Path) -> Listing:
    """Stanford Cars as torchvision lays it out, its official halves together.

    The labels of the official test half came later, in a file of their own: without it there is
    the official train half alone.
    """
    there = (root / "stanford_cars" / "cars_test_annos_withlabels.mat").is_file()
    official = ("train", "test") if there else ("train",)
    whole = by_mat(tv.StanfordCars, official, (), root)
    return halves(whole.classes, whole.train)


# fmt: off
CLASS_DISJOINT = {
    "cub200": Downstream("CUB-200-2011", "accuracy", 200, 5_864, 5_924,
        cub200, "CUB_200_2011", "https://data.caltech.edu/records/65de6-vp158"),
    "cars196": Downstream("Cars196", "accuracy", 196, 8_054, 8_131,
        cars196, "stanford_cars", "https://github.com/pytorch/vision/issues/7545"),
    "sop": Downstream("Stanford Online Products", "accuracy", 22_634, 59_551, 60_502,
        sop, "Stanford_Online_Products", "https://cvgl.stanford.edu/projects/lifted_struct/"),
    "inshop": Downstream("In-Shop", "accuracy", 7_982, 25_882, 26_830,  # 14,218 are queries
        inshop, INSHOP, "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"),
    "omniglot": Downstream("Omniglot", "accuracy", 1_623, 19_280, 13_180,
        omniglot, "omniglot-py", "https://github.com/brendenlake/omniglot"),
}
# fmt: on
