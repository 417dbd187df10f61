"""The rule by which measured figures are compared with published ones: a table's `protocol`, of conf/table/."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, variance
from typing import Any

from scipy.stats import t

from lab.evaluation.significance import holm, moderate

MOST_SEEDS = 1000


@dataclass
class Comparison:
    """A published figure and what was measured; their difference in points, or in logarithms of a loss."""

    row: str
    what: str  # accuracy, loss, tail, Keras
    published: float  # as it is printed; of Keras the mean
    margin: float
    rounding: float  # half the last digit that is printed
    ours: Sequence[float] = ()  # a figure a seed, or the difference of each fold; empty: not yet run
    theirs: Sequence[float] = ()  # a figure a seed, of Keras; empty: the published figure is one draw
    value: float = math.nan  # the difference, ours less theirs
    freedom: float = 0.0  # degrees of freedom of its standard error; nan: nothing is known of it, there is no verdict
    error: Callable[[int], float] = lambda seeds: math.nan  # its standard error, with so many seeds
    seeds: int = 0
    comparisons: int = 1  # how many are judged together
    corrected_p: float = 1.0  # by Holm, for all of these

    def interval(self, confidence: float, seeds: int | None = None) -> tuple[float, float]:
        """That of the difference; with `seeds`, were there so many of the same spread."""
        seeds = seeds or self.seeds
        half = float(t.ppf((1 + confidence) / 2, self._freedom(seeds))) * self.error(seeds) + self.rounding
        return self.value - half, self.value + half

    def p(self, seeds: int | None = None) -> float:
        """The probability of a difference as large by chance; with `seeds`, were there so many of the same spread."""
        if not self.ours:
            return 1.0
        beyond = max(abs(self.value) - self.rounding, 0)
        seeds = seeds or self.seeds
        error, freedom = self.error(seeds), self._freedom(seeds)
        if math.isnan(freedom):
            return 1.0
        return 2 * float(t.sf(beyond / error, freedom)) if error else float(beyond == 0)

    def is_equivalent(self, seeds: int | None = None) -> bool:
        """Two one-sided tests at 5 %: the 90 % interval lies within the margin."""
        low, high = self.interval(0.9, seeds)
        return -self.margin < low and high < self.margin

    def _freedom(self, seeds: int) -> float:
        return self.freedom + (seeds - self.seeds) * (2 if self.theirs else 1)

    def verdict(self) -> str:
        """One of equivalent, different, undecided, not yet run."""
        if not self.ours:
            return "not yet run"
        if self.is_equivalent():
            return "equivalent"
        return "different" if self.corrected_p < 0.05 else "undecided"

    def seeds_to_decide(self) -> int | None:
        """How many seeds would decide it, were the true difference and spread those seen; None: no number would."""
        for seeds in range(self.seeds + 1, MOST_SEEDS + 1):
            if self.is_equivalent(seeds) or self.p(seeds) * self.comparisons < 0.05:
                return seeds
        return None


def compare_all(
    measured: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]], protocol: Mapping[str, Any]
) -> list[Comparison]:
    """Every comparison that the table's `entries` ask for, judged together.

    `measured` has of each row the scores "accuracy", "loss", "tail" and "Keras", in the order of seeds, with folds the
    first seed's, empty where fewer seeds have run than the protocol asks for; and "set", its data set.
    """
    found = []
    for row, entry in entries.items():
        kind, scores = measured[row]["set"], measured[row]
        margin = protocol["margins"].get(kind, 0)
        if "published" in entry:
            digit = 0.0005 if "folds" in entry else 0.005
            found.append(Comparison(row, "accuracy", entry["published"], margin, digit, scores["accuracy"]))
        if "loss" in entry:
            near, digit = math.log(protocol["margins"]["loss"]), 0.00005 / entry["loss"]
            logs = [math.log(loss) for loss in scores["loss"]]
            found.append(Comparison(row, "loss", entry["loss"], near, digit, logs))
        if "tail" in entry:
            found.append(Comparison(row, "tail", entry["tail"], margin, 0.005, scores["tail"]))
        if "keras" in entry:
            ours = scores["accuracy"] if len(scores["Keras"]) >= len(scores["accuracy"]) > 1 else ()
            theirs = scores["Keras"][: len(ours)]
            found.append(Comparison(row, "Keras", mean(theirs or [math.nan]), margin, 0.0, ours, theirs))
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for one in found:
        if one.ours:
            groups.setdefault((one.what, measured[one.row]["set"]), []).append(one)
    for (what, kind), group in groups.items():
        _estimate(what, kind, group)
    for one, p in zip(found, holm([one.p() for one in found]), strict=True):
        one.corrected_p, one.comparisons = p, len(found)
    return found


def _estimate(what: str, kind: str, group: Sequence[Comparison]) -> None:
    """Set value, error and degrees of freedom of comparisons of one data set, which all tell of the spread."""
    if what == "Keras":
        for one in group:
            _compare_samples(one)
        return
    own = [variance(one.ours) if len(one.ours) > 1 else 0.0 for one in group]
    moderated, freedoms = moderate(own, [len(one.ours) - 1 for one in group])
    for one, s2, freedom in zip(group, moderated, freedoms, strict=True):
        one.freedom = freedom or math.nan  # one seed in all: nothing is known of its spread
        count, one.value = len(one.ours), mean(one.ours)
        if kind == "folds":  # differences by fold; Nadeau and Bengio, of one seed; half their variance is ours
            one.seeds = 1
            of_mean = s2 * (1 / count + 1 / (count - 1))
            one.error = lambda seeds, s2=of_mean: math.sqrt(s2 * (1 + 1 / seeds) / 2)
        else:
            one.seeds = count
            one.value -= math.log(one.published) if what == "loss" else one.published
            one.error = lambda seeds, s2=s2: math.sqrt(s2 * (1 + 1 / seeds))


def _compare_samples(one: Comparison) -> None:
    """Set value, error and degrees of freedom of our seeds beside Keras': Welch's t."""
    ours, theirs = variance(one.ours), variance(one.theirs)
    one.seeds, one.value = len(one.ours), mean(one.ours) - mean(one.theirs)
    one.error = lambda seeds: math.sqrt((ours + theirs) / seeds)
    spread = ours**2 + theirs**2
    one.freedom = (one.seeds - 1) * (ours + theirs) ** 2 / spread if spread else math.nan


def tell(protocol: Mapping[str, Any] | None) -> list[str]:
    """The protocol in words, none of a table without one."""
    if protocol is None:
        return []
    names = {"mnist": "MNIST", "pneumonia": "chest X-rays", "cifar4": "CIFAR4", "folds": "five folds"}
    rules = []
    for kind, allowed in protocol["seeds"].items():
        steps = sorted(allowed.items())
        if len(steps) == 1:
            rules.append(f"{steps[0][1]} ({names[kind]})")
        else:
            told = [f"{seeds} up to {seconds:,} s a seed" for seconds, seeds in steps[:-1]]
            rules.append(f"{', '.join(told)}, else {steps[-1][1]} ({names[kind]})")
    known = {"margins": protocol["margins"], "tail": protocol["tail"], "seeds": "; ".join(rules)}
    return [text.format(**known) for text in protocol["text"]]
