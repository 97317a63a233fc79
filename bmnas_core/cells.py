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
from .ops import Reshape
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
    def weights(logits: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`PaperRelaxation`."""
        return logits.softmax(dim=0).unbind(dim=1)


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


def mix_inputs(relaxation, logits: Tensor, states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The two inputs of a node, (N, C, L), as weighted sums over its predecessors.

    ``relaxation`` is a class of :data:`RELAXATIONS`; logits: (P, 2); states: P of (N, C, L).
    """
    x, y = relaxation.weights(logits)
    stacked = torch.stack(states)
    if x is y:
        mixed = torch.einsum("p,pncl->ncl", x, stacked)
        return mixed, mixed
    return torch.einsum("kp,pncl->kncl", torch.stack([x, y]), stacked).unbind(0)


class _CellOutput(nn.Module):
    """Z = LayerNorm(reduce(concat(S1 … SM)) + X); a single step needs no reduction."""

    def __init__(self, C: int, L: int, M: int, dropout: float):
        super().__init__()
        self.reduce = Reshape(M * C, C, dropout) if M > 1 else None
        self.ln = nn.LayerNorm([C, L])

    def forward(self, x: Tensor, steps: list[Tensor]) -> Tensor:
        out = steps[0] if self.reduce is None else self.reduce(torch.cat(steps, dim=1))
        return self.ln(out + x)


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
            nn.ModuleDict({op: OPERATIONS[op](C // partial, L, dropout) for op in operations})
            for _ in range(M)
        )
        self.output = _CellOutput(C, L, M, dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x, y: (N, C, L)`` → ``(N, C, L)``."""
        states = [x, y]
        edges = self.temperature(self.beta).split(self.edges)
        gammas = self.temperature(self.gamma).softmax(1)
        for step, logits, gamma in zip(self.steps, edges, gammas, strict=True):
            a, b = mix_inputs(self.relaxation, logits, states)
            states.append(self._mix_operations(step.values(), gamma, a, b))
        return self.output(x, states[2:])

    def forward_path(self, genotype: CellGenotype, x: Tensor, y: Tensor) -> Tensor:
        """One architecture of this Cell alone, with its weights: ``(N, C, L)`` → ``(N, C, L)``."""
        operations = [step[s.op] for s, step in zip(genotype.steps, self.steps, strict=True)]
        if self.partial > 1:
            operations = [functools.partial(self._mix_operations, [op], [1.0]) for op in operations]
        return self.output(x, run_nodes({"X": x, "Y": y}, genotype.steps, operations, step_name))

    def _mix_operations(self, operations: Iterable, gamma: Iterable, a: Tensor, b: Tensor):
        """The channels that no operation works on, summed, and then the operations' mixture."""
        # Each operation slices for itself: one slice for all would add gradients in another order.
        size, pairs = a.shape[1] // self.partial, zip(gamma, operations, strict=True)
        mixed = sum(g * op(a[:, :size], b[:, :size]) for g, op in pairs)
        return mixed if self.partial == 1 else torch.cat([a[:, size:] + b[:, size:], mixed], dim=1)


class Cell(nn.Module):
    """The discrete Cell that a :class:`CellGenotype` describes."""

    def __init__(self, genotype: CellGenotype, C: int, L: int, dropout: float):
        super().__init__()
        self.genotype = genotype
        self.steps = nn.ModuleList(OPERATIONS[s.op](C, L, dropout) for s in genotype.steps)
        self.output = _CellOutput(C, L, len(genotype.steps), dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x, y: (N, C, L)`` → ``(N, C, L)``."""
        steps = run_nodes({"X": x, "Y": y}, self.genotype.steps, self.steps, step_name)
        return self.output(x, steps)


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
