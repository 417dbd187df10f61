"""Train one recipe on one data set: python src/train.py model=deep data=mnist"""

from omegaconf import DictConfig

from lab.config import run_command


def train(config: DictConfig) -> None:
    from lab.run import fit  # torch takes seconds: --help and wrong options answer without it

    fit(config)


if __name__ == "__main__":
    run_command(train, "train")
