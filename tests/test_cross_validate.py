"""cross_validate.py: the folds, their scores, and going on after a kill."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import SMALL_MNIST, read_csv, read_result
from sklearn.model_selection import KFold

FOLDS = 3
FAST = (*SMALL_MNIST, "model=small_pool", "model.epochs=2", "model.batch_size=50", f"data.folds={FOLDS}")


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    return tmp_path_factory.mktemp("folds") / "cv"


@pytest.fixture
def finished(folds, here, tmp_path):
    """Folds, two at a time: what was told, and their folder."""
    if not (folds / "told").exists():
        for name in ("random", "logging", "hydra_plugins/hydra_planted"):  # in the current directory
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"open({str(folds.parent / 'ran')!r}, 'w')")
        told = here("cross_validate", *FAST, "workers=2", f"hydra.run.dir={folds}").out
        (folds / "told").write_text(told)
    return (folds / "told").read_text(), folds


@pytest.fixture
def blank(finished, folds, here, data_root, tmp_path):
    """The folder of the same folds, one at a time, where all test images are blank."""
    folder = folds.parent / "blank"
    if not folder.exists():
        root = shutil.copytree(data_root, tmp_path / "data")
        path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:16] + bytes(100 * 784))
        here("cross_validate", *FAST, "workers=1", f"data.root={root}", f"hydra.run.dir={folder}")
    return folder


def test_nothing_in_the_current_directory_is_imported(finished):
    _, folder = finished
    assert not (folder.parent / "ran").exists()


def weights(fold):
    return torch.load(fold / "last.ckpt", weights_only=True)["state_dict"]


def test_each_fold_starts_from_weights_of_its_own(train_here, tmp_path):
    words = (*SMALL_MNIST, "model=small_dense", "model.epochs=1", "model.optimizer.lr=1e-30", "data.folds=2")
    for fold in (0, 1):
        train_here(*words, f"data.fold={fold}", f"hydra.run.dir=fold_{fold}")
    first, second = (weights(tmp_path / f"fold_{fold}") for fold in (0, 1))
    assert not any(torch.equal(first[name], second[name]) for name in first if name.endswith("weight"))


def test_scores_mean_and_interval_are_told_and_saved(finished):
    told, folder = finished
    scores = [read_result(folder / f"fold_{k}")["held_out"]["last"]["accuracy"] * 100 for k in range(FOLDS)]
    for k, score in enumerate(scores):
        assert f"> {score:.3f}   fold {k}: 100 images held out" in told
    assert f"Accuracy: mean={np.mean(scores):.3f} std={np.std(scores):.3f}, n={FOLDS}" in told
    result = read_result(folder)
    assert result["accuracy"]["mean"] == pytest.approx(np.mean(scores) / 100)
    assert result["accuracy"]["interval"][0] < result["accuracy"]["mean"] < result["accuracy"]["interval"][1]
    assert np.sum(result["held_out"]["confusion"]) == 300
    rows = read_csv(folder / "scores.csv")
    assert [float(row["accuracy"]) * 100 for row in rows] == pytest.approx(scores)
    assert {"curves.png", "boxplot.png", "confusion.png"} <= {path.name for path in folder.iterdir()}


def test_saved_folds_are_lab_as_and_hold_every_training_image_once(finished):
    _, folder = finished
    rows = read_csv(folder / "folds.csv")
    assert [int(row["image"]) for row in rows] == list(range(300))
    for k, (_, held_out) in enumerate(KFold(FOLDS, shuffle=True, random_state=1).split(np.arange(300))):
        assert [int(row["image"]) for row in rows if row["fold"] == str(k)] == held_out.tolist()
        with np.load(folder / f"fold_{k}" / "predictions.npz", allow_pickle=False) as arrays:
            assert arrays["indices"].tolist() == held_out.tolist()


def test_the_test_part_is_never_used(finished, blank):
    """Other test images, all of them blank, change nothing."""
    _, folder = finished
    ours, theirs = read_result(folder), read_result(blank)
    assert ours["held_out"] == theirs["held_out"] and ours["accuracy"] == theirs["accuracy"]
    assert "test" not in read_result(folder / "fold_0") and not (folder / "fold_0" / "best.ckpt").exists()


def test_the_number_of_workers_changes_no_bit_and_a_fold_is_train_pys(finished, blank, here, tmp_path):
    _, folder = finished
    for k in range(FOLDS):
        ours, theirs = weights(folder / f"fold_{k}"), weights(blank / f"fold_{k}")
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    here("train", *FAST, "data.fold=2", "threads=1", "hydra.run.dir=fold")
    ours, theirs = weights(folder / "fold_2"), weights(tmp_path / "fold")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_one_is_told_again_without_training(finished, here, tmp_path):
    told, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("fold_*/*")}
    again = here("cross_validate", *FAST, f"hydra.run.dir={folder}").out
    assert "folds to train" not in again and again.splitlines()[-4:] == told.splitlines()[-4:]
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("fold_*/*")}


def test_the_same_command_trains_the_folds_that_are_missing(finished, here, refused, tmp_path):
    _, whole = finished
    folder = shutil.copytree(whole, tmp_path / "cv")
    (folder / "fold_0" / "result.json").unlink()  # as if it had been killed
    shutil.rmtree(folder / "fold_2")
    (folder / "fold_2").mkdir()  # as if it had been killed as it began
    (folder / "result.json").unlink()
    goes_on = "the command that began"
    assert goes_on in refused(folder / "fold_0", command="evaluate") and goes_on in refused(f"resume={folder}/fold_0")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("fold_*/result.json")}
    again = here("cross_validate", *FAST, "workers=1", f"hydra.run.dir={folder}").out
    assert "2 folds to train" in again
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for k in range(FOLDS):
        ours, theirs = weights(folder / f"fold_{k}"), weights(whole / f"fold_{k}")
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_cross_validations_are_compared_on_the_same_folds(finished, here, refused, tmp_path):
    _, folder = finished
    here("cross_validate", *FAST, "workers=1", "model=small_dense", "model.epochs=1", "hydra.run.dir=dense")
    told = here("compare", folder, "dense", "--out", "out").out
    assert f"Tested on the same {FOLDS} folds" in told
    scores = [read_result(path)["accuracy"]["mean"] for path in (folder, tmp_path / "dense")]
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    assert pair["value"] == pytest.approx(abs(scores[0] - scores[1]))
    assert "cannot be told apart" in here("compare", folder, folder).out
    assert "compare like with like" in refused(folder, folder / "fold_0", command="compare")


def test_a_fold_is_evaluated_on_what_it_held_out(finished, here, refused, tmp_path):
    _, folder = finished
    fold = shutil.copytree(folder / "fold_1", tmp_path / "fold_1")
    here("evaluate", fold)
    evaluation = json.loads((fold / "evaluation.json").read_text())
    assert evaluation["part"] == "validation" and evaluation["images"] == 100
    assert f"give one of its folds, {folder}/fold_0" in refused(folder, command="show")


def test_a_fold_that_diverges_ends_it_in_one_line_and_leaves_no_half_fold(refused, tmp_path):
    diverging = ("model=baseline", "model.optimizer.lr=1e30", "workers=1", "hydra.run.dir=cv")
    told = refused(*FAST, *diverging, command="cross_validate")
    assert "fold " in told and " of epoch 1, at a learning rate of " in told
    assert not list((tmp_path / "cv").glob("*fold_*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["workers=0"], "workers=0: must be 1 or more"),
        (["worker=2"], "did you mean 'workers'?"),
        (["data.fold=2"], "takes each fold in turn"),
        (["data.folds=1"], "data.folds=1: must be from 2 to 1,000"),
        (["trainer=ddp"], "workers=N is"),
        (["trainer.limit_test_batches=1"], "scored whole"),
        (["+trainer.speed=3", "workers=1"], "trainer.speed=3: is not for this program"),
        (["data.folds=400"], "data.folds=400"),
    ],
)
def test_wrong_options_are_one_line_and_leave_no_folder(refused, tmp_path, arguments, message):
    assert message in refused(*FAST, *arguments, command="cross_validate")
    assert not list(tmp_path.glob("outputs/*"))


def test_help_names_nothing_that_is_refused_of_folds(here):
    told = here("cross_validate", "--help").out
    assert "  workers=2 " in told and "  cosine " in told
    refused = ("threads=", "tune=", "early_stopping=", "search", "plateau", "ddp")
    assert not [key for key in refused if f"\n  {key}" in told]


def test_another_runs_folder_is_not_written_into(finished, refused, data_root, tmp_path):
    _, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "holds another run" in refused(*FAST, "seed=2", f"hydra.run.dir={folder}", command="cross_validate")
    assert "another run" in refused(*FAST, f"hydra.run.dir={folder}/fold_1", command="cross_validate")
    other = shutil.copytree(folder, tmp_path / "cv")
    (other / "fold_1" / "train.log").unlink()
    (other / "fold_1" / "result.json").unlink()
    assert "not the folder of a job" in refused(*FAST, f"hydra.run.dir={other}", command="cross_validate")
    assert (other / "fold_1" / "last.ckpt").exists()
    root = shutil.copytree(data_root, tmp_path / "data")
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    others = refused(*FAST, f"data.root={root}", f"hydra.run.dir={folder}", command="cross_validate")
    assert "is of other images" in others
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("content", ["", "a: [", "- 1", "model: 3", "workers: null"])
def test_a_damaged_folder_is_one_line(refused, tmp_path, content):
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "config.yaml").write_text(content)
    assert "cv" in refused(*FAST, "hydra.run.dir=cv", command="cross_validate")


def test_each_image_may_be_a_fold_of_its_own(here, tmp_path):
    np.save(tmp_path / "X.npy", np.asfortranarray(np.random.default_rng(1).integers(0, 255, (6, 8, 8), dtype=np.uint8)))
    np.save(tmp_path / "Y.npy", np.arange(6) % 2)
    files = ("data=npy", f"data.root={tmp_path}", "data.source.images=X.npy", "data.source.labels=Y.npy")
    split = (
        "data.validation=0",
        "data.test=0.34",
        "data.stratify=false",
        "data.folds=4",
        "data.classes=['$^$',b]",
        "workers=1",
    )
    here("cross_validate", *files, *split, "model=small_dense", "model.epochs=1", "hydra.run.dir=cv")
    assert np.sum(read_result(tmp_path / "cv")["held_out"]["confusion"]) == 4


def test_all_folds_together_answer_by_the_mean_of_their_probabilities(finished, here):
    _, folder = finished
    told = here("evaluate", folder).out
    opinions = []
    for k in range(FOLDS):
        here("evaluate", folder / f"fold_{k}", "--part", "test")
        with np.load(folder / f"fold_{k}" / "predictions_test.npz", allow_pickle=False) as arrays:
            exponents = np.exp(arrays["logits"] - arrays["logits"].max(1, keepdims=True))
            opinions.append(exponents / exponents.sum(1, keepdims=True))
            labels = arrays["labels"]
    accuracy = (np.mean(opinions, axis=0).argmax(1) == labels).mean()
    assert json.loads((folder / "evaluation_ensemble.json").read_text())["accuracy"] == pytest.approx(accuracy)
    assert f"{accuracy * 100:.2f}" in told and len(labels) == 100


def test_all_folds_together_have_seen_every_image_but_the_test_parts(finished, refused):
    assert "its folds together have no validation part" in refused(
        finished[1], "--part", "validation", command="evaluate"
    )
