"""The trials of a search: its plan, what is known of each trial, their table and pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.display import figures
from lab.display.labels import label, name_values
from lab.display.terminal import print_table, shorten
from lab.errors import UserError, first_line
from lab.experiments.jobs import Job, is_of_these_images
from lab.experiments.knobs import Knob, Known
from lab.experiments.ranking import HEADINGS, scores_of, warn_of_samples
from lab.files import read_text, write_csv
from lab.runs.folder import read_history


@dataclass
class Plan:
    """All that decides a search's trials, kept in search.json for the processes that run them."""

    digest: str
    knobs: list[Knob]
    fixed: list[str]  # what each trial is told besides its values
    seed: int
    behind: int  # how many trials just before a trial are not known to it: they may still run
    bars: int  # epochs of a trial, at the end of each of which it may be pruned; 0: none is pruned
    metric: str  # as metrics.csv calls it

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        path = folder / "search.json"
        try:
            content = json.loads(read_text(path))
            knobs = [Knob(**knob | {"choices": tuple(knob["choices"])}) for knob in content["knobs"]]
            return cls(**content | {"knobs": knobs})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({first_line(error)}): rerun=true starts over") from None


@dataclass
class Trial(Job):
    """A job whose values are known only once it has begun."""

    def proposal(self) -> dict[str, str]:
        """Its values by key; none before it has begun."""
        path = self.folder / "trial.json"
        try:
            return json.loads(read_text(path))["values"] if path.exists() else {}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged: delete {self.folder}, and it runs again") from None

    def has_begun(self) -> bool:
        """Whether its values are known, or never will be."""
        return (self.folder / "trial.json").exists() or self.has_ended()

    def has_finished(self) -> bool:
        """UserError where it was trained on other images than lie there today."""
        if self.result() and not is_of_these_images(self):
            told = "rerun=true replaces the search, hydra.sweep.dir=FOLDER leaves it where it is"
            raise UserError(f"{self.folder} holds a run on other images than lie there today: {told}")
        return self.result() is not None

    def number(self) -> int:
        return int(self.folder.name.rpartition("_")[2])

    def name(self) -> str:
        values = name_values(self.proposal())
        return f"trial {self.number()}" + (f", {values}" if values else "")


def to_known(trial: Trial, plan: Plan, is_running: bool = False) -> Known:
    """What later trials know of `trial`."""
    values, result = trial.proposal(), None if is_running else trial.result()
    if result is None:
        return Known(values, {}, is_running)
    rows = read_history(trial.folder, f"delete {trial.folder}, and it runs again")
    curve = {int(row["epoch"]): row[plan.metric] for row in rows if plan.metric in row}
    return Known(values, curve, is_whole=not result.get("pruned"))


def report(trials: Sequence[Trial], plan: Plan, folder: Path) -> int:
    """Print the table of the trials, leave sweep.csv and the pictures. Give the number of trials that failed."""
    rows = [_row(trial, plan) for trial in trials]
    write_csv([{name: value for name, value in row.items() if name != "score"} for row in rows], folder / "sweep.csv")
    scored = [row for row in rows if row["score"] is not None]
    if scored:
        title = f"{_title(trials, plan)}: {len(rows)} trials"
        _print(scored, plan, title)
        _draw(trials, scored, plan, title, folder)
        warn_of_samples([result for trial in trials if (result := trial.result())])
    for row in rows:
        if row.get("error"):
            print(f"failed: {row['folder']}: {row['error']}")
    print(f"Table: {folder}/sweep.csv" + (f", pictures: {folder}/*.png" if scored else ""))
    return sum(trial.result() is None for trial in trials)


def _row(trial: Trial, plan: Plan) -> dict[str, Any]:
    """A trial's line in sweep.csv: nothing of the test part, which no search looks at."""
    result = trial.result()
    row = {"trial": trial.number(), **trial.proposal(), "score": None}
    if result is None:
        return row | {"error": trial.error() or "has left no result", "folder": trial.folder.name}
    scores = {name: value for name, value in scores_of(result).items() if not name.startswith("test_")}
    ended = {"epochs": result["epochs"], "pruned": bool(result.get("pruned"))}
    return row | {"score": scores.get(plan.metric)} | scores | ended | {"folder": trial.folder.name}


def best_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of trials that ran to their end, the best first; of equal scores that with the smaller loss."""
    whole = [row for row in rows if row["score"] is not None and not row["pruned"]]
    return sorted(whole, key=lambda row: (-row["score"], row["val_loss"]))


def ranked(trials: Sequence[Trial], plan: Plan) -> list[tuple[Trial, float]]:
    """The trials that ran to their end, with their scores, the best first."""
    by_folder = {trial.folder.name: trial for trial in trials}
    return [(by_folder[row["folder"]], row["score"]) for row in best_of([_row(trial, plan) for trial in trials])]


def _print(rows: Sequence[dict[str, Any]], plan: Plan, title: str) -> None:
    """Print the best first, after them those that were pruned."""
    stopped = sorted((row for row in rows if row["pruned"]), key=lambda row: -row["score"])
    lines = []
    for row in [*best_of(rows), *stopped]:
        cells = [str(row["trial"]), *(row[knob.key] for knob in plan.knobs), f"{row['score'] * 100:.2f}"]
        cells.append(f"stopped after epoch {row['epochs']}" if row["pruned"] else f"{row['val_loss']:.4f}")
        lines.append([*cells, f"{row['seconds']:.0f}"])
    columns = ["trial", *(label(knob.key) for knob in plan.knobs), HEADINGS[plan.metric], HEADINGS["val_loss"]]
    print_table(title, [*columns, "seconds"], shorten(lines), spare=["seconds", HEADINGS["val_loss"]])


def _title(trials: Sequence[Trial], plan: Plan) -> str:
    """The network and the data set, where all trials have the same."""
    first = next(result for result in (trial.result() for trial in trials) if result)
    fixed = {"model": first["model"], "data": first["data"]["name"]}
    return " on ".join(fixed[key] for key in fixed if key not in [knob.key for knob in plan.knobs]) or "a search"


def _draw(trials: Sequence[Trial], scored: Sequence[dict[str, Any]], plan: Plan, title: str, folder: Path) -> None:
    from lab.experiments.propose import importances  # Optuna, in a search alone

    shown = f"{plan.metric.replace('val_', 'validation ').replace('_', ' ')} (%)"
    points = {
        "trials": [row["trial"] for row in scored],
        "seconds": [row["seconds"] for row in scored],
        "scores": [100 * row["score"] for row in scored],
        "whole": [not row["pruned"] for row in scored],
    }
    figures.best_so_far(points, shown, title, folder / "best_so_far.png")
    axes = []
    for knob in plan.knobs:
        texts = [row[knob.key] for row in scored]
        axes.append((label(knob.key), texts if not knob.is_number else list(map(float, texts)), knob.is_logarithmic))
    figures.slices(axes, points, shown, title, folder / "slices.png")
    if shares := importances(plan.knobs, [to_known(trial, plan) for trial in trials if trial.result()]):
        named = {label(key): 100 * share for key, share in shares.items()}
        figures.importances(named, title, folder / "importances.png")
