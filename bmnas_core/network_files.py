"""Trained networks as files: safetensors, with the genotype, sizes and signature in the header.

Nothing is unpickled, and all is checked: a file that loads gives the network that was saved.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .config import Config, setting
from .errors import BmnasError, check_type, quoted
from .genotype import Genotype
from .networks import FusionNetwork
from .runtime import seeded
from .signature import Signature
from .tasks.task import Modality, Task, as_task
from .tensor_files import check_tensors, read_tensors, write_tensors
from .train import EndToEnd

FORMAT = "bmnas-network/2"


class NetworkError(BmnasError):
    """A network that cannot be saved, or a file that holds none."""


@dataclass(frozen=True, kw_only=True)
class NetworkHeader(Config):
    """What a file says of its tensors, whose names are the keys of the network's state dict.

    Attributes:
        channels: of the features that the genotype uses.
        backbones: modality → names of its backbone's tensors; None for a fusion network alone.
    """

    format: str = FORMAT
    genotype: dict
    channels: dict[str, int]
    classes: int = setting(ge=1)
    C: int = setting(ge=1)
    L: int = setting(ge=1)
    dropout: float = setting(ge=0.0, le=1.0)
    gaps: bool = False
    signature: dict | None = None
    backbones: dict[str, tuple[str, ...]] | None = None


def save_network(net: FusionNetwork | EndToEnd, path: str | os.PathLike) -> Path:
    """Write a network that :func:`~bmnas_core.train.train` gave, with its backbones if it has any.

    Raises NetworkError for another network or values that are not finite, FileError for a path
    that cannot be written.
    """
    check_type(net, (FusionNetwork, EndToEnd), "net", NetworkError, "a network, as train gives")
    fusion, modalities = getattr(net, "fusion", net), getattr(net, "modalities", ())
    tensors = net.state_dict()
    header = NetworkHeader(
        genotype=json.loads(fusion.genotype.to_json()),
        channels=fusion.reshape.channels,
        classes=fusion.classes,
        C=fusion.C,
        L=fusion.L,
        dropout=fusion.dropout,
        gaps=fusion.gaps,
        signature=fusion.signature and fusion.signature.to_dict(),
        backbones=_backbone_tensors(modalities) if modalities else None,
    )
    check_tensors(tensors, _expected_tensors(header, fusion.genotype, modalities), NetworkError)
    _check_finite(tensors)
    write_tensors(path, tensors, header.to_dict())
    return Path(path)


def load_network(path: str | os.PathLike, task: Task | None = None) -> FusionNetwork | EndToEnd:
    """The network that :func:`save_network` wrote, on the CPU and in evaluation mode.

    ``task`` is needed for a network with backbones: those of its modalities are the architecture
    that the weights are read into. Raises NetworkError, which names the file and what is wrong.
    """
    modalities = () if task is None else as_task(task).modalities

    def check(fields: dict, described: dict[str, Tensor]) -> tuple:
        header = NetworkHeader.from_dict(fields)
        genotype = Genotype.from_json(json.dumps(header.genotype), "genotype")
        signature = header.signature and Signature.from_dict(header.signature)
        _check_header(header, genotype, signature)
        if modalities or header.backbones is not None:
            _check_task(header, genotype, task)
        _check_sizes(header, genotype, described)
        check_tensors(described, _expected_tensors(header, genotype, modalities), NetworkError)
        return header, genotype, signature

    (header, genotype, signature), tensors = read_tensors(
        path, FORMAT, NetworkError, "network", check
    )
    try:
        _check_finite(tensors)
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from None
    with seeded(0, "loaded network"):
        net = _fusion_network(header, genotype)
    net.signature = signature
    if header.backbones is not None:
        net = EndToEnd(task, net, header.L)
    net.load_state_dict(tensors)
    return net.eval()


def _fusion_network(header: NetworkHeader, genotype: Genotype) -> FusionNetwork:
    sizes = {"C": header.C, "L": header.L, "dropout": header.dropout, "gaps": header.gaps}
    return FusionNetwork(genotype, header.channels, header.classes, **sizes)


def _backbone_tensors(modalities: Sequence[Modality]) -> dict[str, tuple[str, ...]]:
    """Modality → names of its backbone's tensors in an :class:`EndToEnd` network."""
    return {
        modality.name: tuple(f"backbones.{m}.{name}" for name in modality.backbone.state_dict())
        for m, modality in enumerate(modalities)
    }


# --- checks, of a network that is saved and of a file that is loaded


def _check_header(header: NetworkHeader, genotype: Genotype, signature: Signature | None) -> None:
    """Raise NetworkError unless the parts of a header fit together."""
    if tuple(header.channels) != genotype.used_features:
        used = ", ".join(genotype.used_features)
        raise NetworkError("channels", f"those of {quoted(list(header.channels))}", used)
    if signature is None:
        return
    if signature.feature_names != genotype.features:
        found, allowed = quoted(list(signature.feature_names)), ", ".join(genotype.features)
        raise NetworkError("signature.features", found, allowed)
    for place in ("class_names", "mean"):
        found = len(getattr(signature, place))
        if found not in (0, header.classes):
            raise NetworkError(f"signature.{place}", found, f"{header.classes}, one a class")


def _check_task(header: NetworkHeader, genotype: Genotype, task: Task | None) -> None:
    """Raise NetworkError unless a network is one of this task."""
    if task is None:
        found = f"None for a network with backbones of {', '.join(header.backbones)}"
        raise NetworkError("task", found, "the task that has them: load_network(path, task)")
    of_task = f"those of task {task.name!r}: "
    if genotype.features != task.features:
        found, allowed = ", ".join(genotype.features), of_task + ", ".join(task.features)
        raise NetworkError("features", found, allowed)
    numbers = {name: task.channels[name] for name in header.channels} | {"classes": task.classes}
    for name, found in {**header.channels, "classes": header.classes}.items():
        if found != numbers[name]:
            place = name if name == "classes" else f"channels of {name!r}"
            raise NetworkError(place, found, f"{numbers[name]}, as in task {task.name!r}")
    allowed = _backbone_tensors(task.modalities)
    if header.backbones is not None and header.backbones != allowed:
        found = f"tensors {quoted(header.backbones)}"
        raise NetworkError("backbones", found, of_task + quoted(allowed))


def _check_sizes(header: NetworkHeader, genotype: Genotype, tensors: dict[str, Tensor]) -> None:
    """Raise NetworkError unless the tensors of a file have the sizes in its header.

    Nothing is built before, which might not fit in memory.
    """
    fusion = "" if header.backbones is None else "fusion."
    width = len(genotype.cells) * header.C * header.L
    wanted = {f"{fusion}classifier.linear.weight": (header.classes, width)}
    for i, channels in enumerate(header.channels.values()):
        wanted[f"{fusion}reshape.layers.{i}.conv.weight"] = (header.C, channels, 1)
    for name, shape in wanted.items():
        found = f"shape {tuple(tensors[name].shape)}" if name in tensors else "nothing"
        if found != f"shape {shape}":
            raise NetworkError(f"tensor {name!r}", found, f"{shape}, by the sizes in the header")


def _expected_tensors(
    header: NetworkHeader, genotype: Genotype, modalities: Sequence[Modality]
) -> dict[str, Tensor]:
    """Tensors of the shapes and types that a network has; those of the fusion without values."""
    try:
        with torch.device("meta"):
            fusion = _fusion_network(header, genotype)
    except Exception:  # an operation that reads its numbers; a real error is raised again below
        with seeded(0, "loaded network"):
            fusion = _fusion_network(header, genotype)
    if header.backbones is None:
        return fusion.state_dict()
    expected = {f"fusion.{name}": tensor for name, tensor in fusion.state_dict().items()}
    for names, modality in zip(header.backbones.values(), modalities, strict=True):
        expected |= zip(names, modality.backbone.state_dict().values(), strict=True)
    return expected


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Raise NetworkError for a tensor with a value that is no number, or without values."""
    for name, tensor in tensors.items():
        if tensor.is_meta or not tensor.isfinite().all():
            raise NetworkError(f"tensor {name!r}", "NaN, infinity or no values", "finite numbers")
