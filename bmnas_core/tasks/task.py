"""Task: data, frozen backbones, a metric and settings, for any number of modalities."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..backbones.tap import Tapped, dry_run
from ..config import SearchSettings, Settings, fit_fields
from ..errors import TaskError, check_type, near_miss, quoted
from ..genotype import GenotypeError, check_features
from ..losses import Targets
from ..metrics import METRICS, fitting
from ..networks import POOLINGS, FeatureError
from ..registry import Registry
from ..tensor_files import tensor_hash
from .arrays import (
    SPLITS,
    check_metric,
    check_name,
    checked_names,
    checked_weights,
    default_settings,
    feature_arrays,
    group_numbers,
    label_tensor,
    presence,
    split_rows,
)
from .dataset_inputs import DatasetInputs
from .inputs import FeatureArrays, FileInputs, Inputs, first_readable

#: Of up to so many classes a task prints the samples in each split.
MAX_COUNTED = 12


def _check_options(name: str, function: object) -> None:
    """Refuse anything but a function of named options."""
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    try:
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    except (TypeError, ValueError):
        kinds = {None}
    if inspect.isclass(function) or not kinds <= named:
        allowed = "a function whose parameters, the task's options, all have names"
        raise TaskError(f"task {name!r}", repr(function), allowed)


#: The kit's tasks: name → module that registers the task.
MODULES = {name: f"bmnas_core.tasks.{name}" for name in ("digits", "avmnist")}
MODULES |= {name: f"bmnas_core.tasks.paper.{name}" for name in ("mmimdb", "ntu", "egogesture")}
MODULES |= dict.fromkeys(
    ("multiple_features", "diabetes", "breast_cancer"), "bmnas_core.tasks.tables"
)
#: Functions from options to a task, by name. The kit's own are imported on demand.
TASKS = Registry("task", TaskError, check=_check_options, on_demand=MODULES)


def _plain_settings(module: nn.Module) -> list[tuple]:
    """Numbers, names and the like that a module and its parts hold besides their tensors."""
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (name, type(part).__qualname__, key, value)
        for name, part in module.named_modules()
        for key, value in sorted(vars(part).items())
        if isinstance(value, plain) and key != "training" and not key.startswith("_")
    ]


@dataclass(frozen=True, eq=False)
class Modality:
    """One stream of inputs and the frozen backbone that reads it.

    ``Modality(name, tapped, inputs)`` does without the channels of a :func:`~bmnas_core.tap`: they
    are measured on the first input that can be read.

    Attributes:
        name: e.g. ``"Image"``.
        backbone: module from a batch of inputs to its list of features, first block first. For
            features that are there already it is ``nn.Identity()``.
        channels: feature name → channels, in the order in which the backbone gives them.
        inputs: (items, …), all items of all splits, numbers of any type that the backbone reads;
            or a ``torch.utils.data.Dataset``, which becomes
            :class:`~bmnas_core.tasks.dataset_inputs.DatasetInputs`; or a
            :class:`~bmnas_core.tasks.inputs.FileInputs`; these read them on demand; or
            :class:`~bmnas_core.tasks.inputs.FeatureArrays`.
        pooling: how features are pooled to length L, see :func:`~bmnas_core.networks.pool`.
        classes: (items,), each item's own class, such as the digit it shows, or None.
    """

    name: str
    backbone: nn.Module
    channels: dict[str, int] | None = None
    inputs: Tensor | FileInputs | DatasetInputs | FeatureArrays = None
    pooling: str = "grid"
    classes: Tensor | None = None

    def __post_init__(self):
        channels, inputs = self.channels, self.inputs
        if inputs is None and not isinstance(channels, dict):  # Modality(name, tapped, inputs)
            channels, inputs = None, channels
        if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "biuf":
            inputs = torch.from_numpy(inputs)
        if isinstance(inputs, Dataset):
            inputs = DatasetInputs(inputs, name=self.name)
        elif isinstance(inputs, DatasetInputs):
            inputs = inputs.named(self.name)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "inputs", inputs)
        measured = channels is None and isinstance(self.backbone, Tapped)
        if measured and isinstance(inputs, Inputs):
            channels = {name: shape[0] for name, shape in self.shapes.items()}
            object.__setattr__(self, "channels", channels)
        fit_fields(self, TaskError)
        if not self.channels or min(self.channels.values()) < 1:
            allowed = "feature names, each with its number of channels (bm.tap measures them)"
            raise TaskError(f"{self.name}: channels", self.channels, allowed)
        if isinstance(self.backbone, Tapped) and tuple(self.channels) != self.backbone.names:
            allowed = f"{', '.join(self.backbone.names)}, as tapped"
            raise TaskError(f"{self.name}: channels", ", ".join(self.channels), allowed)
        if self.pooling not in POOLINGS:
            raise TaskError(f"{self.name}: pooling", repr(self.pooling), ", ".join(POOLINGS))
        if measured or isinstance(inputs, FeatureArrays):
            self._check_pooling()

    def _check_pooling(self) -> None:
        for name, shape in self.shapes.items():
            if (axes := len(shape) - 1) not in POOLINGS[self.pooling]:
                place, found = f"{self.name}: pooling of {name!r}", f"{self.pooling!r} for {axes}"
                raise TaskError(place, f"{found} axes behind (n, C)", repr("time"))

    @classmethod
    def numbered(cls, name: str, backbone: nn.Module, inputs: Inputs, **more) -> Modality:
        """A modality with the backbone's ``channels``, its features numbered from 1."""
        channels = {f"{name}_{i}": c for i, c in enumerate(backbone.channels, 1)}
        return cls(name, backbone.eval(), channels, inputs, **more)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Feature name → shape (C, …) before pooling, of the first input that can be read.

        Raises TaskError without inputs, DataError if none can be read, and FeatureError for a
        backbone that cannot read it, which is left as it was.
        """
        inputs = self.inputs
        if isinstance(inputs, FeatureArrays):
            return {name: tuple(array.shape[1:]) for name, array in inputs.arrays.items()}
        if (isinstance(inputs, Tensor) and not inputs.dim()) or not len(inputs):
            raise TaskError(f"{self.name}: inputs", "no items", "(items, …)")
        first, place = first_readable(inputs), f"backbone of {self.name!r}"
        outputs = self.named(dry_run(self.backbone, torch.stack([first, first]), place))
        for name, output in outputs.items():
            one, same = output.float()
            if not output.isfinite().all():
                raise FeatureError(f"feature {name!r}", "NaN or infinity", "finite numbers")
            if not torch.allclose(one, same, rtol=0.01, atol=0.01 * float(one.abs().max())):
                found = "two values for an item that was given twice"
                allowed = "one: items are read each alone, along the first axis, without dropout"
                raise FeatureError(f"feature {name!r}", found, allowed)
        return {name: tuple(output.shape[1:]) for name, output in outputs.items()}

    def named(self, outputs: object) -> dict[str, Tensor]:
        """What the backbone gave, by feature name. Raises FeatureError unless it fits."""
        place = f"backbone of {self.name!r}"
        kinds = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        others = ", ".join(type(o).__name__ for o in kinds if not isinstance(o, Tensor))
        if kinds is not outputs or others:
            raise FeatureError(place, others or "a single tensor", "a list of tensors")
        names = tuple(self.channels or self.backbone.names)
        if len(outputs) != len(names):
            raise FeatureError(
                place, f"{len(outputs)} features", f"{len(names)} ({', '.join(names)})"
            )
        return dict(zip(names, outputs, strict=True))

    def fingerprint(self) -> str:
        """Hash of all that determines this modality's features, except L.

        Each call reads the backbone's weights; the inputs are hashed once and must not change.
        """
        digest = hashlib.sha256(f"{self.name} {self.channels} {self.pooling}".encode())
        digest.update(f"{_plain_settings(self.backbone)} {self.inputs_hash}".encode())
        for name, tensor in self.backbone.state_dict().items():
            digest.update(f"{name} {tensor_hash(tensor)}".encode())
        return digest.hexdigest()

    @cached_property
    def inputs_hash(self) -> str:
        return getattr(self.inputs, "version", None) or tensor_hash(self.inputs)


@dataclass(frozen=True, eq=False)
class Split:
    """Samples as rows of item numbers, one column per modality, and their labels.

    An item of -1 is a gap: the sample lacks that modality.
    """

    name: str
    index: Tensor  # (n, modalities), integers
    labels: Tensor  # (n,) classes; (n, classes) of 0 and 1; (n,) or (n, values) of float32
    groups: Tensor | None = None  # (n,) numbers of what must stay together in folds, or None

    def __post_init__(self):
        fit_fields(self, TaskError)
        if not self.index.dim() or not self.labels.dim():
            allowed = "index (n, modalities) and labels (n, …)"
            raise TaskError(f"split {self.name!r}", "a single number", allowed)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class Task:
    """Everything a search needs. Raises TaskError if its parts do not fit together.

    Attributes:
        name: e.g. ``"digits"``.
        rule: how the label follows from the inputs, e.g. ``"sum"``; None for a task without rules.
        classes: number of logits, or of a regression's values.
        metric: a name in :data:`bmnas_core.metrics.METRICS`.
        splits: ``"train"``, ``"validation"`` and ``"test"``; no item is in two of them.
        config: the task's settings.
        search_config: settings that differ in a search; a field that is None is as in ``config``.
        backbone_config: modality name → settings that differ when its backbone is trained alone.
        notes: facts worth showing, such as the difficulty knobs.
        protocol: name of the protocol that fixes the splits, e.g. ``"cross-subject"``, or None.
        class_names: of every class in order, or empty.
        class_weights: how much each class counts in the loss, or empty; of a multi-label task, a
            class's samples against all others.
        label_smoothing: the share of a label that the loss spreads over all classes.
        threshold: the probability above which a class of a multi-label task is predicted.
        withheld: whether the samples of test are withheld, so that it may be empty.
    """

    name: str
    rule: str | None
    classes: int
    metric: str
    modalities: tuple[Modality, ...]
    splits: dict[str, Split]
    config: Settings
    search_config: SearchSettings = SearchSettings(selection="successive_halving")
    notes: dict = field(default_factory=dict)
    backbone_config: dict[str, Settings] = field(default_factory=dict)
    protocol: str | None = None
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    threshold: float = 0.5
    withheld: bool = False

    def __post_init__(self):
        fit_fields(self, TaskError)
        for problem in self._problems():
            raise TaskError(f"{self.name}: {problem}")

    @classmethod
    def from_features(
        cls,
        name: str,
        features: Mapping[str, object],
        labels: object,
        splits: object = (0.6, 0.2, 0.2),
        *,
        groups: object = None,
        present: Mapping[str, object] | None = None,
        metric: str | None = None,
        class_names: Sequence[str] = (),
        class_weights: str | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
        pooling: Mapping[str, str] | None = None,
        config: Settings | None = None,
        search_config: SearchSettings | None = None,
        seed: int = 0,
    ) -> Task:
        """A task of one's own, from arrays of features that are there already.

        Args:
            name: what tables and pictures call it.
            features: modality → an array, a list of arrays, or a dict from feature names to
                arrays, of NumPy, also memory-mapped, or tensors: (n, C), (n, C, T), (n, C, H, W)
                or (n, C, T, H, W). An array in a list is called ``Video_1``, …. They are used as
                they are: standardise columns of different units, by mean and deviation of train.
                They are not copied and must not change.
            labels: class numbers from 0 on or class names, (n,); or a multi-hot matrix of 0 and 1,
                (n, classes); or values for a regression, (n,) or, with a metric of values,
                (n, values).
            splits: fractions for train, validation and test, stratified by class or value; or n
                names of splits; or three arrays of row numbers, which may leave out rows; or a
                dict of these, where ``"test"`` may be missing if its samples are withheld.
            groups: (n,), such as who speaks: a group is in one split only, and in one fold of a
                cross-validation.
            present: modality → (n,) booleans, which samples have it. Where one is missing, its
                arrays may hold anything.
            metric: a name in :data:`bmnas_core.metrics.METRICS`; by default accuracy, weighted F1
                for a multi-hot matrix, or the root of the mean squared error of values.
            class_names: of class numbers, or of the columns of a multi-hot matrix.
            class_weights: a number above 0 for each class, or ``"balanced"``, which makes up for
                how rare a class is in train.
            label_smoothing, threshold: see :class:`Task`.
            pooling: modality → how its features are pooled to length L, see
                :func:`~bmnas_core.networks.pool`; by default ``"time"`` if it has a feature
                (n, C, T, H, W), else ``"grid"``.
            config, search_config: settings that differ from
                :func:`~bmnas_core.tasks.arrays.default_settings`.
            seed: of the split by fractions.

        Raises TaskError, which names modality, feature and row, for arrays that do not fit.
        """
        arrays = feature_arrays(features, present)
        if pooling is not None and not isinstance(pooling, Mapping):
            raise TaskError("pooling", quoted(pooling), "a dict from modalities to ways of pooling")
        modalities, pooling = [], dict(pooling or {})
        for modality, own in arrays.items():
            channels = {feature: int(array.shape[1]) for feature, array in own.arrays.items()}
            axes = {array.ndim - 2 for array in own.arrays.values()}
            how = pooling.pop(modality, "time" if 3 in axes else "grid")
            modalities.append(Modality(modality, nn.Identity(), channels, own, how))
        for modality in pooling:
            found = f"modality {quoted(modality)}{near_miss(modality, arrays)}"
            raise TaskError("pooling", found, ", ".join(arrays))
        how = {"groups": groups, "present": present, "metric": metric, "class_names": class_names}
        how |= {"class_weights": class_weights, "label_smoothing": label_smoothing}
        how |= {"threshold": threshold, "config": config, "search_config": search_config}
        return cls.from_modalities(name, modalities, labels, splits, seed=seed, **how)

    @classmethod
    def from_modalities(
        cls,
        name: str,
        modalities: Sequence[Modality],
        labels: object,
        splits: object = (0.6, 0.2, 0.2),
        *,
        groups: object = None,
        present: Mapping[str, object] | None = None,
        metric: str | None = None,
        class_names: Sequence[str] = (),
        class_weights: str | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        threshold: float = 0.5,
        config: Settings | None = None,
        search_config: SearchSettings | None = None,
        seed: int = 0,
    ) -> Task:
        """A task of one's own, from raw inputs and their backbones, such as :func:`bm.tap` gives.

        Item i of every modality is sample i. The rest is as in :meth:`from_features`; its default
        settings follow from the shapes of the features. Raises TaskError for what does not fit.
        """
        check_name("name", name)
        for given, kind in ((config, Settings), (search_config, SearchSettings)):
            if given is not None and type(given) is not kind:
                place = "config" if kind is Settings else "search_config"
                raise TaskError(place, quoted(given), f"bm.{kind.__name__}(…)")
        modalities = _checked_modalities(modalities)
        n = len(modalities[0].inputs)
        masks = presence(present, [modality.name for modality in modalities], n)
        check_metric(metric)
        wanted = None if metric is None else METRICS[metric].labels == ("values",)
        labels, classes, found = label_tensor(labels, n, wanted)
        class_names = checked_names(class_names)
        if found and class_names:
            allowed = "names in one of them: class_names is for class numbers"
            raise TaskError("class_names", "names beside labels that are names", allowed)
        kind = label_kind(labels)
        if classes == 1 and kind == "classes":
            raise TaskError("labels", "one class for every sample", "two classes or more")
        metric = metric or {"classes": "accuracy", "multi-label": "weighted_f1"}.get(kind, "rmse")
        if not METRICS[metric].fits(kind, classes):
            allowed = ", ".join(fitting(kind, classes))
            raise TaskError("metric", f"{metric!r} for {_described(kind, classes)}", allowed)
        rows = split_rows(splits, labels, groups, seed)
        groups = None if groups is None else torch.from_numpy(group_numbers(groups, n))
        for split in ("validation", "test") if len(rows["test"]) else ("validation",):
            if problem := METRICS[metric].undefined(labels[rows[split]], classes):
                allowed = f"labels for which metric {metric!r} is defined"
                raise TaskError(f"split {split!r}", problem, allowed)
        if class_weights is not None:
            class_weights = checked_weights(class_weights, labels[rows["train"]], classes)
        index = torch.arange(n)[:, None].repeat(1, len(modalities))
        for column, modality in zip(index.T, modalities, strict=True):
            if modality.name in masks:
                column[~masks[modality.name]] = -1
        shapes = [shape for modality in modalities for shape in modality.shapes.values()]
        usual, usual_search = default_settings(shapes, len(modalities), len(rows["train"]))
        return cls(
            name=name,
            rule=None,
            classes=classes,
            metric=metric,
            modalities=tuple(modalities),
            splits={
                name: Split(name, index[own], labels[own], None if groups is None else groups[own])
                for name, own in rows.items()
            },
            config=usual if config is None else config.with_defaults(usual),
            search_config=(search_config or SearchSettings()).with_defaults(usual_search),
            class_names=class_names or found,
            class_weights=class_weights or (),
            label_smoothing=label_smoothing,
            threshold=threshold,
            withheld=not len(rows["test"]),
        )

    def _problems(self) -> Iterator[str]:
        """What does not hold together; each check needs those before it to have passed."""
        if len(self.modalities) < 2:
            yield f"found {len(self.modalities)} modality; allowed: two or more"
        modalities = [("modality", m.name) for m in self.modalities]
        names = modalities + [("feature", name) for m in self.modalities for name in m.channels]
        for kind, name in names:
            if names.count((kind, name)) > 1:
                yield f"{kind} {name!r} twice; allowed: each name once"
        try:
            check_features(self.features)
        except GenotypeError as error:
            yield str(error)
        if self.class_names and len(self.class_names) != self.classes:
            yield f"found {len(self.class_names)} class names; allowed: {self.classes}, or none"
        for name, value in vars(self.config).items():
            if value is None:
                yield f"config.{name}: found None; allowed: a value"
        for name in ("label_smoothing", "threshold"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name}: found {getattr(self, name)}; allowed: at least 0, below 1"
        weights = self.class_weights
        if weights and (len(weights) != self.classes or not all(0 < w < math.inf for w in weights)):
            yield f"class_weights: found {quoted(weights)}; allowed: {self.classes} numbers above 0"
        for name in SPLITS:
            if name not in self.splits or not (
                len(self.splits[name]) or (self.withheld and name == "test")
            ):
                yield f"split {name!r} is empty; allowed: at least one sample"
            for problem in self._problems_of(self.splits[name]):
                yield f"split {name!r}: {problem}"
        given = [split for split in map(self.splits.get, SPLITS) if len(split)]
        kinds = list(dict.fromkeys(label_kind(split.labels) for split in given))
        if len(kinds) > 1:
            yield f"found labels of kinds {', '.join(kinds)}; allowed: one kind in all splits"
        if kinds == ["values"] and (weights or self.label_smoothing or self.class_names):
            yield "found class weights, smoothing or names of classes for values; allowed: none"
        for modality in self.modalities:
            items = torch.cat([self.items(split, modality.name) for split in SPLITS])
            found, times = items.unique(return_counts=True)
            if int(times.max()) > 1:
                item = f"{modality.name} item {int(found[times.argmax()])}"
                allowed = "one, or it would be scored and learned from"
                yield f"{item} is in more than one split; allowed: {allowed}"

    def _problems_of(self, split: Split) -> Iterator[str]:
        index, labels = split.index, split.labels
        allowed = (len(labels), len(self.modalities))
        if index.shape != allowed:
            yield f"found index of shape {tuple(index.shape)}; allowed: {allowed}"
        if index.dtype != torch.int64:
            yield f"found index of {index.dtype}; allowed: torch.int64"
        if labels.dtype not in (torch.int64, torch.float32):
            allowed = "torch.int64 for classes, torch.float32 for values"
            yield f"found labels of {labels.dtype}; allowed: {allowed}"
        if not len(split):
            return
        for column, modality in zip(index.T, self.modalities, strict=True):
            low, high, n = int(column.min()), int(column.max()), len(modality.inputs)
            if low < -1 or high >= n:
                allowed = f"0…{n - 1}, or -1 for a gap"
                yield f"found {modality.name} items {low}…{high}; allowed: {allowed}"
            if high < 0 and split.name == "train":
                yield f"found no sample that has {modality.name}; allowed: at least one"
        gaps = (index < 0).all(1).nonzero().flatten().tolist()
        if gaps:
            yield f"sample {gaps[0]}: found no modality that is present; allowed: at least one"
        if labels.shape[1:] not in ((), (self.classes,)):
            allowed = f"(n,), or (n, {self.classes})"
            yield f"found labels of shape {tuple(labels.shape)}; allowed: {allowed}"
        if labels.is_floating_point():
            if not labels.isfinite().all():
                yield "found NaN or infinity as a label; allowed: finite numbers"
            if labels.dim() == 1 and self.classes != 1:
                yield f"found labels (n,) of values; allowed: (n, {self.classes})"
            return
        low, high = int(labels.min()), int(labels.max())
        limit = 1 if labels.dim() == 2 else self.classes - 1
        if low < 0 or high > limit:
            yield f"found labels {low}…{high}; allowed: 0…{limit}"

    @property
    def channels(self) -> dict[str, int]:
        """Feature name → channels, modality by modality, in the order that genotypes use."""
        return {name: c for m in self.modalities for name, c in m.channels.items()}

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @property
    def gaps(self) -> bool:
        """Whether some samples lack a modality."""
        return any(bool((split.index < 0).any()) for split in self.splits.values())

    @property
    def label_kind(self) -> str:
        """``"classes"``, ``"multi-label"`` or, for a regression, ``"values"``."""
        return label_kind(self.splits["train"].labels)

    @cached_property
    def targets(self) -> Targets | None:
        """By what a regression's values are standardised; None for classes."""
        labels = self.splits["train"].labels
        return Targets.from_labels(labels) if labels.is_floating_point() else None

    @property
    def scoring(self) -> dict:
        """What losses and scores follow from: the metric, and what differs from the usual."""
        usual = {"metric": None, "class_weights": (), "label_smoothing": 0.0, "threshold": 0.5}
        given = {k: getattr(self, k) for k, v in usual.items() if getattr(self, k) != v}
        return {k: [*v] if isinstance(v, tuple) else v for k, v in given.items()}

    @property
    def variant(self) -> str:
        """The rule and the protocol in words, e.g. ``"rule sum"``; empty if there is neither."""
        named = (("rule", self.rule), ("protocol", self.protocol))
        return ", ".join(f"{kind} {name}" for kind, name in named if name)

    def items(self, split: str, modality: str) -> Tensor:
        """Item numbers of a modality that a split uses: (k,), ascending. Raises TaskError."""
        column = self.modalities.index(self.modality(modality))
        items = self.split(split).index[:, column].unique()
        return items[items >= 0]

    def modality(self, name: str) -> Modality:
        """A modality by name. Raises TaskError for an unknown one."""
        named = {m.name: m for m in self.modalities}
        if name not in named:
            raise TaskError("modality", repr(name), ", ".join(named))
        return named[name]

    def split(self, name: str) -> Split:
        """A split by name; ``"train+validation"`` joins two. Raises TaskError for another."""
        if not isinstance(name, str) or not set(name.split("+")) <= set(self.splits):
            raise TaskError("split", repr(name), ", ".join(self.splits))
        parts = [self.splits[part] for part in name.split("+")]
        if len(parts) == 1:
            return parts[0]
        index, labels = (torch.cat([getattr(p, k) for p in parts]) for k in ("index", "labels"))
        groups = [part.groups for part in parts if part.groups is not None]
        return Split(name, index, labels, torch.cat(groups) if len(groups) == len(parts) else None)

    def __repr__(self) -> str:
        name = f"{self.name!r} ({self.variant})" if self.variant else repr(self.name)
        scored = f"{_described(self.label_kind, self.classes)}, {self.metric}"
        sizes = ", ".join(f"{len(self.splits[s])} {s}" for s in SPLITS)
        index = torch.cat([self.splits[s].index for s in SPLITS])
        lacking = zip(self.modalities, (index < 0).double().mean(0).tolist(), strict=True)
        gaps = ", ".join(f"{m.name} missing in {share:.0%}" for m, share in lacking if share)
        whole = f"Task {name}: {scored}; {sizes}; features {', '.join(self.features)}"
        return f"{whole}; {gaps}" if gaps else whole

    def __str__(self) -> str:
        """The task, and each of its settings."""
        lines, own = [repr(self)], {"settings": self.config, "in its search": self.search_config}
        for name, config in own.items():
            given = {k: v for k, v in vars(config).items() if v is not None}
            lines.append(f"{name}: " + ", ".join(f"{k} {v}" for k, v in given.items()))
        if self.label_kind == "classes" and self.classes <= MAX_COUNTED:
            counts = [self.splits[s].labels.bincount(minlength=self.classes) for s in SPLITS]
            each = [" / ".join(map(str, own)) for own in torch.stack(counts, 1).tolist()]
            names = self.class_names or [f"class {k}" for k in range(self.classes)]
            named = zip(names, each, strict=True)
            lines.append("samples: " + ", ".join(f"{name} {count}" for name, count in named))
        given = {k: v for k, v in self.scoring.items() if k != "metric"}
        if weights := given.get("class_weights"):
            given["class_weights"] = [float(f"{weight:.3g}") for weight in weights]
        if given:
            lines.append("labels: " + ", ".join(f"{k} {quoted(v)}" for k, v in given.items()))
        return "\n".join(lines)


def label_kind(labels: Tensor) -> str:
    """What labels of a split are: ``"classes"``, ``"multi-label"`` or ``"values"``."""
    if labels.is_floating_point():
        return "values"
    return "classes" if labels.dim() == 1 else "multi-label"


def _described(kind: str, classes: int) -> str:
    """Labels in words, e.g. ``"28 classes"``."""
    if kind == "values":
        return "1 value" if classes == 1 else f"{classes} values"
    return f"{classes} classes" + (", several a sample" if kind == "multi-label" else "")


def _checked_modalities(modalities: object) -> tuple[Modality, ...]:
    """Modalities with as many items each. Raises TaskError."""
    if not isinstance(modalities, (list, tuple)) or not modalities:
        raise TaskError("modalities", quoted(modalities), "a list of bm.Modality(…)")
    for i, modality in enumerate(modalities):
        check_type(modality, Modality, f"modalities[{i}]", TaskError, "a bm.Modality(…)")
        check_name(f"modalities[{i}]: name", modality.name)
    first = modalities[0]
    for modality in modalities:
        if len(modality.inputs) != len(first.inputs):
            allowed = f"{len(first.inputs):,}, as {first.name!r} has: one a sample"
            found = f"{len(modality.inputs):,} items"
            raise TaskError(f"modality {modality.name!r}", found, allowed)
    return tuple(modalities)


def as_task(task: Task) -> Task:
    """``task`` itself. Raises TaskError for anything but a task."""
    return check_type(task, Task, "task", TaskError, "a Task, as load_task gives")


def register_task(name: str):
    """Decorator: make a function loadable as ``load_task(name, option=…)``.

    Raises TaskError for a name that is taken or ill-formed, or anything but a function of named
    parameters.
    """
    return TASKS.register(name)


def load_task(name: str, **options) -> Task:
    """A task by name with its options, e.g. ``load_task("digits", rule="sum")``.

    Raises TaskError for an unknown name or option, with the nearest one and all that are known, and
    DataError for data files that are missing or damaged.
    """
    function = TASKS[name]
    known = tuple(inspect.signature(function).parameters)
    for option in options:
        if option not in known:
            found = f"option {option!r}{near_miss(option, known)}"
            raise TaskError(f"task {name!r}", found, ", ".join(known))
    return function(**options)
