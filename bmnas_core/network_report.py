"""What a trained network gets right and wrong, class by class or value by value."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import pandas as pd
import torch
from torch import nn

from .draw.predictions import draw_confusion, draw_label_scores, draw_values
from .errors import check_type
from .features import FeatureBank, RawInputs
from .losses import metric_of
from .metrics import METRICS, score_text
from .tasks.task import Task, as_task
from .train import TrainError, outputs_of

_SHOWN = {"na_rep": "", "float_format": "{:.3f}".format}


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What :func:`report` found; it shows itself as its ``table``.

    Attributes:
        title: task, split and score.
        table: a row for each class: ``precision``, ``recall``, ``f1`` and ``samples``; or for each
            value of a regression: ``rmse``, ``mae``, ``r2``, ``pearson`` and ``samples``.
        axes: the matplotlib Axes of its chart: the confusion matrix; F1 of each label; or
            predicted against true values.
    """

    title: str
    table: pd.DataFrame
    axes: object

    @property
    def figure(self):
        """The chart's figure, which ``.savefig`` writes."""
        first = self.axes if hasattr(self.axes, "figure") else self.axes[0]
        return first.figure

    def __repr__(self) -> str:
        return f"{self.title}\n{self.table.to_string(**_SHOWN)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.title)}</p>{self.table.to_html(**_SHOWN)}"


def report(
    net: nn.Module,
    task: Task,
    split: str = "test",
    *,
    bank: FeatureBank | None = None,
    ax=None,
) -> Report:
    """A table and a chart of a trained network's predictions on a split.

    Of classes it is the confusion matrix, of a multi-label task the F1 of each label, of a
    regression predicted against true values. Read ``"test"`` once, when all is decided.

    Args:
        net: a network of the task.
        bank: as in :func:`~bmnas_core.train.evaluate`.
        ax: matplotlib Axes to draw on; those of a new figure by default.

    Raises TaskError for a split that does not exist.
    """
    check_type(net, nn.Module, "net", TrainError, "a network, as train gives")
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if modalities := getattr(net, "reads_inputs", None):
        source = RawInputs(as_task(task), device=device, modalities=modalities)
    else:
        source = FeatureBank.shared(as_task(task), getattr(net, "L", None), device, bank)
    outputs, labels = outputs_of(net, task, source, split)
    score = float(metric_of(task).score(outputs, labels))
    title = f"{task.name}, {split}: {task.metric} {score_text(score)} of {len(labels):,} samples"
    names = task.class_names or tuple(map(str, range(task.classes)))
    if task.label_kind == "values":
        found, true = task.targets.in_units(outputs), labels.reshape(len(labels), -1)
        table = _table_of_values(found, true, names)
        axes = draw_values(true.numpy(), found.numpy(), names, ax=ax)
    elif task.label_kind == "classes":
        from sklearn.metrics import confusion_matrix

        found, numbers = outputs.argmax(1), range(task.classes)
        table = _table_of_classes(found, labels, names)
        axes = draw_confusion(confusion_matrix(labels, found, labels=numbers), names, ax=ax)
    else:
        table = _table_of_classes(outputs.sigmoid() > task.threshold, labels, names)
        axes = draw_label_scores(table["f1"].to_numpy(), names, ax=ax)
    return Report(title, table, axes)


def _table_of_classes(found: torch.Tensor, true: torch.Tensor, names: tuple) -> pd.DataFrame:
    from sklearn.metrics import precision_recall_fscore_support

    how = {"labels": range(len(names)), "average": None, "zero_division": 0}
    columns = precision_recall_fscore_support(true.numpy(), found.int().numpy(), **how)
    named = zip(("precision", "recall", "f1", "samples"), columns, strict=True)
    return pd.DataFrame(dict(named), index=pd.Index(names, name="class"))


def _table_of_values(found: torch.Tensor, true: torch.Tensor, names: tuple) -> pd.DataFrame:
    metrics = ("rmse", "mae", "r2", "pearson")
    rows = [
        {name: METRICS[name].score(found[:, k : k + 1], true[:, k]) for name in metrics}
        for k in range(len(names))
    ]
    return pd.DataFrame(rows, index=pd.Index(names, name="value")).assign(samples=len(true))
