"""Searches of train.py: the same trials again, whatever happens to them, and no luck told as an improvement."""

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import PROJECT, SMALL_MNIST, read_csv, read_result

TINY = (*SMALL_MNIST, "model=small_dense", "model.epochs=1", "data.validation=0.3")
RATES, SIZES = "model.optimizer.lr=interval(1e-4,1)", "model.batch_size=choice(64,16,32)"
SEARCH = ("-m", "hydra/launcher=basic", "hydra.sweep.dir=sweep", *TINY, RATES, SIZES)
PICTURES = {"best_so_far", "slices", "importances", "confirmed"}


def trials(folder):
    """What each was told, by its number."""
    return {path.parent.name: json.loads(path.read_text())["values"] for path in folder.glob("trial_*/trial.json")}


def test_a_search_ends_in_a_verdict_and_the_same_command_finishes_it_to_the_same_trials(train_here, refused, tmp_path):
    sweep = tmp_path / "sweep"
    told = train_here(*SEARCH, "search=7", "confirm=2").out
    verdict, rows = json.loads((sweep / "verdict.json").read_text()), read_csv(sweep / "sweep.csv")
    assert len(rows) == 7 and not any("test" in name for name in rows[0])
    assert len({(row["model.optimizer.lr"], row["model.batch_size"]) for row in rows}) == 7
    assert all(1e-4 <= float(row["model.optimizer.lr"]) <= 1 for row in rows)
    assert verdict["sentence"] in told and "the recipe" in verdict["sentence"]
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    seeds = [read_result(sweep / f"confirm_{best['folder']}_seed{seed}") for seed in (2, 3)]  # not the search's own
    confirmed = sum(result["validation"]["last"]["accuracy"] for result in seeds) / 2
    assert verdict["settings"][1]["confirmed"] == pytest.approx(100 * confirmed)
    assert verdict["settings"][1]["searched"] == pytest.approx(100 * float(best["val_accuracy"]))
    assert {path.stem for path in sweep.glob("*.png")} >= PICTURES
    assert len({path.parent for path in sweep.glob("trial_*/events*")}) == 7
    before, bits = trials(sweep), read_result(sweep / "trial_007")["validation"]
    for left in ("result.json", "trial.json"):  # as if it had been killed before it knew its values
        (sweep / "trial_007" / left).unlink()
    kept = (sweep / "trial_003" / "result.json").stat().st_mtime_ns
    again = train_here(*SEARCH, "search=8", "confirm=0").out
    assert "8 trials, 2 to run" in again
    assert (sweep / "trial_003" / "result.json").stat().st_mtime_ns == kept
    assert trials(sweep).items() > before.items() and read_result(sweep / "trial_007")["validation"] == bits
    assert not (sweep / "verdict.json").exists()  # it was of seven
    assert "a search: its verdict.json says what it found" in refused(sweep, sweep, command="compare")


def test_jobs_that_start_in_another_order_than_launched_take_the_trials_in_theirs(tmp_path):
    from lab.experiments.search import take_next

    with take_next(tmp_path / "trial_005") as first, take_next(tmp_path / "trial_006") as second:
        assert (first.name, second.name) == ("trial_001", "trial_002")
        (first / "trial.json").write_text("{}")  # it has begun
    with take_next(tmp_path / "trial_001") as third:
        assert third == second


def test_a_trial_that_fails_is_told_and_the_others_go_on(here, capfd, tmp_path):
    with pytest.raises(SystemExit, match="jobs failed"):
        here("train", *SEARCH[:-2], "model.optimizer.lr=0.001,1e30", "model.batch_size=32,64", "search=3", "confirm=0")
    told = capfd.readouterr()
    failed = told.err.count(" of epoch 1, at a learning rate of ")
    assert failed and told.out.count("failed: trial_") == failed
    assert len(read_csv(tmp_path / "sweep" / "sweep.csv")) == 3


def test_where_the_best_trials_fail_again_the_recipe_is_not_called_the_best():
    from lab.experiments.confirm import Contender, _compare, _judge

    def job(seed, accuracy):
        scores = {"last": {"accuracy": accuracy}}
        result = accuracy and {"validation": scores, "test": scores}
        return SimpleNamespace(values={"seed": seed}, folder=Path("nowhere"), result=lambda: result)

    recipe = Contender("the recipe", [], [job("2", 0.9), job("3", 0.9)])
    failed = Contender("lr=1", ["lr=1"], [job("2", 0.95), job("3", None)], 99.0)
    _compare([recipe, failed], "accuracy", 0.0)
    (told,), chosen = _judge([recipe, failed], "accuracy", "seed", 20)
    assert told.startswith("No verdict: ") and chosen is None
    told, chosen = _judge([recipe], "accuracy", "seed", 20)
    assert "the recipe is its best" in told[0] and chosen is recipe
    poor = Contender("lr=1", ["lr=1"], [job("2", 0.9), job("3", 0.91)], 80.0)
    _compare([recipe, poor], "accuracy", 0.0)
    assert "nothing better than the recipe. lr=1, on" in _judge([recipe, poor], "accuracy", "seed", 20)[0][0]


def test_a_trial_below_the_others_stops_and_says_so(train_here, tmp_path):
    from lab.experiments.knobs import Known
    from lab.experiments.propose import find_bars

    known = [Known({}, {1: score, 2: score + 0.1}) for score in (0.2, 0.3, 0.4, 0.5, 0.6)]
    known += [Known({}, {1: 0.1}, is_whole=False), Known({}, {})]  # one was stopped, one has failed
    assert find_bars(known, 3) == [0.35, 0.5] and find_bars(known[:3], 3) == []
    run = ("model.epochs=3", "model.optimizer.lr=1e-9", "hydra.run.dir=run")
    told = train_here(*TINY, *run, "stop_below=[0.0,0.99]").out
    assert "stop_below: stopped after epoch 2 of 3: no validation score of 99.00% so far" in told
    assert read_result(tmp_path / "run")["pruned"] and read_result(tmp_path / "run")["epochs"] == 2


def test_what_is_proposed_follows_from_what_is_known_and_avoids_what_was_bad():
    from lab.experiments.knobs import Knob, Known
    from lab.experiments.propose import propose

    knobs = [Knob("rate", 1e-4, 1.0), Knob("size", choices=("16", "32", "64")), Knob("units", 8, 64, is_whole=True)]
    known, drawn = [], {}
    for seed in (1, 2):
        known = []
        for _ in range(20):
            values = propose(knobs, seed, known)
            assert values == propose(knobs, seed, known) and values not in [one.values for one in known]
            known.append(Known(values, {1: 1 - abs(float(values["rate"]) - 0.01)} if len(known) % 7 else {}))
        drawn[seed] = [float(one.values["rate"]) for one in known]
    assert drawn[1] != drawn[2]
    for rates in drawn.values():
        assert sum(rate < 0.1 for rate in rates[6:]) > 9 and max(rates[:6]) > 0.1
    few = [Knob("a", choices=("1", "2")), Knob("b", choices=("x", "y"))]
    known = []
    for _ in range(4):  # all combinations, each once
        known.append(Known(propose(few, 1, known), {1: 0.5}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([RATES], "a range is searched: add search=20"),
        ([RATES, "search=0"], "search=0: must be from 2 to 10,000 trials"),
        ([RATES, "search=few"], "search"),
        (["search=20"], "search=20: among what? give a range"),
        (["search=20", "model.optimizer.lr=interval(1,1e-4)"], "its ends are wrong: the lower one first"),
        (["search=20", "model.optimizer.lr=interval(-1,1)"], "model.optimizer.lr=-1.0: must be a number above 0"),
        (["search=20", "model.label_smoothing=interval(0.1,2)"], "model.label_smoothing=2.0: must be between 0 and 1"),
        (["search=20", "model.batch_size=choice(32)", RATES], "a choice of one"),
        (["search=20", "model.optimizer.lr=interval(a,1)"], "its ends must be numbers"),
        (["search=20", "model=interval(1,2)"], "model is no number: give a choice"),
        (["search=20", "model.name=interval(1,2)"], "model.name is no number"),
        (["search=20", "model.optimiser.lr=interval(1e-4,1)"], "there is no such key"),
        (["search=20", "seed=1,2,3", RATES], "the best of it would be the luckiest"),
        (["search=20", "model.batch_size=16,32,64"], "there are 3 combinations only: leave out search="),
        (["search=20", "model.epochs=interval(1,4)", "model.batch_size=16,32"], "there are 8 combinations only"),
        (["search=20", "model.optimizer.lr=interval(0.1,0.101)"], "there are 11 combinations only"),
        (["search=20", RATES, "confirm=1"], "confirm=1: must be 0, or from 2 to 1,000 seeds"),
        (["search=20", RATES, "data.folds=5", "confirm=3"], "with data.folds=5 the other folds confirm"),
        (["search=20", RATES, "report=true"], "report=true: a search has no page"),
        (["search=20", RATES, "data.validation=0"], "looks at the validation part: there is none"),
        (["seed=1,2", "prune=true", "model.optimizer.lr=0.1"], "prune=true is of a search"),
    ],
)
def test_a_search_without_sense_is_one_line(refused, tmp_path, arguments, message):
    assert message in refused("-m", *TINY, "hydra/launcher=basic", *arguments)
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize("command", ["train", "cross_validate"])
def test_a_search_is_a_sweep_of_train(refused, command):
    assert "search=20 is of a sweep of train.py" in refused(*SMALL_MNIST, "search=20", command=command)
    assert "a range is searched, with -m search=20" in refused(*SMALL_MNIST, RATES, command=command)


def test_a_preset_searches_the_usual_three_and_has_no_page(train_here, refused, capfd, tmp_path):
    small = (*SMALL_MNIST, "model.epochs=1", "trainer.limit_train_batches=1", "hydra/launcher=basic")
    told = train_here("+sweep=search", *small, "model=small_dense", "search=2", "confirm=0").out
    assert "2 trials, 2 to run" in told and "weight decay" in told
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.startswith("search_weight_decay_batch_size_lr_small_dense-mnist_")
    assert "a search has no page" in refused(folder, command="report")
    given = ("search=2", "confirm=0", "+model.optimizer.weight_decay=0.001")
    with pytest.raises(SystemExit, match="jobs failed"):  # what is searched shows even where each trial is refused
        train_here("+sweep=search", *small, "model=small_dense", *given, "trainer.precision=99")
    told = capfd.readouterr().out
    assert "2 trials, 2 to run" in told and "weight decay" not in told


def test_optuna_is_imported_in_a_search_alone():
    for path in (PROJECT / "src").rglob("*.py"):
        names = [node.module for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert "lab.experiments.propose" not in names, path
        assert path.name == "propose.py" or not any(name.startswith("optuna") for name in names), path


@pytest.mark.slow
def test_a_search_killed_ten_times_ends_in_the_trials_of_one_that_was_not(data_root, tmp_path):
    script, moments = PROJECT / "src" / "train.py", random.Random(1)
    rates = RATES.replace(",1)", ",0.1)")  # none of them diverges
    command = [sys.executable, script, "-m", *TINY, "model=small_conv", "model.epochs=2", rates, SIZES, "search=12"]
    command += ["confirm=2", "hydra.launcher.n_jobs=2"]
    environment = os.environ | {"LAB_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    subprocess.run([*command, "hydra.sweep.dir=whole"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    took, kept = time.monotonic() - started, {}
    for _ in range(10):
        process = subprocess.Popen(
            [*command, "hydra.sweep.dir=killed"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0.1, 0.6) * took)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.5)  # its workers end with it
        for path, written in kept.items():
            assert path.stat().st_mtime_ns == written, f"{path}: trained twice"
        results = (tmp_path / "killed").glob("*/result.json")
        kept = {path: path.stat().st_mtime_ns for path in results}
    subprocess.run([*command, "hydra.sweep.dir=killed"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert trials(killed) == trials(whole) and len(trials(whole)) == 12
    names = {path.parent.name for path in whole.glob("*/result.json")}
    assert names == {path.parent.name for path in killed.glob("*/result.json")}
    for name in names:
        assert read_result(killed / name)["validation"] == read_result(whole / name)["validation"], name
    assert json.loads((killed / "verdict.json").read_text()) == json.loads((whole / "verdict.json").read_text())


LOTTERY = """
import torch
from torch.nn import Flatten, Linear, Sequential


def lottery(classes, ticket=0.5):
    '''Each ticket draws other first weights, with each seed others: none is better.'''
    torch.manual_seed(int(torch.initial_seed() + 1e6 * ticket) % 2**32)
    return Sequential(Flatten(), Linear(784, classes))
"""


@pytest.mark.slow
def test_what_does_nothing_is_called_nothing_in_18_of_20_searches(train_here, tmp_path):
    (tmp_path / "lottery.py").write_text(LOTTERY)
    own = ("networks=lottery.py", "model=lottery", "+model.net.ticket=interval(0,1)", "model.scale=255")
    nothing = 0
    for seed in range(1, 21):
        folder = tmp_path / f"search_{100 * seed}"
        more = (f"seed={100 * seed}", "search=10", f"hydra.sweep.dir={folder}")
        train_here("-m", "hydra/launcher=basic", *TINY[:3], *own, "model.epochs=1", *more)
        verdict = json.loads((folder / "verdict.json").read_text())
        nothing += verdict["chosen"] == "the recipe"
    print(f"{nothing} of 20 searches found nothing")
    assert nothing >= 18
