"""Primitive operations and their registry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmnas_core import OperationError, register_operation
from bmnas_core.genotype import OPERATIONS
from bmnas_core.ops import Attention, ConcatFC, LinearGLU, Sum, Zero

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
