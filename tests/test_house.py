"""The house is in order: style, who imports whom, the table of networks."""

import ast
import functools
import os
import re
import subprocess
import sys

import pytest
from conftest import PROJECT
from hydra import compose, initialize_config_dir

from lab.config.schema import CONF

SRC = PROJECT / "src"
LAB = SRC / "lab"
# a wing imports lower ones only; the ground are the files beside them
LEVELS = {
    **{"config": 1, "models": 1, "display": 1},
    **{"datasets": 2, "runs": 2, "cli": 2},
    **{"evaluation": 3, "training": 4, "experiments": 5, "export": 5, "report": 6},
}
# pictures become pixels, and files are opened, in one place: predict.py's, which must stay a lone file for the device
COMMANDS_IMPORTED = {"decode": {"predict"}, "export.formats": {"predict"}}
WITHOUT_TORCH = (
    "errors",
    "files",
    "config",
    "display",
    "datasets.dataset",
    "runs",
    "cli",
    "evaluation",
    "experiments",
    "report",
)
LIGHTNINGS = {"datasets.batches", "training", *(f"training.{name}" for name in ("classifier", "load", "prepare"))}
LIGHTNINGS |= {f"training.{name}" for name in ("fastest", "train", "trainer", "tune")}


def module_name(path):
    """config.schema of src/lab/config/schema.py, config of src/lab/config/__init__.py"""
    return ".".join(path.relative_to(LAB).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_name(path): path for path in LAB.rglob("*.py")}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def imports(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command):
    process = subprocess.run([sys.executable, "-m", "ruff", *command, PROJECT], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


@functools.cache
def imports_of_lab(path, wherever=True):
    """The modules of lab that a file imports: of `from lab.config import schema` config.schema."""
    found = set()
    for node in ast.walk(parsed(path)) if wherever else parsed(path).body:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "lab":
            name = node.module.removeprefix("lab").removeprefix(".")
            inner = {f"{name}.{alias.name}".removeprefix(".") for alias in node.names}
            found |= inner & MODULES.keys() or {name}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lab.") for alias in node.names if alias.name.startswith("lab.")}
    return found


def level(module):
    return LEVELS.get(module.partition(".")[0], 0)


def test_every_wing_says_its_purpose_in_a_line():
    for wing in LEVELS:
        first = (LAB / wing / "__init__.py").read_text().splitlines()[0]
        assert first.startswith('"""') and first.endswith('"""') and len(first) > 30, wing
    assert {path.name for path in LAB.iterdir() if path.is_dir() and path.name != "__pycache__"} == LEVELS.keys()


def test_a_wing_imports_lower_wings_only():
    commands = {path.stem for path in SRC.glob("*.py")}
    for module, path in MODULES.items():
        commanded = {name.partition(".")[0] for name in imports(path)} & commands
        assert commanded == COMMANDS_IMPORTED.get(module, set()), f"{module} imports a command"
        for other in imports_of_lab(path):
            within = module.partition(".")[0] == other.partition(".")[0] or (level(module) == level(other) == 0)
            assert within or level(other) < level(module), f"{module} imports {other}"


def test_no_imports_go_in_a_circle():
    graph = {module: imports_of_lab(path) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, others in graph.items() if not others & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, f"in circles: {sorted(graph)}"


def test_networks_know_neither_config_nor_data():
    for module, path in MODULES.items():
        roots = {name.partition(".")[0] for name in imports(path)}
        if module.startswith("models"):
            assert not roots & {"hydra", "omegaconf", "pytorch_lightning"}, module
        if module not in LIGHTNINGS:
            assert "pytorch_lightning" not in roots, f"{module} knows Lightning"


def test_what_must_answer_fast_does_without_torch():
    """Transitively, by the imports that run when a module is imported."""
    for start in MODULES:
        if not start.startswith(WITHOUT_TORCH):
            continue
        reached, todo = set(), [start]
        while todo:
            module = todo.pop()
            reached.add(module)
            top = [node for node in parsed(MODULES[module]).body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
            assert not {name.partition(".")[0] for name in names} & {"torch", "torchvision"}, f"{start}: {module}"
            todo += imports_of_lab(MODULES[module], wherever=False) - reached


def test_texts_are_utf8_in_any_locale(tmp_path):
    code = "from lab.files import *; path = Path('a.txt'); write_text('\\u202f', path); print(ascii(read_text(path)))"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(SRC)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | locale, capture_output=True, text=True
    )
    assert process.stdout == "'\\u202f'\n", process.stderr


def test_every_recipe_is_short_and_its_first_line_names_its_source():
    for path in (CONF / "model").glob("*.yaml"):
        first, *rest = path.read_text().splitlines()
        assert first.startswith("# ") and ("Lab " in first or "lab A" in first), path
        assert len(rest) <= 8, path


def test_every_option_of_the_trainers_yaml_is_lightnings():
    import inspect

    from pytorch_lightning import Trainer

    from lab.config.overrides import LIGHTNINGS
    from lab.training.trainer import OURS

    known = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert known == LIGHTNINGS | set(OURS) | set(compose("train", []).trainer)  # with a plus or without
    for name in ("default", "ddp"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            trainer = compose("train", [f"trainer={name}"]).trainer
        assert set(trainer) <= set(known)


def test_the_table_of_networks_names_every_network_with_its_parameters():
    from test_models import COUNTS

    readme = (PROJECT / "docs" / "networks.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` .*?\| ([\d,]+) \|", readme, re.MULTILINE))
    assert rows.keys() == {path.stem for path in (CONF / "model").glob("*.yaml")}
    for name, (_, _, total, _) in COUNTS.items():
        assert int(rows[name].replace(",", "")) == total, name
