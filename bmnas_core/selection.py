"""From a search to one genotype: the rules by which a search ends.

α, β and γ rate parts of architectures in a mixture with all others. The published rule reads them
alone (Yin et al. 2022, section 3.3). A part that is good in a mixture need not be good alone, so
two other rules evaluate on validation.
"""

from __future__ import annotations

import copy
import heapq
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor, nn

from .architecture import (
    ArchitectureWeights,
    SelectionError,
    genotype_probability,
    sample_candidates,
)
from .config import Config, Settings
from .ensemble import build_ensemble, ensemble_loss, networks_together
from .errors import check_type, quoted
from .features import FeatureBank
from .genotype import CellGenotype, Genotype, Pair, StepGenotype, cell_predecessors, free_pairs
from .kept_training import KeptTraining
from .losses import metric_of
from .metrics import Metric, standard_error
from .networks import FixedInputs, FusionNetwork, Hypernet
from .registry import Registry, takes
from .runtime import generator, seeded
from .tasks.task import Task
from .train import TrainConfig, adam, fit_by_epoch, fusion_network, outputs_of

#: Perturbation reads this many samples of validation for every pair, and all of validation only
#: for pairs that are then fewer than so many standard errors behind the best.
SCREENING_SAMPLES, SCREENING_MARGIN = 512, 5

#: Perturbation evaluates at most so many pairs of a Cell; more than 16 features have more.
MAX_PAIRS = 256

#: Rungs of successive halving by default: four candidates for three epochs, two of them for seven.
RUNGS = ((4, 3), (2, 7))

#: Standard deviations between the quartiles of a normal distribution.
QUARTILES = 1.349

#: Successive halving ends after its first rung if the noise ratio is above this.
MAX_NOISE_RATIO = 0.5


def _check(name: str, rule: object) -> None:
    """Refuse what is neither a function of one argument nor a Selection with a ``run``."""
    if inspect.isclass(rule):
        fits = issubclass(rule, Selection) and rule.run is not Selection.run
    else:
        fits = takes(rule, 1)
    if not fits:
        allowed = "a function of ArchitectureWeights, or a subclass of Selection with a method run"
        raise SelectionError(f"selection {name!r}", repr(rule), allowed)


#: Rules by name, filled by :func:`register_selection`.
SELECTIONS = Registry("selection", SelectionError, check=_check)


def register_selection(name: str):
    """Decorator: make a function or a :class:`Selection` a rule that searches can end with. ::

        @bm.register_selection("heaviest_steps")
        def heaviest_steps(weights):
            return bm.derive(weights, "argmax").with_inputs([("Image_3", "Audio_3")])

    A function maps :class:`~bmnas_core.architecture.ArchitectureWeights` to a genotype. The search
    ends with what it gives in the epoch with the best validation score, and a state's ``genotype``
    is what it gives at that step. Raises SelectionError for a name that is taken or ill-formed, or
    something else.
    """
    return SELECTIONS.register(name)


def derive(weights: ArchitectureWeights, selection: str = "argmax") -> Genotype:
    """The genotype that α, β and γ stand for, by a rule of :data:`SELECTIONS`.

    If the rule is not a function of α, β and γ, this is only a preview of it, by ``"argmax"``.
    Raises SelectionError for an unknown rule, or if no legal pair of predecessors is left.
    """
    allowed = "ArchitectureWeights, state.weights"
    check_type(weights, ArchitectureWeights, "weights", SelectionError, allowed)
    rule = SELECTIONS[selection]
    found = (argmax if inspect.isclass(rule) else rule)(weights)
    return check_genotype(selection, found, weights.features, len(weights.gamma))


def check_genotype(selection: str, found: object, features: tuple[str, ...], N: int) -> Genotype:
    """``found`` itself. Raises SelectionError unless it is a genotype of the searched space."""
    if isinstance(found, Genotype) and found.features == features and len(found.cells) == N:
        return found
    allowed = f"a Genotype of {N} Cells on {', '.join(features)}"
    raise SelectionError(f"selection {selection!r}", quoted(found), allowed)


# --- functions of α, β and γ


@register_selection("argmax")
def argmax(weights: ArchitectureWeights, new_features: bool = False) -> Genotype:
    """The published rule: each Cell takes the heaviest pair that no earlier Cell took.

    Earlier Cells are among the candidates, as in the paper (Yin et al. 2022, algorithm 1). With
    ``new_features`` only features are, and each pair has one that no earlier Cell took; a pair that
    would leave none for a later Cell is left.
    """
    features, cells = weights.features, []
    for i, gamma in enumerate(weights.gamma):
        taken = [cell.inputs for cell in cells]
        pairs = free_pairs(cell_predecessors(features, i), taken)
        if new_features:
            unused = set(features).difference(*taken)
            most = len(unused) - (len(weights.gamma) - i - 1)  # the later Cells need one each
            pairs = [p for p in free_pairs(features) if 0 < len(unused.intersection(p)) <= most]
        if not pairs:
            found = f"{len(features)} features for {len(weights.gamma)} Cells"
            allowed = f"at least {len(weights.gamma) + 1 if new_features else 2} features"
            raise SelectionError(f"cells[{i}]: no pair of inputs", found, allowed)
        steps = []
        for j, op in enumerate(gamma.argmax(axis=1)):
            edges = weights.step_edges(i, j)
            inputs = _heaviest(free_pairs(edges[0]), edges, heavier_first=True)
            steps.append(StepGenotype(weights.operations[op], inputs))
        cells.append(CellGenotype(_heaviest(pairs, weights.cell_edges(i)), tuple(steps)))
    return Genotype(features, tuple(cells))


@register_selection("released")
def released(weights: ArchitectureWeights) -> Genotype:
    """The rule of the released code: features only, each pair with one not used before."""
    return argmax(weights, new_features=True)


def _heaviest(pairs: list[Pair], edges: tuple, heavier_first: bool = False) -> Pair:
    """The pair with the largest product of weights; of ties the first, or that of the heavier X."""
    x, y = (dict(zip(edges[0], weights, strict=True)) for weights in edges[1:])
    return min(pairs, key=lambda p: (-x[p[0]] * y[p[1]], -x[p[0]] if heavier_first else 0))


# --- rules that evaluate on validation


class SearchView(Protocol):
    """What a rule reads of the :class:`~bmnas_core.search.Search` that it ends."""

    task: Task
    config: Config
    seed: int
    metric: Metric  # .best is max, or min if lower scores are better
    bank: FeatureBank
    hypernet: Hypernet
    state: object  # the present SearchState: α, β and γ are state.weights

    def score_of(self, genotype: Genotype, rows: Tensor | None = None) -> float:
        """Score on validation of one architecture, with the hypernet's weights."""

    def scores_with_inputs(self, pairs: list[list[Pair]]) -> list[float]:
        """Scores of the hypernet on validation, its first Cells fixed to each list of pairs."""

    def outputs_with_inputs(
        self, pairs: list[list[Pair]], rows: Tensor, hypernet: Hypernet
    ) -> tuple[Tensor, Tensor]:
        """What is scored, of rows of validation and of a hypernet: outputs and labels."""


class Selection:
    """Final selection of one architecture, after the search's last update. ::

        @bm.register_selection("best_of_ten")
        class BestOfTen(bm.Selection):
            def run(self):
                weights, search = self.search.state.weights, self.search
                scores = {g: search.score_of(g) for g in bm.most_probable(weights, 10)}
                best = search.metric.best(scores, key=scores.get)
                yield best, scores[best]

    It may read all that the ``search`` has learned, a :class:`SearchView`. :meth:`run` makes at
    most so many ``steps``; set them in ``__init__`` if it is not 1. Random numbers follow the
    search's seed. The hypernet is in evaluation mode. A resumed search repeats :meth:`run`.
    """

    steps = 1

    def __init__(self, search: SearchView):
        self.search = search

    def run(self) -> Iterator[tuple[Genotype, float]]:
        """Yield after each step the best genotype so far and its score on validation."""
        raise NotImplementedError


def selection_for(search: SearchView) -> Selection:
    """The last part of a search, by the rule that its config names.

    What a function of α, β and γ gave in the best epoch stands (Yin et al. 2022, algorithm 1).
    """
    name = search.config.selection
    rule = SELECTIONS[name]
    found = rule(search) if inspect.isclass(rule) else Selection(search)
    if not inspect.isclass(rule):
        derive(search.state.weights, name)  # refuse at once what the rule has no genotype for
        found.steps = 0
    elif type(found.steps) is not int or found.steps < 1:
        place, allowed = f"selection {name!r}: steps", "an integer of 1 or more"
        raise SelectionError(place, repr(found.steps), allowed)
    return found


@register_selection("perturbation")
class Perturbation(Selection):
    """Cell by Cell, the pair that scores best on validation when the hypernet is fixed to it.

    α says how good a feature is in a mixture, not with which other. So each free pair in turn
    replaces the mixtures that a Cell reads, while the other Cells and all steps go on mixing; the
    best pair stays for the Cells that follow. Steps are derived from β and γ. One step is one
    Cell. Compare DARTS-PT (Wang et al. 2021), which removes one operation at a time. Pairs that
    are far behind on ``SCREENING_SAMPLES`` drop out (racing, Maron and Moore 1994). Of more than
    ``MAX_PAIRS`` only the most probable under α are evaluated.

    As in DARTS-PT the hypernet is tuned after each decision: once a Cell has its pair, a copy of
    the hypernet learns for ``tuning_epochs`` what the next Cell has to add to that. Only weights
    are trained, on train, by the search's own recipe. ``sampling="single_path"`` never trains a
    mixture and is not tuned.

    ``odds`` are those of each Cell's pairs so far. One standard error behind the best score makes
    a pair less probable by a factor of e.
    """

    def __init__(self, search: SearchView):
        super().__init__(search)
        self.steps, self.odds, self.items = search.config.N, [], search.bank.size("validation")
        self.hypernet = search.hypernet

    def run(self) -> Iterator[tuple[Genotype, float]]:
        search, fixed = self.search, []
        self.weights = search.state.weights
        derived = argmax(self.weights)
        for i in range(search.config.N):
            if i and search.config.tuning_epochs and search.config.sampling == "mixture":
                self._tune(fixed)
            pairs = self._pairs(i, fixed)
            scores, error = self._scores([[*fixed, pair] for pair in pairs])
            best = search.metric.best(scores)
            odds = [math.exp(-abs(score - best) / error) for score in scores]
            self.odds.append({pair: p / sum(odds) for pair, p in zip(pairs, odds, strict=True)})
            fixed.append(pairs[scores.index(best)])
            self.genotype = derived.with_inputs(fixed)
            yield self.genotype, best

    def _pairs(self, i: int, fixed: list[Pair]) -> list[Pair]:
        """Free pairs of Cell i; of more than ``MAX_PAIRS`` those most probable under α."""
        pairs = free_pairs(cell_predecessors(self.weights.features, i), fixed)
        if len(pairs) <= MAX_PAIRS:
            return pairs
        names, *sides = self.weights.cell_edges(i)
        x, y = (dict(zip(names, side.tolist(), strict=True)) for side in sides)
        likely = set(heapq.nlargest(MAX_PAIRS, pairs, key=lambda pair: x[pair[0]] * y[pair[1]]))
        return [pair for pair in pairs if pair in likely]

    def _tune(self, fixed: list[Pair]) -> None:
        """Train a copy of the hypernet with its first Cells fixed to these pairs."""
        search = self.search
        if self.hypernet is search.hypernet:  # whose weights a resumed search needs as they are
            self.hypernet = copy.deepcopy(self.hypernet)
        names = {f.name for f in fields(Settings)} - {"epochs"} | {"precision"}
        recipe = {name: getattr(search.config, name) for name in names}
        config = TrainConfig(**recipe, data="train", epochs=search.config.tuning_epochs)
        net, metric = FixedInputs(self.hypernet, [fixed]), metric_of(search.task)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return metric.loss(logits[0], labels)

        how = {"seed": search.seed, "loss": loss, "validate": False}
        how["kept"] = _kept_training(net, "tuning", search, config)
        for _ in fit_by_epoch(net, search.task, search.bank, config, **how):
            pass
        self.hypernet.eval()

    def _scores(self, pairs: list[list[Pair]]) -> tuple[list[float], float]:
        """A score for each list of pairs, and the standard error of the best.

        Those screened out get at most the worst of the rest.
        """
        search, metric = self.search, self.search.metric
        rows = torch.randperm(self.items, generator=generator(search.seed, "glance"))
        seen, unseen = rows[:SCREENING_SAMPLES], rows[SCREENING_SAMPLES:]
        outputs, labels = search.outputs_with_inputs(pairs, seen, self.hypernet)
        scores, error = self._scored(outputs, labels)
        if len(unseen):
            enough = metric.sign * metric.best(scores) - SCREENING_MARGIN * error
            # "Not below" keeps a score that is NaN.
            near = [k for k, one in enumerate(scores) if not metric.sign * one < enough]
            left = [pairs[k] for k in near]
            more, their_labels = search.outputs_with_inputs(left, unseen, self.hypernet)
            more = torch.cat([outputs[near], more], dim=1)
            exact, error = self._scored(more, torch.cat([labels, their_labels]))
            scores = [metric.worst(one, metric.worst(exact)) for one in scores]
            for k, one in zip(near, exact, strict=True):
                scores[k] = one
        return scores, error

    def _scored(self, outputs: Tensor, labels: Tensor) -> tuple[list[float], float]:
        """Scores of outputs (K, n, classes), and the standard error of the best."""
        metric = self.search.metric
        scores = [float(metric.score(own, labels)) for own in outputs]
        best = outputs[scores.index(metric.best(scores))]
        return scores, standard_error(metric, best, labels, self.search.seed)


@register_selection("successive_halving")
class SuccessiveHalving(Perturbation):
    """After :class:`Perturbation`, candidates sampled by its scores, trained by successive halving.

    Candidates take Cells' inputs by the odds of the perturbation; their steps are sampled
    uniformly, since steps that learn fast seem better in a mixture than they are. For each of the
    search's ``rungs``, ``(how many, epochs)``, all remaining candidates are trained up to so many
    epochs and scored on validation; the best go on to the next rung (Jamieson and Talwalkar 2016).
    The recipe is the task's own, on train alone, and the longest training. All candidates of a rung
    are trained together (:mod:`~bmnas_core.ensemble`) at its first step; each step scores one.

    If the scores of the first rung scatter hardly more than by chance, they tell little. Candidates
    within ``tie_margin`` · ``noise_ratio`` standard errors of the best count as equal, and the most
    probable of them under the hypernet wins. If the noise ratio is above ``MAX_NOISE_RATIO``, the
    first rung is the last.

    ``noise_ratio``, 0 to 1, is the variance that so few samples of validation cause, as a share of
    the variance of the first rung's scores so far (estimated from their quartiles).
    """

    def __init__(self, search: SearchView):
        super().__init__(search)
        self.rungs, self.noise_ratio = search.config.rungs or RUNGS, 1.0
        self.steps += sum(count for count, _ in self.rungs)

    def run(self) -> Iterator[tuple[Genotype, float]]:
        yield from super().run()
        most, random = self.rungs[0][0], generator(self.search.seed, "candidates")
        given = self.weights, self.odds
        first = {self.genotype.canonical(): genotype_probability(*given, self.genotype)}
        found = first | sample_candidates(*given, most, random)
        left = [Candidate(*item) for item in islice(found.items(), most)]
        trainings = _trainings(self.search, left)
        self.steps = self.search.config.N + sum(min(k, len(left)) for k, _ in self.rungs)
        for rung, (count, epochs) in enumerate(self.rungs):
            left = self._best_first(left)[:count] if rung else left
            for training in trainings:
                training.train_to(epochs, left)
            for k in range(1, len(left) + 1):
                if not rung:
                    self.noise_ratio = self._noise_ratio(left[:k])
                if k == len(left) and self.noise_ratio > MAX_NOISE_RATIO:
                    self.steps = self.search.config.N + k
                best = self._best_first(left[:k])[0]
                yield best.genotype, best.score
            if self.noise_ratio > MAX_NOISE_RATIO:
                return

    def _best_first(self, candidates: list[Candidate]) -> list[Candidate]:
        sign = self.search.metric.sign
        best = max(candidates, key=lambda candidate: sign * candidate.score)
        margin = self.search.config.tie_margin * self.noise_ratio
        enough = sign * best.score - margin * best.error

        def place(candidate: Candidate):
            tied = sign * candidate.score >= enough
            return tied, candidate.probability if tied else 0.0, sign * candidate.score

        return sorted(candidates, key=place, reverse=True)

    def _noise_ratio(self, candidates: list[Candidate]) -> float:
        scores = torch.tensor([c.score for c in candidates], dtype=torch.float64)
        low, high = scores.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
        noise = fmean(candidate.error**2 for candidate in candidates)
        spread = max(((high - low) / QUARTILES) ** 2, noise)
        return noise / spread if 0 < spread < math.inf else 1.0


@dataclass(eq=False)
class Candidate:
    """A genotype in training: its probability under the hypernet, its score so far, and its error.

    ``error`` is the score's standard error.
    """

    genotype: Genotype
    probability: float
    score: float = math.nan
    error: float = math.nan


def _trainings(search: SearchView, candidates: list[Candidate]) -> list[_Training]:
    """Candidates in ensembles, or each alone if samples lack modalities."""
    sizes = {name: getattr(search.config, name) for name in ("C", "L", "dropout", "precision")}
    config = TrainConfig(data="train", **sizes).with_defaults(search.task.config)
    together = 1 if search.task.gaps else networks_together(config)
    starts = range(0, len(candidates), together)
    return [_Training(search, candidates[k : k + together], config) for k in starts]


class _Training:
    """Candidates in training together, or one alone."""

    def __init__(self, search: SearchView, candidates: list[Candidate], config: TrainConfig):
        self.search, self.candidates, self.config, self.epochs = search, candidates, config, 0
        if len(candidates) == 1:
            with seeded(search.seed, "initial weights"):
                self.net = fusion_network(candidates[0].genotype, search.task, config)
        else:
            genotypes, seeds = [own.genotype for own in candidates], (search.seed,)
            self.net = build_ensemble(genotypes, search.task, config, seeds)
        self.optimizer = adam(self.net.to(search.bank.device), config)

    def train_to(self, epochs: int, left: list[Candidate]) -> None:
        """Train those that are left up to so many epochs, at most the recipe's, and score them."""
        kept = [k for k, candidate in enumerate(self.candidates) if candidate in left]
        if not kept:
            return
        if len(kept) < len(self.candidates):
            self.net.keep(kept, self.optimizer)
            self.candidates = [self.candidates[k] for k in kept]
        search, metric = self.search, self.search.metric
        data, alone = (search.task, search.bank), isinstance(self.net, FusionNetwork)
        how = {"seed": search.seed, "validate": False, "optimizer": self.optimizer}
        how["loss"] = metric.loss if alone else ensemble_loss(search.task)
        how["kept"] = _kept_training(self.net, "candidates", search, self.config, self.epochs)
        records = fit_by_epoch(self.net, *data, self.config, done=self.epochs, **how)
        for _ in range(self.epochs, min(epochs, self.config.epochs)):
            next(records)
            self.epochs += 1
        how["kept"].save()
        outputs, labels = outputs_of(self.net, *data, "validation")
        outputs = outputs[None] if alone else outputs
        for candidate, own in zip(self.candidates, outputs, strict=True):
            candidate.score = float(metric.score(own, labels))
            candidate.error = standard_error(metric, own, labels, search.seed)


def _kept_training(
    net: nn.Module, kind: str, search: SearchView, config: Config, done: int = 0
) -> KeptTraining:
    return KeptTraining(kind, net, search.bank, search.seed, config, search.task.scoring, done)
