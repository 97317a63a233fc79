"""The comparison: one task, one FeatureBank, one recipe, one seed, one test for every baseline."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import nn

from ..errors import BmnasError
from ..features import FeatureBank
from ..genotype import Genotype
from ..networks import count_parameters
from ..progress import progress_bar
from ..registry import Registry
from ..runtime import resolve_device, seeded
from ..search import Search, SearchConfig
from ..tasks.task import Task, as_task
from ..train import TrainConfig, evaluate, fit, train


class BaselineError(BmnasError):
    """A baseline that cannot be registered or does not exist."""


def _check(name: str, function: object) -> None:
    try:
        inspect.signature(function).bind(None)
        fits = inspect.isgeneratorfunction(function)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise BaselineError(
            f"baseline {name!r}: found {function!r}; allowed: a generator function of a "
            "BaselineContext"
        )


#: Baselines by name, filled by :func:`register_baseline`.
BASELINES = Registry("baseline", BaselineError, check=_check)


@dataclass
class BaselineContext:
    """What every baseline gets: the same task, training recipe, seed and device.

    Attributes:
        search: settings of the search that baselines stand beside. BM-NAS runs with them, and
            every other search takes the same operations.
        bank: the features; the task's bank in memory by default.
        search_seconds: the search of the present baseline.
        saved_seconds: those of them that another baseline has spent already.
    """

    task: Task
    config: TrainConfig
    seed: int
    device: torch.device
    search: SearchConfig = SearchConfig()
    bank: FeatureBank | None = None
    search_seconds: float = field(default=0.0, init=False)
    saved_seconds: float = field(default=0.0, init=False)
    _searched: dict[SearchConfig, tuple[Genotype, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def fit(self, build: Callable[[], nn.Module], config: TrainConfig | None = None, **how):
        """The network that ``build`` makes, trained; its initial weights follow the seed.

        Args:
            config: the context's where None.
            how: more arguments of :func:`~bmnas_core.train.fit`.
        """
        config = config or self.config
        with seeded(self.seed, "initial weights"):
            net = build()
        bank = FeatureBank.shared(self.task, config.L, self.device, self.bank)
        fit(net, self.task, bank, config, seed=self.seed, progress=False, **how)
        return net

    def train(self, genotype: Genotype, config: TrainConfig | None = None) -> nn.Module:
        """The fusion network of a genotype, trained; by the context's recipe where None."""
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
        """A network's validation score: what a baseline may choose by."""
        return evaluate(net, self.task, "validation", bank=self.bank)

    def recipe_on_train(self, epochs: int | None = None) -> TrainConfig:
        """The recipe for networks that a baseline selects among: trained on train alone.

        Args:
            epochs: the recipe's by default.
        """
        return replace(self.config, data="train", epochs=epochs or self.config.epochs)

    @contextmanager
    def searching(self):
        """What is done in this block is the baseline's search; the rest is its training."""
        start = time.perf_counter()
        yield
        self.search_seconds += time.perf_counter() - start

    def searched(self, **settings) -> Genotype:
        """What BM-NAS finds at the context's sizes: searched once, charged at each call.

        Args:
            settings: other ones, of :class:`~bmnas_core.search.SearchConfig`.
        """
        sizes = {name: getattr(self.config, name) for name in ("C", "L", "N", "M")}
        config = replace(self.search, **sizes | settings).with_defaults(self.task.search_config)
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


def register_baseline(name: str, *, quick: bool = False):
    """Decorator: make a generator function a baseline.

    It takes a :class:`BaselineContext` and yields ``(name in the table, trained networks)``. The
    table has the mean of several networks, such as random ones.

    Args:
        quick: whether :func:`compare` includes it unasked: a few trainings, no search.

    Raises:
        BaselineError: for a name that is taken or ill-formed, or anything but such a function.
    """

    def decorate(function):
        BASELINES.add(name, function)
        function.quick = quick
        return function

    return decorate


def compare(
    task: Task,
    names: Iterable[str] | None = None,
    *,
    config: TrainConfig | None = None,
    search: SearchConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
    progress: bool = True,
    on_baseline: Callable[[str, dict[str, dict]], None] | None = None,
) -> dict[str, dict]:
    """Train baselines and test each of their networks once.

    Args:
        names: of :data:`BASELINES`; those that are quick where None.
        config: the recipe; fields that are None are the task's.
        search: settings of the search that baselines stand beside, see :class:`BaselineContext`.
        bank: the features, such as those on disk; the task's bank in memory by default.
        on_baseline: called after each baseline, with its name and its part of what is returned.

    Returns:
        Name → ``test`` (mean score of its networks) and ``scores`` (each one's), ``params``
        (mean), ``seconds`` (all together) and of those ``search_seconds``.

    Raises:
        BaselineError: for an unknown name.
    """
    quick = [name for name, baseline in BASELINES.items() if baseline.quick]
    names = quick if names is None else list(names)
    baselines = {name: BASELINES[name] for name in names}
    config = TrainConfig.from_optional(config).with_defaults(as_task(task).config)
    search = SearchConfig.from_optional(search)
    context = BaselineContext(task, config, seed, resolve_device(device), search, bank)
    # Computed now, so that the first baseline is not charged for it.
    FeatureBank.shared(task, config.L, context.device, bank)
    found = {}
    bar = progress_bar(baselines, "baselines", show=progress)
    for name in bar:
        bar.set_postfix_str(name)
        part = {}
        for label, nets, seconds in _timed(context, baselines[name](context)):
            scores = [evaluate(net, task, "test", bank=bank) for net in nets]
            part[label] = {
                "test": fmean(scores),
                "params": round(fmean(map(count_parameters, nets))),
                **seconds,
                "scores": scores,
            }
        found |= part
        if on_baseline:
            on_baseline(name, part)
    return found


def _timed(
    context: BaselineContext, entries: Iterable[tuple[str, list[nn.Module]]]
) -> Iterator[tuple[str, list, dict[str, float]]]:
    entries = iter(entries)
    while True:
        start = time.perf_counter()
        context.search_seconds = context.saved_seconds = 0.0
        entry = next(entries, None)
        if entry is None:
            return
        spent = time.perf_counter() - start + context.saved_seconds
        yield *entry, {"seconds": spent, "search_seconds": context.search_seconds}
