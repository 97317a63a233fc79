"""Metrics: how a task is scored. Scores are scikit-learn's.

What reads a result needs its metric, but no tensor: PyTorch is imported where tensors are made.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .config import as_type
from .errors import BmnasError, TaskError, in_line, quoted
from .registry import Registry, takes

if TYPE_CHECKING:
    from torch import Tensor

#: Kinds of labels: classes (n,), of which there are two where they are binary; a multi-hot matrix
#: (n, classes) of 0 and 1; values (n,) or (n, values), floats, for regression.
LABEL_KINDS = ("binary", "classes", "multi-label", "values")

DIRECTIONS = {"max": max, "min": min}

#: Bootstrap resamples of validation; the error of a standard error from so many is 7 %.
RESAMPLES = 100


@dataclass(frozen=True)
class Metric:
    """How a task is scored and what its networks minimise.

    Attributes:
        score: outputs (n, classes) and labels → a float.
        loss: outputs and labels → a scalar tensor; None for the usual one, see
            :data:`~bmnas_core.losses.LOSSES`.
        labels: of LABEL_KINDS, those that it takes.
        direction: ``"max"`` if a higher score is better, ``"min"`` if a lower one is.
        limits: the least and the largest score, None where there is none. Scores from 0 to 1 are
            compared in percentage points.
        every_class: whether it is undefined on samples that lack a class, or have no other.
        hits: whether it is a share of samples, each a hit or a miss, so that its standard error is
            binomial.
    """

    score: Callable[[Tensor, Tensor], float]
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    labels: tuple[str, ...] = ("binary", "classes", "multi-label")
    direction: str = "max"
    limits: tuple[float | None, float | None] = (None, None)
    every_class: bool = False
    hits: bool = False

    owner = property(lambda self: self.score, doc="What the registry takes for its definition.")
    best = property(lambda self: DIRECTIONS[self.direction], doc="``max`` or ``min``.")
    worst = property(lambda self: min if self.direction == "max" else max, doc="The other one.")
    sign = property(lambda self: 1 if self.direction == "max" else -1)
    share = property(lambda self: self.limits == (0.0, 1.0), doc="Whether it is from 0 to 1.")

    def fits(self, kind: str, classes: int) -> bool:
        """Whether it takes labels of a kind, as a task's ``label_kind``, and so many classes."""
        return kind in self.labels or (
            kind == "classes" and classes == 2 and "binary" in self.labels
        )

    def undefined(self, labels: Tensor, classes: int) -> str:
        """Why such labels (n,) or (n, classes) have no score, or ``""``."""
        if self.every_class and not labels.is_floating_point():
            counts = labels.bincount(minlength=classes) if labels.dim() == 1 else labels.sum(0)
            for k, count in enumerate(counts.tolist()):
                if count in (0, len(labels)):
                    return f"{'only samples' if count else 'no sample'} of class {k}"
        import torch

        random = torch.Generator().manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = float(
                    self.score(torch.randn(len(labels), classes, generator=random), labels)
                )
        except Exception as error:  # whatever a metric of one's own raises
            return quoted(f"{type(error).__name__}: {error}")
        return "" if math.isfinite(found) else f"a score of {found}"


def _try_out(name: str, metric: Metric) -> None:
    """Refuse a metric whose parts are of the wrong kind, or whose loss does not work.

    The score is not tried, since it may import a large package; nor are losses of the kit's own.
    """
    place = f"metric {name!r}"
    if not metric.labels or not set(metric.labels) <= set(LABEL_KINDS):
        raise TaskError(f"{place}: labels", quoted(metric.labels), ", ".join(LABEL_KINDS))
    if not isinstance(metric.direction, str) or metric.direction not in DIRECTIONS:
        raise TaskError(f"{place}: direction", quoted(metric.direction), "'max', 'min'")
    if not inspect.isroutine(metric.score) or not takes(metric.score, 2):
        allowed = "a function of outputs and labels"
        raise TaskError(place, f"a score of {quoted(metric.score)}", allowed)
    if metric.loss is None or metric.score.__module__ == __name__:
        return
    from torch import Tensor

    for kind in metric.labels:
        outputs, labels = _example(kind)
        allowed = f"a scalar tensor for outputs of shape {tuple(outputs.shape)} and labels {kind!r}"
        try:
            loss = metric.loss(outputs, labels)
        except Exception as error:
            found = f"a loss that raised {type(error).__name__}: {in_line(error)}"
            raise TaskError(place, found, allowed) from None
        if not isinstance(loss, Tensor) or loss.dim():
            raise TaskError(place, f"a loss of {quoted(loss)}", allowed)
        if not loss.requires_grad:
            raise TaskError(place, "a loss without gradient", "one that follows from the outputs")


def _example(kind: str) -> tuple[Tensor, Tensor]:
    """Outputs and labels of three samples."""
    import torch

    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.5]], requires_grad=True)
    if kind == "values":
        return outputs[:, :1], torch.tensor([0.5, 1.0, -1.0])
    return outputs, torch.tensor([[1, 0], [0, 1], [1, 1]] if kind == "multi-label" else [0, 1, 1])


#: Metrics by name, filled by :func:`register_metric`.
METRICS = Registry("metric", TaskError, check=_try_out)


def register_metric(
    name: str,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    direction: str = "max",
    limits: tuple[float | None, float | None] = (None, None),
    every_class: bool = False,
    hits: bool = False,
):
    """Decorator: make a function of outputs and labels a :class:`Metric`'s score. ::

        @bm.register_metric("within_one", labels="values", limits=(0, 1))
        def within_one(values, labels):
            return float(((values[:, 0] - labels).abs() <= 1).double().mean())

    The score gets logits (n, classes) on the CPU, or values (n, values) in the labels' units;
    labels of one value are (n,), so take ``values[:, 0]``. By default a metric takes all labels
    that its ``loss`` takes, classes or a multi-hot matrix, and classes if it has no loss of its
    own. Raises TaskError for a name that is taken or ill-formed, or parts that do not work.
    """
    METRICS.check_name(name)

    def decorate(score):
        how = {"direction": direction, "every_class": every_class, "hits": hits}
        place = f"metric {name!r}"
        known = (labels,) if isinstance(labels, str) else labels or ()
        known = as_type(known, tuple[str, ...], f"{place}: labels", TaskError)
        kind = tuple[float | None, float | None]
        how["limits"] = as_type(limits, kind, f"{place}: limits", TaskError)
        metric = Metric(score, loss, known or ("classes",), **how)
        if loss is not None and not known:
            metric = _for_labels_of_loss(name, metric)
        METRICS.add(name, metric)
        return score

    return decorate


def _for_labels_of_loss(name: str, metric: Metric) -> Metric:
    """The metric for whatever labels its loss takes. Raises as :func:`_try_out` for none."""
    found, problem = [], None
    for kind in ("classes", "multi-label"):
        try:
            _try_out(name, replace(metric, labels=(kind,)))
            found.append(kind)
        except TaskError as error:
            problem = problem or error
    if not found:
        raise problem
    return replace(metric, labels=tuple(found))


def fitting(kind: str, classes: int) -> list[str]:
    """Names of the metrics that take such labels."""
    return [name for name, metric in METRICS.items() if metric.fits(kind, classes)]


def score_text(score: float) -> str:
    """A score in three decimals, or if it is large or small in four digits."""
    return f"{score:.3f}" if score == 0 or 5e-4 <= abs(score) < 1000 else f"{score:.4g}"


# --- the noise of a score


def standard_error(metric: Metric, outputs: Tensor, labels: Tensor, seed: int) -> float:
    """Of a score of samples (n, …): binomial, or the deviation over bootstrap resamples.

    Resamples keep the number of samples of each class (Efron 1979); one without a score does not
    count. It is never 0, since odds divide by it.
    """
    import torch

    from .runtime import generator

    if metric.hits:
        return binomial_error(metric.score(outputs, labels), len(labels))
    outputs, labels, random = outputs.cpu(), labels.cpu(), generator(seed, "bootstrap")
    classes = labels.dim() == 1 and not labels.is_floating_point()
    strata = labels if classes else torch.zeros(len(labels))
    parts = [(strata == k).nonzero()[:, 0] for k in strata.unique()]
    found = []
    for _ in range(RESAMPLES):
        sampled = [part[torch.randint(len(part), part.shape, generator=random)] for part in parts]
        rows = torch.cat(sampled)
        found.append(metric.score(outputs[rows], labels[rows]))
    scores = np.array(found)[np.isfinite(found)]
    return max(float(scores.std(ddof=1)), sys.float_info.min) if len(scores) > 1 else math.inf


def binomial_error(share: float, n: int) -> float:
    """Of a share of n samples, with one hit and one miss added so that it is never 0."""
    p = (min(max(share, 0.0), 1.0) * n + 1) / (n + 2)
    return math.sqrt(p * (1 - p) / (n + 2))


# --- scores of classes


def _share(name: str, labels: str | tuple[str, ...] = "classes", **how):
    """:func:`register_metric` of a score from 0 to 1."""
    return register_metric(name, labels=labels, limits=(0.0, 1.0), **how)


BOTH = ("classes", "multi-label")


@_share("accuracy", hits=True)
def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose largest logit is the label's. labels: (n,)."""
    return float((_finite(logits).argmax(1) == labels).double().mean())


@_share("balanced_accuracy", every_class=True)
def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean over classes of the share of its samples that are recognised. labels: (n,)."""
    from sklearn.metrics import recall_score

    labels, predicted = _numpy(labels), _numpy(logits).argmax(1)
    how = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    return float(recall_score(labels, predicted, **how))


@_share("f1", "binary", every_class=True)
def f1(logits: Tensor, labels: Tensor) -> float:
    """Harmonic mean of precision and recall of the second of two classes. labels: (n,)."""
    return _f1_score(logits, labels, "binary")


@_share("macro_f1", BOTH, every_class=True)
def macro_f1(logits: Tensor, labels: Tensor, threshold: float = 0.5) -> float:
    """F1 averaged over classes. labels: (n,), or (n, classes) of 0 and 1."""
    return _f1_score(logits, labels, "macro", threshold)


@_share("micro_f1", BOTH)
def micro_f1(logits: Tensor, labels: Tensor, threshold: float = 0.5) -> float:
    """F1 of all decisions together. labels: (n,), or (n, classes) of 0 and 1."""
    return _f1_score(logits, labels, "micro", threshold)


@_share("weighted_f1", BOTH)
def weighted_f1(logits: Tensor, labels: Tensor, threshold: float = 0.5) -> float:
    """F1 averaged over classes weighted by how often each occurs.

    labels: (n,), or (n, classes) of 0 and 1, where a class is predicted if sigmoid(logit) exceeds
    the ``threshold``, the task's.
    """
    return _f1_score(logits, labels, "weighted", threshold)


def _f1_score(logits: Tensor, labels: Tensor, average: str, threshold: float = 0.5) -> float:
    from sklearn.metrics import f1_score

    logits = _finite(logits)
    predicted = logits.argmax(1) if labels.dim() == 1 else logits.sigmoid() > threshold
    return float(f1_score(_numpy(labels), _numpy(predicted), average=average, zero_division=0))


@_share("auroc", BOTH, every_class=True)
def auroc(logits: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve (Fawcett 2006): of two classes, or the mean of one against the rest.

    labels: (n,), or (n, classes) of 0 and 1. A class that no sample or every sample has is left
    out.
    """
    from sklearn.metrics import roc_auc_score

    return _against_rest(roc_auc_score, logits, labels)


@_share("average_precision", BOTH, every_class=True)
def average_precision(logits: Tensor, labels: Tensor) -> float:
    """Area under the curve of precision over recall, of classes as in :func:`auroc`."""
    from sklearn.metrics import average_precision_score

    return _against_rest(average_precision_score, logits, labels)


@_share("equal_error_rate", "binary", direction="min", every_class=True)
def equal_error_rate(logits: Tensor, labels: Tensor) -> float:
    """Share of false alarms and of misses where both are equal, as in speaker verification.

    labels: (n,), of two classes. Between thresholds it is interpolated.
    """
    from sklearn.metrics import roc_curve

    def crossing(labels: np.ndarray, margins: np.ndarray) -> float:
        alarms, recalls, _ = roc_curve(labels, margins)
        return np.interp(0, alarms - (1 - recalls), alarms)

    return _against_rest(crossing, logits, labels)


def _against_rest(score: Callable, logits: Tensor, labels: Tensor) -> float:
    """Mean over classes of a score of 0 or 1 and how sure the network is; NaN if none has one."""
    logits, labels = _numpy(logits).astype(float), _numpy(labels)
    if labels.ndim == 1 and logits.shape[1] == 2:
        logits, labels = logits[:, 1:] - logits[:, :1], labels[:, None]
    elif labels.ndim == 1:
        logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        labels = labels[:, None] == np.arange(logits.shape[1])
    pairs = zip(labels.T, logits.T, strict=True)
    found = [score(own, margin) for own, margin in pairs if 0 < own.sum() < len(own)]
    return float(np.mean(found)) if found else math.nan


# --- scores of values


@register_metric("rmse", labels="values", direction="min", limits=(0.0, None))
def rmse(values: Tensor, labels: Tensor) -> float:
    """Root of the mean squared error, in the labels' units. labels: (n,) or (n, values)."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(*_both(values, labels)))


def absolute_error(values: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples and values, of labels (n,) or (n, values)."""
    return (values - labels.reshape(values.shape)).abs().mean()


@register_metric("mae", absolute_error, labels="values", direction="min", limits=(0.0, None))
def mae(values: Tensor, labels: Tensor) -> float:
    """Mean absolute error, in the labels' units. labels: (n,) or (n, values)."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(*_both(values, labels)))


@register_metric("r2", labels="values", limits=(None, 1.0))
def r2(values: Tensor, labels: Tensor) -> float:
    """Share of the labels' variance that is explained; 0 for their mean. labels: (n,) or (n, k)."""
    from sklearn.metrics import r2_score

    return float(r2_score(*_both(values, labels), force_finite=False))


@register_metric("pearson", labels="values", limits=(-1.0, 1.0))
def pearson(values: Tensor, labels: Tensor) -> float:
    """Correlation of values and labels, (n,) or (n, values), the mean over values.

    It is 0 if a network says the same of all samples.
    """
    columns = zip(*(part.reshape(len(part), -1).T for part in _both(values, labels)), strict=True)

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        if np.ptp(y) == 0:
            return math.nan
        return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) else 0.0

    return float(np.mean([correlation(x, y) for y, x in columns]))


def _both(values: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Labels and values in their shape, in float64: squares of float32 may leave its range."""
    return _numpy(labels).astype(float), _numpy(values.reshape(labels.shape)).astype(float)


def _numpy(tensor: Tensor) -> np.ndarray:
    """A tensor as an array. Raises as :func:`_finite`."""
    return _finite(tensor).detach().cpu().numpy()


def _finite(tensor: Tensor) -> Tensor:
    """``tensor`` itself. Raises :class:`BmnasError` for outputs that are not finite."""
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise BmnasError("outputs", "NaN or infinity", "finite numbers, or there is no score")
    return tensor
