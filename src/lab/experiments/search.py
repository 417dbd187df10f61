"""A search of train.py: trials side by side, each with values that those before it suggest; then what it has found."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.config.checks import check
from lab.config.schema import OF_SWEEPS, Train
from lab.display.labels import name_values
from lab.errors import UserError
from lab.experiments.confirm import VERDICT, confirm
from lab.experiments.jobs import (
    Job,
    clear,
    composed_job,
    count_at_a_time,
    digest_of,
    identify,
    launch,
    make_launcher,
    name_folder,
)
from lab.experiments.knobs import STARTUP, Knob, grid_of, read_knobs
from lab.experiments.trials import Plan, Trial, report, to_known
from lab.files import write_json
from lab.runs.folder import locked

CONFIRM = 5  # fresh seeds, unless the command line says how many
LOOK = 0.1  # seconds between two looks at the earlier trials


def search(overrides: Sequence[Override], fixed: Sequence[str], config: DictConfig, context: HydraContext) -> None:
    """Run the trials that have not finished; show what they found, and whether it is more than chance.

    `fixed` are the overrides with one value. UserError where trials fail.
    """
    HydraConfig.instance().set_config(config)
    _check(config)
    knobs, fixed = read_knobs(overrides, config), _for_each_trial(fixed)
    if config.data.validation == 0 or config.trainer.limit_val_batches == 0:
        raise UserError(f"search={config.search} looks at the validation part: there is none, give data.validation")
    folder = name_folder("search", sorted(knob.key for knob in knobs), config, _digest(config, knobs))
    for values in grid_of(knobs):
        with composed_job([*fixed, *values], config, context) as composed:
            _check(composed)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "search"):
        _search(knobs, fixed, config, context, folder)


def _search(knobs: Sequence[Knob], fixed: list[str], config: DictConfig, context: HydraContext, folder: Path) -> None:
    recipe = Job(fixed, {}, folder / "recipe")
    identify([recipe], config, context, folder)
    launcher = make_launcher(config, context, take=take_next, decide=decide)
    workers = count_at_a_time(launcher, config.search)
    plan = _make_plan(knobs, fixed, config, recipe, workers, folder)
    numbers = range(1, config.search + 1)
    trials = [Trial(fixed, {}, folder / f"trial_{number:03}", epochs=recipe.epochs) for number in numbers]
    todo = [trial for trial in trials if not trial.has_finished()]
    behind = f", each but the last {plan.behind} known to the next" if plan.behind else ""
    print(f"{len(trials)} trials, {len(todo)} to run, {workers} at a time{behind}, in {folder}")
    for name in VERDICT if todo else ():  # of fewer trials, or of others
        (folder / name).unlink(missing_ok=True)
    launch(todo, launcher, rerun=True)
    failed = report(trials, plan, folder)
    seeds = CONFIRM if config.confirm is None else config.confirm
    if seeds:
        failed += confirm(trials, plan, seeds, config, context, folder)
    print(f"All curves: tensorboard --logdir {folder}")
    if failed:
        raise UserError(f"{failed} jobs failed: the lines above say why, the same command tries again")


def _check(composed: DictConfig) -> None:
    """UserError where a config makes no sense; Hydra's own part of it is not looked at."""
    check(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]), Train)


def _for_each_trial(fixed: Sequence[str]) -> list[str]:
    """The overrides that each trial gets: without the search's own, and with one thread unless told otherwise."""
    own = tuple(f"{key}=" for key in OF_SWEEPS)
    kept = [word for word in fixed if not word.startswith(own)]
    if any(word.startswith("+sweep=") for word in kept):
        kept.append("search=null")
    return kept if any(word.startswith("threads=") for word in kept) else [*kept, "threads=1"]


def _digest(config: DictConfig, knobs: Sequence[Knob]) -> str:
    """The same for searches that try the same values, whatever the number of their trials."""
    return digest_of(config, sorted(map(str, knobs)), config.prune)


def _make_plan(
    knobs: Sequence[Knob], fixed: list[str], config: DictConfig, recipe: Job, workers: int, folder: Path
) -> Plan:
    """The plan of this search; a search that goes on takes its own from search.json, on fewer cores too."""
    plan = Plan(
        digest=_digest(config, knobs),
        knobs=list(knobs),
        fixed=fixed,
        seed=config.seed,
        behind=min(2 * (workers - 1), max(config.search - STARTUP, 0) // 2),  # the others would all be random
        bars=recipe.epochs if config.prune else 0,
        metric=f"val_{config.monitor or 'accuracy'}",
    )
    path = folder / "search.json"
    if path.exists() and not config.rerun:
        before = Plan.read(folder)
        if before.digest != plan.digest:
            raise UserError(f"{folder} holds another search: rerun=true replaces it, hydra.sweep.dir=FOLDER leaves it")
        return before
    for left in [*folder.glob("trial_*"), *folder.glob("confirm_*")]:
        clear(Job([], {}, left), rerun=config.rerun)
    write_json(dataclasses.asdict(plan), path)
    return plan


@contextlib.contextmanager
def take_next(folder: Path) -> Iterator[Path]:
    """The folder of the first trial that has not begun, locked; `folder` is any trial's.

    A launcher may start its jobs in another order: were a trial to wait for one whose job is not started, none would
    ever be.
    """
    for number in itertools.count(1):
        trial = Trial([], {}, folder.parent / f"trial_{number:03}")
        trial.folder.mkdir(exist_ok=True)
        lock = FileLock(trial.folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:  # it is running
            continue
        try:
            if not trial.has_begun():
                yield trial.folder
                return
        finally:
            lock.release()


def decide(config: DictConfig, folder: Path) -> DictConfig:
    """The config of the trial of `folder`, with the values that earlier trials suggest; called in the trial's process.

    It waits for all earlier trials but the last `plan.behind`: a slow one would hold up the others. It takes these for
    running even where they have ended, so that the same search proposes the same values.
    """
    from lab.experiments.propose import find_bars, propose  # Optuna, in a search alone

    plan = Plan.read(folder.parent)
    numbers = range(1, Trial([], {}, folder).number())
    before = [Trial(plan.fixed, {}, folder.parent / f"trial_{number:03}") for number in numbers]
    told = max(len(before) - plan.behind, 0)
    told = told if told >= STARTUP else 0  # the first are drawn at random
    while not all(trial.has_ended() if n < told else trial.has_begun() for n, trial in enumerate(before)):
        time.sleep(LOOK)
    known = [to_known(trial, plan, is_running=n >= told) for n, trial in enumerate(before)]
    known = [one for one in known if one.values]
    values = propose(plan.knobs, plan.seed, known)
    overrides = [f"{key}={value}" for key, value in values.items()]
    if bars := find_bars(known, plan.bars):
        overrides.append(f"stop_below=[{','.join(map(str, bars))}]")
    write_json({"values": values, "overrides": overrides}, folder / "trial.json")
    print(f"{folder.name}: {name_values(values)}")
    return _compose([*plan.fixed, *overrides], folder)


def _compose(overrides: list[str], folder: Path) -> DictConfig:
    """The config of the job of `folder`, in its process: from now on Hydra's interpolations read it."""
    hydra = HydraConfig.instance()
    composed = GlobalHydra.instance().config_loader().load_sweep_config(hydra.cfg, overrides)
    with open_dict(composed.hydra):
        composed.hydra.runtime.output_dir = str(folder)
    hydra.set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    return composed
