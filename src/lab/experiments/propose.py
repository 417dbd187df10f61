"""Which values a search tries next: Optuna proposes them, from the trials that are known."""

import itertools
import statistics
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lab.experiments.knobs import STARTUP, Knob, Known

TRIES = 10  # proposals; were all of them tried before, random values follow
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def propose(knobs: Sequence[Knob], seed: int, known: Sequence[Known]) -> dict[str, str]:
    """The values of the next trial, none of those `known`; they depend on the arguments alone, not on the process.

    Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) proposes them, and avoids what is running.
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
    """For each epoch but the last, the score below which a trial stops; empty before STARTUP trials are known.

    It is the median of what the `known` trials had reached by then: the median stopping rule (Golovin et al., 2017).
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
    """How much of the scores' variation each knob explains, a share, by Optuna (PED-ANOVA; Watanabe et al., 2023).

    Empty where there are too few trials, or all have one score.
    """
    whole = [one for one in known if one.curve and one.is_whole]
    scores = {one.curve[max(one.curve)] for one in whole}
    if len(knobs) < 2 or len(whole) < STARTUP or len(scores) < 2:
        return {}
    shares = optuna.importance.get_param_importances(_make_study(knobs, whole, RandomSampler(seed=1)))
    return shares if np.isfinite(list(shares.values())).all() else {}


def _make_study(knobs: Sequence[Knob], known: Sequence[Known], sampler: BaseSampler) -> optuna.Study:
    """An Optuna study of the trials `known`, in memory: their folders keep what is to be kept."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_as_trial(knobs, one) for one in known])
    return study


def _as_trial(knobs: Sequence[Knob], one: Known) -> FrozenTrial:
    """Optuna's record of a trial; one that failed counts as the worst, so that others avoid its values."""
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
