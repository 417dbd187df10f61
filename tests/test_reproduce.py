"""The published tables again: rows of them on small data, what a second start runs, what stays in RESULTS.md."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT, read_csv, read_result
from omegaconf import OmegaConf

from lab.config.schema import CONF
from lab.errors import UserError
from lab.experiments.keras_beside import beside, read_scores

SMALL = "+table.common='data.source.md5=null model.epochs=1 model.batch_size=50'"


@pytest.fixture
def reproduce(here):
    return lambda *arguments: here("reproduce", SMALL, "hydra.run.dir=out", "workers=1", *arguments)


def runs(folder):
    return read_csv(folder / "published.csv")


def test_two_rows_end_in_a_table_beside_what_was_published(reproduce, here, tmp_path):
    told = reproduce("rows=[C1,D1]", "seeds=2").out
    assert "2 rows, 4 runs, 4 to do" in told and told.index("**Margin.**") < told.index("4 to do")
    lines = runs(tmp_path / "out")
    assert [line["row"] for line in lines] == ["C1"] * 2 + ["D1"] * 2
    for line in lines:
        assert float(line["accuracy"]) == read_result(tmp_path / "out" / line["folder"])["test"]["last"]["accuracy"]
    scores = [float(line["accuracy"]) * 100 for line in lines[:2]]
    mean = sum(scores) / 2
    spread = sum((score - mean) ** 2 for score in scores) ** 0.5
    table = (tmp_path / "out" / "table.md").read_text()
    (row,) = re.findall(r"^\| C1 \|.*$", table, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:5] == ["small_dense", "104,938", "97.57", f"{mean:.2f} ± {spread:.2f}"]
    assert cells[6] == "-" and cells[7].startswith("not yet run (2 of 5 seeds)")
    findings = table.partition("### The rows")[2].count("\n- **")
    left_out, of = map(int, re.search(r"Left out, .*: (\d+) of (\d+) findings", table).groups())
    assert left_out + findings == of and findings < left_out  # those of the rows that have run are told
    assert (tmp_path / "out" / "published.png").exists()
    assert not (tmp_path / "RESULTS.md").exists()  # of all rows only
    (tmp_path / "out" / "keras.csv").write_text("row,seed,accuracy,seconds\nE6,1,68.25,3.1\n")
    here("report", "out")
    assert "Published and measured" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    again = reproduce("rows=[C1,D1]", "seeds=2").out
    assert "4 runs, 0 to do" in again and row.split("|")[5].strip().partition(" ")[0] in again


def test_another_machines_runs_count_as_done_where_recipe_and_images_are_the_same(reproduce, here, tmp_path):
    reproduce("rows=[C1]", "seeds=2")
    first, other = tmp_path / "out", tmp_path / "elsewhere"
    (first / "keras.csv").write_bytes(b"row,seed,accuracy,seconds\r\nC1,1,98.25,3.1\r\nE6,1,68.25,3.1\r\n")
    words = [SMALL, "rows=[C1]", "workers=1", "hydra.run.dir=elsewhere", "earlier=out/published.csv"]
    told = here("reproduce", *words, "seeds=2").out
    assert "Known from out/published.csv: 2 runs\n1 rows, 2 runs, 0 to do" in told
    for name in ("table.md", "published.csv"):
        assert (other / name).read_bytes() == (first / name).read_bytes()
    assert not list(other.glob("C1*")) and not (other / "keras.csv").exists()  # only E6, E8 and E9 have Keras beside
    here("reproduce", *words, "seeds=2", "+table.rows.C1.keras=true")
    assert read_scores(other, "C1") == [98.25] and read_scores(other, "E6") == []
    assert "2 runs, 2 to do" in here("reproduce", *words, "seeds=2", "table.rows.C1.run='model=small_dense seed=9'").out
    path = first / "published.csv"
    line, _ = runs(first)
    path.write_text(path.read_text().replace(line["sha256"], "0" * 64, 1))
    told = here("reproduce", *words, "seeds=2", "hydra.run.dir=third").out
    assert f"1 runs; 1 are not taken, of other images than here: {line['folder']}" in told
    assert [line["accuracy"] for line in runs(tmp_path / "third")] == [line["accuracy"] for line in runs(first)]


def test_where_the_images_are_gone_nothing_is_taken_and_the_row_says_why(here, tmp_path, data_root):
    common = "+table.common='model.epochs=1 model.batch_size=50 data.root={}'"
    words = ("rows=[E1]", "~table.rows.E1-255", "seeds=1", "workers=1")
    here("reproduce", *words, common.format(data_root), "hydra.run.dir=out")
    assert len(runs(tmp_path / "out")) == 1
    with pytest.raises(SystemExit, match=r"error: E1: could not be run"):
        here("reproduce", *words, common.format(tmp_path), "hydra.run.dir=elsewhere", "earlier=out/published.csv")
    assert "not run; " in (tmp_path / "elsewhere" / "table.md").read_text()


WHOLE = "accuracy,loss,images,train_accuracy,epochs,parameters,seconds,machine,data,sha256,folder\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "earlier=old.csv: .*old.csv"),
        ("row,seed\nA1,1\n", "old.csv: earlier= wants the CSV file of a table, with the columns of docs/published.csv"),
        (WHOLE + "high,1,1,1,1,1,1,x,mnist,0,A1\n", "earlier=old.csv: could not convert string to float: 'high'"),
        (WHOLE + "nan,1,1,1,1,1,1,x,mnist,0,A1\n", "earlier=old.csv: accuracy of A1 cannot be nan"),
        (WHOLE + "0.9,0,1,1,1,1,1,x,mnist,0,A1\n", "earlier=old.csv: loss of A1 cannot be 0"),
        (WHOLE.encode() + b"\xe9", "old.csv: not a table in UTF-8"),
    ],
)
def test_an_earlier_table_that_is_none_is_refused(refused, tmp_path, content, told):
    if content:
        (tmp_path / "old.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(told, refused("rows=[C1]", "earlier=old.csv", "hydra.run.dir=out", command="reproduce"))
    assert not list(tmp_path.glob("out/C1*"))


@pytest.mark.slow
def test_folds_are_a_row_with_the_spread_over_folds(reproduce, tmp_path):
    reproduce("rows=[A1]")
    folds = [float(line["accuracy"]) * 100 for line in runs(tmp_path / "out")]
    assert [line["fold"] for line in runs(tmp_path / "out")] == list("01234")
    mean = sum(folds) / 5
    spread = (sum((score - mean) ** 2 for score in folds) / 5) ** 0.5
    assert f"| {mean:.2f} ± {spread:.2f} | 1 |" in (tmp_path / "out" / "table.md").read_text()
    told = reproduce("rows=[A1]", "hydra.run.dir=elsewhere", "earlier=out/published.csv").out
    assert "published.csv: 5 runs\n" in told and "5 runs, 0 to do" in told  # each fold has parts of its own


@pytest.mark.slow
def test_the_whole_ladder_goes_into_the_results_and_leaves_the_rest(here, tmp_path):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## Ladder\n\nold\n\n## Speed\n\nfast\n")
    common = SMALL.removeprefix("+").replace("epochs=1", "epochs=1 data.validation=0.1")
    told = here("reproduce", "ladder", common, "hydra.run.dir=out", "workers=1", "seeds=2", f"results={results}").out
    assert "7 rows, 14 runs, 14 to do" in told
    text = results.read_text()
    assert "old" not in text and text.endswith("## Speed\n\nfast\n") and text.count("## ") == 2
    assert re.search(r"\| deep \| 159,254 \| [\d.]+ ± [\d.]+ \| 2 \| baseline \| [+-][\d.]+ \(", text)
    assert (tmp_path / "docs" / "ladder.png").exists() and (tmp_path / "docs" / "ladder.csv").exists()


def test_a_row_that_cannot_run_says_why(here, tmp_path):
    with pytest.raises(SystemExit, match=r"error: E10: could not be run"):
        here("reproduce", "rows=[E10]", "seeds=1", "workers=1", "hydra.run.dir=out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert "not run; the ImageNet weights" in table and "published.png" not in table
    assert not (tmp_path / "out" / "published.png").exists()
    here("report", "out")
    assert "Published and measured" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_runs_on_a_sample_are_marked_and_run_again(here, tmp_path):
    common = "+table.common='data.root=null model.epochs=1 model.batch_size=500'"
    alone = ("seeds=1", "workers=1", "hydra.run.dir=out")
    for _ in ("first", "again"):
        told = here("reproduce", "ladder", common.removeprefix("+"), "rows=[dense]", *alone).out
        assert "1 runs, 1 to do" in told and "what it buys" in told
    assert "Some of it on a sample" in (tmp_path / "out" / "table.md").read_text()


def test_keras_has_what_lies_beside_its_script(tmp_path, monkeypatch):
    place = tmp_path / "src" / "yardsticks"
    place.mkdir(parents=True)
    (place / "scores.py").write_text("LINE = '1,0.75,2.0'")
    (place / "keras_scores.py").write_text("from scores import LINE\n\nprint(LINE)")
    monkeypatch.setattr("lab.experiments.keras_beside.PROJECT", tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as for our own processes
    with beside(sys.executable, {"E6": 1}, tmp_path):
        pass
    assert read_scores(tmp_path, "E6") == [0.75]


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ('echo Epoch; echo "$4,68.25,3.1"', ""),
        ('echo "$4,168.25,3.1"', "E6 /data 1 ends in '1,168.25,3.1', not in 1,PERCENT,SECONDS"),
        ('echo "1/1 done"', "E6 /data 1 ends in '1/1 done', not in 1,PERCENT,SECONDS"),
        ("true", "E6 /data 1 ends in 'nothing', not in 1,PERCENT,SECONDS"),
        ("echo no Keras >&2; false", "E6 /data 1 has failed, no Keras"),
    ],
)
def test_what_keras_prints_is_a_score_or_told_with_its_command(tmp_path, monkeypatch, does, told):
    monkeypatch.setenv("LAB_DATA", "/data")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{does}\n")
    python.chmod(0o755)
    ends = pytest.raises(UserError, match=f"^keras={python}: {python} .*{re.escape(told)}$")
    with ends if told else contextlib.nullcontext(), beside(str(python), {"E6": 2}, tmp_path):
        pass
    assert read_scores(tmp_path, "E6") == ([] if told else [68.25, 68.25])
    for seed in ("one", "1" * 200_000):  # longer than a cell of a CSV file may be
        (tmp_path / "keras.csv").write_text(f"row,seed,accuracy,seconds\nE6,{seed},68.25,3\n")
        with pytest.raises(UserError, match="is damaged: delete it, and Keras is trained anew"):
            read_scores(tmp_path, "E6")


def test_keras_trains_as_many_seeds_as_we_do(refused, monkeypatch):
    asked = []

    def stopped(python, seeds, folder):
        asked.append(seeds)
        raise UserError("enough")

    monkeypatch.setattr("lab.experiments.reproduce.beside", stopped)
    assert "enough" in refused("rows=[E1,E6,E8]", "seeds=2", "hydra.run.dir=out", command="reproduce")
    assert asked == [{"E6": 2, "E8": 2}]


@pytest.mark.parametrize(
    "wrong", ["rows=[Z9]", "rows=[]", "seeds=0", "workers=0", "table=lab", "row=[A1]", "data.root=/x"]
)
def test_wrong_options_are_refused(refused, tmp_path, wrong):
    told = refused(wrong, "hydra.run.dir=out", command="reproduce")
    assert wrong.partition("=")[0] in told and "mean 'data.root" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_stopped_it_shows_what_there_is_and_goes_on_with_what_is_missing(here, tmp_path, data_root):
    words = [SMALL.replace("epochs=1", "epochs=15"), "rows=[C1,D1]", "seeds=2", "hydra.run.dir=out", "workers=1"]
    command = [sys.executable, PROJECT / "src" / "reproduce.py", *words]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"LAB_DATA": str(data_root)}, **pipes)
    while not list(tmp_path.glob("out/*/result.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "error: interrupted: the same command goes on" in process.communicate()[1]
    assert (tmp_path / "out" / "table.md").exists()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/result.json")}
    assert 1 <= len(finished) < 4
    assert f"4 runs, {4 - len(finished)} to do" in here("reproduce", *words).out
    assert len(list(tmp_path.glob("out/*/result.json"))) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


@pytest.mark.parametrize(
    "table", [pytest.param("labs", marks=pytest.mark.slow), "ladder", "ladder_photos", "precision"]
)
def test_every_row_of_a_table_is_a_recipe_that_can_be_built(table):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from lab.training.prepare import build_classifier

    content = OmegaConf.load(CONF / "table" / f"{table}.yaml")
    for name, row in content.rows.items():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            words = [*row.run.split(), *content.get("common", "").split()]
            config = compose("train", words, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        assert row.get("against", name) in content.rows
        if "folds" in row:
            assert row.published == pytest.approx(sum(row.folds) / len(row.folds), abs=6e-4)
        if config.model.name not in ("alexnet_224", "resnet50", "efficientnet_lite0"):  # large
            shape = (3, 32, 32) if config.data.name == "cifar4" else (1, 28, 28)
            build_classifier(config, shape, len(config.data.classes))


def test_a_finding_speaks_of_rows_that_there_are():
    content = OmegaConf.load(CONF / "table" / "labs.yaml")
    told = [re.split(" minus | ", each) for text in content.findings for each in re.findall(r"\{([^}]+)\}", text)]
    named = {name for each in told for name in each} - {"range", "medical", "loss"}
    assert len(named) > 20 and named <= set(content.rows)


@pytest.mark.parametrize(("command", "key"), [("reproduce", "rows=[A1,D4]"), ("check_data", "data.root=")])
def test_help_names_the_commands_own_keys(here, command, key):
    told = here(command, "--help").out
    assert key in told and "model" not in told


@pytest.mark.slow
def test_a_row_forced_to_be_wrong_is_never_equivalent(reproduce, tmp_path):
    """With a rate at which nothing is learned."""
    wrong = "table.rows.C1.run='model=small_dense data.validation=0 model.optimizer.lr=1e-9'"
    reproduce("rows=[C1]", "seeds=5", wrong)
    table = (tmp_path / "out" / "table.md").read_text()
    (row,) = re.findall(r"^\| C1 \|.*$", table, re.MULTILINE)
    assert re.search(r"\| (different|undecided)", row)
    assert re.match(r"- \*\*0 equivalent\*\*, of \d+ published accuracies", table)
