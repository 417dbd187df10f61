"""Make the files for the device from a run: python src/export.py outputs/deep-mnist_..."""

from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def export(folder: Path, weights: str, root: Path | None) -> None:
    from lab.export.export import export  # torch takes seconds: --help answers without it

    export(folder, weights, root)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or one fold's")
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="of which epoch; else the last")
    parser.add_argument("--root", type=Path, help="where the data lies; else where it lay, else $LAB_DATA")
    parser.add_networks()
    run_parser(parser, export)
