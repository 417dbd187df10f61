"""The labs' own stack on the same files, where Keras and scikit-learn are installed.

keras_scores.py ROW DATA_FOLDER [SEEDS] prints the accuracy after the last epoch, as the labs do: for lab A of each
fold, for the others of the test part.
"""

import sys
from pathlib import Path

import numpy as np
from keras_lab import build, feed, keras
from recipes import RECIPES, load
from sklearn.model_selection import KFold, train_test_split

ROWS = {  # recipe, epochs
    "A1": ("baseline", 10),
    "A3": ("deep", 10),
    "B2": ("conv", 20),
    "E6": ("cnn", 7),
    "E7": ("cnn", 20),
    "E8": ("cnn_augmented", 20),
    "E9": ("cnn_augmented", 60),
}


def split(row, recipe, root):
    """The lab's own: pairs of images and labels, to train on and to score."""
    if row.startswith("E"):
        x, y = (np.load(Path(root) / f"CIFAR4_{name}.npy", allow_pickle=False) for name in "XY")
        x, rest, y, labels = train_test_split(x, y, train_size=0.7, random_state=42)
        _, test, _, labels = train_test_split(rest, labels, train_size=0.5, random_state=42)
        return [((x, y), (test, labels))]
    x, y = load(recipe, root, most=60_000)
    if row.startswith("A"):
        folds = KFold(5, shuffle=True, random_state=1).split(x)
        return [((x[train], y[train]), (x[held_out], y[held_out])) for train, held_out in folds]
    x, _, y, _ = train_test_split(x, y, test_size=0.08333, random_state=42, stratify=y)
    return [((x, y), load(recipe, root, part="t10k"))]


def main(row, root, seeds="1"):
    name, epochs = ROWS[row]
    recipe = RECIPES[name]
    parts = split(row, recipe, root)
    for seed in range(1, int(seeds) + 1):
        keras.utils.set_random_seed(seed)
        for (x, y), (test, labels) in parts:
            net = build(recipe, x.shape[1:])
            net.fit(**feed(recipe, x.astype("float32") / recipe["scale"], y), epochs=epochs, verbose=0)
            score = net.evaluate(test.astype("float32") / recipe["scale"], labels, verbose=0)[1]
            print(f"seed {seed}: {score:.3%}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
