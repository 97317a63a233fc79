"""Linear probes: what can be read from a frozen backbone's features (Alain and Bengio 2016)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import check_type
from .features import FeatureBank
from .tasks.task import Task, TaskError, as_task


def probe(
    task: Task, modality: str, labels: Tensor, *, bank: FeatureBank | None = None
) -> dict[str, float]:
    """How well a linear classifier of each feature of a modality tells the labels of its items.

    A logistic regression of the feature, flattened and standardised, is fitted to the items of
    train and scored on those of validation.

    Args:
        labels: (items,), whole numbers: a label for each item of the modality, such as who speaks.
        bank: the features; by default the task's in memory, with its L.

    Returns:
        Feature name → accuracy on the validation split's items.

    Raises TaskError for an unknown modality, or unless there is one label for each item.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    items = len(as_task(task).modality(modality).inputs)
    labels = torch.from_numpy(labels) if isinstance(labels, np.ndarray) else labels
    check_type(labels, Tensor, "labels", TaskError)
    if labels.shape != (items,) or labels.is_floating_point():
        found = f"shape {tuple(labels.shape)} of {labels.dtype}"
        raise TaskError("labels", found, f"({items},) whole numbers, one an item of {modality}")
    bank = bank or FeatureBank.shared(task, None, "cpu")
    train, validation = (task.items(split, modality) for split in ("train", "validation"))
    scores = {}
    for name in task.modality(modality).channels:
        rows = bank.features[name].flatten(1).float().cpu().numpy()
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        linear.fit(rows[train], labels[train].numpy())
        scores[name] = float(linear.score(rows[validation], labels[validation].numpy()))
    return scores
