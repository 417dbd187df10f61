"""Labels that a person has corrected: a table of images, by their pixels, and the classes that they are of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.errors import UserError, printable
from lab.files import parse_table, read_bytes


@dataclass
class Corrected:
    """How many labels a table has changed."""

    sha256: str  # of the table
    labels: int  # changed in all parts
    test: int  # changed in the test part
    test_left: int  # in the test part, that the table would change and that were left

    def __str__(self) -> str:
        word = "label" if self.labels == 1 else "labels"
        told = f"{self.labels:,} {word} corrected"
        if self.test:
            told += f", {self.test:,} of them in the test part: its scores are of other labels than without corrections"
        if self.test_left:
            told += f"; {self.test_left:,} of the test part are left as they are (data.corrections_test=true)"
        return told


def correct(
    path: Path,
    sha256: str | None,
    labels: npt.NDArray[np.int64],
    digests: Sequence[str],
    classes: Sequence[str],
    test: npt.NDArray[np.int64],
    corrects_test: bool,
) -> tuple[npt.NDArray[np.int64], Corrected]:
    """`labels` [n] with the classes that the table at `path` gives images of these `digests` [n], and how many changed.

    Images with the same pixels are corrected together; those at the indices `test` are left unless it `corrects_test`.
    UserError where the table is none, has changed since its `sha256` was taken, or names what is not there.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file: data.corrections names what check_labels.py's page saves"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 and sha256 != found:
        raise UserError(f"{path}: has changed since this run was told of it: give it its old content, or train anew")
    wanted, there = _parse(path, content, classes), set(digests)
    if gone := [(line, name) for name, (_, line) in wanted.items() if name not in there]:
        line, name = gone[0]
        more = f" ({len(gone) - 1} more are not)" if len(gone) > 1 else ""
        raise UserError(f"{path}, line {line}: image {name} is not in this data{more}: other images, or another size?")
    new = np.array([wanted[each][0] if each in wanted else label for each, label in zip(digests, labels, strict=True)])
    is_test = np.isin(np.arange(len(labels)), test)
    left = 0 if corrects_test else int((new != labels)[is_test].sum())
    if not corrects_test:
        new[is_test] = labels[is_test]
    changed = new != labels
    return new.astype(np.int64), Corrected(found, int(changed.sum()), int(changed[is_test].sum()), left)


def _parse(path: Path, content: bytes, classes: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The table by fingerprint: the class's number, and the line that says so."""
    numbers, wanted = {name: number for number, name in enumerate(classes)}, {}
    otherwise = "not a table of corrections: its first line must name fingerprint,class"
    for line, row in parse_table(content, path, {"fingerprint", "class"}, otherwise):
        name, label = row["fingerprint"].strip(), row["class"]
        label = label if label in numbers else label.removeprefix("'")  # see files.write_csv
        if not name or label not in numbers:
            known = ", ".join(classes[:10])
            raise UserError(f"{path}, line {line}: '{printable(label)}' is no class; classes are {known}")
        if wanted.setdefault(name, (numbers[label], line))[0] != numbers[label]:
            before = wanted[name][1]
            raise UserError(f"{path}, line {line}: image {printable(name)} has another class in line {before}")
    return wanted
