"""The labs' own stack, where Keras is installed: keras_lab.py RECIPE ARRAYS.npz PASSES [TASK [HOW [PROCESSES]]]

TASK: training; inference, in batches of 32; folds, PASSES epochs each, and the accuracy of each in %.
HOW: labs, as they write it; xla and no_xla, as an expert would, with and without TensorFlow's compiler.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf
from keras import layers
from recipes import read_arguments

WAYS = {
    "labs": {},
    "xla": {"jit_compile": True, "steps_per_execution": 20},
    "no_xla": {"jit_compile": False, "steps_per_execution": 20},
}


def build(recipe, shape, how="labs"):
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
    net = keras.Sequential([*made, layers.Dense(recipe["classes"], activation="softmax")])
    name, rate = recipe["optimizer"]
    optimizer = keras.optimizers.SGD(rate, momentum=0.9) if name == "sgd" else keras.optimizers.Adam(rate)
    net.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], **WAYS[how])
    return net


def feed(recipe, x, y, how="labs"):
    """What net.fit is given."""
    if not recipe.get("augment"):
        return {"x": x, "y": y, "batch_size": recipe["batch"]}
    if how == "labs":
        changes = {"rotation_range": 15, "width_shift_range": 0.1, "height_shift_range": 0.1, "horizontal_flip": True}
        generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(**changes)
        return {"x": generator.flow(x, y, batch_size=recipe["batch"])}
    turn, shift = layers.RandomRotation(15 / 360, "nearest"), layers.RandomTranslation(0.1, 0.1, "nearest")
    change = keras.Sequential([layers.RandomFlip("horizontal"), turn, shift])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(recipe["batch"])
    return {"x": batches.map(lambda x, y: (change(x, training=True), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)}


def train_fold(recipe, images, labels, folds, epochs, fold):
    """The accuracy in % of a new network on the images held out."""
    keras.utils.set_random_seed(1 + fold)
    x, train, held_out = images.astype("float32") / recipe["scale"], folds != fold, folds == fold
    net, given = build(recipe, x.shape[1:]), {"epochs": epochs, "batch_size": recipe["batch"], "verbose": 0}
    net.fit(x[train], labels[train], validation_data=(x[held_out], labels[held_out]), **given)
    return net.evaluate(x[held_out], labels[held_out], verbose=0)[1] * 100


def cross_validate(train, count, processes=1):
    """Print what `train` makes of each fold; several processes share the cores."""
    if processes == 1:
        scores = map(train, range(count))
    else:
        threads = max(len(os.sched_getaffinity(0)) // processes, 1)
        context, set_threads = get_context("spawn"), tf.config.threading.set_intra_op_parallelism_threads
        scores = ProcessPoolExecutor(processes, context, set_threads, (threads,)).map(train, range(count))
    for score in scores:
        print(f"{score:.3f}", flush=True)


def main(recipe, arrays, passes, task="training", how="labs", processes="1"):
    images, labels = arrays["images"], arrays["labels"]
    if task == "folds":
        train = partial(train_fold, recipe, images, labels, arrays["folds"], passes)
        return cross_validate(train, arrays["folds"].max() + 1, int(processes))
    x = images.astype("float32") / recipe["scale"]
    net = build(recipe, x.shape[1:], how)
    if task == "inference":
        for number in range(1, passes + 1):
            net.predict(x, batch_size=32, verbose=0)
            print(f"pass {number}", flush=True)
    else:
        tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(f"epoch {epoch + 1}", flush=True))
        net.fit(**feed(recipe, x, labels, how), epochs=passes, callbacks=[tell], verbose=0)


if __name__ == "__main__":
    main(*read_arguments())
