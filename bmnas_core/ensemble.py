"""Many fusion networks trained at once, as one program with batched products.

Networks of the same sizes may have any genotypes: at each place, those with the same operation go
through it together. On small networks calls take longer than numbers do, so that sixteen together
take about as long as three one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import genotype as grammar
from .config import Settings
from .features import FeatureBank
from .genotype import OPERATIONS, Genotype, Pair
from .losses import metric_of
from .networks import MAX_VALUES_TOGETHER, FusionNetwork, mask_places
from .ops import Attention, BatchNorm, Projection, as_mask, on_rows, random_bytes
from .runtime import resolve_device, seeded
from .signature import Signature
from .tasks.task import Task, as_task
from .train import TrainConfig, TrainError, fit_by_epoch, fusion_network

#: If fewer networks fit, each has products so large that together they would take up to a quarter
#: longer, as on AV-MNIST under same, where five fit.
LEAST_TOGETHER = 8

#: Called with values (K, R, C), a rate, a place and the K networks: the values after dropout.
Drop = Callable[[Tensor, float, int, list[int]], Tensor]


class _Layers(nn.Module):
    """Layers of one kind and shape as one: its tensors are theirs, along one more axis in front.

    ``members`` says of which network each of them is.
    """

    def __init__(self, layers: Sequence[nn.Module], members: Sequence[int]):
        super().__init__()
        self.layers, self.members = tuple(layers), list(members)  # layers are no parts of it
        for name, _ in layers[0].named_parameters():
            setattr(self, name, nn.Parameter(self._stacked(name)))
        for name in ("running_mean", "running_var"):
            if hasattr(layers[0], name):
                self.register_buffer(name, self._stacked(name))

    def _stacked(self, name: str) -> Tensor:
        return torch.stack([self.turned(getattr(own, name).detach()) for own in self.layers])

    @staticmethod
    def turned(tensor: Tensor) -> Tensor:
        """A layer's tensor as it is kept here, and one that is kept here as the layer has it."""
        return tensor

    def write_back(self) -> None:
        """Give each layer its tensors."""
        for name, tensor in self.named_parameters(recurse=False):
            self._write_back(name, tensor)
        for name, tensor in self.named_buffers(recurse=False):
            self._write_back(name, tensor)

    def _write_back(self, name: str, tensor: Tensor) -> None:
        for layer, own in zip(self.layers, tensor.detach(), strict=True):
            getattr(layer, name).data.copy_(self.turned(own))

    def keep(self, members: dict[int, int], optimizer: Optimizer) -> None:
        """Keep the layers of some networks, which get new numbers, and their optimiser's state."""
        rows = [row for row, k in enumerate(self.members) if k in members]
        self.layers = tuple(self.layers[row] for row in rows)
        self.members = [members[self.members[row]] for row in rows]
        for name, buffer in list(self.named_buffers(recurse=False)):
            self.register_buffer(name, buffer[rows])
        for name, before in list(self.named_parameters(recurse=False)):
            setattr(self, name, nn.Parameter(before.detach()[rows]))
            state = optimizer.state.pop(before, {})
            moments = {key: value[rows] for key, value in state.items() if value.dim()}
            optimizer.state[getattr(self, name)] = state | moments


class _InputConvolutions(_Layers):
    """1×1 convolutions of the same rows: ``(R, C_in)`` → ``(R, K·C)``."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(0, 1).squeeze(2)
        return nn.functional.linear(x, weight, self.bias.flatten())


class _Turned(_Layers):
    """Layers whose weights are kept as factors on the right, so that gradients come as they lie."""

    @staticmethod
    def turned(tensor: Tensor) -> Tensor:
        return tensor.transpose(0, 1).contiguous() if tensor.dim() > 1 else tensor


class _Convolutions(_Turned):
    """1×1 convolutions: rows ``(K, R, C_in)`` → ``(K, R, C)``. Weights are (K, C_in, C, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight.squeeze(3))


class _BatchNorms(_Layers):
    """BatchNorms over rows: ``(K, R, C)`` → ``(K, R, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        side_by_side = self.of_rows(x.transpose(0, 1).flatten(1))
        return side_by_side.view(x.shape[1], len(x), -1).transpose(0, 1)

    def of_rows(self, x: Tensor) -> Tensor:
        """``(R, K·C)`` → ``(R, K·C)``."""
        values = (getattr(self, name).flatten() for name in BatchNorm.VALUES)
        momentum, eps = self.layers[0].momentum, self.layers[0].eps
        return nn.functional.batch_norm(x, *values, self.training, momentum, eps)


class _LayerNorms(_Layers):
    """LayerNorms of samples of L rows: ``(K, R, C)`` → ``(K, R, C)``. Weights are (K, L, C)."""

    @staticmethod
    def turned(tensor: Tensor) -> Tensor:
        return tensor.mT.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        samples = x.unflatten(1, (-1, self.weight.shape[1]))  # (K, N, L, C)
        normed = nn.functional.layer_norm(samples, samples.shape[2:], eps=self.layers[0].eps)
        return torch.addcmul(self.bias[:, None], normed, self.weight[:, None]).flatten(1, 2)


class _Linears(_Turned):
    """Linear layers: ``(K, N, values)`` → ``(K, N, classes)``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class _Operation(nn.Module):
    """All steps with one operation at one place: rows ``x, y: (K, R, C)`` → ``(K, R, C)``."""

    def __init__(self, name: str, members: list[int], steps: list[nn.Module], L: int):
        super().__init__()
        self.members, self.L, self.kind, self.p = members, L, OPERATIONS[name], 0.0
        if issubclass(self.kind, Projection):
            self.conv = _Convolutions([step.conv for step in steps], members)
            self.bn = _BatchNorms([step.bn for step in steps], members)
        elif self.kind is Attention:
            self.ln = _LayerNorms([step.ln for step in steps], members)
        else:
            self.steps = nn.ModuleList(steps)
            return
        self.p = steps[0].dropout.p

    def forward(self, x: Tensor, y: Tensor, drop: Drop, place: int) -> Tensor:
        how = self.p, place, self.members
        if issubclass(self.kind, Projection):
            projected = self.bn(self.conv(torch.cat([x, y], dim=2)))
            return drop(self.kind.activate(*projected.split(x.shape[2], dim=2)), *how)
        samples = [rows.reshape(-1, self.L, rows.shape[2]) for rows in (x, y)]
        if self.kind is Attention:
            return self.ln(drop(Attention.attend(*samples).view(x.shape), *how))
        inputs = zip(self.steps, *(rows.chunk(len(self.steps)) for rows in samples), strict=True)
        return torch.stack([on_rows(*one).flatten(0, 1) for one in inputs])

    def keep(self, members: dict[int, int]) -> None:
        """As :meth:`_Layers.keep`."""
        rows = [row for row, k in enumerate(self.members) if k in members]
        if hasattr(self, "steps"):
            self.steps = nn.ModuleList(self.steps[row] for row in rows)
        self.members = [members[self.members[row]] for row in rows]


class _Cells(nn.Module):
    """Cell i of all networks: rows of every x, then of every y, ``(2K, R, C)`` → ``(K, R, C)``."""

    def __init__(self, nets: Sequence[FusionNetwork], i: int):
        super().__init__()
        everyone, cells = list(range(len(nets))), [net.cells[i] for net in nets]
        self.M = len(cells[0].steps)
        # Places of masks; a Cell may have fewer steps than others.
        first = 2 * len(nets[0].cells) + i * (nets[0].steps + 1)
        self.places, self.place = range(first, first + self.M), first + nets[0].steps
        self.steps = nn.ModuleList()
        for j in range(self.M):
            alike = defaultdict(list)
            for k, net in enumerate(nets):
                alike[net.genotype.cells[i].steps[j].op].append(k)
            self.steps.append(
                nn.ModuleList(
                    _Operation(op, own, [cells[k].steps[j] for k in own], nets[0].L)
                    for op, own in alike.items()
                )
            )
        reductions = [cell.output.reduce for cell in cells]
        if self.M > 1:
            self.conv = _Convolutions([layer.conv for layer in reductions], everyone)
            self.bn = _BatchNorms([layer.bn for layer in reductions], everyone)
            self.p = reductions[0].dropout.p
        self.ln = _LayerNorms([cell.output.ln for cell in cells], everyone)

    def forward(self, inputs: Tensor, drop: Drop) -> Tensor:
        nodes, K = inputs, len(inputs) // 2
        for j, operations in enumerate(self.steps):
            sizes = [len(operation.members) for operation in operations]
            both = nodes.index_select(0, getattr(self, f"inputs_{j}")).split(2 * sizes)
            pairs = zip(operations, both, both[len(sizes) :], strict=False)
            outputs = [operation(x, y, drop, self.places[j]) for operation, x, y in pairs]
            nodes = torch.cat([nodes, *outputs])
        out = nodes.index_select(0, self.outputs)  # step by step of all networks
        if self.M > 1:
            concatenated = out.unflatten(0, (self.M, -1)).permute(1, 2, 0, 3).flatten(2)
            reduced = self.bn(self.conv(concatenated)).relu()
            out = drop(reduced, self.p, self.place, self.ln.members)
        return self.ln(out + inputs[:K])

    def arrange(self, genotypes: Sequence[Genotype], i: int) -> None:
        """Find where each network's steps take their inputs from."""
        K = len(genotypes)
        rows = [{"X": k, "Y": K + k} for k in range(K)]
        for j, operations in enumerate(self.steps):
            order = [k for operation in operations for k in operation.members]
            pairs = [genotypes[k].cells[i].steps[j].inputs for k in order]
            _index(self, f"inputs_{j}", order, pairs, rows)
            for row, k in enumerate(order, (j + 2) * K):
                rows[k][grammar.step_name(j)] = row
        outputs = [rows[k][grammar.step_name(j)] for j in range(self.M) for k in range(K)]
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)


def _index(
    module: nn.Module, name: str, nets: Sequence[int], pairs: Sequence[Pair], rows: list[dict]
) -> None:
    """Where inputs of networks are among all nodes: first of each pair, then the other ones."""
    found = [rows[k][pair[side]] for side in (0, 1) for k, pair in zip(nets, pairs, strict=True)]
    module.register_buffer(name, torch.tensor(found), persistent=False)


class FusionEnsemble(nn.Module):
    """K fusion networks as one: pooled features → logits (K, N, classes).

    Args:
        nets: networks of the same C, L, dropout, classes, Cells and steps, without gaps. Their
            weights are copied; :meth:`networks` copies them back.
        groups: how many groups of equal size ``nets`` consists of, one after the other, each with
            its own batches.

    In training, networks of a group share their dropout masks: a place has one, as it has in each
    network alone. Raises TrainError for networks that differ in what they must share.
    """

    def __init__(self, nets: Sequence[FusionNetwork], groups: int = 1):
        super().__init__()
        sizes = {_sizes(net) for net in nets}
        if len(sizes) != 1 or any(net.gaps for net in nets):
            found = f"networks of {len(sizes)} sizes" if len(sizes) != 1 else "networks with gaps"
            raise TrainError("ensemble", found, "of one: C, L, dropout, classes, Cells, steps")
        if groups < 1 or len(nets) % groups:
            raise TrainError("ensemble", f"{len(nets)} networks", f"{groups} groups of equal size")
        self.nets, self.groups, self.L = tuple(nets), groups, nets[0].L  # nets are no parts of it
        self.p = nets[0].dropout
        inputs = defaultdict(list)
        for k, net in enumerate(nets):
            layers = zip(net.reshape.channels, net.reshape.layers, strict=True)
            for name, layer in layers:
                inputs[self._group(k), name].append((k, layer))
        self.reads = list(inputs)
        self.convs = nn.ModuleList(
            _InputConvolutions([layer.conv for _, layer in own], [k for k, _ in own])
            for own in inputs.values()
        )
        every = [pair for own in inputs.values() for pair in own]
        self.bn = _BatchNorms([layer.bn for _, layer in every], [k for k, _ in every])
        self.cells = nn.ModuleList(_Cells(nets, i) for i in range(len(nets[0].cells)))
        everyone, classifiers = list(range(len(nets))), [net.classifier for net in nets]
        self.ln = _LayerNorms([own.ln for own in classifiers], everyone)
        self.linear = _Linears([own.linear for own in classifiers], everyone)
        self._arrange()

    @property
    def eval_batch_size(self) -> int:
        """Samples to be evaluated at once, so that it takes about the memory of one network."""
        return max(64, FeatureBank.eval_batch_size // len(self.nets))

    def _group(self, k: int) -> int:
        return k * self.groups // len(self.nets)

    def _arrange(self) -> None:
        """Find where each network's Cells take their inputs from."""
        self.genotypes, K = tuple(net.genotype for net in self.nets), len(self.nets)
        names = [
            name for (_, name), own in zip(self.reads, self.convs, strict=True) for _ in own.members
        ]
        rows, places = [{} for _ in range(K)], []
        for row, (k, name) in enumerate(zip(self.bn.members, names, strict=True)):
            rows[k][name] = row
            places.append(self.genotypes[k].used_features.index(name))
        self.places = places
        for i, cell in enumerate(self.cells):
            pairs = [genotype.cells[i].inputs for genotype in self.genotypes]
            _index(cell, "inputs", range(K), pairs, rows)
            cell.arrange(self.genotypes, i)
            for k in range(K):
                rows[k][grammar.cell_name(i)] = len(places) + i * K + k
        self.to(self.linear.weight.device)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Features (N, C_i, L), or of each group (groups, N, C_i, L) → logits (K, N, classes)."""
        convolved = []
        for (group, name), layers in zip(self.reads, self.convs, strict=True):
            x = features[name] if features[name].dim() == 3 else features[name][group]
            convolved.append(layers(x.mT.expand(-1, self.L, -1).flatten(0, 1)))
        normed = self.bn.of_rows(torch.cat(convolved, dim=1)).relu_()
        nodes = normed.view(len(normed), len(self.bn.members), -1).transpose(0, 1)
        drop = self._dropout(nodes)
        nodes = drop(nodes, self.p, self.places, self.bn.members)
        outputs = []
        for cell in self.cells:
            outputs.append(cell(nodes.index_select(0, cell.inputs), drop))
            nodes = torch.cat([nodes, outputs[-1]])
        fused = self.ln(torch.cat(outputs, dim=2)).relu_()
        return self.linear(fused.unflatten(1, (-1, self.L)).mT.flatten(2))

    def _dropout(self, nodes: Tensor) -> Drop:
        """Dropout with masks that a place of a group has in common."""
        if not self.training:
            return lambda x, p, place, members: x
        if nodes.device.type != "cpu":
            return lambda x, p, place, members: nn.functional.dropout(x, p)
        values = mask_places(len(self.cells), self.nets[0].steps) * nodes[0].numel()
        numbers, masks = None, {}

        def drop(x: Tensor, p: float, place: int | list[int], members: list[int]) -> Tensor:
            nonlocal numbers
            if not p:
                return x
            if numbers is None:
                numbers = torch.stack([random_bytes(values) for _ in range(self.groups)])
                numbers = numbers.view(self.groups, -1, *nodes.shape[1:])
            if p not in masks:
                masks[p] = as_mask(numbers, p)
            if self.groups == 1:
                return x * masks[p][0, place]
            return x * masks[p][[self._group(k) for k in members], place]

        return drop

    def networks(self) -> tuple[FusionNetwork, ...]:
        """The networks, with their current weights."""
        for net in self.nets:
            net.to(self.linear.weight.device)
        for layers in self.modules():
            if isinstance(layers, _Layers):
                layers.write_back()
        return self.nets

    def keep(self, nets: Sequence[int], optimizer: Optimizer) -> None:
        """Keep some of the networks, in the order that they have, and their optimiser's state."""
        members = {k: new for new, k in enumerate(sorted(nets))}
        for layers in list(self.modules()):
            if isinstance(layers, _Layers):
                layers.keep(members, optimizer)
            elif isinstance(layers, _Operation):
                layers.keep(members)
        for cell in self.cells:
            for j, operations in enumerate(cell.steps):
                cell.steps[j] = nn.ModuleList(own for own in operations if own.members)
        left = [k for k, own in enumerate(self.convs) if own.members]
        self.convs = nn.ModuleList(self.convs[k] for k in left)
        self.reads = [self.reads[k] for k in left]
        self.nets = tuple(self.nets[k] for k in sorted(nets))
        self._arrange()
        (group,), left = optimizer.param_groups, list(self.parameters())
        group["params"] = left
        for parameter in optimizer.state.keys() - set(left):
            del optimizer.state[parameter]


def _sizes(net: FusionNetwork) -> tuple:
    steps = tuple(len(cell.steps) for cell in net.genotype.cells)
    return net.C, net.L, net.dropout, net.classes, steps


def build_ensemble(
    genotypes: Sequence[Genotype], task: Task, config: TrainConfig, seeds: Sequence[int] = (0,)
) -> FusionEnsemble:
    """The untrained networks of genotypes, with the initial weights of each seed.

    Raises TrainError as :class:`FusionEnsemble`, and for genotypes of other features than the
    task's; for ``finetune``, since networks cannot share a backbone that each of them trains; and
    for samples that lack modalities, or are to.
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
    return FusionEnsemble(nets, len(seeds))


def networks_together(config: Settings) -> int:
    """How many networks of these sizes are trained together; 1 if each is large enough alone."""
    fit = MAX_VALUES_TOGETHER // (config.batch_size * config.L * config.C)
    return fit if fit >= LEAST_TOGETHER else 1


def ensemble_loss(task: Task, groups: int = 1) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum of the networks' own losses, of logits (K, N, classes) and labels of each group."""
    loss = metric_of(task).loss

    def total(logits: Tensor, labels: Tensor) -> Tensor:
        own = labels[None] if groups == 1 else labels
        each = len(logits) // groups
        return torch.stack([loss(part, own[k // each]) for k, part in enumerate(logits)]).sum()

    return total


def fit_ensemble(
    ensemble: FusionEnsemble,
    task: Task,
    bank: FeatureBank,
    config: TrainConfig,
    seeds: Sequence[int] = (0,),
) -> Iterator[dict]:
    """:func:`~bmnas_core.train.fit_by_epoch` for an ensemble: each network has its own loss."""
    how = {"loss": ensemble_loss(task, ensemble.groups), "validate": False}
    seed = seeds[0] if len(seeds) == 1 else seeds
    return fit_by_epoch(ensemble, task, bank, config, seed=seed, **how)


def train_together(
    genotypes: Sequence[Genotype],
    task: Task,
    config: TrainConfig | None = None,
    *,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    bank: FeatureBank | None = None,
) -> tuple[FusionNetwork, ...]:
    """Train the fusion networks of genotypes at once, each on the batches of its seed.

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
    for net in ensemble.networks():
        net.signature = Signature.from_task(task)
    return tuple(net.eval() for net in ensemble.nets)
