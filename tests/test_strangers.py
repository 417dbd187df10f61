"""A stranger's run folder does no harm: each attack that once did is planted here, and a thousand more by chance."""

import os
import pickle
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch
from conftest import read_result
from test_hostile import in_own_process, run, runs  # noqa: F401

from lab.errors import UserError


@pytest.fixture
def folder(run, tmp_path):  # noqa: F811
    """A finished run's, to spoil."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def unfinished(folder):
    (folder / "result.json").unlink()
    return folder


def pack(path, pickled, **files):
    """A checkpoint of this pickle, as torch.save packs one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in files.items():
            archive.writestr(f"archive/data/{name}", content)


def test_links_that_wait_for_a_command_lead_it_nowhere(folder, here, tmp_path):
    """Under the names that an older version wrote to before it renamed, and under the last ones."""
    (tmp_path / "thesis.txt").write_text("mine")
    for name in ("evaluation.json", "mistakes.png", "calibration.png", "confusion.png"):
        (folder / name).unlink(missing_ok=True)
        for planted in (name, f".{os.getpid()}-{name}"):
            (folder / planted).symlink_to(tmp_path / ("thesis.txt" if planted == name else "new.txt"))
    here("evaluate", folder)
    assert (tmp_path / "thesis.txt").read_text() == "mine" and not (tmp_path / "new.txt").exists()
    assert not (folder / "evaluation.json").is_symlink()


def test_links_that_wait_for_a_run_lead_it_nowhere(train_here, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{os.getpid()}-config.yaml").symlink_to(tmp_path / "new.txt")
    (tmp_path / "run" / ".running").symlink_to(tmp_path / "new.txt")
    with pytest.raises(SystemExit):
        train_here("data.source.md5=null", "model=small_dense", "model.epochs=1", "hydra.run.dir=run")
    assert not (tmp_path / "new.txt").exists()


class Calls:
    """Unpickled, it calls `function`."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def stretched(size, stride):
    """A pickle of a tensor [size] in float32, over a single number."""
    place = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\1tQ"
    shapes = b"K\0" + b"\x8a\x08" + size.to_bytes(8, "little") + b"\x85K" + bytes([stride]) + b"\x85"
    return b"\x80\2}X\12\0\0\0state_dictctorch._utils\n_rebuild_tensor_v2\n(" + place + shapes + b"\x89)tRs."


def copies(count):
    """A pickle of a dict of so many entries, copied as often."""
    large = b"}q\0(" + b"".join(b"M" + n.to_bytes(2, "little") + b"N" for n in range(count)) + b"u"
    return b"\x80\2" + large + b"0](" + b"ccollections\nOrderedDict\nh\0\x85R" * count + b"e."


BOMBS = {
    "bytearray": pickle.dumps(Calls(bytearray, 20 * 10**9), 2),
    "stretched": stretched(3 * 10**9, 0),
    "too long": stretched(10**6, 1),
    "copies": copies(20_000),
    "memo": b"\x80\2]r\xff\xff\xff\xff.",
    "bytes": b"\x80\4\x96" + (20 * 10**9).to_bytes(8, "little") + b".",
    "calls": pickle.dumps(Calls(os.system, "true"), 2),
    "setstate": pickle.dumps(Calls(torch._utils._rebuild_tensor, 1), 2),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_checkpoint_takes_no_more_memory_than_it_has_bytes(tmp_path, kind):
    from lab.training.checkpoint import read_checkpoint

    pack(tmp_path / "zip.ckpt", BOMBS[kind], **{"0": bytes(4)})
    (tmp_path / "plain.ckpt").write_bytes(BOMBS[kind])

    def test():
        for name in ("zip.ckpt", "plain.ckpt"):
            with pytest.raises(UserError, match="not a checkpoint"):
                read_checkpoint(tmp_path / name)

    in_own_process(test)


def test_a_checkpoint_is_read_as_torch_reads_it(tmp_path):
    from lab.training.checkpoint import read_checkpoint

    shared, many = torch.arange(12.0).view(3, 4), torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = OrderedDict(weight=many, number=torch.tensor(3), half=torch.rand(3).bfloat16(), none=torch.empty(0))
    state._metadata = OrderedDict({"": {"version": 1}})
    saved = {
        "state_dict": state,
        "score": shared[1],
        "again": [shared, {"shared": shared.T}],
        "large": 2**40,
        "x": None,
    }
    torch.save(saved, tmp_path / "last.ckpt")
    read = read_checkpoint(tmp_path / "last.ckpt")
    assert read["state_dict"]._metadata == state._metadata and read["large"] == 2**40 and read["x"] is None
    pairs = [(read["state_dict"][name], state[name]) for name in state]
    pairs += [(read["score"], shared[1]), (read["again"][0], shared), (read["again"][1]["shared"], shared.T)]
    for one, other in pairs:
        assert torch.equal(one, other) and one.dtype == other.dtype and one.stride() == other.stride()


@pytest.mark.parametrize("value", [r'"\x24{oc.env:SECRET}"', "'${oc.env:SECRET}'", "{'${seed}': 1}"])
def test_a_configuration_reads_no_secret(folder, refused, monkeypatch, value):
    monkeypatch.setenv("SECRET", "the secret")
    text = (folder / "config.yaml").read_text().replace("name: small_dense", f"name: {value}")
    (folder / "config.yaml").write_text(text)
    assert "it has interpolations" in refused(folder, command="evaluate")


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "a: [" + "1, " * 20_000 + "]", "a: " + "1" * 2**20])
def test_a_configuration_that_grows_is_refused_at_once(folder, refused, text):
    (folder / "config.yaml").write_text(text)
    assert "config.yaml" in refused(folder, command="evaluate")


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "predictions.npz", "last.ckpt"])
def test_a_pipe_and_a_device_are_no_files(folder, refused, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert name in refused(folder, command="evaluate")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert name in refused(folder, command="evaluate")


def test_a_pipe_is_no_data_set(refused, tmp_path):
    os.mkfifo(tmp_path / "X.npy")
    (tmp_path / "Y.npy").symlink_to("/dev/zero")
    files = ("data=npy", f"data.root={tmp_path}", "data.source.images=X.npy", "data.source.labels=Y.npy")
    assert "X.npy: not a" in refused(*files)


def test_the_run_is_as_good_as_before(folder, here):
    accuracy = read_result(folder)["test"]["last"]["accuracy"]
    assert f"Accuracy {accuracy:.2%}" in here("evaluate", folder).out
