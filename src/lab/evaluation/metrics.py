"""Metrics of predictions: accuracy, confusions, precision and recall of each class, calibration, a threshold."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from lab.evaluation.significance import accuracy_interval
from lab.runs.predictions import Predictions

BINS = 15  # of calibration
SHOWN = 5  # pairs of classes


def evaluate(predictions: Predictions, validation: Predictions | None = None) -> dict[str, Any]:
    """Metrics of `predictions`, as JSON has them; what is undefined, as of a class without images, is None.

    With two classes also the AUC, and the metrics at the threshold that is best on `validation`.
    """
    probabilities, labels = predictions.probabilities(), predictions.labels
    numbers, names = np.arange(len(predictions.classes)), predictions.classes.tolist()
    predicted, right = predictions.logits.argmax(1), predictions.correct()
    matrix = confusion_matrix(labels, predicted, labels=numbers)
    by_class = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=np.nan)
    metrics = {
        "images": len(labels),
        "loss": predictions.loss(),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.nanmean(np.where(by_class[3] > 0, by_class[1], np.nan))),
        "macro_f1": float(np.nanmean(by_class[2])),
        "accuracy_interval": accuracy_interval(int(right.sum()), len(labels)),
        "classes": {
            name: {"precision": _plain(precision), "recall": _plain(recall), "f1": _plain(f1), "images": int(images)}
            for name, precision, recall, f1, images in zip(names, *by_class, strict=True)
        },
        "confusion": matrix.tolist(),
        "confused": _confused(matrix, names),
        "calibration": calibration(probabilities.max(1), right),
    }
    if len(numbers) == 2 and len(np.unique(labels)) == 2:
        metrics["auc"] = float(roc_auc_score(labels, probabilities[:, 1]))
        if validation is not None and len(np.unique(validation.labels)) == 2:
            metrics["threshold"] = at_threshold(predictions, choose_threshold(validation))
    return metrics


def choose_threshold(validation: Predictions) -> float:
    """The probability from which on the second of two classes is chosen: the best in balanced accuracy."""
    false_positives, true_positives, thresholds = roc_curve(validation.labels, validation.probabilities()[:, 1])
    return float(min(thresholds[np.argmax(true_positives - false_positives)], 1.0))


def at_threshold(predictions: Predictions, threshold: float) -> dict[str, float]:
    """Metrics where the second of two classes is chosen from a probability of `threshold` on."""
    chosen, labels = predictions.probabilities()[:, 1] >= threshold, predictions.labels == 1
    return {
        "threshold": threshold,
        "accuracy": float((chosen == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, chosen)),
        "sensitivity": float(chosen[labels].mean()),
        "specificity": float((~chosen[~labels]).mean()),
    }


def worst_mistakes(predictions: Predictions, count: int) -> npt.NDArray[np.int64]:
    """The numbers of at most `count` wrong predictions, the surest first."""
    wrong = np.flatnonzero(~predictions.correct())
    return wrong[np.argsort(-predictions.probabilities()[wrong].max(1), kind="stable")][:count]


def _confused(matrix: npt.NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    """Each pair of classes that is confused and how often, the most often first."""
    pairs = [
        {"class": names[row], "read_as": names[column], "times": int(count)}
        for (row, column), count in np.ndenumerate(matrix)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: -pair["times"])


def calibration(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """How far the accuracy lies from the probability of the class chosen, in bins of equal width (Guo et al., 2017).

    `confidence` [n] is that probability, `right` [n] whether it is the right class.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    filled = images > 0
    means = [np.bincount(bins, values, BINS)[filled] / images[filled] for values in (confidence, right)]
    error = np.abs(means[0] - means[1]) @ images[filled] / len(right)
    return {
        "expected_calibration_error": float(error),
        "bin_width": 1 / BINS,
        "bins": [
            {"from": number / BINS, "images": int(images[number]), "confidence": float(said), "accuracy": float(held)}
            for number, said, held in zip(np.flatnonzero(filled).tolist(), *means, strict=True)
        ],
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def print_confused(evaluation: dict[str, Any]) -> None:
    """Print the pairs of classes that are most often confused."""
    told = []
    for pair in evaluation["confused"][:SHOWN]:
        times = "once" if pair["times"] == 1 else f"{pair['times']:,} times"
        told.append(f"{pair['class']} read as {pair['read_as']}: {times}")
    print(f"Most confused: {', '.join(told)}" if told else "No image was read as another class.")
