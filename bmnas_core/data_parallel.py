"""Training on several devices: each of a few processes computes its share of every batch.

Hugging Face's accelerate starts them, by ``accelerate launch script.py`` or its notebook launcher,
and sums their gradients; on CPUs ``torchrun --nproc-per-node 2 script.py`` starts them. Only
networks that read raw inputs are trained so: backbones, and fusion networks together with theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import BmnasError


@dataclass(frozen=True)
class Processes:
    """The processes that train a network together, and which of them this is, from 0."""

    index: int = 0
    count: int = 1

    def share(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """This process's parts of a batch."""
        return parts[self.index :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        return reduce(values, reduction="sum")

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes, if it has any there."""
        parameters = list(parameters)
        if self.count == 1 or not parameters:
            return
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        parts = [part.flatten() for part in (*parts, there.to(parts[0]))]
        *sums, there = self.total(torch.cat(parts)).split([len(part) for part in parts])
        for parameter, gradient, counted in zip(parameters, sums, there.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if counted else None

    def align(self, net: nn.Module) -> None:
        """Give a network everywhere the parameters and statistics that it has in the first one."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        for tensor in net.state_dict().values():
            tensor.copy_(broadcast(tensor.clone()))


def processes(device: torch.device) -> Processes:
    """The processes that a launcher has started, or this one alone.

    Raises BmnasError if there are several, but accelerate is not installed.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    # Some schedulers set WORLD_SIZE for ends of their own.
    if count < 2 or not ("LOCAL_RANK" in os.environ or torch.distributed.is_initialized()):
        return Processes()
    try:
        from accelerate import PartialState
    except ImportError:
        allowed = "one, or accelerate: pip install 'bmnas[cluster]'"
        raise BmnasError("training", f"{count} processes (WORLD_SIZE)", allowed) from None
    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.process_index, state.num_processes)
