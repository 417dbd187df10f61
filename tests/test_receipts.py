"""A receipt says what a file does on a device; receipts side by side say which wins."""

import errno
import json
import shutil

import numpy as np
import pytest
from test_predict import model, onnx_model, say, seven, write_model  # noqa: F401

import predict
from lab.evaluation.significance import accuracy_interval

TRUTH = ("ant", "bee", "cow", "<dog>")


@pytest.fixture
def pictures(tmp_path):
    """A folder with one folder a class, in which one file is no picture, and another is gone."""
    for number, name in enumerate(TRUTH):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for turn in range(3):
            seven().rotate(40 * number + 10 * turn, fillcolor="white").save(tmp_path / f"pictures/{name}/{turn}.png")
    (tmp_path / "pictures" / "bee" / "broken.png").write_bytes(b"junk")
    (tmp_path / "pictures" / "cow" / "gone.png").symlink_to("nowhere.png")
    return tmp_path / "pictures"


def write_receipt(say, path, file, *words):  # noqa: F811
    out, err, code = say(file, "receipt", *words, "--out", path, "--seconds", "0.01", "--batch", "4")
    return json.loads(path.read_text()), out + err, code


def test_every_runtime_writes_the_same_receipt(model, onnx_model, say, pictures, tmp_path):  # noqa: F811
    ts, told, code = write_receipt(say, tmp_path / "ts.json", model, pictures)
    assert code == 0 and "pass: 10 images" in told and f"receipt: {tmp_path}/ts.json" in told
    readable = [path for path in pictures.glob("*/*.png") if path.name not in ("broken.png", "gone.png")]
    right = sum(json.loads(say(model, "--json", path)[0])["class"] == path.parent.name for path in readable)
    (pictures / "ant" / "0.png").rename(pictures / "ant" / "zero.png")  # names do not matter
    onnx, *_ = write_receipt(say, tmp_path / "onnx.json", onnx_model, pictures)
    found, speed = ts["accuracy"], ts["speed"]["1"]
    assert ts.keys() == onnx.keys() and found == onnx["accuracy"]
    assert found["images"] == len(found["right"]) == 14 and found["refused"] == 2
    assert found["right"].count("1") == right and found["value"] == right / 14
    assert found["interval"] == pytest.approx(accuracy_interval(right, 14), abs=1e-6)
    assert onnx["precision"] == "float32" and onnx["runtime"].startswith("onnxruntime ")
    assert ts["speed"].keys() == {"1", "4"} and 0 < speed["median_ms"] <= speed["p95_ms"] <= speed["p99_ms"]
    assert ts["device"]["machine"] and ts["versions"].keys() == {"python", "pillow"} and ts["memory_mb"] > 10


def test_a_failed_self_test_is_in_the_receipt_and_in_the_exit_code(onnx_model, say, tmp_path):  # noqa: F811
    golden = predict.read_metadata(onnx_model)["golden"]
    golden["probabilities"][3] = golden["probabilities"][3][::-1]
    wrong = write_model(tmp_path / "model.onnx", changes={"golden": golden})
    receipt, _, code = write_receipt(say, tmp_path / "new" / "folder" / "wrong.json", wrong)
    assert code == 1 and receipt["selftest"]["passed"] is False and receipt["accuracy"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["receipt"], "receipt and --out FILE go together"),
        (["selftest", "--out", "a.json"], "receipt and --out FILE go together"),
        (["receipt", "--out", "other"], "--out other: a folder: give a file's name in it"),
        (["receipt", "--out", "nowhere/"], "--out nowhere/: a folder: give a file's name in it"),
        (["receipt", "--out", "file/a.json"], "file"),
        (["receipt", "nothing", "--out", "a.json"], "nothing: there is no such folder, with one folder a class in it"),
        (["receipt", "other", "--out", "a.json"], "other: has elk, and no folder for each of ant, bee, cow, <dog>"),
        (["receipt", "other/elk", "--out", "a.json"], "other/elk: has none, and no folder for each of ant, bee"),
    ],
)
def test_what_no_receipt_can_be_written_of_is_one_line(onnx_model, capfd, tmp_path, monkeypatch, words, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other" / "elk").mkdir(parents=True)
    (tmp_path / "file").touch()
    try:
        code = predict.main([onnx_model, *words])
    except SystemExit as ended:
        code = ended.code
    told = capfd.readouterr().err
    assert code and told.count("\n") == 1 and message in told and not list(tmp_path.glob("*.json*"))


def test_where_no_receipt_can_be_written_nothing_is_measured(onnx_model, say, monkeypatch):  # noqa: F811
    monkeypatch.setattr(predict, "test", None)
    _, err, code = say(onnx_model, "receipt", "--out", "/proc/a.json")
    assert code == 1 and err.count("\n") == 1 and "/proc/a.json" in err


def test_a_full_disk_leaves_no_half_a_receipt(onnx_model, say, tmp_path, monkeypatch):  # noqa: F811
    def fail(content, file, **options):
        file.write("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("predict.json.dump", fail)
    _, err, code = say(onnx_model, "receipt", "--out", tmp_path / "a.json", "--seconds", "0.01")
    assert code == 1 and "No space left" in err and not list(tmp_path.iterdir())


def test_a_jetsons_name_and_heat_are_read_where_they_are(tmp_path):
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Nano Developer Kit\0")
    (zone / "type").write_text("CPU-therm\n")
    (zone / "temp").write_text("41500\n")
    shutil.copytree(zone, zone.with_name("thermal_zone1"))
    (zone.with_name("thermal_zone1") / "temp").write_text("")
    assert predict.machine(tmp_path)["board"] == "NVIDIA Jetson Nano Developer Kit"
    assert predict.machine(tmp_path)["release"] is None
    assert predict.degrees(tmp_path) == {"zone0 CPU-therm": 41.5}


@pytest.fixture
def laid_out(tmp_path):
    """Writes a receipt NAME.json: so many milliseconds, right on so many of 2,000 pictures, and what `more` says."""

    def write(name, milliseconds, right=None, **more):
        speed = {"median_ms": milliseconds, "p95_ms": 2 * milliseconds, "p99_ms": 3 * milliseconds}
        content = {"receipt": 1, "file": f"{name}.onnx", "precision": "INT8", "runtime": "onnxruntime 1.10.0 on cpu"}
        content |= {"classes": list(TRUTH), "memory_mb": None, "selftest": {"passed": True}}
        content |= {"device": {"board": "Nano", "processor": "", "machine": "aarch64"}}
        content |= {"speed": {"1": speed, "32": {"images_per_second": 9000.0}}, "accuracy": None}
        if right:
            content["accuracy"] = {"right": "1" * right + "0" * (2000 - right), "pictures": "abc"}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content | more))
        return path

    return write


def test_the_fastest_that_is_not_worse_wins(here, laid_out):
    broken = laid_out("broken", 0.1, 2000, selftest={"passed": False})
    coarse, small, plain = laid_out("coarse", 0.2, 1900), laid_out("small", 0.5, 1978), laid_out("plain", 1.0, 1980)
    told = here("compare", plain, coarse, small, broken).out
    said = " ".join(told.splitlines()[-1].split())
    assert said.startswith("small wins, the fastest that is not worse: 0.5 ms for a picture; 2 x as fast as plain")
    assert "-0.10 points (-0.27 to +0.07) on the same 2,000 pictures" in said
    assert "coarse is faster, but worse: 5 x as fast as plain, the most accurate, -4.00 points" in said
    assert said.endswith("Failed the self-test, and cannot win: broken.")
    assert "FAILED" in told and "9,000 at 32" in told and "99.00%" in told
    told = here("compare", plain, coarse, laid_out("near", 1.1, 1979)).out
    assert "and none is more accurate. One measurement each does not tell its speed from that of near." in told


def test_where_accuracies_are_missing_only_speed_is_compared(here, laid_out):
    said = here("compare", laid_out("a", 0.2), laid_out("b", 0.5, 1978)).out
    assert "a is the fastest, 0.2 ms for a picture. Only speed is compared: a has no accuracy." in said
    assert "None wins." in here("compare", laid_out("c", 0.2, selftest={"passed": False})).out


def test_of_other_pictures_intervals_decide(here, laid_out):
    other = {"right": "1" * 495 + "0" * 5, "pictures": "def"}
    told = here("compare", laid_out("a", 0.2, accuracy=other), laid_out("b", 0.5, 1985)).out
    assert "a wins" in told and "whose pictures were others, and its interval reaches the other's" in told
    other["right"] = "1" * 300 + "0" * 200
    told = here("compare", laid_out("a", 0.2, accuracy=other), laid_out("b", 0.5, 1985)).out
    assert "b wins" in told and "a is faster, but worse" in told


def test_what_is_no_receipt_is_left_out_in_a_line(here, refused, laid_out, tmp_path):
    (tmp_path / "junk.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    bad = [tmp_path / "junk.json", tmp_path / "list.json", tmp_path / "none.json", laid_out("newer", 1, receipt=2)]
    bad += [
        laid_out("still", 0.0),
        laid_out("others", 1, classes=["x"]),
        laid_out("edited", 1, accuracy={"right": "2"}),
    ]
    told = here("compare", laid_out("good", 0.2), *bad).out
    assert [line.partition(": ")[2].partition(": ")[0] for line in told.splitlines() if line.startswith("left")] == [
        *map(str, bad)
    ]
    assert "good is the fastest" in told
    assert "cannot be read" in refused(tmp_path / "none.json", command="compare")
    assert "receipts are printed only" in refused(tmp_path / "good.json", "--out", "x", command="compare")


def test_numbers_that_json_has_no_word_for_are_none():
    assert predict.finite({"a": {"b": float("nan")}, "c": np.pi}) == {"a": {"b": None}, "c": np.pi}
