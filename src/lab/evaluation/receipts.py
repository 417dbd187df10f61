"""Receipts of predict.py side by side: which file, on which device, is the fastest that is not worse?"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.display.terminal import print_table
from lab.errors import UserError, printable
from lab.evaluation.significance import Estimate, accuracy_interval, mcnemar
from lab.files import read_text
from lab.runs.folder import DAMAGE

FORMAT = 1  # the newest that this reads
CLOSE = 1.15  # times as slow: measurements of one file are as far apart, see docs/device.md


@dataclass
class Accuracy:
    """Of pictures whose classes are known."""

    right: npt.NDArray[np.bool_]  # of each picture [n], sorted by class and content
    pictures: str  # their digest
    value: float
    low: float  # of the 95 % interval
    high: float


@dataclass
class Receipt:
    """What predict.py found a file to do on a device."""

    name: str
    path: Path
    classes: list[str]
    told: dict[str, str]  # for the table: the file, its precision, the runtime and the device
    passed: bool  # its self-test
    milliseconds: dict[str, float]  # of a call with one picture: median, p95, p99
    batch: int  # the largest that was timed
    images_per_second: float  # in it
    memory: float | None  # MB, of the process at most
    accuracy: Accuracy | None


def compare_receipts(paths: Sequence[Path]) -> None:
    """Print a table and which wins; a file that is no receipt, or one of other classes, is left out in a line."""
    receipts, left_out = [], []
    for path in paths:
        try:
            receipts.append(_read(path))
            if receipts[0].classes != receipts[-1].classes:
                receipts.pop()
                raise UserError(f"{path}: its classes are not those of {receipts[0].path}: nothing follows from both")
        except UserError as error:
            left_out.append(error)
    if not receipts:
        raise left_out[0]
    for error in left_out:
        print(f"left out: {error}")
    counts = Counter(one.name for one in receipts)
    for one in receipts:
        one.name = one.name if counts[one.name] == 1 else printable(str(one.path))
    _print(sorted(receipts, key=_latency))
    print(choose(receipts))


def choose(receipts: Sequence[Receipt]) -> str:
    """The sentence that names the winner: of those that passed their self-test the fastest at batch 1, unless worse.

    Worse is what McNemar's test tells from the most accurate on the same pictures, beyond the margin that matters; on
    other pictures, whose interval lies below. Where one has no accuracy, speed alone is compared.
    """
    running = sorted((one for one in receipts if one.passed), key=_latency)
    failed = ", ".join(one.name for one in receipts if not one.passed)
    end = f" Failed the self-test, and cannot win: {failed}." if failed else ""
    if not running:
        return f"None wins.{end}"
    if silent := [one.name for one in running if one.accuracy is None]:
        first = running[0]
        have = "has" if len(silent) == 1 else "have"
        told = f"{first.name} is the fastest, {_speed(first)}. Only speed is compared: {', '.join(silent)} {have} no"
        return f"{told} accuracy.{_close(running)}{end}"
    best = max(running, key=lambda one: one.accuracy.value)
    faster = running[: next(place for place, one in enumerate(running) if not _is_worse(one, best))]
    winner = running[len(faster)]
    told = f"{winner.name} wins, the fastest that is not worse: {_speed(winner)}"
    told += f"; {_beside(winner, best)}." if winner is not best else ", and none is more accurate."
    told += _close([one for one in running[len(faster) :] if not _is_worse(one, best)])
    return told + "".join(f" {one.name} is faster, but worse: {_beside(one, best)}." for one in faster) + end


def _latency(one: Receipt) -> float:
    return one.milliseconds["median"]


def _speed(one: Receipt) -> str:
    return f"{_latency(one):.3g} ms for a picture"


def _close(running: Sequence[Receipt]) -> str:
    """Those that may be as fast as the first."""
    first, *others = running
    names = [one.name for one in others if _latency(one) < CLOSE * _latency(first)]
    return f" One measurement each does not tell its speed from that of {', '.join(names)}." if names else ""


def _difference(one: Receipt, best: Receipt) -> Estimate | None:
    """None where they were not scored on the same pictures."""
    if one.accuracy.pictures != best.accuracy.pictures:
        return None
    return mcnemar(one.accuracy.right, best.accuracy.right)


def _is_worse(one: Receipt, best: Receipt) -> bool:
    difference = _difference(one, best)
    return one.accuracy.high < best.accuracy.low if difference is None else difference.is_worse


def _beside(one: Receipt, best: Receipt) -> str:
    """How fast and how accurate `one` is beside the most accurate."""
    told = f"{_latency(best) / _latency(one):.2g} x as fast as {best.name}, the most accurate, "
    if (difference := _difference(one, best)) is None:
        overlap = "lies below" if _is_worse(one, best) else "reaches"
        return told + f"whose pictures were others, and its interval {overlap} the other's"
    points, low, high = difference.points()
    count = len(one.accuracy.right)
    return told + f"{points:+.2f} points ({low:+.2f} to {high:+.2f}) on the same {count:,} pictures"


def _read(path: Path) -> Receipt:
    """UserError, a line, where it is none, or damaged."""
    try:
        content = json.loads(read_text(path))
        if content["receipt"] > FORMAT:
            raise UserError(f"{path}: has format {content['receipt']}, this compare.py reads {FORMAT}")
        return _parse(content, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except DAMAGE as error:
        raise UserError(f"{path}: not a receipt of predict.py, or damaged ({error!r:.80})") from None


def _parse(content: dict[str, Any], path: Path) -> Receipt:
    device, speed, memory = content["device"], content["speed"], content["memory_mb"]
    words = {"file": content["file"], "precision": content["precision"], "runtime": content["runtime"]}
    words["device"] = device["board"] or device["processor"] or device["machine"]
    batch = max(speed, key=int)
    receipt = Receipt(
        printable(path.stem),
        path,
        content["classes"],
        {key: printable(word) for key, word in words.items()},
        content["selftest"]["passed"] is True,
        {key: _positive(speed["1"][f"{key}_ms"]) for key in ("median", "p95", "p99")},
        int(batch),
        _positive(speed[batch]["images_per_second"]),
        None if memory is None else _positive(memory),
        _parse_accuracy(content["accuracy"]) if content["accuracy"] else None,
    )
    if not all(isinstance(name, str) for name in receipt.classes):
        raise TypeError("classes")
    return receipt


def _parse_accuracy(content: dict[str, Any]) -> Accuracy:
    """Counted anew: the receipt's own figures may have been edited."""
    if not set(content["right"]) <= {"0", "1"} or not content["right"]:
        raise ValueError("right")
    right = np.array([digit == "1" for digit in content["right"]])
    return Accuracy(
        right,
        f"{len(right)} {content['pictures']}",
        float(right.mean()),
        *accuracy_interval(int(right.sum()), len(right)),
    )


def _positive(value: Any) -> float:
    if not 0 < float(value) < float("inf"):
        raise ValueError(value)
    return float(value)


def _print(receipts: Sequence[Receipt]) -> None:
    columns = ["receipt", "file", "precision", "runtime", "device", "self-test", "ms", "95 %", "99 %"]
    columns += ["images/s", "MB", "accuracy", "95 % interval"]
    rows = []
    for one in receipts:
        row = [one.name, *one.told.values(), "pass" if one.passed else "FAILED"]
        row += [f"{value:.3g}" for value in one.milliseconds.values()]
        row += [f"{one.images_per_second:,.0f} at {one.batch}", f"{one.memory:,.0f}" if one.memory else "-"]
        shown = one.accuracy
        row += [f"{shown.value:.2%}", f"{shown.low:.2%} to {shown.high:.2%}"] if shown else ["-", "-"]
        rows.append(row)
    spare = ["file", "95 %", "MB", "precision", "device", "runtime", "99 %", "95 % interval", "images/s"]
    print_table("Receipts, ms of a call with one picture: median, 95 % and 99 % below", columns, rows, spare=spare)
