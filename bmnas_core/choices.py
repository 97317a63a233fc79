"""What a search does last: choosing one architecture with the hypernet it has learned.

α, β, γ say which parts are promising, but a mixture that is good does not make its heaviest parts
good alone. A choice therefore reads validation again, with one thing at a time in the place of a
mixture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor

from .config import Config, generator, seeded
from .derive import ArchitectureWeights, DeriveError, belief, derive, sample, with_pairs
from .features import FeatureBank
from .genotype import Genotype
from .networks import Hypernet
from .tasks.task import Task
from .train import TrainConfig, fit_by_epoch, fusion_network, score

#: Looks read this many samples of validation first, and all of it with the pairs that are then
#: fewer than so many standard errors behind the best.
GLANCE, BEHIND = 512, 5

#: What trials are where neither the search nor its task says: four for three epochs each, and the
#: better two of them for seven.
RUNGS = ((4, 3), (2, 7))

#: Standard deviations between the quartiles of a normal distribution.
QUARTILES = 1.349

#: Trials end after the first rung where doubt is above this.
TOO_ALIKE = 0.5

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

    def scores_with(
        self, pairs: list[list[tuple[str, str]]], rows: Tensor | None = None
    ) -> list[float]:
        """Scores of the hypernet with each list of pairs kept in its first Cells, on validation."""


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


@register_choice("looks")
class Looks(Choice):
    """Cell by Cell, the pair that validation likes best when the hypernet keeps it alone.

    α says how good a feature is in a mixture, not with whom. So each pair in turn takes the place
    of what the Cell mixes, while the other Cells and all steps go on mixing, and validation is
    read; the best stays for the Cells that follow. Steps are derived from β and γ. A step is one
    Cell.

    It is a race (Maron and Moore 1994): a pair that is ``BEHIND`` standard errors behind the best
    on ``GLANCE`` random samples of validation is not looked at on all of them.

    Attributes:
        odds: for each Cell so far its pairs and their odds: one standard error of the best score
            behind makes a pair less likely by a factor of e.
    """

    def __init__(self, search: Searched):
        super().__init__(search)
        self.steps, self.odds = search.config.N, []

    def run(self) -> Iterator[tuple[Genotype, float]]:
        search, kept = self.search, []
        self.weights = ArchitectureWeights.of(
            search.hypernet, search.config.operations, search.config.relaxation
        )
        derived = derive(self.weights, search.config.derivation)
        for i in range(search.config.N):
            names, *_ = self.weights.cell_edges(i)
            taken = [set(pair) for pair in kept]
            pairs = [pair for pair in permutations(names, 2) if set(pair) not in taken]
            if not pairs:
                raise DeriveError(f"cells[{i}]: all pairs of {len(names)} predecessors are taken")
            scores = self._look([[*kept, pair] for pair in pairs])
            best = max(scores)
            error = standard_error(best, search.bank.size("validation"))
            odds = [math.exp((score - best) / error) for score in scores]
            self.odds.append({pair: p / sum(odds) for pair, p in zip(pairs, odds, strict=True)})
            kept.append(pairs[scores.index(best)])
            self.genotype = with_pairs(derived, kept)
            yield self.genotype, best

    def _look(self, choices: list[list[tuple[str, str]]]) -> list[float]:
        search = self.search
        items = search.bank.size("validation")
        if items <= GLANCE:
            return search.scores_with(choices)
        glance = torch.randperm(items, generator=generator(search.seed, "glance"))[:GLANCE]
        glanced = search.scores_with(choices, glance)
        best = max(glanced)
        enough = best - BEHIND * standard_error(best, len(glance))
        near = [k for k, one in enumerate(glanced) if one >= enough]
        read = dict(zip(near, search.scores_with([choices[k] for k in near]), strict=True))
        worst = min(read.values())
        return [read.get(k, min(one, worst)) for k, one in enumerate(glanced)]


@register_choice("trials")
class Trials(Looks):
    """After :class:`Looks`, what came of it and what is drawn in its light, trained in a race.

    Cells' inputs are drawn by the odds of the looks, steps evenly: in a mixture the steps that
    learn fast seem better than they are. By the search's ``rungs``, each ``(how many, epochs)``,
    all that are still in the race are trained up to so many epochs and scored on validation; the
    best go on to the next rung (successive halving, Jamieson and Talwalkar 2016). The recipe is
    the task's own, on train alone, and its end the longest there is. A step is one training.

    One training says little about an architecture, and how little shows in the first rung: scores
    that scatter hardly more than chance would have them tell nothing. ``doubt`` is the variance
    that so few samples of validation alone would make, as a share of that of the scores (by their
    quartiles). Those within ``margin`` · doubt standard errors of the best count as equals, of
    which the hypernet believes in one most. Where doubt is above ``TOO_ALIKE`` the race ends with
    its first rung.

    Attributes:
        doubt: from 0 to 1, by the scores of the first rung so far.
    """

    def __init__(self, search: Searched):
        super().__init__(search)
        self.rungs, self.looks, self.doubt = search.config.rungs or RUNGS, self.steps, 1.0
        self.steps += self._trainings(self.rungs[0][0])  # at most

    def _trainings(self, most: int) -> int:
        return sum(min(count, most) for count, _ in self.rungs)

    def run(self) -> Iterator[tuple[Genotype, float]]:
        yield from super().run()
        race = [_Trial(self.search, *candidate) for candidate in self._candidates().items()]
        self.steps = self.looks + self._trainings(len(race))
        for rung, (count, epochs) in enumerate(self.rungs):
            race = self._best_first(race)[:count] if rung else race
            for k, trial in enumerate(race):
                trial.train_to(epochs)
                tried = race[: k + 1]
                self.doubt = self.doubt if rung else self._doubt_of(tried)
                ended = tried == race and self.doubt > TOO_ALIKE
                self.steps = self.looks + len(race) if ended else self.steps
                best = self._best_first(tried)[0]
                yield best.genotype, best.score
            if self.doubt > TOO_ALIKE:
                return

    def _best_first(self, race: list[_Trial]) -> list[_Trial]:
        best = max(trial.score for trial in race)
        enough = best - self.search.config.margin * self.doubt * self._error(best)

        def place(trial: _Trial):
            alike = trial.score >= enough
            return alike, trial.belief if alike else 0.0, trial.score

        return sorted(race, key=place, reverse=True)

    def _doubt_of(self, race: list[_Trial]) -> float:
        scores = torch.tensor([trial.score for trial in race], dtype=torch.float64)
        low, high = scores.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
        noise = fmean(self._error(score) ** 2 for score in scores.tolist())
        return noise / max(((high - low) / QUARTILES) ** 2, noise)

    def _error(self, score: float) -> float:
        return standard_error(score, self.search.bank.size("validation"))

    def _candidates(self) -> dict[Genotype, float]:
        most, random = self.rungs[0][0], generator(self.search.seed, "candidates")
        looked = {self.genotype.canonical(): belief(self.weights, self.odds, self.genotype)}
        drawn = sample(self.weights, self.odds, most, random)
        return dict([*(looked | drawn).items()][:most])


class _Trial:
    """A candidate in training."""

    def __init__(self, search: Searched, genotype: Genotype, belief: float):
        self.search, self.genotype, self.belief = search, genotype, belief
        self.score, self.records = 0.0, None

    def train_to(self, epochs: int) -> None:
        """Train up to so many epochs, no more than the recipe has, and score."""
        search = self.search
        if self.records is None:
            sizes = {name: getattr(search.config, name) for name in ("C", "L", "dropout")}
            config = TrainConfig(data="train", **sizes).filled(search.task.config)
            with seeded(search.seed, "initial weights"):
                self.net = fusion_network(self.genotype, search.task, config)
            how = {"seed": search.seed, "validate": False}
            self.records = fit_by_epoch(self.net, search.task, search.bank, config, **how)
        for record in self.records:
            if record["epoch"] >= epochs:
                break
        self.score = score(self.net, search.task, search.bank, "validation")


def standard_error(share: float, items: int) -> float:
    """Of a share among so many items, with one hit and one miss added, so that it is above 0."""
    p = (min(max(share, 0.0), 1.0) * items + 1) / (items + 2)
    return math.sqrt(p * (1 - p) / (items + 2))
