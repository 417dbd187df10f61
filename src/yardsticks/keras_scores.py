"""The labs' own stack on the same files, where Keras and scikit-learn are installed.

keras_scores.py ROW DATA_FOLDER [SEED] prints the seed, the accuracy in % on the test part after the last epoch, as the
labs do, and the seconds; of A3 the accuracy of each of its five folds.
"""

import gzip
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from keras_lab import build, cross_validate, feed, keras, train_fold
from recipes import RECIPES
from sklearn.model_selection import KFold, train_test_split

ROWS = {  # recipe, epochs
    "A3": ("deep", 10),
    "B2": ("conv", 20),
    "E6": ("cnn", 7),
    "E7": ("cnn", 20),
    "E8": ("cnn_augmented", 20),
    "E9": ("cnn_augmented", 60),
}


def load(root, part):
    """MNIST's images uint8 [n, 28, 28, 1] and labels int64 [n] of the part train or t10k."""

    def read(name, head):
        path = Path(root) / "MNIST" / "raw" / f"{part}-{name}"
        packed = not path.exists()
        content = gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()) if packed else path.read_bytes()
        return np.frombuffer(content, np.uint8, offset=head)

    labels = read("labels-idx1-ubyte", 8).astype(np.int64)
    return read("images-idx3-ubyte", 16).reshape(-1, 28, 28, 1), labels


def split(recipe, root):
    """Images and labels to train on, images and labels to test: labs B and E split so."""
    if recipe["data"] == "cifar4":
        x, y = (np.load(Path(root) / f"CIFAR4_{name}.npy", allow_pickle=False) for name in "XY")
        x, rest, y, labels = train_test_split(x, y, train_size=0.7, random_state=42)
        _, test, _, labels = train_test_split(rest, labels, train_size=0.5, random_state=42)
        return x, y, test, labels
    x, y = load(root, "train")
    x, _, y, _ = train_test_split(x, y, test_size=0.08333, random_state=42, stratify=y)
    return x, y, *load(root, "t10k")


def main(row, root, seed="1"):
    if row not in ROWS:
        sys.exit(f"error: {row} is none of {', '.join(ROWS)}")
    name, epochs = ROWS[row]
    recipe = RECIPES[name]
    if row == "A3":
        x, y = load(root, "train")
        folds = np.empty(len(x), int)
        for number, (_, held_out) in enumerate(KFold(5, shuffle=True, random_state=1).split(x)):
            folds[held_out] = number
        train = partial(train_fold, recipe, x, y, folds, epochs)
        return cross_validate(train, 5)
    x, y, test, labels = split(recipe, root)
    started = time.perf_counter()
    keras.utils.set_random_seed(int(seed))
    net = build(recipe, x.shape[1:])
    net.fit(**feed(recipe, x.astype("float32") / recipe["scale"], y), epochs=epochs, verbose=0)
    score = net.evaluate(test.astype("float32") / recipe["scale"], labels, verbose=0)[1]
    print(f"{seed},{100 * score:.4f},{time.perf_counter() - started:.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit("error: give ROW DATA_FOLDER [SEED]")
