"""The command that makes a run again, found from its config."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.config import own
from lab.config.overrides import flatten, quoted, read_choice
from lab.config.schema import CONF, UNDECIDING, fingerprint

# keys that decide no result, or that model=NAME and data=NAME say
UNSAID = {"model.name", "model.net.file", "data.name", "resume", "tune", "histograms", "workers", *UNDECIDING}
GROUPS = ("model", "data")


def command_again(config: DictConfig) -> str | None:
    """What to type for the same results as `config` has given, a Train or a CrossValidate; None if none is found.

    The command names the recipe and the data set, as they are in conf/ today, and each key that `config` has otherwise.
    """
    name = "cross_validate" if "workers" in config else "train"
    words = [f"{group}={config[group].name}" for group in GROUPS]
    if config.model.net.get("_target_") == own.TARGET:
        if not own.named:  # a folder may be a stranger's, and whoever types the command would run its file
            return None
        words += [_word("networks", str(file)) for file in own.named]
    try:
        with _composing():
            words += _schedule(config)
            for follows in (False, True):  # a value that follows from another may need no word of its own
                words += list(_differences(config, _compose(name, words, config), follows))
            if fingerprint(_compose(name, words, config)) != fingerprint(config):
                return None
    except (HydraException, OmegaConfBaseException, ValueError):  # of the user's own network, or of another version
        return None
    return f"python src/{name}.py {shlex.join(words)}"


@contextmanager
def _composing() -> Iterator[None]:
    """Let Hydra compose conf/ meanwhile, also within a command that Hydra has started."""
    started = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = started


def _compose(name: str, words: list[str], config: DictConfig) -> DictConfig:
    composed = compose(name, words)
    for group in GROUPS:
        composed[group].name = config[group].name
    return composed


def _schedule(config: DictConfig) -> list[str]:
    """schedule=NAME where the recipe has no schedule of its own."""
    schedule = config.model.schedule
    if not schedule or read_choice("model", config.model.name).schedule:
        return []
    names = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))
    named = {name: read_choice("schedule", name).schedule for name in names}
    return [f"schedule={name}" for name, each in named.items() if each and each["_target_"] == schedule["_target_"]][:1]


def _differences(config: DictConfig, composed: DictConfig, follows: bool) -> Iterator[str]:
    """KEY=VALUE of what `config` has otherwise than `composed`; if `follows`, also where another value implies it."""
    ours, theirs = dict(flatten(OmegaConf.to_container(config))), dict(flatten(OmegaConf.to_container(composed)))
    resolved = dict(flatten(OmegaConf.to_container(composed, resolve=True)))
    unsaid = UNSAID | ({"trainer.precision"} if config.speed else set())
    unsaid |= {"data.corrections_sha256"}  # of the file, whatever it holds
    unsaid |= {"data.root"} if "fit" not in config.data.source else set()
    for key, value in ours.items():
        depends = "${" in str(theirs.get(key))
        if key in unsaid or (key in resolved and resolved[key] == value) or (depends and not follows):
            continue
        is_there = key in resolved or any(each.startswith(f"{key}.") for each in resolved)  # md5=null, of several
        yield f"{'' if is_there else '+'}{_word(key, value)}"
    gone = [key for key in resolved if key not in ours and key.rpartition(".")[0] not in ours and key not in unsaid]
    yield from (f"~{key}" for key in gone if not follows)


def _word(key: str, value: Any) -> str:
    """KEY=VALUE in Hydra's grammar."""
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w./-]*", value, re.ASCII):
        return quoted(key, value)
    if isinstance(value, list):
        return f"{key}=[{','.join(_word('', each)[1:] for each in value)}]"
    return f"{key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"
