"""Batch normalisation as Keras has it: torch's but for the running variance."""

from torch import Tensor, nn


class _BiasedVariance:
    """The running variance is the mean of the batches' own, as Keras'; torch takes n / (n - 1) times as much.

    Of vectors in a batch of 32 that is 3 % more.
    """

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        kept = (1 - self.momentum) * self.running_var
        normalised = super().forward(values)
        self.running_var.sub_((self.running_var - kept) / (values.numel() // values.shape[1]))
        return normalised


class BatchNorm2d(_BiasedVariance, nn.BatchNorm2d):
    """Of feature maps [n, c, h, w]."""


class BatchNorm1d(_BiasedVariance, nn.BatchNorm1d):
    """Of vectors [n, c]."""


class LazyBatchNorm2d(nn.LazyBatchNorm2d):
    """One that learns c from the first maps."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm1d(nn.LazyBatchNorm1d):
    """One that learns c from the first vectors."""

    cls_to_become = BatchNorm1d
