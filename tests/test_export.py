"""export.py: one file with everything inside, for every network, that old runtimes read."""

import base64
import json
import os
import shutil
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conftest import PROJECT, SMALL_MNIST, read_result
from hydra import compose, initialize_config_dir
from torch import nn

from lab.config.schema import CONF
from lab.errors import UserError
from lab.export.export import _set_abstention
from lab.export.formats import Deployed, write_onnx, write_torchscript
from lab.export.parity import TOLERANCE, check_parity, count_other
from lab.models.build import build
from lab.training.prepare import build_classifier

HUGE = {"alexnet_224"}  # 590 MB: exported by hand


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    return tmp_path_factory.mktemp("exported") / "run"


@pytest.fixture
def run(exported, here):
    """The folder of a run that was exported."""
    if not exported.exists():
        here("train", *SMALL_MNIST, "model=deep", "model.epochs=2", f"hydra.run.dir={exported}")
        (exported / "told").write_text(here("export", exported).out)
    return exported


def read_metadata(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(f"{archive.namelist()[0].partition('/')[0]}/extra/metadata.json"))


def test_the_files_agree_with_the_network_on_the_whole_test_part(run):
    told, parity = (run / "told").read_text(), json.loads((run / "parity.json").read_text())
    assert parity["images"] == 100 and parity["runtimes"].keys() == {"TorchScript", "ONNX Runtime"}
    for figures in parity["runtimes"].values():
        assert figures["largest_difference"] <= TOLERANCE and figures["other_predictions"] == 0
    assert parity["rounding_of_the_network"] < TOLERANCE == parity["tolerance"]
    assert "ONNX Runtime" in told and f"model.ts and model.onnx in {run}" in told


def test_model_ts_takes_any_number_of_uint8_images_and_gives_probabilities(run):
    module = torch.jit.load(run / "model.ts")
    for n in (1, 3, 40):
        probabilities = module(torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8))
        assert probabilities.shape == (n, 10)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(n))


def test_metadata_says_all_and_betrays_no_path_and_no_user(run, data_root):
    metadata, result = read_metadata(run / "model.ts"), read_result(run)
    assert metadata["model"] == "deep" and metadata["classes"] == [str(digit) for digit in range(10)]
    assert metadata["input"] == {"channels": 1, "height": 28, "width": 28, "colour": "grey", "picture": "digit"}
    assert metadata["metrics"] == {"part": "test", **result["test"]["last"]} and metadata["min_torch"] == "1.7"
    assert metadata["config"]["model"]["optimizer"]["lr"] == 0.01
    content = zipfile.ZipFile(run / "model.ts")
    everything = b"".join(content.read(name) for name in content.namelist())
    for secret in (str(data_root), str(PROJECT), str(Path.home()), "site-packages"):
        assert secret.encode() not in everything, secret
    assert not any(name.endswith(".debug_pkl") for name in content.namelist())
    model = onnx.load(run / "model.onnx")
    assert str(PROJECT).encode() not in (run / "model.onnx").read_bytes()
    assert json.loads({p.key: p.value for p in model.metadata_props}["metadata.json"])["model"] == "deep"
    assert [opset.version for opset in model.opset_import] == [13] and model.graph.input[
        0
    ].type.tensor_type.elem_type == 1


def test_no_folder_of_the_users_data_travels_with_a_network(here, tmp_path, data_root):
    secret = tmp_path / "alice" / "secret"
    shutil.copytree(data_root, secret)
    files = (f"data.source.images={secret}/CIFAR4_X.npy", f"data.source.labels={secret}/CIFAR4_Y.npy")
    here("train", "data=npy", *files, "model=small_pool", "model.epochs=1", "hydra.run.dir=run")
    here("export", tmp_path / "run")
    assert read_metadata(tmp_path / "run" / "model.ts")["config"]["data"]["source"]["images"] == "CIFAR4_X.npy"
    for name in ("model.ts", "model.onnx"):
        assert b"alice" not in (tmp_path / "run" / name).read_bytes()


def test_the_golden_sample_is_of_the_test_part_with_the_networks_answers(run, data_root):
    golden = read_metadata(run / "model.ts")["golden"]
    images = np.frombuffer(base64.b64decode(golden["images"]), np.uint8).reshape(-1, 1, 28, 28)
    raw = (data_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert images.tobytes() == raw[: 10 * 784]
    found = torch.jit.load(run / "model.ts")(torch.from_numpy(images.copy()))
    torch.testing.assert_close(found, torch.tensor(golden["probabilities"]), atol=1e-6, rtol=0)


def test_records_are_stored_and_aligned(run):
    with zipfile.ZipFile(run / "model.ts") as archive, (run / "model.ts").open("rb") as file:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            file.seek(entry.header_offset + 26)
            name, extra = np.frombuffer(file.read(4), "<u2").astype(int)
            assert (entry.header_offset + 30 + name + extra) % 64 == 0


def test_model_ts_is_evaluated_as_its_run(run, here, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    here("evaluate", folder)
    here("evaluate", folder / "model.ts")
    ours, theirs = (json.loads((folder / f"evaluation{end}.json").read_text()) for end in ("", "_exported"))
    assert ours["confusion"] == theirs["confusion"]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)


LARGE = ("efficientnet_lite4", "resnet18", "resnet50_timm")
RECIPES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.mark.parametrize("recipe", [pytest.param(r, marks=pytest.mark.slow) if r in LARGE else r for r in RECIPES])
def test_every_network_is_exported_and_agrees(recipe, tmp_path):
    if recipe in HUGE:
        pytest.skip(f"{recipe} is too large for an ordinary test")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"model={recipe}"])
    if "weights" in config.model.net:
        config.model.net.weights = False
    if recipe == "pretrained":
        config.model.net.name = "test_resnet"
    torch.manual_seed(1)
    side, channels = (28, 1) if recipe.startswith(("lenet5", "hog")) else (32, 3)
    config.model.name, config.data.classes = recipe, ["a", "b", "c", "d"]
    net = build_classifier(config, (channels, side, side), 4)[0].net.eval()
    # dark: untrained networks on raw pixels have logits of hundreds
    images = torch.randint(0, 64, (20, channels, side, side), dtype=torch.uint8)
    deployed, files = Deployed(net).eval(), {name: tmp_path / name for name in ("model.ts", "model.onnx")}
    write_torchscript(deployed, images[:10], {"model": recipe}, files["model.ts"])
    write_onnx(deployed, images[:10], {"model": recipe}, files["model.onnx"])
    check_parity(deployed, files, images)


def test_files_of_another_network_are_noticed(tmp_path):
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    files = {name: tmp_path / name for name in ("model.ts", "model.onnx")}
    for seed in (1, 2):
        torch.manual_seed(seed)
        net, _ = build(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), (1, 8, 8), 255, "mine")
        deployed = Deployed(net).eval()
        if seed == 1:
            write_torchscript(deployed, images, {"model": "mine"}, files["model.ts"])
            write_onnx(deployed, images, {"model": "mine"}, files["model.onnx"])
            check_parity(deployed, files, images)
    with pytest.raises(UserError, match="answers otherwise than the network that was trained"):
        check_parity(deployed, files, images)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(nn.GELU(), "no GELU"), (nn.RMSNorm(8), "no RMSNorm"), (nn.ReflectionPad2d(1), "no torch.nn.functional.pad")],
)
def test_what_the_jetson_cannot_read_is_told_by_name(layer, message, tmp_path):
    net, _ = build(nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)), (1, 8, 8), 255, "mine")
    deployed, images = Deployed(net).eval(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match=f"model=mine cannot be exported: .*{message}"):
        write_torchscript(deployed, images, {"model": "mine"}, tmp_path / "model.ts")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("layer", "least"), [(nn.Mish(), "1.9"), (nn.PixelUnshuffle(2), "1.8"), (nn.ReLU(), "1.7")])
def test_the_file_names_the_oldest_torch_that_reads_it(layer, least, tmp_path):
    net, _ = build(nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)), (1, 8, 8), 255, "mine")
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    write_torchscript(Deployed(net).eval(), images, {"model": "mine"}, tmp_path / "model.ts")
    assert read_metadata(tmp_path / "model.ts")["min_torch"] == least


def test_what_is_no_run_is_refused_in_one_line(refused, tmp_path):
    assert "there is no such folder" in refused(tmp_path / "nothing", command="export")


def test_two_classes_that_are_as_probable_are_no_other_answer():
    wanted = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
    found = np.array([[0.4999999, 0.5000001], [0.9, 0.1]], np.float32)
    assert count_other(found, wanted, TOLERANCE) == 0
    assert count_other(wanted[:, ::-1], wanted, TOLERANCE) == 1


def test_smaller_files_come_with_a_verdict_and_what_old_runtimes_read(run, here, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    told = here("export", folder, "--int8", "--fp16", "--coverage", "0.9", "--force").out
    for precision, most in (("int8", 0.8), ("fp16", 0.9)):
        verdict = json.loads((folder / f"precision_{precision}.json").read_text())
        assert verdict["sentence"] in " ".join(told.split()) and verdict["size"] < most
        model = onnx.load(folder / f"model_{precision}.onnx")
        metadata = json.loads({p.key: p.value for p in model.metadata_props}["metadata.json"])
        assert metadata["precision"] == precision and 0.5 < metadata["abstention"]["coverage"] <= 0.9
        assert metadata["metrics"].keys() == {"part", "epoch", "images", "accuracy"}  # no more was measured on it
        assert model.ir_version == 7 and [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    assert "model_int8.onnx of an earlier export is removed" in here("export", folder).out
    assert not list(folder.glob("model_*.onnx")) + list(folder.glob("precision_*.json"))


def test_whatever_fails_in_a_smaller_file_the_float_files_are_there(run, here, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("the quantiser's own")

    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "model.ts").unlink()
    monkeypatch.setattr("lab.export.export.to_int8", fail)
    monkeypatch.setattr("lab.export.export.DEVICE_TOLERANCE", 0)  # as of a network that rounds more than others
    with pytest.raises(SystemExit, match="the quantiser's own"):
        here("export", folder, "--int8")
    assert read_metadata(folder / "model.ts")["tolerance"] == TOLERANCE


def test_an_export_that_a_shutdown_ends_leaves_nothing(run, here, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    files = set(folder.iterdir())
    signal.signal(signal.SIGTERM, lambda *_: None)
    monkeypatch.setattr("lab.errors._interrupts", [])
    monkeypatch.setattr("lab.export.export.check_parity", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="error: interrupted"):
        here("export", folder)
    assert set(folder.iterdir()) == files


@pytest.mark.parametrize(
    ("counts", "coverage", "always"),
    [([200, 200, 1], 0.99, [2]), ([30, 29, 0], 29 / 30, [2]), ([99, 99, 99], 0.99, [])],
)
def test_a_rare_class_is_in_every_set_and_lowers_no_coverage(counts, coverage, always, capsys):
    labels = np.repeat(np.arange(3), counts)
    dataset = SimpleNamespace(images=np.zeros((len(labels), 8, 8, 1), np.uint8), labels=labels, classes=["a", "b", "c"])
    dataset.parts, dataset.counts = {"validation": np.arange(len(labels))}, lambda: {"validation": np.array(counts)}
    shares = torch.rand(len(labels), 3, generator=torch.Generator().manual_seed(1)).softmax(1).numpy()
    answers = iter(np.split(shares, range(256, len(shares), 256)))
    found = _set_abstention(SimpleNamespace(dataset=dataset), lambda _: ((some := next(answers)), some[:, :1]), 0.99)
    assert found.coverage == pytest.approx(coverage) and [n for n in range(3) if found.least[n] == 0] == always
    assert ("of 'c'" in capsys.readouterr().out) == bool(always)


def test_a_coverage_that_nothing_has_is_refused(refused, run):
    assert "--coverage: 1: must be between 0 and 1" in refused(run, "--coverage", "1", command="export")
