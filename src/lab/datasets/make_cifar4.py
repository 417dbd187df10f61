"""Makes CIFAR4, four classes of CIFAR-10, from CIFAR-10's binary version."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.datasets.readers import fetch
from lab.download import OfflineError
from lab.errors import UserError
from lab.files import MOST_BYTES, atomic_write, open_plain

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FILES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
CLASSES = {2: "bird", 3: "cat", 6: "frog", 7: "horse"}  # CIFAR-10's number: CIFAR4's name
RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def make_cifar4(cifar10: Path | None, root: Path) -> None:
    """Write the images uint8 [n, 32, 32, 3] and labels uint8 [n] of the four classes, class by class, train then test.

    `cifar10` is cifar-10-binary.tar.gz or the folder of its .bin files; None downloads it.
    """
    try:
        cifar10 = cifar10 or fetch(root, [URL], root / "cifar-10-binary.tar.gz", f"md5:{MD5}")
    except OfflineError as error:
        raise UserError(f"CIFAR-10 cannot be downloaded ({error}): get {URL} and give --cifar10 FILE") from None
    records = np.concatenate([_records(cifar10, name, content) for name, content in _contents(cifar10)])
    chosen = np.concatenate([np.flatnonzero(records[:, 0] == number) for number in CLASSES])
    images = records[chosen, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.searchsorted(list(CLASSES), records[chosen, 0]).astype(np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    for name, array in (("CIFAR4_X.npy", np.ascontiguousarray(images)), ("CIFAR4_Y.npy", labels)):
        with atomic_write(root / name) as path, path.open("wb") as file:
            np.save(file, array)
        print(f"{root / name}: {array.dtype} {list(array.shape)}")
    print(", ".join(f"{name} {(labels == label).sum():,}" for label, name in enumerate(CLASSES.values())))


def _contents(cifar10: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each of FILES. UserError where one is missing."""
    try:
        if cifar10.is_dir():
            for name in FILES:
                with open_plain(cifar10 / name) as file:
                    yield name, file.read(MOST_BYTES)
        else:
            with open_plain(cifar10) as file, tarfile.open(fileobj=file) as archive:
                for name in FILES:
                    yield name, archive.extractfile(f"cifar-10-batches-bin/{name}").read(MOST_BYTES)
    except (OSError, EOFError, tarfile.TarError, zlib.error, KeyError, AttributeError) as error:
        raise UserError(f"{cifar10}: cannot be read ({error}): give CIFAR-10's binary version, {URL}") from None


def _records(cifar10: Path, name: str, content: bytes) -> npt.NDArray[np.uint8]:
    """The images of a file with their labels, [n, RECORD]."""
    if not content or len(content) % RECORD:
        raise UserError(f"{cifar10}: {name} is truncated, {len(content)} bytes are no multiple of {RECORD}")
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)
