"""predict.py on a TensorRT engine, against a stand-in that has TensorRT's documented interface: no GPU is here."""

import ctypes
import json
import shutil
import sys

import numpy as np
import pytest
from tensorrt_stand_in import Cudart, make_tensorrt
from test_predict import make_model, onnx_model, say, seven, write_model  # noqa: F401

import predict


@pytest.fixture(params=["8.2.1.8", "10.3.0"])
def tensorrt(request, monkeypatch):
    """In the place of the package, and of CUDA's library: of each generation."""
    load, cudart = ctypes.CDLL, Cudart()
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt(request.param))
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *more: cudart if "cudart" in str(name) else load(name, *more))
    return request.param


@pytest.fixture
def engine(onnx_model, tmp_path):  # noqa: F811
    """Writes model.engine, of `onnx`, beside the model.onnx that it has its words of; for `least` to `most` images."""

    def write(onnx=onnx_model, least=2, most=8):
        shutil.copy(onnx_model, tmp_path / "model.onnx")
        path = tmp_path / "model.engine"
        path.write_text(json.dumps({"onnx": str(onnx), "least": least, "most": most}))
        return path

    return write


def test_an_engine_is_told_of_tested_timed_and_asked(tensorrt, engine, onnx_model, say, tmp_path):  # noqa: F811
    path = engine()
    assert "the TensorRT that built it" in say(path, "info")[0]
    out, err, code = say(path, "selftest")
    assert code == 0 and out.startswith("pass: 10 images") and f"TensorRT {tensorrt}" in out, err
    out, _, code = say(path, "bench", "--seconds", "0.01", "--batch", "20")
    assert code == 0 and "batch    1: median" in out and "batch   20: median" in out
    seven().save(tmp_path / "seven.png")
    assert say(path, "--json", tmp_path / "seven.png") == say(onnx_model, "--json", tmp_path / "seven.png")
    assert say(path, "receipt", "--out", tmp_path / "a.json", "--seconds", "0.01")[2] == 0
    assert json.loads((tmp_path / "a.json").read_text())["precision"] == "as built"


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 32), (4, 6)])
def test_any_number_of_images_goes_through_an_engine_of_few(tensorrt, engine, onnx_model, least, most):  # noqa: F811
    models = [
        predict.load(str(path), "cpu", predict.read_metadata(str(path)))
        for path in (engine(least=least, most=most), onnx_model)
    ]
    images = [bytes(each) for each in np.random.default_rng(1).integers(0, 256, (33, 784), dtype=np.uint8)]
    for count in (1, 3, 6, 7, 33):
        found, wanted = (model.probabilities(images[:count]) for model in models)
        assert np.allclose(found, wanted, atol=1e-6)


def test_an_engine_says_when_it_does_not_know(tensorrt, engine, onnx_model, say, tmp_path, monkeypatch):  # noqa: F811
    how = {"coverage": 0.9, "temperature": 1.0, "least": [0.1] * 4, "most_strange": [1e9]}
    model = write_model(tmp_path / "knows.onnx", changes={"abstention": how})
    engine(onnx=model)
    shutil.copy(model, tmp_path / "model.onnx")
    seven().save(tmp_path / "seven.png")
    found = say(tmp_path / "model.engine", "--json", tmp_path / "seven.png")
    assert '"set"' in found[0] and found == say(model, "--json", tmp_path / "seven.png")


def test_a_wrong_engine_fails_its_self_test(tensorrt, engine, say, tmp_path):  # noqa: F811
    other = write_model(tmp_path / "other.onnx", "small_conv")
    out, _, code = say(engine(onnx=other), "selftest")
    assert code == 1 and out.startswith("FAIL")


def test_what_is_wrong_with_an_engine_is_one_line(tensorrt, engine, say, tmp_path, monkeypatch):  # noqa: F811
    def told(path):
        _, err, code = say(path, "selftest")
        assert code == 1 and err.count("\n") == 1
        return err

    photo = {"channels": 3, "height": 32, "width": 32, "colour": "RGB", "picture": "photo"}
    assert "does not take and give float32: images of (1, 28, 28), probabilities of (4,)" in told(
        engine(onnx=write_model(tmp_path / "other.onnx", size=photo))
    )
    path = engine()
    assert "runs on the first GPU" in say(path, "selftest", "--device", "cuda:1")[1]
    path.write_bytes(b"of another device")
    assert "build it anew on this device" in told(path)
    monkeypatch.setattr(predict, "LIBRARIES", ["no.so"])
    assert "CUDA's runtime, is not there" in told(path)
    (tmp_path / "model.onnx").unlink()
    assert "beside it" in told(path)
    assert "there is no such file" in told(tmp_path / "none.engine")
