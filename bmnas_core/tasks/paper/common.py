"""What the paper's three tasks share: where their files are, backbones, modalities."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...backbones.backbone import Backbone
from ...backbones.paper.checkpoints import load_checkpoint
from .. import files
from ..inputs import DataError, Inputs
from ..task import Modality, Split, TaskError

#: ImageNet's mean and standard deviation of red, green and blue in 0 … 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def folder_of(
    name: str, data_root: str | os.PathLike | None, sample: bool, make: Callable[..., None], *how
) -> Path:
    """``data_root``; by default the data set's folder, or the one of a sample written by ``make``.

    Raises TaskError for anything but a path.
    """
    if not isinstance(data_root, str | os.PathLike | None):
        raise TaskError(f"data_root: found {data_root!r}; allowed: the path of a folder")
    if data_root is not None:
        return Path(data_root).expanduser()
    return files.cached_folder(name, make, *how) if sample else files.data_root() / name


def modalities_of(
    backbones: Mapping[str, Backbone],
    inputs: Mapping[str, Inputs],
    weights: Mapping[str, str | os.PathLike] | None,
    pooling: str,
) -> tuple[Modality, ...]:
    """Modalities with their features numbered from 1, after reading ``weights``.

    Raises:
        TaskError: for weights of a modality that does not exist.
        CheckpointError: for weights that cannot be read or do not fit.
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


def paired_split(name: str, items: Sequence[int], labels: Tensor | Sequence[int]) -> Split:
    """A split whose samples have the same item number in both modalities."""
    index = torch.tensor(items, dtype=torch.long)[:, None].expand(-1, 2)
    return Split(name, index, torch.as_tensor(labels, dtype=torch.long))


def read_json(path: Path) -> object:
    """What a JSON file holds. Raises DataError for a file that cannot be read or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: found no JSON ({error})") from None
