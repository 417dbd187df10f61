"""An interrupted run goes on to the same bits, wherever it was stopped."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import PROJECT, SMALL_MNIST, read_csv, read_result
from filelock import FileLock

from lab.training.checkpoint import AtomicCheckpoints

EPOCHS = 8
RECIPE = (*SMALL_MNIST, "model=dropout", f"model.epochs={EPOCHS}", "model.batch_size=50", "model.optimizer.lr=0.001")
RECIPE += ("model.augment.rotation=10", "model.augment.shift=0.1", "schedule=one_cycle", "threads=1")


def start(tmp_path, data_root, *arguments):
    command = [sys.executable, PROJECT / "src" / "train.py", *arguments]
    environment = os.environ | {"LAB_DATA": str(data_root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def heed() -> None:  # a shell lets what it starts in the background ignore SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(command, cwd=tmp_path, env=environment, preexec_fn=heed, **pipes)


def rows(folder):
    path = folder / "metrics.csv"
    return [row | {"seconds": None} for row in read_csv(path)] if path.exists() else []


def wait_for_epochs(process, folder, epochs):
    while len(rows(folder)) < epochs and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() in (None, 0), process.communicate()  # on a crowded machine it may have finished


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_run(one, other):
    """Weights, optimizer, learning rates, figures and answers."""
    assert rows(one) == rows(other)
    for name in ("last.ckpt", "best.ckpt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch"):
            assert same(*(state[key] for state in states)), (name, key)
    results = [read_result(folder) for folder in (one, other)]
    for key in ("train", "validation", "test", "epochs", "digest"):
        assert results[0][key] == results[1][key]
    answers = [np.load(folder / "predictions.npz", allow_pickle=False)["logits"] for folder in (one, other)]
    np.testing.assert_array_equal(*answers)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def uninterrupted(runs, train_here):
    if not (runs / "run").exists():
        train_here(*RECIPE, f"hydra.run.dir={runs / 'run'}")
    return runs / "run"


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_resumes_to_the_same_bits(uninterrupted, train_here, tmp_path, data_root, kills):
    chance = random.Random(kills)
    for number in range(kills):
        folder = tmp_path / str(number)
        process = start(tmp_path, data_root, *RECIPE, f"hydra.run.dir={folder}")
        wait_for_epochs(process, folder, chance.randrange(EPOCHS - 1))
        time.sleep(chance.random() * 0.2)  # in the middle of an epoch, of a file, of the test
        process.kill()
        process.communicate()
        for path in folder.glob("[!.]*.ckpt"):
            torch.load(path, weights_only=True)
        if not (folder / "config.yaml").exists():
            continue  # nothing had begun
        moved = folder.rename(tmp_path / f"moved {number}, é=1")
        train_here(f"resume='{moved}'")
        assert_same_run(uninterrupted, moved)
        assert not [path.name for path in (*moved.glob(".*"), *tmp_path.glob("outputs/*"))]
        shutil.rmtree(moved)


@pytest.mark.parametrize("signalled", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_run_with_the_command_that_goes_on(
    uninterrupted, train_here, refused, tmp_path, monkeypatch, signalled
):
    def send():
        while len(rows(tmp_path / "r, é=1")) < 5:
            time.sleep(0.005)
        os.kill(os.getpid(), signalled)

    threading.Thread(target=send, daemon=True).start()
    with monkeypatch.context() as interrupted:
        interrupted.setattr("lab.errors._interrupts", [])
        told = refused(*RECIPE, "hydra.run.dir='r, é=1'")
    line = re.fullmatch(r"error: interrupted after epoch \d+: (python src/train.py .*) goes on", told)
    assert line, told
    train_here(*shlex.split(line[1])[2:])
    assert_same_run(uninterrupted, tmp_path / "r, é=1")


@pytest.mark.parametrize("options", [(), ("trainer.gradient_clip_val=1",)], ids=["whole epochs", "batch by batch"])
def test_a_schedule_that_watches_the_loss_loses_no_step_at_a_resume(train_here, tmp_path, monkeypatch, options):
    recipe = (
        *SMALL_MNIST,
        "model=small_dense",
        "model.epochs=6",
        "model.optimizer.lr=0.1",
        "schedule=plateau",
        *options,
    )
    recipe += ("model.schedule.patience=1", "+model.schedule.threshold=1")  # no loss is low enough
    train_here(*recipe, "hydra.run.dir=whole")
    save, written = AtomicCheckpoints.save_checkpoint, []

    def stop_after_the_third(plugin, checkpoint, path, storage_options=None):
        save(plugin, checkpoint, path)
        written.append(path)
        if sum("last" in str(each) for each in written) == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as interrupted, pytest.raises(SystemExit, match="interrupted after epoch 3"):
        interrupted.setattr("lab.errors._interrupts", [])
        interrupted.setattr(AtomicCheckpoints, "save_checkpoint", stop_after_the_third)
        train_here(*recipe, "hydra.run.dir=cut")
    train_here("resume=cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    (schedule,) = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["lr_schedulers"]
    assert schedule["_last_lr"] == [0.0125]


@pytest.fixture
def unfinished(uninterrupted, tmp_path):
    """All but tested."""
    folder = shutil.copytree(uninterrupted, tmp_path / "unfinished")
    (folder / "result.json").unlink()
    return folder


def test_what_is_trained_already_is_only_tested(uninterrupted, unfinished, train_here, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    told = train_here("resume='~/unfinished'").out
    assert "epoch " not in told.partition("best epoch")[0]
    assert_same_run(uninterrupted, unfinished)
    assert "has finished: nothing is left to do" in train_here(f"resume={unfinished}").out


def test_a_run_that_stopped_early_stays_stopped(train_here, tmp_path):
    options = (*SMALL_MNIST, "model=small_dense", "model.epochs=50", "early_stopping=1", "model.optimizer.lr=0.1")
    train_here(*options, "hydra.run.dir=run")
    before, epochs = rows(tmp_path / "run"), read_result(tmp_path / "run")["epochs"]
    (tmp_path / "run" / "result.json").unlink()
    train_here("resume=run")
    assert read_result(tmp_path / "run")["epochs"] == epochs < 50
    assert rows(tmp_path / "run") == before


def test_a_resumed_run_keeps_its_number_of_threads(unfinished, train_here):
    for name in ("last.ckpt", "best.ckpt"):
        checkpoint = torch.load(unfinished / name, weights_only=True)
        assert checkpoint["callbacks"]["Epochs"]["threads"] == 1
        checkpoint["callbacks"]["Epochs"]["threads"] = 2
        torch.save(checkpoint, unfinished / name)
    train_here(f"resume={unfinished}")
    assert read_result(unfinished)["threads"] == 2
    torch.set_num_threads(1)


def test_other_images_are_refused(unfinished, refused, data_root, tmp_path, monkeypatch):
    shutil.copytree(data_root, tmp_path / "other")
    path = tmp_path / "other" / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    config = (unfinished / "config.yaml").read_text().replace(str(data_root), str(tmp_path / "other"))
    (unfinished / "config.yaml").write_text(config)
    assert "the images are not those that the run began with" in refused(f"resume={unfinished}")
    assert not (unfinished / "result.json").exists()


def test_what_cannot_be_resumed_says_why(unfinished, refused, tmp_path):
    assert "leave out seed=2" in refused(f"resume={unfinished}", "seed=2")
    assert "there is no such folder" in refused("resume=nothing")
    with FileLock(unfinished / ".running"):
        assert "another process is at this run" in refused(f"resume={unfinished}")
    (unfinished / "last.ckpt").write_bytes(b"PK\3\4 damaged")
    assert "last.ckpt: not a checkpoint of this run" in refused(f"resume={unfinished}")
    assert not (unfinished / "result.json").exists() and not list(tmp_path.glob("outputs/*"))


def test_the_last_checkpoint_knows_that_its_own_epoch_is_the_best(train_here, tmp_path):
    train_here(*SMALL_MNIST, "model=small_dense", "model.epochs=1", "hydra.run.dir=run")
    callbacks = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = (state for key, state in callbacks.items() if "val_accuracy" in key)
    assert float(best["best_model_score"]) == pytest.approx(float(rows(tmp_path / "run")[0]["val_accuracy"]))
