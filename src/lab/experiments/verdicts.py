"""What the runs of a table say beside what was published: scores, verdicts, findings, RESULTS.md."""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev, stdev
from typing import Any

from scipy.stats import t

from lab.display.figures import published, rungs
from lab.display.markdown import replace_section, table
from lab.display.terminal import print_table
from lab.evaluation.significance import corrected_t
from lab.experiments.jobs import Job, is_of_sample
from lab.files import atomic_write, write_csv, write_text


@dataclass
class Row:
    """A row of the table: what train.py is told, what was published of it in %, its runs."""

    name: str
    jobs: list[Job]
    run: str
    published: float | None = None
    folds: Sequence[float] = ()  # those that `published` is the mean of
    note: str = ""
    against: str | None = None  # the rung that it stands on

    def has_ended(self) -> bool:
        """Whether all its runs have finished or failed."""
        return all(job.has_ended() for job in self.jobs)

    def error(self) -> str | None:
        """Why the first of its failed runs failed."""
        return next((job.error() for job in self.jobs if job.result() is None and job.error()), None)

    def results(self) -> list[dict[str, Any]]:
        """Those of the runs that have finished."""
        return [result for result in (job.result() for job in self.jobs) if result]

    def scores(self) -> dict[tuple[str, str], float]:
        """Accuracy in % by seed and fold: of the test part, or of the fold held out."""
        scored = {(job.values["seed"], job.values["fold"]): (job, job.result()) for job in self.jobs}
        return {
            key: result["validation" if job.values["fold"] else "test"]["last"]["accuracy"] * 100
            for key, (job, result) in scored.items()
            if result
        }

    def by_fold(self) -> list[tuple[float, ...]]:
        """Of each seed whose folds are complete their scores, in order; without folds one."""
        return list(self._of_whole_seeds().values())

    def _of_whole_seeds(self) -> dict[str, tuple[float, ...]]:
        scores, folds = self.scores(), len({job.values["fold"] for job in self.jobs})
        seeds = {seed: tuple(score for (of, _), score in scores.items() if of == seed) for seed, _ in scores}
        return {seed: values for seed, values in seeds.items() if len(values) == folds}

    def by_seed(self) -> list[float]:
        """Accuracy in %, of folds their mean."""
        return [mean(values) for values in self.by_fold()]

    def is_told(self) -> bool:
        """Whether findings may speak of it: a seed at least has run, on the real data."""
        return bool(self.by_seed()) and not any(is_of_sample(each) for each in self.results())

    def measured(self) -> str:
        """The mean over the seeds ± their standard deviation; of folds that over the folds, with n, as the lab's."""
        seeds = self.by_seed()
        if not seeds:
            return "-"
        figure = f"{mean(seeds):.2f}"
        if self.folds:  # over those of the first seed, as lab A prints it
            return f"{figure} ± {pstdev(self.by_fold()[0]):.2f}"
        return f"{figure} ± {stdev(seeds):.2f}" if len(seeds) > 1 else figure

    def seconds(self) -> float:
        """Of training, a seed, all folds together."""
        whole_seeds = self._of_whole_seeds()
        seconds = [job.result()["seconds"] for job in self.jobs if job.values["seed"] in whole_seeds]
        return sum(seconds) / max(len(whole_seeds), 1)

    def tolerance(self) -> float:
        """The largest difference to the published figure, in points, that is still chance: see the table's head."""
        seeds = self.by_seed()
        if self.folds:
            ours = [mean(scores) for scores in zip(*self.by_fold(), strict=True)]
            differences = [one - published for one, published in zip(ours, self.folds, strict=True)]
            return corrected_t(differences, 0).high - mean(differences)
        if len(seeds) > 2:
            return float(t.ppf(0.975, len(seeds) - 1)) * stdev(seeds) * math.sqrt(1 + 1 / len(seeds))
        share, images = self.published / 100, self.results()[0]["test"]["last"]["images"]
        return 196 * math.sqrt(share * (1 - share) / images)

    def verdict(self) -> str:
        """reproduced, better, worse, or why there is none."""
        if not self.by_seed():
            return "not run" + (f"; {self.error()}" if self.error() else "")
        if any(is_of_sample(each) for each in self.results()):
            return "not comparable; on a sample of the data"
        if self.published is None:
            return "no figure"
        difference = mean(self.by_seed()) - self.published
        if abs(difference) <= self.tolerance() + 0.005:  # what was published is rounded
            return "reproduced"
        return "better" if difference > 0 else "worse"


def report(rows: Sequence[Row], content: Mapping[str, Any], folder: Path, results: Path | None) -> None:
    """Print and write the table of `rows`, and what `content`, of conf/table/, finds in them; into `results` too."""
    title = content["title"]
    make = _ladder if any("against" in entry for entry in content["rows"].values()) else _published
    columns, cells, count = make(rows)
    _print(title, columns, cells)
    findings = [_fill(text, {row.name: row for row in rows}) for text in content.get("findings", ())]
    told = [f"- {finding}" for finding in findings if finding]
    if left_out := len(findings) - len(told):
        told.append(f"- Left out, as a row of theirs has not run: {left_out} of {len(findings)} findings.")
    picture = folder / f"{content['picture']}.png"
    drawn = any(row.by_seed() for row in rows)
    if drawn:
        (rungs if make is _ladder else published)(_shown(rows), title, picture)
    write_csv(_csv(rows), picture.with_suffix(".csv"))
    about = _about(rows)
    link = f"![{title}](docs/{picture.name})" if drawn else ""
    parts = [about, content["head"], count, table(columns, cells), link, *told]
    body = "\n\n".join(part for part in parts if part)
    write_text(body.replace("(docs/", "(") + "\n", folder / "table.md")
    for row in rows:
        if row.error():
            print(f"{row.name}: {row.error()}")
    print(f"Table: {folder}/table.md, {picture.with_suffix('.csv').name}" + (f", {picture.name}" if drawn else ""))
    ran = [result for row in rows for result in row.results()]
    if results and (not drawn or any(is_of_sample(result) for result in ran)):
        print(f"{results} stays as it is: nothing has run, or not on the real data")
    elif results:
        (results.parent / "docs").mkdir(exist_ok=True)
        for path in (picture, picture.with_suffix(".csv")):
            with atomic_write(results.parent / "docs" / path.name) as beside:
                shutil.copyfile(path, beside)
        replace_section(results, title, body)
        print(f"Results: {results}")


def _print(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """What fits into 80 columns: table.md has the rest."""
    ends = {"published": " ±", "difference": " (", "verdict": "; "}
    shown = [name for name in columns if name not in ("parameters", "seeds", "seconds", "against")]
    rows = [dict(zip(columns, line, strict=True)) for line in cells]
    print_table(title, shown, [[re.split(re.escape(ends.get(n, "\n")), row[n])[0] for n in shown] for row in rows])


def _published(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], str]:
    columns = ["row", "network", "parameters", "published", "measured", "seeds", "difference", "verdict", "seconds"]
    cells = []
    for row in rows:
        seeds, results = row.by_seed(), row.results()
        figure = (
            "-"
            if row.published is None
            else f"{row.published:.2f}" + (f" ± {pstdev(row.folds):.2f}" if row.folds else "")
        )
        compared = row.published is not None and seeds
        difference = f"{mean(seeds) - row.published:+.2f} (± {row.tolerance():.2f})" if compared else "-"
        cells.append(
            [
                row.name,
                row.run.partition(" ")[0].removeprefix("model="),
                f"{results[0]['parameters']['total']:,}" if results else "-",
                figure,
                row.measured(),
                str(len(seeds)),
                difference,
                row.verdict() + (f"; {row.note}" if row.note else ""),
                f"{row.seconds():,.0f}",
            ]
        )
    return columns, cells, _count(rows)


def _count(rows: Sequence[Row]) -> str:
    compared = [row.verdict() for row in rows if row.published is not None and row.by_seed()]
    words = {word: compared.count(word) for word in ("reproduced", "better", "worse")}
    counts = ", ".join(f"{n} {word}" for word, n in words.items())
    hours = sum(row.seconds() for row in rows) / 3600
    return f"{len(compared)} rows with a published figure: {counts}. One seed of each: {hours:.1f} hours of a core."


def _ladder(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], str]:
    columns = ["network", "parameters", "accuracy %", "seeds", "against", "what it buys, points", "seconds"]
    by_name = {row.name: row for row in rows}
    cells = [
        [
            row.name,
            f"{row.results()[0]['parameters']['total']:,}" if row.results() else "-",
            row.measured(),
            str(len(row.by_seed())),
            row.against or "-",
            _difference(row, by_name[row.against]) if row.against in by_name else "-",
            f"{row.seconds():,.0f}",
        ]
        for row in rows
    ]
    return columns, cells, ""


def _difference(one: Row, other: Row) -> str:
    """Of the same seeds and folds, with its 95 % interval."""
    ours, theirs = one.scores(), other.scores()
    common = [key for key in ours if key in theirs]
    pairs = [ours[key] - theirs[key] for key in common]
    if not pairs:
        return "-"
    if len(pairs) < 2:
        return f"{pairs[0]:+.2f} (seed {common[0][0]} alone)"
    folds = len({fold for _, fold in ours})
    estimate = corrected_t(pairs, 1 / (folds - 1) if folds > 1 else 0)
    word = "noise" if estimate.low <= 0 <= estimate.high else "real"
    return f"{estimate.value:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f}: {word})"


def _fill(text: str, rows: Mapping[str, Row]) -> str | None:
    """`text` with {E1} measured, {E1 range}, {A2 minus A1}, {D10 medical}; None where a row is not run."""
    missing = False

    def fill(match: re.Match[str]) -> str:
        nonlocal missing
        name, _, what = match[1].partition(" ")
        other = what.removeprefix("minus ")
        if not all(each in rows and rows[each].is_told() for each in (name, *([other] if other != what else []))):
            missing = True
            return ""
        if other != what:
            return _difference(rows[name], rows[other]) + " points"
        if what == "range":
            seeds = rows[name].by_seed()
            return f"{min(seeds):.2f} to {max(seeds):.2f} %" if len(seeds) > 1 else f"{seeds[0]:.2f} % (one run)"
        if what == "medical":
            return _medical(rows[name])
        return f"{rows[name].measured()} %"

    filled = re.sub(r"\{([^}]+)\}", fill, text)
    return None if missing else filled


def _medical(row: Row) -> str:
    """AUC and balanced accuracy of two classes, the threshold chosen on the validation part."""
    results = row.results()
    areas, balances = [r["auc"] for r in results], [r["threshold"]["balanced_accuracy"] for r in results]
    if len(areas) == 1:
        return f"AUC {areas[0]:.4f}, balanced accuracy {balances[0]:.2%} with one seed"
    return (
        f"AUC {mean(areas):.4f} ± {stdev(areas):.4f}, balanced accuracy "
        f"{mean(balances):.2%} ± {stdev(balances):.2%} over {len(areas)} seeds"
    )


def _shown(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "scores": row.by_seed(),
            "published": row.published,
            "parameters": row.results()[0]["parameters"]["total"],
            "seconds": row.seconds(),
        }
        for row in rows
        if row.by_seed()
    ]


def _csv(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each run."""
    lines = []
    for row in rows:
        for job in row.jobs:
            line = {"row": row.name, "run": " ".join(job.overrides), **job.values, "published": row.published}
            result = job.result()
            if result:
                part = result["validation" if job.values["fold"] else "test"]["last"]
                figures = {"accuracy": part["accuracy"], "loss": part["loss"], "images": part["images"]}
                figures |= {"train_accuracy": result["train"]["accuracy"], "epochs": result["epochs"]}
                line |= figures | {"parameters": result["parameters"]["total"], "seconds": result["seconds"]}
            lines.append(line | {"error": job.error() or "", "folder": job.folder.name})
    return lines


def _about(rows: Sequence[Row]) -> str:
    results = [result for row in rows for result in row.results()]
    if not results:
        return "Nothing was run."
    where = dict.fromkeys(
        f"{result['machine']}; {', '.join(f'{name} {number}' for name, number in result['versions'].items())}"
        for result in results
    )
    sampled = any(is_of_sample(result) for result in results)
    warning = " **Some of it on a sample of the data: no measure of any network.**" if sampled else ""
    return f"Seeds from 1 on, one thread a run, {'; or '.join(where)}.{warning}"
