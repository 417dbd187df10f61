"""The yardsticks train what the project trains."""

import gzip
import subprocess
import sys

import pytest
from conftest import PROJECT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from lab.config.schema import CONF
from lab.datasets.dataset import load
from lab.models.build import count_parameters

YARDSTICKS = PROJECT / "src" / "yardsticks"


@pytest.fixture
def yardstick(monkeypatch):
    monkeypatch.syspath_prepend(str(YARDSTICKS))
    import plain

    return plain


@pytest.mark.parametrize("name", ["deep", "baseline", "dense", "conv", "cnn", "cnn_augmented"])
def test_a_yardsticks_recipe_is_the_projects(yardstick, name):
    import torch
    from test_models import COUNTS

    recipe = yardstick.RECIPES[name]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = compose("train", [f"model={name}"]).model
    optimizer = model.optimizer._target_.rpartition(".")[2].lower()
    assert (optimizer, model.optimizer.lr) == recipe["optimizer"]
    assert (model.batch_size, model.scale) == (recipe["batch"], recipe["scale"])
    shape = (3, 32, 32) if recipe["data"] == "cifar4" else (1, 28, 28)
    assert count_parameters(yardstick.build(recipe, torch.zeros(1, *shape))) == COUNTS[name][2]


@pytest.mark.parametrize("task", [[], ["inference"]])
def test_a_plain_loop_prints_its_speed(data_root, task):
    command = [sys.executable, YARDSTICKS / "plain.py", "dense", data_root, "2", *task]
    process = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert float(process.stdout) > 0, process.stderr


def test_the_yardsticks_read_what_a_download_has_left(yardstick, data_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (data_root / "MNIST" / "raw").glob("train-*"):
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    pairs = zip(*(yardstick.load(yardstick.RECIPES["dense"], root) for root in (data_root, tmp_path)), strict=True)
    assert all((plain == packed).all() for plain, packed in pairs)


@pytest.mark.parametrize("name", ["conv", "cnn"])
def test_the_yardsticks_split_as_the_project_does(yardstick, data_root, name):
    from recipes import split

    recipe = yardstick.RECIPES[name]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"data={recipe['data']}", f"data.root={data_root}"]
        words += ["data.source.md5=null"] if recipe["data"] == "mnist" else []
        config = compose("train", words, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    dataset = load(config.data)
    *train, test, labels = split(recipe, data_root)
    for (x, y), part in ((train, "train"), ((test, labels), "test")):
        assert (x == dataset.images[dataset.parts[part]]).all() and (y == dataset.labels[dataset.parts[part]]).all()


def test_an_unknown_recipe_is_refused(refused):
    assert "deeep is none of deep, baseline" in refused("recipes=[deeep]", command="benchmark")
    assert "also: nothing is none of start," in refused("also=[nothing]", command="benchmark")
