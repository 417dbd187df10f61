"""Batches: how images reach the network, one indexed slice a batch, no workers, no copies."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from math import ceil, prod
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from lab.datasets.dataset import Dataset
from lab.datasets.pictures import MAPPED, release
from lab.display.terminal import make_bar
from lab.errors import UserError

Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 [n, c, h, w] or features, labels int64 [n], indices int64 [n]
EVALUATION_BATCH = 256  # images
MOST_PIXELS = EVALUATION_BATCH * 96**2  # in such a batch: of larger images it has fewer
MOST_BYTES_ON_GPU = 2**30
MOST_BYTES_IN_MEMORY = 2**30  # of features
MOST_OF_DISK = 0.5  # share of what is free, for features


class Batches:
    """One pass over a part, every image once, in order, in `n_batches` batches whose sizes differ by one at most.

    `release` is called now and then, to free the memory of what was read; `advance` with the size of each batch.
    """

    def __init__(
        self,
        images: "Tensor | Features",
        labels: Tensor,
        indices: Tensor,
        n_batches: int,
        device: torch.device | None = None,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self.images, self.labels, self.indices = images, labels, indices
        self.n_batches, self.device, self.release = n_batches, device, release
        self.advance: Callable[[int], object] = lambda images: None

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        read = 0
        for indices in self._slices():
            there = indices.to(self.images.device)
            images, labels = self.images[there].movedim(-1, 1), self.labels[there]
            # elsewhere the copy would read memory that is in use again already
            no_wait = self.device is not None and self.device.type == "cuda"
            if no_wait and not images.is_cuda:
                images = images.pin_memory()  # else the copy waits for the GPU
                labels = labels if labels.is_cuda else labels.pin_memory()  # beside features labels are there already
            self.advance(len(indices))
            if (read := read + images.nbytes) > MAPPED:
                self.release()
                read = 0
            yield images.to(self.device, non_blocking=no_wait), labels.to(self.device, non_blocking=no_wait), indices

    def _slices(self) -> Sequence[Tensor]:
        return self.indices.tensor_split(self.n_batches)


class ShuffledBatches(Batches):
    """Batches of `batch_size`, the last one with the rest, in an order that depends on seed and epoch alone.

    Each process of a distributed run gets its share, padded to the same length, as torch does.
    """

    def __init__(
        self,
        images: "Tensor | Features",
        labels: Tensor,
        indices: Tensor,
        batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        device: torch.device | None = None,
        release: Callable[[], object] = lambda: None,
        shuffle: bool = True,
    ) -> None:
        # torch adds the epoch to the seed: multiplied like this, no two seeds share an order
        sampler = DistributedSampler(range(len(indices)), processes, rank, shuffle, seed=seed * 1_000_000)
        # a last batch of one image joins the one before: batch normalisation cannot train on it
        super().__init__(images, labels, indices, max(ceil((len(sampler) - 1) / batch_size), 1), device, release)
        self.batch_size, self.n_images = batch_size, len(sampler) * processes
        self.sampler, self.batch_sampler = sampler, None  # Lightning looks for both, and tells one the epoch

    def _slices(self) -> Sequence[Tensor]:
        order = self.indices[list(self.sampler)]
        ends = range(self.batch_size, self.n_batches * self.batch_size, self.batch_size)
        return order.tensor_split(list(ends))


class WholeEpochs(ShuffledBatches):
    """ShuffledBatches that hands over all batches of an epoch as one item: see training.classifier."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[Batch]]:
        yield super().__iter__()


class Features:
    """What the frozen layers of `net` make of each of `images` [n, h, w, c], computed once: [n, ..., channels].

    They are indexed like the images. They are kept in memory, or, where they are large, in a file that is mapped into
    it; where that would take too much of the disk they are computed each time, to the same bits.
    """

    def __init__(self, images: Tensor, net: nn.Module) -> None:
        self.images, self.net = images, net
        self.kept: Tensor | None = None
        self.is_known = torch.zeros(len(images), dtype=torch.bool)
        self.precision: Callable[[], AbstractContextManager] = contextlib.nullcontext

    @property
    def device(self) -> torch.device:
        return self.kept.device if self.kept is not None else self.images.device

    def __getitem__(self, indices: Tensor) -> Tensor:
        if not self.is_known[indices.cpu()].all():
            features = self._compute(indices)
            if not self._keep(indices, features):
                return features
        return self.kept[indices.to(self.kept.device)]

    def compute(self, indices: Tensor) -> None:
        """Compute those at `indices` that are not known, with a progress bar."""
        missing = indices[~self.is_known[indices]]
        with make_bar(len(missing), " images", rank_zero_only.rank == 0) as bar:
            bar.set_description("features", refresh=False)
            for some in missing.split(_count_evaluated(self.images)):
                if not self._keep(some, self._compute(some)):
                    return
                bar.update(len(some))

    def _compute(self, indices: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        images = self.images[indices.to(self.images.device)].movedim(-1, 1).to(device)
        with torch.no_grad(), self.precision():
            return self.net.features(images).movedim(1, -1)

    def _keep(self, indices: Tensor, features: Tensor) -> bool:
        if self.kept is None:
            self.kept = _reserve((len(self.images), *features.shape[1:]), features.dtype)
        if self.kept is None:
            return False
        self.kept[indices.cpu()] = features.cpu()
        self.is_known[indices.cpu()] = True
        return True


def _count_evaluated(images: Tensor) -> int:
    """How many of `images` [n, h, w, c] to evaluate at a time: the larger they are, the more memory each one takes."""
    return min(EVALUATION_BATCH, max(1, MOST_PIXELS // prod(images.shape[1:3])))


def _reserve(size: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """Zeros in memory, or in a file without a name; None where the disk has too little, and on Windows."""
    numbers = prod(size)
    if numbers * dtype.itemsize <= MOST_BYTES_IN_MEMORY:
        return torch.zeros(size, dtype=dtype)
    if os.name == "nt" or numbers * dtype.itemsize > shutil.disk_usage(tempfile.gettempdir()).free * MOST_OF_DISK:
        return None
    with tempfile.NamedTemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # a full disk ends the run here, in a line
            os.posix_fallocate(file.fileno(), 0, numbers * dtype.itemsize)
        return torch.from_file(file.name, shared=True, size=numbers, dtype=dtype).view(size)


class ImageData(LightningDataModule):
    """A data set and its parts, as batches. The class's name is a key in checkpoints."""

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        tested: str = "test",
        whole_epochs: bool = False,
        features: Features | None = None,
        changes: bool = False,
    ) -> None:
        """`batch_size` is that of all processes of a distributed run together, `tested` the part to test on.

        `features` take the images' place; not in training, where that `changes` the images.
        """
        super().__init__()
        self.features, self.changes = features, changes
        self.dataset = dataset
        self.images, self.labels = torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)
        self.parts = {part: torch.from_numpy(indices) for part, indices in dataset.parts.items()}
        self.batch_size, self.seed, self.tested, self.whole_epochs = batch_size, seed, tested, whole_epochs

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: which images these are."""
        return {"sha256": self.dataset.sha256}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["sha256"] != self.dataset.sha256:
            raise UserError("the images are not those that the run began with: resume it with the same data")

    def setup(self, stage: str) -> None:
        """Put the images on the GPU, where they fit: then no step waits for a copy."""
        device = self.trainer.strategy.root_device
        if device.type != "cpu" and self.images.nbytes <= MOST_BYTES_ON_GPU:
            self.images, self.labels = self.images.to(device), self.labels.to(device)
        if self.features:
            self.features.precision = self.trainer.precision_plugin.forward_context

    def compute_features(self) -> None:
        """Compute before the first epoch, in an ordinary run, the features of all images that it will see."""
        if self.features and self.whole_epochs:
            seen = ["validation"] if self.changes else ["train", "validation"]
            self.features.compute(torch.cat([self.parts[part] for part in seen]))

    def train_dataloader(self) -> ShuffledBatches:
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        return (WholeEpochs if self.whole_epochs else ShuffledBatches)(
            self.images if self.changes else self.features or self.images,
            self.labels,
            self.parts["train"],
            max(self.batch_size // processes, 1),
            self.seed,
            rank,
            processes,
            self.trainer.strategy.root_device,
            self._release,
            shuffle=not self.trainer.overfit_batches,  # the same batches in each epoch
        )

    def val_dataloader(self) -> Batches | list:
        return self._evaluation_batches("validation")

    def test_dataloader(self) -> Batches | list:
        return self._evaluation_batches(self.tested)

    def _evaluation_batches(self, part: str) -> Batches | list:
        """The process's share of `part`, in as many batches as the others', for they wait for one another at each."""
        indices, rank, processes = self.parts[part], self.trainer.global_rank, self.trainer.world_size
        n_batches = ceil(len(indices) / (_count_evaluated(self.images) * processes))
        n_batches = min(n_batches, max(len(indices) // processes, 1))  # else the smallest share has an empty one
        images, device = self.features or self.images, self.trainer.strategy.root_device
        share = indices[rank::processes]
        return Batches(images, self.labels, share, n_batches, device, self._release) if n_batches else []

    def _release(self) -> None:
        """Keep no more than some pictures of a mapped file in memory."""
        release(self.dataset.images)
