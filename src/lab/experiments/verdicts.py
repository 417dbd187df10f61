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


def data_set(entry: Mapping[str, Any]) -> str:
    """How a protocol calls what a row is of: folds, or its data set."""
    return "folds" if "folds" in entry else dict(re.findall(r"(\bdata)=(\w+)", entry["run"])).get("data", "mnist")


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
        scored = {(job.values["seed"], job.values["fold"]): _score(job) for job in self.jobs}
        return {key: score["accuracy"] * 100 for key, score in scored.items() if score}

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
        return bool(self.by_seed()) and not self.is_sampled()

    def is_sampled(self) -> bool:
        """Whether a run had only a sample of the data."""
        return any(map(is_of_sample, self.results()))

    def parameters(self) -> int | None:
        """Of its network; None where nothing has run."""
        return next((result["parameters"]["total"] for result in self.results()), None)

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
        if self.is_sampled():
            return "not comparable; on a sample of the data"
        if self.published is None:
            return "no figure"
        difference = mean(self.by_seed()) - self.published
        if abs(difference) <= self.tolerance() + 0.005:  # what was published is rounded
            return "reproduced"
        return "better" if difference > 0 else "worse"


def report(rows: Sequence[Row], content: Mapping[str, Any], folder: Path, results: Path | None) -> None:
    """Print and write the table of `rows`, and what `content`, of conf/table/, finds in them; into `results` too."""
    title, picture = content["title"], folder / f"{content['picture']}.png"
    is_ladder, by_name = any("against" in entry for entry in content["rows"].values()), {row.name: row for row in rows}
    lines = [_rung(row, by_name.get(row.against)) if is_ladder else _published(row) for row in rows]
    _print(title, lines)
    if drawn := [row for row in rows if row.by_seed()]:
        (rungs if is_ladder else published)(list(map(_shown, drawn)), title, picture)
    write_csv([_line(row, job) for row in rows for job in row.jobs], picture.with_suffix(".csv"))
    about = [_about(rows), content["head"], "" if is_ladder else _count(rows)]
    cells = table(list(lines[0]), [list(line.values()) for line in lines])
    link = f"![{title}](docs/{picture.name})" if drawn else ""
    body = "\n\n".join(part for part in (*about, cells, link, *_find(content, by_name)) if part)
    write_text(body.replace("(docs/", "(") + "\n", folder / "table.md")
    for row in rows:
        if row.error():
            print(f"{row.name}: {row.error()}")
    print(f"Table: {folder}/table.md, {picture.with_suffix('.csv').name}" + (f", {picture.name}" if drawn else ""))
    if results and (not drawn or any(map(Row.is_sampled, rows))):
        print(f"{results} stays as it is: nothing has run, or not on the real data")
    elif results:
        (results.parent / "docs").mkdir(exist_ok=True)
        for path in (picture, picture.with_suffix(".csv")):
            with atomic_write(results.parent / "docs" / path.name) as beside:
                shutil.copyfile(path, beside)
        replace_section(results, title, body)
        print(f"Results: {results}")


def _print(title: str, lines: Sequence[Mapping[str, str]]) -> None:
    """What fits into 80 columns: table.md has the rest."""
    ends = {"published": " ±", "difference": " (", "verdict": "; "}
    shown = [name for name in lines[0] if name not in ("parameters", "seeds", "seconds", "against")]
    print_table(title, shown, [[line[name].partition(ends.get(name, "\n"))[0] for name in shown] for line in lines])


def _published(row: Row) -> dict[str, str]:
    """Its line in the table."""
    figure, difference, seeds = "-", "-", row.by_seed()
    if row.published is not None:
        figure = f"{row.published:.2f}" + (f" ± {pstdev(row.folds):.2f}" if row.folds else "")
        if seeds:
            difference = f"{mean(seeds) - row.published:+.2f} (± {row.tolerance():.2f})"
    return {
        "row": row.name,
        "network": row.run.partition(" ")[0].removeprefix("model="),
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "published": figure,
        "measured": row.measured(),
        "seeds": str(len(seeds)),
        "difference": difference,
        "verdict": row.verdict() + (f"; {row.note}" if row.note else ""),
        "seconds": f"{row.seconds():,.0f}",
    }


def _rung(row: Row, below: Row | None) -> dict[str, str]:
    """Its line in the table, beside the rung that it stands on."""
    return {
        "network": row.name,
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "accuracy %": row.measured(),
        "seeds": str(len(row.by_seed())),
        "against": row.against or "-",
        "what it buys, points": _difference(row, below) if below else "-",
        "seconds": f"{row.seconds():,.0f}",
    }


def _count(rows: Sequence[Row]) -> str:
    compared = [row.verdict() for row in rows if row.published is not None and row.by_seed()]
    counts = ", ".join(f"{compared.count(word)} {word}" for word in ("reproduced", "better", "worse"))
    hours = sum(row.seconds() for row in rows) / 3600
    return f"{len(compared)} rows with a published figure: {counts}. One seed of each: {hours:.1f} hours of a core."


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


def _find(content: Mapping[str, Any], rows: Mapping[str, Row]) -> list[str]:
    """The findings of the table, filled; those whose rows have not all run are counted."""
    findings = content.get("findings", ())
    told = [f"- {finding}" for finding in (_fill(text, rows) for text in findings) if finding]
    if left_out := len(findings) - len(told):
        told.append(f"- Left out, as a row of theirs has not run: {left_out} of {len(findings)} findings.")
    return told


def _fill(text: str, rows: Mapping[str, Row]) -> str | None:
    """`text` with {E1} measured, {E1 range}, {A2 minus A1}, {D10 medical}; None where a row is not run."""
    asked = [words.split() for words in re.findall(r"\{([^}]+)\}", text)]
    names = {word for words in asked for word in words if word not in ("range", "minus", "medical")}
    if not all(name in rows and rows[name].is_told() for name in names):
        return None
    return re.sub(r"\{([^}]+)\}", lambda match: _tell(rows, *match[1].split()), text)


def _tell(rows: Mapping[str, Row], name: str, what: str = "mean", other: str = "") -> str:
    """What stands for {NAME WHAT OTHER} in a finding."""
    row, seeds = rows[name], rows[name].by_seed()
    if what == "minus":
        return _difference(row, rows[other]) + " points"
    if what == "range":
        return f"{min(seeds):.2f} to {max(seeds):.2f} %" if len(seeds) > 1 else f"{seeds[0]:.2f} % (one run)"
    if what == "medical":
        return _medical(row)
    return f"{row.measured()} %"


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


def _shown(row: Row) -> dict[str, Any]:
    """What the figure shows of it."""
    network = row.run.partition(" ")[0].removeprefix("model=")
    name = row.name if row.name.startswith(network) else f"{row.name} {network}"  # a rung is called as its network
    known = {"name": name, "scores": row.by_seed(), "published": row.published}
    return known | {"parameters": row.parameters(), "seconds": row.seconds()}


def _score(job: Job) -> dict[str, float] | None:
    """Of the last epoch, on the test part or on the fold held out; None before it has finished."""
    result = job.result()
    return result and result["validation" if job.values["fold"] else "test"]["last"]


def _line(row: Row, job: Job) -> dict[str, Any]:
    """What the CSV file has of a run."""
    line = {"row": row.name, "run": " ".join(job.overrides), **job.values, "published": row.published}
    if result := job.result():
        line |= {key: _score(job)[key] for key in ("accuracy", "loss", "images")}
        line |= {"train_accuracy": result["train"]["accuracy"], "epochs": result["epochs"]}
        line |= {"parameters": result["parameters"]["total"], "seconds": result["seconds"]}
    return line | {"error": job.error() or "", "folder": job.folder.name}


def _about(rows: Sequence[Row]) -> str:
    where = dict.fromkeys(
        f"{result['machine']}; {', '.join(f'{name} {number}' for name, number in result['versions'].items())}"
        for row in rows
        for result in row.results()
    )
    if not where:
        return "Nothing was run."
    sampled = any(map(Row.is_sampled, rows))
    warning = " **Some of it on a sample of the data: no measure of any network.**" if sampled else ""
    return f"Seeds from 1 on, one thread a run, {'; or '.join(where)}.{warning}"
