"""Search: an iterator of bilevel updates (Yin et al. 2022, algorithm 1, first order)."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .architecture import ArchitectureWeights, SelectionError
from .autosave import Autosave, is_kept, kept, newest
from .cells import RELAXATIONS
from .config import MOST, ConfigError, SearchSettings, as_type, setting
from .errors import BmnasError, check_type, quoted
from .features import Batch, FeatureBank
from .genotype import DEFAULT_OPERATIONS, OPERATIONS, Genotype, Pair
from .losses import metric_of
from .networks import FixedInputs, Hypernet
from .optimizers import Adam
from .runtime import (
    PRECISIONS,
    RNG_LOCK,
    as_seed,
    at_least_single,
    autocast,
    epoch_batches,
    resolve_device,
    seeded,
)
from .search_files import (
    FORMAT,
    OPTIMIZERS,
    SearchError,
    SearchHeader,
    build_hypernet,
    check_described,
    check_values,
    genotype_of,
    optimizer_states,
)
from .search_state import Record, SearchState
from .selection import RUNGS, SELECTIONS, check_genotype, derive, selection_for
from .tasks.task import Task, as_task
from .tensor_files import read_tensors, tensor_hash, write_tensors
from .train import cosine_restarts, outputs_of, score


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

    ``precision="bf16"`` multiplies in bfloat16 while it trains; it evaluates in single precision.
    """

    operations: tuple[str, ...] = setting(DEFAULT_OPERATIONS, choices=OPERATIONS)
    relaxation: str = setting("pair", choices=RELAXATIONS)
    schedule: str = setting("batch", choices=("batch", "epoch"))
    sampling: str = setting("mixture", choices=("mixture", "single_path"))
    path_samples: int = setting(4, ge=2, le=MOST)
    warmup: int = setting(0, ge=0, le=MOST)
    order: str = setting("first", choices=("first", "second"))
    temperature: tuple[float, float] = setting((1.0, 1.0), gt=0.0)
    gumbel: bool = False
    partial: int = setting(1, ge=1, le=MOST)
    arch_lr: float = setting(1e-2, gt=0.0)
    arch_betas: tuple[float, float] = setting((0.5, 0.999), ge=0.0, le=0.9999)
    arch_weight_decay: float = setting(1e-3, ge=0.0)
    selection: str | None = setting(choices=SELECTIONS)
    tie_margin: float = setting(3.0, ge=0.0)
    precision: str = setting("fp32", choices=PRECISIONS)

    def __post_init__(self):
        super().__post_init__()
        rungs = RUNGS if self.rungs is None else self.rungs
        steps = pairwise([(math.inf, 0), *rungs])
        fits = all(a >= b >= 1 and e < f <= MOST for (a, e), (b, f) in steps)
        if not rungs or not fits or rungs[0][0] > MOST:
            pairs = "at least one (how many, epochs), of ever fewer candidates for ever more epochs"
            self._refuse("rungs", f"{pairs}, both from 1 to {MOST}")
        for name, usual in {"order": "first", "gumbel": False, "partial": 1}.items():
            if self.sampling == "single_path" and getattr(self, name) != usual:
                self._refuse(name, f"{usual!r} with sampling='single_path'")
        if not self.operations or len(set(self.operations)) < len(self.operations):
            self._refuse("operations", "at least one, each once")

    def _refuse(self, name: str, allowed: str) -> None:
        raise ConfigError(f"SearchConfig.{name}", quoted(getattr(self, name)), allowed)


#: Held by who waits for a step to end: a loop over a search would seize RNG_LOCK again at once.
_TURN = threading.Lock()


def _turn():
    """:data:`_TURN`; nothing inside a step, where a selection rule may search and save too.

    It would wait there for somebody who waits for that step.
    """
    return nullcontext() if RNG_LOCK._is_owned() else _TURN


def _live_part(name: str) -> property:
    """A part of a search that learns. Who reads it may change it, so a replay ends there."""

    def part(self: Search):
        self._leave_replay()
        return getattr(self._live, name)

    return property(part)


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
        autosave: a file in which the search saves itself while it runs, and from which
            :meth:`resume` goes on; the one before it is kept beside it, as ``NAME.before.SUFFIX``.
        every: seconds between two autosaves, 0 after each step; five by default, or more if saving
            would take more than a fiftieth of the time.

    Raises :class:`SearchError` for an autosave that is there already, and in a step whose loss is
    not finite; SelectionError for what a selection rule gives if it is no genotype of the space.

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
        autosave: str | os.PathLike | None = None,
        every: float | None = None,
    ):
        self.task, self.seed, self.device = as_task(task), as_seed(seed), resolve_device(device)
        config = SearchConfig.from_optional(config).with_defaults(task.search_config)
        default = SearchSettings(selection="successive_halving", tuning_epochs=0)
        self.config = config = config.with_defaults(task.config).with_defaults(default)
        self.bank = FeatureBank.shared(task, config.L, self.device, bank)
        self.metric = metric_of(task)
        with seeded(seed, "hypernet"):
            hypernet = build_hypernet(task, config).to(self.device)
        hypernet.temperature.gumbel = config.gumbel
        weight_optimizer = Adam(
            hypernet.weight_parameters(),
            config.max_lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        how = {"betas": config.arch_betas, "weight_decay": config.arch_weight_decay, "fused": True}
        self._record: Record | bool | None = None  # False: in no run's folder
        self._live = SimpleNamespace(
            hypernet=hypernet,
            architecture=hypernet.architecture_parameters(),
            weights=hypernet.weight_parameters(),
            weight_optimizer=weight_optimizer,
            scheduler=cosine_restarts(weight_optimizer, config),
            architecture_optimizer=Adam(hypernet.architecture_parameters(), config.arch_lr, **how),
        )
        self.train_batches = self._batches("train")
        alone = self._batches("validation") if config.schedule == "epoch" else 0
        self.steps_per_epoch = self.train_batches + alone
        self.updates = self.steps_per_epoch * config.epochs
        self.step, self.best_score, self.best_genotype = 0, None, None
        # Whether to read a number is to wait for a device, and the losses not read for that.
        self._waits, self._unread = self.device.type != "cpu", []
        self.selection, self._selecting = selection_for(self), self._selection_steps()
        self._autosave = None if autosave is None else self._autosave_to(autosave, every)

    hypernet = _live_part("hypernet")
    weights = _live_part("weights")
    architecture = _live_part("architecture")
    weight_optimizer = _live_part("weight_optimizer")
    architecture_optimizer = _live_part("architecture_optimizer")
    scheduler = _live_part("scheduler")

    @property
    def total_steps(self) -> int:
        return self.updates + self.selection.steps

    def __len__(self) -> int:
        """Steps that are left."""
        return max(self.total_steps - self.step, 0)

    @property
    def state(self) -> SearchState:
        """The present state: α, β, γ and no losses. The step is 0 before the first one."""
        return self._state("start")

    def _state(
        self,
        phase: str,
        train_loss: float | Callable | None = None,
        val_loss: float | Callable | None = None,
        val_score: float | None = None,
    ) -> SearchState:
        config = self.config
        replayed = self._record.replayed if self._record else None
        if replayed is None:
            rate = self.weight_optimizer.param_groups[0]["lr"]
            how = config.operations, config.relaxation
            weights = ArchitectureWeights.later(self.hypernet, *how)
        else:
            rate, weights = replayed.lr, replayed.weights
        epoch = min(-(-self.step // self.steps_per_epoch), config.epochs)
        numbers = self.step, epoch, phase, rate, train_loss, val_loss, val_score
        selected = self.best_genotype if self.step > self.updates else None
        return SearchState(*numbers, weights, config.selection, selected)

    def __next__(self) -> SearchState:
        if self.step >= self.total_steps:
            raise StopIteration
        with _turn():  # a save that waits for its own comes first
            pass
        with RNG_LOCK:
            if self._record is None:
                self._begin_record()
            if self._record and self._record.replaying:
                return self._replay()
            state = self._make_step()
            self._save_if_due(state)
            return state

    def _make_step(self) -> SearchState:
        return self._update_step() if self.step < self.updates else self._select()

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
        return self._state("selection", val_score=self.best_score)

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

    def _update_step(self) -> SearchState:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        learning, phase = epoch >= self.config.warmup, "both"
        if self.config.schedule == "epoch":
            phase = "weights" if position < self.train_batches else "architecture"
        elif not learning:
            phase = "weights"
        trained = (epoch + 1) * self.train_batches if phase == "architecture" else 0
        made: dict[str, float | Callable] = {}
        if not self.hypernet.training:  # it visits every module
            self.hypernet.train()
        with seeded(self.seed, "step", self.step, device=self.device):
            self._set_schedules(self.step)
            if phase != "architecture":
                made["train_loss"] = self._update("train", epoch * self.train_batches + position)
            if phase != "weights" and learning:
                made["val_loss"] = self._update("validation", self.step - trained)
        self.step += 1
        self._unread += (loss for loss in made.values() if callable(loss))
        if self.step % self.steps_per_epoch == 0:
            for read in self._unread:  # which ends the search if one is not finite
                read()
            self._unread.clear()
            mixture = self.config.sampling == "mixture"
            made["val_score"] = self.score_of(None if mixture else self.state.genotype)
        state = self._state(phase, **made)
        self._note_best(state)
        return state

    def _note_best(self, state: SearchState) -> None:
        """Take the state of an update for the best if it ends an epoch with the best score."""
        warmup, epochs = self.config.warmup, self.config.epochs
        counts = state.val_score is not None and (state.epoch > warmup or epochs <= warmup)
        if counts and (self.best_score is None or self._is_better(state.val_score)):
            self.best_score, self.best_genotype = state.val_score, state.genotype

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
        outputs, labels = self.outputs_with_inputs(pairs, rows, hypernet)
        return [float(self.metric.score(own, labels)) for own in outputs]

    def outputs_with_inputs(
        self,
        pairs: list[list[Pair]],
        rows: Tensor | None = None,
        hypernet: Hypernet | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What is scored: outputs (lists of pairs, n, classes) and labels."""
        data = self.task, self.bank, "validation", rows
        if self.config.sampling == "mixture":
            return outputs_of(FixedInputs(hypernet or self.hypernet, pairs), *data)
        derived, outputs = derive(self.state.weights, self.config.selection), []
        for inputs in pairs:
            with self.hypernet.single_path(derived.with_inputs(inputs)):
                own, labels = outputs_of(self.hypernet, *data)
            outputs.append(own)
        return torch.stack(outputs), labels

    def _set_schedules(self, step: int) -> None:
        """Learning rate and temperature of an update."""
        epoch, position = divmod(step, self.steps_per_epoch)
        self.scheduler.step(epoch + min(position, self.train_batches - 1) / self.train_batches)
        first, last = self.config.temperature
        done = step / max(self.updates - 1, 1)
        self.hypernet.temperature.value = first * (last / first) ** done

    def _update(self, split: str, k: int) -> float | Callable[[], float]:
        """One optimiser step: of the weights on training batch k, or of α, β, γ on validation.

        Returns the loss, or what reads it, if that would be to wait for a GPU.
        """
        training, paths = split == "train", self.config.sampling == "single_path"
        learning = self.weights if training else self.architecture
        optimizer = self.weight_optimizer if training else self.architecture_optimizer
        batch = self._batch(split, k)
        path = None
        if training and paths:
            with torch.no_grad():
                path = self.hypernet.sample_path()[0]
        unrolled = not training and self.config.order == "second"
        with nullcontext() if unrolled else self._learning_alone(learning):
            if unrolled:
                loss = self._unrolled_loss(batch)
            elif paths and not training:
                loss = self._loss_of_paths(batch)
            else:
                loss = self._loss(batch, path)
            value = partial(_finite, loss.detach(), f"{split} loss at step {self.step + 1}")
            if not self._waits:
                value = value()
            gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return value

    @contextmanager
    def _learning_alone(self, learning: list[nn.Parameter]):
        """No gradients but of these parameters: none has to be prepared for the others."""
        others = self.weights if learning is self.architecture else self.architecture
        others = [parameter for parameter in others if parameter.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

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
        precision = autocast(self.config.precision, self.device)
        with self.hypernet.single_path(path), precision:
            outputs = self.hypernet(inputs)
        return self.metric.loss(at_least_single(outputs), labels)

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
        with autocast(self.config.precision, self.device):
            outputs = functional_call(self.hypernet, unrolled, (inputs,))
        return self.metric.loss(at_least_single(outputs), labels)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything needed to go on, as safetensors with a JSON header.

        A step that another thread is making is waited for. Raises FileError for a path that cannot
        be written.
        """
        with _turn():
            saved = self._saved()
        write_tensors(path, *saved)

    def _saved(self, states: dict | None = None) -> tuple[dict[str, Tensor], dict]:
        """Tensors, as they are between two steps, and header of a file."""
        with RNG_LOCK:
            tensors = {f"hypernet.{k}": v for k, v in self.hypernet.state_dict().items()}
            for name in OPTIMIZERS:
                for i, state in getattr(self, name).state_dict()["state"].items():
                    tensors |= {f"{name}.{i}.{k}": v for k, v in state.items()}
            genotype, score = self.best_genotype, self.best_score
            header = SearchHeader(
                config=self.config.to_dict(),
                seed=self.seed,
                step=self.step,
                selection_steps=self.selection.steps,
                best_score=None if score is None or math.isnan(score) else score,
                best_genotype=genotype and json.loads(genotype.to_json()),
                features=self.task.features,
                bank=self.bank.content_hash,
                scoring=self.task.scoring,
                states=states,
                autosave=self._autosave is not None,
                every=self._autosave and self._autosave.every,
            )
            copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return copies, header.to_dict()

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

        A search that saved itself to ``path`` goes on doing so. If its newest file is damaged, the
        one before it is taken, with an :class:`~bmnas_core.autosave.AutosaveWarning`.

        Raises SearchError for a file that is no search, or of which a tensor, a setting or a number
        does not fit the others, and for features other than it was made with.
        """
        device = resolve_device(device)

        (header, config), tensors = newest(path, partial(_read, as_task(task)))
        search = cls(task, config, seed=header.seed, device=device, bank=bank)
        try:
            search._restore(header, tensors)
        except BmnasError as error:
            raise SearchError(f"{path}: {error}") from None
        if header.autosave:
            search._autosave = Autosave(path, header.every)
            search._autosave.continue_from(header.seconds)
        return search

    def _restore(self, header: SearchHeader, tensors: dict[str, Tensor]) -> None:
        """Take over what a file says. Raises SearchError unless it is of this task and config."""
        task, most = self.task, self.selection.steps
        if header.bank != self.bank.content_hash:
            raise SearchError(
                "was made on other features (task, data, splits, backbones, L, precision or what "
                f"is left out) than those of task {task.name!r} given here"
            )
        if header.scoring != task.scoring:
            allowed = f"as the search had: {quoted(header.scoring)}"
            raise SearchError(f"scoring of task {task.name!r}", quoted(task.scoring), allowed)
        if header.selection_steps > most:
            raise SearchError("selection_steps", header.selection_steps, f"at most {most}")
        if header.step > self.updates + header.selection_steps:
            allowed = f"at most {self.updates + header.selection_steps}"
            raise SearchError("step", header.step, allowed)
        genotype = genotype_of(header, task, self.config.N)
        live = self._live
        weights = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("hypernet.")}
        live.hypernet.load_state_dict(weights)
        for name, state in optimizer_states(tensors):
            optimizer = getattr(live, name)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        self.step, self.selection.steps = header.step, header.selection_steps
        self.best_genotype, self.best_score = genotype, header.best_score
        if genotype is not None and header.best_score is None:
            self.best_score = math.nan
        if self.step:
            self._set_schedules(min(self.step, self.updates) - 1)

    # --- autosaves, and the replay of a search that a killed run had begun

    def _autosave_to(self, path: str | os.PathLike, every: float | None) -> Autosave:
        every = as_type(every, float | None, "every", SearchError)
        if every is not None and every < 0:
            raise SearchError("every", every, "seconds, at least 0")
        autosave = Autosave(path, every)
        for one in (autosave.path, autosave.before):
            if one.exists() and not is_kept():
                allowed = "Search.resume(path, task) to go on with it, or another path"
                raise SearchError("autosave", f"{one}, which is there already", allowed)
        return autosave

    def _begin_record(self) -> None:
        """At the first step: find what a killed run kept of this very search, to be replayed."""
        self._record = False
        if not is_kept():
            return
        tensors, header = self._saved()
        made_from = {name: tensor_hash(tensor) for name, tensor in tensors.items()}
        autosave = kept("search", header, made_from, self.device.type)
        begin = self.step, self.best_score, self.best_genotype
        self._record = Record(autosave, self.state, begin)
        self._record.read(partial(_read, self.task))

    def _replay(self) -> SearchState:
        """The next state of a search that a killed run had begun, without its work."""
        record = self._record
        state = record.next()
        self.step = state.step
        if state.phase == "selection":
            self.best_genotype, self.best_score = state.selected, state.val_score
        else:
            self._note_best(state)
        if not record.replaying:
            self._restore(*record.end())
        return state

    def _leave_replay(self) -> None:
        """Make the steps that were only replayed, since somebody wants to see the hypernet."""
        record = self._record
        if not (record and record.replaying):
            return
        with RNG_LOCK, torch.inference_mode(False), torch.enable_grad():
            self.step, self.best_score, self.best_genotype = record.begin
            for _ in range(record.leave()):
                record.append(self._make_step())

    def _save_if_due(self, state: SearchState) -> None:
        finished = self.step >= self.total_steps
        if self._autosave and (finished or self._autosave.due()):
            self._autosave.save(self._saved)
        if self._record:
            self._record.append(state)
            self._record.save(self._saved, finished)


def _finite(loss: Tensor, place: str) -> float:
    """A loss as a number. Raises SearchError unless it is finite."""
    value = float(loss)
    if not math.isfinite(value):
        raise SearchError(f"{place}: found {value}; not finite")
    return value


def _read(task: Task, path: Path) -> tuple[tuple[SearchHeader, SearchConfig], dict[str, Tensor]]:
    """What a saved search says of itself, and its tensors; SearchError unless both fit the task."""

    def check(header: dict, described: dict[str, Tensor]) -> tuple[SearchHeader, SearchConfig]:
        known = SearchHeader.from_dict(header)
        config = SearchConfig.from_dict(known.config)
        check_described(known, config, task, described)
        return known, config

    found, tensors = read_tensors(path, FORMAT, SearchError, "search to resume", check)
    try:
        check_values(found[0], tensors)
    except SearchError as error:
        raise SearchError(f"{path}: {error}") from None
    return found, tensors
