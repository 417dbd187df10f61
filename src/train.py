"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

from omegaconf import DictConfig

from lab.config import run_command, run_folder


def train(config: DictConfig) -> None:
    """Train a network of the labs"""
    from lab.fit import fit  # torch takes seconds: --help and wrong options answer without it

    fit(config, run_folder())


if __name__ == "__main__":
    run_command(train, "train")
