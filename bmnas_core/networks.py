"""Networks on top of backbone features: reshape layers, the hypernet, the fusion network.

Features travel as a dictionary from feature name to a tensor pooled to length L, (N, C_i, L); a
feature that has no positions, such as an embedding, is (N, C_i, 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import groupby, islice, product

import torch
from torch import Tensor, nn

from . import genotype as grammar
from .cells import (
    INITIAL_SCALE,
    RELAXATIONS,
    Cell,
    MixedCell,
    Temperature,
    edge_weights,
    run_nodes,
    weighted_sums,
)
from .config import Settings
from .errors import BmnasError
from .genotype import DEFAULT_OPERATIONS, CellGenotype, Genotype, Pair, StepGenotype
from .ops import (
    Attention,
    BatchNorm,
    Dropout,
    LayerNorm,
    Reshape,
    as_mask,
    draw_masks,
    random_bytes,
)


class FeatureError(BmnasError):
    """Features that are missing, have the wrong shape or hold values that are not finite."""


#: How features may be pooled, and how many axes besides N and C each way takes.
POOLINGS = {"grid": (0, 1, 2), "time": (0, 1, 2, 3)}


def pool(feature: Tensor, L: int, pooling: str = "grid") -> Tensor:
    """Max-pool any backbone feature to (N, C, L): the first half of the reshape layer.

    Args:
        feature: (N, C), which has no positions and becomes (N, C, 1); (N, C, T), (N, C, H, W) or,
            for ``"time"``, (N, C, T, H, W); else :class:`FeatureError`.
        pooling: ``"grid"`` keeps L positions of an image in reading order, in the squarest grid
            of L; ``"time"`` keeps L moments of the first axis and pools all others away.
    """
    axes = feature.dim() - 2
    if axes not in POOLINGS.get(pooling, ()):
        found = f"a feature of shape {tuple(feature.shape)}"
        allowed = "(N, C), (N, C, T) and (N, C, H, W), and for 'time' (N, C, T, H, W) too"
        raise FeatureError(f"pooling {pooling!r}", found, allowed)
    if not axes:
        return feature[:, :, None]
    if pooling == "grid" and axes == 2:
        rows = max(r for r in range(1, math.isqrt(L) + 1) if L % r == 0)
        return nn.functional.adaptive_max_pool2d(feature, (rows, L // rows)).flatten(2)
    moments = feature.reshape(*feature.shape[:3], -1).amax(3)
    return nn.functional.adaptive_max_pool1d(moments, L)


#: Networks are computed together if what passes between two of their layers for a batch has at most
#: so many values. More would not stay in a processor's cache, and would take memory.
MAX_VALUES_TOGETHER = 1 << 19


class _Classifier(nn.Module):
    """Concatenated Cell outputs → LayerNorm over (N·C, L), ReLU, flatten, one linear layer."""

    def __init__(self, channels: int, L: int, classes: int):
        super().__init__()
        self.ln = LayerNorm(channels, L)
        self.linear = nn.Linear(channels * L, classes)

    def fuse(self, cells: list[Tensor]) -> Tensor:
        """Rows, each (N, L, C) → (N, N·C, L)."""
        return self.ln(torch.cat(cells, dim=-1)).relu_().mT

    def forward(self, cells: list[Tensor]) -> Tensor:
        return self.linear(self.fuse(cells).flatten(1))


class _Reshapes(nn.Module):
    """One reshape layer a feature; those without positions have L equal ones behind it.

    With ``gaps``, a feature that is NaN in a sample becomes zeros, and BatchNorm does not see it.
    Raises FeatureError, by name, for features that do not fit.
    """

    def __init__(
        self, channels: dict[str, int], C: int, L: int, dropout: float, gaps: bool = False
    ):
        super().__init__()
        self.channels, self.C, self.L, self.gaps = dict(channels), C, L, gaps
        self.layers = nn.ModuleList(Reshape(c, C, dropout) for c in channels.values())
        self.dropout = Dropout(dropout, C * len(channels))

    def forward(self, features: dict[str, Tensor], wanted: tuple[str, ...] = ()) -> Tensor:
        """Pooled features, each (N, C_i, L) → (N, L, features, C), of all or those ``wanted``."""
        layers = dict(zip(self.channels, self.layers, strict=True))
        layers = {name: layers[name] for name in wanted or layers}
        rows = [self._rows(features, name) for name in layers]
        if self.gaps:
            return torch.stack(list(map(self._with_gaps, layers.values(), rows)), dim=2)
        convolved = [layer.conv(x) for layer, x in zip(layers.values(), rows, strict=True)]
        joined = torch.cat(convolved, dim=-1)
        normalised = BatchNorm.joined([layer.bn for layer in layers.values()], joined)
        reshaped = normalised.relu_().view(-1, len(layers), self.C)
        return self.dropout(reshaped).view(*joined.shape[:2], -1, self.C)

    def _rows(self, features: dict[str, Tensor], name: str) -> Tensor:
        channels = self.channels[name]
        if name not in features:
            missing = f"missing is {name!r}, which the network reads"
            raise FeatureError(f"features: found {', '.join(features)}; {missing}")
        shape = tuple(features[name].shape)
        if shape[1:] not in ((channels, self.L), (channels, 1)):
            allowed = f"(N, {channels}, {self.L}), or (N, {channels}, 1)"
            raise FeatureError(f"feature {name!r}", f"shape {shape}", allowed)
        return features[name].mT.expand(-1, self.L, -1)

    def _with_gaps(self, layer: nn.Module, x: Tensor) -> Tensor:
        there = ~x[:, 0, 0].isnan()
        if not self.training and layer.bn.track_running_stats:
            return torch.where(there[:, None, None], layer(x.nan_to_num()), 0.0)
        out = x.new_zeros(len(x), self.L, self.C)
        if int(there.sum()) * self.L > 1:  # BatchNorm needs two values
            out[there] = layer(x[there]).to(out.dtype)
        return out


def _know_gaps(network: nn.Module, gaps: bool) -> None:
    """Tell a network's attentions whether nodes that are zero are gaps."""
    for module in network.modules() if gaps else ():
        if isinstance(module, Attention):
            module.gaps = True


class Hypernet(nn.Module):
    """All architectures at once: every Cell reads every feature and every earlier Cell.

    ``alpha`` (edges, 2) lists the edges Cell by Cell, each Cell's predecessors in order; ``beta``
    and ``gamma`` belong to the :class:`MixedCell`\\ s. All three are parameters, kept in the state
    dict beside the weights, and start at 1e-3 × normal.

    Args:
        channels: feature name → number of channels, in the task's order.
        C, L, N, M: inner channels and length, number of Cells, steps of each.
        operations, relaxation: names in their registries.
        partial: see :class:`~bmnas_core.cells.MixedCell`.
        sampling: ``"mixture"``, or ``"single_path"`` for one architecture at a time
            (:meth:`single_path`; Guo et al. 2020). BatchNorm then takes its statistics from each
            batch, since no running ones suit all architectures.
        gaps: whether samples may lack features, which are NaN then.
    """

    def __init__(
        self,
        channels: dict[str, int],
        classes: int,
        *,
        C: int,
        L: int,
        N: int,
        M: int,
        operations: tuple[str, ...] = DEFAULT_OPERATIONS,
        relaxation: str = "paper",
        dropout: float = 0.0,
        partial: int = 1,
        sampling: str = "mixture",
        gaps: bool = False,
    ):
        super().__init__()
        self.path: Genotype | None = None
        self.gaps = gaps
        self.relaxation, self.L = RELAXATIONS[relaxation], L
        self.temperature = Temperature()
        self.reshape = _Reshapes(channels, C, L, dropout, gaps)
        self.edges = [len(grammar.cell_predecessors(tuple(channels), i)) for i in range(N)]
        self.alpha = nn.Parameter(INITIAL_SCALE * torch.randn(sum(self.edges), 2))
        self.cells = nn.ModuleList(
            MixedCell(C, L, M, operations, dropout, self.relaxation, self.temperature, partial)
            for _ in range(N)
        )
        self.classifier = _Classifier(N * C, L, classes)
        self.dropouts = [m for m in self.cells.modules() if isinstance(m, Dropout)]
        self.dropouts += [] if gaps else [self.reshape.dropout]
        _know_gaps(self, gaps)
        for module in self.modules() if sampling == "single_path" else ():
            if isinstance(module, nn.BatchNorm1d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    @contextmanager
    def single_path(self, path: Genotype):
        """In this block evaluate only this path, with the weights that all paths share."""
        before, self.path = self.path, path
        try:
            yield self
        finally:
            self.path = before

    def sample_path(self) -> tuple[Genotype, Tensor]:
        """An architecture sampled by its probability under α, β, γ, and the log of that.

        The log can be differentiated. See :func:`~bmnas_core.architecture.most_probable`.
        """
        log_p, cells, features = [], [], tuple(self.reshape.channels)

        def sample(logits: Tensor) -> int:
            logs = logits.log_softmax(0)
            k = int(torch.multinomial(logs.detach().exp(), 1))
            log_p.append(logs[k])
            return k

        def sample_pair(names: tuple[str, ...], logits: Tensor, taken=()) -> Pair:
            x, y = self.relaxation.weights(logits)
            pairs = list(product(names, repeat=2))
            illegal = [not grammar.is_free(pair, taken) for pair in pairs]
            odds = (x.log()[:, None] + y.log()).flatten()
            odds = odds.masked_fill(torch.tensor(illegal, device=odds.device), -torch.inf)
            return pairs[sample(odds)]

        edges = self.temperature(self.alpha).split(self.edges)
        for i, (cell, alpha) in enumerate(zip(self.cells, edges, strict=True)):
            taken = [cell.inputs for cell in cells]
            inputs = sample_pair(grammar.cell_predecessors(features, i), alpha, taken)
            steps = []
            for j, beta in enumerate(self.temperature(cell.beta).split(cell.edges)):
                op = list(cell.steps[j].operations)[sample(self.temperature(cell.gamma[j]))]
                steps.append(StepGenotype(op, sample_pair(grammar.step_predecessors(j), beta)))
            cells.append(CellGenotype(inputs, tuple(steps)))
        return Genotype(features, tuple(cells)), torch.stack(log_p).sum()

    def mix(
        self,
        states: Tensor,
        pairs: Sequence[Pair] = (),
        first: Sequence[Tensor] = (),
        last: int | None = None,
    ) -> list[Tensor]:
        """Outputs of the Cells, rows (N, L, C) each, given reshaped features (N, L, features, C).

        The first Cells read the nodes named in ``pairs``, if any, in place of their mixtures.
        ``first`` are outputs of the first Cells that are known already; they may be K variants, one
        after the other, (K·N, L, C), and so are the other outputs then. With ``last``, only so many
        Cells are computed.
        """
        features, outputs = tuple(self.reshape.channels), list(first)
        edges = self.temperature(self.alpha).split(self.edges)[len(pairs) : last]
        weights = [edge_weights(self.relaxation, logits) for logits in edges]
        sizes, n = [len(own) for own in weights], len(features)
        mixed = []
        if weights:  # all Cells read all features: one product for all of them
            of_features = torch.cat([own[:, :n] for own in weights])
            mixed = _sums_of_features(of_features, states).split(sizes, dim=2)
        for i, cell in islice(enumerate(self.cells), len(first), last):
            if i < len(pairs):
                nodes = [*states.unbind(2), *outputs]
                names = grammar.cell_predecessors(features, i)
                x, y = (nodes[names.index(name)] for name in pairs[i])
            else:
                inputs = mixed[i - len(pairs)].unbind(2)
                if outputs:
                    of_cells = weighted_sums(weights[i - len(pairs)][:, n:], outputs)
                    variants = (sums.unflatten(0, (-1, len(states))) for sums in of_cells)
                    both = zip(inputs, variants, strict=True)
                    inputs = [(a + b).flatten(0, 1) for a, b in both]
                x, y = inputs[0], inputs[-1]
            outputs.append(cell(x, y))
        return outputs

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        path = self.path
        if path is None:
            self.draw_masks(features)
            return self.classifier(self.mix(self.reshape(features)))
        read = [name for name in self.reshape.channels if name in path.used_features]
        states = dict(zip(read, self.reshape(features, read).unbind(2), strict=True))
        pairs = zip(self.cells, path.cells, strict=True)
        cells = [functools.partial(cell.forward_path, genotype) for cell, genotype in pairs]
        return self.classifier(run_nodes(states, path.cells, cells, grammar.cell_name))

    def draw_masks(self, features: dict[str, Tensor]) -> None:
        """In training on a CPU, draw the masks of all dropouts for a pass of these samples."""
        first = next(iter(features.values()))
        if self.training and first.device.type == "cpu":
            draw_masks(self.dropouts, self.L * len(first))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """α, then each Cell's β, then each Cell's γ."""
        return [self.alpha, *(c.beta for c in self.cells), *(c.gamma for c in self.cells)]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Everything that is not α, β or γ."""
        searched = {id(p) for p in self.architecture_parameters()}
        return [p for p in self.parameters() if id(p) not in searched]


def _sums_of_features(weights: Tensor, states: Tensor) -> Tensor:
    """One sum of P states (N, L, P, C) for each row of ``weights``, (K, P) → (N, L, K, C)."""
    rows = states.flatten(0, 1)
    return torch.bmm(weights.expand(len(rows), -1, -1), rows).unflatten(0, states.shape[:2])


class FixedInputs(nn.Module):
    """A hypernet whose first Cells read fixed pairs, K lists of them, in place of mixtures."""

    def __init__(self, hypernet: Hypernet, inputs: list[list[Pair]]):
        super().__init__()
        self.hypernet, self.inputs, self.gaps = hypernet, inputs, hypernet.gaps

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (K, N, classes).

        In evaluation, lists that differ only in their last pairs share the Cells before, and go
        through those that follow as one batch. In training each list has dropout of its own.
        """
        self.hypernet.draw_masks(features)
        net, states, outputs = self.hypernet, self.hypernet.reshape(features), []
        together = 1 if self.training else max(1, MAX_VALUES_TOGETHER // states[:, :, 0].numel())
        for (_, fixed), group in groupby(self.inputs, lambda own: (len(own), own[:-1])):
            pairs, known = [own[-1:] for own in group], []
            if not self.training and len(pairs) > 1:
                known = net.mix(states, fixed, last=len(fixed))
            for k in range(0, len(pairs), together):
                some = pairs[k : k + together]
                outputs.append(self._classify(states, fixed, known, some))
        return torch.cat(outputs)

    def _classify(
        self, states: Tensor, fixed: list[Pair], known: list[Tensor], pairs: list[list[Pair]]
    ) -> Tensor:
        """Logits (K, N, classes) for fixed pairs followed by each of K others."""
        net, K = self.hypernet, len(pairs)
        if not known and (K == 1 or not any(pairs)):
            cells = net.mix(states, [*fixed, *pairs[0]])
            return net.classifier(cells)[None].expand(K, -1, -1)
        names = grammar.cell_predecessors(tuple(net.reshape.channels), len(fixed))
        nodes = dict(zip(names, [*states.unbind(2), *known], strict=True))
        x, y = (torch.cat([nodes[pair[side]] for (pair,) in pairs]) for side in (0, 1))
        first = [*(cell.repeat(K, 1, 1) for cell in known), net.cells[len(fixed)](x, y)]
        cells = net.mix(states, [*fixed, *pairs[0]], first)
        return net.classifier(cells).unflatten(0, (K, -1))

    def parameter_groups(self, config: Settings) -> list[nn.Parameter]:
        """What its training changes: the weights, not α, β, γ."""
        return self.hypernet.weight_parameters()


class FusionNetwork(nn.Module):
    """The network that a genotype describes, with reshape layers for the features it uses.

    ``C`` and ``L`` are inner channels and length, ``channels`` each feature's number of channels;
    with ``gaps``, samples may lack features, which are NaN then. FeatureError unless each used one
    is in ``channels``. ``signature`` says what it reads and what its outputs mean, once
    :func:`~bmnas_core.train.train` has made it for a task.
    """

    signature = None  # a Signature

    def __init__(
        self,
        genotype: Genotype,
        channels: dict[str, int],
        classes: int,
        *,
        C: int,
        L: int,
        dropout: float = 0.0,
        gaps: bool = False,
    ):
        super().__init__()
        for name in genotype.used_features:
            if name not in channels:
                raise FeatureError("genotype", f"feature {name!r}", ", ".join(channels))
        self.genotype, self.L, self.gaps = genotype, L, gaps
        self.C, self.classes, self.dropout = C, classes, dropout
        used = {name: channels[name] for name in genotype.used_features}
        self.reshape = _Reshapes(used, C, L, dropout, gaps)
        self.cells = nn.ModuleList(Cell(cell, C, L, dropout) for cell in genotype.cells)
        self.classifier = _Classifier(len(genotype.cells) * C, L, classes)
        self.steps = max(len(cell.steps) for cell in genotype.cells)
        self.dropouts = [] if gaps else [(self.reshape.dropout, slice(len(used)))]
        for i, cell in enumerate(self.cells):
            place = 2 * len(self.cells) + i * (self.steps + 1)
            for j, step in enumerate(cell.steps):
                own = (module for module in step.modules() if isinstance(module, Dropout))
                self.dropouts += [(dropout, place + j) for dropout in own]
            if cell.output.reduce is not None:
                self.dropouts.append((cell.output.reduce.dropout, place + self.steps))
        _know_gaps(self, gaps)

    def mix(self, states: dict[str, Tensor]) -> list[Tensor]:
        """Outputs of the Cells, given reshaped features by name, rows (N, L, C) each."""
        return run_nodes(states, self.genotype.cells, self.cells, grammar.cell_name)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Pooled features, each (N, C_i, L) → logits (N, classes)."""
        first = next(iter(features.values()))
        if self.training and first.device.type == "cpu":
            self._draw_masks(len(first))
        names, states = self.reshape.channels, self.reshape(features).unbind(2)
        return self.classifier(self.mix(dict(zip(names, states, strict=True))))

    def _draw_masks(self, n: int) -> None:
        """Draw the masks of all dropouts for n samples.

        There are random numbers for every place where such a network may have a dropout, so that
        networks of other genotypes get the same ones.
        """
        rates = {dropout.p for dropout, _ in self.dropouts} - {0.0}
        if not rates:
            return
        N, M = len(self.cells), self.steps
        numbers = random_bytes(mask_places(N, M) * n * self.L * self.C)
        numbers = numbers.view(-1, n * self.L, self.C)
        masks = {p: as_mask(numbers, p) for p in rates}
        for dropout, place in self.dropouts:
            if dropout.p:
                kept = masks[dropout.p][place]
                dropout.kept = kept.transpose(0, 1) if isinstance(place, slice) else kept


def mask_places(N: int, M: int) -> int:
    """Dropouts that a fusion network of N Cells of M steps may have, each for (N, L, C) values.

    They are those of its inputs, two a Cell, and then Cell by Cell of its steps and its reduction.
    """
    return 2 * N + N * (M + 1)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
