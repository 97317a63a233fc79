"""How baselines are compared: on the same task, recipe and seed, each network tested once."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import nn

from ..errors import BmnasError, quoted
from ..features import FeatureBank
from ..genotype import Genotype
from ..networks import count_parameters
from ..progress import progress_bar
from ..registry import Registry, takes
from ..runtime import resolve_device, seeded
from ..search import Search, SearchConfig
from ..tasks.task import Task, as_task
from ..train import TrainConfig, evaluate, fit, train

#: What a baseline yields: names in the table, each with its trained networks.
Entries = Iterator[tuple[str, list[nn.Module]]]


class BaselineError(BmnasError):
    """A baseline that cannot be registered or does not exist."""


def _check(name: str, function: object) -> None:
    if not (takes(function, 1) and inspect.isgeneratorfunction(function)):
        allowed = "a generator function of a BaselineContext"
        raise BaselineError(f"baseline {name!r}", repr(function), allowed)


#: Baselines by name, filled by :func:`register_baseline`.
BASELINES = Registry("baseline", BaselineError, check=_check)


@dataclass
class BaselineContext:
    """What every baseline gets: the same task, training recipe, seed and device.

    Attributes:
        config: the recipe. C, L, N and M that ``search`` sets are taken from there; other fields
            that are None default to the task's.
        search: the settings of BM-NAS. All other searches share its ``operations``, N and M.
        bank: the features, such as those on disk; the task's bank in memory by default.
        search_seconds: what the current baseline's search took so far.
        saved_seconds: the part of it that was spent for an earlier baseline.
    """

    task: Task
    config: TrainConfig
    seed: int
    device: torch.device
    search: SearchConfig = SearchConfig()
    bank: FeatureBank | None = None

    def __post_init__(self):
        self._restart()
        self._searched: dict[SearchConfig, tuple[Genotype, float]] = {}
        sizes = ("C", "L", "N", "M")  # of the space of architectures and of their networks
        own = {name: size for name in sizes if (size := getattr(self.search, name))}
        self.config = replace(self.config, **own).with_defaults(self.task.config)
        self.search = replace(self.search, **{name: getattr(self.config, name) for name in sizes})

    def fit(self, build: Callable[[], nn.Module], config: TrainConfig | None = None, **how):
        """The network that ``build`` makes, trained, by the context's recipe by default.

        Its initial weights follow the seed; ``how`` is for :func:`~bmnas_core.train.fit`.
        """
        if isinstance(build, nn.Module) or not takes(build, 0):
            raise BaselineError("fit", type(build).__name__, "a function that builds the network")
        config = config or self.config
        with seeded(self.seed, "initial weights"):
            net = build()
        bank = FeatureBank.shared(self.task, config.L, self.device, self.bank)
        how = {"progress": False, "validate": False, **how}
        fit(net, self.task, bank, config, seed=self.seed, **how)
        return net

    def train(self, genotype: Genotype, config: TrainConfig | None = None) -> nn.Module:
        """The fusion network of a genotype, trained, by the context's recipe by default."""
        how = {"seed": self.seed, "device": self.device, "bank": self.bank}
        config = config or self.config
        return train(genotype, self.task, config, **how, progress=False, validate=False)[0]

    def validate(self, net: nn.Module) -> float:
        """Validation score of a network, by which a baseline may select."""
        return evaluate(net, self.task, "validation", bank=self.bank)

    def recipe_on_train(self, epochs: int | None = None) -> TrainConfig:
        """The recipe for networks that a baseline selects among: trained on train alone."""
        return replace(self.config, data="train", epochs=epochs or self.config.epochs)

    def _restart(self) -> None:
        """Count seconds from now on, as those of the next network."""
        self._start, self.search_seconds, self.saved_seconds = time.perf_counter(), 0.0, 0.0

    @contextmanager
    def searching(self):
        """Count the time that a block takes as the baseline's search, not as its training."""
        start = time.perf_counter()
        yield
        self.search_seconds += time.perf_counter() - start

    def searched(self, **settings) -> Genotype:
        """The genotype that BM-NAS finds, with these settings in place of the context's.

        It searches once, and each caller is charged the time.
        """
        config = replace(self.search, **settings).with_defaults(self.task.search_config)
        if config in self._searched:
            self.saved_seconds += self._searched[config][1]
        else:
            start = time.perf_counter()
            search = Search(self.task, config, seed=self.seed, device=self.device, bank=self.bank)
            for _ in search:
                pass
            self._searched[config] = search.best_genotype, time.perf_counter() - start
        genotype, seconds = self._searched[config]
        self.search_seconds += seconds
        return genotype


def register_baseline(name: str, *, quick: bool = False):
    """Decorator: make a generator function a baseline.

    It takes a :class:`BaselineContext` and yields ``(name in the table, trained networks)``. The
    table has the mean over these networks, such as several random ones. :func:`compare` runs it by
    default if it is ``quick``: trains only a few networks and does not search.

    Raises BaselineError for a name that is taken or ill-formed, or anything but such a function.
    """
    return BASELINES.register(name, quick=quick)


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
        names: of :data:`BASELINES`; the quick ones by default.
        config, search, bank: as in :class:`BaselineContext`.
        on_baseline: called after each baseline, with its name and its part of what is returned.

    Returns:
        Name → ``test`` (mean score of its networks) and ``scores`` (each one's), ``params``
        (mean), ``seconds`` (all together) and of those ``search_seconds``.

    Raises:
        BaselineError: for an unknown name, and for what a baseline yields if it is not (label,
            networks) or has a label that is taken.
    """
    if names is None:
        names = [name for name, baseline in BASELINES.items() if baseline.quick]
    baselines = {name: BASELINES[name] for name in names}
    config, search = TrainConfig.from_optional(config), SearchConfig.from_optional(search)
    context = BaselineContext(as_task(task), config, seed, resolve_device(device), search, bank)
    # Computed now, so that the first baseline is not charged for it.
    FeatureBank.shared(task, context.config.L, context.device, bank)
    found = {}
    bar = progress_bar(baselines, "baselines", show=progress)
    for name in bar:
        bar.set_postfix_str(name)
        part = {}
        context._restart()
        for entry in baselines[name](context):
            match entry:
                case (str(label), [*nets]) if nets and all(isinstance(n, nn.Module) for n in nets):
                    seconds = time.perf_counter() - context._start + context.saved_seconds
                case _:
                    raise BaselineError(f"baseline {name!r}", quoted(entry), "(label, [networks])")
            if label in found or label in part:
                raise BaselineError(f"baseline {name!r}: found label {label!r} a second time")
            scores = [evaluate(net, task, "test", bank=bank) for net in nets]
            part[label] = {
                "test": fmean(scores),
                "params": round(fmean(map(count_parameters, nets))),
                "seconds": seconds,
                "search_seconds": context.search_seconds,
                "scores": scores,
            }
            context._restart()
        found |= part
        if on_baseline:
            on_baseline(name, part)
    return found
