"""Which values a search tries next: Optuna's, as a function of the trials that are known."""

import itertools
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lab.experiments.knobs import Knob

STARTUP = 6  # trials at random before the first that learns from others
TRIES = 10  # at values that were not tried before
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass
class Known:
    """A trial before the one proposed: its values, its validation score by epoch."""

    values: dict[str, str]
    curve: dict[int, float]  # empty: it has failed, or is running
    is_running: bool = False
    is_whole: bool = True  # not pruned


def propose(knobs: Sequence[Knob], seed: int, known: Sequence[Known]) -> dict[str, str]:
    """The values of the trial after those `known`: with the same arguments the same, in any process.

    By the tree-structured Parzen estimator (Bergstra et al., 2011), which avoids what is running; never the same twice.
    """
    taken = [one.values for one in known]
    for draw in itertools.count():
        drawn = int(np.random.SeedSequence([seed, len(known), draw]).generate_state(1)[0])
        sampler = TPESampler(n_startup_trials=STARTUP, seed=drawn) if draw < TRIES else RandomSampler(seed=drawn)
        study = _make_study(knobs, known, sampler)
        trial = study.ask({knob.key: _distribution(knob) for knob in knobs})
        values = {knob.key: knob.text(trial.params[knob.key]) for knob in knobs}
        if values not in taken:
            return values


def find_bars(known: Sequence[Known], epochs: int) -> list[float]:
    """For each epoch but the last the median of the best scores so far of those `known`, below which a trial stops.

    The median stopping rule (Golovin et al., 2017).
    """
    if sum(bool(one.curve) for one in known) < STARTUP:
        return []
    bars = []
    for epoch in range(1, epochs):
        reached = [one.curve for one in known if one.curve and max(one.curve) >= epoch]
        so_far = [[score for at, score in curve.items() if at <= epoch] for curve in reached]
        best = [max(scores) for scores in so_far if scores]
        bars.append(round(statistics.median(best), 6) if best else 0.0)
    return bars


def importances(knobs: Sequence[Knob], known: Sequence[Known]) -> dict[str, float]:
    """The share of each knob in what the scores vary by, by Optuna (PED-ANOVA; Watanabe et al., 2023).

    Empty where too few trials, or none that differ, tell.
    """
    whole = [one for one in known if one.curve and one.is_whole]
    scores = {one.curve[max(one.curve)] for one in whole}
    if len(knobs) < 2 or len(whole) < STARTUP or len(scores) < 2:
        return {}
    shares = optuna.importance.get_param_importances(_make_study(knobs, whole, RandomSampler(seed=1)))
    return shares if np.isfinite(list(shares.values())).all() else {}


def _make_study(knobs: Sequence[Knob], known: Sequence[Known], sampler: BaseSampler) -> optuna.Study:
    """In memory: the trials' folders hold what is to be kept."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_as_trial(knobs, one) for one in known])
    return study


def _as_trial(knobs: Sequence[Knob], one: Known) -> FrozenTrial:
    """A failed one counts as the worst, so that others keep away."""
    options = {"params": {knob.key: knob.value(one.values[knob.key]) for knob in knobs}}
    options["distributions"] = {knob.key: _distribution(knob) for knob in knobs}
    if one.is_running:
        return create_trial(state=TrialState.RUNNING, **options)
    if not one.is_whole:
        return create_trial(state=TrialState.PRUNED, intermediate_values=one.curve, **options)
    return create_trial(value=one.curve[max(one.curve)] if one.curve else 0.0, **options)


def _distribution(knob: Knob) -> BaseDistribution:
    if knob.choices:
        last = len(knob.choices) - 1
        return IntDistribution(0, last) if knob.is_number else CategoricalDistribution(range(last + 1))
    kind = IntDistribution if knob.is_whole else FloatDistribution
    low, high = (int(knob.low), int(knob.high)) if knob.is_whole else (knob.low, knob.high)
    return kind(low, high, log=knob.is_logarithmic)
