"""The labs' recipes, and their arguments, for scripts that know nothing of lab: layers, optimizer, batch."""

import sys

import numpy as np

DEEP = ["conv 32", "pool", "conv 64", "conv 64", "pool", "flatten", "dense 100"]
CNN = ["conv 32", "pool", "conv 64", "pool", "flatten"]
MNIST, CIFAR4 = {"data": "mnist", "classes": 10}, {"data": "cifar4", "classes": 4}
A = MNIST | {"optimizer": ("sgd", 0.01), "batch": 32, "scale": 255, "init": "he_uniform"}  # of hidden layers
B = MNIST | {"optimizer": ("adam", 0.0001), "batch": 128, "scale": 1}
E = CIFAR4 | {"optimizer": ("adam", 0.001), "batch": 100, "scale": 1}
RECIPES = {  # a ReLU after each of conv and dense, and the dense layer of the classes at the end
    "deep": A | {"layers": DEEP},
    "baseline": A | {"layers": ["conv 32", "pool", "flatten", "dense 100"]},
    "dense": B | {"layers": ["flatten", "dense 300", "dense 300"]},
    "conv": B | {"layers": ["conv 32", "flatten", "dense 128"]},
    "cnn": E | {"layers": CNN, "augment": False},
    "cnn_augmented": E | {"layers": CNN, "augment": True},
}


def read_arguments():
    """SCRIPT.py RECIPE ARRAYS.npz PASSES [WORDS]: the recipe, the arrays, how often to go through them, the words.

    Images are uint8 [n, h, w, c], labels int64 [n]. A script prints a line after each pass, whose time is taken.
    """
    name, path, passes, *words = sys.argv[1:]
    with np.load(path, allow_pickle=False) as arrays:
        return RECIPES[name], dict(arrays), int(passes), *words
