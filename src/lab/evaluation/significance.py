"""How sure a figure is, and whether two differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95


@dataclass
class Estimate:
    """A mean or a difference, its 95 % interval, and the probability of one as large where there is none."""

    value: float
    low: float
    high: float
    p: float


def accuracy_interval(correct: int, images: int) -> tuple[float, float]:
    """Wilson's score interval of a fraction (Wilson, 1927)."""
    interval = stats.binomtest(correct, images).proportion_ci(CONFIDENCE, "wilson")
    return float(interval.low), float(interval.high)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of `values`, one a round, and its 95 % interval, by bootstrap percentiles (Efron, 1979)."""
    middle = float(np.median(values))
    if len(values) == 1:
        return middle, middle, middle
    interval = stats.bootstrap(
        (values,), np.median, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    return middle, float(interval.low), float(interval.high)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], confidence: float = CONFIDENCE) -> Estimate:
    """By how much the accuracy of `first` exceeds that of `second`, right or wrong on the same images [n].

    McNemar's exact test (1947): of the images on which one alone is right, each is right on half. The interval is
    Clopper and Pearson's of that half, so that it excludes 0 where p is below 1 - `confidence`.
    """
    ours, theirs = int((first & ~second).sum()), int((second & ~first).sum())
    if ours + theirs == 0:
        return Estimate(0.0, 0.0, 0.0, 1.0)
    test = stats.binomtest(ours, ours + theirs)
    share, scale = test.proportion_ci(confidence, "exact"), (ours + theirs) / len(first)
    low, high = (float(2 * bound - 1) * scale for bound in (share.low, share.high))
    return Estimate((ours - theirs) / len(first), low, high, float(test.pvalue))


def corrected_interval(
    values: Sequence[float], test_per_train: float, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """The mean of `values`, one a fold, and its interval.

    `test_per_train` images were held out for each that was trained on. Nadeau and Bengio's t (2003): folds share images
    to train on, so that the plain variance is too small.
    """
    mean, folds = float(np.mean(values)), len(values)
    half = stats.t.ppf((1 + confidence) / 2, folds - 1) * _corrected_error(values, test_per_train)
    return mean, mean - half, mean + half


def corrected_t(differences: Sequence[float], test_per_train: float, confidence: float = CONFIDENCE) -> Estimate:
    """Whether the mean of `differences`, one a fold, is more than chance; see corrected_interval."""
    mean, low, high = corrected_interval(differences, test_per_train, confidence)
    error, folds = _corrected_error(differences, test_per_train), len(differences)
    if error > 1e-12:  # of rounding
        return Estimate(mean, low, high, float(2 * stats.t.sf(abs(mean / error), folds - 1)))
    # all alike: t is undefined, the sign test is not; where it finds nothing, the interval must not exclude 0
    p = float(stats.binomtest(folds, folds).pvalue) if abs(mean) > 1e-12 else 1.0
    return Estimate(mean, mean, mean, p) if p < 1 - confidence else Estimate(mean, min(mean, 0.0), max(mean, 0.0), p)


def _corrected_error(values: Sequence[float], test_per_train: float) -> float:
    return float(np.std(values, ddof=1) * np.sqrt(1 / len(values) + test_per_train))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same, corrected for their number (Holm, 1979)."""
    p = np.asarray(p_values)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected.tolist()


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The confidence of each one's interval with which it excludes 0 where Holm's correction finds a difference."""
    order, count = np.argsort(p_values), len(p_values)
    allowed = (1 - CONFIDENCE) / np.arange(count, 0, -1)
    failed = np.flatnonzero(np.asarray(p_values)[order] >= allowed)
    if len(failed):  # Holm's goes no further
        allowed[failed[0] :] = allowed[failed[0]]
    levels = np.empty(count)
    levels[order] = 1 - allowed
    return levels.tolist()
