"""The labs' own stack on the same files, where Keras and scikit-learn are installed.

keras_scores.py ROW DATA_FOLDER [SEEDS] prints the accuracy of the test part after the last epoch, as the labs do.
Lab A's folds: keras_lab.py deep DATA_FOLDER 10 folds
"""

import sys

from keras_lab import build, feed, keras
from recipes import RECIPES, split

ROWS = {  # recipe, epochs
    "B2": ("conv", 20),
    "E6": ("cnn", 7),
    "E7": ("cnn", 20),
    "E8": ("cnn_augmented", 20),
    "E9": ("cnn_augmented", 60),
}


def main(row, root, seeds="3"):
    if row not in ROWS:
        sys.exit(f"error: {row} is none of {', '.join(ROWS)}")
    name, epochs = ROWS[row]
    recipe = RECIPES[name]
    x, y, test, labels = split(recipe, root)
    for seed in range(1, int(seeds) + 1):
        keras.utils.set_random_seed(seed)
        net = build(recipe, x.shape[1:])
        net.fit(**feed(recipe, x.astype("float32") / recipe["scale"], y), epochs=epochs, verbose=2)
        score = net.evaluate(test.astype("float32") / recipe["scale"], labels, verbose=0)[1]
        print(f"seed {seed}: {score:.3%}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit("error: give ROW DATA_FOLDER [SEEDS]")
