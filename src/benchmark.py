"""How fast is it, and against what? python src/benchmark.py recipes=[deep,cnn] keras=/path/to/python"""

from omegaconf import DictConfig

from lab.cli.command import run_command
from lab.config.schema import run_folder


def benchmark(config: DictConfig) -> None:
    """Time the recipes in this project, in PyTorch, in Lightning as its tutorials have it, and in Keras"""
    from lab.experiments.benchmark import benchmark

    benchmark(config, run_folder())


if __name__ == "__main__":
    run_command(benchmark, "benchmark")
