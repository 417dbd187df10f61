"""Runs a command that takes KEY=VALUE: composes its config, tells a mistake in one line; without torch."""

import contextlib
import functools
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lab.cli.arguments import Parser, refuse_unprintable
from lab.cli.help import help_text
from lab.config.checks import check
from lab.config.overrides import known_keys, nearest, quoted, replace_schedule, with_plus
from lab.config.own import name_networks
from lab.config.schema import CONF, SCHEMAS, Train, run_folder
from lab.errors import UserError, explain, first_line, interrupt, tell, was_interrupted

OPEN = ("model.net.", "model.optimizer.", "model.schedule.")  # here +KEY=VALUE adds whatever the _target_ takes


def run_command(task: Callable[[DictConfig], None], name: str) -> None:
    """Compose conf/`name`.yaml with the command line and give it to `task`, which does the command's work.

    A user's mistake ends in one line on stderr and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback. In a multirun
    the task is called for each job: a mistake is told at once and the other jobs go on.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        try:
            print(help_text(task.__doc__, name), flush=True)
        except BrokenPipeError:  # --help | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    refuse_unprintable()
    _refuse_unknown_options()
    sys.argv = [*sys.argv[:1], *map(with_plus, sys.argv[1:])]
    # a process of trainer=ddp inherits the variable as it is set below
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print in many lines
    for number in (signal.SIGINT, signal.SIGTERM):  # a machine that shuts down asks as Ctrl-C does
        signal.signal(number, interrupt)
    job = _Job(task, SCHEMAS[name], show_traceback)
    try:
        named = [word.partition("=")[2].strip("'\"") for word in sys.argv[1:] if word.startswith("networks=")]
        name_networks(Path(named[-1]).expanduser() if named and named[-1] != "null" else None)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(job)()
    except Exception as error:
        if show_traceback:
            raise
        if was_interrupted() and not isinstance(error, UserError):
            raise SystemExit("error: interrupted") from None
        raise SystemExit(f"error: {_explain_hydra(error, job.has_started) or tell(error)}") from None
    except KeyboardInterrupt as stop:
        how = f" {stop} goes on" if stop.args else ""
        raise SystemExit(f"error: interrupted{how}") from None
    if job.failed:
        raise SystemExit(f"error: {len(job.failed)} jobs failed, numbers {job.failed}: the lines above say why")


class _Job:
    """What Hydra calls with the composed config, in a multirun for each job; `failed` are numbers of failed jobs."""

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
            if was_interrupted() and not isinstance(error, UserError):
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
    """SystemExit for --epochs 3, at which argparse would print its usage, and for a file that Hydra would unpickle."""
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
    """Hydra's error in one line, with the nearest key or value that there is; None where it is none of Hydra's."""
    if has_started and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    if isinstance(error, MissingConfigException) and error.options is not None:
        if told := _place_for_data(error.missing_cfg_file or ""):
            return told
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        more = ", and with pip install '.[cluster]' submitit_slurm" if group == "hydra/launcher" else ""
        return f"{group}={name}: there is none{nearest(name, error.options)} Known: {', '.join(error.options)}{more}"
    if wrong_key := re.match(r"Could not override '([^']+)'", str(error)):
        key, known = wrong_key[1], list(known_keys())
        is_open = key.startswith(OPEN) and "model.optimizer.lr" in known
        more = f"+{key}=VALUE adds an option" if is_open else "see --help"
        return f"{key}: there is no such key{nearest(key, known)} ({more})"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        override = str(error).partition("\n")[0].removeprefix("Error merging override ")
        return f"{override}: {first_line(error.__cause__)}"
    if ambiguous := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
        key, _, value = ambiguous[1].partition("=")
        is_decimal = re.fullmatch(r"-?\d+,\d+", value)
        one = f"{key}={value.replace(',', '.')}" if is_decimal else _in_quotes(key, value)
        return f"{ambiguous[1]}: several values are a sweep, with -m; one is typed {one}"
    if swept := re.match(r"Sweep parameters '(.+)' requires --multirun", str(error)):
        return f"{swept[1]}: several values are a sweep, with -m; a range is searched, with -m search=20"
    if isinstance(error, OverrideParseException):
        key, has_value, value = error.override.partition("=")
        if not has_value:
            before = sys.argv[max(sys.argv.index(key) - 1, 0)] if key in sys.argv else ""
            told = f"; with a space in it, {shlex.quote(f'{before} {key}')}" if "=" in before else ""
            groups = [group for group in ("model", "data") if (CONF / group / f"{key}.yaml").exists()]
            return f"{key}: is no KEY=VALUE{f'; did you mean {groups[0]}={key}?' if groups else told}"
        if re.match(r"interval\(", value):
            return f"{error.override}: its ends must be numbers, as in {key}=interval(1e-4,1)"
        if re.search(r"[^\x00-\x7f]|[()&;#]", value) and "'" not in value:
            return f"{error.override}: such letters need quotes: {_in_quotes(key, value)}"
    if isinstance(error, HydraException):
        return " ".join(str(error).partition("\nSee https")[0].split())
    return explain(error) or first_line(error)


def _in_quotes(key: str, value: str) -> str:
    """What to type in a shell, so that Hydra takes `value` as it is."""
    word = quoted(key, value.strip("\"'"))
    return shlex.quote(word) if re.search(r'["$`\\!]', word) else f'"{word}"'


def _place_for_data(missing: str) -> str:
    """What to type in place of data=PATH, whose file is `missing` in conf/; "" where it is no path."""
    group, _, place = missing.partition("/")
    if group != "data" or not ("/" in place or Path(place).exists()):
        return ""
    return f"data={place}: the name of a data set is wanted; a folder of pictures: data=folder data.root={place}"
