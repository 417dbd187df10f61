"""Which labels are probably wrong: confident learning (Northcutt, Jiang and Chuang, 2021), pruned by noise rate.

Forty lines on numpy; cleanlab, with which tests/test_check_labels.py compares them, would bring pandas along.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_PROBED = 30  # labels, of few; of many one in a hundred
ROUNDING = 1e-6  # of probabilities, against a threshold that is their mean


@dataclass
class Suspects:
    """Rows of the images whose labels are probably wrong, the surest first."""

    rows: npt.NDArray[np.int64]  # [suspects], into the labels
    suggested: npt.NDArray[np.int64]  # [suspects], the class that the network names
    margins: npt.NDArray[np.float64]  # [suspects], its probability less that of the label
    expected: npt.NDArray[np.float64]  # [classes, classes], images by label and class that they are thought to be of


def find_suspects(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> Suspects:
    """Of `labels` [n], where networks that were not trained on these images give `probabilities` [n, classes].

    Of each pair of classes as many are suspects as are expected, those of the largest margin; never one where the
    network names the label itself.
    """
    everyone, expected = np.arange(len(labels)), expect(labels, probabilities)
    margins = probabilities - probabilities[everyone, labels][:, None]
    chosen = np.zeros(len(labels), bool)
    for (label, other), count in np.ndenumerate(np.rint(expected).astype(int)):
        if label != other and count:
            members = np.flatnonzero(labels == label)
            chosen[members[np.argsort(-margins[members, other], kind="stable")[:count]]] = True
    rows = np.flatnonzero(chosen & (margins.max(1) > 0))
    rows = rows[np.argsort(-margins[rows].max(1), kind="stable")]
    return Suspects(rows, probabilities[rows].argmax(1), margins[rows].max(1), expected)


def probe(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Of some labels that are changed at random the share that become suspects, and of all others: what these tell.

    The networks have trained on none of these images: a label that is changed afterwards changes no probability.
    """
    random, (n, classes) = np.random.default_rng(1), probabilities.shape
    chosen = random.choice(n, max(min(max(n // 100, LEAST_PROBED), n // 10), 1), replace=False)
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + random.integers(1, classes, len(chosen))) % classes
    is_chosen, is_suspect = np.zeros((2, n), bool)
    is_chosen[chosen] = True
    is_suspect[find_suspects(wrong, probabilities).rows] = True
    return float(is_suspect[is_chosen].mean()), float(is_suspect[~is_chosen].mean())


def expect(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many images of each label [classes, classes] are expected to be of each class: the calibrated joint.

    An image counts for the likeliest class of those that it is as sure of as images with that label are on average.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    means = [probabilities[labels == k, k].mean() if counts[k] else np.inf for k in range(classes)]
    sure = np.where(probabilities >= np.array(means) - ROUNDING, probabilities, -1.0)
    is_sure = sure.max(1) > -1
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[is_sure], sure[is_sure].argmax(1)), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))  # a class is never thought wrong as a whole
    return joint / joint.sum(1, keepdims=True) * counts[:, None]
