"""Keras' optimizers, whose formulas differ from torch's by where epsilon stands."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """Keras' Adam: epsilon is added before the second moment's bias is corrected, and so counts for more at first.

    torch adds it after: with another epsilon for each step it takes Keras' steps. Fused where torch's is.
    """

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1  # here, where checkpoints keep it
            group["eps"] = self.defaults["eps"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        return super().step(closure)


class RMSprop(torch.optim.Optimizer):
    """Keras 3's RMSprop: epsilon is added inside the root, torch adds it to the root.

    The least divisor is the root of `eps`, 3.16e-4 for 1e-7: with tiny gradients a weight moves less than in torch.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, alpha: float = 0.9, eps: float = 1e-7, weight_decay: float = 0.0
    ) -> None:
        """`alpha` is Keras' rho, of the mean square of the gradients; `weight_decay` an L2 penalty, as torch's."""
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"{name}={value}: must not be negative")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha={alpha}: must be from 0 up to 1")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(weights, group)
        return loss

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["square_avg"] = torch.zeros_like(weight)
        squares = [self.state[weight]["square_avg"] for weight in weights]
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
        divisors = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(divisors)
        torch._foreach_addcdiv_(weights, gradients, divisors, -group["lr"])
