"""Predictions: what a network answers for the images of a part, kept in a file that any numpy reads."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from lab.config.checks import check_plain
from lab.errors import UserError
from lab.files import atomic_write, read_arrays

TINY = np.finfo(np.float32).tiny  # a probability of 0 has no logarithm


@dataclass
class Predictions:
    """A network's answers for images, in the data set's order.

    Two with the same `sha256` are for the same images with the same labels.
    """

    logits: npt.NDArray[np.float32]  # [n, classes]
    labels: npt.NDArray[np.int64]  # [n]
    indices: npt.NDArray[np.int64]  # [n], into the data set
    classes: npt.NDArray[np.str_]  # [classes], their names
    sha256: npt.NDArray[np.str_]  # [], of the images' bytes and the labels'

    def save(self, path: Path) -> None:
        """Write a compressed .npz file with the fields' names."""
        with atomic_write(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    def probabilities(self) -> npt.NDArray[np.float64]:
        """[n, classes]"""
        return softmax(self.logits.astype(np.float64), 1)

    def loss(self) -> float:
        """Mean cross-entropy."""
        of_label = log_softmax(self.logits.astype(np.float64), 1)[np.arange(len(self.labels)), self.labels]
        return float(-of_label.mean())

    def correct(self) -> npt.NDArray[np.bool_]:
        """Which images are answered right, [n]."""
        return self.logits.argmax(1) == self.labels


def load_predictions(folder: Path, name: str = "predictions.npz") -> Predictions:
    """The predictions of a finished run for its test part, or of a fold for the images held out."""
    path = folder / name
    if not path.exists():
        raise UserError(f"{folder}: made by an older version, without {name}: evaluate.py writes it")
    try:
        arrays = read_arrays(path)
        predictions = Predictions(**{field.name: arrays[field.name] for field in fields(Predictions)})
        n, classes = predictions.logits.shape
        if not predictions.labels.shape == predictions.indices.shape == (n,) or predictions.classes.shape != (classes,):
            raise ValueError("its arrays do not fit")
        kinds = [getattr(predictions, field.name).dtype.kind for field in fields(Predictions)]
        if kinds != list("fiiUU") or (n and not 0 <= predictions.labels.min() <= predictions.labels.max() < classes):
            raise ValueError("not the numbers of answers and classes")
        if not np.isfinite(predictions.logits).all():
            raise ValueError("its answers are not finite")
        check_plain(predictions.classes.tolist(), "classes")
    except Exception as error:  # a damaged archive raises whatever its parser does
        raise UserError(f"{path}: damaged, or not of this version ({error})") from None
    return predictions


def average(opinions: Sequence[Predictions]) -> Predictions:
    """The mean of the probabilities that several networks give for the same images."""
    mean = np.mean([each.probabilities() for each in opinions], axis=0)
    return dataclasses.replace(opinions[0], logits=np.log(np.maximum(mean, TINY)).astype(np.float32))


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions for several parts as one, in the data set's order; the images' sha256 is lost."""
    order = np.argsort(np.concatenate([part.indices for part in parts]))
    logits, labels, indices = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("logits", "labels", "indices")
    )
    return Predictions(logits, labels, indices, parts[0].classes, np.array(""))
