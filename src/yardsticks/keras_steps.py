"""Figures of Keras that tests/test_keras.py compares with: keras_steps.py FILE.npz, where Keras is installed.

The weights after each of 100 steps of its optimizers, and the moving mean and variance of its batch normalisation.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

made = {}
for name, optimizer in {
    "SGD": keras.optimizers.SGD(0.01, momentum=0.9),
    "Adam": keras.optimizers.Adam(0.001),
    "RMSprop": keras.optimizers.RMSprop(0.001),
}.items():
    weights = keras.Variable(np.zeros(11, np.float32))
    optimizer.build([weights])
    made[name] = np.empty((100, 11), np.float32)
    for step in range(100):  # from 1e-8, where epsilon counts, to 100
        gradients = np.float32(10) ** np.arange(-8, 3, dtype=np.float32)
        gradients *= np.cos(step * np.arange(1, 12)).astype(np.float32)
        optimizer.apply_gradients([(keras.ops.convert_to_tensor(gradients), weights)])
        made[name][step] = keras.ops.convert_to_numpy(weights)
random = np.random.default_rng(1)
for name, shape in {"vector": (8, 3), "map": (8, 4, 5, 3)}.items():
    layer = keras.layers.BatchNormalization()
    for batch in range(20):
        layer(random.normal(size=shape).astype(np.float32) * (batch + 1), training=True)
    made[name] = np.array([keras.ops.convert_to_numpy(kept) for kept in (layer.moving_mean, layer.moving_variance)])
np.savez_compressed(sys.argv[1], **made)
