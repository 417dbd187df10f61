"""Images in memory: read, checked, split, handed over in batches. Each format has an address here: lab.datasets.idx."""

from lab.datasets.folders import folder
from lab.datasets.readers import idx, medmnist, npy

__all__ = ["folder", "idx", "medmnist", "npy"]
