"""Which network is better, and is it more than chance? python src/compare.py RUN RUN ...

Of a device's receipts: which file is the fastest that is not worse? python src/compare.py RECEIPT.json ...
"""

import os
from datetime import datetime
from pathlib import Path

from lab.cli.arguments import Parser, run_parser
from lab.errors import UserError


def compare(folders: list[Path], out: Path | None) -> None:
    if all(path.suffix == ".json" for path in folders):
        from lab.evaluation.receipts import compare_receipts

        if out:
            raise UserError("--out: receipts are printed only")
        return compare_receipts(folders)
    from lab.evaluation.compare import compare_runs  # scipy and matplotlib take a second: --help answers without them

    new = Path("outputs") / f"compare_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(2).hex()}"
    compare_runs(folders, out or new)


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="folders of runs or cross-validations; or receipts"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the table and the chart go; else in outputs/")
    run_parser(parser, compare)
