"""evaluate.py, compare.py and show.py on finished runs: what they tell, what they leave, what they refuse."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL_MNIST, read_result, texts
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab.datasets.dataset import Dataset, first_of_each_class
from lab.training.saliency import find_saliency
from lab.training.show import feature_maps

FAST = ("model.epochs=2", "model.batch_size=50")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Where the runs of these tests lie, made once each."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(runs, train_here):
    """The folder of a finished run of these arguments."""

    def run(name, *arguments):
        if not (runs / name).exists():
            data = () if any(argument.startswith("data=") for argument in arguments) else SMALL_MNIST
            train_here(*data, *FAST, *arguments, f"hydra.run.dir={runs / name}")
        return runs / name

    return run


def test_a_run_is_evaluated_as_it_was_tested(trained, here, tmp_path, drawn):
    run = shutil.copytree(trained("conv", "model=small_pool"), tmp_path / "run")
    told = here("evaluate", run).out
    evaluation, test = json.loads((run / "evaluation.json").read_text()), read_result(run)["test"]["last"]
    assert evaluation["accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
    assert evaluation["loss"] == pytest.approx(test["loss"], abs=1e-5)
    assert np.sum(evaluation["confusion"]) == evaluation["images"] == 100
    low, high = evaluation["accuracy_interval"]
    assert f"Accuracy {test['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}" in told
    pair = evaluation["confused"][0]
    assert f"Most confused: {pair['class']} read as {pair['read_as']}: {pair['times']} times" in told
    for figure in ("confusion", "mistakes", "calibration"):
        with Image.open(run / f"{figure}.png") as picture:
            assert picture.width > 600
    mistakes = sum(pair["times"] for pair in evaluation["confused"])
    assert f"its {mistakes} mistakes, numbered within the test part" in texts(drawn["mistakes.png"])
    told = texts(drawn["calibration.png"])
    assert "calibration: is it right" in told and "confidence (%)" in told and "accuracy (%)" in told


def test_another_part_and_other_weights_are_written_beside(trained, here, tmp_path):
    run = shutil.copytree(trained("conv", "model=small_pool"), tmp_path / "run")
    before = (run / "predictions.npz").read_bytes()
    told = here("evaluate", run, "--part", "validation", "--weights", "best").out
    evaluation = json.loads((run / "evaluation_validation_best.json").read_text())
    assert evaluation["accuracy"] == pytest.approx(read_result(run)["validation"]["best"]["accuracy"], abs=1e-6)
    assert "mistakes_validation_best.png" in told and (run / "mistakes_validation_best.png").exists()
    assert (run / "predictions.npz").read_bytes() == before


def test_of_two_classes_a_threshold_is_chosen_on_the_validation_part(trained, here):
    run = trained("xray", "data=pneumonia", "model=pneumonia")
    told = here("evaluate", run).out
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert "AUC" in told and "pneumonia from a probability of" in told and "chosen on the validation part" in told
    assert 0 <= evaluation["threshold"]["threshold"] <= 1


def test_a_run_ends_with_its_confusion_matrix(trained):
    run = trained("conv", "model=small_pool")
    with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
        right = (arrays["logits"].argmax(1) == arrays["labels"]).mean()
    assert right == pytest.approx(read_result(run)["test"]["last"]["accuracy"], abs=1e-6)
    assert (run / "confusion.png").exists()


def test_runs_are_compared_on_the_same_images(trained, here, tmp_path):
    good = trained("good", "model=dense", "model.epochs=6")
    bad = trained("bad", "model=small_dense", "model.optimizer.lr=1e-6")
    told = here("compare", bad, good, "--out", tmp_path / "out").out
    accuracies = [read_result(run)["test"]["last"]["accuracy"] * 100 for run in (good, bad)]
    assert f"dense beats small_dense by {accuracies[0] - accuracies[1]:.2f} points" in told
    for run in (good, bad):
        assert f"{read_result(run)['parameters']['total']:,}" in told
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    assert pair["better"] == "dense" and pair["p"] < 0.05 and pair["low"] <= pair["value"] <= pair["high"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"comparison.{end}" for end in ("csv", "json", "png")
    }


def test_a_run_cannot_be_told_from_itself(trained, here):
    run = trained("conv", "model=small_pool")
    told = here("compare", run, run).out
    assert "conv (1) and conv (2) cannot be told apart with this data" in " ".join(told.split())


def test_runs_on_other_images_are_not_compared(trained, refused):
    runs = trained("conv", "model=small_pool"), trained("cifar", "model=small_pool", "data=cifar4")
    assert "scored on different images (100 of mnist, 60 of cifar4)" in refused(*runs, command="compare")


def test_a_folder_of_everything_is_a_leaderboard_for_each_data_set(trained, here, tmp_path):
    given = {
        "good": ("model=dense", "model.epochs=6"),
        "conv": ("model=small_pool",),
        "again": ("model=small_pool", "seed=2"),
    }
    slow = ("model=small_pool", "model.optimizer.lr=1e-5", "model.label_smoothing=0.1")
    given |= {"slow": slow, "cifar": ("model=small_pool", "data=cifar4")}
    for name, words in given.items():
        shutil.copytree(trained(name, *words), tmp_path / "all" / ("sweep/lr=0.1" if name == "good" else name))
    (tmp_path / "all" / "compare_old").mkdir()
    told = here("compare", *(tmp_path / "all").iterdir(), "--out", tmp_path / "out").out
    words = " ".join(told.split())
    assert (
        "compare_old: not a run's folder" in words and "small_pool alone was scored on its 60 images of cifar4" in words
    )
    assert "small_pool lr=0.001, seed 1 and small_pool lr=0.001, seed 2 are two seeds of one recipe" in words or (
        "small_pool lr=0.001, seed 2 and small_pool lr=0.001, seed 1 are two seeds of one recipe" in words
    )
    assert "dense beats small_pool label_smoothing=0.1 lr=1e-05 by" in words and "corrected for 6 pairs" in words
    pairs = json.loads((tmp_path / "out" / "comparison_1.json").read_text())["pairs"]
    assert len(pairs) == 6
    for pair in pairs:  # no sentence contradicts itself
        assert (pair["corrected_p"] < 0.05) == (not pair["low"] <= 0 <= pair["high"])


def test_a_data_set_is_shown(here, tmp_path):
    told = here("show", "data=cifar4", "hydra.run.dir=shown").out
    assert "cifar4: 400 images of 3x32x32" in told and "Pixels: uint8, from 0 to 255" in told
    check_pictures(tmp_path / "shown", {"images", "classes", "steps"})


@pytest.mark.parametrize(("classes", "wanted"), [(2, [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]), (30, range(0, 300, 10))])
def test_the_images_shown_are_of_each_class(classes, wanted):
    labels = np.repeat(np.arange(classes), 10)
    parts = {"train": np.arange(10 * classes)[::-1], "validation": np.arange(0), "test": np.arange(0)}
    images = np.zeros((10 * classes, 2, 2, 1), np.uint8)
    names = [str(number) for number in range(classes)]
    dataset = Dataset(images, labels, {}, classes=names, name="sorted", parts=parts)
    assert first_of_each_class(dataset).tolist() == (wanted if classes == 2 else [list(wanted)])


def test_of_many_feature_maps_it_is_said_how_many_are_shown():
    run = SimpleNamespace(classifier=SimpleNamespace(net=torch.nn.Sequential(torch.nn.Conv2d(1, 32, 3))))
    (shown,) = feature_maps(run, np.zeros((5, 5, 1), np.float32)).items()
    assert shown[0] == "0 Conv2d: 32x3x3, 16 of 32 maps shown" and len(shown[1]) == 16


def test_a_layer_that_overwrites_its_input_changes_no_picture():
    torch.manual_seed(1)
    conv, dense = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(144, 2)
    image = np.random.default_rng(1).random((8, 8, 1), np.float32) - 0.5
    shown = []
    for inplace in (False, True):
        net = torch.nn.Sequential(torch.nn.Identity(), conv, torch.nn.Flatten(), torch.nn.ReLU(inplace), dense)
        saliency = find_saliency(net, image[None], np.array([1]))[1]
        run = SimpleNamespace(classifier=SimpleNamespace(net=torch.nn.Sequential(conv, torch.nn.ReLU(inplace))))
        shown.append([saliency, *feature_maps(run, image).values()])
    for one, other in zip(*shown, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "arguments", "figures"),
    [
        ("conv", ["model=small_pool"], {"feature_maps", "filters"}),
        ("good", ["model=dense", "model.epochs=6"], {"feature_maps", "filters"}),
        ("hog", ["model=hog8"], {"feature_maps"}),
        ("cifar", ["model=small_pool", "data=cifar4"], {"feature_maps", "filters"}),
    ],
)
def test_a_run_shows_what_it_sees(trained, here, tmp_path, name, arguments, figures, drawn):
    run = shutil.copytree(trained(name, *arguments), tmp_path / "run")
    told = here("show", run, "--image", 3).out
    assert ("there are no filters" in told) == ("filters" not in figures)
    check_pictures(run, figures)
    assert ("filters.png" in drawn) == ("filters" in figures)
    if name == "conv":
        assert "1 Conv2d: 8x26x26" in texts(drawn["feature_maps.png"])
        assert "64 of" not in texts(drawn["filters.png"])
    elif name == "good":
        assert "64 of 300 shown" in texts(drawn["filters.png"])


def check_pictures(folder, figures):
    assert figures <= {path.stem for path in folder.glob("*.png")}
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["images"]) == figures


def test_what_is_no_finished_run_is_one_line(trained, refused, tmp_path):
    run = trained("conv", "model=small_pool")

    def damaged(name, change):
        change(shutil.copytree(run, tmp_path / name))
        return tmp_path / name

    def write(file, text):
        return lambda folder: (folder / file).write_text(text)

    def shorten(file):
        return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:1000])

    (tmp_path / "empty").mkdir()
    cases = [
        (tmp_path / "nothing", "there is no such folder", ("evaluate", "compare", "show")),
        (tmp_path / "empty", "it has no config.yaml", ("evaluate", "compare", "show")),
        (run / "best.ckpt", "a file: give the run's folder", ("evaluate", "compare", "show")),
        (run.parent, "its runs are", ("evaluate", "show")),
        (damaged("half", lambda f: (f / "result.json").unlink()), "has not finished", ("evaluate", "compare", "show")),
        (damaged("result", write("result.json", "{")), "not the result of a run", ("evaluate", "compare", "show")),
        (damaged("npz", shorten("predictions.npz")), "damaged", ("compare",)),
        (damaged("old", lambda f: (f / "predictions.npz").unlink()), "evaluate.py writes it", ("compare",)),
        (damaged("gone", lambda f: (f / "last.ckpt").unlink()), "there is no such file", ("evaluate", "show")),
        (damaged("ckpt", shorten("last.ckpt")), "not a checkpoint of this run", ("evaluate", "show")),
        (damaged("yaml", write("config.yaml", "model: 3")), "not the configuration", ("evaluate", "show")),
        (damaged("foreign", write("config.yaml", "steps: 3")), "not the configuration", ("evaluate", "show")),
    ]
    for folder, message, commands in cases:
        for command in commands:
            told = refused(*[folder] * (2 if command == "compare" else 1), command=command)
            assert message in told, (folder, command)


def test_nothing_but_ours_is_called_and_nothing_is_unpickled(trained, refused, tmp_path):
    run = shutil.copytree(trained("conv", "model=small_pool"), tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("lab.models.small_pool", "os.system"))
    assert "_target_ os.system is none of this project's" in refused(run, command="evaluate")
    (run / "config.yaml").write_text(re.sub(r"batch_size: \d+", "batch_size: -1", config))
    assert "config.yaml: model.batch_size=-1: must be 1 or more" in refused(run, command="evaluate")
    (run / "config.yaml").write_text(config.replace("precision: 32-true", "precision: nonsense"))
    assert "trainer.precision=nonsense" in refused(run, command="evaluate")
    (run / "config.yaml").write_text(config)
    torch.save({"state_dict": {}, "more": Harmful()}, run / "last.ckpt")
    assert "not a checkpoint of this run" in refused(run, command="evaluate")
    assert not (tmp_path / "harmed").exists()


class Harmful:
    def __reduce__(self):
        return open, ("harmed", "w")


def test_an_older_run_gets_its_predictions(trained, here, tmp_path):
    run = shutil.copytree(trained("conv", "model=small_pool"), tmp_path / "run")
    (run / "predictions.npz").unlink()
    here("evaluate", run)
    assert "cannot be told apart" in here("compare", run, trained("conv")).out


def test_changed_test_images_are_noticed(trained, refused, data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "data")
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    run = trained("conv", "model=small_pool")
    assert "are not those of this run" in refused(run, "--root", root, command="evaluate")
