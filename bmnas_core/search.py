"""Search: an iterator of bilevel updates (Yin et al. 2022, algorithm 1, first order)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import functional_call

from .cells import RELAXATIONS
from .choices import CHOICES, RUNGS
from .config import (
    RANDOM,
    BmnasError,
    ConfigError,
    DeviceError,
    SearchSettings,
    as_seed,
    epoch_batches,
    read_tensors,
    resolve_device,
    seeded,
    setting,
    write_tensors,
)
from .derive import DERIVATIONS, ArchitectureWeights, derive, with_pairs
from .features import FeatureBank
from .genotype import OPERATIONS, Genotype
from .networks import Hypernet, KeptPairs
from .tasks.task import Task, as_task
from .train import cosine_restarts, metric_of, score, scores

FORMAT = "bmnas-search/1"


class SearchError(BmnasError):
    """A search that cannot start, go on or be resumed."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SearchSettings):
    """How to search; what is None is the task's own.

    ``schedule="batch"`` follows every update of the weights, on a training batch, by one of α, β,
    γ, on a validation batch. ``"epoch"`` does a whole epoch of the one and then one of the other,
    as the published code does. In the first ``warmup`` epochs the weights learn alone.

    ``order="first"`` takes the weights as they are for the gradient of α, β, γ; ``"second"`` looks
    one step of gradient descent ahead and differentiates through it (Liu et al. 2019, eq. 6).

    ``passes="mixture"`` sends each batch through the whole hypernet. ``"paths"`` draws one
    architecture for each training batch by its probability under α, β, γ, and ``draws`` for each
    validation batch, whose losses move the probabilities (REINFORCE with a leave-one-out
    baseline): the weights never see a mixture, so that they tell how good an architecture is
    alone.

    α, β, γ are divided by a ``temperature`` that goes from the first number to the second,
    geometrically, and with ``gumbel`` moved by noise; ``partial`` lets the operations see one in
    so many channels (:class:`~bmnas_core.cells.MixedCell`).

    When the updates are done, the ``choice`` is made; ``rungs`` and ``margin`` are those of
    ``"trials"`` (:mod:`~bmnas_core.choices`).
    """

    operations: tuple[str, ...] = setting(
        ("sum", "attention", "linear_glu", "concat_fc"), choices=lambda: tuple(OPERATIONS)
    )
    relaxation: str = setting("pair", choices=lambda: tuple(RELAXATIONS))
    derivation: str = setting("argmax", choices=lambda: tuple(DERIVATIONS))
    schedule: str = setting("batch", choices=("batch", "epoch"))
    passes: str = setting("mixture", choices=("mixture", "paths"))
    draws: int = setting(4, least=2)
    warmup: int = setting(0, least=0)
    order: str = setting("first", choices=("first", "second"))
    temperature: tuple[float, float] = setting((1.0, 1.0), above=0.0)
    gumbel: bool = False
    partial: int = setting(1, least=1)
    arch_lr: float = setting(1e-2, above=0.0)
    arch_betas: tuple[float, float] = setting((0.5, 0.999), least=0.0, most=0.9999)
    arch_weight_decay: float = setting(1e-3, least=0.0)

    choice: str | None = setting(choices=lambda: tuple(CHOICES))
    margin: float = setting(3.0, least=0.0)

    def __post_init__(self):
        super().__post_init__()
        rungs = RUNGS if self.rungs is None else self.rungs
        counts, epochs = zip(*rungs, strict=True) if rungs else ((0,), (0,))
        fewer, longer = [*counts] == sorted(counts)[::-1], [*epochs] == sorted({*epochs})
        if counts[-1] < 1 or epochs[0] < 1 or not (fewer and longer):
            raise ConfigError(
                f"SearchConfig.rungs: found {self.rungs!r}; allowed: one (how many, epochs) up, "
                "ever fewer, at least 1, for ever longer"
            )
        paths = self.passes == "paths"
        for name, usual in (("order", "first"), ("gumbel", False), ("partial", 1)):
            if paths and getattr(self, name) != usual:
                raise ConfigError(
                    f"SearchConfig.{name}: found {getattr(self, name)!r}; allowed: {usual!r} with "
                    "passes='paths'"
                )
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ConfigError(
                f"SearchConfig.operations: found {self.operations!r}; allowed: one up, each once"
            )


@dataclass(frozen=True)
class SearchState:
    """What one step of a search did and where it stands.

    Attributes:
        step, epoch: counted from 1; 0 before the first step.
        phase: ``"both"``, or under the epoch schedule ``"weights"`` or ``"architecture"``;
            ``"choice"`` for a step of the choice that follows; ``"start"`` for where a search
            stands without a step of its own.
        train_loss, val_loss: of this step's batches; None for the one the phase leaves out.
        val_score: the hypernet's score on all of validation, at the last step of an epoch; that
            of the best candidate so far in a choice, or in looks the hypernet's with the best pair.
        weights: α, β, γ after the step.
        chosen: the best candidate so far, in a choice.
    """

    step: int
    epoch: int
    phase: str
    lr: float
    train_loss: float | None
    val_loss: float | None
    val_score: float | None
    weights: ArchitectureWeights
    derivation: str
    chosen: Genotype | None = None

    @property
    def alpha(self):
        """(edges, 2), edges Cell by Cell."""
        return self.weights.alpha

    @property
    def beta(self):
        """Per Cell (edges, 2), edges step by step."""
        return self.weights.beta

    @property
    def gamma(self):
        """Per Cell (M, operations)."""
        return self.weights.gamma

    @cached_property
    def genotype(self) -> Genotype:
        """What would be derived, or has been chosen, if the search ended here."""
        return self.chosen or derive(self.weights, self.derivation)


class Search:
    """Bilevel search on a task; iterating it makes one update at a time.

    All randomness is a function of the seed and the step, so that a resumed search equals an
    unbroken one, and two searches can run side by side.

    Args:
        task: the task to search on. Only its train and validation splits are read.
        config: how; fields that are None are the task's.
        seed: fixes initial weights, batches and dropout.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
        bank: features computed before; the task's shared bank in memory where None.

    Attributes:
        hypernet: the network that is searched in.
        step: updates made so far.
        best_genotype, best_score: of the best validation score at the end of an epoch so far, and
            from the first step of the choice on, the best candidate's.
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
        self.config = config = (
            SearchConfig.of(config).filled(task.search_config).filled(task.config)
        )
        self.bank = FeatureBank.of(task, config.L, self.device, bank)
        self.metric = metric_of(task)
        with seeded(seed, "hypernet"):
            self.hypernet = Hypernet(
                task.channels,
                task.classes,
                C=config.C,
                L=config.L,
                N=config.N,
                M=config.M,
                operations=config.operations,
                relaxation=config.relaxation,
                dropout=config.dropout,
                partial=config.partial,
                paths=config.passes == "paths",
            ).to(self.device)
        self.hypernet.sharpen.gumbel = config.gumbel
        self.architecture = self.hypernet.architecture_parameters()
        self.weights = self.hypernet.weight_parameters()
        self.weight_optimizer = torch.optim.Adam(
            self.weights, lr=config.max_lr, weight_decay=config.weight_decay
        )
        self.scheduler = cosine_restarts(self.weight_optimizer, config)
        self.architecture_optimizer = torch.optim.Adam(
            self.architecture,
            lr=config.arch_lr,
            betas=config.arch_betas,
            weight_decay=config.arch_weight_decay,
        )
        self.choice, self._choosing = CHOICES[config.choice](self), None
        self.step = 0
        self.best_score: float | None = None
        self.best_genotype: Genotype | None = None
        self.train_batches = -(-self.bank.size("train") // config.batch_size)
        self.val_batches = -(-self.bank.size("validation") // config.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        both = self.config.schedule == "batch"
        return self.train_batches if both else self.train_batches + self.val_batches

    @property
    def updates(self) -> int:
        """Steps that update weights or α, β, γ; the steps of the choice follow."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def total_steps(self) -> int:
        return self.updates + self.choice.steps

    def __len__(self) -> int:
        """Steps that are left."""
        return max(self.total_steps - self.step, 0)

    def __iter__(self) -> Iterator[SearchState]:
        return self

    @property
    def state(self) -> SearchState:
        """Where the search stands now: α, β, γ and no losses. The step is 0 before the first."""
        rate = self.weight_optimizer.param_groups[0]["lr"]
        chosen = self.best_genotype if self.step > self.updates else None
        return self._state("start", rate, None, None, None, chosen)

    def __next__(self) -> SearchState:
        if self.step >= self.total_steps:
            raise StopIteration
        with RANDOM:
            return self._next() if self.step < self.updates else self._choose()

    def _choose(self) -> SearchState:
        """One step of the choice. After a resume the steps that were made are made again."""
        if self._choosing is None:
            self._choosing = self.choice.run()
            for _ in range(self.step - self.updates):
                next(self._choosing, None)
        made = next(self._choosing, None)
        if made is None:  # made again where numbers round otherwise, it may end earlier
            self.choice.steps = self.step - self.updates
            raise StopIteration
        self.best_genotype, self.best_score = made
        self.step += 1
        rate = self.weight_optimizer.param_groups[0]["lr"]
        return self._state("choice", rate, None, None, self.best_score, self.best_genotype)

    def _next(self) -> SearchState:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        phase = "both"
        if self.config.schedule == "epoch":
            phase = "weights" if position < self.train_batches else "architecture"
        learning = epoch >= self.config.warmup
        if phase == "both" and not learning:
            phase = "weights"
        train_loss = val_loss = val_score = None
        self.hypernet.train()
        with seeded(self.seed, "step", self.step, device=self.device):
            self._set_rate(epoch, position)
            self._set_temperature()
            if phase != "architecture":
                train_loss = self._update(
                    "train", self.step // self.steps_per_epoch, position, self.train_batches
                )
            if phase != "weights" and learning:
                done = self.step if phase == "both" else position - self.train_batches
                cycle, b = divmod(done, self.val_batches)
                cycle = cycle if phase == "both" else epoch
                val_loss = self._update("validation", cycle, b, self.val_batches)
        self.step += 1
        if self.step % self.steps_per_epoch == 0:
            val_score = self._val_score()
        rate = self.weight_optimizer.param_groups[0]["lr"]
        state = self._state(phase, rate, train_loss, val_loss, val_score)
        counts = val_score is not None and (learning or self.config.epochs <= self.config.warmup)
        if counts and (self.best_score is None or val_score > self.best_score):
            self.best_score, self.best_genotype = val_score, state.genotype
        return state

    def _val_score(self) -> float:
        """The hypernet's on all of validation; of what would be derived, if it learns by paths."""
        if self.config.passes == "mixture":
            return score(self.hypernet, self.task, self.bank, "validation")
        return self.score_of(self.state.genotype)

    def score_of(self, genotype: Genotype, rows: Tensor | None = None) -> float:
        """Score of one architecture by the hypernet's weights, on (rows of) validation."""
        with self.hypernet.only(genotype):
            return score(self.hypernet, self.task, self.bank, "validation", rows)

    def scores_with(
        self, pairs: list[list[tuple[str, str]]], rows: Tensor | None = None
    ) -> list[float]:
        """Scores of the hypernet with each list of pairs kept in its first Cells.

        Args:
            rows: which samples of validation; all by default.
        """
        if self.config.passes == "mixture":
            kept = KeptPairs(self.hypernet, pairs)
            return scores(kept, self.task, self.bank, "validation", rows)
        derived = derive(self.state.weights, self.config.derivation)
        return [self.score_of(with_pairs(derived, kept), rows) for kept in pairs]

    def _set_rate(self, epoch: int, position: int) -> None:
        trained = min(position, self.train_batches - 1) / self.train_batches
        self.scheduler.step(epoch + trained)

    def _set_temperature(self) -> None:
        first, last = self.config.temperature
        done = min(self.step / max(self.updates - 1, 1), 1.0)
        self.hypernet.sharpen.temperature = first * (last / first) ** done

    def _state(self, phase, lr, train_loss, val_loss, val_score, chosen=None) -> SearchState:
        epoch = min(-(-self.step // self.steps_per_epoch), self.config.epochs)
        weights = ArchitectureWeights.of(
            self.hypernet, self.config.operations, self.config.relaxation
        )
        losses = train_loss, val_loss, val_score
        derivation = self.config.derivation
        return SearchState(self.step, epoch, phase, lr, *losses, weights, derivation, chosen)

    def _update(self, split: str, cycle: int, b: int, batches: int) -> float:
        """One optimiser step: of the weights on a training batch, or of α, β, γ on validation."""
        training = split == "train"
        parameters = self.weights if training else self.architecture
        optimizer = self.weight_optimizer if training else self.architecture_optimizer
        batch = self._batch(split, cycle, b)
        if self.config.passes == "paths":
            loss, value = self._loss_of_paths(batch, training)
        else:
            first = training or self.config.order == "first"
            loss = self._loss(*batch) if first else self._unrolled_loss(batch)
            value = float(loss.detach())
        if value != value or abs(value) == float("inf"):
            raise SearchError(f"{split} loss at step {self.step + 1}: found {value}; not finite")
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value

    def _batch(self, split: str, cycle: int, b: int) -> tuple[dict[str, Tensor], Tensor]:
        """Batch b in the given pass over a split: features and labels."""
        n = self.bank.size(split)
        batches = epoch_batches(n, self.config.batch_size, self.seed, split, cycle)
        return self.bank.batch(split, batches[b], batches[b + 1] if b + 1 < len(batches) else None)

    def _loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        return self.metric.loss(self.hypernet(inputs), labels)

    def _loss_of_paths(self, batch: tuple, training: bool) -> tuple[Tensor, float]:
        """What to differentiate, and the mean loss of the architectures drawn."""
        if training:
            with torch.no_grad():
                path, _ = self.hypernet.draw()
            with self.hypernet.only(path):
                loss = self._loss(*batch)
            return loss, float(loss.detach())
        paths, logs = zip(*(self.hypernet.draw() for _ in range(self.config.draws)), strict=True)
        losses = []
        for path in paths:
            with torch.no_grad(), self.hypernet.only(path):
                losses.append(self._loss(*batch))
        losses = torch.stack(losses)
        # Each loss less the mean of the others.
        advantages = (losses - losses.mean()) * len(losses) / (len(losses) - 1)
        return (advantages * torch.stack(logs)).mean(), float(losses.mean())

    def _unrolled_loss(self, batch: tuple) -> Tensor:
        """Loss of a batch after one more step of the weights, differentiable through that step.

        The step is plain gradient descent at the current rate, on the training batch of the same
        position.
        """
        rate = self.weight_optimizer.param_groups[0]["lr"]
        train_loss = self._loss(*self._batch("train", *divmod(self.step, self.train_batches)))
        gradients = torch.autograd.grad(
            train_loss, self.weights, create_graph=True, allow_unused=True
        )
        ahead = {
            id(w): w - rate * g
            for w, g in zip(self.weights, gradients, strict=True)
            if g is not None
        }
        names = self.hypernet.named_parameters()
        moved = {name: ahead[id(p)] for name, p in names if id(p) in ahead}
        inputs, labels = batch
        return self.metric.loss(functional_call(self.hypernet, moved, (inputs,)), labels)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything needed to go on, as safetensors with a JSON header."""
        tensors = {f"hypernet.{k}": v for k, v in self.hypernet.state_dict().items()}
        for name, optimizer in self._optimizers().items():
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
        header = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "step": self.step,
            "choice_steps": self.choice.steps,
            "best_score": self.best_score,
            "best_genotype": self.best_genotype and self.best_genotype.to_json(),
            "bank": self.bank.identity,
            "tensors": sorted(tensors),
        }
        write_tensors(path, tensors, json.dumps(header))

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

        Raises:
            SearchError: for a file that is missing or no search, or features other than those it
                was made with.
        """
        header, tensors = read_tensors(path, FORMAT, SearchError, "search to resume")
        try:
            config = SearchConfig.from_dict(header["config"])
            search = cls(task, config, seed=header["seed"], device=device, bank=bank)
            if header["bank"] != search.bank.identity:
                raise SearchError(
                    "was made on other features (task, data, splits, backbones, L, precision or "
                    f"what is left out) than those of task {task.name!r} given here"
                )
            if header["tensors"] != sorted(tensors):
                lost = sorted(set(header["tensors"]) ^ set(tensors))
                raise SearchError(f"found other tensors than were saved: {', '.join(lost[:5])}")
            search._restore(tensors)
            search.step, search.best_score = header["step"], header["best_score"]
            search.choice.steps = header["choice_steps"]
            search._set_temperature()
            if search.step:
                done = min(search.step, search.updates)
                search._set_rate(*divmod(done - 1, search.steps_per_epoch))
            if header["best_genotype"]:
                search.best_genotype = Genotype.from_json(header["best_genotype"])
        except DeviceError:
            raise
        except KeyError as error:
            raise SearchError(f"{path}: found no {error}; allowed: a whole search") from None
        except (ValueError, RuntimeError) as error:
            raise SearchError(f"{path}: {error}") from None
        return search

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "weight_optimizer": self.weight_optimizer,
            "architecture_optimizer": self.architecture_optimizer,
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        own = {k.removeprefix("hypernet."): v for k, v in tensors.items() if k[:9] == "hypernet."}
        self.hypernet.load_state_dict(own)
        for name, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                if key.startswith(f"{name}."):
                    _, i, field = key.split(".")
                    state.setdefault(int(i), {})[field] = tensor
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )
