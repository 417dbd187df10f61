"""From an architecture to a network for images of one shape: shapes found, weights drawn, parameters counted."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.errors import UserError
from lab.models.layers import Scale


@dataclass
class Layer:
    """A row of the table that Keras' summary() prints."""

    name: str
    shape: tuple[int, ...]  # of the output, without the batch
    parameters: int


PIECE = 16  # images that frozen layers take at a time on a CPU: their maps stay in its cache
KNOWN_TO_ONEDNN = (nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, nn.Flatten, nn.Linear)


class Network(nn.Sequential):
    """Layers as they are written, computed in the order and the memory layout that a CPU is fastest with.

    A ReLU before a max pooling runs after it, on a quarter of the numbers for 2x2: the largest of some numbers stays
    the largest. The same outputs and gradients, up to rounding.

    The first `frozen` layers, those before any that trains, are another network's: `features` is what they make of
    images, `answer` goes on from there. Whatever is frozen stays in evaluation mode.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.order = list(layers)
        for place in range(len(layers) - 1):
            if isinstance(self.order[place], nn.ReLU) and isinstance(self.order[place + 1], nn.MaxPool2d):
                self.order[place : place + 2] = self.order[place + 1], self.order[place]
        trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in self.order]
        before = self.order[: trains.index(True)] if True in trains else []
        self.frozen = max((place + 1 for place, layer in enumerate(before) if is_frozen(layer)), default=0)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Images [n, c, h, w] as they are where nothing is frozen, else [n, channels, ...].

        On a CPU in pieces of one size, the last one filled up, each by one thread: of fewer images, or by more threads,
        a convolution rounds otherwise. So in float32 an image has the same features, to the last bit, whatever is
        computed with it.
        """
        layers = self.order[: self.frozen]
        if not layers or images.device.type != "cpu" or torch.jit.is_tracing():
            return _run(layers, images)
        autocast = {"enabled": torch.is_autocast_enabled("cpu"), "dtype": torch.get_autocast_dtype("cpu")}

        def see(some: Tensor) -> Tensor:
            size = (PIECE, *some.shape[1:])
            piece = torch.zeros(size, dtype=some.dtype).contiguous(memory_format=torch.channels_last)
            piece[: len(some)] = some
            with torch.no_grad(), torch.autocast("cpu", **autocast):
                return _run(layers, piece)[: len(some)].movedim(1, -1).contiguous()

        return torch.cat(_with_one_thread_each(see, images.split(PIECE))).movedim(-1, 1)

    def answer(self, features: Tensor) -> Tensor:
        """Logits [n, classes] for what `features` gives."""
        return _run(self.order[self.frozen :], features)

    def last_features(self, images: Tensor) -> Tensor:
        """What the last layer is given for images [n, c, h, w]."""
        return _run(self.order[self.frozen : -1], self.features(images))

    def train(self, mode: bool = True) -> "Network":
        """But for what is frozen, and all before it: batch normalisation keeps its statistics, dropout is off."""
        super().train(mode)
        for module in (*self.order[: self.frozen], *filter(is_frozen, self.modules())):
            for inside in module.modules():
                inside.training = False
        return self


def is_frozen(module: nn.Module) -> bool:
    """Whether it has weights, none of which trains."""
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def _with_one_thread_each(work: Callable[[Tensor], Tensor], pieces: Sequence[Tensor]) -> list[Tensor]:
    """As many at a time as torch has threads, none of which waits for another."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(piece) for piece in pieces]
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(work, pieces))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _run(layers: Sequence[nn.Module], images: Tensor) -> Tensor:
    onednn = _gains_by_onednn(images)
    for layer in layers:
        images = layer(_lay_out(images, layer) if onednn else images)
    return images.to_dense() if images.is_mkldnn else images


def _gains_by_onednn(images: Tensor) -> bool:
    """Not where bfloat16 is computed or a graph is recorded. oneDNN's ReLU makes 0 of NaN: see all_finite."""
    watched = torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or torch.is_anomaly_enabled()
    return images.device.type == "cpu" and not watched and torch.backends.mkldnn.is_available()


def _lay_out(images: Tensor, layer: nn.Module) -> Tensor:
    """In oneDNN's own layout from a 3x3 convolution to the last layer that knows it, else as an ordinary tensor.

    channels_last, the layout of everything else, has slower convolutions there; of other sizes they are no faster.
    Dense layers after them gain too: oneDNN's products of few rows are faster than MKL's.
    """
    gains = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.out_channels % 16 == 0
    if images.is_mkldnn:
        return images if gains or isinstance(layer, KNOWN_TO_ONEDNN) else images.to_dense()
    return images.to_mkldnn() if gains and images.dtype == torch.float32 else images


def all_finite(net: nn.Module) -> bool:
    """Whether every weight and running mean is a number, which the answers alone do not tell."""
    return all(bool(values.isfinite().all()) for values in net.state_dict().values())


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
