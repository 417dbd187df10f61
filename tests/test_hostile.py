"""Whatever a stranger's file or a wrong value holds: refused in a line, nothing run, no hang, no memory eaten."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import threading
import traceback
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SMALL_MNIST
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from lab.datasets import idx, medmnist, npy
from lab.errors import UserError

sys.path.insert(0, str(PROJECT / "src"))
MOST_MEMORY = 2**20  # kB, beyond what the tests before have left
EXAMPLES = [10, pytest.param(500, marks=pytest.mark.slow)]
DTYPES = ["<u1", "<f8", "<i4", "O", "<U9", "V8", ">u2", "<c16", "|b1", "<M8[s]", "<u1,<u1"]


def in_own_process(test):
    """Run `test` in a copy of this process, so that the peak of memory is its own; raise what it fails with."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        failed = b""
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in memory
            before = memory("VmHWM")
            test()
            taken = memory("VmHWM") - before
            assert taken < MOST_MEMORY, f"{taken} kB were taken"
        except BaseException:
            failed = traceback.format_exc().encode()
        finally:
            os.write(writer, failed[-60_000:])  # what a pipe holds
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        failed = pipe.read()
    os.waitpid(pid, 0)
    assert not failed, failed


def memory(kind):
    """Of this process, in kB: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{kind}:")))


def try_many(test, examples, *strategies):
    """None takes ten seconds, all of them together MOST_MEMORY at most."""
    quick = settings(
        max_examples=examples,
        deadline=10_000,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    in_own_process(quick(given(*strategies)(test)))


def spoil(content, cuts):
    """`content` with bytes changed, and cut off."""
    spoilt = bytearray(content)
    for place, value in cuts:
        spoilt[place * (len(spoilt) - 1) // 1000] = value
    return bytes(spoilt[: cuts[0][0] * len(spoilt) // 1000] if cuts and cuts[0][1] % 3 == 0 else spoilt)


CUTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=6)


def npy_file(dtype, shape, data):
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize("examples", EXAMPLES)
def test_array_files(tmp_path, examples):
    shapes = st.lists(st.integers(-(2**40), 2**62) | st.integers(0, 40), max_size=5).map(tuple)

    def test(dtype, shape, data, cuts):
        (tmp_path / "X.npy").write_bytes(npy_file(dtype, shape, data))
        np.save(tmp_path / "Y.npy", np.arange(4))
        with pytest.raises(UserError):
            npy(tmp_path, "X.npy", "Y.npy")
        good = io.BytesIO()
        np.savez(good, **{f"{part}_images": np.ones((4, 8, 8), np.uint8) for part in ("train", "val", "test")})
        (tmp_path / "p.npz").write_bytes(spoil(good.getvalue(), cuts))
        with pytest.raises(UserError):
            medmnist(tmp_path, "p.npz", "http://127.0.0.1:9/", "0" * 32)
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            for part in (name, name.replace("train", "t10k")):
                (raw / part).write_bytes(data + bytes(cuts[0][1] for _ in range(20)))
        with pytest.raises(UserError):
            idx(tmp_path, "MNIST/raw", [], None)

    try_many(test, examples, st.sampled_from(DTYPES), shapes, st.binary(max_size=200), CUTS)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_pictures(tmp_path, examples):
    import predict

    good = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        file = io.BytesIO()
        Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(file, kind)
        good[kind] = file.getvalue()

    def test(kind, cuts, head):
        for content in (spoil(good[kind], cuts), head, good[kind][:20] + head):
            try:
                picture = predict.open_picture(io.BytesIO(content))
            except predict.UserError as error:
                assert "\n" not in str(error)
            else:
                assert picture.width * picture.height <= predict.MOST_PIXELS

    try_many(test, examples, st.sampled_from(sorted(good)), CUTS, st.binary(max_size=100))


class Shouts:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture
def run(runs, here):
    """A finished run's folder, with its exports."""
    if not (runs / "run").exists():
        here("train", *SMALL_MNIST, "model=small_dense", "model.epochs=1", f"hydra.run.dir={runs / 'run'}")
        here("export", runs / "run")
    return runs / "run"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_spoilt_run_folders(run, tmp_path, examples):
    from lab.runs.folder import read_config, read_exported, read_result
    from lab.runs.predictions import load_predictions
    from lab.training.checkpoint import read_checkpoint

    readers = {
        "config.yaml": read_config,
        "result.json": read_result,
        "predictions.npz": load_predictions,
        "last.ckpt": lambda folder: read_checkpoint(folder / "last.ckpt"),
        "model.ts": lambda folder: read_exported(folder / "model.ts"),
    }

    def test(name, cuts, other):
        folder = tmp_path / "spoilt"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        for content in (spoil((run / name).read_bytes(), cuts), other):
            (folder / name).write_bytes(content)
            try:
                readers[name](folder)
            except UserError as error:
                assert name in str(error) or str(folder) in str(error)

    try_many(test, examples, st.sampled_from(sorted(readers)), CUTS, st.binary(max_size=300))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_config_values(here, capfd, tmp_path, examples):
    keys = [
        "model.epochs",
        "model.batch_size",
        "model.optimizer.lr",
        "model.scale",
        "seed",
        "threads",
        "data.validation",
    ]
    keys += ["data.fold", "data.folds", "model.augment.shift", "data.root", "trainer.precision", "speed", "resume"]
    keys += [
        "model",
        "data",
        "model.net._target_",
        "data.source._target_",
        "model.optimizer._target_",
        "early_stopping",
    ]
    bad = st.sampled_from(["-1", "1e999", "nan", "[]", "{a:1}", "os.system", "builtins.eval", "${seed}", "???", "''"])
    bad |= st.sampled_from(
        ["../../etc", "0", "-5", "true", "1.5", "lab.run.prepare", "null", "/dev/null", "'\"'", "{", "$("]
    )

    def test(key, value):
        arguments = (*SMALL_MNIST, "model=small_dense", "model.epochs=1", "data.sample=false", f"{key}={value}")
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        try:
            here("train", *arguments, f"hydra.run.dir={tmp_path}/run")
        except SystemExit as refusal:
            told = capfd.readouterr().err + str(refusal.code)
            assert told.startswith("error: ") and "\n" not in told.strip() and "Traceback" not in told, told
            assert not list((tmp_path / "run").glob("result.json"))
        else:
            assert (tmp_path / "run" / "result.json").exists()

    try_many(test, examples, st.sampled_from(keys), bad)


def test_nothing_in_a_pickle_is_run(run, tmp_path):
    from lab.runs.predictions import load_predictions
    from lab.training.checkpoint import read_checkpoint

    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "last.ckpt").write_bytes(pickle.dumps(Shouts(tmp_path / "ran")))
    np.savez(folder / "predictions.npz", logits=np.array([Shouts(tmp_path / "ran")], dtype=object))
    np.save(tmp_path / "X.npy", np.array([Shouts(tmp_path / "ran")], dtype=object), allow_pickle=True)
    np.save(tmp_path / "Y.npy", np.arange(1))
    for read in (
        lambda: read_checkpoint(folder / "last.ckpt"),
        lambda: load_predictions(folder),
        lambda: npy(tmp_path, "X.npy", "Y.npy"),
    ):
        with pytest.raises(UserError):
            read()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "lab.run.load", "torch.hub.load", "torch.optim.SGD.__init__"]
)
def test_a_run_folder_calls_only_this_projects_networks_and_torchs_optimizers(run, tmp_path, target):
    from lab.runs.folder import read_config

    folder = shutil.copytree(run, tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    for name in ("lab.models.small_dense", "lab.datasets.idx", "lab.training.optimizers.Adam"):
        (folder / "config.yaml").write_text(text.replace(name, target))
        with pytest.raises(UserError, match="is none of this project's"):
            read_config(folder)


def test_a_network_that_is_left_open_is_refused(run, tmp_path):
    from lab.runs.folder import read_config

    folder = shutil.copytree(run, tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    left_open = text.replace("net:\n    _target_: lab.models.small_dense", "net: ???")
    assert left_open != text
    (folder / "config.yaml").write_text(left_open)
    with pytest.raises(UserError, match="not the configuration of a run"):
        read_config(folder)


def test_weights_in_a_strangers_run_folder_are_not_read(run, refused, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    for name in ("result.json", "last.ckpt"):
        (folder / name).unlink()
    config = OmegaConf.load(folder / "config.yaml")
    weights = str(tmp_path / "other" / ".." / "run" / "bomb.pth")
    config.model.net = {"_target_": "lab.models.resnet50", "weights": weights}
    OmegaConf.save(config, folder / "config.yaml")
    assert "lie in the folder itself: they are not read" in refused(f"resume={folder}")


def test_a_run_of_a_larger_machine_is_read_and_not_gone_on_with(run, refused, tmp_path):
    from lab.runs.folder import read_config

    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "result.json").unlink()
    config = OmegaConf.load(folder / "config.yaml")
    config.trainer.update(devices=1000, num_nodes=2, max_time={"hours": 1, "minutes": 30}, profiler="pytorch")
    OmegaConf.save(config, folder / "config.yaml")
    assert read_config(folder).trainer.devices == 1000
    assert "trainer.devices=1000: must be from 1 to" in refused(f"resume={folder}")


def test_a_strangers_run_folder_downloads_nothing(run, tmp_path):
    """It names an address, a sum that fits, and a place that is not for data."""
    from lab.training.load import load

    evil = tmp_path / "served" / "evil.py"
    evil.parent.mkdir()
    evil.write_text("print('planted')")
    folder, root = shutil.copytree(run, tmp_path / "run"), tmp_path / "data"
    root.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=evil.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = OmegaConf.load(folder / "config.yaml")
        config.data.source = {
            "_target_": "lab.datasets.medmnist",
            "file": "../planted.py",
            "url": f"http://127.0.0.1:{server.server_port}/evil.py",
            "md5": hashlib.md5(evil.read_bytes()).hexdigest(),
        }
        OmegaConf.save(config, folder / "config.yaml")
        with pytest.raises(UserError, match="no mirror is named"):
            load(folder, root=root)
        server.shutdown()
    assert not (tmp_path / "planted.py").exists()


def test_predictions_that_are_none_are_refused(run, tmp_path):
    from lab.runs.predictions import load_predictions

    predictions = load_predictions(run)
    labels, logits = predictions.labels, predictions.logits
    for changed in ({"labels": labels + 10}, {"labels": labels.astype(np.float32)}, {"logits": logits * np.nan}):
        dataclasses.replace(predictions, **changed).save(tmp_path / "predictions.npz")
        with pytest.raises(UserError, match="damaged"):
            load_predictions(tmp_path)


def test_bombs_are_refused_before_they_grow(run, tmp_path):
    from lab.runs.folder import read_config, read_exported
    from lab.runs.predictions import load_predictions
    from lab.training.checkpoint import read_checkpoint

    folder = shutil.copytree(run, tmp_path / "run")
    with (
        zipfile.ZipFile(folder / "predictions.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("logits.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(1100):
            file.write(bytes(2**20))
    for name in ("last.ckpt", "model.ts"):
        shutil.copy(folder / "predictions.npz", folder / name)
    shutil.copy(folder / "predictions.npz", tmp_path / "p.npz")
    laughs = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"{new}: &{new} [{', '.join(['*' + old] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    (folder / "config.yaml").write_text("\n".join(laughs))

    def test():
        for read in (
            lambda: load_predictions(folder),
            lambda: read_checkpoint(folder / "last.ckpt"),
            lambda: read_exported(folder / "model.ts"),
            lambda: medmnist(tmp_path, "p.npz", "", ""),
            lambda: read_config(folder),
        ):
            with pytest.raises(UserError):
                read()

    in_own_process(test)


def test_metadata_of_a_strangers_export_is_no_program(run, tmp_path):
    from lab.runs.folder import read_exported

    with zipfile.ZipFile(run / "model.ts") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("metadata.json"))
        metadata = json.loads(archive.read(name))
    metadata["config"]["model"]["net"]["_target_"] = "os.system"
    with zipfile.ZipFile(tmp_path / "model.ts", "w") as archive:
        archive.writestr(name, json.dumps(metadata))
    with pytest.raises(UserError, match="is none of this project's"):
        read_exported(tmp_path / "model.ts")
