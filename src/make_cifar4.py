"""Make CIFAR4_X.npy and CIFAR4_Y.npy from CIFAR-10's binary version: python src/make_cifar4.py"""

import os
from pathlib import Path

from lab.cli.arguments import Parser, run_parser
from lab.config.schema import data_folder


def make(cifar10: Path | None, root: str | None) -> None:
    from lab.datasets.make_cifar4 import make_cifar4

    make_cifar4(cifar10, data_folder(root or os.environ.get("LAB_DATA")))


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    files = "cifar-10-binary.tar.gz or the folder of its .bin files; else downloaded"
    parser.add_argument("--cifar10", type=Path, help=files)
    parser.add_argument("--root", help="where the two files go; else $LAB_DATA, else data/ in the project")
    run_parser(parser, make)
