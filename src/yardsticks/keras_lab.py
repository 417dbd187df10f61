"""The labs' own stack, where Keras is installed: keras_lab.py RECIPE DATA_FOLDER STEPS prints images/s, warm."""

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
from keras import layers
from recipes import RECIPES, classes, load


def build(recipe, shape):
    made = [keras.Input(shape)]
    for word in recipe["layers"]:
        kind, _, units = word.partition(" ")
        if kind == "conv":
            made.append(layers.Conv2D(int(units), 3, activation="relu"))
        elif kind == "pool":
            made.append(layers.MaxPooling2D())
        elif kind == "flatten":
            made.append(layers.Flatten())
        else:
            made.append(layers.Dense(int(units), activation="relu"))
    net = keras.Sequential([*made, layers.Dense(classes(recipe), activation="softmax")])
    name, rate = recipe["optimizer"]
    optimizer = keras.optimizers.SGD(rate, momentum=0.9) if name == "sgd" else keras.optimizers.Adam(rate)
    net.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def main(name, root, steps):
    recipe = RECIPES[name]
    images, labels = load(recipe, root)
    x = images.astype("float32") / recipe["scale"]
    net, count = build(recipe, x.shape[1:]), steps * recipe["batch"]
    x, y = x[:count], labels[:count]
    if recipe.get("augment"):
        generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
            rotation_range=15, width_shift_range=0.1, height_shift_range=0.1, horizontal_flip=True
        )
        given = {"x": generator.flow(x, y, batch_size=recipe["batch"])}
    else:
        given = {"x": x, "y": y, "batch_size": recipe["batch"]}
    net.fit(**given, verbose=0)
    started = time.perf_counter()
    net.fit(**given, verbose=0)
    print(len(x) / (time.perf_counter() - started))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
