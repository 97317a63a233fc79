"""What is minimised: the usual losses, and a task's metric with a loss and a score for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from .errors import TaskError
from .metrics import METRICS, Metric, fitting


def _weighted(weight: Sequence[float] | None, outputs: Tensor) -> Tensor | None:
    return None if weight is None else torch.tensor(weight, device=outputs.device)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over samples, of labels (n,), each times the ``weight`` of its class if there are some.

    Label smoothing s takes the share s of a label and spreads it over all classes (Szegedy et al.
    2016).
    """
    if weight is None:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    # PyTorch would divide by the sum of weights, by which parts of a batch do not add up to it.
    how = {"weight": _weighted(weight, logits), "label_smoothing": label_smoothing}
    return nn.functional.cross_entropy(logits, labels, reduction="none", **how).mean()


def binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over samples and classes, of labels (n, classes) of 0 and 1.

    A ``weight`` is that of a class's samples against all others. Label smoothing s moves labels to
    s / 2 and 1 − s / 2.
    """
    smooth = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    how = {"pos_weight": _weighted(weight, logits)}
    return nn.functional.binary_cross_entropy_with_logits(logits, smooth, **how)


def squared_error(values: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples and values, of labels (n,) or (n, values)."""
    return (values - labels.reshape(values.shape)).square().mean()  # mse_loss fails in a vmap


@dataclass(frozen=True)
class Targets:
    """Mean and standard deviation of each value over train; networks give standardised values."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def from_labels(cls, labels: Tensor) -> Targets:
        """Of labels (n,) or (n, values). A value that does not vary has a scale of 1."""
        columns = labels.double().reshape(len(labels), -1)
        scale, varies = columns.std(0, correction=0), (columns != columns[0]).any(0)
        scale = torch.where(varies & (scale > 0), scale, torch.ones_like(scale))
        return cls(tuple(columns.mean(0).tolist()), tuple(scale.tolist()))

    def standardised(self, labels: Tensor) -> Tensor:
        """Labels (n,) or (n, values) → (n, values), of mean 0 and deviation 1 over train."""
        return (labels.reshape(len(labels), -1) - self._row(self.mean, labels)) / self._row(
            self.scale, labels
        )

    def in_units(self, outputs: Tensor) -> Tensor:
        """Outputs (…, n, values) in the labels' units."""
        return outputs * self._row(self.scale, outputs) + self._row(self.mean, outputs)

    def _row(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)


#: What is minimised, by kind of labels, unless a metric has a loss of its own.
LOSSES = {"classes": cross_entropy, "multi-label": binary_cross_entropy, "values": squared_error}


def metric_of(task) -> Metric:
    """The metric that a task names, with a loss and a score for that task.

    The loss has the task's class weights and label smoothing; of values, networks give
    standardised ones, the loss standardises the labels, and the score sees the task's units.
    Raises TaskError for a metric that does not exist, or does not fit the task's labels.
    """
    if task.metric not in METRICS:
        raise TaskError(f"{task.name}: metric", repr(task.metric), METRICS.names)
    metric, kind = METRICS[task.metric], task.label_kind
    if not metric.fits(kind, task.classes):
        raise TaskError(
            f"{task.name}: metric",
            f"{task.metric!r} for {kind}",
            ", ".join(fitting(kind, task.classes)),
        )
    loss, score = metric.loss or LOSSES[kind], metric.score
    given = {"weight": task.class_weights or None, "label_smoothing": task.label_smoothing}
    if given := {name: value for name, value in given.items() if value}:
        if not set(given) <= set(inspect.signature(loss).parameters):
            place = f"{task.name}: metric {task.metric!r}"
            found = "class weights or label smoothing, which its own loss does not take"
            raise TaskError(place, found, f"a loss with arguments {', '.join(given)}")
        loss = partial(loss, **given)
    if "threshold" in inspect.signature(score).parameters:
        score = partial(score, threshold=task.threshold)
    if task.targets is not None:
        loss, score = partial(_standardised, loss, task), partial(_in_units, score, task)
    return replace(metric, loss=loss, score=score)


def _standardised(loss: Callable, task, outputs: Tensor, labels: Tensor) -> Tensor:
    return loss(outputs, task.targets.standardised(labels))


def _in_units(score: Callable, task, outputs: Tensor, labels: Tensor) -> float:
    return score(task.targets.in_units(outputs), labels)
