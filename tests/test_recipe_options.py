"""What a recipe may add to plain training: class weights, softer labels, an average of weights, other changes."""

import json

import numpy as np
import pytest
import torch
from conftest import SMALL_MNIST, read_csv, read_result
from pytorch_lightning import Callback
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from lab.datasets.augment import augment, mix
from lab.display.terminal import print_table
from lab.training.classifier import ClassScore

MNIST = (*SMALL_MNIST, "model=mlp20", "model.scale=255", "model.batch_size=32", "threads=1")


class Stop(Callback):
    """Ctrl-C in the second epoch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def weights(folder, name="last"):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)


def test_class_scores_are_those_of_scikit_learn_over_all_batches():
    torch.manual_seed(1)
    logits, labels, score = torch.randn(300, 5), torch.randint(0, 4, (300,)), ClassScore(5)
    for part in torch.arange(300).split(100):
        score.update(torch.tensor(1.0), logits[part], labels[part])
    predicted, found = logits.argmax(1), score.compute()
    recalls = [(predicted[labels == number] == number).float().mean() for number in range(4)]
    assert found["balanced_accuracy"] == pytest.approx(float(np.mean(recalls)), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)


def test_a_crop_fills_the_image_with_a_part_of_it_of_the_share_asked_for():
    torch.manual_seed(1)
    ramps = torch.arange(32.0).expand(200, 2, 32, 32).clone()
    ramps[:, 1] = ramps[:, 0].mT
    cut = augment(ramps, 0, 0, False, crop=0.25)
    wide, high = (cut[:, 0, 0, -1] - cut[:, 0, 0, 0]) / 31, (cut[:, 1, -1, 0] - cut[:, 1, 0, 0]) / 31
    area = wide * high
    assert 0.2 < area.min() < 0.3 and 0.85 < area.max() <= 1.01
    assert (wide / high).min() >= 0.74 and (wide / high).max() <= 1.34
    assert cut.min() >= 0 and cut.max() <= 31


def test_in_bfloat16_images_move_as_in_float32():
    images = torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8)
    moved = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            moved.append(augment(images, 15, 0.1, True, crop=0.5))
    assert torch.equal(*moved)


def test_brightness_and_contrast_keep_to_their_bounds_image_by_image():
    torch.manual_seed(1)
    images = torch.full((300, 1, 4, 4), 100, dtype=torch.uint8)
    lit = augment(images, 0, 0, False, brightness=0.2)[:, 0, 0, 0]
    assert 80 <= lit.min() < 84 and 116 < lit.max() <= 120
    images[:, :, :2] = 50
    spread = augment(images, 0, 0, False, contrast=0.5)
    assert (spread[:, 0, 3, 0] - spread[:, 0, 0, 0]).aminmax().max <= 75
    torch.testing.assert_close(spread.mean((1, 2, 3)), torch.full((300,), 75.0))


def test_mixup_mixes_images_and_classes_by_the_same_shares():
    torch.manual_seed(1)
    labels = torch.arange(60) % 3
    pixels, shares = mix(labels.view(-1, 1, 1, 1).expand(60, 1, 2, 2) * 100, labels, 3, 0.4)
    torch.testing.assert_close(shares.sum(1), torch.ones(60))
    torch.testing.assert_close(pixels[:, 0, 0, 0], shares @ torch.tensor([0.0, 100.0, 200.0]))
    assert ((shares > 0.01) & (shares < 0.99)).any()


def test_balanced_weights_are_scikit_learns_and_change_training_alone(train_here, tmp_path):
    """And validation stays plain cross-entropy."""
    options = ("model=mlp20", "data=pneumonia", "data.source.md5=null", "model.epochs=1", "threads=1")
    train_here(*options, "hydra.run.dir=plain")
    train_here(*options, "model.class_weights=balanced", "model.label_smoothing=0.1", "hydra.run.dir=run")
    labels = np.arange(60) % 2
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    state = weights(tmp_path / "run")["state_dict"]
    np.testing.assert_allclose(state["train_loss.weight"], expected)
    saved = np.load(tmp_path / "run" / "predictions.npz")
    result = read_result(tmp_path / "run")["test"]["last"]
    logits, labels = torch.from_numpy(saved["logits"]), torch.from_numpy(saved["labels"])
    assert result["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-5)
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)), abs=1e-6)
    rows = [read_csv(tmp_path / name / "metrics.csv")[0] for name in ("plain", "run")]
    assert rows[0]["train_loss"] != rows[1]["train_loss"]


def test_the_average_of_the_weights_is_what_is_validated_tested_and_evaluated(train_here, here, tmp_path):
    options = (*MNIST, "model.average=0.9", "model.epochs=2", "model.optimizer.lr=0.01")
    train_here(*options, "hydra.run.dir=run")
    train_here(*MNIST, "model.epochs=2", "model.optimizer.lr=0.01", "hydra.run.dir=plain")
    saved, plain = weights(tmp_path / "run"), weights(tmp_path / "plain")["state_dict"]
    for name, weight in saved["current_model_state"].items():
        torch.testing.assert_close(weight, plain[name], atol=0, rtol=0)  # training itself has the same bits
        assert not torch.equal(weight, saved["state_dict"][name])
    result = read_result(tmp_path / "run")
    here("evaluate", "run")
    loss = json.loads((tmp_path / "run" / "evaluation.json").read_text())["loss"]
    saved = np.load(tmp_path / "run" / "predictions.npz")
    logits, labels = torch.from_numpy(saved["logits"]), torch.from_numpy(saved["labels"])
    assert result["test"]["last"]["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-5)
    assert loss == pytest.approx(result["test"]["last"]["loss"], abs=1e-5)


def test_with_all_of_it_a_resumed_run_has_the_same_bits(train_here, tmp_path):
    extras = ("crop=0.5", "brightness=0.2", "contrast=0.2", "mixup=0.2")
    options = (*MNIST, "model=small_batchnorm", "model.average=0.99", "model.label_smoothing=0.1", "model.epochs=2")
    options += tuple(f"model.augment.{extra}" for extra in extras)
    train_here(*options, "hydra.run.dir=whole")
    with pytest.raises(SystemExit):
        train_here(*options, "hydra.run.dir=run", "+trainer.callbacks=[{_target_: test_recipe_options.Stop}]")
    train_here("resume=run")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    for key in ("state_dict", "current_model_state"):
        for name, weight in whole[key].items():
            torch.testing.assert_close(resumed[key][name], weight, atol=0, rtol=0)


def test_monitor_chooses_the_best_epoch(train_here, tmp_path, monkeypatch):
    """Here the higher the one score the lower the other."""
    compute = ClassScore.compute

    def opposite(score):
        found = compute(score)
        return found | {"balanced_accuracy": 1 - found["accuracy"]}

    monkeypatch.setattr(ClassScore, "compute", opposite)
    options = (*MNIST, "monitor=balanced_accuracy", "model.epochs=4", "model.optimizer.lr=0.003")
    train_here(*options, "hydra.run.dir=run")
    accuracies = [float(row["val_accuracy"]) for row in read_csv(tmp_path / "run" / "metrics.csv")]
    best = read_result(tmp_path / "run")["validation"]["best"]
    assert best["accuracy"] == min(accuracies) < max(accuracies)
    assert weights(tmp_path / "run", "best")["epoch"] + 1 == best["epoch"]


def test_what_misleads_is_named_at_the_start_at_the_end_and_by_check_data(here, tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    labels = np.repeat([0, 2], [190, 10])
    np.save(tmp_path / "X.npy", random.integers(0, 17, (200, 8, 8, 4), dtype=np.uint8))
    np.save(tmp_path / "Y.npy", labels)
    data = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy", f"data.root={tmp_path}")
    told = here("train", *data, "model=mlp20", "model.scale=255", "model.epochs=1", "hydra.run.dir=run").out
    notes = [line for line in told.splitlines() if line.startswith("Note: ")]
    half = len(notes) // 2
    assert notes[:half] == notes[half:] and half == 5, notes
    for words in (
        "no images in the train part of '1'",
        "always answering '0' gives",
        "on the test part",
        "pixels end at 16 and are divided by 255: try model.scale=16",
        "4 channels",
    ):
        assert any(words in note for note in notes), words
    assert "balanced" in told and "macro" in told
    checked = here("check_data", *data, "model.scale=255").out
    assert [line for line in checked.splitlines() if line.startswith("Note: ")] == notes[:half]
    evaluated = here("evaluate", "run").out
    assert "always answering '0' gives" in evaluated and "Balanced accuracy" in evaluated


def test_one_class_alone_is_refused(refused, tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((40, 8, 8, 1), np.uint8))
    np.save(tmp_path / "Y.npy", np.ones(40, np.int64))
    data = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy", f"data.root={tmp_path}")
    assert "all images to train on are of one class, '1'" in refused(*data, "data.stratify=false", "data.classes=[a,1]")


def test_evaluate_lists_what_each_image_is_read_as(train_here, here, tmp_path):
    train_here(*MNIST, "model.epochs=1", "hydra.run.dir=run")
    here("evaluate", "run")
    rows = read_csv(tmp_path / "run" / "predictions.csv")
    saved = np.load(tmp_path / "run" / "predictions.npz")
    assert [row["number"] for row in rows] == [str(number) for number in range(100)]
    assert [int(row["image"]) for row in rows] == saved["indices"].tolist()
    assert [int(row["predicted"]) for row in rows] == saved["logits"].argmax(1).tolist()
    shares = np.array([[float(row[f"probability of {digit}"]) for digit in range(10)] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)


def test_a_table_never_cuts_a_number_on_a_narrow_terminal(capsys, monkeypatch):
    columns = ["lr", "validation\naccuracy %", "seconds", "folder"]
    rows = [["0.0001", "97.38 ± 0.11", "12", "lr=0.0001"], ["0.01", "96.10 ± 0.20", "9", "lr=0.01"]]
    for width in (20, 40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table("deep on mnist", columns, rows, spare=["folder", "seconds"])
        told = capsys.readouterr().out
        assert all(cell in " ".join(told.split()) for row in rows for cell in row[:2]), told
        assert ("folder" in told) == (width != 40), told
        assert width < 40 or max(map(len, told.splitlines())) <= width


def test_a_table_shows_names_as_they_are(capsys):
    print_table("deep on [/b] :cat:", ["[i]class"], [["[red] :dog:"]])
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in ("deep on [/b] :cat:", "[i]class", "[red] :dog:")), told
