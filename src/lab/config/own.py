"""Networks of the user's own, in a file that the command line names: networks=mine.py, --networks mine.py."""

import ast
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from lab.config.schema import CONF
from lab.errors import UserError
from lab.files import hash_text, read_text

TARGET = "lab.models.own"
RECIPE = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001}, "epochs": 10, "batch_size": 64}

named: dict[Path, list[str]] = {}  # the file that this command line names, and its functions; no other file is run


def name_networks(file: Path | None) -> None:
    """Make a recipe, model=NAME, of each function NAME(classes) in `file`, a Python file, which is not run yet.

    None where the command line names none.
    """
    named.clear()
    if file is None:
        return
    file = file.absolute()
    if file.suffix != ".py":
        raise UserError(f"networks={file}: must be a Python file, mine.py say")
    try:
        tree = ast.parse(read_text(file).removeprefix("\ufeff"))  # of Windows' editors
    except (SyntaxError, ValueError) as error:
        raise UserError(f"networks={file}: not Python ({error})") from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    names = [node.name for node in functions if [each.arg for each in node.args.args][:1] == ["classes"]]
    if not names:
        raise UserError(f"networks={file}: it has no function NAME(classes) that returns a network")
    for name in names:
        if (CONF / "model" / f"{name}.yaml").exists():
            raise UserError(f"networks={file}: {name} is a network of this project: call yours otherwise")
        net = {"_target_": TARGET, "file": str(file), "name": name, "sha256": hash_text(file)}
        ConfigStore.instance().store(name, {"net": net, **RECIPE}, "model")
    named[file] = names


def trust_named(net: Any, folder: Path) -> None:
    """Let `net`, of the config in a run's `folder`, come from the file that this command line names; else UserError."""
    if not named:
        raise UserError(
            f"{folder}: its network, {net.get('name')}, is of a file that you did not name: give networks=FILE to "
            f"train.py, --networks FILE to others, if you know what it does (the run kept {folder / 'networks.py'})"
        )
    ((file, names),) = named.items()
    if net.get("name") not in names:
        raise UserError(f"{folder}: its network, {net.get('name')}, is no function NAME(classes) of {file}")
    net["file"] = str(file)
