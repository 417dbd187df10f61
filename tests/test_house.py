"""The house is in order: style, who imports whom, the README's table."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import PROJECT
from hydra import compose, initialize_config_dir

from lab.config import CONF

SRC = PROJECT / "src"
HYDRAS = [
    "checks",
    "command",
    "config",
    "export",
    "fit",
    "folder",
    "folds",
    "reproduction",
    "results",
    "run",
    "sweep",
    "tune",
    "workers",
]
LIGHTNINGS = ["callbacks", "classifier", "data", "fit", "run", "tune"]


def imports(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command):
    process = subprocess.run([sys.executable, "-m", "ruff", *command, PROJECT], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_imports_point_one_way():
    commands = {path.stem for path in SRC.glob("*.py")}
    for path in (SRC / "lab").glob("*.py"):
        modules = set(imports(path))
        roots = {module.partition(".")[0] for module in modules}
        assert not roots & commands, f"{path.name} imports a command"
        if path.stem not in HYDRAS:
            assert not roots & {"hydra", "omegaconf"}, f"{path.name} knows Hydra"
        if path.stem not in LIGHTNINGS:
            assert "pytorch_lightning" not in roots, f"{path.name} knows Lightning"
    lab = {module for module in imports(SRC / "lab" / "models.py") if module.startswith("lab")}
    assert lab == {"lab.layers"}, "models.py knows recipes or data"


def test_every_recipe_composes_and_its_first_line_names_its_source():
    for path in (CONF / "model").glob("*.yaml"):
        first, *rest = path.read_text().splitlines()
        assert first.startswith("# ") and ("Lab " in first or "lab A" in first), path
        assert len(rest) <= 8, path
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("train", [f"model={path.stem}"])


def test_every_option_of_the_trainers_yaml_is_lightnings():
    import inspect

    from pytorch_lightning import Trainer

    known = inspect.signature(Trainer.__init__).parameters
    for name in ("default", "ddp"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            trainer = compose("train", [f"trainer={name}"]).trainer
        assert set(trainer) <= set(known)


def test_the_readmes_table_names_every_network_with_its_parameters():
    from test_models import COUNTS

    readme = (PROJECT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` .*?\| ([\d,]+) \|", readme, re.MULTILINE))
    assert rows.keys() == {path.stem for path in (CONF / "model").glob("*.yaml")}
    for name, (_, _, total, _) in COUNTS.items():
        assert int(rows[name].replace(",", "")) == total, name
