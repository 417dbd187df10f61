"""Whether a Jetson's torch can load a network: its TorchScript file, and what of it an old torch refuses."""

import io
import warnings
import zipfile
from collections.abc import Sequence

import torch
from torch import Tensor, nn

DEVICES = ("Nano", "Xavier", "Orin")  # all load what the oldest torch, the Nano's 1.10, loads
NEWEST_FILE_VERSION = 6  # that the Nano's torch 1.10 loads
# what makes torch 1.10 refuse a file, or abort; and in words
REFUSED = {
    "_aa(": "antialiased resizing",
    "scaled_dot_product": "attention",
    "torch.pad(": "torch.nn.functional.pad",
    "mkldnn": "an optimisation for one processor",
    "prim.RaiseException": "an exception",
    'torch.device("': "a device of its own",
    "gelu(": "GELU",
    "rms_norm(": "RMSNorm",
}


def trace(module: nn.Module, images: Tensor, methods: Sequence[str] = ("forward",)) -> dict[str, bytes]:
    """The records, by name, of the module's TorchScript file, without those that say where it was made.

    Each of `methods` takes images.
    """
    archive = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and all that these devices read
        torch.jit.save(torch.jit.trace_module(module, dict.fromkeys(methods, images), check_trace=False), archive)
    with zipfile.ZipFile(archive) as saved:
        return {
            name: saved.read(name)
            for name in saved.namelist()
            if not name.endswith(".debug_pkl") and "/traced_inputs" not in name
        }


def find_refused(records: dict[str, bytes]) -> str | None:
    """Why a Jetson's torch would refuse the records of a file, None where it loads them."""
    for name, record in records.items():
        refused = [meaning for part, meaning in REFUSED.items() if name.endswith(".py") and part in record.decode()]
        if refused:
            return f"the Jetson's torch has no {refused[0]}"
    version = int(next(record for name, record in records.items() if name.endswith("/version")))
    return f"it needs TorchScript's version {version}" if version > NEWEST_FILE_VERSION else None
