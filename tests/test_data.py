"""Which image is where: the labs' splits, the folds, the files that are refused."""

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import squares, write_idx
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from lab.datasets import idx, medmnist, npy
from lab.datasets.batches import Batches, ImageData, ShuffledBatches
from lab.datasets.dataset import make_folds, split
from lab.datasets.make_cifar4 import CLASSES, FILES, make_cifar4
from lab.datasets.readers import Arrays
from lab.errors import UserError


def dataset(count, classes, **own_parts):
    labels = np.random.default_rng(0).integers(0, classes, count)
    return Arrays(np.zeros((count, 4, 4, 1), np.uint8), labels, own_parts or {"train": count})


def read_mnist(root, sums=None, sample=False, mirrors=()):
    return idx(root, "MNIST/raw", mirrors, sums, sample)


def test_mnist_is_split_as_lab_b_splits_it():
    mnist = dataset(70_000, 10, train=60_000, test=10_000)
    parts = split(mnist, 0.08333, None, seed=42, stratify=True)
    train, validation = train_test_split(
        np.arange(60_000), stratify=mnist.labels[:60_000], test_size=0.08333, random_state=42
    )
    assert (len(train), len(validation)) == (55_000, 5_000)
    np.testing.assert_array_equal(parts["train"], train)
    np.testing.assert_array_equal(parts["validation"], validation)
    np.testing.assert_array_equal(parts["test"], np.arange(60_000, 70_000))


def test_cifar4_is_split_as_lab_e_splits_it():
    cifar4 = dataset(24_000, 4)
    parts = split(cifar4, 0.15, 0.15, seed=42, stratify=False)
    train, rest = train_test_split(np.arange(24_000), train_size=0.7, random_state=42)
    validation, test = train_test_split(rest, train_size=0.5, random_state=42)
    for part, wanted in (("train", train), ("validation", validation), ("test", test)):
        np.testing.assert_array_equal(parts[part], wanted)


@pytest.mark.parametrize("validation", [0, 0.1, None])
def test_every_image_is_in_one_part(validation):
    own = dataset(1000, 3, train=600, validation=150, test=250)
    parts = split(own, validation, None, seed=1, stratify=True)
    assert len(parts["validation"]) == {0: 0, 0.1: 75, None: 150}[validation]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1000))
    np.testing.assert_array_equal(parts["test"], np.arange(750, 1000))


def test_folds_are_lab_as_and_never_hold_a_test_image():
    mnist = dataset(7_000, 10, train=6_000, test=1_000)
    parts = split(mnist, 0.08333, None, seed=42, stratify=True)
    folds = make_folds(parts, mnist.labels, 5, seed=1, stratify=False)
    wanted = KFold(5, shuffle=True, random_state=1).split(np.arange(6_000))
    for taken, (train, held_out) in zip(folds, wanted, strict=True):
        np.testing.assert_array_equal(taken["train"], train)
        np.testing.assert_array_equal(taken["validation"], held_out)
        np.testing.assert_array_equal(taken["test"], np.arange(6_000, 7_000))


def test_stratified_folds_are_scikit_learns():
    cifar4 = dataset(400, 4)
    parts = split(cifar4, 0.15, 0.15, seed=42, stratify=False)
    pool = np.setdiff1d(np.arange(400), parts["test"])
    wanted = list(StratifiedKFold(4, shuffle=True, random_state=7).split(pool, cifar4.labels[pool]))[2][1]
    np.testing.assert_array_equal(make_folds(parts, cifar4.labels, 4, 7, True)[2]["validation"], pool[wanted])


def test_a_test_part_is_never_split_again():
    with pytest.raises(UserError, match="has its own test part"):
        split(dataset(100, 2, train=80, test=20), 0.1, 0.2, 1, True)


def test_batches_are_shuffled_by_seed_and_epoch_alone():
    images, labels = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100)

    def order(seed, epoch):
        batches = ShuffledBatches(images, labels, torch.arange(100), 32, seed)
        batches.sampler.set_epoch(epoch)
        torch.rand(epoch + 1)  # whatever else drew random numbers
        sizes, seen = zip(*((len(y), y) for x, y, _ in batches if torch.equal(x.flatten().long(), y)), strict=True)
        assert sizes == (32, 32, 32, 4) and batches.n_batches == 4
        return torch.cat(seen).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9
    assert sorted(order(1, 3)) == list(range(100))


def test_no_batch_is_of_one_image_alone():
    images, labels = torch.zeros(65, 1, 1, 1, dtype=torch.uint8), torch.arange(65)
    batches = ShuffledBatches(images, labels, torch.arange(65), 32, seed=1)
    assert [len(y) for _, y, _ in batches] == [32, 33] and batches.n_batches == 2
    assert len(list(ShuffledBatches(images, labels, torch.arange(1), 32, seed=1))) == 1


def test_processes_share_the_training_images():
    images, labels = torch.zeros(100, 1, 1, 1, dtype=torch.uint8), torch.arange(100)
    shares = [ShuffledBatches(images, labels, torch.arange(100), 16, 1, rank, 2) for rank in (0, 1)]
    seen = [torch.cat([y for _, y, _ in share]).tolist() for share in shares]
    assert sorted(seen[0] + seen[1]) == list(range(100))


def test_processes_share_the_evaluation_without_an_image_twice():
    images, labels = torch.zeros(101, 1, 1, 1, dtype=torch.uint8), torch.arange(101)
    shares = [list(Batches(images, labels, torch.arange(101)[rank::2], 3)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [3, 3]
    assert sorted(torch.cat([y for share in shares for _, y, _ in share]).tolist()) == list(range(101))


def test_no_process_evaluates_a_batch_without_images():
    """Of images so large that each is a batch."""
    large = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(5, 1600, 1600, 1)
    for rank in (0, 1):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=strategy)
        parts = {"parts": {"test": torch.arange(5)}, "tested": "test", "features": None, "_release": lambda: None}
        data = SimpleNamespace(trainer=trainer, images=large, labels=torch.arange(5), **parts)
        batches = ImageData._evaluation_batches(data, "test")
        assert batches.n_batches == 2 and all(len(some) for some in batches._slices())


def test_idx_files_are_read_plain_and_gzipped(data_root, tmp_path):
    plain = read_mnist(data_root)
    assert plain.images.shape == (400, 28, 28, 1) and plain.own_parts == {"train": 300, "test": 100}
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sums = {}
    for path in (data_root / "MNIST" / "raw").iterdir():
        zipped = gzip.compress(path.read_bytes())
        (raw / f"{path.name}.gz").write_bytes(zipped)
        sums[path.name] = ["the sum of the plain file", hashlib.md5(zipped).hexdigest()]
    zipped = read_mnist(tmp_path, sums)
    np.testing.assert_array_equal(zipped.images, plain.images)
    np.testing.assert_array_equal(zipped.labels, plain.labels)


def flipped(name):
    """Gzipped bytes of which some are others."""
    zipped = bytearray(gzip.compress(name.encode() * 1000))
    zipped[12:30] = bytes(18)
    return bytes(zipped)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "truncated or damaged, 78395 bytes where"),
        (lambda path: path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12), "promises 79228162458924105385300197375"),
        (lambda path: path.write_bytes(b"<html>Not Found</html>"), "not an IDX file of 3 dimensions"),
        (lambda path: path.write_bytes(b""), "not an IDX file"),
        (lambda path: (path.rename(f"{path}.gz"), Path(f"{path}.gz").write_bytes(b"no gzip")), "damaged or not gzip"),
        (lambda path: (path.unlink(), Path(f"{path}.gz").write_bytes(flipped(path.name))), "damaged or not gzip"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), "wrong checksum"),
        (lambda path: path.unlink(), "cannot be downloaded"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, harm, message):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images, labels = squares(100, 10, 28, 1)
        write_idx(raw / f"{part}-images-idx3-ubyte", images[..., 0])
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    victim = raw / "t10k-images-idx3-ubyte"
    sums = {victim.name: [hashlib.md5(victim.read_bytes()).hexdigest(), None]}
    harm(victim)
    with pytest.raises(UserError, match=message) as refused:
        read_mnist(tmp_path, sums)
    assert "t10k-images-idx3-ubyte" in str(refused.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 8, 8), np.float32), np.zeros(4, int), "images are float32"),
        (np.zeros((4, 8), np.uint8), np.zeros(4, int), r"uint8 \[4, 8\]"),
        (np.zeros((0, 8, 8), np.uint8), np.zeros(0, int), r"uint8 \[0, 8, 8\]"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(5, int), "4 train images and 5 labels"),
        (np.zeros((4, 8, 8), np.uint8), np.zeros(4), "labels are float64"),
        (np.array([{}, {}], object), np.zeros(2, int), "not a file of plain numbers"),
    ],
)
def test_npy_files_of_the_wrong_kind_are_refused(tmp_path, images, labels, message):
    np.save(tmp_path / "X.npy", images, allow_pickle=True)
    np.save(tmp_path / "Y.npy", labels)
    with pytest.raises(UserError, match=message):
        npy(tmp_path, "X.npy", "Y.npy")


def test_archives_in_place_of_arrays_and_parts_of_two_sizes_are_refused(tmp_path):
    with (tmp_path / "X.npy").open("wb") as file:
        np.savez(file, np.zeros((4, 8, 8), np.uint8))
    np.save(tmp_path / "Y.npy", np.zeros(4, int))
    with pytest.raises(UserError, match="an archive of arrays"):
        npy(tmp_path, "X.npy", "Y.npy")
    parts = {
        f"{key}_images": np.zeros((4, side, side), np.uint8) for key, side in (("train", 8), ("val", 8), ("test", 9))
    }
    np.savez(tmp_path / "p.npz", **parts, **{f"{key}_labels": np.zeros(4, int) for key in ("train", "val", "test")})
    with pytest.raises(UserError, match=r"images of \[8, 8, 1\] and \[8, 8, 1\] and \[9, 9, 1\]"):
        medmnist(tmp_path, "p.npz", "http://nowhere.invalid/", "0" * 32)


def test_medmnists_file_keeps_its_official_parts(data_root, tmp_path):
    pneumonia = medmnist(data_root, "pneumoniamnist.npz", "http://nowhere.invalid/", "0" * 32)
    assert pneumonia.own_parts == {"train": 60, "validation": 20, "test": 20}
    (tmp_path / "pneumoniamnist.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="not a MedMNIST file of plain numbers"):
        medmnist(tmp_path, "pneumoniamnist.npz", "http://nowhere.invalid/", "0" * 32)


@pytest.fixture
def server(tmp_path):
    """A folder, and the address where a server on this machine offers it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_missing_files_are_downloaded_from_the_first_mirror_whose_file_is_right(server, tmp_path, data_root):
    folder, address = server
    sums = {}
    for path in (data_root / "MNIST" / "raw").iterdir():
        zipped = gzip.compress(path.read_bytes())
        sums[path.name] = [None, hashlib.md5(zipped).hexdigest()]
        for mirror, content in (("damaged", zipped[:-9]), ("right", zipped)):
            (folder / mirror).mkdir(exist_ok=True)
            (folder / mirror / f"{path.name}.gz").write_bytes(content)
    mirrors = [f"{address}/{name}/" for name in ("empty", "damaged", "right")]
    for name in ("new", "other"):
        (tmp_path / name).mkdir()
    fetched = read_mnist(tmp_path / "new", sums, mirrors=mirrors)
    np.testing.assert_array_equal(fetched.images, read_mnist(data_root).images)
    assert read_mnist(tmp_path / "new", sums).own_parts == {"train": 300, "test": 100}  # now without the network
    with pytest.raises(UserError, match="cannot be downloaded"):
        read_mnist(tmp_path / "other", sums, mirrors=mirrors[:2])
    assert not list((tmp_path / "other").rglob("*.gz"))


def test_the_sample_needs_neither_files_nor_network_and_is_marked(tmp_path):
    sample = read_mnist(tmp_path, sample=True)
    assert sample.is_sample and sample.images.shape == (5_000, 28, 28, 1)
    parts = split(sample, 0.08333, None, seed=42, stratify=True)
    assert {part: len(indices) for part, indices in parts.items()} == {"train": 3583, "validation": 417, "test": 1000}


@pytest.mark.parametrize("as_archive", [False, True])
def test_cifar4_is_made_from_cifar10s_binary_version(tmp_path, as_archive):
    random = np.random.default_rng(0)
    records = {name: random.integers(0, 256, (50, 3073), dtype=np.uint8) for name in FILES}
    source = tmp_path / ("cifar-10-binary.tar.gz" if as_archive else "cifar-10-batches-bin")
    if as_archive:
        with tarfile.open(source, "w:gz") as archive:
            for name, array in records.items():
                array[:, 0] %= 10
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = array.nbytes
                archive.addfile(member, io.BytesIO(array.tobytes()))
    else:
        source.mkdir()
        for name, array in records.items():
            array[:, 0] %= 10
            (source / name).write_bytes(array.tobytes())
    make_cifar4(source, tmp_path)
    images, labels = np.load(tmp_path / "CIFAR4_X.npy"), np.load(tmp_path / "CIFAR4_Y.npy")
    everything = np.concatenate(list(records.values()))
    frogs = everything[everything[:, 0] == 6, 1:].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(images[labels == list(CLASSES.values()).index("frog")][..., 1], frogs[:, 1])
    assert images.flags.c_contiguous and (np.diff(labels.astype(int)) >= 0).all()


@pytest.mark.data
def test_the_real_data_sets_have_the_labs_sizes():
    from conftest import REAL_DATA
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from lab.config.schema import CONF
    from lab.datasets.dataset import load

    sizes = {}
    for name in ("mnist", "cifar4", "pneumonia"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", [f"data={name}", f"data.root={REAL_DATA}"], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        sizes[name] = [len(indices) for indices in load(config.data).parts.values()]
    assert sizes == {"mnist": [55_000, 5_000, 10_000], "cifar4": [16_800, 3_600, 3_600], "pneumonia": [4_708, 524, 624]}
