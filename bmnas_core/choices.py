"""What a search does last: choosing one architecture with the hypernet it has learned.

α, β, γ say which architectures are promising, but a mixture that is good does not make its
heaviest parts good alone. A choice therefore looks at validation again, at candidates one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from .config import Config, generator, seeded
from .derive import ArchitectureWeights, derive, sample
from .features import FeatureBank
from .genotype import Genotype
from .networks import Hypernet, count_parameters
from .tasks.task import Task
from .train import TrainConfig, fit_by_epoch, fusion_network, score

#: Choices by name, filled by :func:`register_choice`.
CHOICES: dict[str, type[Choice]] = {}


def register_choice(name: str):
    """Class decorator: make a subclass of :class:`Choice` one that a search can end with."""

    def decorate(cls):
        CHOICES[name] = cls
        return cls

    return decorate


class Searched(Protocol):
    """What a choice reads of the :class:`~bmnas_core.search.Search` that it ends."""

    task: Task
    config: Config
    seed: int
    bank: FeatureBank
    hypernet: Hypernet

    def score_of(self, genotype: Genotype) -> float:
        """Validation score of one architecture by the hypernet's weights."""


class Choice:
    """The last steps of a search. This one makes none: the genotype of the best epoch stands.

    Attributes:
        steps: how many steps it makes at most.
    """

    steps = 0

    def __init__(self, search: Searched):
        self.search = search

    def run(self) -> Iterator[tuple[Genotype, float]]:
        """After each step the best genotype so far and its score on validation."""
        yield from ()


@register_choice("best epoch")
class BestEpoch(Choice):
    """What the hypernet with the best validation score derives (Yin et al. 2022, algorithm 1)."""


@register_choice("trials")
class Trials(Choice):
    """What the hypernet derives and architectures drawn by it, trained for a while in a race.

    By the search's ``rungs``, each ``(how many, epochs)``: all that are still in the race are
    trained up to so many epochs, or for 0 epochs take the hypernet's weights, and are scored on
    validation; the best go on to the next rung (successive halving, Jamieson and Talwalkar 2016).
    The recipe is the task's own, on train alone, and its end the longest there is. A step is one
    training, or a few looks at 0 epochs. What is drawn follows the hypernet by the search's
    ``trust`` (:func:`~bmnas_core.derive.sample`).

    Chosen is the smallest of those that validation can hardly tell from the best, its score less
    ``margin`` standard errors (the rule of Breiman et al. 1984 for pruning trees, with 1).
    """

    def __init__(self, search: Searched):
        super().__init__(search)
        self.rungs = search.config.rungs
        self.steps = self._steps(self.rungs[0][0])  # fewer, if there are not so many

    def _steps(self, most: int) -> int:
        return sum(
            -(-min(count, most) // (1 if epochs else AT_ONCE)) for count, epochs in self.rungs
        )

    def run(self) -> Iterator[tuple[Genotype, float]]:
        race = [_Trial(self.search, genotype) for genotype in self._candidates()]
        self.steps = self._steps(len(race))
        for count, epochs in self.rungs:
            race = sorted(race, key=lambda trial: -trial.score)[:count]
            at_once = 1 if epochs else AT_ONCE
            for start in range(0, len(race), at_once):
                for trial in race[start : start + at_once]:
                    trial.train_to(epochs)
                best = self._smallest_of_the_best(race[: start + at_once])
                yield best.genotype, best.score

    def _smallest_of_the_best(self, race: list[_Trial]) -> _Trial:
        items = len(self.search.task.split("validation"))
        best = max(trial.score for trial in race)
        error = math.sqrt(max(best * (1 - best), 0.0) / items)
        enough = best - self.search.config.margin * error
        alike = [trial for trial in race if trial.score >= enough]
        return min(alike, key=lambda trial: (trial.parameters, -trial.score))

    def _candidates(self) -> list[Genotype]:
        search, config, (most, _) = self.search, self.search.config, self.rungs[0]
        weights = ArchitectureWeights.of(search.hypernet, config.operations, config.relaxation)
        random = generator(search.seed, "candidates")
        drawn = sample(weights, most, random, trust=config.trust)
        derived = derive(weights, config.derivation).canonical()
        return [derived, *(genotype for genotype in drawn if genotype != derived)][:most]


#: How many candidates one step scores by the hypernet's weights.
AT_ONCE = 32


class _Trial:
    """A candidate in training."""

    def __init__(self, search: Searched, genotype: Genotype):
        self.search, self.genotype, self.score, self.records = search, genotype, 0.0, None
        sizes = {name: getattr(search.config, name) for name in ("C", "L", "dropout")}
        self.config = TrainConfig(data="train", **sizes).filled(search.task.config)
        with seeded(search.seed, "initial weights"):
            self.net = fusion_network(genotype, search.task, self.config)
        self.parameters = count_parameters(self.net)

    def train_to(self, epochs: int) -> None:
        """Train up to so many epochs, no more than the recipe has, and score."""
        search = self.search
        if epochs == 0:
            self.score = search.score_of(self.genotype)
            return
        if self.records is None:
            how = {"seed": search.seed, "validate": False}
            self.records = fit_by_epoch(self.net, search.task, search.bank, self.config, **how)
        for record in self.records:
            if record["epoch"] >= epochs:
                break
        self.score = score(self.net, search.task, search.bank, "validation")
