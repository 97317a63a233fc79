"""Trainings that a run keeps, epoch by epoch, so that a killed one can continue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from .autosave import QUICK, is_kept, kept
from .config import Config, setting
from .errors import BmnasError
from .genotype import Genotype
from .tensor_files import check_tensors, read_tensors, tensor_hash

FORMAT = "bmnas-training/1"

#: Attributes of modules, besides their tensors, that tell one network from another.
_PLAIN = (bool, int, float, str, Genotype, type(None))


@dataclass(frozen=True, kw_only=True)
class TrainingHeader(Config):
    """The header of a training's file: a record of each epoch, and how long they took."""

    format: str = FORMAT
    records: tuple[dict, ...]
    finished: bool
    seconds: float = setting(0.0, ge=0.0)


class KeptTraining:
    """What a run's folder keeps of one training: its records, network and optimiser. ::

        kept = KeptTraining("training", net, source, config, seed)
        records = kept.begin(optimizer)          # of the epochs that a killed run had made
        kept.add(record)                         # after each further one

    Outside a run it keeps nothing. A training is identified by the network in its present state,
    the source's ``content_hash`` and ``made_from``; together they must fix the result to the bit.
    """

    def __init__(self, kind: str, net: nn.Module, source: object, *made_from: object):
        self._net, self._autosave, self._finished = net, None, False
        if is_kept():
            read = source and (source.content_hash, source.device.type)
            self._autosave = kept(kind, _identity(net), read, *made_from)

    def begin(self, optimizer: Optimizer, more: dict[str, Tensor] | None = None) -> list[dict]:
        """Load what was kept; returns the records of its epochs.

        ``more`` are other tensors to keep, such as the state of the random numbers; loading changes
        them in place.
        """
        self._optimizer, self._more, self.records = optimizer, more or {}, []
        if self._autosave and (found := self._autosave.read(self._read)):
            header, tensors = found
            self._finished = header.finished
            self._restore(tensors)
            self._autosave.continue_from(header.seconds)
            self.records = [dict(record) for record in header.records]
        return list(self.records)

    def add(self, record: dict, finished: bool = False) -> None:
        """Keep an epoch's record and, if an autosave is due, the network and the optimiser."""
        self.records.append(record)
        self._finished = finished
        if self._autosave and (finished or self._autosave.due()):
            self.save()

    def save(self) -> None:
        """Keep the network and the optimiser as they are, unless training again is quicker."""
        if self._autosave and self._autosave.seconds >= QUICK:
            self._autosave.save(self._saved)

    def _saved(self) -> tuple[dict[str, Tensor], dict]:
        tensors = {f"net.{name}": tensor for name, tensor in self._net.state_dict().items()}
        if not self._finished:
            for i, state in self._optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in state.items()}
            tensors |= {f"more.{name}": tensor for name, tensor in self._more.items()}
        header = TrainingHeader(records=tuple(self.records), finished=self._finished)
        return tensors, header.to_dict()

    def _read(self, path: Path) -> tuple[TrainingHeader, dict[str, Tensor]]:
        def check(header: dict, described: dict[str, Tensor]) -> TrainingHeader:
            own = {f"net.{name}": tensor for name, tensor in self._net.state_dict().items()}
            net = {name: tensor for name, tensor in described.items() if name.startswith("net.")}
            check_tensors(net, own, BmnasError)
            return TrainingHeader.from_dict(header)

        return read_tensors(path, FORMAT, BmnasError, "training", check)

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        parts: dict[str, dict] = {"net": {}, "optimizer": {}, "more": {}}
        for place, tensor in tensors.items():
            part, _, name = place.partition(".")
            parts[part][name] = tensor
        self._net.load_state_dict(parts["net"])
        if not self._finished:
            state: dict[int, dict[str, Tensor]] = {}
            for place, tensor in parts["optimizer"].items():
                i, name = place.split(".")
                state.setdefault(int(i), {})[name] = tensor
            self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": state})
            for name, tensor in parts["more"].items():
                self._more[name].copy_(tensor)


def _identity(net: nn.Module) -> list:
    """What identifies a network: its parts, their settings and its tensors."""
    parts = [
        (name, type(part).__qualname__, _plain(vars(part)), part.extra_repr())
        for name, part in net.named_modules()
    ]
    return [parts, {name: tensor_hash(tensor) for name, tensor in net.state_dict().items()}]


def _plain(values: dict) -> list[tuple[str, object]]:
    return [(name, value) for name, value in sorted(values.items()) if _is_plain(value)]


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
