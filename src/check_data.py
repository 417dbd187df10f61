"""What a data set really contains: python src/check_data.py data=pneumonia"""

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def check_data(config: DictConfig) -> None:
    """Look for duplicates, contradicting labels and empty images in a data set"""
    from lab.datasets.check_data import check_data  # torch takes seconds
    from lab.datasets.dataset import load

    check_data(config.data.name, load(config.data), config.model.scale, run_folder())


if __name__ == "__main__":
    run_command(check_data, "check_data")
