"""What :meth:`Task.from_features` takes: arrays of features, labels and splits, checked here.

Each error names the modality, the feature and the row, what was found and what is allowed.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..config import SearchSettings, Settings
from ..errors import near_miss, quoted
from .inputs import FeatureArrays, TaskError

SPLITS = ("train", "validation", "test")

#: Other names of splits that columns of names use.
ALIASES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}

SHAPES = "(n, C), (n, C, T), (n, C, H, W) or (n, C, T, H, W)"
LABELS = "class numbers or names, (n,), or a multi-hot matrix of 0 and 1, (n, classes)"

#: Rows that are checked at a time: arrays may be larger than memory.
ROWS = 4096


def feature_arrays(features: Mapping[str, object]) -> dict[str, FeatureArrays]:
    """Modality → its arrays by feature name; an unnamed feature is called ``Video_1``, …

    ``features`` maps each modality to an array, a list of arrays or a dict from feature names to
    arrays: NumPy's, also memory-mapped, or tensors. Raises TaskError unless all are finite numbers
    of one of the SHAPES, with as many rows each.
    """
    allowed = "a dict from modalities to arrays"
    if not isinstance(features, Mapping) or not features:
        raise TaskError("features", quoted(features), allowed)
    found = {}
    for modality, arrays in features.items():
        if not isinstance(modality, str):
            raise TaskError("features: modality", quoted(modality), "text")
        if isinstance(arrays, Mapping):
            named = dict(arrays)
        else:
            listed = arrays if isinstance(arrays, (list, tuple)) else [arrays]
            named = {f"{modality}_{i}": array for i, array in enumerate(listed, 1)}
        if not named:
            raise TaskError(f"{modality}: features", "none", "at least one array")
        checked = {name: _as_array(f"{modality}: {name}", a) for name, a in named.items()}
        found[modality] = FeatureArrays(checked)
    sizes = {name: len(a) for arrays in found.values() for name, a in arrays.arrays.items()}
    first, n = next(iter(sizes.items()))
    for name, size in sizes.items():
        if size != n:
            allowed = f"{n:,}, as {first!r} has, one for each sample"
            raise TaskError(f"feature {name!r}", f"{size:,} rows", allowed)
    for modality, arrays in found.items():
        for name, array in arrays.arrays.items():
            _check_finite(f"{modality}: {name}", array)
    return found


def _as_array(place: str, value: object) -> np.ndarray | Tensor:
    """``value`` as an array of numbers with rows and channels."""
    if isinstance(value, Tensor):
        array, kind, numbers = value.detach(), str(value.dtype), not value.is_complex()
    else:
        if isinstance(value, (list, tuple)):  # NumPy has no word for lists of unequal lengths
            try:
                value = np.asarray(value)
            except ValueError:
                raise TaskError(place, "lists of unequal lengths", "an array") from None
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        kind, numbers = str(array.dtype), array.dtype.kind in "biuf"
    if not numbers:
        raise TaskError(place, f"values of type {kind}", "numbers")
    if not 2 <= array.ndim <= 5 or 0 in array.shape:
        raise TaskError(place, f"an array of shape {tuple(array.shape)}", SHAPES)
    return array


def _check_finite(place: str, array: np.ndarray | Tensor) -> None:
    for start in range(0, len(array), ROWS):
        (rows,) = FeatureArrays({"": array})[start : start + ROWS]
        rows = rows.flatten(1)
        bad = ~rows.isfinite()
        if bad.any():
            row = int(bad.any(1).nonzero()[0])
            value = float(rows[row][bad[row]][0])
            found = "NaN" if value != value else "infinity"
            raise TaskError(f"{place}, row {start + row}", found, "finite numbers in float32")


def label_tensor(labels: object, n: int) -> tuple[Tensor, int, tuple[str, ...]]:
    """Labels of n samples, the number of classes, and their names if the labels are names.

    Whole numbers from 0 on are class numbers. Other whole numbers, True and False, and texts are
    names, numbered in sorted order. Raises TaskError for anything but LABELS.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else _asarray(labels)
    if values.shape[:1] != (n,):
        found = f"{len(values):,} rows" if values.ndim else "a single value"
        raise TaskError("labels", found, f"{n:,}, as the features have")
    if values.ndim > 2 or 0 in values.shape:
        raise TaskError("labels", f"an array of shape {values.shape}", LABELS)
    if values.dtype.kind == "f":
        hint = "; whole numbers as integers: labels.astype(int)"
        raise TaskError("labels", f"values of type {values.dtype}", LABELS + hint)
    if values.ndim == 2:
        return _multi_hot(values), values.shape[1], ()
    if values.dtype.kind not in "biuU":
        for row, value in enumerate(values.tolist()):
            if not isinstance(value, (str, int)):
                raise TaskError(f"labels, row {row}", quoted(value), "a class number or name")
        values = np.asarray([str(value) for value in values.tolist()])
    names, numbers = np.unique(values, return_inverse=True)
    if values.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names))):
        names = ()
    classes = int(numbers.max()) + 1
    return torch.from_numpy(numbers.astype(np.int64)), classes, tuple(map(str, names))


def _asarray(values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        raise TaskError("labels", "lists of unequal lengths", LABELS) from None


def _multi_hot(values: np.ndarray) -> Tensor:
    """A matrix of 0 and 1 as integers."""
    numbers = values.dtype.kind in "biu"
    bad = (values != 0) & (values != 1) if numbers else np.ones(values.shape, dtype=bool)
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        value = values[row][bad[row]][0]
        raise TaskError(f"labels, row {row}", quoted(value), "0 and 1 in a multi-hot matrix")
    return torch.from_numpy(values.astype(np.int64))


def split_rows(
    splits: object, labels: Tensor, groups: object = None, seed: int = 0
) -> dict[str, Tensor]:
    """Split → the rows of its samples, (k,), ascending.

    Args:
        splits: three fractions, or a column of names (n,), or arrays of row numbers, in a dict by
            split or in the order train, validation, test.
        labels: fractions of classes (n,) are stratified: each class is split alike.
        groups: (n,) with fractions: samples with the same value come into the same split.
        seed: of the random split by fractions.

    Raises TaskError for other splits, for a row in two of them, or a class or label without
    samples in train.
    """
    n, fractions = len(labels), _are_fractions(splits)
    if groups is not None and not fractions:
        raise TaskError("groups", "groups beside splits that are given", "groups with fractions")
    if fractions:
        rows = _by_fractions(splits, labels, groups, seed)
    elif isinstance(splits, Mapping):
        for name in splits:
            if name not in SPLITS:
                raise TaskError("splits", f"{name!r}{near_miss(name, SPLITS)}", ", ".join(SPLITS))
        rows = _index_arrays([splits.get(name, ()) for name in SPLITS], n)
    elif isinstance(splits, (list, tuple)) and len(splits) == 3 < n:
        rows = _index_arrays(splits, n)
    else:
        rows = _by_names(splits, n)
    found = dict(zip(SPLITS, rows, strict=True))
    for name, own in found.items():
        if not len(own):
            raise TaskError(f"split {name!r}", "no samples", "at least one")
    _check_disjoint(found)
    _check_classes(labels, found["train"])
    return found


def _are_fractions(splits: object) -> bool:
    plain = isinstance(splits, (list, tuple)) and len(splits) == 3
    return plain and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in splits)


def _by_fractions(
    fractions: Sequence[float], labels: Tensor, groups: object, seed: int
) -> list[Tensor]:
    """Rows of each split, classes split alike, groups kept whole."""
    if not all(0 < x < 1 for x in fractions) or abs(sum(fractions) - 1) > 1e-6:
        allowed = "three fractions above 0 whose sum is 1"
        raise TaskError("splits", quoted(tuple(fractions)), allowed)
    random, n = np.random.default_rng(seed), len(labels)
    units = np.arange(n) if groups is None else _group_numbers(groups, n)
    rows = [np.flatnonzero(units == unit) for unit in range(units.max() + 1)]
    stratified = labels.dim() == 1
    strata = [int(labels[own].mode().values) if stratified else 0 for own in rows]
    parts: list[list[int]] = [[], [], []]
    wanted, missing = np.asarray(fractions), np.zeros(3)
    for stratum in sorted(set(strata)):
        own = [rows[i] for i in random.permutation(len(rows)) if strata[i] == stratum]
        quota = wanted * sum(map(len, own))
        for unit in sorted(own, key=len, reverse=True):  # stable: of equal size at random
            part = int((quota + 0.01 * missing).argmax())  # of equal ones what others left short
            parts[part] += unit.tolist()
            quota[part] -= len(unit)
        missing += quota
    return [torch.tensor(sorted(part), dtype=torch.long) for part in parts]


def _group_numbers(groups: object, n: int) -> np.ndarray:
    values = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if values.shape != (n,):
        raise TaskError("groups", f"an array of shape {values.shape}", f"({n},), one a sample")
    if values.dtype.kind == "O":
        values = values.astype(str)
    return np.unique(values, return_inverse=True)[1]


def _by_names(splits: object, n: int) -> list[Tensor]:
    values = np.asarray(splits)
    if values.shape != (n,) or values.dtype.kind not in "UO":
        allowed = f"three fractions, three arrays of rows, or {n:,} names of splits"
        raise TaskError("splits", quoted(splits), allowed)
    named = [ALIASES.get(value, value) for value in values.tolist()]
    for row, name in enumerate(named):
        if name not in SPLITS:
            found = f"{quoted(name)}{near_miss(name, SPLITS)}"
            raise TaskError(f"splits, row {row}", found, ", ".join(SPLITS))
    named = np.asarray(named)
    return [torch.from_numpy(np.flatnonzero(named == name)) for name in SPLITS]


def _index_arrays(arrays: Sequence[object], n: int) -> list[Tensor]:
    rows = []
    for name, array in zip(SPLITS, arrays, strict=True):
        values = array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        if values.dtype.kind == "b" and values.shape == (n,):
            values = np.flatnonzero(values)
        if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
            found = f"an array of shape {values.shape} of {values.dtype}"
            raise TaskError(f"splits: {name}", found, "row numbers, (k,), or booleans, (n,)")
        outside = values[(values < 0) | (values >= n)]
        if len(outside):
            raise TaskError(f"splits: {name}", f"row {int(outside[0])}", f"0…{n - 1}")
        rows.append(torch.from_numpy(np.sort(values).astype(np.int64)))
    return rows


def _check_disjoint(rows: dict[str, Tensor]) -> None:
    for name, own in rows.items():
        twice = own[1:][own.diff() == 0]
        if len(twice):
            raise TaskError("splits", f"row {int(twice[0])} twice in {name!r}", "each row once")
    for first, second in combinations(SPLITS, 2):
        both = rows[first][torch.isin(rows[first], rows[second])]
        if len(both):
            where = f"in {first!r} and {second!r}"
            raise TaskError("splits", f"row {int(both[0])} {where}", "each row once")


def _check_classes(labels: Tensor, train: Tensor) -> None:
    """Refuse a class that no sample of train has, which could not be learned."""
    own = labels[train]
    present = own.bincount(minlength=int(labels.max()) + 1) if labels.dim() == 1 else own.sum(0)
    missing = (present == 0).nonzero().flatten().tolist()
    if missing:
        allowed = "one at least, or the class cannot be learned"
        raise TaskError(f"split 'train': class {missing[0]}", "no samples", allowed)


def default_settings(
    arrays: Mapping[str, FeatureArrays], n: int
) -> tuple[Settings, SearchSettings]:
    """Settings for n training samples of such features, and those of the search alone.

    A Cell takes two inputs, so that Cells one fewer than modalities can read them all. Small data
    get a narrow network, more dropout and more epochs: 500 updates at least, up to 63 epochs.
    """
    positions = [
        int(np.prod(array.shape[2:])) for one in arrays.values() for array in one.arrays.values()
    ]
    batch_size = next((size for size in (128, 64, 32, 16) if n >= 20 * size), 8)
    updates = -(-n // batch_size)
    epochs = next((e for e in (15, 31, 63) if e * updates >= 500), 63)
    settings = Settings(
        C=32 if n < 1000 else 64, L=min(4, max(positions)), N=max(2, len(arrays) - 1), M=2,
        epochs=epochs, batch_size=min(batch_size, n), dropout=0.3 if n < 1000 else 0.1,
        max_lr=3e-3, min_lr=1e-6, weight_decay=1e-4, restart=1,
    )  # fmt: skip
    search = SearchSettings(
        selection="successive_halving", epochs=max(3, epochs // 5), tuning_epochs=7
    )
    return settings, search
