"""Data: sets by name, unlabelled folders, the procedural set, the data module of a run."""

from sslkit.data.array import ArrayDataset
from sslkit.data.datasets import DATASETS, load
from sslkit.data.folder import ImageFolder
from sslkit.data.loader import BatchOrder, Images, Loader, gather
from sslkit.data.module import DataModule
from sslkit.data.shapes import shapes

__all__ = [
    "DATASETS",
    "ArrayDataset",
    "BatchOrder",
    "DataModule",
    "ImageFolder",
    "Images",
    "Loader",
    "gather",
    "load",
    "shapes",
]
