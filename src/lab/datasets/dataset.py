"""A data set: its images, its classes, and which image is in which part."""

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold, train_test_split

from lab.config.instantiate import instantiate
from lab.config.schema import CONF, MOST_CLASSES, data_folder
from lab.datasets.corrections import Corrected, correct
from lab.datasets.pictures import blocks
from lab.datasets.readers import Arrays
from lab.decode import digest
from lab.display.terminal import print_classes, print_notes
from lab.errors import UserError

MOST_FOLDS = 20  # to cut groups into, of which some are held out
MOST_SHOWN = 40  # images, of the first of each class
Parts = dict[str, npt.NDArray[np.int64]]  # "train", "validation", "test": indices into the data set


@dataclass(kw_only=True)
class Dataset(Arrays):
    """Images with their labels, the names of the classes, and which image is in which part."""

    name: str  # mnist_sample where it is only a sample of mnist
    parts: Parts
    folds: Sequence[Parts] = ()  # of a cross-validation, nothing dropped
    corrected: Corrected | None = None  # where labels were

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image as networks take it: channels, height, width."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def counts(self) -> dict[str, npt.NDArray[np.int64]]:
        """How many images of each class, [classes], each part has."""
        labels = {part: self.labels[indices] for part, indices in self.parts.items()}
        return {part: np.bincount(numbers, minlength=len(self.classes)) for part, numbers in labels.items()}

    def fingerprint(self, indices: npt.NDArray[np.int64]) -> str:
        """SHA-256 of the images and labels at `indices`."""
        found = hashlib.sha256()
        for images in blocks(self.images, indices):
            found.update(np.ascontiguousarray(images))
        found.update(self.labels[indices])
        return found.hexdigest()

    @functools.cached_property
    def digests(self) -> list[str]:
        """A digest of each image's pixels, [n]: the same for the same pixels."""
        return self.known_digests or [digest(image.tobytes()) for image in self.images]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of all images and labels, and of which image is in which part."""
        # reading all pictures at each start would take too long: their digests stand for them
        known = "".join(self.known_digests).encode() if self.known_digests else np.ascontiguousarray(self.images)
        found = hashlib.sha256(known)
        for numbers in (self.labels, *self.parts.values()):
            found.update(np.ascontiguousarray(numbers))
        return found.hexdigest()

    def leaked(self) -> npt.NDArray[np.bool_]:
        """Which images of the training part, [n], are also in the validation or the test part."""
        groups = group_same(self.digests)
        held_out = np.concatenate([groups[indices] for part, indices in self.parts.items() if part != "train"])
        return np.isin(groups[self.parts["train"]], held_out)


def load(config: DictConfig, untrusted: bool = False) -> Dataset:
    """The data set that `config`, a Data, names, split as it says; with folds, the parts are those of its fold.

    An untrusted config, of a folder that may be a stranger's, downloads nothing but what this project names itself,
    and writes nothing into a place that the folder names. A user who names a place gets no sample of the data.
    """
    source, root = config.source, data_folder(config.root)
    if untrusted:
        source = _without_addresses(source, config.root in (None, os.environ.get("LAB_DATA")))
    given = {"sample": False} if config.root and "sample" in source else {}
    if untrusted and "cache" in source:
        given["fills_cache"] = False
    arrays = instantiate("data.source", source, Arrays, root=root, **given)
    if arrays.classes and config.classes:
        raise UserError(f"data.classes={config.classes}: data={config.name} names its classes itself")
    parts, folds = _split_as_told(arrays, config), []
    if config.folds:
        folds = make_folds(parts, arrays.labels, config.folds, config.fold_seed, config.stratify_folds, arrays.groups)
        parts = dict(folds[config.fold])
    name = config.name + ("_sample" if arrays.is_sample else "")
    arrays.classes = arrays.classes or _name_classes(arrays.labels, config)
    dataset = Dataset(**vars(arrays), name=name, parts=parts, folds=folds)
    if config.corrections:
        _correct(dataset, config)
    if len(found := np.unique(dataset.labels[parts["train"]])) == 1:
        only = dataset.classes[found[0]]
        raise UserError(f"data={config.name}: all images to train on are of one class, '{only}'")
    if config.drop_duplicates:
        parts["train"] = parts["train"][~dataset.leaked()]
        if not len(parts["train"]):
            raise UserError("data.drop_duplicates=true: no images are left to train on")
    return dataset


def _correct(dataset: Dataset, config: DictConfig) -> None:
    """Correct its labels, once it is split: the labels as they were draw the split, so that it stays the same."""
    dataset.labels, dataset.corrected = correct(
        Path(config.corrections).expanduser(),
        config.corrections_sha256,
        dataset.labels,
        dataset.digests,
        dataset.classes,
        dataset.parts["test"],
        config.corrections_test,
    )


def _without_addresses(source: DictConfig, may_fill: bool) -> DictConfig:
    """`source` without addresses to download from, unless conf/data/ has the same and it `may_fill` the folder."""

    def without_sums(node: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in node.items() if key not in ("sample", "md5")}

    ours = [OmegaConf.to_container(OmegaConf.load(path)).get("source", {}) for path in (CONF / "data").glob("*.yaml")]
    if may_fill and without_sums(OmegaConf.to_container(source)) in map(without_sums, ours):
        return source
    empty = {key: nothing for key, nothing in (("mirrors", []), ("url", "")) if key in source}
    return OmegaConf.create(OmegaConf.to_container(source) | empty)


def _name_classes(labels: npt.NDArray[np.int64], config: DictConfig) -> list[str]:
    """The names that the user gives, else the numbers. UserError where labels have others."""
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
    """The split that `config` describes. UserError where a part has no images."""
    if not len(arrays.labels):
        raise UserError(f"data={config.name}: it has no images")
    parts = split(arrays, config.validation, config.test, config.split_seed, config.stratify)
    for part, purpose in (("train", "train"), ("test", "test")):
        if not len(parts[part]):
            raise UserError(f"data={config.name}: no images are left to {purpose} on")
    return parts


def split(arrays: Arrays, validation: float | None, test: float | None, seed: int, stratify: bool) -> Parts:
    """The labs' splits: a fraction is cut from the images to train on, None takes the data set's own part.

    The images held out are drawn first and then divided, as lab E does. A test part that the data set has is never
    mixed with the others. `validation=0` trains on all.
    """
    own = arrays.own_parts
    indices = np.arange(len(arrays.labels))
    cuts = np.cumsum([own["train"], own.get("validation", 0)])
    train, own_validation, own_test = np.split(indices, cuts)
    if test is None and arrays.is_sample:
        test = 0.2
    if test is None and "test" not in own:
        test = arrays.lacking
    if validation is None and "validation" not in own:
        validation = arrays.lacking
    if test is not None and "test" in own:
        raise UserError(f"data.test={test}: this data set has its own test part: leave it null")
    if test is None and "test" not in own:
        raise UserError("data.test=null: this data set has no test part of its own: give a fraction")
    if validation is None and "validation" not in own:
        raise UserError("data.validation=null: this data set has no validation part of its own: give a fraction")
    if validation is not None:
        train = np.concatenate([train, own_validation])
    images, asked = len(train), {"validation": validation, "test": test}
    n_validation, n_test = (round(images * (fraction or 0)) for fraction in asked.values())
    held_out, drawing = train[:0], (seed, stratify, arrays.groups)
    if n_validation + n_test:
        train, held_out = _hold_out(train, arrays.labels, n_validation + n_test, *drawing)
    if n_validation and n_test:
        held_out, own_test = _hold_out(held_out, arrays.labels, n_test, *drawing)
    elif n_test:
        held_out, own_test = held_out[:0], held_out
    parts = {"train": train, "validation": own_validation if validation is None else held_out, "test": own_test}
    for part, fraction in asked.items():
        if fraction:
            _check_share(part, fraction, len(parts[part]) / images, arrays.groups is not None)
    return parts


def _check_share(part: str, asked: float, share: float, has_groups: bool) -> None:
    """UserError where a part has no images; a note where groups make its `share` of all another than was `asked`."""
    if not share:
        raise UserError(f"data.{part}={asked:g} gives no image: there are too few, or too few groups of them")
    if has_groups and abs(share - asked) > asked / 2:
        print_notes([f"data.{part}={asked:g} gives {share:.0%} of the images: a group of them is not divided"])


def make_folds(
    parts: Parts, labels: npt.NDArray, folds: int, seed: int, stratify: bool, groups: npt.NDArray | None = None
) -> list[Parts]:
    """The parts of each fold: the fold for validation, the other folds to train on, the test part that no fold has.

    The images lie in the data set's own order, so that on MNIST the folds are lab A's: KFold(5, shuffle, 1). Images of
    one of the `groups` [n] are in one fold.
    """
    images = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    together, alone = _separate_groups(images, groups)
    held_out = [together[:0]] * folds
    try:
        if len(alone) or not len(together):
            splitter = (StratifiedKFold if stratify else KFold)(folds, shuffle=True, random_state=seed)
            held_out = [alone[fold] for _, fold in splitter.split(alone, labels[alone])]
        if len(together):
            grouped = _group_folds(together, labels, groups, folds, seed, stratify)
            held_out = [np.sort(np.concatenate(pair)) for pair in zip(held_out, grouped, strict=True)]
    except ValueError as error:
        raise UserError(f"data.folds={folds}: {error}") from None
    if not all(map(len, held_out)):
        raise UserError(f"data.folds={folds}: more than the groups of images allow, for a group is in one fold")
    return [{"train": images[~np.isin(images, fold)], "validation": fold, "test": parts["test"]} for fold in held_out]


def _hold_out(
    indices: npt.NDArray,
    labels: npt.NDArray,
    held_out: int,
    seed: int,
    stratify: bool,
    groups: npt.NDArray | None,
) -> list[npt.NDArray]:
    """`indices` as those to keep and those held out: `held_out` of them, or nearly so where groups stay together."""
    together, alone = _separate_groups(indices, groups)
    drawn = kept = together[:0]
    if len(together):
        most = min(MOST_FOLDS, len(np.unique(groups[together])))
        share = Fraction(held_out / len(indices)).limit_denominator(most) or Fraction(1, most)
        folds = _group_folds(together, labels, groups, share.denominator, seed, stratify)
        drawn, kept = (np.concatenate(some or [kept]) for some in (folds[: share.numerator], folds[share.numerator :]))
    left = min(max(held_out - len(drawn), 0), len(alone))
    if 0 < left < len(alone) or not len(together):
        try:
            keep, draw = train_test_split(
                alone, test_size=left, random_state=seed, stratify=labels[alone] if stratify else None
            )
        except ValueError as error:
            remedy = "; data.stratify=false draws from all classes together" if stratify else ""
            told = f"{len(indices)} images cannot be split with {held_out} held out: {error}{remedy}"
            raise UserError(told) from None
    else:
        keep, draw = (alone[left:], alone[:left])
    return [np.concatenate([kept, keep]), np.concatenate([drawn, draw])] if len(together) else [keep, draw]


def _separate_groups(indices: npt.NDArray, groups: npt.NDArray | None) -> tuple[npt.NDArray, npt.NDArray]:
    """The `indices` of images in a group of several, and those of images that stand alone."""
    if groups is None:
        return indices[:0], indices
    _, number, counts = np.unique(groups[indices], return_inverse=True, return_counts=True)
    shared = counts[number] > 1
    return indices[shared], indices[~shared]


def _group_folds(
    indices: npt.NDArray, labels: npt.NDArray, groups: npt.NDArray, folds: int, seed: int, stratify: bool
) -> list[npt.NDArray]:
    """`indices` in so many folds, each group in one of them; the last folds are empty where there are fewer groups."""
    several = min(folds, len(np.unique(groups[indices])))
    empty = [indices[:0]] * (folds - several)
    if several < 2:
        return [indices, *empty]
    known = labels[indices]
    if not stratify or np.bincount(known).max() < several:
        known = np.zeros_like(known)
    splitter = StratifiedGroupKFold(several, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer images than folds
        return [indices[fold] for _, fold in splitter.split(indices, known, groups[indices])] + empty


def print_counts(dataset: Dataset, name: str) -> None:
    """Print how many images of each class each part has."""
    shape = "x".join(map(str, dataset.shape))
    print_classes(f"{name}: {len(dataset.labels):,} images of {shape}", dataset.counts(), dataset.classes)


def first_of_each_class(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Indices of training images, as they fit on a page: of up to 5 classes a row of five each, else columns.

    Of up to 10 classes a column has three images, of more one.
    """
    training = np.sort(dataset.parts["train"])
    of_class = [training[dataset.labels[training] == label] for label in range(len(dataset.classes))]
    of_class = [numbers for numbers in of_class if len(numbers)][:MOST_SHOWN]
    most = 5 if len(of_class) <= 5 else 3 if len(of_class) <= 10 else 1
    each = min([most, *map(len, of_class)])
    chosen = np.stack([numbers[:each] for numbers in of_class])
    return chosen if most == 5 else chosen.T


def group_same(digests: list[str]) -> npt.NDArray[np.int64]:
    """A number [n] for each image, the same for the same pixels, as its digest tells."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(each, len(known)) for each in digests], np.int64)
