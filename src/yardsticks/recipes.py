"""The labs' recipes for scripts that know nothing of lab: layers, optimizer, batch; and their data as arrays."""

import gzip
from pathlib import Path

import numpy as np

SGD, ADAM = ("sgd", 0.01), ("adam", 0.001)
DEEP = ["conv 32", "pool", "conv 64", "conv 64", "pool", "flatten", "dense 100"]
CNN = {"layers": ["conv 32", "pool", "conv 64", "pool", "flatten"], "optimizer": ADAM, "batch": 100, "data": "cifar4"}
B = {"optimizer": ("adam", 0.0001), "batch": 128, "data": "mnist", "scale": 1}
RECIPES = {  # a ReLU after each of conv and dense, and the dense layer of the classes at the end
    "deep": {"layers": DEEP, "optimizer": SGD, "batch": 32, "data": "mnist", "scale": 255},
    "baseline": {
        "layers": ["conv 32", "pool", "flatten", "dense 100"],
        "optimizer": SGD,
        "batch": 32,
        "data": "mnist",
        "scale": 255,
    },
    "dense": B | {"layers": ["flatten", "dense 300", "dense 300"]},
    "conv": B | {"layers": ["conv 32", "flatten", "dense 128"]},
    "cnn": CNN | {"scale": 1, "augment": False},
    "cnn_augmented": CNN | {"scale": 1, "augment": True},
}


def load(recipe, root, most=55_000):
    """Images uint8 [n, h, w, c] and labels int64 [n] to train on."""
    if recipe["data"] == "cifar4":
        images, labels = (np.load(Path(root) / f"CIFAR4_{name}.npy", allow_pickle=False) for name in "XY")
        return images[:16800], labels[:16800].astype(np.int64).reshape(-1)
    images = _read(Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1)
    labels = _read(Path(root) / "MNIST" / "raw" / "train-labels-idx1-ubyte", 8)
    return images[:most], labels[:most].astype(np.int64)


def _read(path, head):
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=head)


def classes(recipe):
    return 4 if recipe["data"] == "cifar4" else 10
