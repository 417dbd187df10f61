"""What a data set really contains: python src/check_data.py data=pneumonia"""

from omegaconf import DictConfig

from lab.command import run_command
from lab.config import run_folder


def check_data(config: DictConfig) -> None:
    """Look for duplicates, contradicting labels and empty images in a data set"""
    from lab.inspection import inspect
    from lab.run import load_data, split_data

    dataset, classes = load_data(config.data)
    inspect(config.data.name, dataset, split_data(dataset, config.data), classes, run_folder())


if __name__ == "__main__":
    run_command(check_data, "check_data")
