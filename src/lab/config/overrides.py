"""What was typed and what to type: Hydra's overrides KEY=VALUE, the keys that there are, the nearest to a wrong one."""

import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from lab.config.schema import CONF, OF_SWEEPS, SCHEMAS, Data, Recipe, Train

NEAR = 0.72  # similarity, of difflib's 1, from which on a key is meant: class_weights is not weights
# options of Lightning's Trainer that conf/trainer/default.yaml leaves out
LIGHTNINGS = {"accumulate_grad_batches", "barebones", "callbacks", "enable_autolog_hparams", "enable_checkpointing"}
LIGHTNINGS |= {"enable_model_summary", "enable_progress_bar", "fast_dev_run", "inference_mode", "limit_predict_batches"}
LIGHTNINGS |= {"log_every_n_steps", "max_steps", "min_steps", "model_registry", "overfit_batches", "val_check_interval"}
LIGHTNINGS |= {"reload_dataloaders_every_n_epochs", "use_distributed_sampler"}


def quoted(key: str, value: str) -> str:
    """KEY='VALUE', as Hydra's grammar wants it."""
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def with_plus(word: str) -> str:
    """+trainer.max_steps=8 of trainer.max_steps=8: Hydra wants a plus before a key that its files lack."""
    name = word.partition("=")[0].removeprefix("trainer.")
    return f"+{word}" if word.startswith("trainer.") and name in LIGHTNINGS else word


def command_line(overrides: Iterable[str], *more: str) -> str:
    """What to type for one run with these overrides, those of a sweep left out, those in `more` replaced."""
    typed = [override.partition("=")[0] for override in more]
    other = tuple(f"{key}=" for key in ("+sweep", *OF_SWEEPS, "tune", "stop_below", *typed))
    kept = [*(override for override in overrides if not override.startswith(other)), *more]
    groups = sorted((override for override in kept if override.startswith(("model=", "data="))), reverse=True)
    return "python src/train.py " + shlex.join([*groups, *(each for each in kept if each not in groups)])


def resume_command(folder: Path) -> str:
    """What to type to go on with the run of `folder`."""
    plain, copy = re.fullmatch(r"[\w./~-]+", str(folder), re.ASCII), folder / "networks.py"
    places = {"resume": folder} | ({"networks": copy} if copy.exists() else {})
    words = [f"{key}={place}" if plain else quoted(key, str(place)) for key, place in places.items()]
    return "python src/train.py " + shlex.join(words)


def replace_schedule(config: DictConfig) -> None:
    """Remove the recipe's own keys from model.schedule where schedule=NAME replaces it: Hydra merges the two."""
    chosen = HydraConfig.get().runtime.choices
    if chosen.get("schedule") is None or config.model.schedule is None:
        return
    recipes, named = (read_choice(group, chosen[group]).schedule for group in ("model", "schedule"))
    typed = [word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task]
    with open_dict(config.model.schedule):
        for key in set(recipes or ()) - set(named):
            if f"model.schedule.{key}" not in typed:
                del config.model.schedule[key]


def known_keys() -> Iterator[str]:
    """All keys of this command, its recipe and its data set; read from files, as composing again takes too long."""
    schema = SCHEMAS.get(Path(sys.argv[0]).stem, Train)
    yield from (known.name for known in fields(schema))
    if not issubclass(schema, Train):
        return
    yield from _keys(OmegaConf.to_container(read_choice("trainer", "default")), "trainer.")
    for group, schema, default in (("model", Recipe, "deep"), ("data", Data, "mnist")):
        given = [word.removeprefix(f"{group}=") for word in sys.argv[1:] if word.startswith(f"{group}=")]
        name = given[-1] if given and (CONF / group / f"{given[-1]}.yaml").exists() else default
        yield from _keys(OmegaConf.to_container(OmegaConf.merge(schema, read_choice(group, name))), f"{group}.")


def nearest(key: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no key's own name is near: momentum is not eps."""
    by_name = {path.split(".")[-1]: path for path in reversed(list(known))}
    found = [by_name[name] for name in difflib.get_close_matches(key.split(".")[-1], by_name, 1, NEAR)]
    return f"; did you mean '{found[0]}'?" if found else ""


def read_choice(group: str, name: str) -> DictConfig:
    """What group=NAME chooses; a recipe or a schedule has the key "schedule"."""
    path = CONF / group / f"{name}.yaml"
    config = OmegaConf.load(path) if path.exists() else OmegaConf.create()  # of networks=FILE there is none
    return OmegaConf.merge({"schedule": None}, config) if group in ("model", "schedule") else config


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and the value of every leaf, an empty mapping too: ("model.optimizer.lr", 0.01)."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _keys(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every key, leaf or not."""
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
