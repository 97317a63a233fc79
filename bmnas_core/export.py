"""A trained network as a ``torch.export`` program, which runs where the kit is not installed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .errors import BmnasError, check_type, quoted
from .networks import FusionNetwork, pool
from .runtime import generator
from .storage import atomic_write
from .train import EndToEnd

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: A batch of what a network reads: features by name, or raw inputs by modality.
Batch = dict[str, Tensor | list[Tensor]]

#: Samples to export with, and numbers of samples that the program is tried out on.
EXAMPLE, TRIED = 2, (1, 2, 5)

#: The most by which outputs of the program may differ, in units of the largest (at least 1).
TOLERANCE = 1e-5


class ExportError(BmnasError):
    """A network that cannot be exported, or whose program gives other outputs."""


def export_program(
    net: FusionNetwork | EndToEnd,
    path: str | os.PathLike | None = None,
    example: Batch | None = None,
) -> ExportedProgram:
    """A trained network as a program for any number of samples: a dict of tensors → outputs.

    The program is tried out on several numbers of samples, and then written to ``path``, a .pt2
    with genotype.json and signature.json in it. Regression gives values, not standardised.

    Args:
        net: what :func:`~bmnas_core.train.train` gave. A fusion network's program reads features
            and pools them; one with backbones reads raw inputs by modality.
        example: two samples or more, whose shapes the program will take. By default features have
            those of the task's arrays, or are pooled already, (2, C, L), if a backbone gave them;
            raw inputs are the task's.

    Raises ExportError with the reason if torch.export cannot do it, FileError as
    :func:`~bmnas_core.storage.atomic_write`.
    """
    check_type(net, (FusionNetwork, EndToEnd), "net", ExportError, "a network, as train gives")
    program, fusion = _Program(net).eval(), getattr(net, "fusion", net)
    example = _example(net, example)
    samples = torch.export.Dim("n")
    shapes = {name: _each(value, lambda _: {0: samples}) for name, value in example.items()}
    with torch.no_grad():
        program(example)  # says what does not fit
        try:
            exported = torch.export.export(
                program, (example,), dynamic_shapes=(shapes,), strict=False
            )
            module = exported.module()
            errors = [_error(module, program, example, n) for n in TRIED]
        except Exception as error:  # of many kinds
            why = quoted(f"{type(error).__name__}: {error}", 400)
            raise ExportError(f"torch.export: found {why}") from None
    if not all(error <= TOLERANCE for error in errors):  # one may be NaN
        allowed = f"at most {TOLERANCE}"
        raise ExportError("outputs of the program", f"a difference of {max(errors):.1e}", allowed)
    if path is not None:
        texts = {"genotype.json": fusion.genotype.to_json()}
        if fusion.signature is not None:
            texts["signature.json"] = fusion.signature.to_json()
        file = io.BytesIO()
        torch.export.save(exported, file, extra_files=texts)
        with atomic_write(path) as beside:
            beside.write_bytes(file.getvalue())
    return exported


class _Program(nn.Module):
    """What is exported: pooling, the network, and for regression the way back to values."""

    def __init__(self, net: FusionNetwork | EndToEnd):
        super().__init__()
        self.net, self.signature = net, getattr(net, "fusion", net).signature

    def forward(self, inputs: Batch) -> Tensor:
        if isinstance(self.net, FusionNetwork) and self.signature is not None:
            how = self.signature.pooling_of
            inputs = {name: pool(x, self.net.L, how(name)) for name, x in inputs.items()}
        outputs = self.net(inputs)
        targets = self.signature and self.signature.targets
        return targets.in_units(outputs) if targets else outputs


def _example(net: FusionNetwork | EndToEnd, given: Batch | None) -> Batch:
    """Two samples of what a network reads, ``given`` or by default, on the network's device."""
    if isinstance(net, EndToEnd):
        usual = {modality.name: modality.inputs[:EXAMPLE] for modality in net.modalities}
    else:
        random, shapes = generator(0, "example"), getattr(net.signature, "shapes", None) or {}
        usual = {
            name: torch.randn(EXAMPLE, *shapes.get(name, (C, net.L)), generator=random)
            for name, C in net.reshape.channels.items()
        }
    given = check_type(usual if given is None else given, dict, "example", ExportError)
    device, found = next(net.parameters()).device, {}
    for name in usual:
        if name not in given:
            raise ExportError("example", f"nothing for {name!r}", ", ".join(usual))
        for part in given[name] if isinstance(given[name], list) else [given[name]]:
            if not isinstance(part, Tensor) or not part.dim() or len(part) < EXAMPLE:
                allowed = f"tensors of {EXAMPLE} samples or more"
                raise ExportError(f"example[{name!r}]", quoted(part), allowed)
        found[name] = _each(given[name], lambda part: part[:EXAMPLE].to(device))
    return found


def _each(value: Tensor | list[Tensor], function: Callable) -> object:
    """``function`` of a tensor, or of each in a list."""
    return list(map(function, value)) if isinstance(value, list) else function(value)


def _error(module: nn.Module, program: nn.Module, example: Batch, samples: int) -> float:
    """The largest difference of outputs on so many samples, in the units of TOLERANCE."""
    rows = torch.arange(samples) % EXAMPLE
    inputs = {k: _each(part, lambda x: x[rows.to(x.device)]) for k, part in example.items()}
    outputs, wanted = module(inputs), program(inputs)
    return float((outputs - wanted).abs().max() / wanted.abs().max().clamp(min=1))
