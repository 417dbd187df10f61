"""Make the files for the device from a run: python src/export.py outputs/deep-mnist_..."""

from argparse import ArgumentTypeError
from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def export(folder: Path, weights: str, root: Path | None, coverage: float, int8: bool, fp16: bool, force: bool) -> None:
    from lab.export.export import export  # torch takes seconds: --help answers without it

    precisions = [name for name, asked in (("int8", int8), ("fp16", fp16)) if asked]
    export(folder, weights, root, coverage, precisions, force)


def share(word: str) -> float:
    """A number between 0 and 1, without either."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ArgumentTypeError(f"{word}: must be between 0 and 1, 0.99 say")
    return value


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or one fold's")
    parser.add_shared("--weights", "--root")
    parser.add_argument(
        "--coverage", type=share, default=0.99, help="how often the classes named hold the right one; else 0.99"
    )
    parser.add_argument("--int8", action="store_true", help="also model_int8.onnx: about a quarter of the size")
    parser.add_argument("--fp16", action="store_true", help="also model_fp16.onnx: about half the size")
    parser.add_argument("--force", action="store_true", help="write them where they are worse, too")
    parser.add_shared("--networks")
    run_parser(parser, export)
