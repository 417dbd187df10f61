"""Layers that torch lacks: as Keras declares them, for uint8 images, HOG, ImageNet's ResNet50 without its head."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.download import OfflineError, download
from lab.errors import UserError
from lab.files import open_plain
from lab.models.normalisation import LazyBatchNorm1d, LazyBatchNorm2d

IMAGENET_WEIGHTS = "https://download.pytorch.org/models/resnet50-0676ba61.pth"  # torchvision's IMAGENET1K_V1
IMAGENET_SHA256 = "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"

Initializer = Callable[[Tensor], Tensor]
glorot_uniform: Initializer = nn.init.xavier_uniform_


def he_uniform(weight: Tensor) -> Tensor:
    """Draw `weight` as Keras' he_uniform: from -sqrt(6 / inputs) to sqrt(6 / inputs) (He et al., 2015)."""
    return nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def Conv(  # noqa: N802, it declares a layer
    filters: int,
    size: int,
    stride: int = 1,
    padding: str | int = 0,
    init: Initializer = glorot_uniform,
    l2: float = 0.0,
) -> nn.LazyConv2d:
    """Keras' Conv2D: Glorot uniform kernel, zero bias; `l2` adds l2 * sum(kernel ** 2) to the loss."""
    return _declare(nn.LazyConv2d(filters, size, stride, padding), init, l2)


def Dense(units: int, init: Initializer = glorot_uniform) -> nn.LazyLinear:  # noqa: N802
    """Keras' Dense: Glorot uniform kernel, zero bias."""
    return _declare(nn.LazyLinear(units), init)


def BatchNorm(momentum: float = 0.01) -> nn.LazyBatchNorm2d:  # noqa: N802
    """Keras' BatchNormalization of feature maps: its momentum .99 is torch's .01."""
    return LazyBatchNorm2d(eps=1e-3, momentum=momentum)


def BatchNorm1d() -> nn.LazyBatchNorm1d:  # noqa: N802
    """Keras' BatchNormalization of a vector."""
    return LazyBatchNorm1d(eps=1e-3, momentum=0.01)


def _declare(layer: nn.Module, init: Initializer, l2: float = 0.0) -> nn.Module:
    layer.initialize, layer.l2 = init, l2
    return layer


class Scale(nn.Module):
    """Turns uint8 or float pixels [n, c, h, w] into the network's floats, divided by `divisor`."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.register_buffer("divisor", torch.tensor(float(divisor)), persistent=False)  # gets the network's precision

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.divisor.dtype) / self.divisor

    def extra_repr(self) -> str:
        return f"divisor={self.divisor:g}"


class Pad(nn.Module):
    """Zeros around images smaller than `side` x `side`, up to that size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        # as numbers: an exported file has those, and not how they are computed
        height, width = (max(self.side - int(length), 0) for length in images.shape[2:])
        # as F.pad, which torch of before 1.12 cannot read from a file
        return torch.constant_pad_nd(images, (width // 2, width - width // 2, height // 2, height - height // 2))


class Resize(nn.Module):
    """Bilinear interpolation to `side` x `side`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False)


class Normalise(nn.Module):
    """Subtracts the `mean` of each channel, divides by its `deviation`; makes of one channel as many as have means."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.deviation


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: the odd zero is added to the right and at the bottom."""

    def forward(self, images: Tensor) -> Tensor:
        edges = []  # left, right, top, bottom
        for side, kernel, stride in zip(images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((math.ceil(int(side) / stride) - 1) * stride + kernel - int(side), 0)
            edges += [missing // 2, missing - missing // 2]
        return super().forward(torch.constant_pad_nd(images, edges))  # see Pad


class Hog(nn.Module):
    """Histogram of oriented gradients: [n, c, h, w] to [n, orientations, h // cell, w // cell].

    Dalal and Triggs (2005), as skimage.feature.hog computes it with one cell a block and L2-Hys: at each pixel the
    channel with the steepest gradient counts.
    """

    def __init__(self, orientations: int, cell: int = 4) -> None:
        super().__init__()
        self.orientations, self.cell = orientations, cell
        self.register_buffer("bins", torch.arange(orientations).view(1, -1, 1, 1), persistent=False)
        edges = self.bins[:, 1:].double() * (math.pi / orientations)
        self.register_buffer("cos", edges.cos().float(), persistent=False)  # of 90 degrees 6e-17: not below 0
        self.register_buffer("sin", edges.sin().float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        down = torch.constant_pad_nd(images[:, :, 2:] - images[:, :, :-2], (0, 0, 1, 1))
        right = torch.constant_pad_nd(images[:, :, :, 2:] - images[:, :, :, :-2], (1, 1))
        magnitude, channel = torch.sqrt(down**2 + right**2).max(1, keepdim=True)
        down, right = down.gather(1, channel), right.gather(1, channel)
        upwards = (down < 0) | ((down == 0) & (right < 0))  # half a turn from the same orientation downwards
        half_turn = 1 - 2 * upwards.float()
        # which edges between bins its angle has passed; at an edge an arc tangent would differ between runtimes
        passed = half_turn * (down * self.cos - right * self.sin) >= 0
        bins = passed.sum(1, keepdim=True)
        histogram = F.avg_pool2d((bins == self.bins) * magnitude, self.cell)
        clipped = self._normalise(histogram).clamp(max=0.2)
        return self._normalise(clipped)

    @staticmethod
    def _normalise(histogram: Tensor) -> Tensor:
        return histogram / torch.sqrt((histogram**2).sum(1, keepdim=True) + 1e-10)

    def extra_repr(self) -> str:
        return f"{self.orientations}, cell={self.cell}"


class ImageNetResNet50(nn.Module):
    """torchvision's ResNet50 up to its global average, frozen: images in 0..1 [n, 1 or 3, h, w] to [n, 2048].

    `weights` is a file of torchvision's state dict; None downloads IMAGENET1K_V1, False leaves it to a checkpoint.
    """

    def __init__(self, weights: str | bool | None) -> None:
        super().__init__()
        from torchvision.models import resnet50  # 1 s, and no other network needs it

        self.backbone = resnet50()
        try:
            if weights is not False:
                self.backbone.load_state_dict(read_weights(Path(weights) if weights else _download_weights()))
        except (RuntimeError, TypeError):
            raise UserError(f"weights={weights}: not the weights of torchvision's ResNet50") from None
        self.backbone.fc = nn.Identity()
        self.normalise = Normalise([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.normalise(images))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict of torch.save or safetensors; nothing in it is run. UserError where it is neither."""
    path = path.expanduser()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # of the extra [pretrained]

            return load_file(path)
        with open_plain(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"weights={path}: there is no such file") from None
    except Exception as error:
        raise UserError(
            f"weights={path}: not a state dict that PyTorch can read safely ({type(error).__name__})"
        ) from None


def _download_weights() -> Path:
    """ImageNet's, in the place where torchvision itself keeps them. UserError where they cannot be fetched."""
    path = Path(torch.hub.get_dir(), "checkpoints", IMAGENET_WEIGHTS.rpartition("/")[2])
    try:
        return download([IMAGENET_WEIGHTS], path, f"sha256:{IMAGENET_SHA256}")
    except OfflineError as error:
        raise UserError(
            f"the ImageNet weights cannot be fetched ({error}): download {IMAGENET_WEIGHTS} and give weights=FILE"
        ) from None
