"""How baselines are compared: on the same task, recipe and seed, each network tested once."""

import inspect
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn

from ..ensemble import networks_together, train_together
from ..errors import BmnasError, quoted
from ..features import FeatureBank
from ..genotype import Genotype
from ..losses import metric_of
from ..metrics import Metric
from ..networks import count_parameters
from ..progress import progress_bar
from ..registry import Registry, takes
from ..runtime import resolve_device, seeded
from ..search import Search, SearchConfig
from ..tasks.task import Task, as_task
from ..train import TrainConfig, evaluate, fit, train, without_gaps

#: What a baseline yields: names in the table, each with its trained networks.
Entries = Iterator[tuple[str, list[nn.Module]]]

#: Feature name → (C_i, L_i), its channels and positions. L_i is L, or 1 for a feature without.
Shapes = dict[str, tuple[int, int]]


class BaselineError(BmnasError):
    """A baseline that cannot be registered or does not exist."""


class NotDefined(BaselineError):
    """A baseline that is not defined for a task; it is left out, with a warning."""


def _check(name: str, function: object) -> None:
    if not (takes(function, 1) and inspect.isgeneratorfunction(function)):
        allowed = "a generator function of a BaselineContext"
        raise BaselineError(f"baseline {name!r}", repr(function), allowed)


#: Baselines by name, filled by :func:`register_baseline`.
BASELINES = Registry("baseline", BaselineError, check=_check)

#: Splits that a baseline's networks may be scored on, and what they then learn from. None is what
#: the recipe says: train and validation together, unless it says otherwise.
SCORED = {"validation": "train", "test": None}


@dataclass
class BaselineContext:
    """What every baseline gets: the same task, training recipe, seed and device.

    Attributes:
        config: the recipe. C, L, N and M that ``search`` sets are taken from there; other fields
            that are None default to the task's.
        search: the settings of BM-NAS. All other searches share its ``operations``, N and M.
        bank: the features, such as those on disk; the task's bank in memory by default.
        search_seconds: what the search for the next network took.
        saved_seconds: the part of it that was spent before, for another network.
    """

    task: Task
    config: TrainConfig
    seed: int
    device: torch.device
    search: SearchConfig = SearchConfig()
    bank: FeatureBank | None = None

    def __post_init__(self):
        self._restart()
        self._found: dict[Hashable, tuple[object, float]] = {}
        sizes = ("C", "L", "N", "M")  # of the space of architectures and of their networks
        own = {name: size for name in sizes if (size := getattr(self.search, name))}
        self.config = replace(self.config, **own).with_defaults(self.task.config)
        self.search = replace(self.search, **{name: getattr(self.config, name) for name in sizes})

    @property
    def metric(self) -> Metric:
        """The task's metric, which says whether a higher or a lower score is better."""
        return metric_of(self.task)

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

    def shapes(self, names: Iterable[str]) -> Shapes:
        """The shapes of named features."""
        bank = FeatureBank.shared(self.task, self.config.L, self.device, self.bank)
        return {name: bank.shapes[name] for name in names}

    def samples(self) -> tuple[dict[str, Tensor], Tensor]:
        """All that the recipe trains on: features by name, each (n, C_i, L), and labels.

        What a sample lacks is the mean of train, as for all baselines without Cells.
        """
        bank = FeatureBank.shared(self.task, self.config.L, self.device, self.bank)
        features, labels = bank.batch(self.config.data, torch.arange(bank.size(self.config.data)))
        return without_gaps(features, None, bank) if bank.gaps else features, labels

    def train(self, genotype: Genotype, config: TrainConfig | None = None) -> nn.Module:
        """The fusion network of a genotype, trained, by the context's recipe by default."""
        how = {"seed": self.seed, "device": self.device, "bank": self.bank}
        config = config or self.config
        return train(genotype, self.task, config, **how, progress=False, validate=False)[0]

    def train_all(
        self, genotypes: Iterable[Genotype], config: TrainConfig | None = None
    ) -> list[nn.Module]:
        """The networks of genotypes as of :meth:`train`, trained together where they can be."""
        genotypes, config = list(genotypes), config or self.config
        if self.task.gaps or config.finetune or config.modality_dropout:
            return [self.train(genotype, config) for genotype in genotypes]
        how = {"seeds": (self.seed,), "device": self.device, "bank": self.bank}
        nets, together = [], networks_together(config.with_defaults(self.task.config))
        for k in range(0, len(genotypes), together):
            nets += train_together(genotypes[k : k + together], self.task, config, **how)
        return nets

    def validate(self, net: nn.Module) -> float:
        """Validation score of a network, by which a baseline may select."""
        return evaluate(net, self.task, "validation", bank=self.bank)

    def recipe_on_train(self, epochs: int | None = None) -> TrainConfig:
        """The recipe for networks that a baseline selects among: trained on train alone."""
        return replace(self.config, data="train", epochs=epochs or self.config.epochs)

    def _restart(self) -> None:
        """Count seconds from now on, as those of the next network."""
        self._start, self.search_seconds, self.saved_seconds = time.perf_counter(), 0.0, 0.0

    def search_once(self, key: Hashable, find: Callable[[], object]):
        """What ``find()`` returns, called once for each key. Each caller is charged its seconds."""
        if key in self._found:
            self.saved_seconds += self._found[key][1]
        else:
            start = time.perf_counter()
            self._found[key] = find(), time.perf_counter() - start
        found, seconds = self._found[key]
        self.search_seconds += seconds
        return found

    def searched(self, **settings) -> Genotype:
        """The genotype that BM-NAS finds, with these settings in place of the context's."""
        config = replace(self.search, **settings).with_defaults(self.task.search_config)

        def find() -> Genotype:
            search = Search(self.task, config, seed=self.seed, device=self.device, bank=self.bank)
            for _ in search:
                pass
            return search.best_genotype

        return self.search_once(config, find)


def register_baseline(
    name: str, *, quick: bool = False, ignores: tuple[str, ...] = (), like: str | None = None
):
    """Decorator: make a generator function a baseline.

    It takes a :class:`BaselineContext` and yields ``(name in the table, trained networks)``. The
    table has the mean over these networks, such as several random ones. Where a network is scored
    on validation and on test, the function is called twice, since it then learns from different
    data; what it finds by :meth:`BaselineContext.search_once` is found once.

    Args:
        quick: whether :func:`compare` runs it by default: it trains only a few networks and does
            not search.
        ignores: settings that make no difference to it, such as ``"C"``.
        like: another baseline, whose best settings it takes over
            (:func:`~bmnas_core.baselines.table.run_baselines`).

    Raises BaselineError for a name that is taken or ill-formed, or anything but such a function.
    """
    return BASELINES.register(name, quick=quick, ignores=ignores, like=like)


def compare(
    task: Task,
    names: Iterable[str] | None = None,
    *,
    config: TrainConfig | None = None,
    search: SearchConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
    splits: tuple[str, ...] = ("test",),
    progress: bool = True,
    on_baseline: Callable[[str, dict[str, dict]], None] | None = None,
) -> dict[str, dict]:
    """Train baselines and score each of their networks once.

    Of a task whose samples lack modalities, networks without Cells read the mean of train instead.

    Args:
        names: of :data:`BASELINES`; the quick ones by default.
        config, search, bank: as in :class:`BaselineContext`.
        splits: what to score on: ``"test"``, or ``"validation"``, by networks that learn from train
            alone, or both, each by networks of its own.
        on_baseline: called after each baseline, with its name and its part of what is returned.

    Returns:
        Name → for each split the mean score of its networks; ``scores`` (of each on the last
        split), ``params`` (mean), ``seconds`` (search, and training of all for the last split)
        and of those ``search_seconds``.

    Raises:
        BaselineError: for an unknown name or split, and for what a baseline yields if it is not
            (label, networks) or has a label that is taken.

    Baselines that are not defined for the task are left out, with a warning.
    """
    if names is None:
        names = [name for name, baseline in BASELINES.items() if baseline.quick]
    baselines = {name: BASELINES[name] for name in names}
    if not splits or not set(splits) <= set(SCORED):
        raise BaselineError("splits", quoted(splits), " and ".join(map(repr, SCORED)))
    config, search = TrainConfig.from_optional(config), SearchConfig.from_optional(search)
    context = BaselineContext(as_task(task), config, seed, resolve_device(device), search, bank)
    recipe = context.config
    # Computed now, so that the first baseline is not charged for it.
    FeatureBank.shared(task, recipe.L, context.device, bank)
    found = {}
    bar = progress_bar(baselines, "baselines", show=progress)
    for name in bar:
        bar.set_postfix_str(name)
        part = {}
        try:
            for split in splits:
                context.config = replace(recipe, data=SCORED[split] or recipe.data)
                for label, entry in _scored(name, context, split).items():
                    if label in found:
                        _refuse_label(name, label)
                    part[label] = part.get(label, {}) | entry
        except NotDefined as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        found |= part
        if on_baseline:
            on_baseline(name, part)
    return found


def _scored(name: str, context: BaselineContext, split: str) -> dict[str, dict]:
    """What a baseline yields, scored on a split."""
    found = {}
    context._restart()
    for entry in BASELINES[name](context):
        match entry:
            case (str(label), [*nets]) if nets and all(isinstance(n, nn.Module) for n in nets):
                seconds = time.perf_counter() - context._start + context.saved_seconds
            case _:
                raise BaselineError(f"baseline {name!r}", quoted(entry), "(label, [networks])")
        if label in found:
            _refuse_label(name, label)
        scores = [evaluate(net, context.task, split, bank=context.bank) for net in nets]
        found[label] = {
            split: fmean(scores),
            "params": round(fmean(map(count_parameters, nets))),
            "seconds": seconds,
            "search_seconds": context.search_seconds,
            "scores": scores,
        }
        context._restart()
    return found


def _refuse_label(name: str, label: str) -> None:
    raise BaselineError(f"baseline {name!r}: found label {label!r} a second time")
