"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

from omegaconf import DictConfig

from lab.command import run_command
from lab.config import run_folder


def train(config: DictConfig) -> None:
    """Train a network of the labs"""
    if config.tune:
        from lab.tune import suggest_learning_rate as task
    else:
        from lab.fit import fit as task  # torch takes seconds: --help and wrong options answer without it
    task(config, run_folder())


if __name__ == "__main__":
    run_command(train, "train")
