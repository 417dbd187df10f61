"""Knobs, the keys that a search varies: the ranges and choices of its command line, in Hydra's own syntax."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from lab.config.schema import OF_SWEEPS
from lab.errors import UserError

STARTUP = 6  # trials with random values, before the first that learns from others
DIGITS = 4  # of a value between two ends, so that it is short to type
DRAWS = ("seed", "data.fold", "data.fold_seed", "data.split_seed")  # which run of a recipe it is
# these, and the images that a run is scored on: their best value is the luckiest, not the best
LUCK = (*DRAWS, "data.validation", "data.folds")
OF_THE_SEARCH = (*OF_SWEEPS, "threads", "resume", "tune", "stop_below")


@dataclass(frozen=True)
class Knob:
    """A key with values from `low` to `high`, or one of several `choices`; these ascend where they are numbers."""

    key: str  # as typed, perhaps with a + before it
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    choices: tuple[str, ...] = ()

    @property
    def is_logarithmic(self) -> bool:
        """Whether the ends are more than a decade apart."""
        return self.low > 0 and self.high > 10 * self.low

    @property
    def is_number(self) -> bool:
        """Whether all its values are numbers."""
        return not self.choices or all(map(_is_number, self.choices))

    def text(self, value: float) -> str:
        """What is typed for `value`, a number between the ends, or the place of a choice among the choices."""
        if self.choices:
            return self.choices[int(value)]
        if self.is_whole:
            return str(int(value))
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    def value(self, text: str) -> float:
        """The inverse of `text`."""
        return self.choices.index(text) if self.choices else int(text) if self.is_whole else float(text)

    def count(self) -> float:
        """How many values it has; of a range over more than a decade more than any search tries."""
        if self.choices or self.is_whole:
            return len(self.choices) or int(self.high - self.low) + 1
        small, large = sorted((abs(self.low), abs(self.high)))
        if self.low * self.high <= 0 or large > 10 * small:
            return math.inf
        step = 10.0 ** (math.floor(math.log10(large)) - DIGITS + 1)
        return math.floor((self.high - self.low) / step) + 1

    def ends(self) -> list[str]:
        """The values to check before the search begins: all choices, or both ends."""
        return list(self.choices) or [self.text(self.low), self.text(self.high)]

    def __str__(self) -> str:
        return f"{self.key}={'|'.join(self.choices) if self.choices else f'{self.low:g}..{self.high:g}'}"


@dataclass
class Known:
    """An earlier trial, as a proposal takes it into account."""

    values: dict[str, str]
    curve: dict[int, float]  # its validation score by epoch; empty: it has failed, or is running
    is_running: bool = False
    is_whole: bool = True  # False: it was pruned


def read_knobs(overrides: Sequence[Override], config: DictConfig) -> list[Knob]:
    """A knob for each override with several values, or UserError; `config` is the recipe without these overrides."""
    knobs = [_read(override, config) for override in overrides if override.is_sweep_override()]
    if not knobs:
        raise UserError(f"search={config.search}: among what? give a range, 'model.optimizer.lr=interval(1e-4,1)'")
    combinations = math.prod(knob.count() for knob in knobs)
    if combinations <= config.search:
        told = f"there are {combinations} combinations only"
        raise UserError(f"search={config.search}: {told}: leave out search=, give values, a,b,c, and all are run")
    return knobs


def refuse_ranges(overrides: Sequence[Override]) -> None:
    """UserError where a sweep without search= has a range: its values have no end."""
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: a range is searched: add search=20, or give values: a,b,c")


def _read(override: Override, config: DictConfig) -> Knob:
    key, typed, name = override.get_key_element(), override.input_line, override.key_or_group
    if name in LUCK:
        raise UserError(f"{typed}: the best of it would be the luckiest: leave it out of a search")
    if name in OF_THE_SEARCH:
        raise UserError(f"{typed}: is not searched: give one value")
    if isinstance(override.value(), IntervalSweep):
        return _read_interval(key, typed, name, override.value(), config)
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if len(choices) < 2:
        raise UserError(f"{typed}: a choice of one: give several, or {key}={choices[0] if choices else 'VALUE'}")
    if all(map(_is_number, choices)):
        choices.sort(key=float)
    return Knob(key, choices=tuple(choices))


def _read_interval(key: str, typed: str, name: str, interval: IntervalSweep, config: DictConfig) -> Knob:
    low, high = float(interval.start), float(interval.end)
    if not (math.isfinite(low) and math.isfinite(high)) or not low < high:
        raise UserError(f"{typed}: its ends are wrong: the lower one first, as in {key}=interval(1e-4,1)")
    now = OmegaConf.select(config, name)
    if name in config.hydra.runtime.choices or not (now is None or _is_number(now)):
        raise UserError(f"{typed}: {name} is no number: give a choice, {key}=choice(a,b)")
    is_whole = type(now) is int and low == int(low) and high == int(high)
    return Knob(key, low, high, is_whole)


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def grid_of(knobs: Sequence[Knob]) -> Iterator[list[str]]:
    """A few settings, as overrides, among which each end and each choice of every knob occurs."""
    for place in range(max(len(knob.ends()) for knob in knobs)):
        yield [f"{knob.key}={knob.ends()[min(place, len(knob.ends()) - 1)]}" for knob in knobs]
