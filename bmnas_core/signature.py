"""Signature: what a network reads and what its outputs mean, so that it can be used without a task.

The word is TensorFlow's and MLflow's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import Config, ConfigError, setting
from .errors import quoted
from .genotype import GenotypeError, check_features
from .losses import LOSSES, Targets
from .networks import POOLINGS
from .tasks.inputs import FeatureArrays

if TYPE_CHECKING:
    from .tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Signature(Config):
    """What a network reads and what its outputs mean.

    Raises :class:`ConfigError` for parts that do not fit together.

    Attributes:
        task: the task that it was trained for, in words.
        features: modality → names of its features, in the task's order, all of them.
        pooling: modality → how its features are pooled, see :func:`~bmnas_core.networks.pool`.
        shapes: feature → its shape (C, …) before pooling, of a task without backbones.
        labels: what a task's ``label_kind`` is, and so what outputs mean: logits of which the
            softmax, or each one's sigmoid, are probabilities; or standardised values.
        class_names: of every output in order, or empty.
        mean, scale: of ``"values"`` alone, one for each output: value = output · scale + mean.
    """

    task: str
    features: dict[str, tuple[str, ...]]
    pooling: dict[str, str]
    shapes: dict[str, tuple[int, ...]] | None = None
    labels: str = setting("classes", choices=LOSSES)
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = setting((), gt=0.0)

    def __post_init__(self):
        super().__post_init__()
        for place, found, allowed in self._problems():
            raise ConfigError(f"Signature.{place}", found, allowed)

    @classmethod
    def from_task(cls, task: Task) -> Signature:
        """That of the networks of a task."""
        targets = task.targets
        return cls(
            task=f"{task.name} ({task.variant})" if task.variant else task.name,
            features={modality.name: tuple(modality.channels) for modality in task.modalities},
            pooling={modality.name: modality.pooling for modality in task.modalities},
            shapes={
                name: shape
                for modality in task.modalities
                if isinstance(modality.inputs, FeatureArrays)
                for name, shape in modality.shapes.items()
            },
            labels=task.label_kind,
            class_names=task.class_names,
            mean=targets.mean if targets else (),
            scale=targets.scale if targets else (),
        )

    @property
    def targets(self) -> Targets | None:
        """By what a regression's values were standardised; None for classes."""
        return Targets(self.mean, self.scale) if self.scale else None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """All features, modality by modality, as a genotype lists them."""
        return tuple(name for names in self.features.values() for name in names)

    def pooling_of(self, feature: str) -> str:
        """How a feature is pooled: as its modality is."""
        return next(self.pooling[m] for m, names in self.features.items() if feature in names)

    def _problems(self):
        """What does not fit together: place, found, allowed."""
        try:
            check_features(self.feature_names)
        except GenotypeError as error:
            yield error.place, quoted(error.found), error.allowed
        if self.pooling.keys() != self.features.keys():
            yield "pooling", f"modalities {quoted(list(self.pooling))}", quoted(list(self.features))
        for modality, how in self.pooling.items():
            if how not in POOLINGS:
                yield f"pooling[{modality!r}]", quoted(how), ", ".join(POOLINGS)
        for name, shape in (self.shapes or {}).items():
            if name not in self.feature_names or not 1 <= len(shape) <= 4 or min(shape) < 1:
                yield "shapes", f"{quoted(name)}: {shape}", "(C, …) of the features"
        if bool(self.mean) != (self.labels == "values"):
            yield "mean", f"{len(self.mean)} numbers for {self.labels!r}", "one a value, else none"
        if len(self.scale) != len(self.mean):
            yield "scale", f"{len(self.scale)} numbers", f"{len(self.mean)}, as many as mean"
        for place, numbers in {"mean": self.mean, "scale": self.scale}.items():
            for number in numbers:
                if not math.isfinite(number):
                    yield place, number, "finite numbers"
