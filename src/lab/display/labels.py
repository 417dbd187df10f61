"""What a key of the command line is called in figures, in tables and on the terminal."""

from collections.abc import Mapping

from lab.display.language import translate

CALLED = {  # by the whole key, or by its last word
    "model": "network",
    "data": "data set",
    "lr": "learning rate",
    "eps": "epsilon",
    "max_epochs": "epochs",
    "model.net.rate": "dropout rate",
    "model.average": "decay of the average",
    "model.train": "trained part",
    "data.test": "share for testing",
    "data.validation": "share for validation",
    "data.folds": "folds",
    "rotation": "rotation (degrees)",
    "limit_train_batches": "training batches",
}


def label(key: str) -> str:
    """learning rate of model.optimizer.lr; what has no name here, by its last word: batch size of model.batch_size."""
    key = key.lstrip("+").removesuffix("._target_")
    last = key.rpartition(".")[2]
    return translate(CALLED.get(key) or CALLED.get(last) or last.replace("_", " "))


def short(key: str) -> str:
    """lr of model.optimizer.lr"""
    return key.rpartition(".")[2]


def name_values(values: Mapping[str, str]) -> str:
    """lr=0.03, batch_size=64"""
    return ", ".join(f"{short(key)}={value}" for key, value in values.items())
