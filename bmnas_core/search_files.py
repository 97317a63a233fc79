"""Saved searches: a file's header, and the check that its tensors are those of such a search.

Nothing is built at a size that a header claims before the tensors in the file have that size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .config import Config, setting
from .errors import BmnasError, quoted
from .genotype import Genotype
from .networks import Hypernet
from .runtime import seeded
from .tasks.task import Task
from .tensor_files import check_tensors

FORMAT = "bmnas-search/3"
OPTIMIZERS = ("weight_optimizer", "architecture_optimizer")

#: Settings of a search that it passes on to its hypernet.
OF_HYPERNET = ("C", "L", "N", "M", "operations", "relaxation", "dropout", "partial", "sampling")

#: What Adam keeps for each parameter.
_ADAM = ("step", "exp_avg", "exp_avg_sq")


class SearchError(BmnasError):
    """A search that cannot start, go on or be resumed."""


@dataclass(frozen=True, kw_only=True)
class SearchHeader(Config):
    """The header of a saved search.

    Attributes:
        config: the search's, with all defaults.
        selection_steps: the most steps that the final selection can have, as known so far.
        bank: the content hash of the features.
        states: the account of the states so far (:class:`~bmnas_core.search_state.StateLog`).
        autosave: whether the search saves itself to this file, and ``every`` how many seconds.
        seconds: how long the search has taken.
    """

    format: str = FORMAT
    config: dict
    seed: int
    step: int = setting(ge=0)
    selection_steps: int = setting(ge=0)
    best_score: float | None = None
    best_genotype: dict | None = None
    features: tuple[str, ...]
    bank: str
    scoring: dict
    states: dict | None = None
    autosave: bool = False
    every: float | None = setting(ge=0.0)
    seconds: float = setting(0.0, ge=0.0)


def build_hypernet(task: Task, config: Config) -> Hypernet:
    """The hypernet of a search, with weights drawn from the current random numbers."""
    settings = {name: getattr(config, name) for name in OF_HYPERNET}
    return Hypernet(task.channels, task.classes, gaps=task.gaps, **settings)


def check_described(
    header: SearchHeader, config: Config, task: Task, described: dict[str, Tensor]
) -> None:
    """Raise SearchError unless these are the tensors of a search with this config on the task.

    ``described`` have shapes and types, but no values.
    """
    if header.features != task.features:
        allowed = f"those of task {task.name!r}: {', '.join(task.features)}"
        raise SearchError("features", quoted(list(header.features)), allowed)
    _check_sizes(config, task, described)
    # Adam has no state for a parameter that has had no gradient yet.
    check_tensors(described, _expected(task, config), SearchError, optional=OPTIMIZERS)
    for name in described:
        optimizer, _, field = name.rpartition(".")
        if field in _ADAM and optimizer.startswith(OPTIMIZERS):
            for other in _ADAM:
                if f"{optimizer}.{other}" not in described:
                    raise SearchError(f"tensor '{optimizer}.{other}'", "nothing", "one, as of Adam")


def check_values(header: SearchHeader, tensors: dict[str, Tensor]) -> None:
    """Raise SearchError for values that no search of that many steps can have."""
    for name, tensor in tensors.items():
        place, field = f"tensor {name!r}", name.rpartition(".")[2]
        if not tensor.isfinite().all():
            raise SearchError(place, "NaN or infinity", "finite numbers")
        if field in ("exp_avg_sq", "running_var", "num_batches_tracked") and (tensor < 0).any():
            raise SearchError(place, "negative numbers", "none below 0")
        if field == "step" and not (0 < tensor <= header.step and tensor == tensor.round()):
            raise SearchError(
                place, f"{float(tensor):g}", f"a whole number from 1 to {header.step}"
            )


def _check_sizes(config: Config, task: Task, described: dict[str, Tensor]) -> None:
    """Raise SearchError unless the sizes in a config match the tensors in the file."""
    for field in fields(config):
        if getattr(config, field.name) is None and field.name != "rungs":
            raise SearchError(f"config.{field.name}", "nothing", "a value")
    gammas = [name for name in described if name.endswith(".gamma")]
    if len(gammas) != config.N:
        raise SearchError("config.N", config.N, f"{len(gammas)}, as there are Cells in the file")
    wanted = {
        "reshape.layers.0.conv.weight": (config.C, task.channels[task.features[0]], 1),
        "classifier.linear.weight": (task.classes, config.N * config.C * config.L),
        "cells.0.gamma": (config.M, len(config.operations)),
    }
    for name, shape in wanted.items():
        tensor = described.get(f"hypernet.{name}")
        found = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
        if found != f"shape {shape}":
            allowed = f"{shape}, by the sizes in the header"
            raise SearchError(f"tensor 'hypernet.{name}'", found, allowed)


def _expected(task: Task, config: Config) -> dict[str, Tensor]:
    """Tensors with the shapes and types of such a search."""
    try:
        with torch.device("meta"):
            hypernet = build_hypernet(task, config)
    except Exception:  # an operation that reads its numbers; a real error is raised again below
        with seeded(0, "hypernet"):
            hypernet = build_hypernet(task, config)
    expected = {f"hypernet.{name}": tensor for name, tensor in hypernet.state_dict().items()}
    parameters = hypernet.weight_parameters(), hypernet.architecture_parameters()
    for optimizer, of_optimizer in zip(OPTIMIZERS, parameters, strict=True):
        for i, parameter in enumerate(of_optimizer):
            of_one = torch.empty((), device="meta"), parameter, parameter
            names = (f"{optimizer}.{i}.{field}" for field in _ADAM)
            expected |= zip(names, of_one, strict=True)
    return expected


def genotype_of(header: SearchHeader, task: Task, N: int) -> Genotype | None:
    """The best genotype so far. Raises SearchError for one of other features or Cells."""
    if header.best_genotype is None:
        return None
    genotype = Genotype.from_json(json.dumps(header.best_genotype), "best_genotype")
    if genotype.features != task.features or len(genotype.cells) != N:
        allowed = f"{N} Cells on {', '.join(task.features)}"
        raise SearchError("best_genotype", quoted(genotype), allowed)
    return genotype


def optimizer_states(tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[int, dict]]]:
    """Each optimiser with its state by parameter, from the tensors of a file."""
    for optimizer in OPTIMIZERS:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"{optimizer}."):
                _, i, field = name.split(".")
                state.setdefault(int(i), {})[field] = tensor
        yield optimizer, state
