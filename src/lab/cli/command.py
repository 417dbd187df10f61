"""A command: its config from the command line, a mistake in one line; torch is not imported here."""

import contextlib
import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lab.cli.arguments import Parser, refuse_unprintable
from lab.cli.help import help_text
from lab.config.checks import check
from lab.config.overrides import known_keys, nearest, replace_schedule
from lab.config.schema import CONF, SCHEMAS, Train, run_folder
from lab.errors import explain, first_line, tell, was_interrupted


def run_command(task: Callable[[DictConfig], None], name: str) -> None:
    """Compose conf/`name`.yaml with the command line and give it to `task`, which does the command's work.

    A user's mistake ends in one line on stderr and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback. In a multirun
    the task is called once a job: a mistake is told at once and the other jobs go on.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        try:
            print(help_text(task.__doc__, name), flush=True)
        except BrokenPipeError:  # --help | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    refuse_unprintable()
    _refuse_unknown_options()
    # a process of trainer=ddp inherits the variable as it is set below
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print in many lines
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a machine that shuts down asks as Ctrl-C does
    job = _Job(task, SCHEMAS[name], show_traceback)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()
    except Exception as error:
        if show_traceback:
            raise
        if was_interrupted(error):
            raise SystemExit("error: interrupted") from None
        raise SystemExit(f"error: {_explain_hydra(error, job.has_started) or tell(error)}") from None
    except KeyboardInterrupt as interrupt:
        how = f" {interrupt} goes on" if interrupt.args else ""
        raise SystemExit(f"error: interrupted{how}") from None
    if job.failed:
        raise SystemExit(f"error: {len(job.failed)} jobs failed, numbers {job.failed}: the lines above say why")


class _Job:
    """What Hydra calls with the composed config, once a job of a multirun; `failed` are the numbers of those."""

    def __init__(self, task: Callable[[DictConfig], None], schema: type, show_traceback: bool) -> None:
        self.task, self.schema, self.show_traceback = task, schema, show_traceback
        self.has_started, self.failed = False, []

    def __call__(self, config: DictConfig) -> None:
        self.has_started = True
        try:
            if issubclass(self.schema, Train):
                replace_schedule(config)
            check(config, self.schema)
            self.task(config)
        except Exception as error:
            if was_interrupted(error):
                raise KeyboardInterrupt from None
            with contextlib.suppress(OSError):
                run_folder().rmdir()  # Hydra made it; with files in it, it stays
            line = _explain_hydra(error, has_started=True) or tell(error)
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                if self.show_traceback:
                    raise
                raise SystemExit(f"error: {line}") from None  # of an Exception Hydra would print a line of its own
            self.failed.append(HydraConfig.get().job.num)
            if self.show_traceback:
                traceback.print_exc()
            else:
                print(f"error: {HydraConfig.get().job.override_dirname}: {line}", file=sys.stderr)


def _refuse_unknown_options() -> None:
    """--epochs 3, at which argparse would print its usage; and a file of Hydra's, for it would be unpickled."""
    parser = get_args_parser()
    parser.error = functools.partial(Parser.error, parser)
    known, unknown = parser.parse_known_args()
    if known.experimental_rerun:
        raise SystemExit("error: --experimental-rerun: is refused, for it runs whatever the file says")
    if unknown:
        if not unknown[0].startswith("-"):
            raise SystemExit(f"error: {unknown[0]}: give all KEY=VALUE side by side, before or after the options")
        near = nearest(unknown[0].lstrip("-").partition("=")[0], known_keys())
        raise SystemExit(f"error: {unknown[0]}: there is no such option, keys are given as KEY=VALUE{near}")


def _explain_hydra(error: Exception, has_started: bool) -> str | None:
    """Hydra's refusal in one line, with the nearest key or value that there is; None where it is none of Hydra's."""
    if has_started and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
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
        return f"{override}: {first_line(error.__cause__)}"
    if isinstance(error, HydraException):
        return " ".join(str(error).partition("\nSee https")[0].split())
    return explain(error) or first_line(error)
