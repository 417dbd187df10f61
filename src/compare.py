"""Which network is better, and is it more than chance? python src/compare.py RUN RUN ..."""

import dataclasses
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab import UserError
from lab.arguments import Parser, run_parser

if TYPE_CHECKING:
    from lab.comparison import Contestant, Difference


def compare_runs(folders: list[Path], out: Path | None) -> None:
    """Print the table and a sentence a pair; leave comparison.csv, .json and .png in `out`."""
    from lab.comparison import compare, read
    from lab.terminal import print_contestants

    if len(folders) < 2:
        raise UserError("give two runs or more")
    contestants = read(folders)
    pairs = compare(contestants)
    out = out or Path("outputs") / f"compare_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(2).hex()}"
    out.mkdir(parents=True, exist_ok=True)
    _draw(contestants, out / "comparison.png")
    _write(contestants, pairs, out)
    print_contestants(contestants)
    for pair in pairs:
        print(pair)
    if n_folds := contestants[0].n_folds:
        print(f"Tested on the same {n_folds} folds: Nadeau and Bengio's corrected t.")
    else:
        print("Tested on the same images: McNemar. It tells these trained networks apart; for recipes compare folds.")
    print(f"Table and chart: {out}")


def _draw(contestants: Sequence["Contestant"], path: Path) -> None:
    from lab.plots import box_plot, intervals

    best = max(contestants, key=lambda one: one.accuracy)
    title = f"{best.data}: {best.name} is first with {best.accuracy:.2%}"
    if best.n_folds:
        scores = {one.name: [100 * score for score in one.scores] for one in contestants}
        box_plot(scores, "accuracy on the held-out fold (%)", title, path)
    else:
        points = {one.name: (100 * one.accuracy, 100 * one.interval[0], 100 * one.interval[1]) for one in contestants}
        intervals(points, f"{best.part} accuracy (%), 95 % interval", title, path)


def _write(contestants: Sequence["Contestant"], pairs: Sequence["Difference"], out: Path) -> None:
    from lab.files import write_csv, write_json

    rows = []
    for one in contestants:
        row = {key: getattr(one, key) for key in ("name", "parameters", "seconds", "images", "loss", "accuracy")}
        rows.append(row | {"low": one.interval[0], "high": one.interval[1], "folder": str(one.folder)})
    sentences = []
    for pair in pairs:
        names = {"better": pair.better.name, "worse": pair.worse.name}
        figures = dataclasses.asdict(pair.estimate) | {"corrected_p": pair.corrected_p}
        sentences.append(names | figures | {"sentence": str(pair)})
    write_csv(rows, out / "comparison.csv")
    write_json({"runs": rows, "pairs": sentences}, out / "comparison.json")


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folders of runs, or of cross-validations")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the table and the chart go; else in outputs/")
    run_parser(parser, compare_runs)
