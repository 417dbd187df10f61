"""Verdicts that can fail: what is called equivalent, different, undecided."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats

from lab.config.schema import CONF
from lab.evaluation.significance import corrected_accuracy_interval, moderate
from lab.experiments.protocol import compare_all, tell

LABS = OmegaConf.to_container(OmegaConf.load(CONF / "table" / "labs.yaml"))


def judge(scores, entries=None, **more):
    """The comparisons of rows of MNIST published at 98 %, whose seeds have `scores`, by row."""
    entries = entries or {row: {"run": "", "published": 98.0} | more for row in scores}
    nothing = {"set": "mnist", "loss": [], "tail": [], "Keras": []}
    return compare_all({row: nothing | {"accuracy": of} for row, of in scores.items()}, entries, LABS["protocol"])


def test_a_small_difference_with_a_small_spread_is_equivalent_a_large_one_different_and_a_wide_one_undecided():
    scores = {
        "close": [98.1, 98.0, 98.2, 98.1, 98.05],
        "far": [96.0, 96.1, 95.9, 96.05, 95.95],
        "wide": [95.0, 99.0, 97.0, 99.5, 98.0],
    }
    words = {one.row: one.verdict() for row in scores for one in judge({row: scores[row]})}
    assert words == {"close": "equivalent", "far": "different", "wide": "undecided"}


def test_where_nothing_is_known_of_the_spread_nothing_is_decided():
    (one,) = judge({"row": [97.0]})
    assert one.verdict() == "undecided" and one.p() == 1
    alike = {"set": "cifar4", "accuracy": [25.0] * 20, "loss": [], "tail": [], "Keras": [24.0] * 20}
    (beside,) = compare_all({"E6": alike}, {"E6": {"run": "", "keras": True}}, LABS["protocol"])
    assert beside.verdict() == "undecided"


def test_without_enough_seeds_there_is_no_verdict():
    (one,) = judge({"row": []})
    assert one.verdict() == "not yet run" and one.p() == 1


def test_a_published_figures_own_noise_stays_in_the_interval():
    """A thousand seeds of ours do not make the lab's one draw certain."""
    scores = np.random.default_rng(1).normal(98, 1, 1000)
    (one,) = judge({"row": scores.tolist()})
    low, high = one.interval(0.95)
    assert high - low == pytest.approx(2 * 1.96 * scores.std(ddof=1) * (1 + 1 / 1000) ** 0.5 + 0.01, rel=0.01)
    assert one.verdict() == "undecided" and one.seeds_to_decide() is None


def test_the_seeds_that_would_decide_do():
    scores = [97.9, 98.3, 97.7, 98.1, 98.0]
    (one,) = judge({"row": scores})
    assert one.verdict() == "undecided"
    decides = one.seeds_to_decide()
    assert one.is_equivalent(decides) and not one.is_equivalent(decides - 1)


def test_holms_correction_is_for_rows_that_have_not_run_too():
    far = {"far": [96.9, 97.0, 96.8, 97.1, 97.0]}
    alone = judge(far)[0]
    entries = {f"row {number}": {"run": "", "published": 98.0} for number in range(20)}
    among = judge(far | {row: [] for row in entries}, entries | {"far": {"run": "", "published": 98.0}})[-1]
    assert among.corrected_p == pytest.approx(21 * alone.corrected_p)


def test_a_loss_is_judged_by_its_ratio():
    entries = {"row": {"run": "", "loss": 0.0703}}
    measured = {"set": "mnist", "accuracy": [], "tail": [], "Keras": []}
    for factor, word in ((1.0, "equivalent"), (1.6, "different")):
        losses = [0.0703 * factor * share for share in (0.99, 1.0, 1.01, 1.02, 0.98)]
        (one,) = compare_all({"row": measured | {"loss": losses}}, entries, LABS["protocol"])
        assert one.verdict() == word


def test_keras_beside_is_compared_with_its_own_spread():
    random = np.random.default_rng(2)
    ours, theirs = random.normal(66, 2, (2, 20)).tolist()
    entries = {"E6": {"run": "data=cifar4", "keras": True}}
    measured = {"set": "cifar4", "accuracy": ours, "loss": [], "tail": [], "Keras": theirs}
    (one,) = compare_all({"E6": measured}, entries, LABS["protocol"])
    assert one.p() == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)
    few = measured | {"Keras": theirs[:19]}
    assert compare_all({"E6": few}, entries, LABS["protocol"])[0].verdict() == "not yet run"


def test_moderated_variances_lie_between_their_own_and_what_all_say():
    random = np.random.default_rng(3)
    samples = random.normal(0, 1, (40, 3))
    own = samples.var(1, ddof=1)
    moderated, freedoms = moderate(own, [2] * 40)
    assert np.var(np.log(moderated)) < 0.2 * np.var(np.log(own)) and min(freedoms) > 4
    apart, freedoms = moderate([1e-4, 1.0, 1e4], [50, 50, 50])
    assert apart == pytest.approx([1e-4, 1.0, 1e4], rel=0.2) and max(freedoms) < 60


def test_an_accuracys_interval_stays_within_0_and_1():
    mean, low, high = corrected_accuracy_interval([0.1, 0.5], 1, 100)
    assert 0 <= low < mean < high <= 1
    fine = [0.9855, 0.986, 0.98642, 0.9885, 0.98742]
    mean, low, high = corrected_accuracy_interval(fine, 0.25, 100)
    half = stats.t.ppf(0.975, 4) * np.std(fine, ddof=1) * (1 / 5 + 1 / 4) ** 0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=2e-4)


def test_the_protocol_says_its_numbers():
    told = " ".join(tell(LABS["protocol"]))
    assert "0.5 points of test accuracy on MNIST" in told and "20 up to 200 s a seed" in told and "{" not in told
