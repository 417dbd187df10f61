"""speed=fast: other arithmetic than the labs' float32, where the hardware gains by it."""

import torch
from omegaconf import DictConfig


def choose_precision(config: DictConfig) -> str:
    """Put what speed=fast chooses here into `config.trainer.precision`; say why."""
    on_gpu = config.trainer.accelerator != "cpu" and torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator().type if on_gpu else "cpu"
    config.trainer.precision, why = _fastest(device)
    return why


def allow_short_products() -> None:
    """On CUDA, also TensorFloat32 and the fastest of several convolutions."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True


def _fastest(device: str) -> tuple[str, str]:
    """Lightning's precision for a "cpu", "cuda" or "mps", and why.

    Weights, their updates, losses and batch normalisation stay in float32: the products alone are made shorter.
    """
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "products in bfloat16, which this GPU has"
        return "16-mixed", "products in float16: this GPU has no bfloat16"
    if device == "mps":
        return "bf16-mixed", "products in bfloat16 on Apple's GPU"
    able = torch.cpu.get_capabilities()
    for feature, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if able.get(feature):
            return "bf16-mixed", f"products in bfloat16 by this CPU's {name}"
    return "32-true", "float32 as ever: bfloat16 is slower on this CPU, which has neither AMX nor AVX512-BF16"
