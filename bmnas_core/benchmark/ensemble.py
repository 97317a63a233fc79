"""Many fusion networks trained at once, as one batched program (``torch.func``'s model ensembling).

Networks of one shape differ only in which features they read. Their weights are stacked, and one
pass computes all of them.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..features import FeatureBank
from ..genotype import CellGenotype, Genotype
from ..metrics import metric_of
from ..networks import FusionNetwork
from ..runtime import resolve_device, seeded
from ..tasks.task import Task, as_task
from ..train import TrainConfig, TrainError, fit_by_epoch, fusion_network


def shape_of(genotype: Genotype) -> Genotype:
    """The genotype with its features named by their order, which networks of one shape share."""
    slots = {name: f"slot {k}" for k, name in enumerate(genotype.used_features)}
    pairs = (tuple(slots.get(name, name) for name in cell.inputs) for cell in genotype.cells)
    cells = tuple(map(CellGenotype, pairs, (cell.steps for cell in genotype.cells)))
    return Genotype(tuple(slots.values()), cells)


class ModelEnsemble(nn.Module):
    """K networks of one shape as one: pooled features → logits (K, N, classes).

    A feature of fewer channels than the widest is padded with zeros, and so are the weights that
    read it, which therefore stay 0.

    Args:
        nets: the networks. Their weights are copied; :meth:`networks` copies them back.
        channels: feature name → channels, of the batches that it will read.
        groups: how many groups of the same genotypes ``nets`` consists of, one after the other,
            each with its own batches. In a single group all networks share their dropout masks; in
            several each has its own.

    Raises TrainError for networks of different shapes.
    """

    def __init__(self, nets: Sequence[FusionNetwork], channels: dict[str, int], groups: int = 1):
        super().__init__()
        genotypes = [net.genotype for net in nets]
        if groups < 1 or genotypes != genotypes[: len(nets) // groups] * groups:
            raise TrainError(f"ensemble: found networks that are not {groups} groups of the same")
        shapes = set(map(shape_of, genotypes))
        if len(shapes) != 1:
            raise TrainError("ensemble", f"networks of {len(shapes)} shapes", "of one")
        self.nets = tuple(nets)  # in a tuple, so as to be no part of this module
        self.groups, self.width = groups, max(channels.values())
        padded = copy.deepcopy(self.nets)
        for layers in (net.reshape for net in padded):
            layers.channels = dict.fromkeys(layers.channels, self.width)
            for weight in (layer.conv.weight for layer in layers.layers):
                gap = self.width - weight.shape[1]
                weight.data = nn.functional.pad(weight.data, (0, 0, 0, gap))
        states = [net.state_dict() for net in padded]
        self.stacked = padded[0]
        for name, part in self.stacked.state_dict(keep_vars=True).items():
            part.data = torch.stack([state[name] for state in states])

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Features (N, C_i, L), or of each group (groups, N, C_i, L) → logits (K, N, classes)."""
        each = len(self.nets) // self.groups
        wide = {}
        for name, x in features.items():
            x = x.expand(*x.shape[:-1], self.stacked.L)  # if it has no positions
            x = nn.functional.pad(x, (0, 0, 0, self.width - x.shape[-2]))
            wide[name] = x.expand(self.groups, *x.shape[-3:])
        names = zip(*(net.genotype.used_features for net in self.nets[:each]), strict=True)
        inputs = {
            slot: torch.stack([wide[name] for name in row], dim=1).flatten(0, 1)
            for slot, row in zip(self.stacked.genotype.used_features, names, strict=True)
        }
        one = partial(functional_call, self.stacked)
        randomness = "same" if self.groups == 1 else "different"
        return vmap(one, randomness=randomness)(self.stacked.state_dict(keep_vars=True), inputs)

    def networks(self) -> tuple[FusionNetwork, ...]:
        """The networks, with their current weights."""
        stacked = self.stacked.state_dict()
        for k, net in enumerate(self.nets):
            net.to(next(self.parameters()).device)
            for name, own in net.state_dict().items():
                part = stacked[name][k]
                own.copy_(part[:, : own.shape[1]] if own.dim() > 1 else part)
        return self.nets


def build_ensemble(
    genotypes: Sequence[Genotype], task: Task, config: TrainConfig, seeds: Sequence[int] = (0,)
) -> ModelEnsemble:
    """The untrained networks of genotypes of one shape, with the initial weights of each seed.

    Raises TrainError for genotypes of different shapes or of other features than the task's; for
    ``finetune``, since networks cannot share a backbone that each of them trains; and for samples
    that lack modalities, or are to.
    """
    if as_task(task).gaps or config.modality_dropout:
        found = f"task {task.name!r}, whose samples lack modalities, or are to"
        raise TrainError("ensemble", found, "whole samples, for networks trained together")
    if config.finetune:
        raise TrainError("finetune", "True", "False, for networks trained together")
    nets = []
    for seed, genotype in product(seeds, genotypes):
        with seeded(seed, "initial weights"):
            nets.append(fusion_network(genotype, task, config))
    return ModelEnsemble(nets, task.channels, len(seeds))


def fit_ensemble(
    ensemble: ModelEnsemble,
    task: Task,
    bank: FeatureBank,
    config: TrainConfig,
    seeds: Sequence[int] = (0,),
) -> Iterator[dict]:
    """:func:`~bmnas_core.train.fit_by_epoch` for an ensemble: each network has its own loss."""
    each = vmap(vmap(metric_of(task).loss, in_dims=(0, None)))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return each(logits.unflatten(0, (ensemble.groups, -1)), labels).sum()

    return fit_by_epoch(ensemble, task, bank, config, seed=seeds, loss=loss, validate=False)


def train_together(
    genotypes: Sequence[Genotype],
    task: Task,
    config: TrainConfig | None = None,
    *,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
) -> tuple[FusionNetwork, ...]:
    """Train the fusion networks of genotypes of one shape at once, each on the batches of its seed.

    All networks of the first seed come first, then those of the next. With a single seed, each is
    the network that :func:`~bmnas_core.train.train` gives, up to rounding; with several, their
    dropout masks are others. Raises TrainError as :func:`build_ensemble`, and when a loss stops
    being finite.
    """
    config = TrainConfig.from_optional(config).with_defaults(as_task(task).config)
    bank = FeatureBank.shared(task, config.L, resolve_device(device), bank)
    ensemble = build_ensemble(genotypes, task, config, seeds)
    for _ in fit_ensemble(ensemble, task, bank, config, seeds):
        pass
    return tuple(net.eval() for net in ensemble.networks())
