"""How good a run is, and where it fails: python src/evaluate.py outputs/deep-mnist_..."""

from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def evaluate(path: Path, part: str | None, weights: str, root: Path | None) -> None:
    from lab.training.evaluate import evaluate_run  # torch takes seconds: --help answers without it

    evaluate_run(path, part, weights, root)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument(
        "path",
        type=Path,
        metavar="RUN",
        help="a run's or fold's folder, a model.ts, or a cross-validation's folder (averages its folds)",
    )
    parser.add_argument("--part", choices=("test", "validation", "train"), help="else the part that it was tested on")
    parser.add_shared("--weights", "--root", "--networks")
    run_parser(parser, evaluate)
