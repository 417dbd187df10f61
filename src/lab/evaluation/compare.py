"""Runs, or cross-validations, side by side: which of them differ by more than chance?"""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.display.figures import box_plot, intervals
from lab.display.terminal import print_table
from lab.errors import UserError, printable
from lab.evaluation.significance import Estimate, accuracy_interval, corrected_interval, corrected_t, holm, mcnemar
from lab.files import write_csv, write_json
from lab.runs.folder import read_result
from lab.runs.predictions import load_predictions


@dataclass
class Contestant:
    """A run on its test images, or a cross-validation on its folds."""

    name: str
    folder: Path
    seed: int
    data: str
    part: str  # what it was scored on
    parameters: int
    seconds: float
    images: int
    loss: float
    accuracy: float
    low: float  # of the accuracy's 95 % interval
    high: float
    sha256: list[str]  # of the images, for each fold
    scores: npt.NDArray  # right or wrong of each image [n], or the accuracy of each fold [k]
    n_folds: int  # 0 for a run


@dataclass
class Difference:
    """By how much the accuracy of `better` exceeds that of `worse`; `corrected_p` counts all pairs compared."""

    better: Contestant
    worse: Contestant
    estimate: Estimate
    corrected_p: float = 1.0

    def __str__(self) -> str:
        points, low, high = (f"{100 * x:.2f}" for x in (self.estimate.value, self.estimate.low, self.estimate.high))
        told = f"by {points} points, 95 % interval {low} to {high}"
        p = _p(self.estimate.p)
        if self.corrected_p < 0.05:
            return f"{self.better.name} beats {self.worse.name} {told} ({p})"
        if self.estimate.p < 0.05:
            p += f", but {_p(self.corrected_p)} among so many pairs"
        apart = f"{self.better.name} and {self.worse.name} cannot be told apart with this data"
        return f"{apart}: they differ {told} ({p})"


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Print the table and a sentence a pair; leave comparison.csv, .json and .png in `out`."""
    if len(folders) < 2:
        raise UserError("give two runs or more")
    contestants = read(folders)
    pairs = compare(contestants)
    out.mkdir(parents=True, exist_ok=True)
    _draw(contestants, out / "comparison.png")
    _write(contestants, pairs, out)
    _print(contestants)
    print(*pairs, sep="\n")
    if n_folds := contestants[0].n_folds:
        print(f"Tested on the same {n_folds} folds: Nadeau and Bengio's corrected t.")
    else:
        print("Tested on the same images: McNemar. It tells these trained networks apart; for recipes compare folds.")
    print(f"Table and chart: {out}")


def read(folders: Sequence[Path]) -> list[Contestant]:
    """What lies in `folders`, with a name each of its own; refused where not of the same images."""
    contestants = [_read_run(folder) for folder in folders]
    first = contestants[0]
    for other in contestants[1:]:
        if first.n_folds != other.n_folds:
            kinds = [f"{c.n_folds} folds" if c.n_folds else "a single run" for c in (first, other)]
            raise UserError(f"{first.folder} is {kinds[0]} and {other.folder} is {kinds[1]}: compare like with like")
        if first.sha256 != other.sha256:
            raise UserError(
                f"{first.folder} and {other.folder} were scored on different images ({first.images:,} of {first.data}, "
                f"{other.images:,} of {other.data}): nothing follows from comparing them"
            )
    places = [printable(one.folder.resolve().name) for one in contestants]
    ways = (
        [one.name for one in contestants],
        [f"{one.name}, seed {one.seed}" for one in contestants],
        places,
        [f"{place} ({number})" for number, place in enumerate(places, 1)],
    )
    names = next(names for names in ways if len(set(names)) == len(names))  # whatever tells them apart
    return [dataclasses.replace(one, name=name) for one, name in zip(contestants, names, strict=True)]


def compare(contestants: Sequence[Contestant]) -> list[Difference]:
    """Every pair, tested on the same images or folds."""
    pairs = []
    for pair in itertools.combinations(contestants, 2):
        better, worse = sorted(pair, key=lambda contestant: -contestant.accuracy)
        if k := better.n_folds:
            estimate = corrected_t(better.scores - worse.scores, 1 / (k - 1))
        else:
            estimate = mcnemar(better.scores, worse.scores)
        pairs.append(Difference(better, worse, estimate))
    for pair, p in zip(pairs, holm([pair.estimate.p for pair in pairs]), strict=True):
        pair.corrected_p = p
    return pairs


def _read_run(folder: Path) -> Contestant:
    result = read_result(folder)
    n_folds = len(result.get("folds", []))
    predictions = [load_predictions(folder / f"fold_{k}") for k in range(n_folds)] or [load_predictions(folder)]
    correct = [part.correct() for part in predictions]
    images = sum(map(len, correct))
    if n_folds:
        scores = np.array([part.mean() for part in correct])
        accuracy, low, high = corrected_interval(scores, 1 / (n_folds - 1))
    else:
        scores = correct[0]
        accuracy, (low, high) = float(scores.mean()), accuracy_interval(int(scores.sum()), images)
    return Contestant(
        name=result["model"],
        folder=folder,
        seed=result["seed"],
        data=result["data"]["name"],
        part="held out" if "held_out" in result else "test",
        parameters=result["parameters"]["total"],
        seconds=result["seconds"],
        images=images,
        loss=sum(part.loss() * len(part.labels) for part in predictions) / images,
        accuracy=accuracy,
        low=low,
        high=high,
        sha256=[str(part.sha256) for part in predictions],
        scores=scores,
        n_folds=n_folds,
    )


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _draw(contestants: Sequence[Contestant], path: Path) -> None:
    best = max(contestants, key=lambda one: one.accuracy)
    title = f"{best.data}: {best.name} is first with {best.accuracy:.2%}"
    if best.n_folds:
        scores = {one.name: [100 * score for score in one.scores] for one in contestants}
        box_plot(scores, "accuracy on the held-out fold (%)", title, path)
    else:
        points = {one.name: (100 * one.accuracy, 100 * one.low, 100 * one.high) for one in contestants}
        intervals(points, f"{best.part} accuracy (%), 95 % interval", title, path)


def _write(contestants: Sequence[Contestant], pairs: Sequence[Difference], out: Path) -> None:
    keys = ("name", "parameters", "seconds", "images", "loss", "accuracy", "low", "high")
    rows = [{key: getattr(one, key) for key in keys} | {"folder": str(one.folder)} for one in contestants]
    sentences = [
        {"better": pair.better.name, "worse": pair.worse.name}
        | dataclasses.asdict(pair.estimate)
        | {"corrected_p": pair.corrected_p, "sentence": str(pair)}
        for pair in pairs
    ]
    write_csv(rows, out / "comparison.csv")
    write_json({"runs": rows, "pairs": sentences}, out / "comparison.json")


def _print(contestants: Sequence[Contestant]) -> None:
    """What each cost and what it scored."""
    part = contestants[0].part
    columns = ["run", "parameters", "training time", f"{part} loss", f"{part} accuracy", "95 % interval"]
    rows = []
    for one in contestants:
        scores = f"{one.loss:.4f}", f"{one.accuracy:.2%}", f"{one.low:.2%} to {one.high:.2%}"
        rows.append([one.name, f"{one.parameters:,}", f"{one.seconds:,.0f} s", *scores])
    print_table(contestants[0].data, columns, rows)
