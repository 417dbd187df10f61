"""check_labels.py finds labels that were changed; data.corrections= mends them by the images' pixels."""

import csv
import gzip
import shutil

import numpy as np
import pytest
from conftest import PROJECT, SMALL_MNIST, read_csv, read_result
from test_older import older  # noqa: F401

from lab.decode import digest
from lab.evaluation.confident import expect, find_suspects, probe
from lab.experiments.check_labels import LEAST_LIFT

NPY = ("data=npy", "data.source.images=X.npy", "data.source.labels=Y.npy", "model=small_dense", "model.epochs=1")


@pytest.fixture
def noisy():
    """Labels [n] of which one in ten is wrong, and what an honest network says of the images."""
    random = np.random.default_rng(1)
    true, labels = np.arange(600) % 3, np.arange(600) % 3
    changed = random.choice(600, 60, replace=False)
    labels[changed] = (true[changed] + random.integers(1, 3, 60)) % 3
    logits = random.normal(size=(600, 3))
    logits[np.arange(600), true] += 4
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), changed


def test_changed_labels_are_suspects_and_their_number_is_expected(noisy):
    labels, probabilities, changed = noisy
    suspects = find_suspects(labels, probabilities)
    assert np.isin(changed, suspects.rows).mean() > 0.85
    assert np.isin(suspects.rows, changed).mean() > 0.8
    assert suspects.expected.sum() == pytest.approx(600)
    assert 40 < suspects.expected.sum() - suspects.expected.trace() < 90
    assert (np.diff(suspects.margins) <= 0).all() and (suspects.suggested != labels[suspects.rows]).all()


def test_a_good_network_tells_changed_labels_from_others_and_a_poor_one_does_not(noisy):
    labels, probabilities, _ = noisy
    found, others = probe(labels, probabilities)
    assert found > 0.8 and found > LEAST_LIFT / 2 * others  # a tenth of the labels is wrong
    probabilities[100:] = np.random.default_rng(1).dirichlet([1, 1, 1], 500)
    found, others = probe(labels, probabilities)
    assert found < LEAST_LIFT / 2 * others


@pytest.mark.filterwarnings("ignore")
def test_they_are_cleanlabs(noisy):
    cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    labels, probabilities, _ = noisy
    theirs = cleanlab.count.compute_confident_joint(labels, probabilities)
    assert np.abs(expect(labels, probabilities) - theirs).max() <= 1  # it rounds
    found = cleanlab.filter.find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    assert len(set(np.flatnonzero(found)) ^ set(find_suspects(labels, probabilities).rows.tolist())) <= 2


@pytest.fixture
def table(tmp_path):
    """Write corrections.csv of images and classes; images are noise, of two classes."""
    images = np.random.default_rng(1).integers(0, 256, (120, 6, 6, 1), dtype=np.uint8)
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "Y.npy", np.arange(120) % 2)

    def write(rows, head=("fingerprint", "class")):
        with (tmp_path / "corrections.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *((digest(images[n].tobytes()), name) for n, name in rows)])
        return "data.corrections=corrections.csv"

    return write


def test_corrections_follow_the_images_and_leave_the_test_part(table, train_here, here, tmp_path):
    options = (*NPY, f"data.root={tmp_path}", "data.stratify=false", "data.validation=0.2", "data.test=0.5")
    corrections = table([(number, "1") for number in range(0, 120, 2)])  # all that are "0"
    others = "data.source.labels=Z.npy"
    np.save(tmp_path / "Z.npy", np.zeros(120, int) + (np.arange(120) == 1) + (np.arange(120) % 3 == 0))
    told = train_here(*options, others, "hydra.run.dir=plain").out
    assert "corrected" not in told
    table([(0, "0"), (3, "0")])
    told = train_here(*options, others, corrections, "data.corrections_test=true", "hydra.run.dir=both").out
    assert "2 labels corrected" in told
    both, plain = read_result(tmp_path / "both")["data"], read_result(tmp_path / "plain")["data"]
    assert both["images"] == plain["images"] and both["corrections"]["labels"] == 2
    told = train_here(*options, others, corrections, "hydra.run.dir=one").out
    one = read_result(tmp_path / "one")["data"]["corrections"]
    assert one["test"] == 0 and one["labels"] + one["test_left"] == 2
    assert (tmp_path / "one" / "corrections.csv").exists()
    (tmp_path / "corrections.csv").unlink()  # the run has its copy
    here("evaluate", tmp_path / "one")


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([(0, "7")], ("fingerprint", "class"), "'7' is no class"),
        ([(0, "1"), (0, "0")], ("fingerprint", "class"), "has another class in line 2"),
        ([(0, "1")], ("image", "class"), "not a table of corrections"),
    ],
)
def test_a_table_that_is_none_is_one_line(table, refused, tmp_path, rows, head, message):
    assert message in refused(*NPY, f"data.root={tmp_path}", table(rows, head))
    assert not list(tmp_path.glob("outputs/*"))


def test_an_image_that_is_not_there_is_one_line(table, refused, tmp_path):
    corrections = table([(0, "1")])
    (tmp_path / "corrections.csv").write_text("fingerprint,class\nabc,1\n")
    assert "line 2: image abc is not in this data" in refused(*NPY, f"data.root={tmp_path}", corrections)
    (tmp_path / "corrections.csv").unlink()
    assert "there is no such file" in refused(*NPY, f"data.root={tmp_path}", corrections)


def test_the_page_is_french_and_folds_that_start_otherwise_are_not_compared(older, here, refused):  # noqa: F811
    here("check_labels", older / "folds", "lang=fr")
    page = (older / "folds" / "suspects.html").read_text()
    assert "étiquettes à regarder" in page and "Prendre la suggestion" in page and "thought to be" not in page
    row = read_csv(older / "folds" / "suspects.csv")[0]
    with (older / "corrections.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fingerprint", "class"), (row["fingerprint"], row["suggested"])])
    told = refused(older / "folds", "--corrections", older / "corrections.csv", command="check_labels")
    assert "of an older version, whose folds start otherwise" in told


def test_labels_are_changed_on_purpose_of_files_as_they_were_downloaded(data_root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "src" / "yardsticks"))
    import wrong_labels

    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (data_root / "MNIST" / "raw").iterdir():
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    wrong_labels.make(tmp_path / "data", tmp_path / "noisy", "0.1", "1", "4", "9")
    before, after = (
        np.frombuffer((root / "MNIST" / "raw" / "train-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
        for root in (data_root, tmp_path / "noisy")
    )
    changed = np.flatnonzero(before != after)
    assert len(changed) == 30 and set(before[changed]) == set(after[changed]) == {4, 9}
    truth = dict(zip(changed.tolist(), before[changed].tolist(), strict=True))
    assert wrong_labels.read_truth(tmp_path / "noisy") == truth


@pytest.mark.slow
def test_folds_are_looked_through_and_trained_again(here, data_root, tmp_path):
    """With 20 labels of 300 changed, of classes that a network learns in five epochs."""
    root = shutil.copytree(data_root, tmp_path / "data")
    path = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels = np.frombuffer(path.read_bytes()[8:], np.uint8).copy()
    labels[:300:15] = (labels[:300:15] + 1) % 10
    path.write_bytes(path.read_bytes()[:8] + labels.tobytes())
    options = (*SMALL_MNIST, f"data.root={root}", "model=mlp20", "model.epochs=5", "model.batch_size=20")
    here("cross_validate", *options, "data.folds=2", "workers=1", "hydra.run.dir=cv")
    assert "Expected to be wrong" in here("check_labels", tmp_path / "cv").out
    rows = read_csv(tmp_path / "cv" / "suspects.csv")
    assert sum(int(row["image"]) % 15 == 0 for row in rows) >= 10
    assert all(row["class"] != row["suggested"] for row in rows)
    assert "http" not in (tmp_path / "cv" / "suspects.html").read_text().replace("http-equiv", "")
    with (tmp_path / "corrections.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fingerprint", "class"), (rows[0]["fingerprint"], rows[0]["suggested"])])
    told = here("check_labels", tmp_path / "cv", "--corrections", tmp_path / "corrections.csv").out
    assert "1 label corrected: " in told and " points (" in told
