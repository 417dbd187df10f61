"""Intervals and tests agree with the libraries of the field."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import from_numpy
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

from lab.evaluation.metrics import at_threshold, choose_threshold, evaluate, worst_mistakes
from lab.evaluation.significance import (
    accuracy_interval,
    corrected_accuracy_interval,
    corrected_t,
    crossed_t,
    holm,
    holm_levels,
    mcnemar,
)
from lab.runs.predictions import Predictions


def predictions(n=500, classes=4, seed=1, sure=2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += sure
    names = np.array([f"class {number}" for number in range(classes)])
    return Predictions(logits, labels, np.arange(n), names, np.array("sha"))


@pytest.mark.parametrize(("correct", "images"), [(9_868, 10_000), (0, 20), (20, 20), (7, 9)])
def test_the_interval_of_an_accuracy_is_wilsons(correct, images):
    assert accuracy_interval(correct, images) == pytest.approx(
        proportion_confint(correct, images, 0.05, "wilson"), abs=1e-9
    )


@pytest.mark.parametrize(("ours", "theirs"), [(60, 22), (5, 4), (0, 7), (1, 0)])
def test_mcnemar_agrees_with_statsmodels(ours, theirs):
    first = np.repeat([True, True, False, False], [400, ours, theirs, 10])
    second = np.repeat([True, False, True, False], [400, ours, theirs, 10])
    found = mcnemar(first, second)
    assert found.p == pytest.approx(statsmodels_mcnemar([[400, ours], [theirs, 10]], exact=True).pvalue, abs=1e-9)
    assert found.value == pytest.approx(first.mean() - second.mean(), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize(("shares", "images"), [((0.072, 0.002), 2_000), ((0.01, 0.01), 1_000), ((0.02, 0.005), 500)])
def test_mcnemars_interval_holds_the_true_difference_about_as_often_as_it_says(shares, images):
    random, held = np.random.default_rng(1), 0
    for only in random.multinomial(images, [*shares, 1 - sum(shares)], 1_000):
        first, second = (np.repeat(answers, only) for answers in ([True, False, True], [False, True, True]))
        found = mcnemar(first, second)
        held += found.low <= shares[0] - shares[1] <= found.high
    assert 935 <= held <= 985


def test_few_images_show_no_equivalence_however_alike_the_answers_are():
    alike = np.ones(40, bool)
    assert mcnemar(alike, alike).p == 1 and not mcnemar(alike, alike).is_equivalent
    assert mcnemar(*[np.ones(10_000, bool)] * 2).is_equivalent


def test_the_corrected_t_is_scipys_where_nothing_is_shared_and_wider_where_folds_share():
    first, second = np.random.default_rng(1).normal(0.98, 0.01, (2, 5))
    plain = stats.ttest_rel(first, second)
    found = corrected_t(first - second, 0)
    assert found.p == pytest.approx(plain.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)), abs=1e-9)
    corrected = corrected_t(first - second, 1 / 4)
    t = plain.statistic * np.sqrt((1 / 5) / (1 / 5 + 1 / 4))  # Nadeau and Bengio, 2003, section 3
    assert corrected.p == pytest.approx(2 * stats.t.sf(abs(t), 4), abs=1e-9)
    assert corrected.high - corrected.low == pytest.approx(1.5 * (found.high - found.low), abs=1e-9)


@pytest.mark.parametrize(("of_runs", "of_images"), [(0.0, 0.3), (0.02, 0.0), (0.02, 0.3), (0.0, 0.0)])
def test_runs_and_images_drawn_anew_give_a_difference_within_the_interval_about_as_often_as_it_says(of_runs, of_images):
    """By the runs alone it is 67 % of the cases in the first line, by the images alone 83 % in the second."""
    random, runs, images, held = np.random.default_rng(1), 5, 300, []
    for _ in range(1_000):
        table = random.normal(0, 0.3, (runs, images)) + 0.01
        table += random.normal(0, of_runs, (runs, 1)) + random.normal(0, of_images, images)
        estimate = crossed_t(table)
        held.append(estimate.low <= 0.01 <= estimate.high)
        assert (estimate.p < 0.05) == (not estimate.low <= 0 <= estimate.high)
    assert 0.93 <= np.mean(held) <= 0.99


def test_equal_scores_do_not_differ():
    assert corrected_t([0.0] * 5, 0.25).p == 1
    assert mcnemar(np.array([True, False]), np.array([True, False])).p == 1


def test_holms_correction_is_statsmodels():
    p = np.random.default_rng(2).uniform(0, 0.2, 7)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-9)


def test_an_interval_at_holms_level_excludes_0_where_holm_finds_a_difference():
    random = np.random.default_rng(1)
    for _ in range(20):
        pairs = [(random.random(200) < 0.8, random.random(200) < share) for share in random.uniform(0.6, 0.9, 8)]
        p_values = [mcnemar(*pair).p for pair in pairs]
        for pair, level, p in zip(pairs, holm_levels(p_values), holm(p_values), strict=True):
            estimate = mcnemar(*pair, level)
            assert (p < 0.05) == (not estimate.low <= 0 <= estimate.high)


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_an_evaluation_are_the_libraries(classes):
    given = predictions(classes=classes)
    found, probabilities, predicted = evaluate(given), given.probabilities(), given.logits.argmax(1)
    assert found["loss"] == pytest.approx(log_loss(given.labels, probabilities), abs=1e-9)
    for key, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted = score(given.labels, predicted, average=None)
        assert [figures[key] for figures in found["classes"].values()] == pytest.approx(wanted.tolist(), abs=1e-9)
    error = multiclass_calibration_error(from_numpy(probabilities), from_numpy(given.labels), classes, 15)
    assert found["calibration"]["expected_calibration_error"] == pytest.approx(error.item(), abs=1e-6)
    assert ("auc" in found) == (classes == 2)
    if classes == 2:
        auc = binary_auroc(from_numpy(probabilities[:, 1]), from_numpy(given.labels)).item()
        assert found["auc"] == pytest.approx(auc, abs=1e-6)


def test_confused_pairs_are_counted_and_a_missing_class_has_no_recall():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 0]]
    given = Predictions(logits, np.array([0, 0, 0, 1, 1]), np.arange(5), np.array(["a", "b", "c"]), np.array(""))
    found = evaluate(given)
    assert found["confused"] == [{"class": "a", "read_as": "b", "times": 2}, {"class": "b", "read_as": "a", "times": 1}]
    assert found["classes"]["c"] == {"precision": None, "recall": None, "f1": None, "images": 0}
    assert found["accuracy"] == 0.4


def test_the_worst_mistakes_come_first():
    given = predictions()
    sure = given.probabilities().max(1)
    worst = worst_mistakes(given, 5)
    assert not given.correct()[worst].any()
    assert sure[worst].tolist() == sorted(sure[~given.correct()], reverse=True)[:5]


def test_the_threshold_is_the_best_of_all_in_balanced_accuracy():
    given = predictions(classes=2, sure=1.0)
    chosen = at_threshold(given, choose_threshold(given))["balanced_accuracy"]
    others = [at_threshold(given, threshold)["balanced_accuracy"] for threshold in np.linspace(0, 1, 200)]
    assert chosen >= max(others) and chosen > min(others)


@pytest.mark.parametrize(("folds", "low", "p"), [(5, 0.0, 0.0625), (10, 0.01, 0.001953125)])
def test_differences_that_are_all_alike_are_judged_by_their_sign(folds, low, p):
    found = corrected_t([0.01] * folds, 1 / (folds - 1))
    assert (found.value, found.low, found.high, found.p) == pytest.approx((0.01, low, 0.01, p))
    interval = corrected_accuracy_interval([0.98] * folds, 1 / (folds - 1), 100)
    assert interval == pytest.approx((0.98, *accuracy_interval(98, 100)))  # alike they tell nothing of their spread
