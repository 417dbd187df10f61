"""Cross-validation: which folds are still to train, and what all of them add up to."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lab.config.schema import CrossValidate, fingerprint
from lab.datasets.dataset import Dataset, load
from lab.datasets.pitfalls import largest_class
from lab.display.figures import box_plot, confusion, curves
from lab.display.terminal import print_classes, print_notes
from lab.errors import DEFECT, UserError
from lab.evaluation.metrics import evaluate, print_confused
from lab.evaluation.significance import corrected_accuracy_interval
from lab.experiments.jobs import Job, compose_train, launch, make_launcher
from lab.experiments.processes import count_workers
from lab.files import write_csv, write_json
from lab.runs.folder import CORRECTIONS, claim, locked, read_config, read_history
from lab.runs.predictions import join, load_predictions

# of the first fold's result.json, for that of all folds
KEPT = ("model", "data", "seed", "batch_size", "optimizer", "parameters")
KEPT += ("threads", "precision", "machine", "versions", "epochs")


def cross_validate(config: DictConfig, folder: Path) -> None:
    """Train and score the folds that `folder` lacks, and sum up all of them.

    A fold has the same bits whichever other folds are trained beside it.
    """
    _check_folder(config, folder)  # before anything is read
    dataset, jobs = load(config.data), _list_jobs(config, folder)
    with locked(folder, "cross-validation"):
        try:
            _check_folder(config, folder)
            missing = [job for job in jobs if job.result() is None]
            finished = [job for job in jobs if job not in missing]
            _check_images(finished, dataset)
            if not (folder / "config.yaml").exists():
                claim(folder, config)
            _print_start(config, dataset, folder)
            for job in finished:
                print(job.line())
            if missing:
                _train(missing, config, folder)
                _check_images(missing, dataset)
            _sum_up(jobs, folder)
        except UserError:
            if not (folder / "config.yaml").exists():  # an empty folder is removed
                with contextlib.suppress(OSError):  # Windows removes no file that is open
                    (folder / ".lock").unlink()
            raise


def _check_folder(config: DictConfig, folder: Path) -> None:
    """UserError where `folder` is of another cross-validation."""
    is_taken = (folder / "config.yaml").exists()
    if is_taken and fingerprint(read_config(folder, CrossValidate)) != fingerprint(config):
        raise UserError(f"{folder} holds another run: choose another hydra.run.dir")


def _list_jobs(config: DictConfig, folder: Path) -> list[Job]:
    """A job for each fold: train.py is told what this command was told."""
    told = [word for word in HydraConfig.get().overrides.task if not word.startswith("workers=")]
    own = {"model": HydraConfig.get().runtime.choices.model, "data.folds": config.data.folds, "threads": 1}
    told += [f"{key}={value}" for key, value in own.items() if not any(word.startswith(f"{key}=") for word in told)]
    epochs = max(config.trainer.max_epochs or config.model.epochs, 0)  # -1: no end
    return [
        Job([*told, f"data.fold={k}"], {"fold": str(k)}, folder / f"fold_{k}", "held_out", epochs=epochs)
        for k in range(config.data.folds)
    ]


def _check_images(finished: Sequence[Job], dataset: Dataset) -> None:
    """UserError where a fold held out other images than `dataset` has in it."""
    for job in finished:
        held_out = dataset.folds[int(job.values["fold"])]["validation"]
        if str(load_predictions(job.folder).sha256) != dataset.fingerprint(held_out):
            raise UserError(f"{job.folder} is of other images: choose another hydra.run.dir")


def _print_start(config: DictConfig, dataset: Dataset, folder: Path) -> None:
    """Print how many images of each class each fold has; leave folds.csv, which image is in which fold."""
    folds = {f"fold {number}": parts["validation"] for number, parts in enumerate(dataset.folds)}
    shown = folds | {"not used": dataset.parts["test"]}
    counts = {part: np.bincount(dataset.labels[held], minlength=len(dataset.classes)) for part, held in shown.items()}
    print_classes(f"{config.model.name} on {dataset.name}", counts, dataset.classes)
    if dataset.corrected:
        print_notes([str(dataset.corrected)])
    places = sorted((int(image), number) for number, held in enumerate(folds.values()) for image in held)
    write_csv([{"image": image, "fold": number} for image, number in places], folder / "folds.csv")


def _train(missing: list[Job], config: DictConfig, folder: Path) -> None:
    """Train the folds side by side, a process of one thread each. UserError with the reason of the first that fails.

    Where the number of folds is no multiple of the cores, some more share these, an epoch each in turn: five folds on
    two cores, three at a time and then two, take 2.5 times as long as one; two, two and one would take 3 times.
    """
    for left_over in folder.glob(".fold_*"):  # of older versions
        shutil.rmtree(left_over, ignore_errors=True)
    workers = min(config.workers or count_workers(len(missing)), len(missing))
    at_a_time = workers if config.workers else workers + len(missing) % workers
    print(f"{len(missing)} folds to train, {at_a_time} at a time, a thread each. Each one's score is its last epoch's.")
    chosen = HydraConfig.get().runtime.choices["hydra/launcher"]
    train, context = compose_train([] if chosen == "basic" else [f"hydra/launcher={chosen}"])
    started = time.perf_counter()
    turns = workers if at_a_time > workers else 0
    launcher = make_launcher(train, context, tested="validation", turns=turns)
    launch(missing, launcher, True, at_a_time, shows_errors=False)
    for lock in folder.glob(".turn_*"):
        lock.unlink()
    if failed := [job for job in missing if job.result() is None]:
        reason = f"fold {failed[0].values['fold']}: {failed[0].error() or 'has left no result'}"
        for job in failed:
            if DEFECT not in (job.error() or ""):  # whose line names a log in it
                shutil.rmtree(job.folder, ignore_errors=True)
        if not list(folder.glob("fold_*")):
            for name in ("config.yaml", "folds.csv", CORRECTIONS):
                (folder / name).unlink(missing_ok=True)
        others = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise UserError(f"{reason}{others}")
    print(f"{time.perf_counter() - started:.0f} s")


def _sum_up(jobs: Sequence[Job], folder: Path) -> None:
    """Write what all folds add up to, files and figures; print its last lines."""
    rows = [
        {"fold": number, **job.result()["held_out"]["last"], "seconds": job.result()["seconds"]}
        for number, job in enumerate(jobs)
    ]
    scores = [row["accuracy"] * 100 for row in rows]
    predictions = join([load_predictions(job.folder) for job in jobs])
    evaluation, images = evaluate(predictions), len(predictions.labels)
    interval = corrected_accuracy_interval([score / 100 for score in scores], 1 / (len(jobs) - 1), images)
    mean, low, high = (100 * bound for bound in interval)
    std = float(np.std(scores))  # numpy's, as the labs print it; the interval has its own
    first = jobs[0].result()
    for key in ("images", "class_images", "pitfalls", "sha256"):  # of its part of the data alone
        first["data"].pop(key, None)
    del first["data"]["split"]["fold"]
    result = {key: first[key] for key in KEPT} | {
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "folds": rows,
        "accuracy": {"mean": mean / 100, "std": std / 100, "interval": [low / 100, high / 100]},
        "held_out": evaluation,
    }
    title = f"{result['model']} on {result['data']['name']}: {mean:.2f} ± {std:.2f} % over {len(jobs)} folds"
    histories = [read_history(job.folder, f"delete {job.folder}, and it is trained anew") for job in jobs]
    curves(histories, title, folder / "curves.png")
    box_plot({result["model"]: scores}, "accuracy on the held-out fold (%)", title, folder / "boxplot.png")
    confusion(evaluation["confusion"], result["data"]["classes"], title, folder / "confusion.png")
    write_csv(rows, folder / "scores.csv")
    write_json(result, folder / "result.json")
    print(f"Accuracy: mean={mean:.3f} std={std:.3f}, n={len(jobs)}")
    print(f"95 % interval of the mean: {low:.3f} to {high:.3f} (folds share images to train on: wider)")
    classes = evaluation["classes"]
    if said := largest_class([scores["images"] for scores in classes.values()], list(classes)):
        print_notes([f"{said}; balanced accuracy {evaluation['balanced_accuracy']:.2%}"])
    print_confused(evaluation)
    print(f"Folder: {folder}")
