"""Search: an iterator of bilevel updates (Yin et al. 2022, algorithm 1, first order)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, pairwise

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim import Adam

from .architecture import ArchitectureWeights, SelectionError
from .cells import RELAXATIONS
from .config import ConfigError, SearchSettings, setting
from .errors import BmnasError, check_type, quoted
from .features import Batch, FeatureBank
from .genotype import DEFAULT_OPERATIONS, OPERATIONS, Genotype, Pair
from .metrics import metric_of, score_text, standard_error
from .networks import FixedInputs, Hypernet
from .runtime import RNG_LOCK, as_seed, epoch_batches, resolve_device, seeded
from .selection import RUNGS, SELECTIONS, check_genotype, derive, selection_for
from .storage import read_tensors, write_tensors
from .tasks.task import Task, as_task
from .train import cosine_restarts, outputs_of, score, scores

FORMAT = "bmnas-search/2"
OPTIMIZERS = ("weight_optimizer", "architecture_optimizer")


class SearchError(BmnasError):
    """A search that cannot start, go on or be resumed."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchSettings):
    """How to search. Fields that are None default to the task's.

    ``schedule="batch"`` follows every update of the weights, on a training batch, by one of α, β,
    γ, on a validation batch. ``"epoch"`` does a whole epoch of the one and then one of the other,
    as the released code does. In the first ``warmup`` epochs the weights learn alone.

    ``order="second"`` takes the gradient of α, β, γ after one more step of the weights, and
    differentiates through that step (Liu et al. 2019, eq. 6).

    ``sampling="mixture"`` sends each batch through the whole hypernet. ``"single_path"`` (Guo et
    al. 2020) samples one architecture for each training batch by its probability under α, β, γ,
    and ``path_samples`` for each validation batch, whose losses change the probabilities
    (REINFORCE with a leave-one-out baseline). The weights never see a mixture, so they tell how
    good an architecture is alone.

    α, β, γ are divided by a ``temperature`` that changes geometrically from the first number to
    the second; ``gumbel`` adds noise to them. See :class:`~bmnas_core.cells.MixedCell` for
    ``partial``, and :mod:`~bmnas_core.selection` for ``selection``, ``tuning_epochs``, ``rungs``
    and ``tie_margin``.
    """

    operations: tuple[str, ...] = setting(DEFAULT_OPERATIONS, choices=OPERATIONS)
    relaxation: str = setting("pair", choices=RELAXATIONS)
    schedule: str = setting("batch", choices=("batch", "epoch"))
    sampling: str = setting("mixture", choices=("mixture", "single_path"))
    path_samples: int = setting(4, ge=2)
    warmup: int = setting(0, ge=0)
    order: str = setting("first", choices=("first", "second"))
    temperature: tuple[float, float] = setting((1.0, 1.0), gt=0.0)
    gumbel: bool = False
    partial: int = setting(1, ge=1)
    arch_lr: float = setting(1e-2, gt=0.0)
    arch_betas: tuple[float, float] = setting((0.5, 0.999), ge=0.0, le=0.9999)
    arch_weight_decay: float = setting(1e-3, ge=0.0)
    selection: str | None = setting(choices=SELECTIONS)
    tie_margin: float = setting(3.0, ge=0.0)

    def __post_init__(self):
        super().__post_init__()
        rungs = RUNGS if self.rungs is None else self.rungs
        steps = pairwise([(math.inf, 0), *rungs])
        if not rungs or not all(a >= b >= 1 and e < f for (a, e), (b, f) in steps):
            pairs = "at least one (how many, epochs), of ever fewer candidates for ever more epochs"
            self._refuse("rungs", f"{pairs}, both at least 1")
        for name, usual in {"order": "first", "gumbel": False, "partial": 1}.items():
            if self.sampling == "single_path" and getattr(self, name) != usual:
                self._refuse(name, f"{usual!r} with sampling='single_path'")
        if not self.operations or len(set(self.operations)) < len(self.operations):
            self._refuse("operations", "at least one, each once")

    def _refuse(self, name: str, allowed: str) -> None:
        raise ConfigError(f"SearchConfig.{name}", repr(getattr(self, name)), allowed)


@dataclass(frozen=True)
class SearchState:
    """What one step of a search did, and the state after it.

    Attributes:
        step, epoch: counted from 1; 0 before the first step.
        phase: ``"both"``, ``"weights"`` or ``"architecture"``, as the step updates them;
            ``"selection"`` in the final selection; ``"start"`` for a state that no step has made.
        train_loss, val_loss: of this step's batches; None for the one the phase leaves out.
        val_score: on all of validation, the hypernet's score at the last step of an epoch; in the
            final selection the best candidate's so far, or during perturbation that of the
            hypernet fixed to the best pair.
        weights: α, β, γ after the step.
        selection: the name of the rule by which the search ends.
        selected: the best genotype so far, in the final selection.
    """

    step: int
    epoch: int
    phase: str
    lr: float
    train_loss: float | None
    val_loss: float | None
    val_score: float | None
    weights: ArchitectureWeights
    selection: str
    selected: Genotype | None = None

    alpha = property(lambda self: self.weights.alpha, doc="(edges, 2), edges Cell by Cell.")
    beta = property(lambda self: self.weights.beta, doc="Per Cell (edges, 2), step by step.")
    gamma = property(lambda self: self.weights.gamma, doc="Per Cell (M, operations).")

    @cached_property
    def genotype(self) -> Genotype:
        """What is selected so far; before the final selection, what α, β and γ stand for."""
        return self.selected or derive(self.weights, self.selection)

    def __str__(self) -> str:
        when = f"epoch {self.epoch}" if self.epoch else "before the first update"
        names = "training loss", "validation loss", "validation score"
        values = zip(names, (self.train_loss, self.val_loss, self.val_score), strict=True)
        known = [f"{name} {score_text(value)}" for name, value in values if value is not None]
        return " · ".join([f"step {self.step}", when, *known])


class Search(Iterator[SearchState]):
    """Bilevel search on a task. Iterating it makes one step at a time: updates, then the selection.

    All randomness is a function of the seed and the step, so a resumed search equals an unbroken
    one, and two searches can run side by side.

    Args:
        task: only its train and validation splits are read.
        config: how; fields that are None default to the task's.
        seed: fixes initial weights, batches, dropout and the selection.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        bank: features computed before; the task's shared bank in memory by default.

    Raises :class:`SearchError` in a step whose loss is not finite, and SelectionError for what a
    selection rule gives if it is no genotype of the space.

    Attributes:
        hypernet: the network that is searched in.
        step: steps made so far.
        updates: steps that update weights or α, β, γ; those of the final selection follow.
        best_genotype, best_score: of the best validation score at the end of an epoch so far, and
            from the first step of the final selection on, the best candidate's.
    """

    def __init__(
        self,
        task: Task,
        config: SearchConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "auto",
        bank: FeatureBank | None = None,
    ):
        self.task, self.seed, self.device = as_task(task), as_seed(seed), resolve_device(device)
        config = SearchConfig.from_optional(config).with_defaults(task.search_config)
        default = SearchSettings(selection="successive_halving", tuning_epochs=0)
        self.config = config = config.with_defaults(task.config).with_defaults(default)
        self.bank = FeatureBank.shared(task, config.L, self.device, bank)
        self.metric = metric_of(task)
        names = "C", "L", "N", "M", "operations", "relaxation", "dropout", "partial", "sampling"
        settings = {name: getattr(config, name) for name in names}
        with seeded(seed, "hypernet"):
            hypernet = Hypernet(task.channels, task.classes, gaps=task.gaps, **settings)
        self.hypernet = hypernet.to(self.device)
        self.hypernet.temperature.gumbel = config.gumbel
        self.architecture = self.hypernet.architecture_parameters()
        self.weights = self.hypernet.weight_parameters()
        self.weight_optimizer = Adam(self.weights, config.max_lr, weight_decay=config.weight_decay)
        self.scheduler = cosine_restarts(self.weight_optimizer, config)
        how = {"betas": config.arch_betas, "weight_decay": config.arch_weight_decay}
        self.architecture_optimizer = Adam(self.architecture, config.arch_lr, **how)
        self.train_batches = self._batches("train")
        alone = self._batches("validation") if config.schedule == "epoch" else 0
        self.steps_per_epoch = self.train_batches + alone
        self.updates = self.steps_per_epoch * config.epochs
        self.step, self.best_score, self.best_genotype = 0, None, None
        self.selection, self._selecting = selection_for(self), self._selection_steps()

    @property
    def total_steps(self) -> int:
        return self.updates + self.selection.steps

    def __len__(self) -> int:
        """Steps that are left."""
        return max(self.total_steps - self.step, 0)

    @property
    def state(self) -> SearchState:
        """The present state: α, β, γ and no losses. The step is 0 before the first one."""
        config, rate = self.config, self.weight_optimizer.param_groups[0]["lr"]
        epoch = min(-(-self.step // self.steps_per_epoch), config.epochs)
        how = config.operations, config.relaxation
        weights = ArchitectureWeights.from_hypernet(self.hypernet, *how)
        numbers = self.step, epoch, "start", rate, None, None, None
        selected = self.best_genotype if self.step > self.updates else None
        return SearchState(*numbers, weights, config.selection, selected)

    def __next__(self) -> SearchState:
        if self.step >= self.total_steps:
            raise StopIteration
        with RNG_LOCK:
            return self._next() if self.step < self.updates else self._select()

    def _select(self) -> SearchState:
        """One step of the final selection. SelectionError for what is no genotype and its score."""
        place, made = f"selection {self.config.selection!r}", next(self._selecting, None)
        if made is None and self.step > self.updates:
            # Repeated where numbers round differently, it may end earlier.
            self.selection.steps = self.step - self.updates
            raise StopIteration
        if not isinstance(made, tuple) or len(made) != 2 or type(made[1]) not in (int, float):
            raise SelectionError(place, quoted(made), "(genotype, score) from run")
        genotype, score = made
        check_genotype(self.config.selection, genotype, self.task.features, self.config.N)
        if not math.isfinite(score):
            raise SelectionError(place, f"score {score}", "finite")
        self.best_genotype, self.best_score = genotype, float(score)
        self.step += 1
        if self.step == self.total_steps and next(self._selecting, None) is not None:
            found = f"more than {self.selection.steps} steps"
            raise SearchError(place, found, "at most its attribute steps")
        return replace(self.state, phase="selection", val_score=self.best_score)

    def _selection_steps(self) -> Iterator[object]:
        """What the rule yields, each on the random numbers of its step; after its end None."""
        made, place = self.selection.run(), f"selection {self.config.selection!r}: run"
        made = iter(check_type(made, Iterable, place, SelectionError, "a generator"))
        for step in count(self.updates):
            self.hypernet.eval()
            with seeded(self.seed, "selection", step, device=self.device):
                found = next(made, None)
            if step >= self.step:  # after a resume, those before are repeated
                yield found

    def _next(self) -> SearchState:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        learning, phase = epoch >= self.config.warmup, "both"
        if self.config.schedule == "epoch":
            phase = "weights" if position < self.train_batches else "architecture"
        elif not learning:
            phase = "weights"
        trained = (epoch + 1) * self.train_batches if phase == "architecture" else 0
        made: dict[str, float] = {}
        self.hypernet.train()
        with seeded(self.seed, "step", self.step, device=self.device):
            self._set_schedules(self.step)
            if phase != "architecture":
                made["train_loss"] = self._update("train", epoch * self.train_batches + position)
            if phase != "weights" and learning:
                made["val_loss"] = self._update("validation", self.step - trained)
        self.step += 1
        if self.step % self.steps_per_epoch == 0:
            mixture = self.config.sampling == "mixture"
            made["val_score"] = self.score_of(None if mixture else self.state.genotype)
        state = replace(self.state, phase=phase, **made)
        counts = "val_score" in made and (learning or self.config.epochs <= self.config.warmup)
        if counts and (self.best_score is None or self._is_better(state.val_score)):
            self.best_score, self.best_genotype = state.val_score, state.genotype
        return state

    def score_of(self, genotype: Genotype | None, rows: Tensor | None = None) -> float:
        """Score on (rows of) validation of one architecture in the hypernet, or of the mixture."""
        with self.hypernet.single_path(genotype):
            return score(self.hypernet, self.task, self.bank, "validation", rows)

    def _is_better(self, score: float) -> bool:
        better = self.metric.sign * score > self.metric.sign * self.best_score
        return better or math.isnan(self.best_score)

    def scores_with_inputs(
        self,
        pairs: list[list[Pair]],
        rows: Tensor | None = None,
        hypernet: Hypernet | None = None,
    ) -> list[float]:
        """Scores on (rows of) validation, the first Cells fixed to each list of pairs.

        They are those of the search's hypernet, or of a tuned copy of it.
        """
        if self.config.sampling == "mixture":
            fixed = FixedInputs(hypernet or self.hypernet, pairs)
            return scores(fixed, self.task, self.bank, "validation", rows)
        derived = derive(self.state.weights, self.config.selection)
        return [self.score_of(derived.with_inputs(inputs), rows) for inputs in pairs]

    def error_with_inputs(
        self, pairs: list[Pair], rows: Tensor | None = None, hypernet: Hypernet | None = None
    ) -> float:
        """Standard error of the score of one list of pairs, as :meth:`scores_with_inputs`."""
        path, net = None, FixedInputs(hypernet or self.hypernet, [pairs])
        if self.config.sampling != "mixture":
            path = derive(self.state.weights, self.config.selection).with_inputs(pairs)
            net = self.hypernet
        with self.hypernet.single_path(path):
            outputs, labels = outputs_of(net, self.task, self.bank, "validation", rows)
        outputs = outputs if path else outputs[0]
        return standard_error(self.metric, outputs, labels, self.seed)

    def _set_schedules(self, step: int) -> None:
        """Learning rate and temperature of an update."""
        epoch, position = divmod(step, self.steps_per_epoch)
        self.scheduler.step(epoch + min(position, self.train_batches - 1) / self.train_batches)
        first, last = self.config.temperature
        done = step / max(self.updates - 1, 1)
        self.hypernet.temperature.value = first * (last / first) ** done

    def _update(self, split: str, k: int) -> float:
        """One optimiser step: of the weights on training batch k, or of α, β, γ on validation."""
        training, paths = split == "train", self.config.sampling == "single_path"
        optimizer = self.weight_optimizer if training else self.architecture_optimizer
        batch = self._batch(split, k)
        if training:
            with torch.no_grad():
                path = self.hypernet.sample_path()[0] if paths else None
            loss = self._loss(batch, path)
        elif paths:
            loss = self._loss_of_paths(batch)
        else:
            loss = self._loss(batch) if self.config.order == "first" else self._unrolled_loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SearchError(f"{split} loss at step {self.step + 1}: found {value}; not finite")
        optimizer.zero_grad()
        loss.backward(inputs=self.weights if training else self.architecture)
        optimizer.step()
        return value

    def _batches(self, split: str) -> int:
        return -(-self.bank.size(split) // self.config.batch_size)

    def _batch(self, split: str, k: int) -> Batch:
        """Batch k of a split, which is passed over again and again: features and labels."""
        cycle, b = divmod(k, self._batches(split))
        n, size = self.bank.size(split), self.config.batch_size
        batches = epoch_batches(n, size, self.seed, split, cycle)
        return self.bank.batch(split, batches[b], batches[b + 1] if b + 1 < len(batches) else None)

    def _loss(self, batch: Batch, path: Genotype | None = None) -> Tensor:
        """Loss of the hypernet on a batch, or of one architecture in it."""
        inputs, labels = batch
        with self.hypernet.single_path(path):
            return self.metric.loss(self.hypernet(inputs), labels)

    def _loss_of_paths(self, batch: Batch) -> Tensor:
        """Mean loss of sampled architectures, with the gradient of REINFORCE."""
        sampled = [self.hypernet.sample_path() for _ in range(self.config.path_samples)]
        with torch.no_grad():
            losses = torch.stack([self._loss(batch, path) for path, _ in sampled])
        # Each loss less the mean of the others.
        advantages = (losses - losses.mean()) * len(losses) / (len(losses) - 1)
        objective = (advantages * torch.stack([log for _, log in sampled])).mean()
        # The value is the mean loss; the gradient is the objective's.
        return objective - objective.detach() + losses.mean()

    def _unrolled_loss(self, batch: Batch) -> Tensor:
        """Loss of a batch after one more step of the weights, differentiable through that step.

        The step is plain gradient descent at the current rate, on a training batch.
        """
        loss = self._loss(self._batch("train", self.step))
        gradients = torch.autograd.grad(loss, self.weights, create_graph=True, allow_unused=True)
        rate = self.weight_optimizer.param_groups[0]["lr"]
        names = {id(p): name for name, p in self.hypernet.named_parameters()}
        pairs = zip(self.weights, gradients, strict=True)
        unrolled = {names[id(w)]: w - rate * g for w, g in pairs if g is not None}
        inputs, labels = batch
        return self.metric.loss(functional_call(self.hypernet, unrolled, (inputs,)), labels)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything needed to go on, as safetensors with a JSON header."""
        tensors = {f"hypernet.{k}": v for k, v in self.hypernet.state_dict().items()}
        for name in OPTIMIZERS:
            for i, state in getattr(self, name).state_dict()["state"].items():
                tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
        header = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "step": self.step,
            "selection_steps": self.selection.steps,
            "best_score": self.best_score,
            "best_genotype": self.best_genotype and self.best_genotype.to_json(),
            "bank": self.bank.content_hash,
            "scoring": self.task.scoring,
            "tensors": sorted(tensors),
        }
        write_tensors(path, tensors, header)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike,
        task: Task,
        *,
        device: str | torch.device = "auto",
        bank: FeatureBank | None = None,
    ) -> Search:
        """Go on from a saved search; on CPU the rest equals an unbroken one bit for bit.

        Raises SearchError for a file that is no search, or features other than it was made with.
        """
        header, tensors = read_tensors(path, FORMAT, SearchError, "search to resume")
        device = resolve_device(device)
        try:
            config = SearchConfig.from_dict(header["config"])
            search = cls(task, config, seed=header["seed"], device=device, bank=bank)
            if header["bank"] != search.bank.content_hash:
                raise SearchError(
                    "was made on other features (task, data, splits, backbones, L, precision or "
                    f"what is left out) than those of task {task.name!r} given here"
                )
            if (scoring := header.get("scoring", task.scoring)) != task.scoring:
                place = f"scoring of task {task.name!r}"
                raise SearchError(
                    place, quoted(task.scoring), f"as the search had: {quoted(scoring)}"
                )
            if header["tensors"] != sorted(tensors):
                lost = sorted(set(header["tensors"]) ^ set(tensors))
                raise SearchError(f"found other tensors than were saved: {', '.join(lost[:5])}")
            search._restore(tensors)
            search.step, search.best_score = header["step"], header["best_score"]
            search.selection.steps = header["selection_steps"]
            if search.step:
                search._set_schedules(min(search.step, search.updates) - 1)
            if header["best_genotype"]:
                search.best_genotype = Genotype.from_json(header["best_genotype"])
        except KeyError as error:
            raise SearchError(path, f"no {error}", "a whole search") from None
        except (ValueError, RuntimeError) as error:
            raise SearchError(f"{path}: {error}") from None
        return search

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        saved = {name: getattr(self, name).state_dict() for name in OPTIMIZERS}
        saved["hypernet"] = {}
        for key, tensor in tensors.items():
            match key.split("."):
                case "hypernet", *names:
                    saved["hypernet"][".".join(names)] = tensor
                case optimizer, i, field:
                    saved[optimizer]["state"].setdefault(int(i), {})[field] = tensor
        for name, state in saved.items():
            getattr(self, name).load_state_dict(state)
