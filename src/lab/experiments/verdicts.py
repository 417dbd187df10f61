"""The table of reproduce.py: what its runs measured beside what was published, verdicts, findings; RESULTS.md."""

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, pstdev, stdev
from typing import Any

from lab.display.figures import published, rungs
from lab.display.markdown import replace_section, table
from lab.display.terminal import print_table
from lab.evaluation.significance import corrected_t, holm, holm_levels
from lab.experiments.jobs import Job
from lab.experiments.keras_beside import SCORES
from lab.experiments.protocol import Comparison, compare_all, tell
from lab.files import atomic_write, write_csv, write_text
from lab.runs.folder import read_history

NOTHING = {"accuracy": [], "loss": [], "tail": [], "Keras": []}  # of a row that has not run as often as asked
# what the CSV file tells of a finished run, by column
MEASURED = {"accuracy": float, "loss": float, "images": int, "train_accuracy": float, "epochs": int, "parameters": int}
MEASURED |= {"seconds": float, "machine": str, "data": str, "sha256": str}
OF_SOME = dict.fromkeys(("tail", "auc", "balanced_accuracy"), float)  # where the lab prints it; of two classes


def data_set(entry: Mapping[str, Any]) -> str:
    """The name under which a protocol has margins and seeds for a row: folds, or its data set."""
    return "folds" if "folds" in entry else dict(re.findall(r"(\bdata)=(\w+)", entry["run"])).get("data", "mnist")


@dataclass
class Row:
    """A row of the table with its runs.

    `entry` is what conf/table/ has of it: what train.py is told, "run"; perhaps the accuracy in % that was "published"
    and the "folds" that this is the mean of; a "note"; the row that it is compared "against"; the row that it
    "continues", with the same seeds. `earlier` is what runs measured that have left no folder here, by its name.
    """

    name: str
    jobs: list[Job]
    entry: Mapping[str, Any]
    asked: int = 1  # seeds, by the table's protocol
    tail: int = 0  # the last epochs, whose validation accuracies are compared, too; 0: none
    keras: Callable[[], list[float]] = list  # reads the accuracies in % of Keras' seeds beside ours
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def folds(self) -> Sequence[float]:
        """The published accuracy of each fold; empty without folds."""
        return self.entry.get("folds", ())

    @property
    def published(self) -> float | None:
        return self.entry.get("published")

    @property
    def against(self) -> str | None:
        return self.entry.get("against")

    def network(self) -> str:
        """The recipe's name."""
        return self.entry["run"].partition(" ")[0].removeprefix("model=")

    def has_ended(self) -> bool:
        """Whether all its runs have finished or failed."""
        return all(job.has_ended() or job.folder.name in self.earlier for job in self.jobs)

    def error(self) -> str | None:
        """Why its first failed run failed; None where none did."""
        return next((job.error() for job in self.jobs if not self.measured_by(job) and job.error()), None)

    def measured_by(self, job: Job) -> Mapping[str, Any]:
        """What the run measured, by the columns MEASURED and OF_SOME; empty before it has finished.

        The scores are the last epoch's on the test part, or on the fold held out.
        """
        if (result := job.result()) is None:
            return self.earlier.get(job.folder.name, {})
        score = result["validation" if job.values["fold"] else "test"]["last"]
        measured = {key: score[key] for key in ("accuracy", "loss", "images")}
        measured |= {"train_accuracy": result["train"]["accuracy"], "epochs": result["epochs"]}
        measured |= {"parameters": result["parameters"]["total"], "seconds": result["seconds"]}
        versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        measured |= {"machine": f"{result['machine']}; {versions}"}
        measured |= {"data": result["data"]["name"], "sha256": result["data"].get("sha256", "")}
        if (tail := _last_epochs(job, self.tail)) is not None:
            measured["tail"] = tail
        if "auc" in result:
            measured |= {"auc": result["auc"], "balanced_accuracy": result["threshold"]["balanced_accuracy"]}
        return measured

    def line(self, job: Job) -> dict[str, Any]:
        """The run's line in the CSV file: all that its row is judged by, and more."""
        line = {"row": self.name, "run": " ".join(job.overrides), **job.values, "published": self.published}
        return line | self.measured_by(job) | {"error": job.error() or "", "folder": job.folder.name}

    def finished(self) -> list[dict[str, Any]]:
        """The line of each run that has finished."""
        return [line for line in map(self.line, self.jobs) if "accuracy" in line]

    def scores(self, what: str = "accuracy") -> dict[tuple[str, str], float]:
        """Accuracy in %, or loss, by seed and fold, on the test part, or on the fold held out."""
        scale = 100 if what == "accuracy" else 1
        return {(line["seed"], line["fold"]): line[what] * scale for line in self.finished()}

    def by_whole_seed(self) -> dict[str, tuple[float, ...]]:
        """Accuracies in % of each seed all of whose folds have run: a fold each, in order; without folds one."""
        scores, folds = self.scores(), len({job.values["fold"] for job in self.jobs})
        seeds = {seed: tuple(score for (of, _), score in scores.items() if of == seed) for seed, _ in scores}
        return {seed: values for seed, values in seeds.items() if len(values) == folds}

    def by_seed(self) -> list[float]:
        """Accuracy in % of each whole seed, the mean over its folds."""
        return [mean(values) for values in self.by_whole_seed().values()]

    def is_told(self) -> bool:
        """Whether findings may speak of it: all seeds that were asked for have run, on the real data."""
        return len(self.by_seed()) >= self.asked and not self.is_sampled()

    def is_sampled(self) -> bool:
        """Whether a run had only a sample of the data."""
        return any(line["data"].endswith("_sample") for line in self.finished())

    def parameters(self) -> int | None:
        """Of its network; None where nothing has run."""
        return next((line["parameters"] for line in self.finished()), None)

    def measured(self) -> str:
        """The mean over the seeds ± their standard deviation; of folds the first seed's, with n, as lab A prints it."""
        seeds = self.by_whole_seed()
        if not seeds:
            return "-"
        means = self.by_seed()
        if self.folds:
            return f"{mean(means):.2f} ± {pstdev(next(iter(seeds.values()))):.2f}"
        return f"{mean(means):.2f}" + (f" ± {stdev(means):.2f}" if len(means) > 1 else "")

    def seconds(self) -> float:
        """Seconds of training a seed, all its folds together."""
        seeds = self.by_whole_seed()
        return sum(line["seconds"] for line in self.finished() if line["seed"] in seeds) / max(len(seeds), 1)

    def figures(self) -> dict[str, Any]:
        """The scores that a protocol compares, see compare_all; NOTHING before all seeds have run on the real data."""
        seeds = list(self.by_whole_seed())[: self.asked]
        if len(seeds) < self.asked or self.is_sampled():
            return NOTHING
        lines = [line for line in self.finished() if line["seed"] in seeds]
        accuracies = [line["accuracy"] * 100 for line in lines]
        if self.folds:
            accuracies = [ours - theirs for ours, theirs in zip(accuracies, self.folds, strict=True)]
        tails = [line["tail"] for line in lines if "tail" in line]
        return {"accuracy": accuracies, "loss": [line["loss"] for line in lines], "tail": tails, "Keras": self.keras()}

    def state(self) -> str:
        """Why there is no verdict."""
        if self.is_sampled():
            return "not comparable; on a sample of the data"
        if self.error():
            return f"not run; {self.error()}"
        done = len(self.by_seed())
        is_done = self.published is None and done >= self.asked
        return "no figure" if is_done else f"not yet run ({done} of {self.asked} seeds)"


def report(rows: Sequence[Row], content: Mapping[str, Any], folder: Path, results: Path | None) -> None:
    """Print and write the table of `rows`, and what `content`, of conf/table/, finds in them; into `results` too."""
    title, picture = content["title"], folder / f"{content['picture']}.png"
    protocol, by_name = content.get("protocol"), {row.name: row for row in rows}
    is_ladder = any("against" in entry for entry in content["rows"].values())
    compared = _compare(by_name, content) if protocol else []
    by_row = {one.row: one for one in compared if one.what == "accuracy"}
    effects = Effects(content, by_name)
    lines = [_rung_line(row, effects) if is_ladder else _row_line(row, by_row.get(row.name)) for row in rows]
    rules = "\n".join(f"- {rule}" for rule in tell(protocol))
    _print(title, lines)
    if drawn := [row for row in rows if row.by_seed()]:
        (rungs if is_ladder else published)(list(map(_shown, drawn)), title, picture)
    write_csv([row.line(job) for row in rows for job in row.jobs], picture.with_suffix(".csv"))
    others = [one for one in compared if one.what != "accuracy" and one.ours]
    more = [_comparison_line(one, content["rows"][one.row]) for one in others]
    parts = [
        "\n".join(_sum_up(compared, content["rows"])) if compared else "",
        f"### The protocol\n\n{rules}\n\n### The rows" if rules else "",
        _about(rows),
        content["head"],
        _as_markdown(lines),
        f"### Losses, last epochs, Keras\n\n{_as_markdown(more)}" if more else "",
        f"![{title}](docs/{picture.name})" if drawn else "",
        *_find(content, by_name, effects),
    ]
    body = "\n\n".join(part for part in parts if part)
    write_text(body.replace("(docs/", "(") + "\n", folder / "table.md")
    for row in rows:
        if row.error():
            print(f"{row.name}: {row.error()}")
    print(f"Table: {folder}/table.md, {picture.with_suffix('.csv').name}" + (f", {picture.name}" if drawn else ""))
    if results and (not drawn or any(map(Row.is_sampled, rows))):
        print(f"{results} stays as it is: nothing has run, or not on the real data")
    elif results:
        _publish(picture, title, body, results)


def _as_markdown(lines: Sequence[Mapping[str, str]]) -> str:
    return table(list(lines[0]), [list(line.values()) for line in lines])


def _publish(picture: Path, title: str, body: str, results: Path) -> None:
    """Put the section into `results`, RESULTS.md; the picture and the tables of its runs into docs/ beside it."""
    (results.parent / "docs").mkdir(exist_ok=True)
    for path in (picture, picture.with_suffix(".csv"), *picture.parent.glob(SCORES)):
        with atomic_write(results.parent / "docs" / path.name) as beside:
            shutil.copyfile(path, beside)
    replace_section(results, title, body)
    print(f"Results: {results}")


def _print(title: str, lines: Sequence[Mapping[str, str]]) -> None:
    """Print what fits into 80 columns: table.md has the rest."""
    ends = {"published": " ±", "difference": " (", "verdict": ";"}
    shown = [name for name in lines[0] if name not in ("parameters", "seeds", "seconds", "against")]
    print_table(title, shown, [[line[name].partition(ends.get(name, "\n"))[0] for name in shown] for line in lines])


def _compare(rows: Mapping[str, Row], content: Mapping[str, Any]) -> list[Comparison]:
    """All comparisons of the table, also of rows that were not asked for: these have not yet run."""
    protocol, measured = content["protocol"], {}
    for name, entry in content["rows"].items():
        figures = rows[name].figures() if name in rows else NOTHING
        measured[name] = figures | {"set": data_set(entry)}
    return compare_all(measured, content["rows"], protocol)


def _sum_up(compared: Sequence[Comparison], entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Five lines that count the verdicts: what a teacher asks first."""
    words = [one.verdict() for one in compared if one.what == "accuracy"]
    count = {word: words.count(word) for word in ("equivalent", "different", "undecided", "not yet run")}
    others = [one.verdict() for one in compared if one.what != "accuracy"]
    more = ", ".join(f"{others.count(word)} {word}" for word in count)
    equivalent = [entries[one.row] for one in compared if one.what == "accuracy" and one.verdict() == "equivalent"]
    dead, dependent = (sum(key in entry for entry in equivalent) for key in ("dead", "continues"))
    return [
        f"- **{count['equivalent']} equivalent**, of {len(words)} published accuracies: shown, at 5 % risk each, to be "
        f"within a margin of ours that was written down before; {dead} of them of a network that never learned, "
        f"{dependent} not independent of another row.",
        f"- **{count['different']} different**: by more than chance makes, and not shown to lie within the margin.",
        f"- **{count['undecided']} undecided**: too few runs, or a published figure that is itself one lucky or "
        "unlucky run, to say either.",
        f"- **{count['not yet run']} not yet run** as often as the protocol asks for, and without a verdict; the same "
        "command goes on with them. While there are any, the others are provisional, as all rows tell of the spread.",
        f"- The labs' losses, last epochs and Keras beside us, judged the same way: {more}.",
    ]


def _row_line(row: Row, compared: Comparison | None) -> dict[str, str]:
    """A row's line in the table, beside what was published."""
    figure, difference, verdict = "-", "-", row.state()
    if row.published is not None:
        figure = f"{row.published:.2f}" + (f" ± {pstdev(row.folds):.2f}" if row.folds else "")
    if compared and compared.ours:
        difference, verdict = _interval(compared), _verdict(compared, row.entry)
    return {
        "row": row.name,
        "network": row.network(),
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "published": figure,
        "measured": row.measured(),
        "seeds": str(len(row.by_seed())),
        "difference": difference,
        "verdict": verdict + (f"; {row.entry['note']}" if "note" in row.entry else ""),
        "seconds": f"{row.seconds():,.0f}",
    }


def _interval(one: Comparison) -> str:
    """The difference and its 90 % interval: in points; of a loss in % of the published loss."""
    numbers = (one.value, *one.interval(0.9))
    if one.what == "loss":
        value, low, high = (f"{100 * math.expm1(number):+z.0f}" for number in numbers)
        return f"{value} % ({low} to {high})"
    value, low, high = (f"{number:+z.2f}" for number in numbers)
    return f"{value} ({low} to {high})"


def _verdict(one: Comparison, entry: Mapping[str, Any]) -> str:
    """The verdict; where it is undecided, with how many seeds would decide it; and the row that it depends on."""
    told = one.verdict()
    if told == "undecided" and math.isnan(one.freedom):
        told += "; nothing is known of its spread"
    elif told == "undecided":
        seeds = one.seeds_to_decide()
        told += f"; {'no number of seeds' if seeds is None else f'{seeds} seeds'} would decide"
    return told + (f"; not independent of {entry['continues']}" if "continues" in entry else "")


def _comparison_line(one: Comparison, entry: Mapping[str, Any]) -> dict[str, str]:
    """The line of a comparison of anything but our test accuracy."""
    theirs = f"{one.published:.4f}" if one.what == "loss" else f"{one.published:.2f}"
    names = {"loss": "test loss", "tail": "validation, last epochs", "Keras": "test accuracy, Keras beside it"}
    return {
        "row": one.row,
        "compared": names[one.what],
        "published": theirs,
        "seeds": str(one.seeds),
        "difference": _interval(one),
        "p, Holm": f"{one.corrected_p:.2g}",
        "verdict": _verdict(one, entry),
    }


def _rung_line(row: Row, effects: "Effects") -> dict[str, str]:
    """A row's line in a ladder, beside the rung, another row, that it stands on."""
    return {
        "network": row.name,
        "parameters": f"{row.parameters():,}" if row.parameters() else "-",
        "accuracy %": row.measured(),
        "seeds": str(len(row.by_seed())),
        "against": row.against or "-",
        "what it buys, points": effects.tell(row.name, row.against) if row.against else "-",
        "seconds": f"{row.seconds():,.0f}",
    }


class Effects:
    """All differences between rows that a table speaks of, by seed and fold; Holm's correction counts those not run."""

    def __init__(self, content: Mapping[str, Any], rows: Mapping[str, Row]) -> None:
        asked = [(name, entry["against"], "") for name, entry in content["rows"].items() if "against" in entry]
        for text in content.get("findings", ()):
            asked += re.findall(r"\{(\S+) minus ([^\s}]+)(?: (loss))?\}", text)
        self.known = {each: _paired(rows.get(each[0]), rows.get(each[1]), each[2]) for each in dict.fromkeys(asked)}
        if "protocol" in content:  # what a row's first seeds show is not what was asked for
            self.known = {each: known if _are_told(rows, *each[:2]) else ([], 0) for each, known in self.known.items()}
        p_values = [corrected_t(*known).p if len(known[0]) > 1 else 1.0 for known in self.known.values()]
        self.corrected = dict(zip(self.known, zip(holm(p_values), holm_levels(p_values), strict=True), strict=True))

    def tell(self, one: str, other: str, what: str = "") -> str:
        """The mean difference in accuracy, or in loss, with its interval, and whether it is more than chance makes."""
        differences, held_out = self.known[one, other, what]
        digits = 4 if what else 2
        if len(differences) < 2:
            return f"{differences[0]:+z.{digits}f} (one pair)" if differences else "-"
        p, level = self.corrected[one, other, what]
        estimate, word = corrected_t(differences, held_out, level), "real" if p < 0.05 else "undecided"
        value, low, high = (f"{number:+z.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
        return f"{value} ({low} to {high}, p = {p:.2g}: {word})"


def _are_told(rows: Mapping[str, Row], *names: str) -> bool:
    return all(name in rows and rows[name].is_told() for name in names)


def _paired(one: Row | None, other: Row | None, what: str) -> tuple[list[float], float]:
    """The differences by seed and fold, and how many images were held out for each that was trained on."""
    ours, theirs = (row.scores(what or "accuracy") if row else {} for row in (one, other))
    folds = len({fold for _, fold in ours})
    return [ours[key] - theirs[key] for key in ours if key in theirs], 1 / (folds - 1) if folds > 1 else 0


def _find(content: Mapping[str, Any], rows: Mapping[str, Row], effects: Effects) -> list[str]:
    """The findings of the table with their figures; those whose rows have not run whole are only counted."""
    findings = content.get("findings", ())
    told = [f"- {finding}" for finding in (_fill(text, rows, effects) for text in findings) if finding]
    if left_out := len(findings) - len(told):
        told.append(f"- Left out, as a row of theirs has not yet run: {left_out} of {len(findings)} findings.")
    return told


def _fill(text: str, rows: Mapping[str, Row], effects: Effects) -> str | None:
    """`text` with {E1}, {E1 range}, {A2 minus A1 loss}, {D10 medical} filled; None where a row has not run whole."""
    asked = [words.split() for words in re.findall(r"\{([^}]+)\}", text)]
    names = {word for words in asked for word in words if word not in ("range", "minus", "medical", "loss")}
    if not _are_told(rows, *names):
        return None
    return re.sub(r"\{([^}]+)\}", lambda match: _tell(rows, effects, *match[1].split()), text)


def _tell(rows: Mapping[str, Row], effects: Effects, name: str, what: str = "mean", *other: str) -> str:
    """What stands for {NAME WHAT OTHER} in a finding."""
    row, seeds = rows[name], rows[name].by_seed()
    if what == "minus":
        return effects.tell(name, *other) + ("" if "loss" in other else " points")
    if what == "range":
        return f"{min(seeds):.2f} to {max(seeds):.2f} %" if len(seeds) > 1 else f"{seeds[0]:.2f} % (one run)"
    if what == "medical":
        return _medical(row)
    return f"{row.measured()} %"


def _medical(row: Row) -> str:
    """AUC and balanced accuracy of two classes, the threshold chosen on the validation part."""
    areas, balances = ([line[key] for line in row.finished()] for key in ("auc", "balanced_accuracy"))
    if len(areas) == 1:
        return f"AUC {areas[0]:.4f}, balanced accuracy {balances[0]:.2%} with one seed"
    return (
        f"AUC {mean(areas):.4f} ± {stdev(areas):.4f}, balanced accuracy "
        f"{mean(balances):.2%} ± {stdev(balances):.2%} over {len(areas)} seeds"
    )


def _shown(row: Row) -> dict[str, Any]:
    """What the figure shows of a row."""
    has_network = row.entry["run"].startswith("model=") and not row.name.startswith(row.network())
    name = f"{row.name} {row.network()}" if has_network else row.name  # a rung has its network's, or its option's
    known = {"name": name, "scores": row.by_seed(), "published": row.published}
    return known | {"parameters": row.parameters(), "seconds": row.seconds()}


def _last_epochs(job: Job, epochs: int) -> float | None:
    """The mean validation accuracy in % of a job's last `epochs`; None for 0 of them, or where it validated fewer."""
    if not epochs:
        return None
    validated = [row["val_accuracy"] for row in read_history(job.folder) if "val_accuracy" in row]
    return 100 * mean(validated[-epochs:]) if len(validated) >= epochs else None


def _about(rows: Sequence[Row]) -> str:
    """On which machines and versions the runs were measured."""
    where = dict.fromkeys(line["machine"] for row in rows for line in row.finished())
    if not where:
        return "Nothing was run."
    sampled = any(map(Row.is_sampled, rows))
    warning = " **Some of it on a sample of the data: no measure of any network.**" if sampled else ""
    return f"Seeds from 1 on, one thread a run, {'; or '.join(where)}.{warning}"
