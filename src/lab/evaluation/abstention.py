"""When a network should name several classes, or none: a temperature, conformal thresholds, a limit to strangeness."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.cluster import MiniBatchKMeans

from lab.evaluation.metrics import calibration
from lab.runs.predictions import TINY

MOST_TEMPERATURE = 20.0  # and its inverse is the least
UNKNOWN = 0.01  # of the images that it is set on: what is stranger by a measure than the rest is answered `unknown`
TYPICAL, TYPICAL_OF_A_CLASS = 1000, 50  # features, at most

Probabilities = npt.NDArray[np.float64]  # [n, classes]


@dataclass
class Abstention:
    """How answers are made of probabilities and a strangeness, as plain numbers that travel with the network."""

    coverage: float  # the share of each class's images whose set of classes holds the right one
    temperature: float  # by which logits are divided
    least: list[float]  # of each class: the calibrated probability from which on it is in the set; 0: always
    most_strange: list[float]  # by each measure: above any an image is unknown

    def sets(self, probabilities: Probabilities, strangeness: npt.NDArray) -> npt.NDArray[np.bool_]:
        """Which classes cannot be excluded, [n, classes]; none where the image is unknown."""
        known = (strangeness <= np.array(self.most_strange)).all(1)  # not a number is not known
        return (soften(probabilities, self.temperature) >= np.array(self.least)) & known[:, None]


def soften(probabilities: npt.NDArray, temperature: float) -> Probabilities:
    """The same with logits divided by `temperature`: above 1 less sure (Guo et al., 2017)."""
    return np.exp(log_softmax(np.log(np.maximum(probabilities, TINY), dtype=np.float64) / temperature, 1))


def set_abstention(
    probabilities: npt.NDArray, strangeness: npt.NDArray, labels: npt.NDArray, coverage: float
) -> Abstention:
    """Set on images that the network was not trained on.

    Of them its probabilities [n, classes], their strangeness [n, measures] and labels [n]. The coverage holds as if the
    temperature, and the epoch where one was chosen, had not been fitted to these same images: nearly, of many.
    """
    temperature = fit_temperature(probabilities, labels)
    least = conformal_thresholds(soften(probabilities, temperature), labels, coverage)
    most_strange = np.quantile(strangeness, 1 - UNKNOWN, axis=0, method="higher")
    return Abstention(coverage, temperature, least, most_strange.tolist())


def find_typical(features: npt.NDArray, labels: npt.NDArray, seed: int) -> npt.NDArray[np.float32]:
    """Of unit length [k, d]: the centres of each class's clusters of features [n, d], whose lengths do not matter."""
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), TINY)
    classes, centres = np.unique(labels), []
    most = max(1, min(TYPICAL_OF_A_CLASS, TYPICAL // len(classes)))
    for number in classes:
        of_class = features[labels == number]
        clusters = MiniBatchKMeans(min(most, len(of_class)), random_state=seed, n_init=1, max_iter=20)
        centres.append(clusters.fit(of_class).cluster_centers_)
    centres = np.concatenate(centres)
    return (centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), TINY)).astype(np.float32)


def fit_temperature(probabilities: npt.NDArray, labels: npt.NDArray) -> float:
    """The one with the least mean cross-entropy, under a prior that weighs as little as an image: log T is normal.

    Without that it would be the smallest of all where few images are all answered right.
    """
    logits, rows = np.log(np.maximum(probabilities, TINY), dtype=np.float64), np.arange(len(labels))

    def loss(logarithm: float) -> float:
        prior = logarithm**2 / (2 * len(labels))
        return prior - float(log_softmax(logits / math.exp(logarithm), 1)[rows, labels].mean())

    most = math.log(MOST_TEMPERATURE)
    return math.exp(minimize_scalar(loss, bounds=(-most, most), method="bounded").x)


def conformal_thresholds(probabilities: npt.NDArray, labels: npt.NDArray, coverage: float) -> list[float]:
    """Of each class the least probability that puts it into an answer's set (Mondrian; Sadinle et al., 2019).

    A new image of a class then has it in its set with a probability of at least `coverage`, whatever the network, if it
    comes from where these come from: a class each, the ceil((n + 1) coverage)-th largest probability of its n images.
    Of too few images it would be the (n + 1)-th: 0, the class is in every set.
    """
    least = []
    for number in range(probabilities.shape[1]):
        of_class = np.sort(probabilities[labels == number, number])[::-1]
        rank = math.ceil((len(of_class) + 1) * coverage - 1e-9)  # 100 * 0.99 is 99, not a rounding error more
        least.append(float(of_class[rank - 1]) if rank <= len(of_class) else 0.0)
    return least


def images_needed(coverage: float) -> int:
    """Of a class, below which it is in every set."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def judge(
    abstention: Abstention, probabilities: npt.NDArray, strangeness: npt.NDArray, labels: npt.NDArray
) -> dict[str, Any]:
    """What it gives on images with known labels [n]: plain values; the unknown count as not covered."""
    sets, numbers = abstention.sets(probabilities, strangeness), np.arange(probabilities.shape[1])
    covered = sets[np.arange(len(labels)), labels]
    by_class = {int(c): float(covered[labels == c].mean()) for c in numbers if (labels == c).any()}
    conformal = soften(probabilities, abstention.temperature) >= np.array(abstention.least)
    right = probabilities.argmax(1) == labels
    sure = {"before": probabilities.max(1), "after": soften(probabilities, abstention.temperature).max(1)}
    return {
        "images": len(labels),
        "coverage_of_sets": float(conformal[np.arange(len(labels)), labels].mean()),
        "least_coverage_of_a_class": float(
            min(conformal[labels == c, c].mean() for c in numbers if (labels == c).any())
        ),
        "classes_in_a_set": float(conformal.sum(1).mean()),
        "unknown": float((~sets.any(1)).mean()),
        "coverage": float(covered.mean()),
        "coverage_by_class": by_class,
        "calibration_error": {
            key: calibration(shares, right)["expected_calibration_error"] for key, shares in sure.items()
        },
    }
