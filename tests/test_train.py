"""train.py as a user types it: what it prints, what it leaves, what it refuses."""

import itertools
import json
import os
import re
import shutil
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import SMALL_MNIST, one_line, read_csv, read_result
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FAST = (*SMALL_MNIST, "model=small_pool", "model.epochs=2", "model.batch_size=50")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_root):
    """One run with everything on: its process and its folder."""
    from conftest import PROJECT, subprocess

    folder = tmp_path_factory.mktemp("run") / "mine"
    command = [sys.executable, PROJECT / "src" / "train.py", *FAST, "histograms=true", f"hydra.run.dir={folder}"]
    environment = os.environ | {"LAB_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True), folder


def test_a_run_tells_data_layers_epochs_and_figures(finished):
    process, folder = finished
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    told = process.stdout
    for part in (
        "mnist: 400 images of 1x28x28",
        "270 │         30 │  100",
        "57,034",
        "epoch 2/2: loss",
        "test       │ best epoch",
        f"Run folder: {folder}",
    ):
        assert part in told, told


def test_a_run_folder_holds_what_the_readme_says(finished):
    _, folder = finished
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {
        *("config.yaml", "best.ckpt", "last.ckpt", "metrics.csv", "result.json", "predictions.npz"),
        *("predictions_validation.npz", "curves.png", "confusion.png"),
    }
    result = read_result(folder)
    assert result["model"] == "small_pool" and result["data"]["name"] == "mnist"
    assert result["data"]["images"] == {"train": 270, "validation": 30, "test": 100}
    assert result["parameters"] == {"total": 57_034, "trainable": 57_034}
    assert result["test"]["last"]["images"] == 100 and result["test"]["last"]["epoch"] == 2
    rows = read_csv(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_accuracy"]) == result["validation"]["last"]["accuracy"]
    with Image.open(folder / "curves.png") as picture:
        assert picture.width >= 1000


def test_checkpoints_hold_plain_values_and_give_the_reported_accuracy(finished, data_root):
    from lab.datasets import idx
    from lab.models import small_pool
    from lab.models.build import build

    _, folder = finished
    net, _ = build(small_pool(10), (1, 28, 28), 255, "small_pool")
    weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    net.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})
    mnist = idx(data_root, "MNIST/raw", [], None)
    images = torch.from_numpy(mnist.images[300:]).permute(0, 3, 1, 2)
    with torch.no_grad():
        correct = net.eval()(images).argmax(1) == torch.from_numpy(mnist.labels[300:])
    assert correct.float().mean().item() == pytest.approx(read_result(folder)["test"]["last"]["accuracy"], abs=1e-6)


def test_tensorboard_shows_scalars_histograms_graph_and_hyper_parameters(finished):
    _, folder = finished
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()
    tags = events.Tags()
    assert {"loss/train", "accuracy/val", "final/test_accuracy"} <= set(tags["scalars"])
    assert "epoch" not in tags["scalars"] and "custom_scalars__config__" in events.summary_metadata
    for name in ("loss/train", "accuracy/val"):
        assert [event.step for event in events.Scalars(name)] == [1, 2], name
    assert "1.weight" in tags["histograms"] and len(events.Histograms("1.weight")) == 2
    assert tags["graph"]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert events.Scalars("final/test_accuracy")[-1].value == pytest.approx(
        read_result(folder)["test"]["last"]["accuracy"]
    )


def test_another_runs_folder_is_never_written_into(finished, refused):
    _, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "holds another run" in refused(*FAST, f"hydra.run.dir={folder}")
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_run_whose_config_is_gone_is_not_gone_on_with(finished, refused, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "copy")
    (folder / "config.yaml").unlink()
    assert "holds another run" in refused(*FAST, "seed=2", f"hydra.run.dir={folder}")
    assert not (folder / "config.yaml").exists()


def test_the_same_seed_gives_the_same_bits(train_here, tmp_path):
    """With dropout and augmentation; each run gets a folder of its own."""
    for seed in (3, 3, 4):
        changes = ("model.augment.rotation=10", "model.augment.shift=0.1", "trainer.limit_train_batches=2")
        train_here(*FAST, "model=dropout", "model.epochs=1", *changes, f"seed={seed}")
    folders = sorted((tmp_path / "outputs").iterdir(), key=lambda folder: read_result(folder)["seed"])
    assert len(folders) == 3
    first, again, other = (torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in folders)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["net.1.weight"], other["net.1.weight"])


@pytest.mark.slow
def test_two_processes_train_as_one_does(train, train_here, tmp_path):
    train_here(*FAST, "model=baseline", "model.batch_size=54", "hydra.run.dir=alone")
    shared = train(*FAST, "model=baseline", "model.batch_size=54", "hydra.run.dir=shared", "trainer=ddp")
    assert shared.returncode == 0, shared.stderr
    one, two = (read_result(tmp_path / name) for name in ("alone", "shared"))
    assert (one["processes"], two["processes"]) == (1, 2)
    for part in ("train", "validation", "test"):
        first, second = (result[part] if part == "train" else result[part]["last"] for result in (one, two))
        assert second["images"] == first["images"]
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-3)
    assert shared.stdout.count("epoch 1/2") == 1
    ours, theirs = (np.load(tmp_path / name / "predictions.npz") for name in ("alone", "shared"))
    assert all(np.array_equal(ours[key], theirs[key]) for key in ("labels", "indices", "sha256"))
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=0.01)
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"alone", "shared"}


def test_a_fold_is_the_validation_part(train_here, tmp_path):
    train_here(*FAST, "data.folds=3", "data.fold=2", "hydra.run.dir=fold")
    result = read_result(tmp_path / "fold")
    assert result["data"]["images"] == {"train": 200, "validation": 100, "test": 100}
    assert result["data"]["split"]["fold"] == 2


def test_without_validation_all_images_train_and_there_is_no_best_epoch(train_here, tmp_path):
    train_here(*FAST, "data.validation=0", "hydra.run.dir=all")
    result = read_result(tmp_path / "all")
    assert result["data"]["images"] == {"train": 300, "validation": 0, "test": 100}
    assert result["validation"] == {} and result["test"].keys() == {"last"}
    assert not (tmp_path / "all" / "best.ckpt").exists()


@pytest.mark.parametrize(("data", "shape"), [("cifar4", [3, 32, 32]), ("pneumonia", [1, 28, 28]), ("npy", [3, 32, 32])])
def test_other_data_sets_train(train_here, tmp_path, data, shape):
    files = ("data.source.images=CIFAR4_X.npy", "data.source.labels=CIFAR4_Y.npy") if data == "npy" else ()
    train_here(f"data={data}", *files, "model=small_pool", "model.epochs=1", "hydra.run.dir=run")
    result = read_result(tmp_path / "run")
    assert result["data"]["shape"] == shape
    assert (
        result["data"]["classes"]
        == {
            "cifar4": ["bird", "cat", "frog", "horse"],
            "pneumonia": ["normal", "pneumonia"],
            "npy": ["0", "1", "2", "3"],
        }[data]
    )


def test_without_files_and_network_a_marked_sample_is_trained_on(train_here, tmp_path):
    told = train_here(
        "model=small_dense", "trainer.limit_train_batches=2", "model.epochs=1", "hydra.run.dir=run", "data.root=null"
    )
    assert "This is NOT the MNIST data set" in told.err
    assert read_result(tmp_path / "run")["data"]["name"] == "mnist_sample"
    assert "mnist_sample" in told.out


def test_trainers_epochs_win_over_the_recipes_and_say_so(train_here, tmp_path):
    told = train_here(*FAST, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.run.dir=run")
    assert "trainer.max_epochs=1 wins over model.epochs=2" in told.out
    result = read_result(tmp_path / "run")
    assert result["epochs"] == 1 and result["train"]["images"] == 100


def test_an_epoch_without_validation_has_no_figures_of_another_but_the_last_is_validated_at_the_end(
    train_here, tmp_path
):
    train_here(*FAST, "model.epochs=3", "trainer.check_val_every_n_epoch=2", "hydra.run.dir=run")
    rows = read_csv(tmp_path / "run" / "metrics.csv")
    assert [bool(row["val_loss"]) for row in rows] == [False, True, False]
    validated = read_result(tmp_path / "run")["validation"]
    assert [validated[which]["epoch"] for which in ("best", "last")] == [2, 3]


@pytest.mark.parametrize(
    ("precision", "ran"), [("64-true", "64-true"), ("bf16-mixed", "bf16-mixed"), ("16-mixed", "bf16-mixed")]
)
@pytest.mark.filterwarnings("ignore:.*AMP with fp16")  # of a CPU, which takes bfloat16
def test_other_precisions_train(train_here, tmp_path, precision, ran):
    options = (f"trainer.precision={precision}", "trainer.gradient_clip_val=1")
    train_here(*FAST, "model.epochs=1", *options, "hydra.run.dir=run")
    result = read_result(tmp_path / "run")
    assert result["test"]["last"]["images"] == 100 and result["precision"] == ran


def test_help_lists_models_data_options_and_examples_without_torch(train):
    process = train("--help", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert process.returncode == 0
    for part in ("deep ", "VGG-style", "cifar4 ", "data.root=FOLDER", "python src/train.py -m"):
        assert part in process.stdout
    assert "hydra" in process.stderr and "torch" not in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=dep"], "did you mean 'deep'?"),
        (["data=minst"], "did you mean 'mnist'?"),
        (["model.epoch=3"], "did you mean 'model.epochs'?"),
        (["lr=0.1"], "did you mean 'model.optimizer.lr'?"),
        (["+lr=0.1"], "did you mean 'model.optimizer.lr'?"),
        (["trainer.maxepochs=1"], "did you mean 'trainer.max_epochs'?"),
        (["model.epochs=abc"], "could not be converted to Integer"),
        (["model.optimizer.lr=fast"], "must be a number above 0"),
        (["model.batch_size=0"], "model.batch_size=0: must be 1 or more"),
        (["data.folds=5", "data.fold=7"], "data.fold=7: must be from 0 to 4"),
        (["data.validation=0.5", "data.test=0.5"], "nothing is left to train on"),
        (["data=npy"], "data.source.images is missing"),
        (["data=cifar4", "data.sample=true"], "only data=mnist"),
        (["weights=resnet.pth"], "only pretrained networks do"),
        (["model=["], "no viable alternative"),
        (["deep"], "is no KEY=VALUE; did you mean model=deep?"),
        (["model=null"], "Config group override must be"),
        (["++model.foo=1"], "model.foo: there is no such key"),
        (["data.fold=3"], "go with data.folds=5"),
        (["trainer.limit_test_batches=0"], "must be a number, and not 0"),
        (["trainer.max_epochs=2.5"], "must be a whole number"),
        (["+trainer.max_steps=0"], "must be 1 or more, or -1"),
        (["tune=lr", "+trainer.fast_dev_run=true"], "leave one out"),
        (["early_stopping=2", "+trainer.val_check_interval=0.2"], "early_stopping counts epochs"),
        (["trainer.devices=1000"], "must be from 1 to"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_no_folder(refused, tmp_path, arguments, message):
    assert message in refused(*arguments)
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize("arguments", [["model=dep"], ["model.batch_size=0"], ["+lr=0.1"]])
def test_a_wrong_option_is_told_before_torch_is_imported(train, arguments):
    process = train(*arguments, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    one_line(process)
    assert "omegaconf" in process.stderr and "| torch" not in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SMALL_MNIST[:1]], "wrong checksum"),
        ([*FAST, "data.root=nothing", "data.sample=false"], "cannot be downloaded"),
        (["data=fashion_mnist"], "cannot be downloaded"),
        (["data=cifar4", "data.root=nothing"], "make_cifar4.py"),
        (["data=cifar4", "data.classes=[bird,cat]"], "labels run from 0 to 3"),
        (["data=cifar4", "model=alexnet_224", "+model.net.units=3"], "unexpected keyword argument 'units'"),
        (["data=cifar4", "+model.optimizer.speed=3"], "unexpected keyword argument 'speed'"),
        (["data=cifar4", "+trainer.speed=3"], "trainer.speed"),
        (["data=cifar4", "trainer.precision=99"], "Precision 99 is invalid"),
        (["data=cifar4", "model.optimizer.momentum=-1"], "Invalid momentum"),
        (["data=cifar4", "model=dropout", "model.net.rate=2"], "dropout probability"),
        (["data=cifar4", "model=batchnorm", "model.batch_size=1"], "needs two images"),
        (["model=resnet50", "data=cifar4", "weights=nothing.pth"], "there is no such file"),
        (["data=cifar4", "hydra.run.dir=file/run"], "file"),
        (["--epochs", "3"], "KEY=VALUE; did you mean 'model.epochs'?"),
        (["trainer.check_val_every_n_epoch=0"], "must be 1 or more"),
        (["trainer.precision=null"], "32-true for float32"),
        (["trainer.limit_train_batches=nan"], "must be a number between"),
        (["data=cifar4", "model.net._target_=argparse.Namespace"], "must be a Sequential, or a function"),
        (["data=cifar4", "model.net._target_=builtins.dict"], "must be a Sequential, or a function"),
        (["trainer.gradient_clip_val=-1"], "must be a number above 0"),
        (["data=cifar4", "trainer.strategy=ddp_spawn"], "trainer.strategy=ddp_spawn: is not for this program"),
        (["data=cifar4", "trainer=ddp", "trainer.sync_batchnorm=true"], "torch has it for GPUs alone"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(refused, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    assert message in refused(*arguments)
    assert not list(tmp_path.glob("outputs/*"))


def test_a_diverged_run_stops_with_the_epoch_and_the_learning_rate(refused, tmp_path):
    arguments = (*FAST, "model=baseline", "model.optimizer.lr=1e30", "hydra.run.dir=run")
    told = refused(*arguments)
    assert "of epoch 1, at a learning rate of 1e+30: try a smaller model.optimizer.lr" in told
    assert not list((tmp_path / "run").glob("*.ckpt"))


def test_images_too_small_for_a_network_are_refused_by_layer(refused, tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((40, 6, 6), np.uint8))
    np.save(tmp_path / "Y.npy", np.arange(40) % 2)
    files = ("data=npy", f"data.root={tmp_path}", "data.source.images=X.npy", "data.source.labels=Y.npy")
    assert "images of 1x6x6 are too small" in refused(*files, "model=deep")


def test_speed_fast_says_what_it_measured_and_chose(train_here, tmp_path):
    told = train_here(*SMALL_MNIST, "model=small_dense", "model.epochs=1", "speed=fast", "hydra.run.dir=fast").out
    said = re.search(r"speed=fast: (float32|products in bfloat16).* (\d+\.\d) times", told)
    precision = read_result(tmp_path / "fast")["precision"]
    if precision == "32-true":
        assert said[1] == "float32" and float(said[2]) <= 1.1
    else:
        assert said[1] == "products in bfloat16" and float(said[2]) >= 1.1


def test_a_run_in_bfloat16_is_about_as_good_and_is_evaluated_in_it(train_here, here, tmp_path):
    options = (*SMALL_MNIST, "model=small_dense", "model.epochs=2", "model.optimizer.lr=0.01")
    train_here(*options, "trainer.precision=bf16-mixed", "hydra.run.dir=fast")
    train_here(*options, "hydra.run.dir=usual")
    fast, usual = (read_result(tmp_path / run)["test"]["last"] for run in ("fast", "usual"))
    assert fast["loss"] != usual["loss"]
    assert fast["accuracy"] == pytest.approx(usual["accuracy"], abs=0.1)
    here("evaluate", tmp_path / "fast")
    evaluation = json.loads((tmp_path / "fast" / "evaluation.json").read_text())
    assert evaluation["accuracy"] == pytest.approx(fast["accuracy"])


@pytest.mark.parametrize("wrong", [("speed=faster",), ("speed=fast", "trainer.precision=bf16-mixed")])
def test_speed_is_fast_or_left_out_and_chooses_the_precision(refused, wrong):
    assert "speed" in refused(*wrong)


def test_speed_fast_keeps_its_fingerprint_and_its_precision_when_it_is_resumed(train_here, tmp_path):
    train_here(*SMALL_MNIST, "model=small_dense", "model.epochs=1", "speed=fast", "hydra.run.dir=run")
    before = read_result(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    config = tmp_path / "run" / "config.yaml"
    other = {"32-true": "bf16-mixed", "bf16-mixed": "32-true"}[before["precision"]]  # as if chosen on another machine
    config.write_text(config.read_text().replace(f"precision: {before['precision']}", f"precision: {other}"))
    train_here("resume=run")
    after = read_result(tmp_path / "run")
    assert (after["digest"], after["precision"]) == (before["digest"], other)


def test_an_epoch_shorter_than_a_clocks_tick_has_a_speed(train_here, monkeypatch, tmp_path):
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * 1e-6)
    train_here(*FAST, "hydra.run.dir=run")
    assert read_csv(tmp_path / "run" / "metrics.csv")[0]["seconds"] in ("0.0", "0.001")


def test_a_run_leaves_threads_exceptions_to_whom_they_belong(train_here):
    before = threading.excepthook
    train_here(*FAST, "model.epochs=1", "hydra.run.dir=run")
    assert threading.excepthook is before


def test_a_checkpoint_with_weights_that_are_no_numbers_is_refused(train_here, refused, tmp_path):
    train_here(*FAST, "model.epochs=1", "hydra.run.dir=run")
    path = tmp_path / "run" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.1.weight"][0] = float("nan")
    torch.save(checkpoint, path)
    assert "its weights are not all finite numbers" in refused("run", command="evaluate")
