"""Settings: frozen dataclasses that check themselves and round-trip through JSON."""

from __future__ import annotations

import json
import operator
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import repeat
from math import isfinite
from numbers import Integral, Real
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from .errors import BmnasError, check_type, near_miss, quoted
from .reading import parse_json

__version__ = "0.1.0"


class ConfigError(BmnasError):
    """A setting that does not exist or has a value that is not allowed."""


#: What errors call the types of fields, and limits.
KINDS = {int: "an integer", float: "a number", str: "text", bool: "True or False", tuple: "a tuple"}
LIMITS = {"ge": "at least", "le": "at most", "gt": "above"}
#: No setting that counts something is larger; beyond, numbers overflow far from here.
MOST = 10**6


def setting(default=None, *, choices=(), **limits: float):
    """A dataclass field that :class:`Config` checks: one of ``choices``; ``ge``, ``le``, ``gt``."""
    return field(default=default, metadata={"choices": choices, "limits": limits})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all settings. Refuses unknown fields, wrong types and values out of range."""

    def __new__(cls, **given):
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                found = f"field {quoted(name)}{near_miss(name, known)}"
                raise ConfigError(cls.__name__, found, ", ".join(known))
        return super().__new__(cls)

    def __post_init__(self):
        fit_fields(self, ConfigError)
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not isfinite(value):
                raise ConfigError(f"{type(self).__name__}.{f.name}", value, "a finite number")
            if value is not None and f.metadata:
                for item in value if isinstance(value, tuple) else (value,):
                    _check_item(item, f"{type(self).__name__}.{f.name}", **f.metadata)

    @classmethod
    def from_optional(cls, config: Config | None) -> Config:
        """``config``, or the defaults for None. Raises :class:`ConfigError` for another type."""
        return cls() if config is None else check_type(config, cls, "config", ConfigError)

    def with_defaults(self, base: Config):
        """This config with each field that is None taken from ``base``, if ``base`` has it."""
        gaps = [f.name for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{name: getattr(base, name, None) for name in gaps})

    def to_dict(self) -> dict:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: dict):
        """Raises :class:`ConfigError` for anything but an object with fields that are known."""
        if not isinstance(data, dict):
            raise ConfigError(cls.__name__, quoted(data), "an object")
        for f in fields(cls):
            if f.name not in data and f.default is f.default_factory is MISSING:
                raise ConfigError(f"{cls.__name__}.{f.name}", "nothing", "a value")
        return cls(**{str(name): value for name, value in data.items()})

    @classmethod
    def from_json(cls, text: str):
        return cls.from_dict(parse_json(text, ConfigError, cls.__name__))


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """What a task fixes for its search and its training: one row of the paper's table.

    ``C`` and ``L`` are the inner representation's channels and length, ``N`` the number of Cells,
    ``M`` the inner steps of each. The learning rate falls from ``max_lr`` to ``min_lr`` along a
    cosine, restarting after ``restart`` epochs, then twice, four times, … as many.
    """

    C: int | None = setting(ge=1, le=MOST)
    L: int | None = setting(ge=1, le=MOST)
    N: int | None = setting(ge=1, le=64)  # as a genotype, genotype.LARGEST
    M: int | None = setting(ge=1, le=64)
    epochs: int | None = setting(ge=1, le=MOST)
    batch_size: int | None = setting(ge=2, le=MOST)
    dropout: float | None = setting(ge=0.0, le=0.95)
    max_lr: float | None = setting(gt=0.0)
    min_lr: float | None = setting(ge=0.0)
    weight_decay: float | None = setting(ge=0.0)
    restart: int | None = setting(ge=1, le=MOST)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """What a task fixes for its search alone: how it ends, and what differs from the training."""

    selection: str | None = None
    rungs: tuple[tuple[int, int], ...] | None = None
    tuning_epochs: int | None = setting(ge=0, le=MOST)


def _check_item(item, place: str, choices, limits: dict[str, float]) -> None:
    if choices and item not in choices:
        allowed, hint = ", ".join(map(repr, choices)), near_miss(item, choices)
        raise ConfigError(place, f"{item!r}{hint}", allowed)
    if not all(getattr(operator, name)(item, limit) for name, limit in limits.items()):
        allowed = ", ".join(f"{LIMITS[name]} {limit}" for name, limit in limits.items())
        raise ConfigError(place, repr(item), allowed)


def fit_fields(part, error: type[BmnasError]) -> None:
    """Bring each field of a frozen dataclass to its declared type. Raises as :func:`as_type`."""
    for name, hint in get_type_hints(type(part)).items():
        value = as_type(getattr(part, name), hint, f"{type(part).__name__}.{name}", error)
        object.__setattr__(part, name, value)


def as_type(value, hint, place: str, error: type[BmnasError]):
    """``value`` as ``hint`` asks, integers accepted as floats and lists as tuples; or ``error``."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(option) or option for option in options]
    for option, kind in zip(options, kinds, strict=True):
        inner = get_args(option)
        if kind in (int, float):  # NumPy's too, but neither True nor NaN
            numbers = Integral if kind is int else Real
            if isinstance(value, numbers) and not isinstance(value, bool) and value == value:
                with suppress(OverflowError):  # an integer of hundreds of digits
                    return kind(value)
        elif kind is tuple and isinstance(value, (list, tuple)):
            each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            if len(each) == len(value):
                places = (f"{place}[{i}]" for i in range(len(value)))
                return tuple(map(as_type, value, each, places, repeat(error)))
        elif type(value) is kind or (kind not in KINDS and isinstance(value, kind)):
            if not inner:
                return value
            keys = [as_type(key, inner[0], f"{place}: key", error) for key in value]
            places = (f"{place}[{quoted(key)}]" for key in keys)
            items = map(as_type, value.values(), repeat(inner[1]), places, repeat(error))
            return dict(zip(keys, items, strict=True))
    kinds = [kind for kind in kinds if kind is not type(None)]
    allowed = " or ".join(KINDS.get(kind, f"a {kind.__name__}") for kind in kinds)
    raise error(place, quoted(value), allowed)
