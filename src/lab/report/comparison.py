"""The page of a comparison."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.config.checks import check_plain
from lab.config.schema import CrossValidate, Train
from lab.datasets.dataset import Dataset
from lab.display.figures import box_plot, intervals
from lab.display.language import number, say
from lab.display.page import Sheet, Table, draw
from lab.errors import UserError, printable
from lab.evaluation.compare import MOST_PAIRS, tell_difference
from lab.evaluation.images import load_answered
from lab.evaluation.significance import Estimate
from lab.files import read_text
from lab.report.answers import LETTERS, Shown
from lab.runs.folder import DAMAGE, read_config
from lab.runs.predictions import Predictions, join, load_predictions

MOST_IMAGES = 40  # of each side on which two differ
NEEDED = {"name", "folder", "parameters", "seconds", "loss", "accuracy", "low", "high", "images"}


def describe(folder: Path, root: Path | None) -> tuple[dict[str, Any], Sheet | None]:
    """What comparison.html says of the tables in `folder`: each pair, and the images on which the first two differ."""
    groups, sheet = [], None
    for path in sorted(folder.glob("comparison*.json")):
        content = _read(path)
        group, sheet = _describe_group(content, folder, root, sheet)
        groups.append(group)
    best = groups[0]["runs"][0]
    title = say("{better} is first with {accuracy:.2%}", better=best["name"], accuracy=best["accuracy"])
    return {"title": title, "groups": groups}, sheet


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
        check_plain(content)
        if len(content["runs"]) < 2 or not all(run.keys() >= NEEDED for run in content["runs"]):
            raise ValueError("it lacks runs")
        for pair in content["pairs"]:
            pair["better"], pair["worse"], float(pair["corrected_p"]), pair["sentence"]
            Estimate(*(float(pair[key]) for key in ("value", "low", "high", "p")))
    except (*DAMAGE, UserError) as error:
        raise UserError(f"{path}: not a comparison of this version ({error!r})") from None
    return content


def _describe_group(
    content: Mapping[str, Any], folder: Path, root: Path | None, sheet: Sheet | None
) -> tuple[dict[str, Any], Sheet | None]:
    runs, pairs = content["runs"], content["pairs"]
    told = pairs if len(pairs) <= MOST_PAIRS else pairs[: len(runs) - 1]
    answers = {run["name"]: _Compared(run, folder) for run in runs}
    first, second = (answers[run["name"]] for run in runs[:2])
    dataset = first.load_data(root)
    sheet = sheet or Sheet(dataset.images.shape[1:])
    shown = sheet.shape == dataset.images.shape[1:]  # of another data set there is no room in it
    rows = [
        [
            run["name"],
            number(run["parameters"]),
            say("{seconds:,.0f} s", seconds=run["seconds"]),
            number(run["loss"], ".4f"),
            number(run["accuracy"], ".2%"),
            say("{low:.2%} to {high:.2%}", low=run["low"], high=run["high"]),
        ]
        for run in runs
    ]
    columns = [say("run"), say("parameters"), say("training time"), say("loss"), say("accuracy"), say("95 % interval")]
    by_name = itertools.islice(((pair, answers[pair["better"]], answers[pair["worse"]]) for pair in told), MOST_PAIRS)
    return {
        "runs": runs,
        "data": dataset.name,
        "folds": first.folds,
        "sentences": [_sentence(pair, len(pairs)) for pair in told],
        "table": Table(columns, rows),
        "picture": _draw(runs, answers),
        "mcnemar": [_mcnemar(better, worse) for _, better, worse in by_name],
        "differing": [_differing(*two, dataset, sheet) for two in ((first, second), (second, first))] if shown else [],
    }, sheet


class _Compared:
    """One of the compared: of each image whether it was right."""

    def __init__(self, run: Mapping[str, Any], comparison: Path) -> None:
        """The folder of `run` lies where it lay, as seen from here or from around its `comparison`, or beside that."""
        told = Path(run["folder"])
        around = [Path(), *comparison.absolute().parents]
        places = [place / told for place in around] + [comparison.absolute().parent / told.name]
        self.name, self.folder = run["name"], next(filter(Path.is_dir, places), None)
        if self.folder is None:
            raise UserError(f"{told}: the compared run is gone: the page shows its images. Compare anew what there is")
        self.folds = len(list(self.folder.glob("fold_*/predictions.npz")))
        places = [self.folder / f"fold_{number}" for number in range(self.folds)] or [self.folder]
        self.parts = [(place, load_predictions(place)) for place in places]
        self.predictions: Predictions = join([part for _, part in self.parts])
        self.right = self.predictions.correct()

    def load_data(self, root: Path | None) -> Dataset:
        config = read_config(self.folder, CrossValidate if self.folds else Train, builds=False)
        return load_answered(config, root, self.parts)


def _sentence(pair: Mapping[str, Any], pairs: int) -> str:
    estimate = Estimate(*(float(pair[key]) for key in ("value", "low", "high", "p")))
    is_one = bool(pair.get("one_recipe", " two seeds of one recipe" in pair["sentence"]))
    return tell_difference((pair["better"], pair["worse"]), estimate, float(pair["corrected_p"]), pairs, is_one)


def _draw(runs: list[dict[str, Any]], answers: Mapping[str, "_Compared"]) -> str:
    if answers[runs[0]["name"]].folds:
        scores = {name: [100 * float(part.correct().mean()) for _, part in one.parts] for name, one in answers.items()}
        return draw(box_plot, scores, say("accuracy on the held-out fold (%)"))
    points = {run["name"]: tuple(100 * run[key] for key in ("accuracy", "low", "high")) for run in runs}
    return draw(intervals, points, say("accuracy (%), 95 % interval"))


def _mcnemar(better: _Compared, worse: _Compared) -> dict[str, Any]:
    """Of the same images how many both read rightly, one alone, none."""
    if not np.array_equal(better.predictions.indices, worse.predictions.indices):
        raise UserError(f"{better.folder} and {worse.folder} are of other images than when they were compared")
    counts = [[better.right & worse.right, better.right & ~worse.right]]
    counts.append([~better.right & worse.right, ~better.right & ~worse.right])
    rows = [[number(int(cell.sum())) for cell in row] for row in counts]
    told = {"better": better.name, "worse": worse.name}
    columns = ["", say("{worse} right", **told), say("{worse} wrong", **told)]
    heads = say("{better} right", **told), say("{better} wrong", **told)
    title = say("{better} and {worse}, image by image", **told)
    return {"title": title, "table": Table(columns, [[head, *row] for head, row in zip(heads, rows, strict=True)])}


def _differing(right: _Compared, wrong: _Compared, dataset: Dataset, sheet: Sheet) -> dict[str, Any]:
    """The images that `right` alone reads rightly, those first of which `wrong` is surest."""
    rows = np.flatnonzero(right.right & ~wrong.right)
    shares = wrong.predictions.probabilities()
    rows = rows[np.argsort(-shares[rows].max(1), kind="stable")]
    names, images = right.predictions.classes, []
    for row in rows[:MOST_IMAGES].tolist():
        image = int(right.predictions.indices[row])
        name = printable(dataset.files[image]) if dataset.files else say("no. {row}", row=row)
        told = {"label": str(names[right.predictions.labels[row]]), "read_as": str(names[shares[row].argmax()])}
        lines = [say("{label} read as {read_as}", **told), name[-LETTERS:]]
        alt = say("{name}: {label}, which {wrong} reads as {read_as}", name=name, wrong=wrong.name, **told)
        images.append(Shown(sheet.add(dataset.images[image]), lines, alt))
    title = say("{right} right, {wrong} wrong: {images:,} images", right=right.name, wrong=wrong.name, images=len(rows))
    return {"title": title, "images": images, "total": len(rows)}
