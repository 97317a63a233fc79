"""Networks without Cells: each modality alone, late fusion, an MLP, GMU, CentralNet."""

from math import prod

import torch
from torch import Tensor, nn

from ..tasks.task import Task
from .context import BaselineContext, Entries, Shapes, register_baseline


class LinearFusion(nn.Module):
    """Named features, normalised, flattened and concatenated → one linear classifier.

    With the last feature of one modality it is that modality alone; with the last features of all
    it is late fusion by concatenation. ``shapes`` are those of the features that it reads.
    """

    def __init__(self, shapes: Shapes, classes: int, L: int):
        super().__init__()
        self.names, self.L = tuple(shapes), L
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for channels, _ in shapes.values())
        self.linear = nn.Linear(sum(map(prod, shapes.values())), classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L_i) → logits (N, classes)."""
        named = zip(self.names, self.norms, strict=True)
        return self.linear(torch.cat([bn(features[name]).flatten(1) for name, bn in named], dim=1))


class LateFusion(nn.Module):
    """Two-stream late fusion: the mean of the logits of networks trained apart."""

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.L = networks[0].L

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        return torch.stack([network(features) for network in self.networks]).mean(0)


class MLP(nn.Module):
    """Named features, flattened and concatenated → hidden layers of ``width`` → classes.

    The input has a BatchNorm. Each hidden layer is a linear one, BatchNorm, ReLU and dropout.
    """

    def __init__(
        self, shapes: Shapes, classes: int, L: int, width: int, depth: int, dropout: float
    ):
        super().__init__()
        self.names, self.L, size = tuple(shapes), L, sum(map(prod, shapes.values()))
        layers: list[nn.Module] = [nn.BatchNorm1d(size)]
        for before in [size, *[width] * (depth - 1)]:
            layers += dense(before, width), nn.ReLU(), nn.Dropout(dropout)
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L_i) → logits (N, classes)."""
        return self.layers(torch.cat([features[name].flatten(1) for name in self.names], dim=1))


class GMU(nn.Module):
    """Gated multimodal unit (Arevalo et al. 2017), with the classifier it was released with.

    x_m is the last feature of modality m, flattened and normalised. With p_m = W_m x_m, two
    modalities share a gate, h = z ⊙ tanh(p_1) + (1 − z) ⊙ tanh(p_2), z = sigmoid(W [p_1, p_2]);
    more have one each, h = Σ z_m ⊙ tanh(p_m). Two maxout layers of two pieces and a linear one
    read h, each after a BatchNorm. All layers have the size ``width``, and dropout before them.
    ``shapes`` has one feature for each modality.
    """

    def __init__(self, shapes: Shapes, classes: int, L: int, width: int, dropout: float):
        super().__init__()
        self.names, self.L, self.dropout = tuple(shapes), L, nn.Dropout(dropout)
        sizes, count = list(map(prod, shapes.values())), len(shapes)
        self.inputs = nn.ModuleList(map(nn.BatchNorm1d, sizes))
        self.hidden = nn.ModuleList(nn.Linear(size, width, bias=False) for size in sizes)
        self.gates = nn.Linear(count * width, width * (count if count > 2 else 1), bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(3))
        self.maxouts = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2))
        self.linear = nn.Linear(width, classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L_i) → logits (N, classes)."""
        layers = zip(self.names, self.inputs, self.hidden, strict=True)
        hidden = [
            linear(self.dropout(norm(features[name].flatten(1)))) for name, norm, linear in layers
        ]
        gates = self.gates(torch.cat(hidden, dim=1)).sigmoid().split(hidden[0].shape[1], dim=1)
        gates = (*gates, 1 - gates[0]) if len(hidden) == 2 else gates
        h = sum(z * p.tanh() for z, p in zip(gates, hidden, strict=True))
        for norm, maxout in zip(self.norms, self.maxouts, strict=False):
            h = maxout(self.dropout(norm(h))).unflatten(1, (-1, 2)).amax(2)
        return self.linear(self.dropout(self.norms[-1](h)))


class CentralNet(nn.Module):
    """CentralNet: a central network beside one for each modality (Vielzeuf et al. 2018).

    As its paper has it for vectors: modality m's network is ``depth`` dense layers on its last
    feature, averaged over the L positions. Layer i of the central network reads the weighted sum
    of its own state and of every modality's layer i. The prediction is the weighted sum of its own
    logits and each modality's. In training it also returns each modality's logits, whose losses
    are added to its own. A dense layer has the size ``width``, BatchNorm, ReLU and dropout;
    ``channels``: feature name → channels, one feature for each modality.
    """

    def __init__(
        self,
        channels: dict[str, int],
        classes: int,
        L: int,
        width: int,
        dropout: float,
        depth: int = 2,
    ):
        super().__init__()
        self.names, self.L, self.dropout = tuple(channels), L, nn.Dropout(dropout)
        self.inputs = nn.ModuleList(map(nn.BatchNorm1d, channels.values()))
        self.streams = nn.ModuleList(
            nn.ModuleList(dense(before, width) for before in [c, *[width] * (depth - 1)])
            for c in channels.values()
        )
        self.central = nn.ModuleList(dense(width, width) for _ in range(depth))
        self.weights = nn.Parameter(torch.ones(depth, 1 + len(channels)))
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(1 + len(channels)))
        self.mix = nn.Parameter(torch.ones(1 + len(channels)))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes).

        In training mode they are (1 + modalities, N, classes), the central network's own first.
        """
        named = zip(self.names, self.inputs, strict=True)
        inner = [norm(features[name].mean(2)) for name, norm in named]
        state = torch.zeros(())
        layers = zip(self.weights, self.central, zip(*self.streams, strict=True), strict=True)
        for weights, central, streams in layers:
            inner = [self._layer(dense, x) for dense, x in zip(streams, inner, strict=True)]
            joined = sum(w * x for w, x in zip(weights, [state, *inner], strict=True))
            state = self._layer(central, joined)
        every = torch.stack([head(x) for head, x in zip(self.heads, [state, *inner], strict=True)])
        fused = torch.einsum("m,mnk->nk", self.mix, every)
        return torch.cat([fused[None], every[1:]]) if self.training else fused

    def _layer(self, dense: nn.Module, x: Tensor) -> Tensor:
        return self.dropout(dense(x).relu())


def dense(before: int, after: int) -> nn.Module:
    """A linear layer and BatchNorm: vectors (N, before) → (N, after)."""
    return nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after))


def last_features(task: Task) -> dict[str, int]:
    """The last feature of each modality, as name → channels."""
    return dict(list(modality.channels.items())[-1] for modality in task.modalities)


def _linear(context: BaselineContext, *names: str) -> nn.Module:
    shapes, classes, L = context.shapes(names), context.task.classes, context.config.L
    return context.fit(lambda: LinearFusion(shapes, classes, L))


@register_baseline("single modalities", quick=True, ignores=("C",))
def single_modalities(context: BaselineContext) -> Entries:
    """Each modality alone."""
    for modality, last in zip(context.task.modalities, last_features(context.task), strict=True):
        yield f"{modality.name} alone", [_linear(context, last)]


@register_baseline("late fusion", quick=True, ignores=("C",))
def late_fusion(context: BaselineContext) -> Entries:
    """Logits averaged (Simonyan and Zisserman 2014), and last features concatenated."""
    last = last_features(context.task)
    apart = [_linear(context, one) for one in last]
    yield "late fusion, averaged", [LateFusion(apart).eval()]
    yield "late fusion, concatenated", [_linear(context, *last)]


def _register_mlp(name: str, depth: int) -> None:
    @register_baseline(name)
    def mlp(context: BaselineContext) -> Entries:
        """All features, flattened, under hidden layers of the width C."""
        task, config = context.task, context.config
        shapes = context.shapes(task.features)
        sizes = task.classes, config.L, config.C, depth, config.dropout
        yield name, [context.fit(lambda: MLP(shapes, *sizes))]


_register_mlp("MLP of one layer", 1)
_register_mlp("MLP of two layers", 2)


@register_baseline("GMU")
def gmu(context: BaselineContext) -> Entries:
    """A gated multimodal unit on the last features."""
    task, config = context.task, context.config
    shapes = context.shapes(last_features(task))
    sizes = task.classes, config.L, config.C, config.dropout
    yield "GMU", [context.fit(lambda: GMU(shapes, *sizes))]


@register_baseline("CentralNet")
def central_net(context: BaselineContext) -> Entries:
    """A central network beside dense ones on the last features, trained with all their losses."""
    task, config, metric = context.task, context.config, context.metric
    sizes = task.classes, config.L, config.C, config.dropout

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return sum(metric.loss(part, labels) for part in logits)

    yield "CentralNet", [context.fit(lambda: CentralNet(last_features(task), *sizes), loss=loss)]
