"""check_data.py finds what was put into a data set; training warns of it, and leaves it out when told."""

import json

import numpy as np
import pytest
from conftest import read_csv, read_result
from PIL import Image

NPY = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy", "data.stratify=false")


@pytest.fixture
def planted(tmp_path):
    """400 images of noise with an image twice, one twice with two labels, one nearly twice, and one of one colour."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (400, 12, 12, 1), dtype=np.uint8), np.arange(400) % 4
    images[1], labels[1] = images[0], labels[0]
    images[3], labels[3] = images[2], labels[2] + 1
    images[5] = np.clip(images[4].astype(int) + random.integers(-3, 4, images[4].shape), 0, 255)
    images[6] = 77
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "Y.npy", labels)
    return tmp_path


def test_what_was_planted_is_found(planted, here, drawn):
    told = here("check_data", *NPY, f"data.root={planted}", "hydra.run.dir=out").out
    report = json.loads((planted / "out" / "check.json").read_text())
    assert (report["same"], report["nearly_the_same"], report["constant"]) == (2, 1, [6])
    assert sum(part["contradicting"] for part in report["pairs"].values()) == 1
    assert sum(sum(part.values()) for part in report["classes"].values()) == 400
    pairs = [(int(row["first"]), int(row["second"])) for row in read_csv(planted / "out" / "pairs.csv")]
    assert pairs == [(0, 1), (2, 3), (4, 5)]
    assert "Images of one colour: 1, no. 6" in told
    with Image.open(planted / "out" / "check.png") as sheet:
        assert sheet.width > 600


def test_clean_data_is_called_clean(here, data_root, tmp_path):
    told = here("check_data", "data=cifar4", "hydra.run.dir=out").out
    assert "No two images are the same, or nearly" in told and "Images of one colour: 0" in told
    assert not (tmp_path / "out" / "check.png").exists() and "check.png" not in told


def test_training_warns_of_test_images_and_leaves_them_out_when_told(planted, train_here, here):
    images = np.load(planted / "X.npy")
    options = (*NPY, f"data.root={planted}", "model=small_dense", "model.epochs=1", "model.batch_size=100")
    images[:200] = images[200:]  # half of all are there twice
    np.save(planted / "X.npy", images)
    told = train_here(*options, "hydra.run.dir=all")
    before = read_result(planted / "all")["data"]["images"]
    assert "images of the training part are in the validation or test part too" in " ".join(told.err.split())
    told = train_here(*options, "data.drop_duplicates=true", "hydra.run.dir=dropped")
    after = read_result(planted / "dropped")["data"]["images"]
    assert "are in the validation or test part too" not in " ".join(told.err.split())
    assert (after["validation"], after["test"]) == (before["validation"], before["test"])
    assert 0 < after["train"] < before["train"]
    folds = ("data.folds=2", "workers=1", "hydra.run.dir=folds")
    told = here("cross_validate", *options, "data.drop_duplicates=true", *folds).out
    assert "Accuracy: mean=" in told  # each fold holds out what folds.csv says, less is trained on


@pytest.mark.data
def test_pneumonias_training_part_has_eight_validation_images(here, tmp_path, monkeypatch):
    from conftest import REAL_DATA

    here("check_data", "data=pneumonia", f"data.root={REAL_DATA}", "hydra.run.dir=out")
    pairs = read_csv(tmp_path / "out" / "pairs.csv")
    across = [pair for pair in pairs if {pair["first_part"], pair["second_part"]} == {"train", "validation"}]
    validation = {pair["second"] for pair in across if pair["correlation"] == "1.0"}
    assert len(validation) == 8
