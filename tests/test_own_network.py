"""A network in a file of the user's own: named on the command line it is run, named by a run's folder it is not."""

import shlex

import pytest
import torch
import yaml
from conftest import SMALL_MNIST, read_csv, read_result

from lab.config.again import command_again
from lab.config.overrides import resume_command
from lab.files import hash_text
from lab.models import own
from lab.runs.folder import read_config

FAST = (*SMALL_MNIST, "model.epochs=1", "model.batch_size=50", "threads=1")
MINE = """
from torch.nn import Flatten, LazyLinear, ReLU, Sequential


def mine(classes, units=16):
    return Sequential(Flatten(), LazyLinear(units), ReLU(), LazyLinear(classes))
"""
ODD = """\ufeff
import torch
from torch.nn import Flatten, Linear, Sequential


def compiled(classes):
    return torch.compile(Sequential(Flatten(), Linear(784, classes)), backend="eager")


class Negated(Sequential):
    def forward(self, images):
        return -super().forward(images)


def negated(classes):
    return Negated(Flatten(), Linear(784, classes))
"""
WRONG = """

class Wrong(ReLU):
    def forward(self, images):
        return images.flat
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my nets.py"
    path.write_text(MINE)
    return path


def test_it_trains_evaluates_resumes_and_exports_as_the_labs_do(here, refused, tmp_path, mine):
    named = f"networks='{mine}'"
    run = tmp_path / "run (1)"
    here("train", named, "model=mine", "schedule=cosine", *FAST, f"hydra.run.dir='{run}'")
    result, kept = read_result(run), run / "networks.py"
    assert result["model"] == "mine" and kept.read_text() == MINE
    assert result["parameters"]["total"] == 784 * 16 + 16 + 16 * 10 + 10
    assert "that you did not name" in refused(run, command="evaluate")
    here("evaluate", run, "--networks", kept)
    assert f"networks='{kept}'" in shlex.split(command_again(read_config(run)))
    here("export", run, "--networks", kept)
    assert (run / "model.ts").exists()
    (run / "result.json").unlink()
    here("train", *shlex.split(resume_command(run))[2:])
    assert read_result(run)["test"] == result["test"]


def test_one_that_torch_cannot_trace_ends_with_its_result_as_others_do(here, tmp_path):
    (tmp_path / "odd.py").write_text(ODD, encoding="utf-8")
    told = here("train", "networks=odd.py", "model=compiled", *FAST, "hydra.run.dir=run").out
    assert "TensorBoard has no graph of this network" in told
    assert read_result(tmp_path / "run")["test"]["last"]["images"] == 100


def test_a_sequence_with_a_forward_of_its_own_keeps_it(tmp_path):
    (tmp_path / "odd.py").write_text(ODD, encoding="utf-8")
    net = own(10, str(tmp_path / "odd.py"), "negated", hash_text(tmp_path / "odd.py"))
    images = torch.ones(2, 1, 28, 28)
    torch.testing.assert_close(net(images), -net[0][1](images.flatten(1)))


def test_it_is_swept_and_cross_validated(here, tmp_path, mine):
    named = f"networks='{mine}'"
    wide = "+model.net.units=8,32"
    here("train", "-m", "hydra/launcher=basic", "hydra.sweep.dir=sweep", named, "model=mine", *FAST[:-1], wide)
    assert {row["+model.net.units"] for row in read_csv(tmp_path / "sweep" / "sweep.csv")} == {"8", "32"}
    runs = sorted(path.parent for path in tmp_path.glob("sweep/*/result.json"))
    assert "mine units=32" in here("compare", *runs).out
    folds = ("data.folds=2", "hydra.run.dir=folds", "workers=1")
    here("cross_validate", named, "model=mine", *FAST[:-1], *folds, "data.validation=0")
    assert len(read_result(tmp_path / "folds")["folds"]) == 2


def test_a_sweep_takes_no_network_for_what_it_was_before(here, refused, tmp_path, mine):
    sweep = ("-m", f"networks='{mine}'", "model=mine", *FAST[:-1], "seed=1", "hydra/launcher=basic")
    here("train", *sweep, "hydra.sweep.dir=sweep")
    mine.write_text(MINE.replace("ReLU()", "ReLU(), ReLU()"))
    assert "holds a run with another configuration" in refused(*sweep, "hydra.sweep.dir=sweep")


def test_a_folder_names_functions_of_the_file_alone(here, refused, tmp_path, mine):
    here("train", f"networks='{mine}'", "model=mine", *FAST, "hydra.run.dir=run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("name: mine\n    sha", "name: Flatten\n    sha"))
    assert "Flatten, is no function NAME(classes)" in refused("run", "--networks", mine, command="evaluate")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (MINE.replace("Flatten()", "Wrong()") + WRONG, "layer 1, Wrong, cannot take 1x28x28 ('Tensor' object has no"),
        ("def mine(units):\n    pass\n", "no function NAME(classes)"),
        ("def mine(classes:\n", "not Python"),
        ("def deep(classes):\n    pass\n", "call yours otherwise"),
        ("def mine(classes):\n    return wrong\n", "line 2: NameError: name 'wrong' is not defined"),
        ("def mine(classes):\n    return 5\n", "gives a int, must give a torch.nn.Module"),
        ("from torch.nn import Flatten\n\n\ndef mine(classes):\n    return Flatten()\n", "must give 10 logits"),
    ],
)
def test_what_is_wrong_with_the_file_is_a_line(refused, tmp_path, content, line):
    (tmp_path / "mine.py").write_text(content)
    assert line in refused("networks=mine.py", "model=mine", *FAST)
    assert not (tmp_path / "outputs").exists() or not list(tmp_path.glob("outputs/*/config.yaml"))


@pytest.mark.parametrize("place", ["net", "optimizer", "schedule"])
def test_no_folder_names_a_file_that_is_run(here, refused, tmp_path, place):
    here("train", *SMALL_MNIST, "model=small_dense", "model.epochs=1", "hydra.run.dir=run")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n\n\ndef evil(classes):\n    pass\n")
    path = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    evil = {"_target_": "lab.models.own", "file": str(tmp_path / "evil.py"), "name": "evil", "sha256": "0"}
    config["model"][place] = evil | ({"lr": 0.1} if place == "optimizer" else {})
    path.write_text(yaml.safe_dump(config))
    refused("run", command="evaluate")
    if place == "net":  # nor does a command that is made from it
        assert command_again(read_config(tmp_path / "run", builds=False)) is None
    assert not (tmp_path / "ran").exists()
