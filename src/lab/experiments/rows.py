"""A row of a table: its runs, here or told of by another table's CSV file, and what they measured."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, pstdev, stdev
from typing import Any

from lab.experiments.jobs import Job
from lab.runs.folder import read_history

NOTHING = {"accuracy": [], "loss": [], "tail": [], "Keras": []}  # of a row that has not run as often as asked
# what the CSV file tells of a finished run, by column
MEASURED = {"accuracy": float, "loss": float, "images": int, "train_accuracy": float, "epochs": int, "parameters": int}
MEASURED |= {"seconds": float, "machine": str, "data": str, "sha256": str}
OF_SOME = dict.fromkeys(("tail", "auc", "balanced_accuracy"), float)  # tail: of rows that have it; else: of two classes


def data_set(entry: Mapping[str, Any]) -> str:
    """The name under which a protocol has margins and seeds for a row: folds, or its data set."""
    return "folds" if "folds" in entry else dict(re.findall(r"(\bdata)=(\w+)", entry["run"])).get("data", "mnist")


@dataclass
class Row:
    """A row of the table with its runs.

    `entry` is what conf/table/ has of it: what train.py is told, "run"; perhaps the accuracy in % that was "published"
    and the "folds" that this is the mean of; a "note"; the row that it is compared "against"; the row that it
    "continues", with the same seeds. `earlier` has what runs measured elsewhere, by the name of the folder that they
    would have here.
    """

    name: str
    jobs: list[Job]
    entry: Mapping[str, Any]
    asked: int = 1  # seeds, by the table's protocol
    tail: int = 0  # the last epochs, whose validation accuracies are compared, too; 0: none
    keras: Callable[[], list[float]] = list  # reads the accuracies in % of Keras' seeds beside ours
    earlier: dict[str, Mapping[str, Any]] = field(default_factory=dict)

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
        return next((job.error() for job in self.jobs if not self.figures_of(job) and job.error()), None)

    def figures_of(self, job: Job) -> Mapping[str, Any]:
        """What the run measured, by the columns MEASURED and OF_SOME; empty before it has finished.

        The scores are the last epoch's on the test part, or on the fold held out.
        """
        if job.folder.name in self.earlier or (result := job.result()) is None:
            return self.earlier.get(job.folder.name, {})
        score = result["validation" if job.values["fold"] else "test"]["last"]
        versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        figures = {key: score[key] for key in ("accuracy", "loss", "images")} | {
            "train_accuracy": result["train"]["accuracy"],
            "epochs": result["epochs"],
            "parameters": result["parameters"]["total"],
            "seconds": result["seconds"],
            "machine": f"{result['machine']}; {versions}",
            "data": result["data"]["name"],
            "sha256": result["data"].get("sha256", ""),  # older versions did not say
        }
        if (tail := _last_epochs(job, self.tail)) is not None:
            figures["tail"] = tail
        if "threshold" in result:
            figures |= {"auc": result["auc"], "balanced_accuracy": result["threshold"]["balanced_accuracy"]}
        return figures

    def line(self, job: Job) -> dict[str, Any]:
        """The run's line in the CSV file: all that its row is judged by, and more."""
        line = {"row": self.name, "run": " ".join(job.overrides), **job.values, "published": self.published}
        figures = self.figures_of(job)
        return line | figures | {"error": "" if figures else job.error() or "", "folder": job.folder.name}

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
        seeds = list(self.by_whole_seed())[: 1 if self.folds else self.asked]  # of folds one, however many were asked
        if len(self.by_whole_seed()) < self.asked or self.is_sampled():
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


def _last_epochs(job: Job, epochs: int) -> float | None:
    """The mean validation accuracy in % of a job's last `epochs`; None for 0 of them, or where it validated fewer."""
    if not epochs:
        return None
    validated = [row["val_accuracy"] for row in read_history(job.folder) if "val_accuracy" in row]
    return 100 * mean(validated[-epochs:]) if len(validated) >= epochs else None
