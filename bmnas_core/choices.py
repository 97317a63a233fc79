"""What a search does last: choosing one architecture with the hypernet it has learned.

α, β, γ say which architectures are promising, but a mixture that is good does not make its
heaviest parts good alone. A choice therefore looks at validation again, at candidates one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .config import seeded
from .derive import ArchitectureWeights, likeliest
from .genotype import Genotype
from .train import TrainConfig, fit_by_epoch, fusion_network, score

if TYPE_CHECKING:
    from .search import Search

#: Choices by name, filled by :func:`register_choice`.
CHOICES: dict[str, type[Choice]] = {}


def register_choice(name: str):
    """Class decorator: make a subclass of :class:`Choice` one that a search can end with."""

    def decorate(cls):
        CHOICES[name] = cls
        return cls

    return decorate


class Choice:
    """The last steps of a search. This one makes none: the genotype of the best epoch stands.

    Attributes:
        steps: how many steps it makes at most.
    """

    steps = 0

    def __init__(self, search: Search):
        self.search = search

    def run(self) -> Iterator[tuple[Genotype, float]]:
        """After each step the best genotype so far and its score on validation."""
        yield from ()


@register_choice("best epoch")
class BestEpoch(Choice):
    """What the hypernet with the best validation score derives (Yin et al. 2022, algorithm 1)."""


@register_choice("trials")
class Trials(Choice):
    """The likeliest architectures, trained from scratch for a short while, the better ones longer.

    By the search's ``rungs``, each ``(how many, epochs)``: all that are still in the race are
    trained up to so many epochs and scored on validation; the best go on to the next rung
    (successive halving, Jamieson and Talwalkar 2016). The recipe is the task's own, on train alone,
    and its end the longest there is. A step is one training.
    """

    def __init__(self, search: Search):
        super().__init__(search)
        self.rungs = search.config.rungs
        self.steps = sum(count for count, _ in self.rungs)  # fewer, if there are not so many

    def run(self) -> Iterator[tuple[Genotype, float]]:
        search, (most, _) = self.search, self.rungs[0]
        weights = ArchitectureWeights.of(
            search.hypernet, search.config.operations, search.config.relaxation
        )
        race = [_Trial(search, genotype) for genotype in likeliest(weights, most)]
        self.steps = sum(min(count, len(race)) for count, _ in self.rungs)
        for count, epochs in self.rungs:
            race = sorted(race, key=lambda trial: -trial.score)[:count]
            done = []
            for trial in race:
                trial.train_to(epochs)
                done.append(trial)
                best = max(done, key=lambda trial: trial.score)
                yield best.genotype, best.score


class _Trial:
    """A candidate in training."""

    def __init__(self, search: Search, genotype: Genotype):
        self.genotype, self.score, self.epoch = genotype, 0.0, 0
        self.task, self.bank = search.task, search.bank
        sizes = {name: getattr(search.config, name) for name in ("C", "L", "dropout")}
        config = TrainConfig(data="train", **sizes).filled(search.task.config)
        with seeded(search.seed, "initial weights"):
            self.net = fusion_network(genotype, search.task, config)
        self.epochs = config.epochs
        self.records = fit_by_epoch(
            self.net, search.task, search.bank, config, seed=search.seed, validate=False
        )

    def train_to(self, epochs: int) -> None:
        while self.epoch < min(epochs, self.epochs):
            next(self.records)
            self.epoch += 1
        self.score = score(self.net, self.task, self.bank, "validation")
