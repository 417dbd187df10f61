"""A stranger's run folder does no harm: each attack that once did is planted here, and a thousand more by chance."""

import copy
import json
import os
import pickle
import pprint
import re
import resource
import runpy
import shutil
import signal
import sys
import traceback
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import PROJECT, read_result
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_hostile import CUTS, in_own_process, run, runs, spoil  # noqa: F401

from lab.config.schema import CONF
from lab.errors import DEFECT, UserError


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
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
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


MOST_DATA, SECONDS = 3 * 10**9, 20  # bytes and seconds that a command may take
ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def in_a_copy(command, arguments, place):
    """`COMMAND.py ARGUMENTS` in a copy of this process, capped, in the folder `place`: exit code, stdout, stderr."""
    held = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    if (pid := os.fork()) == 0:
        code = 70
        try:
            most = MOST_DATA + held  # the suite's process may be large already
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            os.chdir(place)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(place.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            sys.argv = [f"{command}.py", *map(str, arguments)]
            runpy.run_path(str(PROJECT / "src" / f"{command}.py"), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int | None) else 1
            print(end.code if code == 1 else "", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code or 0)
    _, status = os.waitpid(pid, 0)
    told = [(place.parent / name).read_text(errors="replace") for name in ("out", "err")]
    return os.waitstatus_to_exitcode(status), *told


def is_well_refused(status, out, err):
    """Its exit code where that is 0, or 1 with one line; None otherwise, or where a terminal would obey it."""
    lines = err.strip().splitlines()
    fine = status == 0 or (status == 1 and len(lines) == 1 and lines[0].startswith("error: "))
    return status if fine and "\x1b]" not in out + err and "\x1b[2J" not in out + err and DEFECT not in err else None


def contents(*places):
    return {path: path.lstat().st_mtime_ns for place in places for path in [place, *place.rglob("*")]}


NUMBERS = st.sampled_from([0, -1, 1e999, float("nan"), 2**31, 2**64, 10**30, 99_999, 0.5, 1e-320, True, 7])
NAMES = ["", "???", "${oc.env:HOME}", "/dev/zero", "/etc", "../..", "a" * 5000, ESCAPE, "os.abort", "lab.models.build"]
NAMES += [
    "torch.optim.swa_utils",
    "torch.optim.Adam",
    "lab.datasets.npy",
    "lab.models.hog",
    "ddp",
    "gpu",
    "16-mixed",
    "5",
]
WORDS = st.sampled_from(NAMES)
HOSTILE = (
    st.none() | NUMBERS | WORDS | st.recursive(st.just([]) | st.just({}), lambda inner: st.lists(inner, max_size=3))
)
HOSTILE |= st.dictionaries(st.sampled_from(["_target_", "a", "0", ESCAPE]), WORDS | NUMBERS, max_size=2)
HOSTILE |= st.sampled_from([[[1] * 200] * 40, ["x"] * 200_000, list(range(999))])


def spots(node, path=()):
    """The place of every value in dicts and lists."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from spots(value, (*path, key))


def change(content, draw, values):
    """One to three of its values to hostile ones, or away; or a key more."""
    for _ in range(draw(st.integers(1, 3))):
        places = list(spots(content))
        if not places:
            return
        *path, last = draw(st.sampled_from(places))
        holder = content
        for key in path:
            holder = holder[key]
        what = draw(st.integers(0, 5))
        if what == 0:
            del holder[last]
            continue
        if what == 1 and isinstance(holder, dict):
            last = draw(st.sampled_from(["_target_", "plugins", "callbacks", "devices", "num_nodes", "weights"]))
        holder[last] = copy.deepcopy(draw(values))


TENSORS = st.sampled_from(
    [torch.rand(3), torch.rand(0), torch.zeros(5, 5).long(), torch.full((), float("nan")), torch.rand(300)]
)


def spoil_a_run(folder, outside, draw):
    """What was done to it."""
    kind = draw(st.sampled_from(["bytes", *3 * ["config"], "result", *2 * ["checkpoint"], "other", "arrays"]))
    files = ["config.yaml", "result.json", "predictions.npz", "last.ckpt", "best.ckpt"]
    name = draw(st.sampled_from(files))
    if kind == "bytes":
        (folder / name).write_bytes(spoil((folder / name).read_bytes(), draw(CUTS)))
    elif kind == "config":
        content = yaml.safe_load((folder / "config.yaml").read_text())
        change(content, draw, HOSTILE)
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
    elif kind == "result":
        content = json.loads((folder / "result.json").read_text())
        change(content, draw, HOSTILE)
        (folder / "result.json").write_text(json.dumps(content))
    elif kind == "checkpoint":
        content = torch.load(folder / "last.ckpt", weights_only=True)
        change(content, draw, HOSTILE | TENSORS)
        torch.save(content, folder / "last.ckpt")
    elif kind == "arrays":
        with np.load(folder / "predictions.npz") as arrays:
            content = dict(arrays)
        content[draw(st.sampled_from(sorted(content)))] = np.array(draw(NUMBERS | WORDS))
        np.savez(folder / "predictions.npz", **content)
    else:
        name = draw(st.sampled_from(files))
        kind = draw(st.sampled_from(["link", "zero", "pipe", "folder", "sparse", *BOMBS]))
        (folder / name).unlink()
        if kind in BOMBS:
            pack(folder / name, BOMBS[kind], **{"0": bytes(4)})
        elif kind == "sparse":
            with (folder / name).open("wb") as file:
                file.truncate(10**11)
        elif kind == "pipe":
            os.mkfifo(folder / name)
        elif kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to("/dev/zero" if kind == "zero" else outside / "thesis.txt")
    return kind, name


PARTS = [pytest.param(part, 200, marks=pytest.mark.slow) for part in range(1, 6)]


def many(part, examples, strategy, test):
    options = {
        "deadline": None,
        "database": None,
        "phases": [Phase.generate],
        "suppress_health_check": list(HealthCheck),
    }
    seed(part)(settings(max_examples=examples, **options)(given(strategy)(test)))()


@pytest.mark.parametrize(("part", "examples"), [(0, 6), *PARTS])
def test_a_hostile_run_folder_is_one_line_and_touches_nothing_else(run, data_root, tmp_path, part, examples):  # noqa: F811
    outside, counted = tmp_path / "outside", {0: [], 1: [], None: []}
    outside.mkdir()
    (outside / "thesis.txt").write_text("mine")
    (tmp_path / "new data").mkdir()

    def test(data):
        folder = outside.parent / "place" / "run"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(run, folder)
        words = data.draw(st.sampled_from(["evaluate", "evaluate", "show", "compare", "train", "train", "export"]))
        did = spoil_a_run(folder, outside, data.draw)
        arguments = {"compare": [folder, run], "train": [f"resume={folder}"]}.get(words, [folder])
        if words == "train":
            (folder / "result.json").rename(folder / "away.json")
        before = contents(outside, data_root, run, tmp_path / "new data")
        told = in_a_copy(words, arguments, folder.parent)
        counted[is_well_refused(*told)].append((words, did, told))
        assert contents(outside, data_root, run, tmp_path / "new data") == before, (words, did)

    many(part, examples, st.data(), test)
    print(f"part {part}: {len(counted[1])} refused, {len(counted[0])} harmless")
    assert not counted[None], pprint.pformat(counted[None])


FLAGS = [
    "-cd",
    "-cp",
    "-cn",
    "--cfg",
    "--cfg=nope",
    "--info=nope",
    "--info",
    "-m",
    "--package",
    "-p",
    "--resolve",
    "-sc",
]
FLAGS += [
    "--experimental-rerun",
    "--experimental-rerun=config.yaml",
    "--config-dir=nowhere",
    "--run",
    "--hydra-help",
    "-h",
]
TYPED = [
    "99999999999999999999",
    "1e999",
    "-1e999",
    "nan",
    "true",
    "null",
    "???",
    "''",
    "[]",
    "{}",
    "[1,2]",
    "{a:1}",
    "{_target_:os.abort}",
]
TYPED += [
    "torch.optim.swa_utils",
    "os.abort",
    "os.system",
    "${seed}",
    "${oc.env:HOME}",
    "${nope}",
    "-1",
    "0",
    "99999",
    "1e-320",
    "5",
]
TYPED += [
    "a/" * 1500,
    "a" * 300,
    "/dev/null",
    "/proc/x",
    ESCAPE,
    "x\\",
    "'",
    '"',
    "(",
    "1,2",
    "range(5)",
    "glob(*)",
    "gpu",
    "ddp",
    "null,",
]
GIVEN = [
    "data=mnist",
    "data.source.md5=null",
    "data.validation=0.1",
    "model=small_dense",
    "model.epochs=1",
    "+trainer.max_time=00:00:00:05",
]


def keys():
    told = [
        "hydra.run.dir",
        "hydra.job.name",
        "hydra.mode",
        "hydra/launcher",
        "hydra.sweep.dir",
        "hydra.verbose",
        "hydra",
        "nope",
    ]
    told += [
        "+hydra.callbacks.a",
        "trainer.model_registry",
        "trainer.plugins",
        "trainer.strategy",
        "model",
        "data",
        "trainer",
        "schedule",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["schedule=one_cycle"])
    return [*told, *(".".join(map(str, path)) for path in spots(OmegaConf.to_container(config)))]


@pytest.mark.parametrize(("part", "examples"), [(0, 10), *PARTS])
def test_a_wrong_override_is_one_line(data_root, tmp_path, monkeypatch, part, examples):
    from lab.training import train  # noqa: F401, for all copies

    monkeypatch.setenv("LAB_DATA", str(data_root))
    known, counted = keys(), {0: [], 1: [], None: []}
    override = st.builds(
        "{}{}={}".format, st.sampled_from(["", "", "", "+", "++"]), st.sampled_from(known), st.sampled_from(TYPED)
    )
    override |= st.builds("~{}".format, st.sampled_from(known)) | st.sampled_from(FLAGS)
    override |= st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)

    def test(words):
        place = tmp_path / "place" / "here"
        shutil.rmtree(place.parent, ignore_errors=True)
        place.mkdir(parents=True)
        before = contents(data_root)
        told = in_a_copy("train", [*GIVEN, *words], place)
        counted[is_well_refused(*told)].append((words, told))
        assert contents(data_root) == before, words

    many(part, examples, st.lists(override, min_size=1, max_size=2), test)
    print(f"part {part}: {len(counted[1])} refused, {len(counted[0])} accepted")
    assert not counted[None], pprint.pformat(counted[None])
