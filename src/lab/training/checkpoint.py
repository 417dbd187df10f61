"""Checkpoints: written whole or not at all, and read as if a stranger had sent them.

torch.load(weights_only=True) runs no code, but a file of 400 bytes can make it take all memory.
"""

import functools
import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from lab.errors import UserError, first_line
from lab.files import atomic_write, open_plain, refuse_bomb

MOST_PICKLED = 2**23  # bytes of lists, names and numbers, beside the weights
# the pickle opcodes that torch.save writes: none makes more than it has bytes
OPCODES = {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE"}
OPCODES |= {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
OPCODES |= {"BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"}
OPCODES |= {"EMPTY_DICT", "SETITEM", "SETITEMS"}
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and not into a folder that somebody has deleted meanwhile."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch's own writer does not say that a disk is full
        torch.save(checkpoint, content)
        with atomic_write(Path(path)) as beside:
            beside.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is run, and it takes at most about 3 times its size."""
    try:
        refuse_bomb(path)
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            return _read(archive)
    except Exception as error:  # a damaged archive raises whatever its parser does
        raise UserError(f"{path}: not a checkpoint of this run and this version ({first_line(error)})") from None


class _Place(NamedTuple):
    """Where a tensor's numbers lie in the archive."""

    numbers: tuple[str, torch.dtype, str, str, int]  # "storage", their dtype, the record, the device, how many
    start: int
    size: tuple[int, ...]
    strides: tuple[int, ...]


class _State(OrderedDict):
    """A module's state dict, to which torch gives the attribute _metadata."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._metadata = state["_metadata"]


class _Values(pickle.Unpickler):
    """Unpickles numbers, text, lists and dicts, and of each tensor its place; KeyError where anything else is named."""

    def find_class(self, module: str, name: str) -> Any:
        return DTYPES[name] if module == "torch" else NAMES[f"{module}.{name}"]

    def persistent_load(self, numbers: tuple[str, torch.dtype, str, str, int]) -> Any:
        return numbers


NAMES = {
    "collections.OrderedDict": _State,
    "torch._utils._rebuild_tensor_v2": lambda numbers, start, size, strides, *_: _Place(numbers, start, size, strides),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
}


def _read(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The pickled values, with a tensor in each tensor's place."""
    (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    if archive.getinfo(name).file_size > MOST_PICKLED:
        raise ValueError(f"{archive.getinfo(name).file_size:,} bytes are too many beside the weights")
    values = _unpickle(archive.read(name))
    make = functools.cache(_Maker(archive, name.removesuffix("data.pkl")).make)
    todo, seen = [values], set()
    while todo:
        holder = todo.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(value, _Place):
                holder[key] = make(value)
            elif isinstance(value, dict | list) and id(value) not in seen:
                seen.add(id(value))
                todo.append(value)
    return values


def _unpickle(content: bytes) -> dict[str, Any]:
    """ValueError where it has what torch.save does not write."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in OPCODES or ("PUT" in opcode.name and argument > len(content)):
            raise ValueError(f"torch.save writes no such {opcode.name}")
    return _Values(io.BytesIO(content)).load()


class _Maker:
    """Makes the tensors of an archive, whose numbers lie in `folder`/data.

    Tensors may share their numbers, but all together are at most twice the archive's size.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.left = 2 * sum(member.file_size for member in archive.infolist())

    def make(self, place: _Place) -> Tensor:
        _, dtype, key, _, count = place.numbers
        content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        self.left -= len(content)
        if len(content) != count * dtype.itemsize or math.prod(place.size) > count or self.left < 0:
            raise ValueError("a tensor larger than the numbers that it is made of")
        numbers = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return numbers.as_strided(place.size, place.strides, place.start).clone()
