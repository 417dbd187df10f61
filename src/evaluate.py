"""How good a run is, and where it fails: python src/evaluate.py outputs/deep-mnist_..."""

from pathlib import Path
from typing import Any

from lab.arguments import Parser, run_parser


def evaluate_run(folder: Path, part: str | None, weights: str, root: Path | None) -> None:
    """Write evaluation.json and the figures into `folder`, with the part and the weights in their names where asked."""
    from lab import UserError  # torch takes seconds: --help answers without it
    from lab.evaluation import at_threshold, choose_threshold, evaluate, worst_mistakes
    from lab.files import write_json
    from lab.folder import read_result
    from lab.plots import calibration, confusion, gallery
    from lab.predictions import load_predictions
    from lab.run import load, predict
    from lab.terminal import print_evaluation

    usual = "validation" if "held_out" in read_result(folder) else "test"
    part = part or usual
    run = load(folder, weights, root)
    if len(run.parts[part]) == 0:
        raise UserError(f"{folder}: its {part} part has no images")
    _, predictions = predict(run, part)
    name = "".join([f"_{part}" * (part != usual), f"_{weights}" * (weights != "last")])
    saved = folder / "predictions.npz"
    if not name and saved.exists() and load_predictions(folder).sha256 != predictions.sha256:
        raise UserError(f"{folder}: the images in {run.config.data.root} are not those that it was tested on")
    about = {"model": run.config.model.name, "data": run.config.data.name, "part": part, "weights": weights}
    evaluation: dict[str, Any] = about | evaluate(predictions)
    if "auc" in evaluation and part != "validation" and len(run.parts["validation"]):
        evaluation["threshold"] = at_threshold(predictions, choose_threshold(predict(run, "validation")[1]))
    title = f"{run.config.model.name} on {run.config.data.name}, {part}: accuracy {evaluation['accuracy']:.2%}"
    worst = worst_mistakes(predictions, 25)
    probabilities = predictions.probabilities()
    captions = [
        f"{run.classes[predictions.labels[row]]} read as {run.classes[probabilities[row].argmax()]}\n"
        f"{probabilities[row].max():.1%} sure, no. {predictions.indices[row]}"
        for row in worst
    ]
    predictions.save(folder / f"predictions{name}.npz")
    confusion(evaluation["confusion"], run.classes, title, folder / f"confusion{name}.png")
    gallery(run.dataset.images[predictions.indices[worst]], captions, title, folder / f"mistakes{name}.png")
    calibration(evaluation["calibration"], title, folder / f"calibration{name}.png")
    write_json(evaluation, folder / f"evaluation{name}.json")
    print_evaluation(evaluation)
    print(f"Figures: confusion{name}.png, mistakes{name}.png, calibration{name}.png in {folder}")


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or one fold's")
    parser.add_argument("--part", choices=("test", "validation", "train"), help="else the part that it was tested on")
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch; else the last")
    parser.add_argument("--root", type=Path, help="where the data lies; else where it lay, else $LAB_DATA")
    run_parser(parser, evaluate_run)
