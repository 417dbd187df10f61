"""Builds an architecture for images of one shape: finds the layers' shapes, draws weights, counts parameters."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.errors import UserError
from lab.models.layers import Scale
from lab.models.normalisation import BatchNorm2d


@dataclass
class Layer:
    """A row of the table that Keras' summary() prints."""

    name: str
    shape: tuple[int, ...]  # of the output, without the batch
    parameters: int


PIECE = 16  # images that frozen layers take at a time on a CPU: so few that their maps stay in its cache
# none that derives from them: it may compute something else
KNOWN_TO_ONEDNN = {nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, BatchNorm2d, nn.Flatten, nn.Linear}


class Network(nn.Sequential):
    """Layers in sequence, computed in the order and the memory layout that a CPU is fastest with.

    A ReLU before a max pooling runs after it, for 2x2 on a quarter of the numbers: outputs and gradients are the same,
    up to rounding, for the largest number stays the largest.

    The first `frozen` layers, up to the last frozen one before any that trains, do not change in training: `features`
    is what they make of images, `head` goes on from there. Whatever is frozen stays in evaluation mode.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.places = list(range(len(layers)))
        for place in range(len(layers) - 1):
            layer, after = self.order[place : place + 2]
            if type(layer) is nn.ReLU and not layer.inplace and type(after) is nn.MaxPool2d:
                self.places[place : place + 2] = self.places[place + 1], self.places[place]
        trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in self.order]
        before = self.order[: trains.index(True)] if True in trains else []
        self.frozen = max((place + 1 for place, layer in enumerate(before) if is_frozen(layer)), default=0)

    @property
    def order(self) -> list[nn.Module]:
        """The layers as they are computed; looked up, for Lightning replaces some by others."""
        layers = list(self)
        return [layers[place] for place in self.places]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the frozen layers make of images [n, c, h, w]: [n, channels, ...]; without frozen layers the images.

        On a CPU they take pieces of one size, the last one filled up, and one thread for each: with fewer images or
        more threads a convolution rounds otherwise. So in float32 an image has the same features, to the last bit,
        whichever images it is computed with.
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

    def head(self, features: Tensor) -> Tensor:
        """Logits [n, classes] for what `features` gives."""
        return _run(self.order[self.frozen :], features)

    def last_features(self, images: Tensor) -> Tensor:
        """What the last layer is given for images [n, c, h, w]."""
        return _run(self.order[self.frozen : -1], self.features(images))

    def train(self, mode: bool = True) -> "Network":
        """Not for what is frozen, and all before it: batch normalisation keeps its statistics, dropout is off."""
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
    """What `work` makes of each piece, as many at a time as torch has threads; no thread waits for another."""
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
    """Whether oneDNN's own layout may be faster: on a CPU, unless bfloat16 is computed or a graph is recorded.

    oneDNN's ReLU makes 0 of NaN: see all_finite.
    """
    watched = torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or torch.is_anomaly_enabled()
    return images.device.type == "cpu" and not watched and torch.backends.mkldnn.is_available()


def _lay_out(images: Tensor, layer: nn.Module) -> Tensor:
    """`images` in oneDNN's own layout from a 3x3 convolution to the last layer that knows it, else as ordinary tensor.

    With 3x3 kernels it is faster than channels_last, the layout of everything else; with others it is not. Dense layers
    after them gain too: oneDNN's products of few rows are faster than MKL's.
    """
    gains = type(layer) is nn.Conv2d and layer.kernel_size == (3, 3) and layer.out_channels % 16 == 0
    gains = gains and layer.padding_mode == "zeros"
    if images.is_mkldnn:
        return images if gains or (type(layer) in KNOWN_TO_ONEDNN and _is_plain(layer)) else images.to_dense()
    return images.to_mkldnn() if gains and images.dtype == torch.float32 else images


def _is_plain(layer: nn.Module) -> bool:
    """Whether oneDNN has the options of `layer`, which it knows."""
    is_dilated = getattr(layer, "dilation", 1) not in (1, (1, 1))
    return not is_dilated and getattr(layer, "affine", True) and not getattr(layer, "inplace", False)


def all_finite(net: nn.Module) -> bool:
    """Whether every weight and running mean is finite; the answers alone do not tell, see _gains_by_onednn."""
    return all(bool(values.isfinite().all()) for values in net.state_dict().values())


def build(
    architecture: nn.Sequential, shape: tuple[int, int, int], scale: float, name: str
) -> tuple[Network, list[Layer]]:
    """The network for uint8 images [n, *shape], whose pixels it divides by `scale`, and its layers.

    Weights are drawn from torch's global generator, biases are zero; both are laid out channels_last, which is faster
    on CPUs. UserError, with the layer, where the images are too small for the architecture called `name`.
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
    """Send one image through the network, so that its lazy layers learn their shapes; the table of its layers."""
    net.eval()
    outputs = torch.zeros(1, *shape, dtype=torch.uint8)
    layers = []
    for number, layer in enumerate(net):
        incoming = "x".join(map(str, outputs.shape[1:]))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Lazy modules are a new feature|Using padding='same' with even")
                outputs = layer(outputs)
        except Exception as error:  # whatever a network of the user's own raises
            raise UserError(
                f"model={name}: images of {'x'.join(map(str, shape))} are too small or of the wrong kind: "
                f"its layer {number}, {type(layer).__name__}, cannot take {incoming} ({error})"
            ) from None
        layers.append(Layer(type(layer).__name__, tuple(outputs.shape[1:]), count_parameters(layer)))
    net.train()
    return layers
