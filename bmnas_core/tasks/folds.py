"""Folds: every sample of a task is tested once, by networks that saw neither it nor its group."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..backbones.backbone import TRAINED_HERE
from ..config import as_type
from ..losses import metric_of
from ..runtime import as_seed, generator
from .arrays import SPLITS, group_numbers, strata, stratified_parts
from .task import Split, Task, TaskError, as_task

#: How often samples are cut at random until no part lacks a class.
MAX_ATTEMPTS = 50


@dataclass(frozen=True, eq=False)
class Fold:
    """A task whose test split is one fold, and whose train and validation splits are the rest.

    Attributes:
        repeat, number: from 0 on.
        rows: the test split's samples among :func:`all_samples`, (k,), ascending.
    """

    repeat: int
    number: int
    rows: Tensor
    task: Task


def all_samples(task: Task) -> Split:
    """The samples of all splits in the order of their items, which is that of arrays' rows."""
    joined = task.split("+".join(SPLITS))
    known = (joined.index >= 0).int().argmax(1, keepdim=True)  # the first that is no gap
    keys = torch.cat([joined.index.flip(1), joined.index.gather(1, known)], dim=1)
    order = torch.from_numpy(np.lexsort(keys.T.numpy()))
    groups = None if joined.groups is None else joined.groups[order]
    return Split("all", joined.index[order], joined.labels[order], groups)


def make_folds(
    task: Task,
    folds: int = 5,
    groups: object = None,
    *,
    validation: float = 0.25,
    seed: int = 0,
    repeat: int = 0,
    readable: Tensor | None = None,
) -> list[Fold]:
    """Cut the samples of all splits into folds, and the rest of each into train and validation.

    Both are stratified: by class, by the rarest of a sample's labels if it may have several, or by
    quantiles of a regression's values. Every test and train split has samples of each class.
    Samples that share an item or a group stay together.

    Args:
        folds: how many, from 2 to the number of samples.
        groups: (n,) whole numbers or texts, such as who speaks, in the order of
            :func:`all_samples`; by default the task's own, if it has any.
        validation: share of the samples outside the test split.
        seed, repeat: fix the random cuts.
        readable: (n,) booleans; other samples are left out.

    Raises TaskError for arguments out of range, a class with fewer samples or groups than folds, a
    split on which the metric is not defined, and backbones that learned from this task.
    """
    for modality in as_task(task).modalities:
        if getattr(modality.backbone, "_origin", None) == TRAINED_HERE:
            found = "weights that learned from the task's training split, of which folds test parts"
            raise TaskError(f"backbone of {modality.name!r}", found, "weights from other data")
    samples = all_samples(task)
    rows = torch.arange(len(samples)) if readable is None else readable.nonzero().flatten()
    folds = as_type(folds, int, "folds", TaskError)
    if not 2 <= folds <= len(rows):
        raise TaskError("folds", folds, f"2 to {len(rows):,}, the number of samples")
    validation = as_type(validation, float, "validation", TaskError)
    if not 0 < validation < 1:
        raise TaskError("validation", validation, "a share above 0 and below 1")
    groups = samples.groups if groups is None else groups
    units = connected(samples.index, groups)[rows.numpy()]
    if (number := len(np.unique(units))) < folds:
        place = "samples that share items" if groups is None else "groups"
        raise TaskError(place, number, f"at least {folds}, one for each fold")
    samples = Split("all", samples.index[rows], samples.labels[rows])
    cutter = _Cutter(task, samples, units, folds, validation, (as_seed(seed), repeat))
    cutter.check_classes()
    tests = enumerate(cutter.test_parts())
    return [Fold(repeat, k, rows[test], cutter.task_of(k, test)) for k, test in tests]


def connected(index: Tensor, groups: object = None) -> np.ndarray:
    """The number of each sample's unit, (n,): samples that share an item or a group are in one.

    Args:
        index: items of each sample, (n, modalities).
        groups: as in :func:`make_folds`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, alone = len(index), -1 - torch.arange(len(index))  # gaps are not an item that is shared
    whole = index.where(index >= 0, alone[:, None])
    columns = [column.unique(return_inverse=True)[1].numpy() for column in whole.T]
    if groups is not None:
        if hasattr(groups, "__len__") and len(groups) != n:
            allowed = f"{n:,}, one for each sample of the splits"
            raise TaskError("groups", f"{len(groups):,} rows", allowed)
        columns.append(group_numbers(groups, n))
    # A graph of samples, items and groups, in which each sample is linked to its own.
    starts = n + np.cumsum([0, *(column.max() + 1 for column in columns)])
    nodes = np.concatenate([column + starts[k] for k, column in enumerate(columns)])
    links = np.ones(len(nodes), dtype=bool), (np.tile(np.arange(n), len(columns)), nodes)
    graph = coo_array(links, shape=(starts[-1], starts[-1]))
    return connected_components(graph, directed=False)[1][:n]


@dataclass(frozen=True, eq=False)
class _Cutter:
    """Cuts samples of a task at random, but never through a unit."""

    task: Task
    samples: Split
    units: np.ndarray  # (n,)
    folds: int
    validation: float
    stream: tuple[int, int]

    @cached_property
    def members(self) -> Tensor:
        """Which samples are of which class, (n, classes); no columns in a regression."""
        labels = self.samples.labels
        if labels.is_floating_point():
            return torch.zeros(len(labels), 0, dtype=torch.bool)
        return (labels if labels.dim() > 1 else one_hot(labels, self.task.classes)).bool()

    @cached_property
    def grouped(self) -> bool:
        return len(np.unique(self.units)) < len(self.units)

    def check_classes(self) -> None:
        """Refuse a class that cannot be in every fold."""
        for k, own in enumerate(self.members.T.numpy()):
            counts = {"samples": int(own.sum()), "groups": len(np.unique(self.units[own]))}
            for what, count in counts.items():
                if 0 < count < self.folds:
                    found = f"{count} {what if count > 1 else what[:-1]}"
                    allowed = f"at least {self.folds}, one for each fold"
                    raise TaskError(self._class(k), found, allowed)

    def test_parts(self) -> list[Tensor]:
        """Rows of each fold, ascending."""

        def problems(parts: list[Tensor]) -> Iterator[TaskError]:
            for k, rows in enumerate(parts):
                yield from self._problems(k, "test", rows)

        return _first(self._test_parts, problems)

    def _test_parts(self, attempt: int) -> list[Tensor]:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        kind = StratifiedGroupKFold if self.grouped else StratifiedKFold
        number = generator(*self.stream, "folds", attempt).initial_seed() % 2**32
        cut = kind(self.folds, shuffle=True, random_state=number)
        found, units = strata(self.samples.labels, self.folds), self.units if self.grouped else None
        return [torch.from_numpy(test) for _, test in cut.split(found, found, units)]

    def task_of(self, fold: int, test: Tensor) -> Task:
        """The task with the rows ``test`` as its test split, the rest as train and validation."""
        rest = torch.from_numpy(np.setdiff1d(np.arange(len(self.units)), test.numpy()))

        def problems(parts: list[Tensor]) -> Iterator[TaskError]:
            for split, rows in zip(("validation", "train"), parts, strict=True):
                yield from self._problems(fold, split, rows)

        validation, train = _first(partial(self._rest_parts, fold, rest), problems)
        rows = {"train": train, "validation": validation, "test": test}
        index, labels = self.samples.index, self.samples.labels
        splits = {name: Split(name, index[own], labels[own]) for name, own in rows.items()}
        return replace(self.task, splits=splits)

    def _rest_parts(self, fold: int, rest: Tensor, attempt: int) -> list[Tensor]:
        """Rows of validation and train, ascending."""
        number = generator(*self.stream, "validation", fold, attempt).initial_seed()
        found = strata(self.samples.labels[rest])
        if attempt >= MAX_ATTEMPTS // 2:  # where each class has too few groups for validation
            found = np.zeros_like(found)
        units = self.units[rest.numpy()] if self.grouped else None
        shares = self.validation, 1 - self.validation
        parts = stratified_parts(found, shares, np.random.default_rng(number), units)
        return [rest[part] for part in parts]

    def _problems(self, fold: int, split: str, rows: Tensor) -> Iterator[TaskError]:
        """What is wrong with a split, whose next check needs those before it to have passed."""
        place, least = f"fold {fold}: split {split!r}", 1 if split == "test" else 2
        if len(rows) < least:
            yield TaskError(place, "1 sample" if len(rows) else "no samples", f"at least {least}")
        missing = self.members.any(0) & ~self.members[rows].any(0)
        if split != "validation" and missing.any():
            name = self._class(int(missing.nonzero()[0]))
            yield TaskError(place, f"no sample of {name}", "at least one; try fewer folds")
        metric, labels = metric_of(self.task), self.samples.labels[rows]
        if split != "train" and (why := metric.undefined(labels, self.task.classes)):
            allowed = f"labels for which metric {self.task.metric!r} is defined; try fewer folds"
            yield TaskError(place, why, allowed)

    def _class(self, number: int) -> str:
        names = self.task.class_names
        return f"class {number} ({names[number]!r})" if names else f"class {number}"


def _first(
    cut: Callable[[int], list[Tensor]], problems: Callable[[list[Tensor]], Iterator[TaskError]]
) -> list[Tensor]:
    """The first of MAX_ATTEMPTS cuts without a problem. Raises the last one's if all have some."""
    for attempt in range(MAX_ATTEMPTS):
        parts = cut(attempt)
        if (found := next(problems(parts), None)) is None:
            return parts
    raise found
