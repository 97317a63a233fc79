"""What :meth:`Task.from_features` takes: arrays of features, labels and splits, checked here.

Each error names the modality, the feature and the row, what was found and what is allowed.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ..config import SearchSettings, Settings
from ..errors import TaskError, check_type, near_miss, quoted, shortened
from ..metrics import METRICS
from ..runtime import as_seed
from .inputs import FeatureArrays

SPLITS = ("train", "validation", "test")

#: Other names of splits that columns of names use.
ALIASES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}

SHAPES = "(n, C), (n, C, T), (n, C, H, W) or (n, C, T, H, W)"
LABELS = "class numbers or names, (n,), or a multi-hot matrix of 0 and 1, (n, classes)"
VALUES = "finite numbers, (n,) or (n, values)"

#: The values of a regression are stratified by at most this many quantiles.
QUANTILES = 10


def feature_arrays(
    features: Mapping[str, object], present: Mapping[str, object] | None = None
) -> dict[str, FeatureArrays]:
    """Modality → its arrays by feature name; an unnamed feature is called ``Video_1``, …

    ``features`` maps each modality to an array, a list of arrays or a dict from feature names to
    arrays: NumPy's, also memory-mapped, or tensors. Where a modality is not ``present``, (n,)
    booleans, they may hold anything. Raises TaskError unless all others are finite numbers of one
    of the SHAPES, with as many rows each.
    """
    if not isinstance(features, Mapping) or not features:
        raise TaskError("features", quoted(features), "a dict from modalities to arrays")
    found = {}
    for modality, arrays in features.items():
        check_name("features: modality", modality)
        if isinstance(arrays, Mapping):
            named = dict(arrays)
        else:  # a list of numbers, or of lists of them, is one array
            several = isinstance(arrays, (list, tuple)) and not any(map(_is_row, arrays))
            listed = arrays if several else [arrays]
            named = {f"{modality}_{i}": array for i, array in enumerate(listed, 1)}
        if not named:
            raise TaskError(f"{modality}: features", "none", "at least one array")
        for name in named:
            check_name(f"{modality}: feature", name)
        checked = {name: _as_array(f"{modality}: {name}", a) for name, a in named.items()}
        found[modality] = FeatureArrays(checked)
    sizes = {name: len(a) for arrays in found.values() for name, a in arrays.arrays.items()}
    first, n = next(iter(sizes.items()))
    for name, size in sizes.items():
        if size != n:
            allowed = f"{n:,}, as {first!r} has: one a sample (a list has an array a feature)"
            raise TaskError(f"feature {name!r}", f"{size:,} rows", allowed)
    for modality, mask in presence(present, list(found), n).items():
        found[modality] = FeatureArrays(found[modality].arrays, mask)
    for modality, arrays in found.items():
        for name, start, rows in arrays.chunks():
            _check_finite(f"{modality}: {name}", start, rows)
    return found


def presence(present: object, modalities: list[str], n: int) -> dict[str, Tensor]:
    """Modality → which of n samples have it, (n,) booleans. Raises TaskError."""
    if present is None:
        return {}
    if not isinstance(present, Mapping):
        raise TaskError("present", quoted(present), "a dict from modalities to (n,) booleans")
    masks = {}
    for modality, mask in present.items():
        if modality not in modalities:
            found = f"modality {quoted(modality)}{near_miss(modality, modalities)}"
            raise TaskError("present", found, ", ".join(modalities))
        place, allowed = f"present: {modality}", f"({n},) booleans"
        values = _as_numpy(place, mask, allowed)
        if values.dtype.kind in "iu" and np.isin(values, (0, 1)).all():
            values = values.astype(bool)
        if values.shape != (n,) or values.dtype.kind != "b":
            raise TaskError(place, f"an array of shape {values.shape} of {values.dtype}", allowed)
        masks[modality] = torch.from_numpy(values.copy())
    return masks


def check_name(place: str, name: object) -> str:
    """``name`` itself. Raises TaskError unless it is printable text of at most 100 characters."""
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or len(name) > 100:
        raise TaskError(place, quoted(name), "printable text of 1 to 100 characters")
    return name


def _is_row(value: object) -> bool:
    return isinstance(value, (list, tuple, int, float))


def _as_array(place: str, value: object) -> np.ndarray | Tensor:
    """``value`` as an array of numbers with rows and channels."""
    if isinstance(value, Tensor):
        array, kind, numbers = _plain(place, value), str(value.dtype), not value.is_complex()
    else:
        array = _as_numpy(place, value, SHAPES)
        kind, numbers = str(array.dtype), array.dtype.kind in "biuf"
    if not numbers:
        raise TaskError(place, f"values of type {kind}", "numbers, as array.astype(float) gives")
    if not 2 <= array.ndim <= 5 or 0 in array.shape:
        raise TaskError(place, f"an array of shape {tuple(array.shape)}", SHAPES)
    return array


def _plain(place: str, tensor: Tensor) -> Tensor:
    """A tensor without gradient. Raises TaskError for a sparse, nested, quantised or empty one."""
    odd = tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized
    if odd or tensor.device.type == "meta":
        kind = "meta" if tensor.device.type == "meta" else str(tensor.layout).split(".")[-1]
        raise TaskError(place, f"a tensor that is {kind}, nested or quantised", "a plain tensor")
    return tensor.detach()


def as_tensor(place: str, values: np.ndarray | Tensor) -> Tensor:
    """An array of real numbers, or a tensor, as a plain tensor. Raises TaskError."""
    if isinstance(values, Tensor):
        return _plain(place, values)
    if values.dtype.kind not in "biuf":
        raise TaskError(place, f"values of type {values.dtype}", "numbers, as .astype(float) gives")
    return torch.from_numpy(np.array(values, values.dtype.newbyteorder("=")))


def _as_numpy(place: str, values: object, allowed: str) -> np.ndarray:
    """``values`` as a NumPy array, not copied if they are one. Raises TaskError."""
    if isinstance(values, Tensor):
        values = _plain(place, values).cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            row = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
            raise TaskError(f"{place}, row {row}", "a masked value", "values that are all there")
        values = values.data
    try:
        return values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception as error:  # whatever a foreign object raises
        found = "lists of unequal lengths" if isinstance(error, ValueError) else str(error)
        raise TaskError(place, shortened(" ".join(found.split()), 80), allowed) from None


def _column(place: str, values: object, n: int, allowed: str) -> np.ndarray:
    """n whole numbers, booleans or texts, all of one kind. Raises TaskError, by row."""
    listed = isinstance(values, (list, tuple))
    if listed and not any(isinstance(x, (list, tuple, dict, np.ndarray, Tensor)) for x in values):
        array = np.empty(len(values), dtype=object)  # NumPy makes texts of 1 and "1"
        array[:] = values
    else:
        array = _as_numpy(place, values, allowed)
    if array.shape != (n,):
        found = f"an array of shape {array.shape}" if array.ndim != 1 else f"{len(array):,} rows"
        hint = "; its one column: [:, 0]" if array.shape == (n, 1) else ""
        raise TaskError(place, found, f"{n:,} rows, as the features have{hint}")
    if array.dtype.kind == "f":
        gaps = np.flatnonzero(np.isnan(array))
        if len(gaps):
            raise TaskError(f"{place}, row {gaps[0]}", "NaN", allowed)
        whole = "; whole numbers as integers: .astype(int)" if (array % 1 == 0).all() else ""
        raise TaskError(place, f"values of type {array.dtype}", allowed + whole)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind in "biuU":
        return array
    values = [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in array.tolist()]
    kinds = [_kind(value) for value in values]
    for row, kind in enumerate(kinds):
        if kind is None or kind is not kinds[0]:
            beside = f" beside {quoted(values[0])}" if kind else ""
            raise TaskError(f"{place}, row {row}", f"{quoted(values[row])}{beside}", allowed)
    try:
        return np.asarray(values, dtype=kinds[0])
    except OverflowError:
        raise TaskError(place, "numbers of more than 64 bits", allowed) from None


def _kind(value: object) -> type | None:
    """What a value in a column counts as; None if it cannot be there."""
    kinds = (bool, np.bool_), (int, np.integer), (str,)
    return next((own[0] for own in kinds if isinstance(value, own)), None)


def _check_finite(place: str, start: int, rows: Tensor) -> None:
    bad = ~rows.flatten(1).isfinite()
    if bad.any():
        row = int(bad.any(1).nonzero()[0])
        value = float(rows.flatten(1)[row][bad[row]][0])
        found = "NaN" if value != value else "infinity"
        raise TaskError(f"{place}, row {start + row}", found, "finite numbers in float32")


def label_tensor(
    labels: object, n: int, values: bool | None = None
) -> tuple[Tensor, int, tuple[str, ...]]:
    """Labels of n samples, the number of classes, and their names if the labels are names.

    Whole numbers from 0 on are class numbers. Other whole numbers, True and False, and texts are
    names, numbered in sorted order. Of a regression the second is the number of values.

    Args:
        values: whether the labels are a regression's, as a metric says; by default they are if
            they are fractions, (n,).

    Raises TaskError for anything but LABELS, or VALUES.
    """
    matrix = None if isinstance(labels, (str, bytes)) else _as_matrix(labels)
    if values or (values is None and matrix is None and _are_fractions(labels)):
        found = _values(labels, n)
        return found, 1 if found.dim() == 1 else found.shape[1], ()
    if matrix is not None and matrix.shape[0] == n and matrix.shape[1] > 1:
        return _multi_hot(matrix), matrix.shape[1], ()
    column = _column("labels", labels, n, LABELS if values is False else f"{LABELS}, or {FLOATS}")
    names, numbers = np.unique(column, return_inverse=True)
    if column.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names))):
        names = ()
    for name in names:
        check_name("labels: class", str(name))
    classes = int(numbers.max()) + 1
    return torch.from_numpy(numbers.astype(np.int64)), classes, tuple(map(str, names))


#: How errors say that a regression needs to be asked for.
FLOATS = "for a regression a metric of values, such as 'rmse'"


def _are_fractions(labels: object) -> bool:
    """Whether labels are floats of which some are no whole numbers."""
    try:
        array = _as_numpy("labels", labels, LABELS)
    except TaskError:  # which is raised again where they are read
        return False
    if array.dtype.kind == "O" and all(isinstance(x, (int, float)) for x in array.flat):
        array = array.astype(float)
    return array.dtype.kind == "f" and bool((array[np.isfinite(array)] % 1 != 0).any())


def _values(labels: object, n: int) -> Tensor:
    """Labels of a regression, (n,) or (n, values), in float32."""
    array = _as_numpy("labels", labels, VALUES)
    if array.ndim not in (1, 2) or len(array) != n or 0 in array.shape:
        raise TaskError("labels", f"an array of shape {array.shape}", f"({n},) or ({n}, values)")
    for row, own in enumerate(array.reshape(n, -1) if array.dtype.kind == "O" else ()):
        if others := [x for x in own if not isinstance(x, Real)]:
            raise TaskError(f"labels, row {row}", quoted(others[0]), VALUES)
    if array.dtype.kind not in "iufO":
        raise TaskError("labels", f"values of type {array.dtype}", VALUES)
    try:
        exact = array.reshape(n, -1).astype(float)
    except OverflowError:
        raise TaskError("labels", "numbers of more than 64 bits", VALUES) from None
    with np.errstate(over="ignore"):
        found = torch.from_numpy(exact.astype(np.float32))
    _check_finite("labels", 0, found)
    error, deviation = np.abs(found.numpy() - exact).max(0), exact.std(0)
    for k in np.flatnonzero((error > deviation / 100) & (np.ptp(exact, axis=0) > 0)):
        place = "labels" if len(error) == 1 else f"labels, value {k}"
        rounded = f"errors of {error[k]:.2g} in float32, of a deviation of {deviation[k]:.2g}"
        raise TaskError(place, rounded, "values near 0, such as labels - labels.mean()")
    return found[:, 0] if found.shape[1] == 1 else found


def _as_matrix(labels: object) -> np.ndarray | None:
    """Labels with two axes, else None."""
    if isinstance(labels, (list, tuple)) and not any(
        isinstance(x, (list, tuple, np.ndarray, Tensor)) for x in labels
    ):
        return None
    values = _as_numpy("labels", labels, LABELS)
    return values if values.ndim == 2 else None


def _multi_hot(values: np.ndarray) -> Tensor:
    """A matrix of 0 and 1 as integers."""
    numbers = values.dtype.kind in "biuf"
    bad = (values != 0) & (values != 1) if numbers else np.ones(values.shape, dtype=bool)
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        value = values[row][bad[row]][0]
        allowed = f"0 and 1 in a multi-hot matrix, or {FLOATS}"
        raise TaskError(f"labels, row {row}", quoted(value.item()), allowed)
    return torch.from_numpy(values.astype(np.int64))


def checked_names(names: object) -> tuple[str, ...]:
    """Names of classes, each once, in order. Raises TaskError."""
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, (list, tuple)):
        raise TaskError("class_names", quoted(names), "a list of texts")
    seen: set[str] = set()
    for i, name in enumerate(names):
        check_name(f"class_names[{i}]", name)
        if name in seen:
            raise TaskError(f"class_names[{i}]", quoted(name), "each name once")
        seen.add(name)
    return tuple(map(str, names))


def check_metric(metric: object) -> None:
    """Raise TaskError for anything but None or the name of a metric."""
    if metric is not None and check_type(metric, str, "metric", TaskError) not in METRICS:
        raise TaskError("metric", f"{quoted(metric)}{near_miss(metric, METRICS)}", METRICS.names)


def checked_weights(weights: object, labels: Tensor, classes: int) -> tuple[float, ...]:
    """Weights of classes as numbers; ``"balanced"`` ones make up for how rare classes are.

    Those of classes (n,) are n / (classes · n_k), scikit-learn's; those of the columns of a matrix
    (n, classes) are how many samples lack a class for each that has it. Raises TaskError.
    """
    allowed = f"'balanced', or {classes} numbers above 0"
    if labels.is_floating_point():
        raise TaskError("class_weights", quoted(weights), "None for a regression")
    if isinstance(weights, str) and weights == "balanced":
        if labels.dim() == 1:
            found = len(labels) / (classes * labels.bincount(minlength=classes))
        else:
            found = (len(labels) - labels.sum(0)) / labels.sum(0)
            found = found.clamp(min=1 / len(labels))  # a class that every sample has
        return tuple(found.tolist())
    array = (
        np.empty(0) if isinstance(weights, str) else _as_numpy("class_weights", weights, allowed)
    )
    if array.shape != (classes,) or array.dtype.kind not in "iuf":
        raise TaskError("class_weights", quoted(weights), allowed)
    return tuple(array.astype(float).tolist())


def split_rows(
    splits: object, labels: Tensor, groups: object = None, seed: int = 0
) -> dict[str, Tensor]:
    """Split → the rows of its samples, (k,), ascending.

    Args:
        splits: three fractions, or a column of names (n,), or arrays of row numbers or booleans;
            fractions and arrays in a dict by split or in the order train, validation, test. A dict
            without test is of data whose test samples are withheld.
        labels: fractions of classes or values (n,) are stratified: each class, or tenth of the
            values, is split alike.
        groups: (n,): samples with the same value are in the same split.
        seed: of the random split by fractions.

    Raises TaskError for other splits, for a row or group in two of them, for fewer than two samples
    in one, a class or label without samples in train, or values that are all the same there.
    """
    n, parts, withheld = len(labels), splits, False
    if isinstance(splits, Mapping):
        named = {}
        for given, part in splits.items():
            name = ALIASES.get(given, given)
            if name not in SPLITS:
                found = f"{quoted(name)}{near_miss(name, SPLITS)}"
                raise TaskError("splits", found, ", ".join(SPLITS))
            if name in named:
                raise TaskError("splits", f"{name!r} twice", "each split once")
            named[name] = part
        parts = [named.get(name, ()) for name in SPLITS]
        withheld = "test" not in named
    fractions = _as_fractions(parts)
    if fractions is not None:
        rows = _by_fractions(fractions, labels, groups, seed)
    elif isinstance(parts, (list, tuple)) and len(parts) == 3 and not all(map(_is_name, parts)):
        rows = _index_arrays(parts, n)
    else:
        rows = _by_names(parts, n)
    found = dict(zip(SPLITS, rows, strict=True))
    for name, own in found.items():
        if len(own) < 2 and not (withheld and name == "test"):
            samples = "1 sample" if len(own) else "no samples"
            raise TaskError(f"split {name!r}", samples, "at least two")
    _check_disjoint(found)
    if groups is not None:
        _check_groups(group_numbers(groups, n), groups, found)
    _check_classes(labels, found["train"])
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, (str, bytes))


def _as_fractions(splits: object) -> list[float] | None:
    """Three numbers as floats; None for anything else."""
    if isinstance(splits, (np.ndarray, Tensor)) or hasattr(splits, "to_numpy"):
        splits = _as_numpy("splits", splits, "three fractions").tolist()
    plain = isinstance(splits, (list, tuple)) and len(splits) == 3
    if not plain or not all(isinstance(x, Real) and not isinstance(x, bool) for x in splits):
        return None
    return [float(x) for x in splits]


def _by_fractions(
    fractions: Sequence[float], labels: Tensor, groups: object, seed: int
) -> list[Tensor]:
    """Rows of each split, classes split alike, groups kept whole."""
    if not all(0 < x < 1 for x in fractions) or abs(sum(fractions) - 1) > 1e-4:
        allowed = "three fractions above 0 whose sum is 1"
        raise TaskError("splits", quoted(tuple(fractions)), allowed)
    random, n = np.random.default_rng(as_seed(seed) % 2**64), len(labels)
    groups = None if groups is None else group_numbers(groups, n)
    return stratified_parts(strata(labels), fractions, random, groups)


def stratified_parts(
    strata: np.ndarray,
    fractions: Sequence[float],
    random: np.random.Generator,
    groups: np.ndarray | None = None,
) -> list[Tensor]:
    """Rows of each part, ascending: every stratum split alike at random, groups kept whole.

    ``strata`` and ``groups`` are numbers from 0 on, (n,); the sum of ``fractions`` is 1.
    """
    if groups is None:
        parts = _cut(strata, fractions, random)
    else:
        parts = _share_out(groups, strata, fractions, random)
    return [torch.from_numpy(np.sort(part)) for part in parts]


def strata(labels: Tensor, smallest: int | None = None) -> np.ndarray:
    """The number of each sample's stratum, (n,); every stratum is split alike.

    It is the class; of several labels the rarest that a sample has; or one of up to QUANTILES
    quantiles of a regression's values, if there is one value a sample. Strata of fewer than
    ``smallest`` samples are joined to the largest one; by default quantiles have five at least.
    """
    n = len(labels)
    if labels.is_floating_point():
        bins = max(1, min(QUANTILES, n // (smallest or 5))) if labels.numel() == n else 1
        found = labels.reshape(n, -1)[:, 0].argsort(stable=True).argsort() * bins // n
    elif labels.dim() > 1:
        counts = labels.sum(0).expand_as(labels).masked_fill(labels == 0, n + 1)
        found = torch.where(labels.any(1), counts.argmin(1), labels.shape[1])
    else:
        found = labels
    sizes = found.bincount()
    return torch.where(sizes[found] < (smallest or 1), sizes.argmax(), found).numpy()


def _cut(strata: np.ndarray, fractions: Sequence[float], random: np.random.Generator) -> list:
    """Each stratum in a random order, cut in parts; what cannot be cut evens out over strata."""
    parts, missing = [[] for _ in fractions], np.zeros(len(fractions))
    for stratum in np.unique(strata):
        own = random.permutation(np.flatnonzero(strata == stratum))
        quota = np.asarray(fractions) * len(own)
        counts = np.floor(quota).astype(int)
        for part in np.argsort(-(quota - counts + 0.01 * missing), kind="stable"):
            counts[part] += counts.sum() < len(own)
        missing += quota - counts
        for part, rows in zip(parts, np.split(own, counts.cumsum()[:-1]), strict=True):
            part.append(rows)
    return [np.concatenate(part) for part in parts]


def _share_out(
    groups: np.ndarray, strata: np.ndarray, fractions: Sequence[float], random: np.random.Generator
) -> list:
    """Whole groups, the largest first, to the split that lacks most; by their commonest class."""
    order = np.argsort(groups, kind="stable")
    units = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    common = [int(np.bincount(strata[unit]).argmax()) for unit in units]
    parts, missing = [[] for _ in fractions], np.zeros(len(fractions))
    for stratum in sorted(set(common)):
        own = [units[i] for i in random.permutation(len(units)) if common[i] == stratum]
        quota = np.asarray(fractions) * sum(map(len, own))
        for unit in sorted(own, key=len, reverse=True):  # stable: of equal size at random
            part = int((quota + 0.01 * missing).argmax())  # of equal ones what others left short
            parts[part].append(unit)
            quota[part] -= len(unit)
        missing += quota
    return [np.concatenate([*part, np.empty(0, dtype=int)]) for part in parts]


def group_numbers(groups: object, n: int) -> np.ndarray:
    """Numbers of the groups, (n,). Raises TaskError for anything but n whole numbers or texts."""
    allowed = "a whole number or text for each sample"
    return np.unique(_column("groups", groups, n, allowed), return_inverse=True)[1]


def _by_names(splits: object, n: int) -> list[Tensor]:
    allowed = f"three fractions, three arrays of rows, or {n:,} names of splits"
    short = isinstance(splits, (list, tuple)) and len(splits) != n
    if isinstance(splits, (str, bytes)) or short:
        raise TaskError("splits", quoted(splits), allowed)
    values = _column("splits", splits, n, allowed)
    named = [ALIASES.get(value, value) for value in values.tolist()]
    for row, name in enumerate(named):
        if name not in SPLITS:
            found = f"{quoted(name)}{near_miss(name, SPLITS)}"
            raise TaskError(f"splits, row {row}", found, ", ".join(SPLITS))
    named = np.asarray(named)
    return [torch.from_numpy(np.flatnonzero(named == name)) for name in SPLITS]


def _index_arrays(arrays: Sequence[object], n: int) -> list[Tensor]:
    rows, allowed = [], "row numbers, (k,), or booleans, (n,)"
    for name, array in zip(SPLITS, arrays, strict=True):
        values = _as_numpy(f"splits: {name}", array, allowed)
        if values.dtype.kind == "b" and values.shape == (n,):
            values = np.flatnonzero(values)
        if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
            found = f"an array of shape {values.shape} of {values.dtype}"
            raise TaskError(f"splits: {name}", found, allowed)
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


def _check_groups(numbers: np.ndarray, groups: object, rows: dict[str, Tensor]) -> None:
    """Refuse a group in two splits."""
    for first, second in combinations(SPLITS, 2):
        both = np.intersect1d(numbers[rows[first]], numbers[rows[second]])
        if len(both):
            name = quoted(list(groups)[int(np.flatnonzero(numbers == both[0])[0])])
            raise TaskError("groups", f"{name} in {first!r} and {second!r}", "each in one split")


def _check_classes(labels: Tensor, train: Tensor) -> None:
    """Refuse a class that no sample of train has, or a value that is the same in all."""
    own = labels[train]
    if own.is_floating_point():
        same = (own == own[0]).reshape(len(own), -1).all(0).nonzero().flatten().tolist()
        if same:
            which = f"value {same[0]} of " if own.dim() > 1 else ""
            found = f"{float(own.reshape(len(own), -1)[0, same[0]]):g} for {which}every sample"
            raise TaskError("split 'train': labels", found, "values that differ")
        return
    present = own.bincount(minlength=int(labels.max()) + 1) if labels.dim() == 1 else own.sum(0)
    missing = (present == 0).nonzero().flatten().tolist()
    if missing:
        allowed = "one at least, or the class cannot be learned"
        raise TaskError(f"split 'train': class {missing[0]}", "no samples", allowed)


def default_settings(
    shapes: Sequence[tuple[int, ...]], modalities: int, n: int
) -> tuple[Settings, SearchSettings]:
    """Settings for n training samples, and those of the search alone.

    ``shapes`` are those of the features of all ``modalities``, (C, …) each.

    A Cell takes two inputs, so that Cells one fewer than modalities can read them all. Small data
    get a narrow network, more dropout and more epochs: 500 updates at least, up to 63 epochs.
    """
    positions = [int(np.prod(shape[1:])) for shape in shapes]
    batch_size = next((size for size in (128, 64, 32, 16) if n >= 20 * size), 8)
    updates = -(-n // batch_size)
    epochs = next((e for e in (15, 31, 63) if e * updates >= 500), 63)
    settings = Settings(
        C=32 if n < 1000 else 64, L=min(4, max(positions)), N=max(2, modalities - 1), M=2,
        epochs=epochs, batch_size=min(batch_size, n), dropout=0.3 if n < 1000 else 0.1,
        max_lr=3e-3, min_lr=1e-6, weight_decay=1e-4, restart=1,
    )  # fmt: skip
    search = SearchSettings(
        selection="successive_halving", epochs=max(3, epochs // 5), tuning_epochs=7
    )
    return settings, search
