"""Settings: frozen dataclasses that check themselves and round-trip through JSON."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .genotype import BmnasError, writing

__version__ = "0.1.0"


class ConfigError(BmnasError):
    """A setting that does not exist or has a value that is not allowed."""


class DeviceError(BmnasError):
    """A device that this machine does not have."""


def setting(default=None, *, choices=(), least=None, most=None, above=None):
    """A dataclass field with its allowed values, checked by :class:`Config`."""
    limits = {"choices": choices, "least": least, "most": most, "above": above}
    return field(default=default, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all settings. Refuses unknown fields, wrong types and values out of range."""

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for f in fields(self):
            value = _as_type(getattr(self, f.name), hints[f.name], f"{self._name()}.{f.name}")
            object.__setattr__(self, f.name, value)
            self._check_limits(f, value)

    @classmethod
    def of(cls, config: Config | None) -> Config:
        """``config``, or the defaults where None. Raises :class:`ConfigError` for another type."""
        if not isinstance(config, cls | None):
            found = type(config).__name__
            raise ConfigError(f"config: found {found}; allowed: a {cls._name()}")
        return cls() if config is None else config

    @classmethod
    def _name(cls) -> str:
        return cls.__name__

    def _check_limits(self, f, value) -> None:
        choices, least, most, above = (
            f.metadata.get(k) for k in ("choices", "least", "most", "above")
        )
        choices = choices() if callable(choices) else choices
        place = f"{self._name()}.{f.name}"
        if value is None:
            return
        for item in value if isinstance(value, tuple) else (value,):
            if choices and item not in choices:
                allowed = ", ".join(repr(c) for c in choices)
                raise ConfigError(f"{place}: found {item!r}; allowed: {allowed}")
            if not (
                (least is None or item >= least)
                and (most is None or item <= most)
                and (above is None or item > above)
            ):
                bounds = [
                    f"{word} {bound}"
                    for word, bound in (("at least", least), ("at most", most), ("above", above))
                    if bound is not None
                ]
                raise ConfigError(f"{place}: found {item!r}; allowed: {', '.join(bounds)}")

    def filled(self, base: Config):
        """This config with every field that is None taken from ``base`` where it has it."""
        known = {f.name for f in fields(base)}
        gaps = {
            f.name: getattr(base, f.name)
            for f in fields(self)
            if getattr(self, f.name) is None and f.name in known
        }
        return replace(self, **gaps)

    def to_dict(self) -> dict:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: dict):
        """Raises :class:`ConfigError` for anything but an object with known fields."""
        if not isinstance(data, dict):
            raise ConfigError(f"{cls._name()}: found {data!r}; allowed: an object")
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise ConfigError(
                    f"{cls._name()}: found field {name!r}; allowed: {', '.join(known)}"
                )
        return cls(**data)

    @classmethod
    def from_json(cls, text: str):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{cls._name()}: found no JSON ({error})") from None
        return cls.from_dict(data)


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """What a task fixes for its search and its training: one row of the paper's table.

    ``C`` and ``L`` are the inner representation's channels and length, ``N`` the number of Cells,
    ``M`` the inner steps of each. The learning rate falls from ``max_lr`` to ``min_lr`` along a
    cosine, restarting after ``restart`` epochs, then twice, four times, … as many. A field that
    is None is the task's own.
    """

    C: int | None = setting(least=1)
    L: int | None = setting(least=1)
    N: int | None = setting(least=1)
    M: int | None = setting(least=1)
    epochs: int | None = setting(least=1)
    batch_size: int | None = setting(least=2)
    dropout: float | None = setting(least=0.0, most=0.95)
    max_lr: float | None = setting(above=0.0)
    min_lr: float | None = setting(least=0.0)
    weight_decay: float | None = setting(least=0.0)
    restart: int | None = setting(least=1)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """What a task fixes for its search alone: how it ends, and sizes other than the training's."""

    choice: str | None = None
    rungs: tuple[tuple[int, int], ...] | None = None


def _as_type(value, hint, place: str):
    """``value`` as ``hint`` asks, integers accepted as floats and lists as tuples."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if get_origin(option) is tuple and isinstance(value, (list, tuple)):
            inner = get_args(option)
            each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
            if len(each) == len(value):
                return tuple(
                    _as_type(v, h, f"{place}[{i}]")
                    for i, (v, h) in enumerate(zip(value, each, strict=True))
                )
        if option is float and type(value) in (int, float) and value == value:
            return float(value)
        if isinstance(option, type) and type(value) is option and value == value:
            return value
    names = " or ".join(getattr(o, "__name__", str(o)) for o in options if o is not type(None))
    raise ConfigError(f"{place}: found {value!r}; allowed: {names}")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` is the first GPU where there is one and the CPU elsewhere.

    Raises:
        DeviceError: for a name PyTorch does not know or a device this machine lacks.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device: found {device!r}; allowed: 'auto', 'cpu', 'cuda', 'cuda:0', …")
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[found.type]
    if found.type == "cuda" and found.index is None and count:
        found = torch.device("cuda", torch.cuda.current_device())
    if not 0 <= (found.index or 0) < count:
        raise DeviceError(
            f"device: found {str(device)!r}, but this machine has {count} {found.type} device(s); "
            "allowed: 'auto' or 'cpu'"
        )
    return found


def device_name(device: torch.device) -> str:
    """What results call a device: ``"cpu"``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def write_tensors(path: str | os.PathLike, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Write tensors as safetensors with our header, whole or not at all."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with writing(path) as beside:
        save_file(tensors, beside, {"bmnas": header})


def read_tensors(
    path: str | os.PathLike, format: str, refused: type[BmnasError], what: str
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Header and tensors of a safetensors file that :func:`write_tensors` wrote in ``format``.

    Raises ``refused`` for a file that is missing, damaged or no ``what``.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("bmnas", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError, RecursionError) as error:
        raise refused(f"{path}: found no {what} ({error})") from None
    found = header.get("format") if isinstance(header, dict) else header
    if found != format:
        raise refused(f"{path}: found format {found!r}; allowed: {format!r}")
    return header, tensors


def as_seed(seed: int) -> int:
    """A seed as a plain int, NumPy's too. Raises :class:`ConfigError` for anything else."""
    try:
        return operator.index(seed)
    except TypeError:
        raise ConfigError(f"seed: found {seed!r}; allowed: an int") from None


def _stream_seed(seed: int, stream: tuple) -> int:
    digest = hashlib.blake2b(repr((as_seed(seed), *stream)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *stream: str | int) -> torch.Generator:
    """A random generator of its own for each (seed, stream), e.g. ``generator(0, "pairs")``."""
    return torch.Generator().manual_seed(_stream_seed(seed, stream))


#: Held while random numbers are drawn from a stream, so that threads do not draw each other's.
RANDOM = threading.RLock()


@contextmanager
def seeded(seed: int, *stream: str | int, device: torch.device | None = None):
    """Run a block on the random numbers of (seed, stream) and leave the global ones untouched.

    Whatever else draws random numbers in between, the block always sees the same ones: this is
    what makes a search resumable without storing generator states, and two of them independent,
    in one thread or in several.
    """
    on_gpu = device is not None and device.type == "cuda"
    with RANDOM, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.random.default_generator.manual_seed(_stream_seed(seed, stream))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(_stream_seed(seed, stream))
        yield


def epoch_batches(
    n: int, batch_size: int, seed: int, *stream: str | int
) -> tuple[torch.Tensor, ...]:
    """A shuffled epoch over n samples as batches of nearly equal size, at most ``batch_size``."""
    order = torch.randperm(n, generator=generator(seed, *stream))
    return order.tensor_split(-(-n // batch_size))
