"""Metrics: how a task is scored, and what its networks minimise."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import TaskError
from .registry import Registry


@dataclass(frozen=True)
class Metric:
    """How a task is scored and what its networks minimise.

    ``loss`` maps logits (n, classes) and labels, (n,) classes or (n, classes) of 0 and 1, to a
    scalar tensor, ``score`` to a float, higher being better.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]

    def fits(self, classes: int, labels: Tensor) -> bool:
        """Whether it takes such labels: (n,) classes, or (n, classes) of 0 and 1."""
        try:
            return self.loss(torch.zeros(len(labels), classes), labels).dim() == 0
        except (RuntimeError, ValueError, IndexError, TypeError):  # PyTorch's, for other labels
            return False

    owner = property(lambda self: self.score, doc="What the registry takes for its definition.")


def _try_out(name: str, metric: Metric) -> None:
    """Refuse a metric whose loss works neither on classes nor on labels of 0 and 1.

    The score is not tried, since it may import a large package.
    """
    logits, found = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.5]]), ""
    for labels in (torch.tensor([0, 1, 1]), torch.tensor([[1, 0], [0, 1], [1, 1]])):
        try:
            loss = metric.loss(logits, labels)
            if isinstance(loss, Tensor) and loss.dim() == 0 and inspect.isroutine(metric.score):
                return
            found = f"a loss of {loss!r} and a score of {metric.score!r}"
        except Exception as error:
            found = found or f"a loss that raised {type(error).__name__}: {error}"
    allowed = "a scalar tensor for logits of shape (3, 2), and a function"
    raise TaskError(f"metric {name!r}", found, allowed)


#: Metrics by name, filled by :func:`register_metric`.
METRICS = Registry("metric", TaskError, check=_try_out)


def register_metric(name: str, loss: Callable[[Tensor, Tensor], Tensor]):
    """Decorator: make a function of logits and labels a :class:`Metric`'s score.

    Raises TaskError for a name that is taken or ill-formed, or a loss that does not work.
    """
    METRICS.check_name(name)

    def decorate(score):
        METRICS.add(name, Metric(loss, score))
        return score

    return decorate


def metric_of(task) -> Metric:
    """The metric that a task names. Raises :class:`TaskError` for one that does not exist."""
    if task.metric not in METRICS:
        raise TaskError(f"{task.name}: metric", repr(task.metric), METRICS.names)
    return METRICS[task.metric]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples and classes. labels: (n, classes) of 0, 1."""
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


@register_metric("accuracy", loss=nn.functional.cross_entropy)
def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose largest logit is the label's. labels: (n,)."""
    return float((logits.argmax(1) == labels).double().mean())


@register_metric("weighted_f1", loss=binary_cross_entropy)
def weighted_f1(logits: Tensor, labels: Tensor, threshold: float = 0.3) -> float:
    """F1 averaged over classes weighted by how often each occurs. labels: (n, classes) of 0, 1.

    A class is predicted if sigmoid(logit) exceeds ``threshold``; 0.3 is the paper's.
    """
    from sklearn.metrics import f1_score

    predicted = (logits.sigmoid() > threshold).cpu().numpy()
    return float(f1_score(labels.cpu().numpy(), predicted, average="weighted", zero_division=0))
