"""Which image is in which part, and how the images reach the network: one indexed slice a batch."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from torch import Tensor
from torch.utils.data import DistributedSampler

from lab import UserError
from lab.datasets import Dataset

Parts = dict[str, npt.NDArray[np.int64]]  # "train", "validation", "test": indices into the data set
Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 [n, c, h, w], labels int64 [n], their indices int64 [n]
EVALUATION_BATCH = 256
MOST_BYTES_ON_GPU = 2**30


def split(dataset: Dataset, validation: float | None, test: float | None, seed: int, stratify: bool) -> Parts:
    """The labs' splits. None takes the data set's own part; a fraction is cut from the images to train on.

    The images held out are drawn first and then divided, as lab E does. A test part that the data set has is never
    mixed with the others. `validation=0` trains on all.
    """
    own = dataset.own_parts
    indices = np.arange(len(dataset.labels))
    cuts = np.cumsum([own["train"], own.get("validation", 0)])
    train, own_validation, own_test = np.split(indices, cuts)
    if test is None and dataset.is_sample:
        test = 0.2
    if test is not None and "test" in own:
        raise UserError(f"data.test={test}: this data set has its own test part: leave it null")
    if test is None and "test" not in own:
        raise UserError("data.test=null: this data set has no test part of its own: give a fraction")
    if validation is None and "validation" not in own:
        raise UserError("data.validation=null: this data set has no validation part of its own: give a fraction")
    if validation is not None:
        train = np.concatenate([train, own_validation])
    n_validation, n_test = (round(len(train) * (fraction or 0)) for fraction in (validation, test))
    held_out = train[:0]
    if n_validation + n_test:
        train, held_out = _draw(train, dataset.labels, n_validation + n_test, seed, stratify)
    if n_validation and n_test:
        held_out, own_test = _draw(held_out, dataset.labels, n_test, seed, stratify)
    elif n_test:
        held_out, own_test = held_out[:0], held_out
    return {"train": train, "validation": own_validation if validation is None else held_out, "test": own_test}


def make_folds(parts: Parts, labels: npt.NDArray, folds: int, seed: int, stratify: bool) -> list[Parts]:
    """For each fold its parts: it for validation, the other folds to train on; the test part is in none of them.

    The images lie in the data set's own order, so that on MNIST the folds are lab A's: KFold(5, shuffle, 1).
    """
    images = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    splitter = (StratifiedKFold if stratify else KFold)(folds, shuffle=True, random_state=seed)
    try:
        return [
            {"train": images[train], "validation": images[held_out], "test": parts["test"]}
            for train, held_out in splitter.split(images, labels[images])
        ]
    except ValueError as error:
        raise UserError(f"data.folds={folds}: {error}") from None


def _draw(indices: npt.NDArray, labels: npt.NDArray, held_out: int, seed: int, stratify: bool) -> list[npt.NDArray]:
    try:
        return train_test_split(
            indices, test_size=held_out, random_state=seed, stratify=labels[indices] if stratify else None
        )
    except ValueError as error:
        raise UserError(f"{len(indices)} images cannot be split with {held_out} held out: {error}") from None


class Batches:
    """One pass over a part, in batches of images uint8 [n, c, h, w], labels [n] and their indices [n], on `device`.

    Each batch is one indexed slice of the data set. Every image once, in order, in `n_batches` of one size within one.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, indices: Tensor, n_batches: int, device: torch.device | None = None
    ) -> None:
        self.images, self.labels, self.indices = images, labels, indices
        self.n_batches, self.device = n_batches, device

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches():
            there = batch.to(self.images.device)
            images, labels = self.images[there].permute(0, 3, 1, 2), self.labels[there]
            if self.device is not None and self.device.type == "cuda" and not images.is_cuda:
                images, labels = images.pin_memory(), labels.pin_memory()  # else the copy waits for the GPU
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True), batch

    def _batches(self) -> Sequence[Tensor]:
        return self.indices.tensor_split(self.n_batches)


class ShuffledBatches(Batches):
    """In batches of `batch_size`, the last one of the rest, shuffled by seed and epoch alone, whatever happened before.

    An item is an epoch: what Lightning does around each costs as much as a step of a small network. Each process of a
    distributed run gets its share, padded to the same length, as torch does, and an item a batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        limit: float | None = None,
        device: torch.device | None = None,
        by_epoch: bool = True,
    ) -> None:
        """`limit` as Lightning's limit_train_batches: a number of batches, or a fraction of them as a float."""
        # torch adds the epoch to the seed: apart as they are here, no two seeds share an order
        sampler = DistributedSampler(range(len(indices)), processes, rank, seed=seed * 1_000_000)
        # a last batch of one image joins the one before: batch normalisation cannot train on it
        super().__init__(images, labels, indices, max(ceil((len(sampler) - 1) / batch_size), 1), device)
        self.batch_size, self.by_epoch = batch_size, by_epoch and processes == 1
        self.steps = self.n_batches
        if limit is not None:
            steps = limit if isinstance(limit, int) else int(limit * self.n_batches)
            self.steps = min(max(steps, 1), self.n_batches)
        self.n_images = min(len(sampler), self.steps * batch_size) * processes
        self.sampler, self.batch_sampler = sampler, None  # Lightning looks for both, and tells one the epoch

    def __len__(self) -> int:
        return 1 if self.by_epoch else self.steps

    def __iter__(self) -> Iterator[Iterable[Batch]]:
        batches = super().__iter__()
        yield from [batches] if self.by_epoch else ([batch] for batch in batches)

    def _batches(self) -> Sequence[Tensor]:
        order = self.indices[list(self.sampler)]
        ends = range(self.batch_size, self.n_batches * self.batch_size, self.batch_size)
        return order.tensor_split(list(ends))[: self.steps]


class ImageData(LightningDataModule):
    """A data set in memory and its parts, as batches."""

    def __init__(
        self,
        dataset: Dataset,
        parts: Parts,
        batch_size: int,
        seed: int,
        tested: str = "test",
        by_epoch: bool = True,
    ) -> None:
        """`batch_size` is that of all processes of a distributed run together, `tested` the part to test on."""
        super().__init__()
        self.dataset = dataset
        self.images, self.labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
        self.parts = {part: torch.from_numpy(indices) for part, indices in parts.items()}
        self.batch_size, self.seed, self.tested, self.by_epoch = batch_size, seed, tested, by_epoch
        self.limit: float | None = None  # as Lightning's limit_train_batches

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.train_dataloader().steps

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: which images these are."""
        return {"sha256": self.sha256}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["sha256"] != self.sha256:
            raise UserError("the images are not those that the run began with: resume it with the same data")

    @functools.cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.dataset.images))
        for numbers in (self.dataset.labels, *self.parts.values()):
            digest.update(np.ascontiguousarray(numbers))
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """On a GPU the images lie there from the start, where they fit: no step waits for a copy."""
        device = self.trainer.strategy.root_device
        if device.type != "cpu" and self.images.nbytes <= MOST_BYTES_ON_GPU:
            self.images, self.labels = self.images.to(device), self.labels.to(device)

    def train_dataloader(self) -> ShuffledBatches:
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        return ShuffledBatches(
            self.images,
            self.labels,
            self.parts["train"],
            max(self.batch_size // processes, 1),
            self.seed,
            rank,
            processes,
            self.limit,
            self.trainer.strategy.root_device,
            self.by_epoch,
        )

    def val_dataloader(self) -> Batches | list:
        return self._evaluation_batches("validation")

    def test_dataloader(self) -> Batches | list:
        return self._evaluation_batches(self.tested)

    def _evaluation_batches(self, part: str) -> Batches | list:
        """Each process's share in as many batches as the others', for they wait for one another at each."""
        indices, rank, processes = self.parts[part], self.trainer.global_rank, self.trainer.world_size
        n_batches = ceil(len(indices) / (EVALUATION_BATCH * processes))
        device = self.trainer.strategy.root_device
        return Batches(self.images, self.labels, indices[rank::processes], n_batches, device) if n_batches else []
