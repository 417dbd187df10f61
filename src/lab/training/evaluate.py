"""Evaluates a finished run: metrics, each image's answer, figures of where it fails."""

from pathlib import Path
from typing import Any

from lab.datasets.pitfalls import is_uneven, largest_class
from lab.display.figures import calibration, confusion, gallery
from lab.display.terminal import print_notes, print_table, shorten
from lab.errors import UserError, printable
from lab.evaluation.images import check_images
from lab.evaluation.metrics import evaluate, print_confused, worst_mistakes
from lab.files import write_csv, write_json
from lab.runs.folder import read_exported, read_result
from lab.runs.predictions import Predictions, average, load_predictions
from lab.training.load import load, load_exported, predict
from lab.training.prepare import Run

SHOWN = 25  # mistakes
MOST_LETTERS = 30  # of a file's name in a figure, its last


def evaluate_run(path: Path, part: str | None, weights: str, root: Path | None) -> None:
    """Write evaluation.json and figures beside the run; their names say which part and weights were asked for.

    `path` is a run's folder or one fold's, its model.ts, or a cross-validation's folder: its folds answer together, by
    the mean of their probabilities.
    """
    folder, runs, usual = _load(path, weights, root)
    is_ensemble = len(runs) > 1
    if is_ensemble and part not in (None, usual):
        raise UserError(f"{path}: its folds together have no {part} part: each has seen the others' images")
    run, part = runs[0], part or usual
    weights = "exported" if path.is_file() else weights
    if len(run.dataset.parts[part]) == 0:
        raise UserError(f"{path}: its {part} part has no images")
    predictions = average([predict(each, part)[1] for each in runs]) if is_ensemble else predict(run, part)[1]
    words = ("ensemble", is_ensemble), (part, part != usual), (weights, weights != "last")
    name = "".join(f"_{word}" for word, told in words if told)
    if not name and (folder / "predictions.npz").exists():
        check_images(load_predictions(folder), run.dataset, folder, run.config)
    validation = None
    if len(run.dataset.classes) == 2 and part != "validation" and not is_ensemble:
        validation = predict(run, "validation")[1] if len(run.dataset.parts["validation"]) else None
    network = run.config.model.name
    network = f"ensemble of {len(runs)} folds of {network}" if is_ensemble else network
    about = {"model": network, "data": run.config.data.name, "part": part, "weights": weights}
    evaluation = about | evaluate(predictions, validation)
    predictions.save(folder / f"predictions{name}.npz")
    write_csv(_list(predictions, run), folder / f"predictions{name}.csv")
    _draw(evaluation, predictions, run, folder, name)
    write_json(evaluation, folder / f"evaluation{name}.json")
    _print(evaluation)
    print(f"Each image's answer: {folder}/predictions{name}.csv")
    print(f"Figures: confusion{name}.png, mistakes{name}.png, calibration{name}.png in {folder}")


def _load(path: Path, weights: str, root: Path | None) -> tuple[Path, list[Run], str]:
    """The folder to write into, the runs, and the part that they were tested on."""
    if path.is_file() and path.suffix == ".ts":
        held_out = read_exported(path)["metrics"]["part"] == "held-out"
        return path.parent, [load_exported(path, root)], "validation" if held_out else "test"
    result = read_result(path)
    if "folds" in result:
        return path, [load(path / f"fold_{row['fold']}", weights, root) for row in result["folds"]], "test"
    return path, [load(path, weights, root)], "validation" if "held_out" in result else "test"


def _list(predictions: Predictions, run: Run) -> list[dict[str, Any]]:
    """A row of predictions.csv for each image: its file if any, its number in the part and the data set, its answer."""
    classes, files, rows = predictions.classes.tolist(), run.dataset.files, []
    for number, (image, label, shares) in enumerate(
        zip(predictions.indices.tolist(), predictions.labels, predictions.probabilities(), strict=True)
    ):
        row = {"file": files[image]} if files else {}
        row |= {"number": number, "image": image, "class": classes[label], "predicted": classes[shares.argmax()]}
        rows.append(
            row | {f"probability of {name}": float(f"{p:.6g}") for name, p in zip(classes, shares, strict=True)}
        )
    return rows


def _draw(evaluation: dict[str, Any], predictions: Predictions, run: Run, folder: Path, name: str) -> None:
    """Draw the confusion matrix, the surest mistakes and the calibration; `name` ends the files' names."""
    score = f"accuracy {evaluation['accuracy']:.2%}"
    title = f"{evaluation['model']} on {evaluation['data']}, {evaluation['part']}: {score}"
    if evaluation["weights"] != "last":
        title += f", {evaluation['weights']} weights"
    worst, probabilities = worst_mistakes(predictions, SHOWN), predictions.probabilities()
    classes, files = run.dataset.classes, run.dataset.files
    images = predictions.indices[worst]
    numbered = zip(worst, images, strict=True)
    names = [printable(files[image])[-MOST_LETTERS:] if files else f"no. {row}" for row, image in numbered]
    captions = [
        f"{classes[predictions.labels[row]]} read as {classes[probabilities[row].argmax()]}\n"
        f"{probabilities[row].max():.1%} sure, {name}"
        for row, name in zip(worst, names, strict=True)
    ]
    confusion(evaluation["confusion"], classes, title, folder / f"confusion{name}.png")
    total = int((~predictions.correct()).sum())
    if total > len(worst):
        shown = f"the {len(worst)} surest of {total:,} mistakes"
    else:
        shown = {0: "no mistakes", 1: "its only mistake"}.get(total, f"its {total} mistakes")
    if total and not files:
        shown += f", numbered within the {evaluation['part']} part"
    gallery(run.dataset.images[images], captions, f"{title}\n{shown}", folder / f"mistakes{name}.png")
    calibration(evaluation["calibration"], title, folder / f"calibration{name}.png")


def _print(evaluation: dict[str, Any]) -> None:
    """Print precision, recall and F1 of each class; loss, accuracy, calibration; of two classes AUC and threshold."""
    rows = []
    for name, scores in evaluation["classes"].items():
        shares = ("" if scores[key] is None else f"{scores[key]:.2%}" for key in ("precision", "recall", "f1"))
        rows.append([name, *shares, f"{scores['images']:,}"])
    title = f"{evaluation['model']} on {evaluation['data']}, {evaluation['part']}, {evaluation['weights']} epoch"
    print_table(title, ["class", "precision", "recall", "F1", "images"], shorten(rows))
    low, high = evaluation["accuracy_interval"]
    accuracy = f"Accuracy {evaluation['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}"
    print(f"{accuracy}, loss {evaluation['loss']:.4f}")
    if "auc" in evaluation:
        print(f"AUC {evaluation['auc']:.4f}")
    if chosen := evaluation.get("threshold"):
        name = list(evaluation["classes"])[1]
        print(
            f"{name} from a probability of {chosen['threshold']:.3f} on, chosen on the validation part: "
            f"accuracy {chosen['accuracy']:.2%}, balanced {chosen['balanced_accuracy']:.2%}, "
            f"sensitivity {chosen['sensitivity']:.2%}, specificity {chosen['specificity']:.2%}"
        )
    counts = [scores["images"] for scores in evaluation["classes"].values()]
    if is_uneven(counts):
        print(f"Balanced accuracy {evaluation['balanced_accuracy']:.2%}, macro F1 {evaluation['macro_f1']:.2%}")
    if said := largest_class(counts, list(evaluation["classes"])):
        print_notes([said])
    error = evaluation["calibration"]["expected_calibration_error"]
    print(f"Expected calibration error {error:.2%}: how far its probabilities lie from how often it is right")
    print_confused(evaluation)
