"""Hydra's `instantiate`, with a user's mistake in one line."""

import types
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from lab.errors import UserError, explain, first_line


def instantiate(key: str, config: DictConfig, kind: type, *args: Any, **kwargs: Any) -> Any:
    """The `kind` that `_target_` names, called with the other keys of `config`, which lies at `key`.

    Whoever takes `config` from a folder that may be a stranger's has compared `_target_` with runs.folder.TRUSTED.
    """
    options = OmegaConf.to_container(config, resolve=True)
    try:
        called = hydra.utils.get_object(str(options.get("_target_")))
        if not isinstance(called, types.FunctionType) and not (isinstance(called, type) and issubclass(called, kind)):
            raise UserError(
                f"{key}._target_={options['_target_']}: must be a {kind.__name__}, or a function that makes one"
            )
        made = hydra.utils.instantiate(options, *args, **kwargs, _recursive_=False, _convert_="all")
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_={options.get('_target_')}: {first_line(error)}") from None
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise UserError(explain(cause) or f"{key}: {first_line(cause)}") from None
    if not isinstance(made, kind):
        raise UserError(
            f"{key}._target_={options['_target_']}: gives a {type(made).__name__}, must give a {kind.__name__}"
        )
    return made
