"""Confidence intervals of accuracies, tests whether two differ, corrections for many tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

CONFIDENCE = 0.95
MARGIN = 0.0025  # of accuracy: less is no difference that matters


@dataclass
class Estimate:
    """A difference, its interval, and p, the probability of one as large by chance."""

    value: float
    low: float
    high: float
    p: float

    @property
    def is_equivalent(self) -> bool:
        """Of a difference in accuracy: whether the interval lies within the margin."""
        return self.low > -MARGIN and self.high < MARGIN

    @property
    def is_worse(self) -> bool:
        """Whether it is surely below 0, by what may matter."""
        return self.high < 0 and not self.is_equivalent

    def points(self) -> tuple[float, float, float]:
        """The difference and its interval, in percentage points."""
        return 100 * self.value, 100 * self.low, 100 * self.high


def accuracy_interval(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of the accuracy: Wilson's score interval (1927)."""
    interval = stats.binomtest(correct, images).proportion_ci(CONFIDENCE, "wilson")
    return float(interval.low), float(interval.high)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of `values`, one a round, and its 95 % interval: bootstrap percentiles (Efron, 1979)."""
    middle = float(np.median(values))
    if len(values) == 1:
        return middle, middle, middle
    interval = stats.bootstrap(
        (values,), np.median, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    return middle, float(interval.low), float(interval.high)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], confidence: float = CONFIDENCE) -> Estimate:
    """By how much the accuracy of `first` exceeds that of `second`, right or wrong on the same images [n].

    McNemar's exact test (1947): by chance each is right on half of the images on which only one is right. The interval
    is Agresti and Min's (2005); where the test finds no difference at 1 - `confidence` it holds 0, else it does not.
    """
    ours, theirs, images = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    more, less = ours + 0.5, theirs + 0.5
    middle = (more - less) / (images + 2)
    variance = max((more + less) / (images + 2) - middle**2, 0) / (images + 2)
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(variance)
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    if ours == theirs:
        return Estimate(0.0, low, high, 1.0)
    test = stats.binomtest(ours, ours + theirs)
    if test.pvalue >= 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:  # the test's own bound instead, of the share among the images on which one is right
        share = test.proportion_ci(confidence, "exact")
        bounds = [float(2 * bound - 1) * (ours + theirs) / images for bound in (share.low, share.high)]
        low, high = (bounds[0], high) if ours > theirs else (low, bounds[1])
    return Estimate((ours - theirs) / images, low, high, float(test.pvalue))


def corrected_t(differences: Sequence[float], test_per_train: float, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of `differences`, one a fold, with its interval and p: Nadeau and Bengio's corrected t (2003).

    Folds share images to train on, so that the plain variance is too small. `test_per_train` images were held out for
    each that was trained on.
    """
    mean, folds, error = float(np.mean(differences)), len(differences), _corrected_error(differences, test_per_train)
    if error > 1e-12:  # of rounding
        half = stats.t.ppf((1 + confidence) / 2, folds - 1) * error
        return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean / error), folds - 1)))
    # all alike: t is undefined, the sign test is not; where it finds nothing, the interval must not exclude 0
    p = float(stats.binomtest(folds, folds).pvalue) if abs(mean) > 1e-12 else 1.0
    return Estimate(mean, mean, mean, p) if p < 1 - confidence else Estimate(mean, min(mean, 0.0), max(mean, 0.0), p)


def crossed_t(differences: npt.ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of `differences`, [runs, images], with its interval and p, were other runs and other images drawn.

    Each run is scored on the same images: a two-way analysis of variance with random effects, t with Satterthwaite's
    degrees of freedom (1946).
    """
    table = np.asarray(differences, float)
    of_runs, of_images, mean = table.mean(1), table.mean(0), float(table.mean())
    runs, images = table.shape
    rest = table - of_runs[:, None] - of_images + mean
    both = float((rest**2).sum()) / ((runs - 1) * (images - 1) * table.size)  # is a part of each of the others
    parts = np.array([np.var(of_runs, ddof=1) / runs, np.var(of_images, ddof=1) / images, both])
    variance = float(max(parts[0] + parts[1] - both, parts[0], parts[1]))
    if variance < 1e-24:  # all alike
        return corrected_t(of_runs.tolist(), 0.0, confidence)
    freedom = variance**2 / (parts**2 / [runs - 1, images - 1, (runs - 1) * (images - 1)]).sum()
    half = stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), freedom)))


def _corrected_error(values: Sequence[float], test_per_train: float) -> float:
    return float(np.std(values, ddof=1) * np.sqrt(1 / len(values) + test_per_train))


def corrected_accuracy_interval(
    accuracies: Sequence[float], test_per_train: float, images: int
) -> tuple[float, float, float]:
    """The mean of `accuracies`, fractions, one a fold, and its 95 % interval, which stays within 0 and 1.

    As corrected_t, but on the scale of the log odds (delta method); where all are alike, which tells nothing of their
    spread, Wilson's for all `images` held out.
    """
    mean, folds = float(np.mean(accuracies)), len(accuracies)
    error = _corrected_error(accuracies, test_per_train)
    if not 0 < mean < 1 or error < 1e-12:
        return mean, *accuracy_interval(round(mean * images), images)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, folds - 1) * error / (mean * (1 - mean))
    low, high = special.expit(special.logit(mean) + np.array([-half, half]))
    return mean, float(low), float(high)


def moderate(variances: Sequence[float], freedoms: Sequence[float]) -> tuple[list[float], list[float]]:
    """The variances of several samples, each moved towards their common value, and their degrees of freedom.

    Empirical Bayes (Smyth, 2004; limma's squeezeVar): the more the samples agree, the more the common value counts.
    """
    s2, own = np.asarray(variances, float), np.asarray(freedoms, float)
    known = (s2 > 0) & (own > 0)
    if known.sum() < 2:
        return s2.tolist(), own.tolist()
    half = own[known] / 2
    logs = np.log(s2[known]) - special.digamma(half) + np.log(half)
    excess = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, half)))
    if excess <= 0:  # no more apart than samples of one variance are
        return [float(np.average(s2[known], weights=own[known]))] * len(s2), [float(own.sum())] * len(s2)
    prior = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-8, 1e12)
    common = np.exp(np.mean(logs) + special.digamma(prior / 2) - np.log(prior / 2))
    weighed = (prior * common + own * s2) / (prior + own)
    return weighed.tolist(), np.minimum(prior + own, own.sum()).tolist()


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for how many they are (Holm, 1979)."""
    p = np.asarray(p_values)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected.tolist()


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """A confidence level for the interval of each: with it the interval excludes 0 where Holm's p is below 5 %."""
    order, count = np.argsort(p_values), len(p_values)
    allowed = (1 - CONFIDENCE) / np.arange(count, 0, -1)
    failed = np.flatnonzero(np.asarray(p_values)[order] >= allowed)
    if len(failed):  # Holm's goes no further
        allowed[failed[0] :] = allowed[failed[0]]
    levels = np.empty(count)
    levels[order] = 1 - allowed
    return levels.tolist()
