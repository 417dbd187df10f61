"""Which network is better, and is it more than chance? python src/compare.py RUN RUN ..."""

import os
from datetime import datetime
from pathlib import Path

from lab.cli.arguments import Parser, run_parser


def compare(folders: list[Path], out: Path | None) -> None:
    from lab.evaluation.compare import compare_runs  # scipy and matplotlib take a second: --help answers without them

    new = Path("outputs") / f"compare_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(2).hex()}"
    compare_runs(folders, out or new)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folders of runs, or of cross-validations")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the table and the chart go; else in outputs/")
    run_parser(parser, compare)
