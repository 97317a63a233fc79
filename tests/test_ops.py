"""Primitive operations and their registry."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmnas_core import OperationError, register_operation
from bmnas_core.genotype import OPERATIONS
from bmnas_core.ops import (
    Attention,
    BatchNorm,
    ConcatFC,
    Conv1x1,
    Dropout,
    LayerNorm,
    LinearGLU,
    Sum,
    Zero,
    draw_masks,
)

BUILT_IN = ("zero", "sum", "attention", "linear_glu", "concat_fc")


@settings(max_examples=30)
@given(
    st.sampled_from(BUILT_IN),
    st.integers(2, 5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.3]),
)
def test_every_operation_keeps_the_shape_and_learns_with_and_without_dropout(op, N, C, L, dropout):
    operation = OPERATIONS[op](C, L, dropout)
    x, y = (torch.randn(N, C, L, requires_grad=True) for _ in range(2))
    out = operation(x, y)
    assert out.shape == (N, C, L)
    if op != "zero":
        out.square().sum().backward()
        assert y.grad.isfinite().all()
        if op != "attention" or L > 1:  # of a single position, x has nothing to ask
            assert x.grad.isfinite().all()


def test_zero_and_sum_are_what_they_say():
    x, y = torch.randn(2, 3, 4, 5)
    assert torch.equal(Zero(4, 5)(x, y), torch.zeros(3, 4, 5))
    assert torch.equal(Sum(4, 5)(x, y), x + y)


def test_attention_is_scaled_dot_product_attention_over_positions():
    x, y = torch.randn(2, 3, 6, 5)
    attention = Attention(6, 5).eval()
    q, kv = x.transpose(1, 2), y.transpose(1, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(q, kv, kv).transpose(1, 2)
    expected = torch.nn.functional.layer_norm(expected, [6, 5])
    torch.testing.assert_close(attention(x, y), expected, rtol=1e-6, atol=1e-6)


def test_linear_glu_with_a_block_diagonal_weight_is_the_papers_formula():
    C, L = 4, 5
    x, y = torch.randn(2, 3, C, L)
    glu = LinearGLU(C, L).eval()
    W1, W2 = torch.randn(2, C, C)
    with torch.no_grad():
        glu.conv.weight.zero_()
        glu.conv.bias.zero_()
        glu.conv.weight[:C, :C, 0] = W1.T
        glu.conv.weight[C:, C:, 0] = W2.T
    xt, yt = x.transpose(1, 2), y.transpose(1, 2)
    scale = 1 / math.sqrt(1 + glu.bn.eps)
    expected = (xt @ W1 * scale) * torch.sigmoid(yt @ W2 * scale)
    torch.testing.assert_close(glu(x, y), expected.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_concat_fc_is_a_layer_on_both_inputs():
    C, L = 4, 5
    x, y = torch.randn(2, 3, C, L)
    fc = ConcatFC(C, L).eval()
    both = torch.cat([x, y], 1)
    W, b = fc.conv.weight[:, :, 0], fc.conv.bias[:, None]
    expected = ((W @ both + b) / math.sqrt(1 + fc.bn.eps)).relu()
    torch.testing.assert_close(fc(x, y), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", [op for op in BUILT_IN if OPERATIONS[op].symmetric])
def test_swapping_the_inputs_of_a_symmetric_operation_only_permutes_its_weights(op):
    C, L = 4, 5
    x, y = torch.randn(2, 3, C, L)
    one, other = (OPERATIONS[op](C, L, 0.0).eval() for _ in range(2))
    weights = {
        k: torch.cat([v[:, C:], v[:, :C]], 1) if k == "conv.weight" else v
        for k, v in one.state_dict().items()
    }
    other.load_state_dict(weights)
    torch.testing.assert_close(other(y, x), one(x, y))


@pytest.fixture
def registry():
    with OPERATIONS.restored():
        yield OPERATIONS


def test_an_operation_of_ones_own_is_one_decorated_class(registry):
    @register_operation("product", label="Product", symmetric=True)
    class Product(torch.nn.Module):
        def __init__(self, C, L, dropout):
            super().__init__()

        def forward(self, x, y):
            return x * y

    assert registry["product"] is Product and Product.label == "Product"
    assert isinstance(OPERATIONS["product"](4, 5, 0.0), Product)


def module(forward):
    return type("Operation", (torch.nn.Module,), {"__init__": _init, "forward": forward})


def _init(self, C, L, dropout):
    torch.nn.Module.__init__(self)


@pytest.mark.parametrize(
    "name, cls, message",
    [
        (
            "Product",
            module(lambda self, x, y: x),
            "operation name: found 'Product'; allowed: small",
        ),
        ("sum", module(lambda self, x, y: x), "operation 'sum' exists already: bmnas_core.ops.Sum"),
        ("f", lambda x, y: x, "operation 'f': found <function .*; allowed: an nn.Module class"),
        ("f", torch.nn.ReLU, r"operation 'f': cls\(C=4, L=3, dropout=0.0\) .* raised TypeError"),
        ("f", module(lambda self, x, y: x[:1]), r"found output \(1, 4, 3\); allowed: \(2, 4, 3\)"),
        ("f", module(lambda self, x, y: None), r"found output NoneType; allowed: \(2, 4, 3\)"),
    ],
)
def test_a_class_that_does_not_do_its_part_is_refused(registry, name, cls, message):
    before = dict(registry)
    with pytest.raises(OperationError, match=message):
        register_operation(name)(cls)
    assert registry == before


def test_an_unknown_operation_is_refused_with_the_known_ones():
    with pytest.raises(OperationError, match="found 'product'; allowed: zero, sum, attention"):
        OPERATIONS["product"]


# --- dropout and norms of rows


@pytest.mark.parametrize("p", [0.001, 0.1, 0.2, 0.5, 0.95])
def test_dropout_drops_with_its_rate_and_keeps_the_mean(p):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = Dropout(p, 8)(torch.ones(400, 100, 8))
    rate, n = max(round(256 * p), 1) / 256, out.numel()
    assert abs(rate - p) <= 1 / 256
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert float((out == 0).double().mean()) == pytest.approx(rate, abs=5 * (rate / n) ** 0.5)
    assert float(out.double().mean()) == pytest.approx(1, abs=5 * (rate / (1 - rate) / n) ** 0.5)
    # Neighbours along each axis drop independently.
    dropped = (out == 0).double() - rate
    for axis in range(3):
        neighbours = dropped.roll(1, axis)
        assert abs(float((dropped * neighbours).mean())) < 5 * rate * (1 - rate) / n**0.5


def test_dropout_is_nothing_in_evaluation_or_at_rate_0_and_its_gradient_is_its_mask():
    x = torch.rand(5, 4, 8, requires_grad=True)
    assert Dropout(0.5, 8).eval()(x) is x and Dropout(0.0, 8)(x) is x
    out = Dropout(0.5, 8)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, out / x)


def test_masks_that_are_drawn_at_once_are_used_once_and_are_different():
    layers = [Dropout(0.5, 8), Dropout(0.5, 8), Dropout(0.1, 4), Dropout(0.0, 8)]
    draw_masks(layers, 20)
    assert [layer.kept is None for layer in layers] == [False, False, False, True]
    first, second, third = (layer(torch.ones(5, 4, layer.C)) for layer in layers[:3])
    assert not torch.equal(first, second) and third.shape == (5, 4, 4)
    assert all(layer.kept is None for layer in layers)
    draw_masks(layers, 20)
    assert layers[0](torch.ones(3, 4, 8)).shape == (3, 4, 8)  # of fewer rows: drawn anew


@pytest.mark.parametrize("training", [False, True])
def test_batchnorms_that_are_joined_are_each_alone(training):
    joined = [BatchNorm(C).train(training) for C in (3, 5, 2)]
    for layer in joined:
        for value in (layer.weight, layer.bias, layer.running_mean):
            torch.nn.init.normal_(value)
    alone = copy.deepcopy(joined)
    x = torch.randn(6, 4, 10)
    expected = [one(part) for one, part in zip(alone, x.split((3, 5, 2), dim=2), strict=True)]
    torch.testing.assert_close(BatchNorm.joined(joined, x), torch.cat(expected, dim=2))
    for one, other in zip(joined, alone, strict=True):
        torch.testing.assert_close(one.running_mean, other.running_mean)
        torch.testing.assert_close(one.running_var, other.running_var)


def test_norms_of_rows_are_those_of_torch_transposed():
    x = torch.randn(6, 5, 4)  # (N, C, L)
    for own, theirs in (
        (BatchNorm(5), torch.nn.BatchNorm1d(5)),
        (LayerNorm(5, 4), torch.nn.LayerNorm([5, 4])),
    ):
        torch.nn.init.normal_(own.weight)
        theirs.load_state_dict(own.state_dict())
        torch.testing.assert_close(own(x.mT).mT, theirs(x))


@pytest.mark.parametrize("same", [False, True])
def test_a_convolution_of_rows_is_that_of_torch(same):
    conv = Conv1x1(10, 7)
    x, y = torch.randn(6, 4, 5), torch.randn(6, 4, 5)
    y = x if same else y
    expected = torch.nn.functional.conv1d(torch.cat([x, y], 2).mT, conv.weight, conv.bias).mT
    torch.testing.assert_close(conv(x, y), expected)
