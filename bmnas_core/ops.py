"""Primitive operations: everything a Cell's inner step can do with two inputs.

Each maps ``x, y: (N, C, L)`` to ``(N, C, L)`` (Yin et al. 2022, table 1). A new one is a class::

    @bm.register_operation("product", label="Product", symmetric=True)
    class Product(torch.nn.Module):
        def __init__(self, C, L, dropout):
            super().__init__()

        def forward(self, x, y):
            return x * y
"""

import inspect
import math

import torch
from torch import Tensor, nn

from .genotype import OPERATIONS, OperationError
from .runtime import RNG_LOCK


def register_operation(name: str, *, label: str | None = None, symmetric: bool = False):
    """Class decorator: make a ``torch.nn.Module`` a primitive operation called ``name``.

    The class is built as ``cls(C, L, dropout)`` and called as ``op(x, y)``. Raises OperationError
    for a name that is taken or ill-formed, or a class that does not work when tried.

    Args:
        name: how genotypes spell it: small letters, digits and underscores.
        label: how pictures spell it.
        symmetric: whether swapping x and y only permutes its weights.
    """
    return OPERATIONS.register(name, label=label or name, symmetric=symmetric)


class Conv1x1(nn.Conv1d):
    """A convolution of one tap, ``(N, C_in, L)`` → ``(N, C, L)``, as the matrix product it is.

    Weights are :class:`torch.nn.Conv1d`'s. On the small C and L of a Cell the product is faster,
    and those of an ensemble batch into one.
    """

    def __init__(self, in_channels: int, C: int):
        super().__init__(in_channels, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,ncl->nol", self.weight.squeeze(2), x) + self.bias[:, None]


class Reshape(nn.Module):
    """Brings a pooled feature, or several concatenated, to C channels.

    ``(N, C_in, L)`` → ``(N, C, L)``: 1×1 convolution, BatchNorm, ReLU, dropout. With
    :func:`~bmnas_core.networks.pool` before it this is the paper's reshape layer.
    """

    def __init__(self, in_channels: int, C: int, dropout: float):
        super().__init__()
        self.conv = Conv1x1(in_channels, C)
        self.bn = nn.BatchNorm1d(C)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.bn(self.conv(x)).relu())


def _try_out(name: str, cls: type) -> None:
    place = f"operation {name!r}"
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise OperationError(place, repr(cls), "an nn.Module class")
    for N, C, L in ((2, 4, 3), (3, 6, 1)):
        with RNG_LOCK, torch.random.fork_rng(devices=[]):
            inputs = torch.randn(2, N, C, L)
            before, dtype = inputs.clone(), inputs.dtype
            try:
                out = cls(C, L, 0.0)(*inputs)
            except Exception as error:
                called = f"cls(C={C}, L={L}, dropout=0.0) called on two tensors of shape {N, C, L}"
                raised = f"raised {type(error).__name__}: {error}"
                raise OperationError(f"{place}: {called} {raised}") from error
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if shape != (N, C, L):
            raise OperationError(place, f"output {shape}", (N, C, L))
        if out.dtype != dtype or not out.isfinite().all():
            found = f"of {out.dtype}" if out.dtype != dtype else "with NaN or infinity"
            raise OperationError(place, f"an output {found}", f"finite, of {dtype}")
        if not torch.equal(inputs, before):
            raise OperationError(place, "changed inputs", "to read them")


OPERATIONS.check = _try_out


@register_operation("zero", label="Zero", symmetric=True)
class Zero(nn.Module):
    """0: a step that contributes nothing."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


@register_operation("sum", label="Sum", symmetric=True)
class Sum(nn.Module):
    """x + y: what DARTS does with the inputs of a node."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@register_operation("attention", label="Attention")
class Attention(nn.Module):
    """LayerNorm(dropout(y softmax(xᵀy / √C)ᵀ)): L positions of x attend to L positions of y.

    Queries are x, keys and values y, with no projections. Its dropout is 0.1 in every setting of
    the paper. With ``gaps``, a y that is zero, as what a sample lacks is, has no positions to
    attend to and gives 0; an x that is zero attends to all positions alike.
    """

    gaps = False

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        self.ln = nn.LayerNorm([C, L])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scores = x.transpose(1, 2) @ y / math.sqrt(x.shape[1])
        attended = y @ scores.softmax(dim=-1).transpose(1, 2)
        out = self.ln(self.dropout(attended))
        return out * y.flatten(1).any(1)[:, None, None] if self.gaps else out


@register_operation("linear_glu", label="LinearGLU", symmetric=True)
class LinearGLU(nn.Module):
    """value ⊙ sigmoid(gate), both a 1×1 convolution of concat(x, y).

    The released form: one convolution to 2C channels, of which the first C are the value, then
    BatchNorm. The paper's ``xW₁ ⊙ sigmoid(yW₂)`` is the special case of a block-diagonal weight.
    """

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()
        self.conv = Conv1x1(2 * C, 2 * C)
        self.bn = nn.BatchNorm1d(2 * C)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = self.bn(self.conv(torch.cat([x, y], dim=1)))
        return self.dropout(nn.functional.glu(both, dim=1))


@register_operation("concat_fc", label="ConcatFC", symmetric=True)
class ConcatFC(Reshape):
    """ReLU(BatchNorm(W concat(x, y))): the fusion operation of MFAS."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__(2 * C, C, dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(torch.cat([x, y], dim=1))
