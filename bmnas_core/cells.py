"""Cells: the searchable :class:`MixedCell` and the discrete :class:`Cell`.

The outputs of a Cell's steps S1 … SM on its inputs X and Y are concatenated and reduced to C
channels, X is added, and LayerNorm gives the output Z (Yin et al. 2022, section 3.2). In a
MixedCell all edges and operations mix.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .config import ConfigError
from .errors import BmnasError, quoted
from .genotype import OPERATIONS, CellGenotype, StepGenotype, step_name, step_predecessors
from .ops import BatchNorm, Conv1x1, LayerNorm, Projection, Reshape, convolve, on_rows
from .registry import Registry

#: Standard deviation of the initial α, β and γ, as published.
INITIAL_SCALE = 1e-3


class RelaxationError(BmnasError):
    """A relaxation that cannot be registered or does not exist."""


def _try_out(name: str, cls: object) -> None:
    """Refuse a relaxation whose ``weights`` gives no weights for X and for Y."""
    place, columns = f"relaxation {name!r}", getattr(cls, "columns", ())
    if len(columns) != 2 or not all(isinstance(column, str) for column in columns):
        allowed = "two names, those of the columns of α and β"
        raise RelaxationError(place, f"columns {columns!r}", allowed)
    for edges in (2, 5):
        logits = torch.linspace(-3, 3, 2 * edges).reshape(edges, 2).requires_grad_()
        try:
            weights = tuple(cls.weights(logits))
            kinds = [(w.shape, w.dtype, bool((w >= 0).all())) for w in weights]
        except Exception as error:
            called = f"weights(logits) called on a tensor of shape {edges, 2}"
            raised = f"raised {type(error).__name__}: {error}"
            raise RelaxationError(f"{place}: {called} {raised}") from error
        if kinds != [((edges,), logits.dtype, True)] * 2:
            allowed = f"two tensors of shape ({edges},) and {logits.dtype}, not negative"
            raise RelaxationError(place, f"weights {quoted(weights, 200)}", allowed)


#: Relaxations by name, filled by :func:`register_relaxation`.
RELAXATIONS = Registry("relaxation", RelaxationError, check=_try_out)


def register_relaxation(name: str):
    """Class decorator: make a class with ``columns`` and ``weights`` a relaxation.

    ``columns`` names the two columns of α and β; ``weights`` is a static method as in
    :class:`PaperRelaxation`. Raises RelaxationError for a name that is taken or ill-formed, or a
    class that does not work when tried on two and on five edges.
    """
    return RELAXATIONS.register(name)


@register_relaxation("paper")
class PaperRelaxation:
    """Each edge mixes Zero and Identity; X and Y are the same sum (Yin et al. 2022, eq. 4)."""

    columns = ("Zero", "Identity")

    @staticmethod
    def weights(logits: Tensor) -> tuple[Tensor, Tensor]:
        """``logits: (P, 2)`` of a node's P incoming edges → its weights (P,) for X and for Y."""
        identity = logits.softmax(dim=1)[:, 1]
        return identity, identity


@register_relaxation("pair")
class PairRelaxation:
    """X and Y each have a softmax of their own over the predecessors.

    Edges compete, and X and Y can differ in the hypernet, as they must in the derived network.
    """

    columns = ("X", "Y")

    @staticmethod
    def weights(logits: Tensor) -> Tensor:
        """As in :class:`PaperRelaxation`, both as one tensor (2, P)."""
        return logits.T.softmax(dim=1)


@register_relaxation("edge")
class EdgeRelaxation(PaperRelaxation):
    """Edges compete for one sum, which is both X and Y: edge normalisation (Xu et al. 2020).

    The columns are the paper's; the softmax over predecessors is of Identity minus Zero.
    """

    @staticmethod
    def weights(logits: Tensor) -> tuple[Tensor, Tensor]:
        shares = (logits[:, 1] - logits[:, 0]).softmax(dim=0)
        return shares, shares


class Temperature(nn.Module):
    """Divides α, β, γ by a temperature before their softmax; 1, the identity, by default.

    Below 1 the mixture approaches a single candidate. With ``gumbel`` each call in training mode
    adds noise, so that it mixes as if an architecture were sampled (SNAS, Xie et al. 2019).
    """

    value, gumbel = 1.0, False

    def forward(self, logits: Tensor) -> Tensor:
        if self.gumbel and self.training:
            logits = logits - torch.empty_like(logits).exponential_().log()
        return logits if self.value == 1 else logits / self.value


def edge_weights(relaxation, logits: Tensor) -> Tensor:
    """Weights of a node's P incoming edges, (2, P) for X and Y, or (1, P) if both are one sum.

    ``relaxation`` is a class of :data:`RELAXATIONS`; logits: (P, 2).
    """
    found = relaxation.weights(logits)
    if isinstance(found, Tensor):
        return found
    x, y = found
    return x[None] if x is y else torch.stack([x, y])


def weighted_sums(weights: Tensor, states: Sequence[Tensor]) -> Sequence[Tensor]:
    """One sum of P states of one shape for each row of ``weights``, (K, P)."""
    sums = weights @ torch.stack(states).flatten(1)
    return sums.view(-1, *states[0].shape).unbind()


class _CellOutput(nn.Module):
    """Z = LayerNorm(reduce(concat(S1 … SM)) + X); a single step needs no reduction."""

    def __init__(self, C: int, L: int, M: int, dropout: float):
        super().__init__()
        self.reduce = Reshape(M * C, C, dropout) if M > 1 else None
        self.ln = LayerNorm(C, L)

    def forward(self, x: Tensor, steps: list[Tensor]) -> Tensor:
        out = steps[0] if self.reduce is None else self.reduce(*steps)
        return self.ln(out + x)


class MixedStep(nn.Module):
    """All operations of one inner step on the same two inputs.

    Projections are one: their weights are rows of one matrix, their BatchNorms channels of one.
    Operations work on the first ``C`` channels of their inputs; the rest are summed.
    """

    def __init__(self, C: int, L: int, operations: tuple[str, ...], dropout: float):
        super().__init__()
        made = {name: OPERATIONS[name](C, L, dropout) for name in operations}
        self.C, self.operations = C, nn.ModuleDict(made)
        projections = {name: op for name, op in made.items() if isinstance(op, Projection)}
        self.parts: dict[str, slice] = {}  # of the product, in C channels
        for name, op in projections.items():
            start = sum(made[other].parts for other in self.parts)
            self.parts[name] = slice(start, start + op.parts)
            del op.conv, op.bn
        if projections:
            channels = C * sum(op.parts for op in projections.values())
            self.conv, self.bn = Conv1x1(2 * C, channels), BatchNorm(channels)

    def forward(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Rows ``x, y: (N, L, C)`` → ``(N, L, C)``; ``weights``: (1, operations)."""
        a, b, rest = self._divide(x, y)
        projected = self.bn(self.conv(a, b)).split(self.C, dim=-1) if self.parts else ()
        outputs = []
        for name, operation in self.operations.items():
            if name in self.parts:
                made = operation.activate(*projected[self.parts[name]])
                outputs.append(operation.dropout(made))
            else:
                outputs.append(on_rows(operation, a, b))
        (mixed,) = weighted_sums(weights, outputs)
        return torch.cat([*rest, mixed], dim=-1) if rest else mixed

    def alone(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """One operation: rows ``x, y: (N, L, C)`` → ``(N, L, C)``."""
        a, b, rest = self._divide(x, y)
        if name in self.parts:
            part = self.parts[name]
            own = slice(part.start * self.C, part.stop * self.C)
            projected = convolve((a, b), self.conv.weight[own], self.conv.bias[own])
            parts = self.bn.partly(own, projected).split(self.C, dim=-1)
            operation = self.operations[name]
            made = operation.dropout(operation.activate(*parts))
        else:
            made = on_rows(self.operations[name], a, b)
        return torch.cat([*rest, made], dim=-1) if rest else made

    def _divide(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The channels of both that operations work on, and the sum of the others, if any."""
        if x.shape[2] == self.C:
            return x, y, []
        a = x[..., : self.C]
        b = a if y is x else y[..., : self.C]
        return a, b, [x[..., self.C :] + y[..., self.C :]]


class MixedCell(nn.Module):
    """A Cell in which all steps, edges and operations are still mixed.

    ``beta`` (edges, 2) lists the edges step by step, predecessors X, Y, S1, …; what its columns
    mean is the relaxation's. ``gamma`` (M, operations) is softmaxed over operations.

    ``relaxation`` is a class of :data:`RELAXATIONS`; all Cells of a hypernet share ``temperature``.
    Operations work on 1/``partial`` of the channels, with ``partial`` a divisor of C, and the rest
    are summed (PC-DARTS, Xu et al. 2020). Channels take turns from step to step.
    """

    def __init__(
        self,
        C: int,
        L: int,
        M: int,
        operations: tuple[str, ...],
        dropout: float,
        relaxation,
        temperature: Temperature | None = None,
        partial: int = 1,
    ):
        super().__init__()
        if C % partial:
            raise ConfigError("partial", partial, f"a divisor of C, {C}")
        self.relaxation, self.partial = relaxation, partial
        self.temperature = temperature or Temperature()
        self.edges = [len(step_predecessors(j)) for j in range(M)]
        self.beta = nn.Parameter(INITIAL_SCALE * torch.randn(sum(self.edges), 2))
        self.gamma = nn.Parameter(INITIAL_SCALE * torch.randn(M, len(operations)))
        self.steps = nn.ModuleList(
            MixedStep(C // partial, L, operations, dropout) for _ in range(M)
        )
        self.output = _CellOutput(C, L, M, dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Rows ``x, y: (N, L, C)`` → ``(N, L, C)``."""
        states = [x, y]
        edges = self.temperature(self.beta).split(self.edges)
        gammas = self.temperature(self.gamma).softmax(1).split(1)
        for step, logits, gamma in zip(self.steps, edges, gammas, strict=True):
            inputs = weighted_sums(edge_weights(self.relaxation, logits), states)
            states.append(step(gamma, inputs[0], inputs[-1]))
        return self.output(x, states[2:])

    def forward_path(self, genotype: CellGenotype, x: Tensor, y: Tensor) -> Tensor:
        """One architecture of this Cell alone, with its weights: rows → ``(N, L, C)``."""
        pairs = zip(genotype.steps, self.steps, strict=True)
        steps = [functools.partial(step.alone, chosen.op) for chosen, step in pairs]
        return self.output(x, run_nodes({"X": x, "Y": y}, genotype.steps, steps, step_name))


class Cell(nn.Module):
    """The discrete Cell that a :class:`CellGenotype` describes."""

    def __init__(self, genotype: CellGenotype, C: int, L: int, dropout: float):
        super().__init__()
        self.genotype = genotype
        self.steps = nn.ModuleList(OPERATIONS[s.op](C, L, dropout) for s in genotype.steps)
        self.output = _CellOutput(C, L, len(genotype.steps), dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Rows ``x, y: (N, L, C)`` → ``(N, L, C)``."""
        steps = [functools.partial(on_rows, operation) for operation in self.steps]
        return self.output(x, run_nodes({"X": x, "Y": y}, self.genotype.steps, steps, step_name))


def run_nodes(
    states: dict[str, Tensor],
    nodes: Sequence[CellGenotype | StepGenotype],
    functions: Iterable[Callable],
    name: Callable[[int], str],
) -> list[Tensor]:
    """What each Cell, or step, makes of its inputs: in ``states``, or of node i as ``name(i)``."""
    outputs, states = [], dict(states)
    for i, (node, function) in enumerate(zip(nodes, functions, strict=True)):
        outputs.append(function(*(states[source] for source in node.inputs)))
        states[name(i)] = outputs[-1]
    return outputs
