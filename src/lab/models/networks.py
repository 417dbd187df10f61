"""The networks of the labs, one function each: pixels already scaled in, logits out.

A layer says what it makes; what it takes in is found on one dry forward pass, so each serves any image size.
Counts and figures of each: conf/model/. Keras' defaults (initialisation, batch normalisation): layers.py.
"""

from torch.nn import AdaptiveAvgPool2d, AvgPool2d, Dropout, Flatten, MaxPool2d, ReLU, Sequential, Sigmoid

from lab.models.backbone import make_backbone
from lab.models.layers import BatchNorm, BatchNorm1d, Conv, Dense, Hog, ImageNetResNet50, Pad, Resize, he_uniform

# Lab A: cross-validated on MNIST


def baseline(classes):
    return Sequential(
        Conv(32, 3, init=he_uniform), ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(100, init=he_uniform), ReLU(),
        Dense(classes),
    )


def batchnorm(classes):
    return Sequential(
        Conv(32, 3, init=he_uniform), ReLU(), BatchNorm(),
        MaxPool2d(2),
        Flatten(),
        Dense(100, init=he_uniform), ReLU(), BatchNorm1d(),
        Dense(classes),
    )


def deep(classes):
    return Sequential(
        Conv(32, 3, init=he_uniform), ReLU(),
        MaxPool2d(2),
        Conv(64, 3, init=he_uniform), ReLU(),
        Conv(64, 3, init=he_uniform), ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(100, init=he_uniform), ReLU(),
        Dense(classes),
    )


def lenet5(classes):
    return Sequential(
        Pad(32),
        Conv(6, 3), ReLU(),
        AvgPool2d(2),
        Conv(16, 3), ReLU(),
        AvgPool2d(2),
        Flatten(),
        Dense(120), ReLU(),
        Dense(84), ReLU(),
        Dense(classes),
    )


def alexnet(classes):
    return Sequential(
        Conv(96, 3, padding="same"), ReLU(),
        MaxPool2d(3, 2), BatchNorm(),
        Conv(256, 5, padding="same", l2=5e-4), ReLU(),
        MaxPool2d(3, 2), BatchNorm(),
        Conv(384, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        Conv(384, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        Conv(256, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        MaxPool2d(3, 2),
        Flatten(),
        Dense(1024), ReLU(), Dropout(0.5),
        Dense(1024), ReLU(), Dropout(0.5),
        Dense(classes),
    )


def alexnet_224(classes):
    return Sequential(
        Resize(224),
        Conv(96, 11, stride=4), ReLU(),
        MaxPool2d(3, 2), BatchNorm(),
        Conv(256, 5, padding="same", l2=5e-4), ReLU(),
        MaxPool2d(3, 1), BatchNorm(),
        Conv(384, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        Conv(384, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        Conv(256, 3, padding="same", l2=5e-4), ReLU(), BatchNorm(),
        MaxPool2d(3, 2),
        Flatten(),
        Dense(4096), ReLU(), Dropout(0.5),
        Dense(4096), ReLU(), Dropout(0.5),
        Dense(classes),
    )


# Lab B: from dense to convolution, pooling, dropout


def dense(classes):
    return Sequential(
        Flatten(),
        Dense(300), ReLU(),
        Dense(300), ReLU(),
        Dense(classes),
    )


def conv(classes):
    return Sequential(
        Conv(32, 3), ReLU(),
        Flatten(),
        Dense(128), ReLU(),
        Dense(classes),
    )


def conv_pool(classes):
    return Sequential(
        Conv(32, 3), ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(128), ReLU(),
        Dense(classes),
    )


def dropout(classes, rate):
    return Sequential(
        Conv(32, 3), ReLU(),
        MaxPool2d(2), Dropout(rate),
        Flatten(),
        Dense(128), ReLU(), Dropout(rate),
        Dense(classes),
    )


# Lab C: small


def small_dense(classes):
    return Sequential(
        Flatten(),
        Dense(128), ReLU(),
        Dense(32), ReLU(),
        Dense(classes),
    )


def small_conv(classes):
    return Sequential(
        Conv(8, 3), ReLU(),
        Conv(16, 3), ReLU(),
        Flatten(),
        Dense(128), ReLU(), Dropout(0.2),
        Dense(32), ReLU(), Dropout(0.2),
        Dense(classes),
    )


def small_pool(classes):
    return Sequential(
        Conv(8, 3), ReLU(),
        MaxPool2d(2),
        Conv(16, 3), ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(128), ReLU(), Dropout(0.2),
        Dense(32), ReLU(), Dropout(0.2),
        Dense(classes),
    )


def small_batchnorm(classes):
    return Sequential(
        Conv(8, 3), ReLU(),
        MaxPool2d(2), BatchNorm(), Dropout(0.2),
        Conv(16, 3), ReLU(),
        MaxPool2d(2), BatchNorm(), Dropout(0.2),
        Flatten(),
        Dense(128), ReLU(), BatchNorm1d(), Dropout(0.5),
        Dense(32), ReLU(), BatchNorm1d(), Dropout(0.5),
        Dense(classes),
    )


# Lab D: raw pixels, HOG, convolution; chest X-rays


def sigmoid(classes):
    return Sequential(
        Flatten(),
        Dense(512), Sigmoid(),
        Dense(classes),
    )


def sigmoid_dropout(classes):
    return Sequential(
        Flatten(),
        Dense(512), Sigmoid(), Dropout(0.5),
        Dense(classes),
    )


def sigmoid_deep(classes):
    return Sequential(
        Flatten(),
        Dense(512), Sigmoid(), Dropout(0.5),
        Dense(256), ReLU(), Dropout(0.5),
        Dense(classes),
    )


def hog(classes, orientations, units):
    return Sequential(
        Hog(orientations),
        Flatten(),
        Dense(units), ReLU(), Dropout(0.5),
        Dense(classes),
    )


def _convolutions(size, pools):
    """Lab D's code pools after each of 3 convolutions, but only the last has an effect: pools=3 is what it meant."""
    layers = []
    for number in (1, 2, 3):
        layers += [Conv(32, size, padding="same"), ReLU()]
        layers += [MaxPool2d(2)] if number == 3 or pools == 3 else []
    return layers


def conv2x2(classes, pools=1):
    return Sequential(
        *_convolutions(2, pools),
        Flatten(),
        Dense(64), ReLU(),
        Dense(classes),
    )


def conv2x2_wide(classes, pools=1):
    return Sequential(
        *_convolutions(2, pools),
        Flatten(),
        Dense(128), ReLU(), Dropout(0.5),
        Dense(classes),
    )


def conv5x5(classes, pools=1):
    return Sequential(
        *_convolutions(5, pools),
        Flatten(),
        Dense(128), ReLU(), Dropout(0.5),
        Dense(classes),
    )


def pneumonia(classes):  # its epochs of 74 steps are too short for Keras' momentum
    return Sequential(
        Conv(32, 3, padding="same"), BatchNorm(momentum=0.1), ReLU(),
        Conv(32, 3, padding="same"), BatchNorm(momentum=0.1), ReLU(),
        MaxPool2d(2),
        Conv(64, 3, padding="same"), BatchNorm(momentum=0.1), ReLU(),
        Conv(64, 3, padding="same"), BatchNorm(momentum=0.1), ReLU(),
        MaxPool2d(2),
        Conv(96, 3, padding="same"), BatchNorm(momentum=0.1), ReLU(),
        AdaptiveAvgPool2d(1),
        Flatten(), Dropout(0.5),
        Dense(classes),
    )


# Lab E: CIFAR4, transfer


def mlp20(classes):
    return Sequential(
        Flatten(),
        Dense(20), ReLU(),
        Dense(classes),
    )


def mlp_deep(classes):
    return Sequential(
        Flatten(),
        Dense(1024), ReLU(),
        Dense(768), ReLU(),
        Dense(512), ReLU(),
        Dense(256), ReLU(),
        Dense(128), ReLU(),
        Dense(classes),
    )


def mlp_deep_dropout(classes):
    flatten, dense, relu, *others = mlp_deep(classes)
    return Sequential(flatten, dense, relu, Dropout(0.1), *others)


def cnn(classes):
    return Sequential(
        Conv(32, 3), ReLU(),
        MaxPool2d(2),
        Conv(64, 3), ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(classes),
    )


def resnet50(classes, weights=None):
    return Sequential(
        ImageNetResNet50(weights),
        Dense(256), ReLU(),
        Dense(128), ReLU(),
        Dense(classes),
    )


# Networks by name, which have seen ImageNet


def pretrained(classes, name, weights=None, size=None, train="head", hidden=()):
    return Sequential(
        *make_backbone(name, weights, size, train),
        *(layer for units in hidden for layer in (Dense(units), ReLU())),
        Dense(classes),
    )


# Ours, for speed and for accuracy


def fast99(classes):
    return Sequential(
        Conv(16, 5, stride=2), BatchNorm(momentum=0.2), ReLU(),
        Conv(32, 5, stride=2), BatchNorm(momentum=0.2), ReLU(),
        Conv(64, 3), BatchNorm(momentum=0.2), ReLU(),
        Flatten(),
        Dense(classes),
    )


def best(classes):
    return Sequential(
        Conv(32, 3), BatchNorm(momentum=0.1), ReLU(),
        Conv(32, 3), BatchNorm(momentum=0.1), ReLU(),
        MaxPool2d(2),
        Conv(64, 3), BatchNorm(momentum=0.1), ReLU(),
        Conv(64, 3), BatchNorm(momentum=0.1), ReLU(),
        MaxPool2d(2),
        Conv(128, 3), BatchNorm(momentum=0.1), ReLU(),
        Flatten(), Dropout(0.4),
        Dense(classes),
    )
