"""A command: its config from the command line, its help, a mistake in one line; torch is not imported here."""

import contextlib
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lab import UserError
from lab.checks import check, known_keys, nearest
from lab.config import CONF, SCHEMAS, Train, in_users_words, one_line, run_folder


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Compose the config from the command line and give it to `task`, once a job of a multirun.

    A user's mistake ends in one line on stderr and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback.
    In a multirun it is told at once and the other jobs go on.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        try:
            print(help_text(task.__doc__, config_name), flush=True)
        except BrokenPipeError:  # --help | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    _refuse_unknown_options()
    # a process of trainer=ddp inherits the variable as it is set below
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print in many lines
    composed, failed_jobs = False, []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a machine that shuts down asks as Ctrl-C does

    def job(config: DictConfig) -> None:
        nonlocal composed
        composed = True
        is_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            with _recorded() if config_name == "train" and is_multirun else contextlib.nullcontext():
                if issubclass(SCHEMAS[config_name], Train):
                    check(config, SCHEMAS[config_name])
                task(config)
        except Exception as error:
            with contextlib.suppress(OSError):
                run_folder().rmdir()  # Hydra made it; with files in it, it stays
            error = error if show_traceback else in_users_words(error)
            is_users = isinstance(error, UserError | OSError) and not show_traceback
            if not is_multirun:
                if is_users:
                    raise SystemExit(f"error: {one_line(error)}") from None
                raise
            failed_jobs.append(HydraConfig.get().job.num)
            if is_users:
                print(f"error: {HydraConfig.get().job.override_dirname}: {one_line(error)}", file=sys.stderr)
            else:  # a mistake of ours ends this job, not the others
                traceback.print_exc()

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if show_traceback or (composed and type(error) is ValueError):  # before the job Hydra's, after it ours
            raise
        raise SystemExit(f"error: {_explain(error)}") from None
    except UserError as error:  # of a sweep
        raise SystemExit(f"error: {one_line(error)}") from None
    except KeyboardInterrupt as interrupt:
        how = f" {interrupt} goes on" if interrupt.args else ""
        raise SystemExit(f"error: interrupted{how}") from None
    if failed_jobs:
        raise SystemExit(f"error: {len(failed_jobs)} jobs failed, numbers {failed_jobs}: the lines above say why")


def _refuse_unknown_options() -> None:
    """--epochs 3, at which argparse would print its usage."""
    if unknown := get_args_parser().parse_known_args()[1]:
        if not unknown[0].startswith("-"):
            raise SystemExit(f"error: {unknown[0]}: give all KEY=VALUE side by side, before or after the options")
        near = nearest(unknown[0].lstrip("-").partition("=")[0], known_keys())
        raise SystemExit(f"error: {unknown[0]}: there is no such option, keys are given as KEY=VALUE{near}")


def _recorded() -> contextlib.AbstractContextManager:
    from lab.sweep import recorded  # only where it is needed

    return recorded(run_folder())


def command_line(overrides: Iterable[str], *more: str) -> str:
    """What to type for one run like this."""
    other = ("+sweep=", "rerun=", "tune=", *(f"{override.partition('=')[0]}=" for override in more))
    kept = [*(override for override in overrides if not override.startswith(other)), *more]
    groups = sorted((override for override in kept if override.startswith(("model=", "data="))), reverse=True)
    return "python src/train.py " + shlex.join([*groups, *(each for each in kept if each not in groups)])


def help_text(title: str, command: str) -> str:
    """What --help prints: the recipes and data sets with the first line of their files, else the command's own keys."""
    if not issubclass(SCHEMAS[command], Train):
        _, keys, _ = (CONF / f"{command}.yaml").read_text().split("\n\n")  # defaults above, Hydra's below
        return f"{title}: python src/{command}.py [KEY=VALUE ...]\n\n{keys}"

    def lines(group: str) -> Iterator[str]:
        for path in sorted((CONF / group).glob("*.yaml")):
            title = next(line for line in path.read_text().splitlines() if not line.startswith("# @"))
            yield f"  {path.stem:18}{title.removeprefix('# ')}"

    options = (CONF / "options.txt").read_text().splitlines()
    groups = ["model", "data", "schedule", "sweep", "trainer"]
    if command in ("show", "check_data"):  # they train nothing
        options = ["", "Options", *(line for line in options if line.startswith(("  data.", "  hydra.", "  --cfg")))]
        groups = ["data"]
    usage = " ".join(f"[{group}=NAME]" for group in groups[:2])
    listed = [line for group in groups for line in (f"\n{'+' * (group == 'sweep')}{group}=", *lines(group))]
    return "\n".join([f"{title}: python src/{command}.py {usage} [KEY=VALUE ...]", *listed, *options])


def _explain(error: Exception) -> str:
    """Hydra's refusal in one line, with the nearest key or value that there is."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        more = ", and with pip install '.[cluster]' submitit_slurm" if group == "hydra/launcher" else ""
        return f"{group}={name}: there is none{nearest(name, error.options)} Known: {', '.join(error.options)}{more}"
    if wrong_key := re.match(r"Could not override '([^']+)'", str(error)):
        key, known = wrong_key[1], list(known_keys())
        is_lightnings = key.startswith("trainer.") and "trainer.devices" in known
        more = "any other option of Lightning's: +trainer.KEY=VALUE" if is_lightnings else "see --help"
        return f"{key}: there is no such key{nearest(key, known)} ({more})"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        override = str(error).partition("\n")[0].removeprefix("Error merging override ")
        return f"{override}: {one_line(error.__cause__)}"
    return one_line(error)
