"""The benchmark: yardsticks train what the project trains, on its very images; what a ratio claims."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import PROJECT, read_csv
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from test_predict import PHOTO, write_model

from lab.config.schema import CONF
from lab.datasets.dataset import load
from lab.experiments import measurement
from lab.experiments.benchmark import tell_ratio
from lab.models.build import count_parameters

YARDSTICKS = PROJECT / "src" / "yardsticks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(YARDSTICKS))


@pytest.fixture
def arrays(tmp_path, data_root):
    images, labels = (np.load(data_root / f"CIFAR4_{name}.npy") for name in "XY")
    np.savez(tmp_path / "arrays.npz", images=images, labels=labels.astype(int), folds=np.arange(len(labels)) % 5)
    return tmp_path / "arrays.npz"


@pytest.mark.parametrize("name", ["deep", "baseline", "dense", "conv", "cnn", "cnn_augmented"])
def test_a_yardsticks_recipe_is_the_projects(scripts, name):
    import torch
    from plain import build
    from recipes import RECIPES
    from test_models import COUNTS

    recipe = RECIPES[name]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = compose("train", [f"model={name}"]).model
    optimizer = model.optimizer._target_.rpartition(".")[2].lower()
    assert (optimizer, model.optimizer.lr) == recipe["optimizer"]
    assert (model.batch_size, model.scale) == (recipe["batch"], recipe["scale"])
    shape = (3, 32, 32) if recipe["data"] == "cifar4" else (1, 28, 28)
    assert count_parameters(build(recipe, torch.zeros(1, *shape))) == COUNTS[name][2]


@pytest.mark.parametrize("name", ["baseline", "cnn"])
def test_tuned_pytorch_learns_what_plain_pytorch_learns(scripts, arrays, capfd, name):
    import plain
    import torch
    import tuned
    from recipes import RECIPES

    told = []
    for script in (plain, tuned):
        torch.manual_seed(1)
        with np.load(arrays) as file:
            script.main(RECIPES[name], file, 2)
        lines = capfd.readouterr().out.splitlines()
        told.append([float(line.split("loss ")[1].split(",")[0]) for line in lines])
    assert len(told[0]) == 2 and told[0] == pytest.approx(told[1], rel=1e-2)


def test_tuned_pytorch_changes_images_as_the_project_does(scripts):
    import torch
    import tuned

    from lab.datasets.augment import augment

    images, changed = torch.rand(8, 3, 32, 32), []
    for change in (tuned.augment, lambda images: augment(images, 15, 0.1, True)):
        torch.manual_seed(1)
        changed.append(change(images).mean((1, 2, 3)))
    assert changed[0] == pytest.approx(changed[1], abs=0.05)


def test_an_exported_network_answers_as_often_as_it_is_asked(scripts, arrays, tmp_path, capfd):
    import exported

    model = write_model(tmp_path / "model.ts", "cnn", PHOTO)
    exported.main(str(model), arrays, "2")
    assert capfd.readouterr().out.splitlines() == ["pass 1", "pass 2"]


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed: it is no dependency")
@pytest.mark.parametrize("how", ["labs", "xla", "no_xla"])
def test_keras_tells_of_each_pass(arrays, how):
    for task, begins in (("training", "epoch "), ("inference", "pass ")):
        command = [sys.executable, YARDSTICKS / "keras_lab.py", "cnn", arrays, "2", task, how]
        process = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert [line.startswith(begins) for line in process.stdout.splitlines()] == [True] * 2, process.stderr


@pytest.mark.parametrize("name", ["conv", "cnn"])
def test_the_scores_of_keras_are_of_the_projects_split(scripts, data_root, monkeypatch, name):
    from types import ModuleType

    from recipes import RECIPES

    class Anything(ModuleType):
        def __getattr__(self, name):
            return None

    monkeypatch.setitem(sys.modules, "keras_lab", Anything("keras_lab"))
    from keras_scores import split

    recipe = RECIPES[name]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"data={recipe['data']}", f"data.root={data_root}"]
        words += ["data.source.md5=null"] if recipe["data"] == "mnist" else []
        config = compose("train", words, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    dataset = load(config.data)
    *train, test, labels = split(recipe, data_root)
    for (x, y), part in ((train, "train"), ((test, labels), "test")):
        assert (x == dataset.images[dataset.parts[part]]).all() and (y == dataset.labels[dataset.parts[part]]).all()


@pytest.mark.parametrize("task", ["training", "folds"])
def test_the_arrays_are_the_images_that_the_project_trains_on(data_root, tmp_path, task):
    options = OmegaConf.create({"root": str(data_root), "images": 100})
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words, path, count = measurement.Bench(options, tmp_path).make_arrays(task, "cnn")
        words += ["data.folds=5"] if task == "folds" else []
        config = compose("train", words, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    dataset = load(config.data)
    with np.load(path) as file:
        arrays = dict(file)
    train = dataset.parts["train"]
    chosen = arrays["folds"] != 0 if task == "folds" else slice(None)  # the first fold is held out
    assert (arrays["images"][chosen] == dataset.images[train]).all()
    assert (arrays["labels"][chosen] == dataset.labels[train]).all()
    assert count == len(arrays["labels"]) == (340 if task == "folds" else 100)


def test_a_ratio_claims_nothing_where_its_interval_holds_1():
    assert tell_ratio([1.5, 1.4, 1.6, 1.5, 1.7]) == ("1.50 (1.40 to 1.70)", "faster")
    assert tell_ratio([0.5, 0.6, 0.4, 0.5, 0.5])[1] == "slower"
    assert tell_ratio([1.5, 0.9, 1.6, 0.8, 1.2])[1] == "no difference shown"


def test_fewer_than_five_rounds_claim_nothing():
    assert tell_ratio([2.0]) == ("2.00 (2.00 to 2.00)", "too few rounds")
    assert tell_ratio([2.0, 2.1, 2.2, 2.3])[1] == "too few rounds"


def test_what_the_project_sets_for_itself_no_yardstick_gets():
    told = "import os; before = set(os.environ); import lab; print(*(set(os.environ) - before))"
    clean = {name: value for name, value in os.environ.items() if name not in measurement.OWN}
    command = [sys.executable, "-c", told]
    process = subprocess.run(command, env=clean, cwd=PROJECT / "src", capture_output=True, text=True, check=True)
    assert process.stdout.split() and set(process.stdout.split()) <= set(measurement.OWN)


@pytest.mark.slow
def test_the_lab_and_a_plain_loop_are_measured_on_the_same_images(here, tmp_path):
    words = ["recipes=[cnn]", "stacks=[lab,plain]", "neighbours=[late]", "rounds=1", "images=200", "epochs=1"]
    assert "too few" in here("benchmark", *words, f"hydra.run.dir={tmp_path}/run").out
    rows = read_csv(tmp_path / "run" / "benchmark.csv")
    assert sorted(row["stack"] for row in rows) == ["lab", "plain"]
    for row in rows:
        assert row["images"] == "200" and float(row["seconds"]) > 0
        assert float(row["rate"]) == pytest.approx(200 / float(row["seconds"]))
    content = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    assert content["about"]["cores"] >= 1 and len(content["measured"]) == 2
    assert "| cnn once a busy process has come | plain PyTorch | " in (tmp_path / "run" / "benchmark.md").read_text()


def test_a_yardstick_that_fails_ends_the_benchmark_in_a_line(refused):
    assert "nothing is left to measure" in refused("tasks=[folds]", "stacks=[plain]", command="benchmark")
    words = ("tasks=[start]", "neighbours=[late]", "stacks=[lab]")
    assert "nothing is left to measure" in refused(*words, command="benchmark")
    assert "false -Pc: no message" in refused("stacks=[keras]", "keras=/bin/false", command="benchmark")
    assert "true: does not answer as Python does" in refused("stacks=[keras]", "keras=/bin/true", command="benchmark")


def test_what_there_is_not_is_refused(refused):
    assert "deeep is none of deep, baseline" in refused("recipes=[deeep]", command="benchmark")
    assert "tasks: nothing is none of training" in refused("tasks=[nothing]", command="benchmark")
    assert "nothing is left" in refused("stacks=[]", command="benchmark")
