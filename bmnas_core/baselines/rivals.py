"""The contest between rivals: one task, one FeatureBank, one recipe, one seed, one test each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import nn

from ..config import BmnasError, resolve_device, seeded
from ..features import FeatureBank
from ..genotype import Genotype
from ..networks import count_parameters
from ..progress import progress_bar
from ..tasks.task import Task, as_task
from ..train import TrainConfig, evaluate, fit, train

#: Rivals by name, filled by :func:`register_rival`.
RIVALS: dict[str, Callable[[Contest], Iterable[tuple[str, list[nn.Module]]]]] = {}


class RivalError(BmnasError):
    """A rival that does not exist."""


@dataclass(frozen=True)
class Contest:
    """What every rival gets: the same task, training recipe, seed and device."""

    task: Task
    config: TrainConfig
    seed: int
    device: torch.device

    def fit(self, build: Callable[[], nn.Module]) -> nn.Module:
        """The network that ``build`` makes, trained; its initial weights follow the seed."""
        with seeded(self.seed, "initial weights"):
            net = build()
        bank = FeatureBank.of(self.task, self.config.L, self.device)
        fit(net, self.task, bank, self.config, seed=self.seed, progress=False)
        return net

    def train(self, genotype: Genotype) -> nn.Module:
        """The fusion network of a genotype, trained."""
        return train(
            genotype,
            self.task,
            self.config,
            seed=self.seed,
            device=self.device,
            progress=False,
        )[0]


def register_rival(name: str):
    """Decorator: make a generator a rival.

    It takes a :class:`Contest` and yields ``(name in the table, trained networks)``; where there
    are several networks, as of a random choice, the table has their mean.
    """

    def decorate(function):
        RIVALS[name] = function
        return function

    return decorate


def compare(
    task: Task,
    names: Iterable[str] | None = None,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> dict[str, dict]:
    """Train rivals and test each of their networks once.

    Args:
        names: of :data:`RIVALS`; all where None.
        config: the recipe; fields that are None are the task's.

    Returns:
        Name → ``test`` (mean score of its networks) and ``scores`` (each one's), ``params``
        (mean), ``seconds`` (all together).

    Raises:
        RivalError: for an unknown name.
    """
    names = list(RIVALS) if names is None else list(names)
    for name in names:
        if name not in RIVALS:
            raise RivalError(f"rival: found {name!r}; allowed: {', '.join(RIVALS)}")
    config = TrainConfig.of(config).filled(as_task(task).config)
    contest = Contest(task, config, seed, resolve_device(device))
    found = {}
    bar = progress_bar(names, "rivals", show=progress)
    for name in bar:
        bar.set_postfix_str(name)
        for label, nets, seconds in _timed(RIVALS[name](contest)):
            scores = [evaluate(net, task, "test") for net in nets]
            found[label] = {
                "test": fmean(scores),
                "params": round(fmean(map(count_parameters, nets))),
                "seconds": seconds,
                "scores": scores,
            }
    return found


def _timed(entries: Iterable[tuple[str, list[nn.Module]]]) -> Iterator[tuple[str, list, float]]:
    start = time.perf_counter()
    for label, nets in entries:
        yield label, nets, time.perf_counter() - start
        start = time.perf_counter()
