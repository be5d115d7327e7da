"""Data: sets by name, labelled or not, the procedural set, the data module of a run."""

from sslkit.data.array import ArrayDataset
from sslkit.data.class_batches import ClassBatches
from sslkit.data.datasets import DATASETS, load
from sslkit.data.downstream import DOWNSTREAM
from sslkit.data.folder import ImageFolder
from sslkit.data.images import ImageError, LabelledImages
from sslkit.data.loader import BatchOrder, Images, Loader, gather
from sslkit.data.module import DataModule
from sslkit.data.shapes import shapes
from sslkit.data.splits import Splits, about, class_disjoint, load_splits

__all__ = [
    "DATASETS",
    "DOWNSTREAM",
    "ArrayDataset",
    "BatchOrder",
    "ClassBatches",
    "DataModule",
    "ImageError",
    "ImageFolder",
    "Images",
    "LabelledImages",
    "Loader",
    "Splits",
    "about",
    "class_disjoint",
    "gather",
    "load",
    "load_splits",
    "shapes",
]
