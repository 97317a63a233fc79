"""What the paper's three tasks have in common: where their files are, backbones, modalities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ...backbones.backbone import Backbone
from ...backbones.paper.checkpoints import load_checkpoint
from ..files import cached_folder
from ..files import data_root as default_root
from ..inputs import Inputs
from ..task import Modality, TaskError


def folder_of(
    name: str, data_root: str | os.PathLike | None, sample: bool, make: Callable[..., None], *how
) -> Path:
    """``data_root``; where None that of the data set, or of the sample that ``make`` makes.

    Raises:
        TaskError: for what is no path.
    """
    if not isinstance(data_root, str | os.PathLike | None):
        raise TaskError(f"data_root: found {data_root!r}; allowed: the path of a folder")
    if data_root is not None:
        return Path(data_root).expanduser()
    return cached_folder(name, make, *how) if sample else default_root() / name


def modalities_of(
    backbones: Mapping[str, Backbone],
    inputs: Mapping[str, Inputs],
    weights: Mapping[str, str | os.PathLike] | None,
    pooling: str,
) -> tuple[Modality, ...]:
    """Modalities with their features numbered from 1, and what weights there are read.

    Raises:
        TaskError: for weights of a modality that does not exist.
        CheckpointError: for those that do not fit.
    """
    if not isinstance(weights, Mapping | None):
        raise TaskError(f"weights: found {weights!r}; allowed: a dict, modality → file")
    for name, path in (weights or {}).items():
        if name not in backbones:
            raise TaskError(f"weights: found {name!r}; allowed: {', '.join(backbones)}")
        load_checkpoint(backbones[name], path)
    return tuple(
        Modality(
            name,
            backbone.eval(),
            {f"{name}_{i + 1}": c for i, c in enumerate(backbone.channels)},
            inputs[name],
            pooling,
        )
        for name, backbone in backbones.items()
    )
