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
LIMITS = [1_000, *(pytest.param(int(limit), marks=pytest.mark.slow) for limit in np.geomspace(300, 5_000_000, 30))]
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


@pytest.mark.parametrize("limit", LIMITS)
def test_no_room_for_a_file_is_one_line_and_leaves_whole_files(tmp_path, data_root, limit):
    process = start(["train.py", *OPTIONS], tmp_path, data_root, limit)
    _, told = process.communicate(timeout=120)
    assert_good(tmp_path)
    if process.returncode == 0:
        assert read_result(tmp_path / "run")["epochs"] == 3
        return
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert not (tmp_path / "run" / "result.json").exists()
    if (tmp_path / "run" / "config.yaml").exists():  # with room again it goes on
        resumed = start(["train.py", "resume=run"], tmp_path, data_root)
        assert resumed.wait() == 0, resumed.communicate()
        assert read_result(tmp_path / "run")["epochs"] == 3


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_root):
    folder = tmp_path_factory.mktemp("full")
    process = start(["train.py", *OPTIONS], folder, data_root)
    assert process.wait() == 0, process.communicate()
    return folder / "run"


@pytest.mark.parametrize(
    "command", [["export.py", "run"], ["evaluate.py", "run"], ["show.py", "run"], ["compare.py", "run", "other"]]
)
@pytest.mark.parametrize("limit", [2_000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_commands_on_a_full_disk_leave_what_was_there(run, tmp_path, data_root, command, limit):
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run, tmp_path / "other")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    process = start(command, tmp_path, data_root, limit)
    _, told = process.communicate(timeout=120)
    if limit < 10_000 or process.returncode:  # compare.py writes nothing larger
        assert process.returncode != 0 and told.startswith("error: ") and told.count("\n") == 1, told
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_good(tmp_path / "run")


def test_a_folder_deleted_underneath_is_one_line(tmp_path, data_root):
    options = [option for option in OPTIONS if "epochs" not in option]
    process = start(["train.py", *options, "model.epochs=2000"], tmp_path, data_root)
    while not (tmp_path / "run" / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    (tmp_path / "run").rename(tmp_path / "trash")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and told.startswith("error: ") and told.count("\n") == 1, told
    assert not (tmp_path / "run").exists()
