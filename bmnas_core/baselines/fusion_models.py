"""Baselines without Cells: each modality alone, late fusion, all features, GMU, CentralNet."""

import torch
from torch import Tensor, nn

from ..metrics import metric_of
from ..networks import Reshape
from ..tasks.task import Task
from .context import BaselineContext, Entries, register_baseline


class LinearFusion(nn.Module):
    """Named features, normalised, flattened and concatenated → one linear classifier.

    With the last feature of one modality it is that modality alone; with the last features of all
    it is late fusion by concatenation. ``channels`` are those of the features that it reads.
    """

    def __init__(self, channels: dict[str, int], classes: int, L: int):
        super().__init__()
        self.names, self.L, size = tuple(channels), L, sum(channels.values())
        self.bn = nn.BatchNorm1d(size)
        self.linear = nn.Linear(size * L, classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        joined = torch.cat([features[name] for name in self.names], dim=1)
        return self.linear(self.bn(joined).flatten(1))


class LateFusion(nn.Module):
    """Two-stream late fusion: the mean of the logits of networks trained apart."""

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.L = networks[0].L

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        return torch.stack([network(features) for network in self.networks]).mean(0)


class GMU(nn.Module):
    """Gated multimodal unit (Arevalo et al. 2017): h = Σ z_m ⊙ tanh(W_m x_m), z_m from all x.

    x_m are the features of modality m, normalised and flattened; h has the size C·L of a Cell's
    output, and one linear layer reads it. ``modalities`` has for each its features' channels.
    """

    def __init__(self, modalities: list[dict[str, int]], classes: int, C: int, L: int):
        super().__init__()
        self.names, self.L = [tuple(channels) for channels in modalities], L
        sizes = [sum(channels.values()) for channels in modalities]
        self.bn = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes)
        self.hidden = nn.ModuleList(nn.Linear(size * L, C * L) for size in sizes)
        self.gates = nn.ModuleList(nn.Linear(sum(sizes) * L, C * L) for _ in sizes)
        self.linear = nn.Linear(C * L, classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        xs = [
            bn(torch.cat([features[name] for name in names], dim=1)).flatten(1)
            for bn, names in zip(self.bn, self.names, strict=True)
        ]
        joined = torch.cat(xs, dim=1)
        parts = zip(self.gates, self.hidden, xs, strict=True)
        return self.linear(sum(z(joined).sigmoid() * h(x).tanh() for z, h, x in parts))


class CentralNet(nn.Module):
    """CentralNet: a central network beside the backbones (Vielzeuf et al. 2018).

    Layer i reads the weighted sum of the network's own state and of every modality's i-th feature,
    all brought to C channels by 1×1 convolutions. The prediction is the weighted sum of its own
    logits and each modality's. In training it also returns each modality's logits, whose losses
    are added to its own. Modalities with fewer features join at the later layers. ``modalities``
    has for each its features' channels, in order.
    """

    def __init__(
        self, modalities: list[dict[str, int]], classes: int, C: int, L: int, dropout: float
    ):
        super().__init__()
        self.L, depth = L, max(map(len, modalities))
        self.layers = [
            [list(m)[i - depth] for m in modalities if depth - i <= len(m)] for i in range(depth)
        ]
        channels = {name: c for m in modalities for name, c in m.items()}
        self.names = list(channels)
        self.reshape = nn.ModuleList(Reshape(c, C, dropout) for c in channels.values())
        self.weights = nn.ParameterList(torch.ones(1 + len(names)) for names in self.layers)
        self.central = nn.ModuleList(Reshape(C, C, dropout) for _ in self.layers)
        self.heads = nn.ModuleList(nn.Linear(C * L, classes) for _ in modalities)
        self.linear = nn.Linear(C * L, classes)
        self.mix = nn.Parameter(torch.ones(1 + len(modalities)))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes).

        In training mode they are (1 + modalities, N, classes), the network's own first.
        """
        layers = zip(self.names, self.reshape, strict=True)
        inner = {name: layer(features[name]) for name, layer in layers}
        state = torch.zeros(())
        for names, weights, layer in zip(self.layers, self.weights, self.central, strict=True):
            own, *others = weights
            joined = zip(others, names, strict=True)
            state = layer(own * state + sum(w * inner[name] for w, name in joined))
        last = zip(self.heads, self.layers[-1], strict=True)
        alone = [head(inner[name].flatten(1)) for head, name in last]
        every = torch.stack([self.linear(state.flatten(1)), *alone])
        fused = torch.einsum("m,mnk->nk", self.mix, every)
        return torch.cat([fused[None], every[1:]]) if self.training else fused


def last_features(task: Task) -> list[dict[str, int]]:
    """The last feature of each modality, as name → channels."""
    return [dict([list(modality.channels.items())[-1]]) for modality in task.modalities]


def _linear(context: BaselineContext, channels: dict[str, int]) -> nn.Module:
    classes, L = context.task.classes, context.config.L
    return context.fit(lambda: LinearFusion(channels, classes, L))


@register_baseline("single modalities", quick=True)
def single_modalities(context: BaselineContext) -> Entries:
    """Each modality alone."""
    task = context.task
    for modality, channels in zip(task.modalities, last_features(task), strict=True):
        yield f"{modality.name} alone", [_linear(context, channels)]


@register_baseline("late fusion", quick=True)
def late_fusion(context: BaselineContext) -> Entries:
    """Logits averaged, and last features concatenated."""
    last = last_features(context.task)
    apart = [_linear(context, channels) for channels in last]
    yield "late fusion, averaged", [LateFusion(apart).eval()]
    joined = {name: c for channels in last for name, c in channels.items()}
    yield "late fusion, concatenated", [_linear(context, joined)]


@register_baseline("all features")
def all_features(context: BaselineContext) -> Entries:
    """Every feature of every modality, concatenated, under one linear classifier."""
    yield "all features, concatenated", [_linear(context, context.task.channels)]


@register_baseline("GMU")
def gmu(context: BaselineContext) -> Entries:
    """A gated multimodal unit on the last features."""
    task, config = context.task, context.config
    yield "GMU", [context.fit(lambda: GMU(last_features(task), task.classes, config.C, config.L))]


@register_baseline("CentralNet")
def central_net(context: BaselineContext) -> Entries:
    """A central network that reads all features, trained with every modality's loss."""
    task, config = context.task, context.config
    channels = [modality.channels for modality in task.modalities]

    def build():
        return CentralNet(channels, task.classes, config.C, config.L, config.dropout)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return sum(metric_of(task).loss(part, labels) for part in logits)

    yield "CentralNet", [context.fit(build, loss=loss)]
