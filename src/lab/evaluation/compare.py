"""Runs, or cross-validations, side by side: which of them differ by more than chance?"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from lab.config.overrides import flatten
from lab.config.schema import UNDECIDING, CrossValidate, Train
from lab.datasets.pitfalls import largest_class
from lab.display.figures import box_plot, intervals
from lab.display.labels import short
from lab.display.language import say
from lab.display.terminal import print_notes, print_table
from lab.errors import UserError, printable
from lab.evaluation.significance import (
    Estimate,
    accuracy_interval,
    corrected_accuracy_interval,
    corrected_t,
    holm,
    holm_levels,
    mcnemar,
)
from lab.files import write_csv, write_json
from lab.runs.folder import read_config, read_result
from lab.runs.predictions import load_predictions

MOST_PAIRS = 6  # that get a sentence each; of more pairs those of the first with each other
MOST_SENTENCES = 20
MOST_SETTINGS = 4  # in a name
# keys that make no other recipe
NO_RECIPE = ("seed", "threads", "workers", "resume", "tune", "histograms", "stop_below", *UNDECIDING)


@dataclass
class Contestant:
    """What is compared: a run on its test images, or a cross-validation on its folds."""

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
    baseline: str  # what always answering the largest class scores, where it matters
    settings: dict[str, Any]  # its recipe: the configuration without the seed


@dataclass
class Difference:
    """By how much the accuracy of `better` exceeds that of `worse`; interval and `corrected_p` count all `pairs`."""

    better: Contestant
    worse: Contestant
    estimate: Estimate
    corrected_p: float = 1.0
    pairs: int = 1

    def is_of_one_recipe(self) -> bool:
        """Whether the two differ in their seeds alone."""
        better, worse = self.better, self.worse
        return bool(better.settings) and better.settings == worse.settings and better.seed != worse.seed

    def __str__(self) -> str:
        names = self.better.name, self.worse.name
        return tell_difference(names, self.estimate, self.corrected_p, self.pairs, self.is_of_one_recipe())


def tell_difference(
    names: tuple[str, str], estimate: Estimate, corrected_p: float, pairs: int, is_of_one_recipe: bool
) -> str:
    """A sentence on the two of `names`, the better one first; see Difference."""
    p = say("p < {p:.4f}", p=1e-4) if corrected_p < 1e-4 else say("p = {p:.2g}", p=corrected_p)
    told = {"better": names[0], "worse": names[1], "p": p, "pairs": pairs}
    told |= dict(zip(("value", "low", "high"), estimate.points(), strict=True))
    corrected = say(", corrected for {pairs} pairs", **told) if pairs > 1 else ""
    told["by"] = say(
        "by {value:.2f} points, 95 % interval {low:.2f} to {high:.2f} ({p}{corrected})", **told, corrected=corrected
    )
    if is_of_one_recipe:
        return say("{better} and {worse} are two seeds of one recipe: they differ {by}", **told)
    if corrected_p < 0.05:
        return say("{better} beats {worse} {by}", **told)
    return say("{better} and {worse} cannot be told apart with this data: they differ {by}", **told)


def compare_runs(folders: Sequence[Path], out: Path) -> None:
    """Print a leaderboard and a sentence a pair, for each set of images that runs share; leave files and charts.

    A sweep's folder stands for its runs. What is no finished run is left out, and named, as long as two are left.
    """
    groups = _group(_read_all(folders))
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("comparison*"):  # of an earlier comparison, perhaps of more groups
        if re.fullmatch(r"comparison(_\d+)?\.(csv|json|png)", left.name):
            left.unlink()
    for number, contestants in enumerate(groups, 1):
        _compare_group(contestants, out, f"comparison_{number}" if len(groups) > 1 else "comparison")
    print(f"Tables and charts: {out} (a page of them: report.py {out})")


def _compare_group(contestants: Sequence[Contestant], out: Path, name: str) -> None:
    """Compare contestants that were scored on the same images; the files' names begin with `name`."""
    contestants = sorted(_name_apart(contestants), key=lambda one: -one.accuracy)
    if len(contestants) == 1:
        (one,) = contestants
        print(f"{one.name} alone was scored on its {one.images:,} images of {one.data}: {one.accuracy:.2%}")
        return
    pairs = compare(contestants)
    _draw(contestants, out / f"{name}.png")
    _write(contestants, pairs, out, name)
    _print(contestants)
    told = pairs if len(pairs) <= MOST_PAIRS else pairs[: len(contestants) - 1]  # those of the first come first
    print(*told[:MOST_SENTENCES], sep="\n")
    if len(told) < len(pairs) or len(told) > MOST_SENTENCES:
        print(f"All {len(pairs)} pairs: {out}/{name}.json")
    if n_folds := contestants[0].n_folds:
        print(f"Tested on the same {n_folds} folds: Nadeau and Bengio's corrected t.")
    else:
        print("Tested on the same images: McNemar. It tells these trained networks apart; for recipes compare folds.")


def _read_all(folders: Sequence[Path]) -> list[Contestant]:
    """The runs of all folders, those of a sweep's folder too. UserError where fewer than two have finished."""
    contestants, left_out = [], []
    for folder in folders:
        if (folder / "search.json").exists():  # the best of its trials would be the luckiest on the test part
            left_out.append(UserError(f"{folder}: a search: its verdict.json says what it found"))
            continue
        runs = sorted(result.parent for result in folder.glob("*/result.json"))
        is_of_sweep = runs and not (folder / "config.yaml").exists()
        for run in runs if is_of_sweep else [folder]:
            try:
                contestants.append(_read_run(run))
            except UserError as error:
                left_out.append(error)
    if len(contestants) < 2:
        raise left_out[0] if left_out else UserError("give two runs or more")
    for error in left_out:
        print(f"left out: {error}")
    return contestants


def _group(contestants: Sequence[Contestant]) -> list[list[Contestant]]:
    """The contestants by the images or folds that they were scored on. UserError where no two share them."""
    groups: dict[str, list[Contestant]] = {}
    for one in contestants:
        groups.setdefault(repr((one.n_folds, one.sha256)), []).append(one)
    if all(len(group) == 1 for group in groups.values()):
        first, other, *_ = contestants
        if first.n_folds != other.n_folds:
            kinds = [f"{c.n_folds} folds" if c.n_folds else "a single run" for c in (first, other)]
            raise UserError(f"{first.folder} is {kinds[0]} and {other.folder} is {kinds[1]}: compare like with like")
        raise UserError(
            f"{first.folder} and {other.folder} were scored on different images ({first.images:,} of {first.data}, "
            f"{other.images:,} of {other.data}): nothing follows from comparing them"
        )
    return sorted(groups.values(), key=lambda group: -len(group))


def _name_apart(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Give each a name of its own: the network's; where that is not enough, the settings that differ, the seed too.

    Where that is not enough either, the folder's.
    """
    names = [one.name for one in contestants]
    for describe in (_differences, lambda one, others: f", seed {one.seed}"):
        counts, before = Counter(names), names
        names = [
            name + describe(one, [other for other, of in zip(contestants, before, strict=True) if of == name])
            if counts[name] > 1
            else name
            for name, one in zip(before, contestants, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [printable(one.folder.resolve().name) for one in contestants]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    return [dataclasses.replace(one, name=name) for one, name in zip(contestants, names, strict=True)]


def _differences(one: Contestant, others: Sequence[Contestant]) -> str:
    """The settings of `one` that are not those of all `others`, "" where these are too many for a name."""
    keys = sorted({key for other in others for key in other.settings})
    keys = [key for key in keys if len({repr(other.settings.get(key)) for other in others}) > 1]
    shown = [key for key in keys if key in one.settings] if len(keys) <= MOST_SETTINGS else []
    values = {key: str(one.settings[key]) for key in shown}
    told = {key: short(value) if key.endswith("_target_") else value for key, value in values.items()}  # Adam
    return "".join(f" {short(key.removesuffix('._target_'))}={value}" for key, value in told.items())


def compare(contestants: Sequence[Contestant]) -> list[Difference]:
    """The difference of every pair; all were scored on the same images or folds."""

    def estimate(better: Contestant, worse: Contestant, confidence: float) -> Estimate:
        if k := better.n_folds:
            return corrected_t(better.scores - worse.scores, 1 / (k - 1), confidence)
        return mcnemar(better.scores, worse.scores, confidence)

    pairs = [sorted(pair, key=lambda one: -one.accuracy) for pair in itertools.combinations(contestants, 2)]
    p_values = [estimate(*pair, 0.95).p for pair in pairs]
    return [
        Difference(*pair, estimate(*pair, level), p, len(pairs))
        for pair, level, p in zip(pairs, holm_levels(p_values), holm(p_values), strict=True)
    ]


def _read_settings(folder: Path, schema: type[Train]) -> dict[str, Any]:
    """{"model.optimizer.lr": 0.01, ...}, without what is off; empty where the configuration cannot be read."""
    try:
        config = OmegaConf.to_container(read_config(folder, schema, builds=False))
    except UserError:
        return {}
    for key in NO_RECIPE:
        config.pop(key, None)
    model, data = config["model"], config["data"]
    if sha256 := data.pop("corrections_sha256"):
        data["corrections"] = sha256[:8]
    places = (data, "root"), (data, "cache"), (data["source"], "cache"), (model, "name"), (model["net"], "file")
    for place, key in places:
        place.pop(key, None)
    return {key: value for key, value in flatten(config) if not (value is None or value is False or value == {})}


def _read_run(folder: Path) -> Contestant:
    result = read_result(folder)
    n_folds = len(result.get("folds", []))
    predictions = [load_predictions(folder / f"fold_{k}") for k in range(n_folds)] or [load_predictions(folder)]
    correct = [part.correct() for part in predictions]
    images = sum(map(len, correct))
    labels, classes = np.concatenate([part.labels for part in predictions]), predictions[0].classes.tolist()
    if n_folds:
        scores = np.array([part.mean() for part in correct])
        accuracy, low, high = corrected_accuracy_interval(scores, 1 / (n_folds - 1), images)
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
        baseline=largest_class(np.bincount(labels, minlength=len(classes)).tolist(), classes),
        settings=_read_settings(folder, CrossValidate if n_folds else Train),
    )


def _draw(contestants: Sequence[Contestant], path: Path) -> None:
    best = max(contestants, key=lambda one: one.accuracy)
    title = f"{best.data}: {best.name} is first with {best.accuracy:.2%}"
    if best.n_folds:
        scores = {one.name: [100 * score for score in one.scores] for one in contestants}
        box_plot(scores, "accuracy on the held-out fold (%)", title, path)
    else:
        points = {one.name: (100 * one.accuracy, 100 * one.low, 100 * one.high) for one in contestants}
        intervals(points, f"{best.part} accuracy (%), 95 % interval", title, path)


def _write(contestants: Sequence[Contestant], pairs: Sequence[Difference], out: Path, name: str) -> None:
    keys = ("name", "parameters", "seconds", "images", "loss", "accuracy", "low", "high")
    rows = [{key: getattr(one, key) for key in keys} | {"folder": str(one.folder)} for one in contestants]
    sentences = [
        {"better": pair.better.name, "worse": pair.worse.name}
        | dataclasses.asdict(pair.estimate)
        | {"corrected_p": pair.corrected_p, "one_recipe": pair.is_of_one_recipe(), "sentence": str(pair)}
        for pair in pairs
    ]
    write_csv(rows, out / f"{name}.csv")
    write_json({"runs": rows, "pairs": sentences}, out / f"{name}.json")


def _print(contestants: Sequence[Contestant]) -> None:
    """Print what each took to train and what it scored."""
    part = contestants[0].part
    columns = ["run", "parameters", "training time", f"{part} loss", f"{part} accuracy", "95 % interval"]
    rows = []
    for one in contestants:
        scores = f"{one.loss:.4f}", f"{one.accuracy:.2%}", f"{one.low:.2%} to {one.high:.2%}"
        rows.append([one.name, f"{one.parameters:,}", f"{one.seconds:,.0f} s", *scores])
    print_table(contestants[0].data, columns, rows, spare=["training time", f"{part} loss", "parameters"])
    if baseline := contestants[0].baseline:
        print_notes([baseline])
