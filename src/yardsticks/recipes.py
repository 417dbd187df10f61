"""The labs' recipes for scripts that know nothing of lab: layers, optimizer, batch; and their data as arrays."""

import gzip
from pathlib import Path

import numpy as np

DEEP = ["conv 32", "pool", "conv 64", "conv 64", "pool", "flatten", "dense 100"]
CNN = ["conv 32", "pool", "conv 64", "pool", "flatten"]
A = {"optimizer": ("sgd", 0.01), "batch": 32, "data": "mnist", "scale": 255, "init": "he_uniform"}  # of hidden layers
B = {"optimizer": ("adam", 0.0001), "batch": 128, "data": "mnist", "scale": 1}
E = {"optimizer": ("adam", 0.001), "batch": 100, "data": "cifar4", "scale": 1}
RECIPES = {  # a ReLU after each of conv and dense, and the dense layer of the classes at the end
    "deep": A | {"layers": DEEP},
    "baseline": A | {"layers": ["conv 32", "pool", "flatten", "dense 100"]},
    "dense": B | {"layers": ["flatten", "dense 300", "dense 300"]},
    "conv": B | {"layers": ["conv 32", "flatten", "dense 128"]},
    "cnn": E | {"layers": CNN, "augment": False},
    "cnn_augmented": E | {"layers": CNN, "augment": True},
}


def load(recipe, root, most=55_000, part="train"):
    """Images uint8 [n, h, w, c] and labels int64 [n]: the first of those to train on; of MNIST's part t10k, to test."""
    if recipe["data"] == "cifar4":
        images, labels = (np.load(Path(root) / f"CIFAR4_{name}.npy", allow_pickle=False) for name in "XY")
        return images[:16800], labels[:16800].astype(np.int64).reshape(-1)
    images = _read(Path(root) / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1)
    labels = _read(Path(root) / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", 8)
    return images[:most], labels[:most].astype(np.int64)


def split(recipe, root):
    """Images and labels to train on, images and labels to test: labs B and E split so."""
    from sklearn.model_selection import train_test_split  # not everybody's who trains

    if recipe["data"] == "cifar4":
        x, y = (np.load(Path(root) / f"CIFAR4_{name}.npy", allow_pickle=False) for name in "XY")
        x, rest, y, labels = train_test_split(x, y, train_size=0.7, random_state=42)
        _, test, _, labels = train_test_split(rest, labels, train_size=0.5, random_state=42)
        return x, y, test, labels
    x, y = load(recipe, root, most=60_000)
    x, _, y, _ = train_test_split(x, y, test_size=0.08333, random_state=42, stratify=y)
    return x, y, *load(recipe, root, part="t10k")


def _read(path, head):
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=head)


def classes(recipe):
    return 4 if recipe["data"] == "cifar4" else 10
