"""A search of train.py: trials side by side, each with values that those before it suggest; then what it has found."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.config.checks import check
from lab.config.overrides import OF_SWEEPS
from lab.config.schema import Train, data_folder, fingerprint
from lab.display.terminal import make_bar
from lab.errors import UserError
from lab.experiments.confirm import confirm
from lab.experiments.jobs import (
    Job,
    clear,
    composed_job,
    count_at_a_time,
    identify,
    launch,
    make_launcher,
)
from lab.experiments.knobs import Knob, grid_of, name_values, read_knobs
from lab.experiments.ranking import short
from lab.experiments.trials import Plan, Trial, report, to_known
from lab.files import write_json

CONFIRM = 5  # fresh seeds, unless told
LOOK = 0.1  # seconds between looks at the trials before


def search(overrides: Sequence[Override], fixed: Sequence[str], config: DictConfig, context: HydraContext) -> None:
    """Run those of the trials that have not finished; show what they found, and whether it is more than chance.

    `fixed` is what is told with one value. UserError where trials fail.
    """
    HydraConfig.instance().set_config(config)
    _check(config)
    knobs, fixed = read_knobs(overrides, config), _leave_out_own(fixed)
    if config.data.validation == 0 or config.trainer.limit_val_batches == 0:
        raise UserError(f"search={config.search} looks at the validation part: there is none, give data.validation")
    folder = _name_folder(config, knobs)
    for values in grid_of(knobs):
        with composed_job([*fixed, *values], config, context) as composed:
            _check(composed)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            _search(knobs, fixed, config, context, folder)
    except Timeout:
        raise UserError(f"{folder}: another process is at this search") from None


def _search(knobs: Sequence[Knob], fixed: list[str], config: DictConfig, context: HydraContext, folder: Path) -> None:
    recipe = Job(fixed, {}, folder / "recipe")
    identify([recipe], config, context, folder)
    launcher = make_launcher(config, context, decide=decide)
    plan = _make_plan(knobs, fixed, config, recipe, count_at_a_time(launcher, config.search), folder)
    trials = [
        Trial(fixed, {}, folder / f"trial_{number:03}", epochs=recipe.epochs, work=recipe.epochs)
        for number in range(1, config.search + 1)
    ]
    todo = [trial for trial in trials if not trial.has_finished()]
    behind = f", each but the last {plan.behind} known to the next" if plan.behind else ""
    print(f"{len(trials)} trials, {len(todo)} to run, {plan.behind // 2 + 1} at a time{behind}, in {folder}")
    with make_bar(sum(trial.work for trial in todo), " epochs") as bar:
        launch(todo, launcher, True, bar)
    failed = report(trials, plan, folder)
    wanted = CONFIRM if config.confirm is None else config.confirm
    if wanted:
        failed += confirm(trials, plan, wanted, config, context, folder)
    print(f"All curves: tensorboard --logdir {folder}")
    if failed:
        raise UserError(f"{failed} jobs failed: the lines above say why, the same command tries again")


def _check(composed: DictConfig) -> None:
    """UserError where a config of the sweep, which has Hydra's part too, makes no sense."""
    check(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]), Train)


def _leave_out_own(fixed: Sequence[str]) -> list[str]:
    """What each trial is told: nothing of the search; one thread unless told otherwise."""
    own = tuple(f"{key}=" for key in OF_SWEEPS)
    kept = [word for word in fixed if not word.startswith(own)]
    if any(word.startswith("+sweep=") for word in kept):
        kept.append("search=null")
    return kept if any(word.startswith("threads=") for word in kept) else [*kept, "threads=1"]


def _name_folder(config: DictConfig, knobs: Sequence[Knob]) -> Path:
    parent = Path(config.hydra.sweep.dir).absolute()
    if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
        return parent
    searched = {knob.key for knob in knobs}
    choices = [config.hydra.runtime.choices[group] for group in ("model", "data") if group not in searched]
    return parent / "_".join(["search", *map(short, sorted(searched)), "-".join(choices), _digest(config, knobs)])


def _digest(config: DictConfig, knobs: Sequence[Knob]) -> str:
    """Of what decides which trials there are, but for their number."""
    root = str(data_folder(config.data.root).absolute())
    decided = [fingerprint(config), sorted(map(str, knobs)), config.prune, root]
    return hashlib.sha256(json.dumps(decided).encode()).hexdigest()[:8]


def _make_plan(
    knobs: Sequence[Knob], fixed: list[str], config: DictConfig, recipe: Job, workers: int, folder: Path
) -> Plan:
    """Write it, or take the one that is there: a search that goes on proposes as it began, on fewer cores too."""
    plan = Plan(
        digest=_digest(config, knobs),
        knobs=list(knobs),
        fixed=fixed,
        seed=config.seed,
        behind=2 * (workers - 1),
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


def decide(config: DictConfig, folder: Path) -> DictConfig:
    """In the process of the trial of `folder`: its config, with the values that the trials before it suggest.

    Those last before it may still be running: where it waited for them, a slow one would hold up the others. Which
    these are is fixed, whichever is done by then, so that the same search proposes the same.
    """
    from lab.experiments.propose import STARTUP, find_bars, propose  # Optuna, in a search alone

    plan, number = Plan.read(folder.parent), int(folder.name.rpartition("_")[2])
    before = [Trial(plan.fixed, {}, folder.parent / f"trial_{n:03}") for n in range(1, number)]
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
    """A job's config, in its process: Hydra's interpolations read it from now on."""
    hydra = HydraConfig.instance()
    composed = GlobalHydra.instance().config_loader().load_sweep_config(hydra.cfg, overrides)
    with open_dict(composed.hydra):
        composed.hydra.runtime.output_dir = str(folder)
    hydra.set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    return composed
