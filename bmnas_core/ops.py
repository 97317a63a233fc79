"""Primitive operations: everything a Cell's inner step can do with two inputs.

Each maps ``x, y: (N, C, L)`` to ``(N, C, L)`` (Yin et al. 2022, table 1). Networks work on *rows*,
``(N, L, C)``: a 1×1 convolution of rows is one matrix product, and BatchNorm reads them as they lie
in memory. The operations of this file do so too; any other gets ``(N, C, L)``. A new one is a
class::

    @bm.register_operation("product", label="Product", symmetric=True)
    class Product(torch.nn.Module):
        def __init__(self, C, L, dropout):
            super().__init__()

        def forward(self, x, y):
            return x * y
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

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


class RowOperation(nn.Module):
    """Base of the operations of this file, which compute :meth:`rows`."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x, y: (N, C, L)`` → ``(N, C, L)``."""
        return self.rows(x.mT, y.mT).mT

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        """``x, y: (N, L, C)`` → ``(N, L, C)``."""
        raise NotImplementedError


class Conv1x1(nn.Conv1d):
    """A convolution of one tap on the concatenation of rows, as the matrix product it is.

    ``(N, L, C_1), (N, L, C_2), …`` → ``(N, L, C)``. Weights are :class:`torch.nn.Conv1d`'s.
    """

    def __init__(self, in_channels: int, C: int):
        super().__init__(in_channels, C, 1)

    def forward(self, *parts: Tensor) -> Tensor:
        return convolve(parts, self.weight, self.bias)


def convolve(parts: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """:class:`Conv1x1` with given weights, (C, C_1 + C_2 + …, 1) and (C,)."""
    weight, x = weight.squeeze(2), parts[0]
    if len(parts) == 2 and parts[1] is x:  # concat(x, x)·W = x·(W₁ + W₂), half the product
        first, second = weight.unflatten(1, (2, -1)).unbind(1)
        weight = first + second
    elif len(parts) > 1:
        x = torch.cat(parts, dim=-1)
    return nn.functional.linear(x.flatten(0, 1), weight, bias).view(*x.shape[:2], -1)


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of the channels of rows, ``(N, L, C)``, over all N·L of them."""

    VALUES = ("running_mean", "running_var", "weight", "bias")

    def forward(self, x: Tensor) -> Tensor:
        return self._normalise(x, [getattr(self, name) for name in self.VALUES])

    def partly(self, channels: slice, x: Tensor) -> Tensor:
        """What it makes of some of its channels alone."""
        values = (getattr(self, name) for name in self.VALUES)
        return self._normalise(x, [own if own is None else own[channels] for own in values])

    def _normalise(self, x: Tensor, values: list[Tensor | None]) -> Tensor:
        training = self.training or self.running_mean is None
        how = training, self.momentum, self.eps
        return nn.functional.batch_norm(x.flatten(0, 1), *values, *how).view(x.shape)

    @classmethod
    def joined(cls, layers: Sequence[BatchNorm], x: Tensor) -> Tensor:
        """Rows ``(N, L, C_1 + C_2 + …)`` after layers that each normalise channels of their own.

        It is one pass for all: on tensors as small as a Cell's, calls take longer than numbers do.
        """
        first = layers[0]
        if len(layers) == 1:
            return first(x)
        values = [[getattr(layer, name) for layer in layers] for name in cls.VALUES]
        joined = [None if own[0] is None else torch.cat(own) for own in values]
        out = first._normalise(x, joined)
        if first.training and joined[0] is not None:
            sizes = [layer.num_features for layer in layers]
            for own, changed in zip(values[:2], joined, strict=False):
                for old, new in zip(own, changed.split(sizes), strict=True):
                    old.copy_(new)
        return out


class LayerNorm(nn.LayerNorm):
    """LayerNorm over all values of a sample, ``(N, L, C)``. Weights are (C, L), as published."""

    def __init__(self, C: int, L: int):
        super().__init__([C, L])

    def forward(self, x: Tensor) -> Tensor:
        shape, weights = x.shape[1:], (self.weight.mT, self.bias.mT)
        return nn.functional.layer_norm(x, shape, *weights, self.eps)


class Dropout(nn.Dropout):
    """Dropout of rows of C channels. p is rounded to 1/256, and the scale of what stays fits that.

    On a CPU it takes 8 random bits a value: PyTorch's own takes as long as a matrix product.
    """

    def __init__(self, p: float, C: int):
        super().__init__(p)
        self.C, self.kept = C, None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return super().forward(x)
        kept, self.kept = self.kept, None
        if kept is None or kept.numel() != x.numel():
            kept = as_mask(random_bytes(x.numel()), self.p)
        return x * kept.view(x.shape).to(x.dtype)


def random_bytes(n: int) -> Tensor:
    """n random numbers from -128 to 127, as int8."""
    return torch.randint(-(2**63), 2**63 - 1, (-(-n // 8),)).view(torch.int8)[:n]


def as_mask(numbers: Tensor, p: float) -> Tensor:
    """What dropout multiplies values with, by their random bytes: 0 with probability p."""
    dropped = min(max(round(256 * p), 1), 255)
    kept = numbers.to(torch.get_default_dtype()).ge_(dropped - 128)
    return kept.mul_(256 / (256 - dropped))


def draw_masks(layers: Iterable[Dropout], rows: int) -> None:
    """Draw the masks of layers for their next inputs, of so many rows, at once."""
    alike = defaultdict(list)
    for layer in layers:
        alike[layer.p].append(layer)
    alike.pop(0.0, None)
    for p, own in alike.items():
        sizes = [rows * layer.C for layer in own]
        masks = as_mask(random_bytes(sum(sizes)), p).split(sizes)
        for layer, mask in zip(own, masks, strict=True):
            layer.kept = mask


class Reshape(nn.Module):
    """Brings a pooled feature, or several concatenated, to C channels.

    Rows ``(N, L, C_in)`` → ``(N, L, C)``: 1×1 convolution, BatchNorm, ReLU, dropout. With
    :func:`~bmnas_core.networks.pool` before it this is the paper's reshape layer.
    """

    def __init__(self, in_channels: int, C: int, dropout: float):
        super().__init__()
        self.conv = Conv1x1(in_channels, C)
        self.bn = BatchNorm(C)
        self.dropout = Dropout(dropout, C)

    def forward(self, *parts: Tensor) -> Tensor:
        return self.dropout(self.bn(self.conv(*parts)).relu_())


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
class Zero(RowOperation):
    """0: a step that contributes nothing."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


@register_operation("sum", label="Sum", symmetric=True)
class Sum(RowOperation):
    """x + y: what DARTS does with the inputs of a node."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@register_operation("attention", label="Attention")
class Attention(RowOperation):
    """LayerNorm(dropout(softmax(xyᵀ / √C) y)) of rows: L positions of x attend to L of y.

    Queries are x, keys and values y, with no projections. Its dropout is 0.1 in
    every setting of the paper. With ``gaps``, a y that is zero, as what a sample lacks is, has no
    positions to attend to and gives 0; an x that is zero attends to all positions alike.
    """

    gaps = False

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = Dropout(0.1, C)
        self.ln = LayerNorm(C, L)

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.ln(self.dropout(self.attend(x, y)))
        return out * y.flatten(1).any(1)[:, None, None] if self.gaps else out

    @staticmethod
    def attend(x: Tensor, y: Tensor) -> Tensor:
        """``softmax(xyᵀ / √C) y`` of rows, ``(N, L, C)``."""
        if y.shape[1] == 1:  # all that a single position can attend to
            return y
        scores = torch.bmm(y, x.mT).div_(math.sqrt(x.shape[2]))
        # On a CPU softmax is slow along a last axis as short as L.
        return torch.bmm(scores.softmax(dim=1).mT, y)


class Projection(RowOperation):
    """Base of operations that begin with BatchNorm(W concat(x, y)), ``parts`` times C channels.

    :meth:`activate` and dropout are the rest of the operation.
    """

    def __init__(self, C: int, parts: int, dropout: float):
        super().__init__()
        self.C, self.parts = C, parts
        self.conv = Conv1x1(2 * C, parts * C)
        self.bn = BatchNorm(parts * C)
        self.dropout = Dropout(dropout, C)

    def rows(self, x: Tensor, y: Tensor) -> Tensor:
        parts = self.bn(self.conv(x, y)).split(self.C, dim=-1)
        return self.dropout(self.activate(*parts))

    @staticmethod
    def activate(*parts: Tensor) -> Tensor:
        """``(…, C)`` each → ``(…, C)``."""
        raise NotImplementedError


@register_operation("linear_glu", label="LinearGLU", symmetric=True)
class LinearGLU(Projection):
    """value ⊙ sigmoid(gate), both a 1×1 convolution of concat(x, y).

    The released form: one convolution to 2C channels, of which the first C are the value, then
    BatchNorm. The paper's ``xW₁ ⊙ sigmoid(yW₂)`` is the special case of a block-diagonal weight.
    """

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__(C, 2, dropout)

    @staticmethod
    def activate(value: Tensor, gate: Tensor) -> Tensor:
        return value * gate.sigmoid()


@register_operation("concat_fc", label="ConcatFC", symmetric=True)
class ConcatFC(Projection):
    """ReLU(BatchNorm(W concat(x, y))): the fusion operation of MFAS."""

    def __init__(self, C: int, L: int, dropout: float = 0.0):
        super().__init__(C, 1, dropout)

    @staticmethod
    def activate(projected: Tensor) -> Tensor:
        return projected.relu()


def on_rows(operation: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """An operation's output on rows: ``x, y: (N, L, C)`` → ``(N, L, C)``."""
    if isinstance(operation, RowOperation):
        return operation.rows(x, y)
    return operation(x.mT, y.mT).mT
