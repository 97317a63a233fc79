"""The contest between rivals: one task, one FeatureBank, one recipe, one seed, one test each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import nn

from ..config import BmnasError, resolve_device, seeded
from ..features import FeatureBank
from ..genotype import Genotype
from ..networks import count_parameters
from ..progress import progress_bar
from ..search import Search, SearchConfig
from ..tasks.task import Task, as_task
from ..train import TrainConfig, evaluate, fit, train

#: Rivals by name, filled by :func:`register_rival`.
RIVALS: dict[str, Callable[[Contest], Iterable[tuple[str, list[nn.Module]]]]] = {}


class RivalError(BmnasError):
    """A rival that does not exist."""


@dataclass
class Contest:
    """What every rival gets: the same task, training recipe, seed and device.

    Attributes:
        bank: the features; the task's bank in memory where None.
        search_seconds: the search of the rival whose turn it is.
        saved_seconds: those of them that another rival has spent already.
    """

    task: Task
    config: TrainConfig
    seed: int
    device: torch.device
    bank: FeatureBank | None = None
    search_seconds: float = field(default=0.0, init=False)
    saved_seconds: float = field(default=0.0, init=False)
    _searched: dict[SearchConfig, tuple[Genotype, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def fit(self, build: Callable[[], nn.Module], config: TrainConfig | None = None, **how):
        """The network that ``build`` makes, trained; its initial weights follow the seed.

        Args:
            config: the contest's where None.
            how: more arguments of :func:`~bmnas_core.train.fit`.
        """
        config = config or self.config
        with seeded(self.seed, "initial weights"):
            net = build()
        bank = FeatureBank.of(self.task, config.L, self.device, self.bank)
        fit(net, self.task, bank, config, seed=self.seed, progress=False, **how)
        return net

    def train(self, genotype: Genotype, config: TrainConfig | None = None) -> nn.Module:
        """The fusion network of a genotype, trained; by the contest's recipe where None."""
        return train(
            genotype,
            self.task,
            config or self.config,
            seed=self.seed,
            device=self.device,
            bank=self.bank,
            progress=False,
            validate=False,
        )[0]

    def validate(self, net: nn.Module) -> float:
        """A network's validation score: what a rival may choose by."""
        return evaluate(net, self.task, "validation", bank=self.bank)

    def trial(self, epochs: int | None = None) -> TrainConfig:
        """The recipe for networks that a rival chooses among: trained on train alone.

        Args:
            epochs: the recipe's where None.
        """
        return replace(self.config, data="train", epochs=epochs or self.config.epochs)

    @contextmanager
    def searching(self):
        """What is done in this block is the rival's search; the rest is its training."""
        start = time.perf_counter()
        yield
        self.search_seconds += time.perf_counter() - start

    def searched(self, **settings) -> Genotype:
        """What BM-NAS finds at the contest's sizes: searched once, charged at each call.

        Args:
            settings: other ones, of :class:`~bmnas_core.search.SearchConfig`.
        """
        sizes = {name: getattr(self.config, name) for name in ("C", "L", "N", "M")}
        config = SearchConfig(**sizes | settings).filled(self.task.search_config)
        if config not in self._searched:
            start = time.perf_counter()
            search = Search(self.task, config, seed=self.seed, device=self.device, bank=self.bank)
            for _ in search:
                pass
            self._searched[config] = search.best_genotype, time.perf_counter() - start
        else:
            self.saved_seconds += self._searched[config][1]
        genotype, seconds = self._searched[config]
        self.search_seconds += seconds
        return genotype


def register_rival(name: str, *, quick: bool = False):
    """Decorator: make a generator a rival.

    It takes a :class:`Contest` and yields ``(name in the table, trained networks)``; where there
    are several networks, as of a random choice, the table has their mean.

    Args:
        quick: whether :func:`compare` includes it unasked: a few trainings, no search.
    """

    def decorate(function):
        RIVALS[name], function.quick = function, quick
        return function

    return decorate


def compare(
    task: Task,
    names: Iterable[str] | None = None,
    *,
    config: TrainConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
    progress: bool = True,
    on_rival: Callable[[str, dict[str, dict]], None] | None = None,
) -> dict[str, dict]:
    """Train rivals and test each of their networks once.

    Args:
        names: of :data:`RIVALS`; those that are quick where None.
        config: the recipe; fields that are None are the task's.
        bank: the features, such as those on disk; the task's bank in memory where None.
        on_rival: called as each rival is done, with its name and its part of what is returned.

    Returns:
        Name → ``test`` (mean score of its networks) and ``scores`` (each one's), ``params``
        (mean), ``seconds`` (all together) and of those ``search_seconds``.

    Raises:
        RivalError: for an unknown name.
    """
    quick = [name for name, rival in RIVALS.items() if rival.quick]
    names = quick if names is None else list(names)
    for name in names:
        if name not in RIVALS:
            raise RivalError(f"rival: found {name!r}; allowed: {', '.join(RIVALS)}")
    config = TrainConfig.of(config).filled(as_task(task).config)
    contest = Contest(task, config, seed, resolve_device(device), bank)
    FeatureBank.of(
        task, config.L, contest.device, bank
    )  # so that the first rival does not pay for it
    found = {}
    bar = progress_bar(names, "rivals", show=progress)
    for name in bar:
        bar.set_postfix_str(name)
        part = {}
        for label, nets, seconds in _timed(contest, RIVALS[name](contest)):
            scores = [evaluate(net, task, "test", bank=bank) for net in nets]
            part[label] = {
                "test": fmean(scores),
                "params": round(fmean(map(count_parameters, nets))),
                **seconds,
                "scores": scores,
            }
        found |= part
        if on_rival:
            on_rival(name, part)
    return found


def _timed(
    contest: Contest, entries: Iterable[tuple[str, list[nn.Module]]]
) -> Iterator[tuple[str, list, dict[str, float]]]:
    entries = iter(entries)
    while True:
        start = time.perf_counter()
        contest.search_seconds = contest.saved_seconds = 0.0
        entry = next(entries, None)
        if entry is None:
            return
        spent = time.perf_counter() - start + contest.saved_seconds
        yield *entry, {"seconds": spent, "search_seconds": contest.search_seconds}
