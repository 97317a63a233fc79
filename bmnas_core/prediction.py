"""Predictions of a trained network for new samples, from their features or their raw inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .backbones.tap import evaluating
from .errors import BmnasError, check_type, in_line, near_miss, quoted
from .features import extract
from .networks import FusionNetwork, pool
from .tasks.arrays import as_tensor, feature_arrays
from .tasks.inputs import DataError, first_readable, load, move
from .tasks.task import Modality, Task, as_task
from .train import EndToEnd

if TYPE_CHECKING:
    import pandas as pd

#: Samples that go through a network at a time.
BATCH = 256


class PredictionError(BmnasError):
    """Samples that a network cannot read."""


def predict(
    net: FusionNetwork | EndToEnd,
    inputs: Mapping[str, object],
    *,
    task: Task | None = None,
    present: Mapping[str, object] | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """What a trained network says of new samples: probabilities, or a regression's values.

    Args:
        net: what :func:`~bmnas_core.train.train` or
            :func:`~bmnas_core.network_files.load_network` gave.
        inputs: modality → its features, as :meth:`Task.from_features` takes them: a list of arrays
            in the task's order, or a dict by name, which may lack features that the network does
            not read. With ``task``, and for a network that has backbones, modality → raw inputs, a
            tensor (n, …) or a ``torch.utils.data.Dataset``.
        task: the task whose backbones read raw inputs.
        present: modality → (n,) booleans, which samples have it, for a network that knows gaps.
        workers: processes that read a dataset, see :func:`~bmnas_core.tasks.inputs.load`.

    Returns:
        A row for each sample and a column for each class, by name or number: of classes
        probabilities whose sum is 1, of a multi-label task one probability for each; or for each
        value, in the labels' units.

    Raises PredictionError, TaskError or DataError for inputs that do not fit.
    """
    import pandas as pd

    check_type(net, (FusionNetwork, EndToEnd), "net", PredictionError, "a network, as train gives")
    fusion = getattr(net, "fusion", net)
    if fusion.signature is None:
        raise PredictionError("net", "a network without signature", "one that bm.train gave")
    raw = task is not None or isinstance(net, EndToEnd)
    if present is not None and (raw or not fusion.gaps):
        why = "raw inputs" if raw else "a network that knows no gaps"
        raise PredictionError("present", f"it with {why}", "features, of a network trained on gaps")
    if not isinstance(inputs, Mapping):
        raise PredictionError("inputs", quoted(inputs), "a dict by modality")
    for name in inputs:
        if name not in fusion.signature.features:
            found = f"modality {quoted(name)}{near_miss(name, fusion.signature.features)}"
            raise PredictionError("inputs", found, ", ".join(fusion.signature.features))
    batches = _raw(net, inputs, task, workers) if raw else _features(net, inputs, present)
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            outputs = torch.cat([net(batch).float().cpu() for batch in batches])
    except BmnasError:
        raise
    except Exception as error:  # whatever a foreign backbone raises
        found = f"samples for which it raised {type(error).__name__}: {in_line(error)}"
        raise PredictionError("inputs", found, "samples like the task's") from error
    finally:
        net.train(training)
    bad = (~outputs.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise PredictionError(f"outputs, row {bad[0]}", "NaN or infinity", "inputs like the task's")
    signature, columns = fusion.signature, list(fusion.signature.class_names)
    values = _meaning(outputs, signature)
    return pd.DataFrame(values.numpy(), columns=columns or range(outputs.shape[1]))


def _meaning(outputs: Tensor, signature) -> Tensor:
    """Probabilities, or values in the labels' units."""
    if signature.labels == "values":
        return signature.targets.in_units(outputs)
    return outputs.softmax(1) if signature.labels == "classes" else outputs.sigmoid()


def _features(net: FusionNetwork, inputs: Mapping, present: Mapping | None) -> Iterator[dict]:
    """Batches of pooled features by name, those that the network reads."""
    signature, device = net.signature, next(net.parameters()).device
    named = _named(inputs, net)
    if not named:
        read = ", ".join(net.reshape.channels)
        raise PredictionError("inputs", f"{quoted(list(inputs))}, of which it reads none", read)
    if isinstance(present, Mapping):  # masks of modalities that the network does not read
        rest = signature.features.keys() - named.keys()
        present = {name: mask for name, mask in present.items() if name not in rest}
    arrays = feature_arrays(named, present)
    modality_of = {name: m for m, names in signature.features.items() for name in names}
    for name, channels in net.reshape.channels.items():
        own = arrays.get(modality_of[name])
        if own is None or name not in own.arrays:
            found = ", ".join(n for one in arrays.values() for n in one.arrays)
            raise PredictionError("inputs", f"features {found}", f"{name!r} among them")
        if own.arrays[name].shape[1] != channels:
            found = f"shape {tuple(own.arrays[name].shape)}"
            raise PredictionError(f"feature {name!r}", found, f"(n, {channels}, …)")
    n = len(next(iter(arrays.values())))
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        batch = {}
        for modality, own in arrays.items():
            for name, values in zip(own.arrays, own[rows], strict=True):
                if name in net.reshape.channels:
                    pooled = pool(values, net.L, signature.pooling[modality])
                    if own.present is not None:
                        pooled[~own.present[rows]] = torch.nan
                    batch[name] = pooled.to(device)
        yield batch


def _named(inputs: Mapping, net: FusionNetwork) -> dict[str, dict[str, object]]:
    """Features by modality and name, those that the network does not read left out."""
    found = {}
    for modality, arrays in inputs.items():
        names = net.signature.features[modality]
        if not isinstance(arrays, Mapping):
            listed = list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]
            if len(listed) != len(names):
                allowed = f"{len(names)}: {', '.join(names)} (raw inputs need task=)"
                raise PredictionError(f"{modality}: features", f"{len(listed)}", allowed)
            arrays = dict(zip(names, listed, strict=True))
        for name in arrays:
            if name not in names:
                found_name = f"{quoted(name)}{near_miss(name, names)}"
                raise PredictionError(f"{modality}: feature", found_name, ", ".join(names))
        if read := {k: v for k, v in arrays.items() if k in net.reshape.channels}:
            found[modality] = read
    return found


def _raw(
    net: FusionNetwork | EndToEnd, inputs: Mapping, task: Task | None, workers: int | None
) -> Iterator[dict]:
    """Batches of what backbones make of raw inputs; of those themselves if the network has some."""
    modalities = net.modalities if task is None else as_task(task).modalities
    fusion, device = getattr(net, "fusion", net), next(net.parameters()).device
    if {m.name: tuple(m.channels) for m in modalities} != fusion.signature.features:
        allowed = f"one with features {', '.join(fusion.signature.feature_names)}"
        raise PredictionError("task", f"task {task.name!r}", allowed)
    used = fusion.reshape.channels.keys()
    read = [m for m in modalities if net is not fusion or used & m.channels.keys()]
    read = [_with_inputs(modality, inputs) for modality in read]
    sizes = {modality.name: len(modality.inputs) for modality in read}
    if len(set(sizes.values())) > 1:
        raise PredictionError("inputs", f"{quoted(sizes)} samples", "as many of each modality")
    rows = torch.arange(next(iter(sizes.values()))).split(BATCH)
    items = [(part, part[:, None].expand(-1, len(read))) for part in rows]
    for batch in load([modality.inputs for modality in read], items, workers=workers):
        for why in batch.failures.values():
            raise DataError(why)
        given = dict(zip(sizes, (move(part, device) for part in batch.inputs), strict=True))
        yield given if net is not fusion else _extracted(read, given, net.L)


def _extracted(modalities: list[Modality], inputs: dict[str, Tensor], L: int) -> dict[str, Tensor]:
    """Features of a batch, by backbones that are where their inputs are only meanwhile."""
    features = {}
    for modality in modalities:
        backbone, device = modality.backbone, inputs[modality.name].device
        before = next(iter(backbone.parameters()), torch.empty(0)).device
        backbone.to(device)
        with evaluating(backbone):
            features |= extract(modality, backbone, inputs[modality.name], L)
        backbone.to(before)
    return features


def _with_inputs(modality: Modality, inputs: Mapping) -> Modality:
    """The modality with new inputs."""
    if modality.name not in inputs:
        raise PredictionError(
            "inputs", ", ".join(inputs) or "none", f"{modality.name!r} among them"
        )
    given = inputs[modality.name]
    if isinstance(modality.backbone, nn.Identity):
        raise PredictionError("task", "a task of features, without backbones", "no task")
    if isinstance(given, (np.ndarray, Tensor)):
        given, allowed = as_tensor(modality.name, given), "a tensor (n, …)"
        if not given.dim() or not len(given):
            raise PredictionError(modality.name, f"shape {tuple(given.shape)}", allowed)
        wanted = first_readable(modality.inputs).dtype
        given = given.to(wanted) if wanted.is_floating_point else given
    return replace(modality, inputs=given, classes=None)
