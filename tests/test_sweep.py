"""Sweeps of train.py: the table they end in, what the same command does again, where their jobs run."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PROJECT, SMALL_MNIST, read_csv, read_result
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lab.runs.predictions import Predictions
from lab.training.checkpoint import AtomicCheckpoints
from lab.training.result import print_end

FAST = (*SMALL_MNIST, "model=small_dense", "model.epochs=1", "model.batch_size=50")
HERE = ("-m", "hydra/launcher=basic", "hydra.sweep.dir=sweep")
RATES = "model.optimizer.lr=0.01,0.001"


def rows(folder):
    return read_csv(folder / "sweep.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("swept")


@pytest.fixture
def swept(place, train_here):
    """A finished sweep of RATES: what it told, and its folder."""
    if not (place / "told").exists():
        (place / "told").write_text(train_here(*HERE[:2], f"hydra.sweep.dir={place / 'sweep'}", *FAST, RATES).out)
    return (place / "told").read_text(), place / "sweep"


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def are_same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_sweep_ends_in_a_table_a_winner_and_its_command(swept, train_here):
    told, folder = swept
    first, second = rows(folder)
    results = [read_result(folder / row["folder"]) for row in (first, second)]
    for row, result in zip((first, second), results, strict=True):
        assert float(row["val_accuracy"]) == result["validation"]["last"]["accuracy"]
        assert float(row["test_loss"]) == result["test"]["last"]["loss"]
    assert [first["model.optimizer.lr"], second["model.optimizer.lr"]] == ["0.01", "0.001"]
    best = max((first, second), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    rate = best["model.optimizer.lr"]
    assert f"Best by validation accuracy: lr={rate}," in told
    assert "test" not in told.partition("┏")[2].partition("┘")[0]  # not for choosing
    assert f"lr={rate}: validation accuracy {float(best['val_accuracy']) * 100:.3f} %, " in told
    again = train_here(*HERE[:2], f"hydra.sweep.dir={folder}", *FAST, RATES, "show_test=true").out
    assert "test" in again.partition("┏")[2].partition("┘")[0]
    assert told.index(f" {rate} │") < told.index(" 0.001 │" if rate == "0.01" else " 0.01 │")
    assert " learning rate " in told
    assert f"lies at the edge of your grid: extend to {'0.1' if rate == '0.01' else '0.0001'}." in told
    assert f"python src/train.py model=small_dense data=mnist {' '.join(SMALL_MNIST[1:])}" in told
    assert (folder / "sweep.png").exists()
    assert "epoch 1/1" in (folder / best["folder"] / "train.log").read_text()


@pytest.mark.parametrize(
    ("call", "goes_on"), [(1, ""), (3, ": the same command goes on with the jobs that are missing")]
)
def test_ctrl_c_in_a_library_that_raises_another_error_on_it_is_told_as_ctrl_c(refused, monkeypatch, call, goes_on):
    calls, compose = [], ConfigLoaderImpl.load_sweep_config

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) < call:
            return compose(*arguments)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise AttributeError("half copied")

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", stopped)
    monkeypatch.setattr("lab.errors._interrupts", [])
    assert refused(*HERE, *FAST, RATES) == f"error: interrupted{goes_on}"


def test_the_winners_command_gives_the_winners_bits(swept, train_here, tmp_path):
    told, folder = swept
    command = next(line for line in told.splitlines() if line.startswith("Train it again: ")).split()[5:]
    train_here(*command, "hydra.run.dir=again")
    best = max(rows(folder), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert are_same(weights(folder / best["folder"]), weights(tmp_path / "again"))


def test_the_same_command_runs_what_is_missing_and_a_longer_grid_what_is_new(swept, train_here, tmp_path):
    sweep = shutil.copytree(swept[1], tmp_path / "sweep")
    (sweep / "lr=0.001" / "result.json").unlink()  # as if it had been killed
    kept = (sweep / "lr=0.01" / "result.json").stat().st_mtime_ns
    assert "2 jobs, 1 to run" in train_here(*HERE, *FAST, RATES).out
    assert "2 jobs, 0 to run" in train_here(*HERE, *FAST, RATES).out
    assert "3 jobs, 1 to run" in train_here(*HERE, *FAST, RATES + ",0.1").out
    assert (sweep / "lr=0.01" / "result.json").stat().st_mtime_ns == kept
    assert len(rows(sweep)) == 3
    assert "2 jobs, 2 to run" in train_here(*HERE, *FAST, RATES, "rerun=true").out
    assert (sweep / "lr=0.01" / "result.json").stat().st_mtime_ns != kept


def test_a_sweep_finds_its_folder_by_what_decides_its_results(train_here, tmp_path):
    sweep = ("-m", "hydra/launcher=basic", *FAST, "model.optimizer.lr=0.01", "trainer.precision=99")
    for more in ((), ("seed=1,2",), ("model.batch_size=20",), ("histograms=false",)):
        with pytest.raises(SystemExit, match="jobs failed"):  # the folder is there even where each job is refused
            train_here(*sweep, *more)
    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert len(names) == 3, names
    assert len([name for name in names if name.startswith("sweep_seed_small_dense-mnist_")]) == 1


@pytest.mark.slow
def test_another_configuration_in_the_folder_is_left_alone(refused, train_here, tmp_path):
    train_here(*HERE, *FAST, RATES)
    kept = (tmp_path / "sweep" / "lr=0.01" / "result.json").read_bytes()
    assert "rerun=true replaces it" in refused(*HERE, *FAST, RATES, "model.batch_size=30")
    (tmp_path / "sweep" / "lr=0.5").mkdir()
    (tmp_path / "sweep" / "lr=0.5" / "thesis.txt").touch()
    assert "not the folder of a job" in refused(*HERE, *FAST, "model.optimizer.lr=0.5,0.01")
    assert (tmp_path / "sweep" / "lr=0.5" / "thesis.txt").exists()
    assert (tmp_path / "sweep" / "lr=0.01" / "result.json").read_bytes() == kept


def test_seeds_are_folded_and_failures_told_when_they_happen_and_at_the_end(here, capfd, tmp_path):
    with pytest.raises(SystemExit) as ended:
        here("train", *HERE, *FAST, "model.optimizer.lr=0.001,1e30", "++seed=1,2")
    assert "2 of 4 jobs failed" in str(ended.value.code)
    told = capfd.readouterr()
    assert told.err.count(" of epoch 1, at a learning rate of ") == 2
    assert told.out.count("failed: lr=1e+30,++seed=") == 2
    assert " ± " in told.out and " 0.001 │    2 │" in told.out
    table = rows(tmp_path / "sweep")
    assert len(table) == 4 and [bool(row["error"]) for row in table] == [False] * 2 + [True] * 2


def test_without_validation_no_winner_is_named(train_here):
    told = train_here(*HERE, *FAST, RATES, "data.validation=0").out
    assert "No winner" in told and "Best" not in told


@pytest.mark.slow
def test_jobs_side_by_side_survive_a_kill_and_give_the_bits_of_one_after_the_other(train_here, data_root, tmp_path):
    jobs = (*FAST, "model=small_conv", "model.epochs=8", "seed=1,2,3")
    train_here("-m", "hydra/launcher=basic", "hydra.sweep.dir=one_by_one", *jobs)
    command = [sys.executable, PROJECT / "src" / "train.py", "-m", *jobs, "hydra.sweep.dir=beside"]
    command.append("hydra.launcher.n_jobs=2")
    environment = os.environ | {"LAB_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (finished := list((tmp_path / "beside").glob("*/result.json"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # its workers end with it
    finished = list((tmp_path / "beside").glob("*/result.json"))
    assert 1 <= len(finished) < 3
    again = train_here("-m", "hydra/launcher=basic", *jobs, "hydra.sweep.dir=beside")
    assert f"3 jobs, {3 - len(finished)} to run" in again.out and again.err == ""
    assert len(rows(tmp_path / "beside")) == 3
    for folder in (tmp_path / "one_by_one").glob("seed=*"):
        assert are_same(weights(folder), weights(tmp_path / "beside" / folder.name)), folder.name


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("learning_rate", ["lr=0.0001", "lr=0.001", "lr=0.01"]),
        ("dropout", ["rate=0", "rate=0.2", "rate=0.4", "rate=0.6"]),
        ("depth", ["model=baseline", "model=deep", "model=lenet5"]),
        ("seeds", [f"seed={seed}" for seed in range(1, 6)]),
    ],
)
def test_the_presets_are_the_labs_exercises(train_here, tmp_path, preset, names):
    small = (*SMALL_MNIST, "model.epochs=1", "trainer.limit_train_batches=1", "hydra/launcher=basic")
    if preset != "learning_rate":  # which jobs there are shows even where each is refused
        with pytest.raises(SystemExit, match="jobs failed"):
            train_here(f"+sweep={preset}", *small, "trainer.precision=99", "hydra.sweep.dir=sweep")
    else:
        told = train_here(f"+sweep={preset}", *small, "hydra.sweep.dir=sweep").out
        command = next(line for line in told.splitlines() if line.startswith("Train it again: ")).split()[5:]
        assert "+sweep" not in told
        train_here(*command, "hydra.run.dir=again")
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == names


@pytest.mark.parametrize(
    ("values", "best", "beyond"),
    [
        (["0.1", "0.03", "0.01"], "0.1", "0.3"),
        (["0.1", "0.03", "0.01"], "0.01", "0.003"),
        (["0.1", "0.03", "0.01"], "0.03", None),
        (["32", "64", "128", "256"], "256", "512"),
        (["0.0", "0.2", "0.4"], "0.4", "0.6"),
        (["0.0", "0.2", "0.4"], "0.0", None),
        (["0.4", "0.6", "0.8"], "0.8", None),  # a fraction ends at 1
        (["5", "10", "15"], "5", "2"),
        (["1", "2", "3"], "1", None),
        (["5", "10", "15"], "15", "20"),
        (["deep", "dense"], "deep", None),
        (["0.1"], "0.1", None),
    ],
)
def test_the_edge_of_the_grid(values, best, beyond):
    from lab.experiments.ranking import beyond_the_edge

    assert beyond_the_edge(values, best) == beyond


def test_tensorboards_hyper_parameters_name_what_is_swept(train_here, tmp_path):
    train_here(*HERE, *FAST, "model=dropout", "model.epochs=1", "model.net.rate=0.25,0.5")
    for row in rows(tmp_path / "sweep"):
        events = EventAccumulator(str(tmp_path / "sweep" / row["folder"])).Reload()
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        assert values["rate"].number_value == float(row["model.net.rate"])
        assert values["model"].string_value == "dropout" and values["lr"].number_value == 1e-4
        assert events.Scalars("final/validation_accuracy")[-1].value == pytest.approx(float(row["val_accuracy"]))


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("one_cycle", 0.0), ("step", 0.01), ("plateau", 0.01)])
def test_schedules_change_the_learning_rate(train_here, tmp_path, schedule, last):
    options = {"step": ["model.schedule.step_size=2"], "plateau": ["model.schedule.patience=0"]}.get(schedule, [])
    more = ["model.optimizer.lr=0.1"] if schedule != "plateau" else ["model.optimizer.lr=1e-7"]
    recipe = (*FAST, "model.optimizer._target_=torch.optim.SGD", "~model.optimizer.eps", "model.epochs=4")
    train_here(*recipe, f"schedule={schedule}", *options, *more, "hydra.run.dir=run")
    rates = [event.value for event in EventAccumulator(str(tmp_path / "run")).Reload().Scalars("lr-SGD")]
    assert rates[-1] < max(rates)
    if schedule == "step":
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert read_result(tmp_path / "run")["epochs"] == 4


def test_early_stopping_ends_a_run_whose_validation_loss_no_longer_falls(train_here, tmp_path):
    stuck = ("model.epochs=30", "model.optimizer.lr=1e-12", "early_stopping=2")
    told = train_here(*FAST, *stuck, "hydra.run.dir=run").out
    assert "early_stopping=2: stopped after epoch" in told
    assert read_result(tmp_path / "run")["epochs"] < 30


def test_a_run_without_a_last_epoch_says_why_it_ended(capsys):
    asked = dict.fromkeys(("stop_below", "monitor", "early_stopping"))
    config = OmegaConf.create(asked | {"trainer": {"max_steps": 8}})
    print_end(SimpleNamespace(config=config), [{"epoch": 2}], -1)
    assert capsys.readouterr().out == "stopped after epoch 2: trainer.max_steps=8\n"


def test_a_learning_rate_is_suggested_and_its_curve_drawn(train_here, drawn, tmp_path, monkeypatch):
    save, written = AtomicCheckpoints.save_checkpoint, []

    def watch(plugin, checkpoint, path, storage_options=None):
        written.append(Path(path))
        save(plugin, checkpoint, path)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", watch)
    told = train_here(*FAST, "model=baseline", "tune=lr", "hydra.run.dir=tune").out
    curve = read_csv(tmp_path / "tune" / "learning_rates.csv")
    losses = [float(row["loss"]) for row in curve]
    suggested = float(told.partition("Suggested learning rate: ")[2].split()[0])
    assert 1e-4 < suggested < 1 and min(losses) < losses[0]
    assert f"model.optimizer.lr={suggested:g}" in told and "tune=lr" not in told
    assert {path.parent for path in written} == {tmp_path / "tune"} and not any(path.exists() for path in written)
    with Image.open(tmp_path / "tune" / "learning_rate.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ["rerun=true"], "rerun=true is of a sweep"),
        ("train", ["tune=epochs"], "must be lr"),
        ("train", ["threads=0"], "must be from 1 to"),
        ("train", [*SMALL_MNIST[:2], "data.validation=0", "early_stopping=3"], "there is no validation part"),
        ("train", [*SMALL_MNIST[:2], "data.validation=0", "schedule=plateau"], "there is no validation part"),
        ("train", [*SMALL_MNIST, "schedule=step", "+model.schedule.speed=3"], "unexpected keyword argument 'speed'"),
        ("train", ["schedule=step", "model.schedule.step_size=0"], "must be 1 or more"),
        ("train", ["-m", "seed=1,2", "hydra/launcher=ray"], "pip install '.[cluster]'"),
        ("train", ["-m", "seed=1,2", "hydra/launcher=submitit_slurm"], "pip install '.[cluster]'"),
        ("train", ["schedule=cosin"], "did you mean 'cosine'?"),
        ("train", ["+sweep=learning_rates"], "did you mean 'learning_rate'?"),
        ("train", ["+sweep=depth", "model=deep"], "model=deep: takes the place of all values that +sweep tries"),
        ("cross_validate", ["schedule=plateau"], "would look at the fold that scores"),
        ("cross_validate", ["early_stopping=3"], "would look at the fold that scores"),
    ],
)
def test_what_cannot_be_is_refused(refused, command, arguments, message):
    assert message in refused(*arguments, command=command)


def test_tab_completes_models_data_sets_and_keys(train):
    line = "python src/train.py "
    for typed, completed in (("model=de", "model=deep"), ("data=ci", "data=cifar4"), ("model.opt", "model.optimizer.")):
        environment = {"COMP_LINE": line + typed, "COMP_POINT": str(len(line + typed))}
        process = train("-sc", "query=bash", environment=environment)
        assert completed in process.stdout.split(), process.stdout + process.stderr


def test_images_that_were_replaced_in_their_place_are_noticed(train_here, refused, data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "data")
    jobs = (*HERE, *FAST, "seed=1", f"data.root={root}")
    train_here(*jobs)
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert "holds a run on other images than lie there today: rerun=true" in refused(*jobs)
    assert "1 jobs, 1 to run" in train_here(*jobs, "rerun=true").out


def a_job(values, accuracy, **parts):
    scores = {"last": {"accuracy": accuracy, "loss": 1.0, "images": 100}}
    result = {"validation": scores, "test": scores, "seconds": 1.0, "data": {"images": parts}}
    return SimpleNamespace(values=values, folder=Path("nowhere"), result=lambda: result)


def conclude(jobs):
    from lab.experiments.ranking import conclusion, group_by_setting

    return conclusion(group_by_setting([(job, job.result()) for job in jobs], "val_accuracy"), "val_accuracy")


def test_the_winner_is_tested_against_the_second_seed_by_seed():
    """The seeds lie far apart, each one's two scores do not: only pairs tell."""

    def jobs(noise):
        for seed in range(6):
            score = 0.6 + 0.05 * seed
            yield a_job({"model": "dense", "seed": str(seed)}, score)
            yield a_job({"model": "deep", "seed": str(seed)}, score + 0.01 + 0.001 * (seed % 2) + noise * (-1) ** seed)

    assert len(conclude(jobs(0.0))) == 1
    _, told = conclude(jobs(0.02))
    assert "of 6 runs, paired" in told and "undecided" in told


def test_settings_with_one_seed_in_common_are_not_judged_by_that_one(tmp_path):
    """Of that seed both have the same answers, while the means lie apart."""
    jobs = [a_job({"model": "dense", "seed": seed}, 0.9 + 0.001 * int(seed)) for seed in "12"]
    jobs += [a_job({"model": "deep", "seed": seed}, 0.95 + 0.001 * int(seed)) for seed in "23"]
    logits, classes = np.zeros((100, 2), np.float32), np.array(["cat", "dog"])
    answers = Predictions(logits, *np.zeros((2, 100), int), classes, np.array("of the same images"))
    answers.save(tmp_path / "predictions_validation.npz")
    for job in jobs[1:3]:
        job.folder = tmp_path
    assert len(conclude(jobs)) == 1


def test_settings_without_a_seed_in_common_are_told_apart_by_welchs_t():
    """The few runs of the best lie far apart, the many of the second do not: Student's t would call that a lead."""
    jobs = [a_job({"model": "deep", "seed": seed}, score) for seed, score in (("1", 0.92), ("2", 0.96))]
    jobs += [a_job({"model": "dense", "seed": seed}, 0.88) for seed in "34567"]
    assert "6.00 points behind, no more than chance makes of the runs (± 25.41)" in conclude(jobs)[1]


def test_a_setting_whose_runs_failed_does_not_win_by_those_that_are_left():
    def failed(seed):
        return SimpleNamespace(values={"model": "deep", "seed": seed}, folder=Path("nowhere"), result=lambda: None)

    jobs = [a_job({"model": "dense", "seed": seed}, 0.98) for seed in "123"]
    jobs += [a_job({"model": "deep", "seed": "1"}, 0.99), failed("2"), failed("3")]
    best, lucky, *_ = conclude(jobs)
    assert "model=dense, 98.00%" in best and lucky == "Of model=deep 2 of 3 runs failed: its mean is of the others."


def test_the_winner_is_tested_against_the_second_image_by_image(train_here, tmp_path):
    """Two rates that differ by nothing, on the same validation images; without the answers the interval is wider."""
    words = (*HERE, *FAST, "model.optimizer.lr=0.001,0.001001")
    told = train_here(*words).out
    files = list((tmp_path / "sweep").glob("*/predictions_validation.npz"))
    answers = [np.load(path, allow_pickle=False) for path in files]
    right = [each["logits"].argmax(1) == each["labels"] for each in answers]
    for row in rows(tmp_path / "sweep"):
        assert float(row["val_accuracy"]) in [pytest.approx(each.mean()) for each in right]
    within = r"chance makes of {} \(± (\d+\.\d+)\): {}"
    (paired,) = re.findall(within.format(f"{len(right[0])} images, paired", "add seed=1,2,3"), told)
    for path in files:
        path.unlink()  # as an older version leaves it
    (unpaired,) = re.findall(within.format(f"{len(right[0])} images", "add seed=1,2,3"), train_here(*words).out)
    assert float(paired) < float(unpaired)
    told = train_here(*words, "seed=1,2").out
    assert re.search(within.format(rf"2 runs and {len(right[0])} images, paired", "undecided: more seeds"), told)


def test_single_runs_and_another_score_than_accuracy_tell_of_no_lead(train_here):
    told = train_here(*HERE, *FAST, RATES, "monitor=macro_f1").out
    assert "Single runs do not tell whether its lead is chance: add seed=1,2,3." in told


def test_folds_are_runs_of_a_setting_of_which_none_wins_and_they_tell_less_than_seeds():
    """Folds share images to train on."""

    def told(key):
        leads = enumerate([0.0015, 0.0055, 0.0095, 0.0135, 0.0175])
        return conclude(
            [
                a_job({"model": model, key: str(draw)}, 0.7 + 0.05 * draw + more, validation=100, train=400)
                for draw, lead in leads
                for model, more in (("dense", 0.0), ("deep", lead))
            ]
        )

    (of_seeds,), (of_folds, doubt) = told("seed"), told("data.fold")
    assert of_seeds == of_folds and "validation accuracy: model=deep, 80.95%; on the test part 80.95%" in of_seeds
    assert "model=dense is 0.95 points behind" in doubt and "of 5 runs, paired (± 1.18)" in doubt
