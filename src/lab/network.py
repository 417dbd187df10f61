"""From an architecture to a network for images of one shape: shapes found, weights drawn, parameters counted."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab import UserError
from lab.layers import Scale


@dataclass
class Layer:
    """A row of the table that Keras' summary() prints."""

    name: str
    shape: tuple[int, ...]  # of the output, without the batch
    parameters: int


class Network(nn.Sequential):
    """Layers as they are written, computed in the order and the memory layout that a CPU is fastest with.

    A ReLU before a max pooling runs after it, on a quarter of the numbers for 2x2: the largest of some numbers stays
    the largest. The same outputs and gradients, up to rounding.
    """

    def forward(self, images: Tensor) -> Tensor:
        layers = list(self)
        for place in range(len(layers) - 1):
            layer, following = layers[place : place + 2]
            if isinstance(layer, nn.ReLU) and isinstance(following, nn.MaxPool2d):
                layers[place : place + 2] = following, layer
        gains = self._gains_by_layout(images)
        for layer in layers:
            images = layer(_lay_out(images, layer) if gains else images)
        return images.to_dense() if images.is_mkldnn else images

    def _gains_by_layout(self, images: Tensor) -> bool:
        watched = torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or torch.is_anomaly_enabled()
        if watched or images.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        # oneDNN's ReLU would make 0 of NaN, and hide that a run has diverged
        known = (layer for layer in self if isinstance(layer, nn.Conv2d | nn.BatchNorm2d))
        return all(math.isfinite(numbers.sum()) for layer in known for numbers in layer.state_dict().values())


def _lay_out(images: Tensor, layer: nn.Module) -> Tensor:
    """In oneDNN's own layout from a 3x3 convolution to the last layer that knows it, else as an ordinary tensor.

    channels_last, the layout of everything else, has slower convolutions there; of other sizes they are no faster.
    """
    gains = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.out_channels % 16 == 0
    if images.is_mkldnn:
        return images if gains or isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.BatchNorm2d) else images.to_dense()
    return images.to_mkldnn() if gains and images.dtype == torch.float32 else images


def build(
    architecture: nn.Sequential, shape: tuple[int, int, int], scale: float, name: str
) -> tuple[Network, list[Layer]]:
    """The network for uint8 images [n, *shape], pixels divided by `scale`, and its layers.

    Weights are drawn from torch's global generator, biases are zero, in channels_last, which is faster on CPUs.
    Raises UserError, with the layer, where the images are too small for the architecture called `name`.
    """
    net = Network(Scale(scale), *architecture)
    layers = _run_dry(net, shape, name)
    for module in net.modules():
        if hasattr(module, "initialize"):
            module.initialize(module.weight)
            nn.init.zeros_(module.bias)
    return net.to(memory_format=torch.channels_last), layers


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """As Keras counts: with the moving mean and variance of batch normalisation, which are not trainable."""
    total = sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)
    if not trainable_only:
        total += sum(b.numel() for n, b in module.named_buffers() if n.endswith(("running_mean", "running_var")))
    return total


def _run_dry(net: Network, shape: tuple[int, int, int], name: str) -> list[Layer]:
    """One image through the network, which fixes what its lazy layers take in."""
    net.eval()
    outputs = torch.zeros(1, *shape, dtype=torch.uint8)
    layers = []
    for number, layer in enumerate(net):
        incoming = "x".join(map(str, outputs.shape[1:]))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Lazy modules are a new feature|Using padding='same' with even")
                outputs = layer(outputs)
        except (RuntimeError, IndexError) as error:
            raise UserError(
                f"model={name}: images of {'x'.join(map(str, shape))} are too small or of the wrong kind: "
                f"its layer {number}, {type(layer).__name__}, cannot take {incoming} ({error})"
            ) from None
        layers.append(Layer(type(layer).__name__, tuple(outputs.shape[1:]), count_parameters(layer)))
    net.train()
    return layers
