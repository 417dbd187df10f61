"""Batch normalisation as Keras has it: torch's but for the running variance."""

from torch import Tensor, nn


class _BiasedVariance:
    """The running variance is averaged from the batches' biased variances, as in Keras.

    torch averages the unbiased ones, n / (n - 1) times as large: for vectors in a batch of 32 by 3 %.
    """

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        kept = (1 - self.momentum) * self.running_var
        normalised = super().forward(values)
        # .data: backward holds the running variance and would refuse a changed one, though it does not read it
        self.running_var.data.sub_((self.running_var - kept) / (values.numel() // values.shape[1]))
        return normalised


class BatchNorm2d(_BiasedVariance, nn.BatchNorm2d):
    """Keras' batch normalisation of feature maps [n, c, h, w]."""


class BatchNorm1d(_BiasedVariance, nn.BatchNorm1d):
    """Keras' batch normalisation of vectors [n, c]."""


class LazyBatchNorm2d(nn.LazyBatchNorm2d):
    """A BatchNorm2d that learns c from the first maps."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm1d(nn.LazyBatchNorm1d):
    """A BatchNorm1d that learns c from the first vectors."""

    cls_to_become = BatchNorm1d
