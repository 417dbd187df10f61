"""A data set: its images, its classes, and which image is in which part."""

import functools
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from lab.config.instantiate import instantiate
from lab.config.schema import CONF, MOST_CLASSES, data_folder
from lab.datasets.readers import Arrays
from lab.errors import UserError

Parts = dict[str, npt.NDArray[np.int64]]  # "train", "validation", "test": indices into the data set


@dataclass
class Dataset:
    """Images with their labels, the names of the classes, and which image is in which part."""

    name: str  # mnist_sample where it is only a sample of mnist
    images: npt.NDArray[np.uint8]  # [n, h, w, c]
    labels: npt.NDArray[np.int64]  # [n]
    classes: list[str]
    parts: Parts
    is_sample: bool = False
    folds: list[Parts] = field(default_factory=list)  # of a cross-validation, nothing dropped
    files: list[str] | None = None  # where each image is a file of its own, [n]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image as networks take it: channels, height, width."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def counts(self) -> dict[str, npt.NDArray[np.int64]]:
        """Images of each class, [classes], in each part."""
        labels = {part: self.labels[indices] for part, indices in self.parts.items()}
        return {part: np.bincount(numbers, minlength=len(self.classes)) for part, numbers in labels.items()}

    def fingerprint(self, indices: npt.NDArray[np.int64]) -> str:
        """SHA-256 of the images and labels at `indices`."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images[indices]))
        digest.update(self.labels[indices])
        return digest.hexdigest()

    @functools.cached_property
    def sha256(self) -> str:
        """Of all images and labels, and of which image is in which part."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        for numbers in (self.labels, *self.parts.values()):
            digest.update(np.ascontiguousarray(numbers))
        return digest.hexdigest()

    def leaked(self) -> npt.NDArray[np.bool_]:
        """Which images of the training part, [n], are also in the validation or the test part."""
        groups = group_same(self.images)
        held_out = np.concatenate([groups[indices] for part, indices in self.parts.items() if part != "train"])
        return np.isin(groups[self.parts["train"]], held_out)


def load(config: DictConfig, untrusted: bool = False) -> Dataset:
    """The data set that `config`, a Data, names, split as it says; with folds, the parts are those of its fold.

    An untrusted config, of a folder that may be a stranger's, downloads nothing but what this project names itself,
    and nothing into a place that the folder names. Who names a place gets no sample of the data.
    """
    source, root = config.source, data_folder(config.root)
    if untrusted:
        source = _without_addresses(source, config.root in (None, os.environ.get("LAB_DATA")))
    whole = {"sample": False} if config.root and "sample" in source else {}
    arrays = instantiate("data.source", source, Arrays, root=root, **whole)
    parts, folds = _split_as_told(arrays, config), []
    if config.folds:
        folds = make_folds(parts, arrays.labels, config.folds, config.fold_seed, config.stratify_folds)
        parts = dict(folds[config.fold])
    name = config.name + ("_sample" if arrays.is_sample else "")
    classes = arrays.classes or _name_classes(arrays.labels, config)
    if len(found := np.unique(arrays.labels[parts["train"]])) == 1:
        raise UserError(f"data={config.name}: all images to train on are of one class, '{classes[found[0]]}'")
    dataset = Dataset(name, arrays.images, arrays.labels, classes, parts, arrays.is_sample, folds, arrays.files)
    if config.drop_duplicates:
        parts["train"] = parts["train"][~dataset.leaked()]
        if not len(parts["train"]):
            raise UserError("data.drop_duplicates=true: no images are left to train on")
    return dataset


def _without_addresses(source: DictConfig, may_fill: bool) -> DictConfig:
    """`source` without addresses, unless conf/data/ has the same and it `may_fill`: a download could write anywhere."""

    def without_sums(node: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in node.items() if key not in ("sample", "md5")}

    ours = [OmegaConf.to_container(OmegaConf.load(path)).get("source", {}) for path in (CONF / "data").glob("*.yaml")]
    if may_fill and without_sums(OmegaConf.to_container(source)) in map(without_sums, ours):
        return source
    empty = {key: nothing for key, nothing in (("mirrors", []), ("url", "")) if key in source}
    return OmegaConf.create(OmegaConf.to_container(source) | empty)


def _name_classes(labels: npt.NDArray[np.int64], config: DictConfig) -> list[str]:
    if config.classes and len(set(config.classes)) < len(config.classes):
        raise UserError(f"data.classes={config.classes}: each class needs a name of its own")
    classes = list(config.classes or map(str, range(min(labels.max() + 1, MOST_CLASSES))))
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"data={config.name}: labels run from {labels.min()} to {labels.max()}, "
            f"but the {len(classes)} classes are numbered from 0 to {len(classes) - 1}"
        )
    return classes


def _split_as_told(arrays: Arrays, config: DictConfig) -> Parts:
    if not len(arrays.labels):
        raise UserError(f"data={config.name}: it has no images")
    parts = split(arrays, config.validation, config.test, config.split_seed, config.stratify)
    for part, purpose in (("train", "train"), ("test", "test")):
        if not len(parts[part]):
            raise UserError(f"data={config.name}: no images are left to {purpose} on")
    return parts


def split(arrays: Arrays, validation: float | None, test: float | None, seed: int, stratify: bool) -> Parts:
    """The labs' splits. None takes the data set's own part; a fraction is cut from the images to train on.

    The images held out are drawn first and then divided, as lab E does. A test part that the data set has is never
    mixed with the others. `validation=0` trains on all.
    """
    own = arrays.own_parts
    indices = np.arange(len(arrays.labels))
    cuts = np.cumsum([own["train"], own.get("validation", 0)])
    train, own_validation, own_test = np.split(indices, cuts)
    if test is None and arrays.is_sample:
        test = 0.2
    if test is not None and "test" in own:
        raise UserError(f"data.test={test}: this data set has its own test part: leave it null")
    if test is None and "test" not in own:
        raise UserError("data.test=null: this data set has no test part of its own: give a fraction")
    if validation is None and "validation" not in own:
        raise UserError("data.validation=null: this data set has no validation part of its own: give a fraction")
    if validation is not None:
        train = np.concatenate([train, own_validation])
    n_validation, n_test = (round(len(train) * (fraction or 0)) for fraction in (validation, test))
    held_out = train[:0]
    if n_validation + n_test:
        train, held_out = _draw(train, arrays.labels, n_validation + n_test, seed, stratify)
    if n_validation and n_test:
        held_out, own_test = _draw(held_out, arrays.labels, n_test, seed, stratify)
    elif n_test:
        held_out, own_test = held_out[:0], held_out
    return {"train": train, "validation": own_validation if validation is None else held_out, "test": own_test}


def make_folds(parts: Parts, labels: npt.NDArray, folds: int, seed: int, stratify: bool) -> list[Parts]:
    """For each fold its parts: it for validation, the other folds to train on; the test part is in none of them.

    The images lie in the data set's own order, so that on MNIST the folds are lab A's: KFold(5, shuffle, 1).
    """
    images = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    splitter = (StratifiedKFold if stratify else KFold)(folds, shuffle=True, random_state=seed)
    try:
        return [
            {"train": images[train], "validation": images[held_out], "test": parts["test"]}
            for train, held_out in splitter.split(images, labels[images])
        ]
    except ValueError as error:
        raise UserError(f"data.folds={folds}: {error}") from None


def _draw(indices: npt.NDArray, labels: npt.NDArray, held_out: int, seed: int, stratify: bool) -> list[npt.NDArray]:
    try:
        return train_test_split(
            indices, test_size=held_out, random_state=seed, stratify=labels[indices] if stratify else None
        )
    except ValueError as error:
        raise UserError(f"{len(indices)} images cannot be split with {held_out} held out: {error}") from None


def group_same(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """A number [n] for each image [n, h, w, c], the same for the same pixels."""
    known: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.array([known.setdefault(digest, len(known)) for digest in digests], np.int64)
