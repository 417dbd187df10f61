"""How good a run is, and where it fails: python src/evaluate.py outputs/deep-mnist_..."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.arguments import Parser, run_parser

if TYPE_CHECKING:  # torch takes seconds: --help answers without it
    from lab.predictions import Predictions
    from lab.run import Run

SHOWN = 25  # mistakes


def evaluate_run(path: Path, part: str | None, weights: str, root: Path | None) -> None:
    """Write evaluation.json and figures beside the run; their names have the part and the weights asked for."""
    from lab import UserError
    from lab.evaluation import at_threshold, choose_threshold, evaluate
    from lab.files import write_json
    from lab.folder import read_exported, read_result
    from lab.predictions import average
    from lab.run import load, load_exported, predict
    from lab.terminal import print_evaluation

    name = ""
    if path.is_file() and path.suffix == ".ts":
        folder, weights, runs = path.parent, "exported", [load_exported(path, root)]
        usual = "validation" if read_exported(path)["metrics"]["part"] == "held-out" else "test"
    elif "folds" in (result := read_result(path)):
        folder, runs, usual = (
            path,
            [load(path / f"fold_{row['fold']}", weights, root) for row in result["folds"]],
            "test",
        )
        name = "_ensemble"
        if part not in (None, usual):
            raise UserError(f"{path}: its folds together have no {part} part: each has seen the others' images")
    else:
        folder, runs = path, [load(path, weights, root)]
        usual = "validation" if "held_out" in result else "test"
    run, part = runs[0], part or usual
    if len(run.parts[part]) == 0:
        raise UserError(f"{path}: its {part} part has no images")
    predictions = average([predict(each, part)[1] for each in runs]) if name else predict(run, part)[1]
    name += "".join([f"_{part}" * (part != usual), f"_{weights}" * (weights != "last")])
    if not name and (folder / "predictions.npz").exists():
        _check_images(run, folder)
    about = {"model": run.config.model.name, "data": run.config.data.name, "part": part, "weights": weights}
    evaluation: dict[str, Any] = about | evaluate(predictions)
    if "auc" in evaluation and part != "validation" and len(runs) == 1 and len(run.parts["validation"]):
        _, validation = predict(run, "validation")
        if len(set(validation.labels)) == 2:
            evaluation["threshold"] = at_threshold(predictions, choose_threshold(validation))
    predictions.save(folder / f"predictions{name}.npz")
    _draw(evaluation, predictions, run, folder, name)
    write_json(evaluation, folder / f"evaluation{name}.json")
    print_evaluation(evaluation)
    print(f"Figures: confusion{name}.png, mistakes{name}.png, calibration{name}.png in {folder}")


def _check_images(run: "Run", folder: Path) -> None:
    """Are they still those that it was tested on?"""
    from lab import UserError
    from lab.config import data_folder
    from lab.predictions import fingerprint, load_predictions

    saved = load_predictions(folder)
    known = saved.indices.max() < len(run.dataset.labels)
    if not known or fingerprint(run.dataset, saved.indices) != str(saved.sha256):
        place = data_folder(run.config.data.root)
        raise UserError(f"{folder}: the images in {place} are not those that it was tested on")


def _draw(evaluation: dict[str, Any], predictions: "Predictions", run: "Run", folder: Path, name: str) -> None:
    from lab.evaluation import worst_mistakes
    from lab.plots import calibration, confusion, gallery

    title = (
        f"{evaluation['model']} on {evaluation['data']}, {evaluation['part']}: accuracy {evaluation['accuracy']:.2%}"
    )
    if evaluation["weights"] != "last":
        title += f", {evaluation['weights']} weights"
    worst, probabilities = worst_mistakes(predictions, SHOWN), predictions.probabilities()
    captions = [
        f"{run.classes[predictions.labels[row]]} read as {run.classes[probabilities[row].argmax()]}\n"
        f"{probabilities[row].max():.1%} sure, no. {predictions.indices[row]}"
        for row in worst
    ]
    confusion(evaluation["confusion"], run.classes, title, folder / f"confusion{name}.png")
    gallery(run.dataset.images[predictions.indices[worst]], captions, title, folder / f"mistakes{name}.png")
    calibration(evaluation["calibration"], title, folder / f"calibration{name}.png")


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument(
        "path",
        type=Path,
        metavar="RUN",
        help="a run's folder, or its model.ts; one fold's; all folds': the mean of their probabilities",
    )
    parser.add_argument("--part", choices=("test", "validation", "train"), help="else the part that it was tested on")
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch; else the last")
    parser.add_argument("--root", type=Path, help="where the data lies; else where it lay, else $LAB_DATA")
    run_parser(parser, evaluate_run)
