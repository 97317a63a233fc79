"""Train and evaluate networks on a task: fusion networks, backbones and baselines alike."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from .backbones.backbone import TRAINED_HERE
from .backbones.item_training import train_on_items
from .config import Settings, setting
from .data_parallel import Processes, processes
from .errors import BmnasError, check_type
from .features import FeatureBank, RawInputs, Source, extract
from .genotype import Genotype
from .kept_training import KeptTraining
from .losses import metric_of
from .networks import FusionNetwork, count_parameters
from .optimizers import Adam
from .progress import progress_bar
from .runtime import (
    PRECISIONS,
    RNG_LOCK,
    at_least_single,
    autocast,
    epoch_batches,
    resolve_device,
    seeded,
)
from .signature import Signature
from .tasks.inputs import DataError
from .tasks.task import Modality, Task, TaskError, as_task


class TrainError(BmnasError):
    """Training that cannot start, or whose loss stopped being finite."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How a fusion network is trained. Fields that are None default to the task's.

    ``data`` is what it learns from: train and validation together as in the paper, or train
    alone. ``finetune`` trains the backbones too, at the rate ``backbone_lr``. If a batch is too
    large for memory, ``micro_batch`` samples at a time go through the network, and their gradients
    are added up for one step; BatchNorm sees one micro-batch at a time. Processes that accelerate
    starts share the micro-batches of backbones and of ``finetune``.

    ``modality_dropout`` is the probability with which a sample's modality is hidden in training, so
    that the network bears samples that lack it (Neverova et al. 2016); one always stays.

    ``precision="bf16"`` multiplies in bfloat16 while it trains; it evaluates in single precision.
    """

    data: str = setting("train+validation", choices=("train+validation", "train"))
    finetune: bool = False
    backbone_lr: float = setting(1e-4, gt=0.0)
    micro_batch: int | None = setting(ge=2)
    modality_dropout: float = setting(0.0, ge=0.0, le=0.95)
    precision: str = setting("fp32", choices=PRECISIONS)


class EndToEnd(nn.Module):
    """Backbones and fusion network as one: raw inputs by modality name → logits.

    The backbones learn in evaluation mode: their BatchNorms keep their statistics, since batches
    that fit in memory are too small for better ones, and without dropout the fusion network learns
    from features like those that it is tested on. ``reads_inputs`` names the modalities whose raw
    inputs it reads; a network without this attribute reads features.
    """

    def __init__(self, task: Task, fusion: FusionNetwork, L: int):
        super().__init__()
        self.modalities, self.L, self.fusion = task.modalities, L, fusion
        self.reads_inputs = tuple(modality.name for modality in task.modalities)
        self.backbones = nn.ModuleList(copy.deepcopy(m.backbone) for m in task.modalities)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        features = {}
        for modality, backbone in zip(self.modalities, self.backbones, strict=True):
            features |= extract(modality, backbone, inputs[modality.name], self.L)
        return self.fusion(features)

    def train(self, mode: bool = True):
        super().train(mode)
        self.backbones.eval()
        return self

    def parameter_groups(self, config: TrainConfig) -> list[dict]:
        """What an optimiser trains, the backbones at a rate of their own."""
        own = {"params": self.backbones.parameters(), "lr": config.backbone_lr}
        return [{"params": self.fusion.parameters()}, own]


class Unimodal(nn.Module):
    """A modality's backbone under its own classifier: raw inputs by modality name → logits."""

    def __init__(self, modality: Modality):
        super().__init__()
        self.reads_inputs, self.backbone = (modality.name,), modality.backbone

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.backbone.classify(self.backbone(inputs[self.reads_inputs[0]]))


def train_backbone(
    task: Task,
    modality: str,
    config: TrainConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Train the backbone of one modality alone, in place, before it is frozen.

    A backbone with a ``classify`` method learns the task's labels, starting from the weights it has
    (:func:`~bmnas_core.backbones.paper.checkpoints.load_checkpoint` reads published ones); inputs
    from files are augmented. Any other learns each item's own class from scratch, see
    :func:`~bmnas_core.backbones.item_training.train_on_items`. Both learn from the training split
    alone: a search reads validation, and features that memorise its samples would mislead it.

    Fields of ``config`` that are None default to the task's for this backbone, then to the task's.
    ``on_epoch`` is called with each epoch's record as it ends.

    Returns:
        The backbone under its classifier, in evaluation mode, and one record an epoch, as of
        :func:`train`. One that learned labels can be given to :func:`evaluate`. One that learned
        items maps inputs to logits (N, item classes); its validation score is their accuracy.

    Raises TaskError for a modality that does not exist, TrainError for a backbone without
    ``classify`` whose items have no classes, and BmnasError when the loss stops being finite.
    """
    found = as_task(task).modality(modality)
    own = task.backbone_config.get(modality, Settings())
    config = TrainConfig.from_optional(config).with_defaults(own).with_defaults(task.config)
    how = {"seed": seed, "progress": progress, "on_epoch": on_epoch}
    if hasattr(found.backbone, "classify"):
        config = replace(config, data="train", finetune=False)
        net, source = Unimodal(found), RawInputs(task, device=device, modalities=(modality,))
        history = fit(net, task, source, config, name=modality, **how)
    elif found.classes is not None:
        net, history = train_on_items(task, found, config, device=resolve_device(device), **how)
    else:
        kind = type(found.backbone).__name__
        allowed = "one with classify(), or classes of the items"
        raise TrainError(f"backbone of {modality!r}", kind, allowed)
    found.backbone._origin = TRAINED_HERE
    return net, history


def train(
    genotype: Genotype,
    task: Task,
    config: TrainConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
    validate: bool = True,
    start: FusionNetwork | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Build the fusion network of a genotype and train it from scratch.

    Args:
        on_epoch: called with each epoch's record as it ends; what it raises ends the training.
        validate: score the network on validation after each epoch, unless it is trained on.
        start: a trained network of the genotype; training goes on from a copy of it.

    Returns:
        The trained network (an :class:`EndToEnd` one with ``config.finetune``) and one record an
        epoch: ``epoch``, ``lr``, ``train_loss``, ``validation_score`` or None, ``seconds``.

    Raises TrainError if the genotype has other features than the task, or ``start`` does not fit.
    """
    config = TrainConfig.from_optional(config).with_defaults(as_task(task).config)
    device = resolve_device(device)
    with seeded(seed, "initial weights"):
        net = fusion_network(genotype, task, config)
    if start is not None:
        alike = isinstance(start, FusionNetwork) and start.genotype == genotype
        both = zip(start.parameters(), net.parameters(), strict=True) if alike else ()
        if not alike or any(a.shape != b.shape for a, b in both):
            allowed = "a FusionNetwork of the same genotype, C, L and task"
            raise TrainError("start", type(start).__name__, allowed)
        net = copy.deepcopy(start)
    net.signature = Signature.from_task(task)
    if config.finetune and not any(list(m.backbone.parameters()) for m in task.modalities):
        found = f"True for task {task.name!r}, whose features have no backbones"
        raise TrainError("finetune", found, "False")
    if config.finetune and (task.gaps or config.modality_dropout):
        found = f"True for task {task.name!r}, whose samples lack modalities, or are to"
        raise TrainError("finetune", found, "False")
    if config.finetune:
        net, source = EndToEnd(task, net, config.L), RawInputs(task, device=device)
    else:
        source = FeatureBank.shared(task, config.L, device, bank)
    how = {"progress": progress, "on_epoch": on_epoch, "validate": validate}
    return net, fit(net, task, source, config, seed=seed, **how)


def network_cost(
    genotype: Genotype, task: Task, config: TrainConfig | None = None
) -> tuple[int, int]:
    """Parameters of a genotype's fusion network, and its FLOPs on one sample.

    FLOPs are the multiplications and additions of its convolutions, matrix products and
    classifier; elementwise work (Sum, norms, activations) is not counted. Raises as :func:`train`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    config = TrainConfig.from_optional(config).with_defaults(as_task(task).config)

    def cost() -> tuple[int, int]:
        net = fusion_network(genotype, task, config).eval()
        features = {name: torch.zeros(1, c, config.L) for name, c in net.reshape.channels.items()}
        # Its hooks are those of every module: a step in another thread would run into them.
        with RNG_LOCK, torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(features)
        return count_parameters(net), counter.get_total_flops()

    try:
        with torch.device("meta"):  # shapes without numbers
            return cost()
    except Exception:  # an operation that reads its numbers; a real error is raised again below
        with seeded(0, "cost"):
            return cost()


def fusion_network(genotype: Genotype, task: Task, config: TrainConfig) -> FusionNetwork:
    """The untrained network of a genotype at a config's sizes. Raises as :func:`train`."""
    check_type(genotype, Genotype, "genotype", TrainError)
    if genotype.features != task.features:
        found, wanted = ", ".join(genotype.features), ", ".join(task.features)
        raise TrainError("genotype", f"features {found}", f"those of task {task.name!r}: {wanted}")
    sizes = {"C": config.C, "L": config.L, "dropout": config.dropout}
    gaps = task.gaps or getattr(config, "modality_dropout", 0.0) > 0
    return FusionNetwork(genotype, task.channels, task.classes, gaps=gaps, **sizes)


def fit(
    net: nn.Module,
    task: Task,
    source: Source,
    config: TrainConfig,
    *,
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[dict], None] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    validate: bool = True,
    name: str = "training",
) -> list[dict]:
    """Train any network that maps a batch of ``source`` to logits; a record an epoch.

    ``loss``, the metric's by default, takes the network's output and the labels; the progress bar
    says ``name``; the rest as in :func:`train`. In a run that goes on, ``on_epoch`` is called for
    the epochs that were made before too, when the network is as after the last of them. Raises
    TrainError when the loss is not finite.
    """
    made_from = name, seed, config, task.scoring, validate, getattr(loss, "__qualname__", loss)
    kept = KeptTraining("training", net, source, *made_from)
    how = {"seed": seed, "loss": loss, "validate": validate, "kept": kept}
    records, history = fit_by_epoch(net, task, source, config, **how), []
    for record in progress_bar(records, name, config.epochs, show=progress):
        history.append(record)
        if on_epoch:
            on_epoch(record)
    net.eval()
    return history


def fit_by_epoch(
    net: nn.Module,
    task: Task,
    source: Source,
    config: TrainConfig,
    *,
    seed: int | Sequence[int] = 0,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    validate: bool = True,
    kept: KeptTraining | None = None,
    optimizer: Optimizer | None = None,
    done: int = 0,
) -> Iterator[dict]:
    """:func:`fit` one epoch at a time, for callers that decide after each whether to go on.

    With several seeds the batches of all come together, along one more dimension in front. What
    ``kept`` has of the training is not done again: the records of its epochs come first, when the
    network is as after the last of them. An ``optimizer`` that made the first ``done`` epochs goes
    on with those that follow.
    """
    alone = not isinstance(seed, Sequence)
    seeds = (seed,) if alone else tuple(seed)
    check_type(config, TrainConfig, "config", TrainError)
    n, loss = source.size(config.data), loss or metric_of(task).loss
    check_type(net, nn.Module, "net", TrainError, "a network").to(source.device)
    team = processes(source.device) if isinstance(source, RawInputs) else Processes()
    team.align(net)
    optimizer = optimizer or adam(net, config)
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    scheduler = cosine_restarts(optimizer, config)
    records = kept.begin(optimizer) if kept else []
    yield from records
    for epoch in range(done + len(records), config.epochs):
        start, losses = time.perf_counter(), []
        orders = [epoch_batches(n, config.batch_size, s, "training", epoch) for s in seeds]
        batches = orders[0] if alone else [torch.stack(rows) for rows in zip(*orders, strict=True)]
        net.train()
        parts = [_micro_batches(rows, config.micro_batch, team.count) for rows in batches]
        parts = [team.share(rows) for rows in parts]
        augmentation = (seeds[0], "augmentation", epoch)
        read = source.batches(config.data, [p for rows in parts for p in rows], augmentation)
        noise = "training noise", epoch, *([team.index] if team.index else [])
        with seeded(seeds[0], *noise, device=source.device):
            for b, rows in enumerate(parts):
                scheduler.step(epoch + b / len(batches))
                optimizer.zero_grad(set_to_none=True)
                of_batch = []
                for part in rows:
                    inputs, labels = next(read)
                    if len(labels) < min(2, len(part)):  # too few of its files can be read
                        continue
                    if config.modality_dropout:
                        inputs = drop_modalities(inputs, task, config.modality_dropout)
                    if source.gaps or config.modality_dropout:
                        inputs = without_gaps(inputs, net, source)
                    with autocast(config.precision, source.device):
                        outputs = net(inputs)
                    value = loss(at_least_single(outputs), labels)
                    value = value * (part.shape[-1] / batches[b].shape[-1])
                    value.backward()
                    of_batch.append(value.detach())
                team.sum_gradients(learning)
                optimizer.step()
                if of_batch or team.count > 1:
                    losses.append(torch.stack(of_batch).sum() if of_batch else torch.zeros(()))
        next(read, None)  # lets it warn of what it left out
        team.align(net)
        if not losses:
            raise TrainError(f"training in epoch {epoch + 1}: none of {n:,} samples can be read")
        mean = float(team.total(torch.stack(losses).mean()))
        if not math.isfinite(mean):
            raise TrainError(f"training loss in epoch {epoch + 1}", mean, "finite")
        unseen = validate and config.data == "train"
        record = {
            "epoch": epoch + 1,
            "lr": scheduler.get_last_lr()[0],
            "train_loss": mean,
            "validation_score": score(net, task, source, "validation") if unseen else None,
            "seconds": time.perf_counter() - start,
        }
        if kept:
            kept.add(record, finished=epoch + 1 == config.epochs)
        yield record


def evaluate(
    net: nn.Module, task: Task, split: str = "test", *, bank: FeatureBank | None = None
) -> float:
    """Score of a trained network on a split, in the task's metric.

    Read ``"test"`` once, for the number you report; choose by ``"validation"``.
    """
    as_task(task)
    check_type(net, nn.Module, "net", TrainError, "a network, as train gives")
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    if modalities := getattr(net, "reads_inputs", None):
        return score(net, task, RawInputs(task, device=device, modalities=modalities), split)
    bank = FeatureBank.shared(task, getattr(net, "L", None), device, bank)
    return score(net, task, bank, split)


def score(
    net: nn.Module, task: Task, source: Source, split: str, rows: Tensor | None = None
) -> float:
    """Score of a network on a split of a source, or on rows of it, in evaluation mode."""
    logits, labels = outputs_of(net, task, source, split, rows)
    return float(metric_of(task).score(logits, labels))


def scores(
    net: nn.Module, task: Task, source: Source, split: str, rows: Tensor | None = None
) -> list[float]:
    """The same of each network of an ensemble, which gives logits (K, n, classes)."""
    logits, labels = outputs_of(net, task, source, split, rows)
    metric = metric_of(task)
    return [float(metric.score(part, labels)) for part in logits]


def outputs_of(
    net: nn.Module, task: Task, source: Source, split: str, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and labels of (rows of) a split: (n, classes), or (K, n, classes) of K networks.

    On the CPU, in evaluation mode. Raises TaskError for a split that does not exist or has no
    samples, and TrainError for a network whose outputs are not of the task's kind.
    """
    rows = torch.arange(source.size(split)) if rows is None else rows
    if not len(rows):
        raise TaskError(f"split {split!r}", "no samples", "at least one")
    training = net.training
    net.eval()
    with torch.no_grad():
        size = min(source.eval_batch_size, getattr(net, "eval_batch_size", math.inf))
        batches = source.batches(split, rows.split(size))
        if source.gaps:
            batches = ((without_gaps(inputs, net, source), labels) for inputs, labels in batches)
        parts = [(net(inputs), labels) for inputs, labels in batches if len(labels)]
    net.train(training)
    if not parts:
        raise DataError(f"split {split!r}: none of its samples can be read")
    logits, labels = zip(*parts, strict=True)
    return _outputs_for(task, net, torch.cat(logits, dim=-2)).cpu(), torch.cat(labels).cpu()


def _outputs_for(task: Task, net: nn.Module, outputs: Tensor) -> Tensor:
    """Outputs of a network as those of the task's networks. Raises TrainError if they cannot be.

    One that learned values from other samples has standardised them in another way.
    """
    signature = getattr(getattr(net, "fusion", net), "signature", None)
    kind = signature.labels if signature else task.label_kind
    if outputs.shape[-1] != task.classes or kind != task.label_kind:
        found = f"{outputs.shape[-1]} outputs for {kind!r}"
        allowed = f"{task.classes} for {task.label_kind!r}, as of task {task.name!r}"
        raise TrainError("net", found, allowed)
    learned = signature and signature.targets
    if learned in (None, task.targets):
        return outputs
    return task.targets.standardised(learned.in_units(outputs))


def without_gaps(
    features: dict[str, Tensor], net: nn.Module | None, source: Source
) -> dict[str, Tensor]:
    """Features as a network reads them: NaN of a gap if it knows gaps, else the mean of train."""
    if getattr(net, "gaps", False) or not isinstance(source, FeatureBank):
        return features
    return {
        name: torch.where(values.isnan(), source.means[name], values)
        for name, values in features.items()
    }


def drop_modalities(features: dict[str, Tensor], task: Task, p: float) -> dict[str, Tensor]:
    """Features (…, C_i, L_i) in which each modality of a sample is NaN with probability p.

    Of those that a sample has, one at random stays if all would go.
    """
    names = [list(modality.channels) for modality in task.modalities]
    there = torch.stack([~features[own[0]][..., 0, 0].isnan() for own in names])
    drawn = torch.rand(there.shape, device=there.device).masked_fill(~there, -1.0)
    kept = there & ((drawn >= p) | (drawn == drawn.amax(0)))
    hidden = {name: ~kept[m] for m, own in enumerate(names) for name in own}
    return {
        name: values.masked_fill(hidden[name][..., None, None], torch.nan)
        for name, values in features.items()
    }


def adam(net: nn.Module, config: Settings) -> Optimizer:
    """The optimiser of a network's training."""
    groups = net.parameter_groups(config) if hasattr(net, "parameter_groups") else net.parameters()
    rates = {"lr": config.max_lr, "weight_decay": config.weight_decay}
    return Adam(groups, **rates, fused=True)


def cosine_restarts(optimizer: Optimizer, config: Settings):
    """Learning rate along cosines from max to min that restart; step it with the epoch so far."""
    for group in optimizer.param_groups:  # it may be in the middle of a cosine
        group["lr"] = group.get("initial_lr", group["lr"])
    return CosineAnnealingWarmRestarts(optimizer, config.restart, T_mult=2, eta_min=config.min_lr)


def cosine_ends(config: Settings) -> tuple[int, ...]:
    """Epochs at whose end the learning rate is lowest, before it restarts; and the last one."""
    ends = (config.restart * (2**k - 1) for k in count(1))
    return (*takewhile(lambda end: end < config.epochs, ends), config.epochs)


def _micro_batches(rows: Tensor, size: int | None, processes: int = 1) -> tuple[Tensor, ...]:
    """A batch in parts of nearly equal size, at most ``size``, but never a part of one sample.

    If there are enough samples, every process gets as many parts as the others.
    """
    n = rows.shape[-1]
    parts = 1 if size is None else -(-n // size)
    parts = max(1, min(-(-parts // processes) * processes, n // 2))
    return rows.tensor_split(parts, dim=-1)
