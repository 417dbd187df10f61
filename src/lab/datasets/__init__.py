"""Images in memory: read, checked, split, handed over in batches. Each format has an address here: lab.datasets.idx."""

from lab.datasets.readers import idx, medmnist, npy

__all__ = ["idx", "medmnist", "npy"]
