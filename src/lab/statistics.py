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


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Estimate:
    """By how much the accuracy of `first` exceeds that of `second`, right or wrong on the same images [n].

    McNemar's exact test (1947): of the images on which one alone is right, each is right on half. The interval is
    Clopper and Pearson's of that half, so that it excludes 0 where p is below 0.05.
    """
    ours, theirs = int((first & ~second).sum()), int((second & ~first).sum())
    if ours + theirs == 0:
        return Estimate(0.0, 0.0, 0.0, 1.0)
    test = stats.binomtest(ours, ours + theirs)
    share, scale = test.proportion_ci(CONFIDENCE, "exact"), (ours + theirs) / len(first)
    low, high = (float(2 * bound - 1) * scale for bound in (share.low, share.high))
    return Estimate((ours - theirs) / len(first), low, high, float(test.pvalue))


def corrected_t(differences: Sequence[float], test_per_train: float) -> Estimate:
    """The mean of `differences`, one a fold; `test_per_train` images were held out for each that was trained on.

    Nadeau and Bengio's t (2003): folds share images to train on, so that the plain variance is too small.
    """
    mean, spread, folds = np.mean(differences), np.std(differences, ddof=1), len(differences)
    error = spread * np.sqrt(1 / folds + test_per_train)
    if spread <= 1e-12:  # of rounding
        return Estimate(float(mean), float(mean), float(mean), float(abs(mean) <= 1e-12))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, folds - 1) * error
    p = 2 * stats.t.sf(abs(mean / error), folds - 1)
    return Estimate(float(mean), float(mean - half), float(mean + half), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same, corrected for their number (Holm, 1979)."""
    p = np.asarray(p_values)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected.tolist()
