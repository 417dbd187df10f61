"""A disk that is full at any write, a folder that is gone: one line, and what was saved before stays good."""

import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import PROJECT, SMALL_MNIST, read_result

# bytes that a file may have: each stops at another one's writing
LIMITS = [int(limit) for limit in np.geomspace(300, 5_000_000, 30)]
OPTIONS = (*SMALL_MNIST, "model=small_dense", "model.epochs=3", "threads=1", "hydra.run.dir=run")


def start(command, tmp_path, data_root, limit=None):
    def restrict():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, PROJECT / "src" / command[0], *command[1:]]
    environment = os.environ | {"LAB_DATA": str(data_root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=tmp_path, env=environment, preexec_fn=restrict, **pipes)


def assert_good(folder):
    """What is there is whole."""
    for path in folder.rglob("*"):
        assert not path.name.startswith(".") or path.name in (".running", ".lock"), path
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.name == "result.json":
            read_result(path.parent)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert len(arrays["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
def test_no_room_for_a_file_is_one_line_and_leaves_whole_files(train_here, drawn, tmp_path, data_root, limit):
    process = start(["train.py", *OPTIONS], tmp_path, data_root, limit)
    _, told = process.communicate(timeout=120)
    assert_good(tmp_path)
    if process.returncode == 0:
        assert read_result(tmp_path / "run")["epochs"] == 3
        return
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert not (tmp_path / "run" / "result.json").exists()
    if (tmp_path / "run" / "config.yaml").exists():  # with room again it goes on
        train_here("resume=run")
        assert read_result(tmp_path / "run")["epochs"] == 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("full")


@pytest.fixture
def run(runs, train_here):
    if not (runs / "run").exists():
        train_here(*OPTIONS[:-1], f"hydra.run.dir={runs / 'run'}")
    return runs / "run"


@pytest.mark.parametrize("command", ["export", "evaluate", "show", "compare"])
@pytest.mark.parametrize("limit", [2_000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_commands_on_a_full_disk_leave_what_was_there(run, here, drawn, capfd, tmp_path, command, limit):
    shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        here(command, *["run"] * (2 if command == "compare" else 1))
        assert limit > 10_000 and command == "compare"  # which writes nothing larger
    except SystemExit as refusal:
        told = capfd.readouterr().err + str(refusal.code)
        assert told.startswith("error: ") and "\n" not in told, told
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_good(tmp_path / "run")


@pytest.mark.slow
def test_a_folder_deleted_underneath_is_one_line(tmp_path, data_root):
    options = [option for option in OPTIONS if "epochs" not in option]
    process = start(["train.py", *options, "model.epochs=2000"], tmp_path, data_root)
    while not (tmp_path / "run" / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    (tmp_path / "run").rename(tmp_path / "trash")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and told.startswith("error: ") and told.count("\n") == 1, told
    assert not (tmp_path / "run").exists()
