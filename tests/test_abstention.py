"""When it does not know it says so: a temperature, sets of classes, `unknown`."""

import json
import math

import numpy as np
import pytest
from crepes import ConformalClassifier
from crepes.extras import hinge
from scipy.special import softmax

import predict
from lab.evaluation.abstention import (
    conformal_thresholds,
    find_typical,
    fit_temperature,
    images_needed,
    judge,
    set_abstention,
    soften,
)


def made(n, seed, classes=4):
    """Probabilities of a network that is right most often, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    logits = random.normal(0, 1.5, (n, classes))
    logits[np.arange(n), labels] += 2
    return softmax(logits, 1), labels


def test_sets_are_those_of_crepes():
    known, labels = made(600, 1)
    new, _ = made(300, 2)
    theirs = ConformalClassifier()
    theirs.fit(hinge(known, np.arange(4), labels), bins=labels)
    for coverage in (0.8137, 0.9111, 0.9573):  # of which no share of images is exactly
        wanted = [
            theirs.predict_set(hinge(new), bins=np.full(len(new), number), confidence=coverage, smoothing=False)[
                :, number
            ]
            for number in range(4)
        ]
        found = new >= np.array(conformal_thresholds(known, labels, coverage))
        assert (found == np.stack(wanted, 1).astype(bool)).all(), coverage


def test_the_threshold_of_nineteen_images_is_the_last_at_95_percent():
    shares = np.linspace(0.05, 0.95, 19)
    probabilities, labels = np.stack([shares, 1 - shares], 1), np.zeros(19, int)
    assert conformal_thresholds(probabilities, labels, 0.95)[0] == pytest.approx(0.05)
    assert conformal_thresholds(probabilities[:18], labels[:18], 0.95)[0] == 0  # too few: in every set
    assert images_needed(0.95) == 19 and images_needed(0.99) == 99


def test_each_class_is_covered_as_asked_on_new_images():
    known, labels = made(40_000, 3)
    abstention = set_abstention(known, np.zeros((len(known), 1)), labels, 0.9)
    found = judge(abstention, *(new := made(40_000, 4))[:1], np.zeros((40_000, 1)), new[1])
    assert found["coverage"] == pytest.approx(0.9, abs=0.01) and found["least_coverage_of_a_class"] > 0.88


def test_the_temperature_that_was_put_in_is_found():
    random = np.random.default_rng(5)
    probabilities = softmax(random.normal(0, 2, (50_000, 3)), 1)
    labels = (probabilities.cumsum(1) > random.random((50_000, 1))).argmax(1)
    too_sure = soften(probabilities, 1 / 2.5)
    assert fit_temperature(too_sure, labels) == pytest.approx(2.5, rel=0.05)
    found = judge(set_abstention(too_sure, np.zeros((50_000, 1)), labels, 0.9), too_sure, np.zeros((50_000, 1)), labels)
    assert found["calibration_error"]["after"] < 0.02 < found["calibration_error"]["before"]


def test_few_images_that_are_all_right_make_no_network_surer_than_it_is():
    probabilities = softmax(np.eye(3)[np.arange(30) % 3] * 8, 1)
    assert fit_temperature(probabilities, np.arange(30) % 3) == pytest.approx(1, abs=0.2)


def test_typical_features_are_of_each_class_and_of_unit_length():
    random = np.random.default_rng(6)
    features, labels = random.normal(0, 1, (300, 5)), np.arange(300) % 3
    typical = find_typical(features, labels, 1)
    assert typical.shape == (150, 5) and np.allclose(np.linalg.norm(typical, axis=1), 1)
    assert len(find_typical(features[:6], labels[:6], 1)) == 6


HOW = {"coverage": 0.9, "temperature": 2.0, "least": [0.3, 0.3, 0.9], "most_strange": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("probabilities", "strangeness", "doubts", "said"),
    [
        ([0.98, 0.01, 0.01], [0.0, 0.0], [], "a"),
        ([0.5, 0.5, 0.0], [0.0, 0.0], [], "a or b"),
        ([0.98, 0.01, 0.01], [1.1, 0.0], [], "unknown"),
        ([0.98, 0.01, 0.01], [0.0, 0.6], [], "unknown"),
        ([0.98, 0.01, 0.01], [math.nan, 0.0], [], "unknown"),
        ([0.98, 0.01, 0.01], [0.0, 0.0], [predict.DIGITS], "unknown"),
        ([0.98, 0.01, 0.01], [0.0, 0.0], ["ink, or a shadow, reaches the picture's edge"], "a"),
        ([0.1, 0.1, 0.8], [0.0, 0.0], [], "unknown"),  # no class is likely enough
    ],
)
def test_the_device_answers_with_a_class_several_or_unknown(probabilities, strangeness, doubts, said):
    answer = predict.decide((probabilities, strangeness), doubts, {"classes": ["a", "b", "c"], "abstention": HOW})
    assert predict.worded(answer) == said and answer["unknown"] == (said == "unknown")
    np.testing.assert_allclose(list(answer["probabilities"].values()), soften(np.array([probabilities]), 2.0)[0])
    assert json.dumps(answer)


def test_a_class_called_unknown_is_no_abstention():
    metadata = {"classes": ["unknown", "b", "c"], "abstention": HOW}
    said = [predict.worded(predict.decide(([0.98, 0.01, 0.01], [strange, 0]), [], metadata)) for strange in (0, 2)]
    assert said == ["unknown", "none of the classes"]


def test_of_an_older_file_it_names_one_class_as_before():
    answer = predict.decide(([0.2, 0.7, 0.1], None), [predict.DIGITS], {"classes": ["a", "b", "c"]})
    assert predict.worded(answer) == "b" and answer.keys() == {"class", "probability", "probabilities"}
