"""The labs' own stack, where Keras is installed: keras_lab.py RECIPE DATA_FOLDER STEPS prints images/s, warm.

With the word inference at the end: of answers, in batches of 32; with folds: lab A's five, STEPS epochs
each, and the accuracy of each in %.
"""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers
from recipes import RECIPES, classes, load


def build(recipe, shape):
    made, init = [keras.Input(shape)], recipe.get("init", "glorot_uniform")
    for word in recipe["layers"]:
        kind, _, units = word.partition(" ")
        if kind == "conv":
            made.append(layers.Conv2D(int(units), 3, activation="relu", kernel_initializer=init))
        elif kind == "pool":
            made.append(layers.MaxPooling2D())
        elif kind == "flatten":
            made.append(layers.Flatten())
        else:
            made.append(layers.Dense(int(units), activation="relu", kernel_initializer=init))
    net = keras.Sequential([*made, layers.Dense(classes(recipe), activation="softmax")])
    name, rate = recipe["optimizer"]
    optimizer = keras.optimizers.SGD(rate, momentum=0.9) if name == "sgd" else keras.optimizers.Adam(rate)
    net.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def feed(recipe, x, y):
    """What net.fit is given."""
    if not recipe.get("augment"):
        return {"x": x, "y": y, "batch_size": recipe["batch"]}
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=15, width_shift_range=0.1, height_shift_range=0.1, horizontal_flip=True
    )
    return {"x": generator.flow(x, y, batch_size=recipe["batch"])}


def infer(net, x):
    for _ in ("warm up", "measure"):
        started = time.perf_counter()
        net.predict(x, batch_size=32, verbose=0)
    print(len(x) / (time.perf_counter() - started))


def cross_validate(recipe, root, epochs):
    """A new network a fold, scored on the images held out."""
    images, labels = load(recipe, root, most=60_000)
    x = images.astype("float32") / recipe["scale"]
    order = np.random.RandomState(1).permutation(len(x))  # as scikit-learn's KFold(5, shuffle=True, random_state=1)
    keras.utils.set_random_seed(1)
    for held_out in np.array_split(order, 5):
        train = np.setdiff1d(order, held_out)
        net = build(recipe, x.shape[1:])
        given = {"epochs": epochs, "batch_size": recipe["batch"], "validation_data": (x[held_out], labels[held_out])}
        net.fit(x[train], labels[train], **given, verbose=0)
        print(f"{net.evaluate(x[held_out], labels[held_out], verbose=0)[1] * 100:.3f}", flush=True)


def main(name, root, steps, task="training"):
    recipe = RECIPES[name]
    if task not in ("training", "inference", "folds"):
        sys.exit(f"error: {task} is none of inference, folds")
    if task == "folds":
        return cross_validate(recipe, root, steps)
    images, labels = load(recipe, root)
    x = images.astype("float32") / recipe["scale"]
    net, count = build(recipe, x.shape[1:]), steps * recipe["batch"]
    if task == "inference":
        return infer(net, np.tile(x[:32], (steps, 1, 1, 1)))
    x, y = x[:count], labels[:count]
    given = feed(recipe, x, y)
    net.fit(**given, verbose=0)
    started = time.perf_counter()
    net.fit(**given, verbose=0)
    print(len(x) / (time.perf_counter() - started))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
