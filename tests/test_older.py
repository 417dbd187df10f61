"""What the version before the wings left in older.zip still evaluates, compares, resumes and exports, to its scores."""

import contextlib
import json
import os
import pty
import re
import runpy
import sys
import termios
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, read_result

DATA = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy")
RECIPE = (*DATA, "model=mlp20", "model.scale=255", "model.batch_size=10", "model.augment.shift=0.1", "model.epochs=2")
RECIPE += ("model.optimizer._target_=torch.optim.Adam",)  # today's is Keras'


@pytest.fixture
def older(tmp_path):
    """Its folders: data, run, unfinished (two epochs of the run's four), sweep, folds."""
    with zipfile.ZipFile(Path(__file__).parent / "older.zip") as archive:
        archive.extractall(tmp_path)
    for path in [*tmp_path.rglob("*.yaml"), *tmp_path.rglob("*.json")]:
        path.write_text(path.read_text().replace("@ROOT@", str(tmp_path)))
    return tmp_path


def test_a_run_is_evaluated_and_exported_to_the_same_scores(older, here):
    before = json.loads((older / "run" / "evaluation.json").read_text())
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    answers = torch.jit.load(older / "run" / "model.ts")(images)
    here("evaluate", older / "run" / "model.ts", "--root", older / "data")
    here("evaluate", older / "run")
    here("export", older / "run")
    for name in ("evaluation", "evaluation_exported"):
        evaluation = json.loads((older / "run" / f"{name}.json").read_text())
        assert evaluation["confusion"] == before["confusion"]
        assert evaluation["loss"] == pytest.approx(before["loss"], abs=1e-5)
    torch.testing.assert_close(torch.jit.load(older / "run" / "model.ts")(images), answers, atol=1e-5, rtol=0)


def test_an_unfinished_run_goes_on_to_what_the_whole_one_was(older, train_here, here):
    train_here(f"resume={older / 'unfinished'}")
    whole, resumed = read_result(older / "run"), read_result(older / "unfinished")
    assert resumed["epochs"] == 4 and resumed["digest"] == whole["digest"]
    assert resumed["test"]["last"]["loss"] == pytest.approx(whole["test"]["last"]["loss"], abs=1e-4)
    states = [torch.load(older / name / "last.ckpt", weights_only=True) for name in ("run", "unfinished")]
    for name, weight in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], weight, atol=1e-5, rtol=1e-4)
    assert "cannot be told apart" in here("compare", older / "run", older / "unfinished").out


def test_a_sweep_and_a_cross_validation_have_nothing_left_to_do(older, here):
    root, swept = f"data.root={older}/data", "model.optimizer.lr=0.01,0.001"
    told = here("train", "-m", *RECIPE, root, "threads=1", swept, "hydra/launcher=basic", "hydra.sweep.dir=sweep").out
    assert "2 jobs, 0 to run" in told and "Best by validation accuracy" in told
    options = (*RECIPE, root, "data.folds=2", "data.validation=0", "workers=1", "hydra.run.dir=folds")
    mean = json.loads((older / "folds" / "result.json").read_text())["accuracy"]["mean"] * 100
    told = here("cross_validate", *options).out
    assert "folds to train" not in told and f"Accuracy: mean={mean:.3f}" in told


def test_a_fold_that_is_missing_is_trained_and_summed_up_with_the_older_ones(older, here):
    """It has draws of its own, which those of that version had in common."""
    (older / "folds" / "fold_1").rename(older / "gone")
    options = (*RECIPE, f"data.root={older}/data", "data.folds=2", "data.validation=0", "workers=1")
    assert "1 folds to train" in here("cross_validate", *options, "hydra.run.dir=folds").out
    scores = [read_result(older / "folds" / f"fold_{k}")["held_out"]["last"]["accuracy"] for k in range(2)]
    assert read_result(older / "folds")["accuracy"]["mean"] == pytest.approx(sum(scores) / 2)


def test_the_bar_of_a_resumed_run_starts_where_the_run_stopped(older):
    """On a terminal of its own, in a copy of this process."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(older)
            termios.tcsetwinsize(1, (24, 100))
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            sys.argv = ["train.py", f"resume={older / 'unfinished'}"]
            runpy.run_path(str(PROJECT / "src" / "train.py"), run_name="__main__")
        finally:
            os._exit(0)
    shown = b""
    with contextlib.suppress(OSError):  # its end
        while part := os.read(terminal, 4096):
            shown += part
    os.waitpid(pid, 0)
    first, *_ = re.findall(rb"(\d+)%\|", shown)
    assert first == b"50", shown  # two epochs of four
