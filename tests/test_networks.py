"""Reshape layers, hypernet and fusion network: shapes, mixtures, what they refuse."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmnas_core import (
    CellGenotype,
    FeatureError,
    FusionNetwork,
    Genotype,
    Hypernet,
    StepGenotype,
    count_parameters,
    pool,
)
from bmnas_core.cells import (
    RELAXATIONS,
    MixedCell,
    MixedStep,
    edge_weights,
    register_relaxation,
    weighted_sums,
)
from bmnas_core.genotype import DEFAULT_OPERATIONS
from bmnas_core.ops import Dropout, Reshape

CHANNELS = {"Image_1": 3, "Image_2": 5, "Audio_1": 2, "Text_1": 7}
SIZES = {"C": 6, "L": 4, "N": 2, "M": 2}


def features(n=3, L=4, channels=CHANNELS):
    return {name: torch.randn(n, c, L) for name, c in channels.items()}


@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.integers(1, 9), max_size=3),
    st.integers(1, 16),
)
def test_pool_brings_any_feature_to_length_L(N, C, axes, L):
    feature = torch.randn(N, C, *axes)
    positions = L if axes else 1
    assert pool(feature, L, "time").shape == (N, C, positions)
    if len(axes) < 3:
        assert pool(feature, L, "grid").shape == (N, C, positions)


def test_pool_takes_maxima_in_reading_order():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool(image, 4).tolist() == [[[5, 7, 13, 15]]]
    video = torch.arange(24.0).reshape(1, 1, 4, 2, 3)
    assert pool(video, 2, "time").tolist() == [[[11, 23]]]
    assert pool(torch.tensor([[2.0]]), 3).tolist() == [[[2]]]


@pytest.mark.parametrize(
    "shape, pooling", [((3,), "time"), ((2, 3, 4, 5, 6), "grid"), ((2, 3), "x")]
)
def test_pool_refuses_what_it_cannot_pool(shape, pooling):
    with pytest.raises(FeatureError, match=f"pooling {pooling!r}: found a feature of shape"):
        pool(torch.zeros(shape), 4, pooling)


@pytest.mark.parametrize("kind", ["hypernet", "fusion network"])
def test_a_feature_without_positions_counts_as_equal_at_all_of_them(kind):
    torch.manual_seed(0)
    if kind == "hypernet":
        net = Hypernet(CHANNELS, 5, **SIZES)
    else:
        cell = CellGenotype(("Text_1", "Image_2"), (StepGenotype("linear_glu", ("X", "Y")),))
        net = FusionNetwork(Genotype(tuple(CHANNELS), (cell,)), CHANNELS, 5, C=6, L=4)
    once = features()
    once["Text_1"] = once["Text_1"][:, :, :1]
    repeated = once | {"Text_1": once["Text_1"].repeat(1, 1, 4)}
    for training in (True, False):
        outputs = []
        for given_features in (once, repeated):
            torch.manual_seed(1)
            outputs.append(net.train(training)(given_features))
        assert torch.equal(*outputs)
    with pytest.raises(
        FeatureError, match=r"'Text_1'.*\(3, 7, 2\); allowed: \(N, 7, 4\), or \(N, 7, 1"
    ):
        net(once | {"Text_1": torch.randn(3, 7, 2)})


def test_a_reshape_layer_changes_channels_and_keeps_length():
    assert Reshape(3, 6, 0.1)(torch.randn(2, 4, 3)).shape == (2, 4, 6)


@pytest.mark.parametrize("relaxation", ["paper", "pair"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("N, M", [(1, 1), (2, 1), (2, 2), (3, 4)])
def test_a_hypernet_runs_and_every_parameter_learns(relaxation, dropout, N, M):
    net = Hypernet(CHANNELS, 5, C=6, L=4, N=N, M=M, relaxation=relaxation, dropout=dropout)
    logits = net(features())
    assert logits.shape == (3, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_off_the_cpu_no_masks_are_drawn_that_nobody_would_use():
    given_features = {name: x.to("meta") for name, x in features().items()}
    with torch.device("meta"):
        hypernet = Hypernet(CHANNELS, 5, **SIZES, dropout=0.2)
        net = FusionNetwork(genotype(), CHANNELS, 5, C=6, L=4, dropout=0.2)
    assert hypernet(given_features).shape == net(given_features).shape == (3, 5)
    dropouts = [*hypernet.dropouts, *(dropout for dropout, _ in net.dropouts)]
    assert dropouts and all(dropout.kept is None for dropout in dropouts)


def test_architecture_parameters_are_registered_and_apart_from_the_weights():
    net = Hypernet(CHANNELS, 5, **SIZES)
    searched, weights = net.architecture_parameters(), net.weight_parameters()
    assert {id(p) for p in searched} | {id(p) for p in weights} == {id(p) for p in net.parameters()}
    assert len(searched) + len(weights) == len(list(net.parameters()))
    state = net.state_dict()
    assert {"alpha", "cells.0.beta", "cells.1.gamma"} <= set(state)
    assert net.alpha.shape == (4 + 5, 2)
    assert net.cells[0].beta.shape == (2 + 3, 2) and net.cells[0].gamma.shape == (2, 4)
    assert 0 < net.alpha.abs().max() < 0.01


def test_the_paper_relaxation_gives_x_and_y_the_same_sum_of_gated_edges():
    logits, states = torch.randn(3, 2), list(torch.randn(3, 2, 4, 5))
    (mixed,) = weighted_sums(edge_weights(RELAXATIONS["paper"], logits), states)
    expected = sum(row.softmax(0)[1] * s for row, s in zip(logits, states, strict=True))
    torch.testing.assert_close(mixed, expected)


def test_the_pair_relaxation_lets_edges_compete_for_x_and_for_y():
    logits, states = torch.randn(3, 2), list(torch.randn(3, 2, 4, 5))
    both = weighted_sums(edge_weights(RELAXATIONS["pair"], logits), states)
    for k, mixed in enumerate(both):
        weights = logits[:, k].softmax(0)
        torch.testing.assert_close(mixed, sum(w * s for w, s in zip(weights, states, strict=True)))


@pytest.mark.parametrize("relaxation", ["paper", "pair"])
def test_what_cells_read_is_mixed_edge_by_edge(relaxation):
    """All Cells' mixtures of features are one product; here they are sums of their own."""
    torch.manual_seed(0)
    net = Hypernet(CHANNELS, 5, C=6, L=4, N=3, M=1, relaxation=relaxation).eval()
    torch.nn.init.normal_(net.alpha)
    states = torch.randn(3, 4, len(CHANNELS), 6)
    nodes = list(states.unbind(2))
    for cell, logits in zip(net.cells, net.alpha.split(net.edges), strict=True):
        x, y = net.relaxation.weights(logits)
        inputs = (sum(w * s for w, s in zip(own, nodes, strict=True)) for own in (x, y))
        nodes.append(cell(*inputs))
    for mixed, expected in zip(net.mix(states), nodes[-3:], strict=True):
        torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("names", [DEFAULT_OPERATIONS, ("zero", "linear_glu", "sum"), ("zero",)])
def test_a_mixed_step_is_the_weighted_sum_of_its_operations(names, training):
    torch.manual_seed(0)
    step = MixedStep(6, 4, names, 0.0).train(training)
    for dropout in (module for module in step.modules() if isinstance(module, Dropout)):
        dropout.p = 0.0  # attention has some of its own
    x, y = torch.randn(2, 3, 4, 6)
    weights = torch.rand(1, len(names))
    alone = (step.alone(name, x, y) for name in names)
    expected = sum(weight * out for weight, out in zip(weights[0], alone, strict=True))
    torch.testing.assert_close(step(weights, x, y), expected)


def test_a_mixed_cell_with_certain_weights_is_the_discrete_cell():
    """With one operation and one edge holding all the weight, the mixture is what derives."""
    torch.manual_seed(0)
    mixed = MixedCell(6, 4, 1, ("sum", "concat_fc"), 0.0, RELAXATIONS["pair"]).eval()
    with torch.no_grad():
        mixed.beta.copy_(torch.tensor([[50.0, -50.0], [-50.0, 50.0]]))
        mixed.gamma.copy_(torch.tensor([[-50.0, 50.0]]))
    x, y = torch.randn(2, 3, 4, 6)
    step = mixed.steps[0].alone("concat_fc", x, y)
    torch.testing.assert_close(mixed(x, y), mixed.output.ln(step + x))


def test_a_relaxation_of_ones_own_is_one_decorated_class():
    @register_relaxation("first")
    class First:
        columns = ("X", "Y")

        @staticmethod
        def weights(logits):
            only = torch.zeros(len(logits))
            only[0] = 1
            return only, only

    try:
        net = Hypernet(CHANNELS, 5, **SIZES, relaxation="first")
        assert net(features()).shape == (3, 5)
    finally:
        del RELAXATIONS["first"]


# --- fusion network


def genotype(inputs=("Image_2", "Audio_1")):
    return Genotype.from_json(
        '{"format": "bmnas-genotype/1", "features": ["Image_1", "Image_2", "Audio_1", "Text_1"],'
        f' "cells": [{{"inputs": ["{inputs[0]}", "{inputs[1]}"],'
        ' "steps": [{"op": "attention", "inputs": ["X", "Y"]},'
        ' {"op": "linear_glu", "inputs": ["X", "S1"]}]},'
        ' {"inputs": ["C1", "Image_2"], "steps": [{"op": "sum", "inputs": ["X", "Y"]}]}]}'
    )


def test_a_fusion_network_reads_only_the_features_it_uses():
    net = FusionNetwork(genotype(), CHANNELS, 5, C=6, L=4)
    used = {name: f for name, f in features().items() if name in ("Image_2", "Audio_1")}
    assert net(used).shape == (3, 5)
    assert list(net.reshape.channels) == ["Image_2", "Audio_1"]


def test_a_fusion_network_is_the_formula():
    net = FusionNetwork(genotype(), CHANNELS, 5, C=6, L=4).eval()
    given_features = features()
    a, b = net.reshape(given_features).unbind(2)
    one, two = net.cells
    s1 = one.steps[0].rows(a, b)
    s2 = one.steps[1].rows(a, s1)
    c1 = one.output.ln(one.output.reduce(torch.cat([s1, s2], 2)) + a)
    c2 = two.output.ln(c1 + a + c1)
    fused = net.classifier.ln(torch.cat([c1, c2], 2)).relu().mT.flatten(1)
    torch.testing.assert_close(net(given_features), net.classifier.linear(fused))


def test_parameters_are_counted():
    assert count_parameters(torch.nn.Linear(3, 2)) == 8
    frozen = torch.nn.Linear(3, 2).requires_grad_(False)
    assert count_parameters(frozen) == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (("Audio_1", None), "missing is 'Audio_1', which the network reads"),
        (("Audio_1", torch.zeros(3, 9, 4)), r"feature 'Audio_1': found shape \(3, 9, 4\); allowed"),
        (("Audio_1", torch.zeros(3, 2, 5)), r"allowed: \(N, 2, 4\)"),
        (("Image_2", torch.zeros(3, 5)), r"feature 'Image_2': found shape \(3, 5\); allowed"),
    ],
)
def test_features_that_do_not_fit_are_refused_by_name(change, message):
    name, value = change
    given_features = {**features(), name: value}
    if value is None:
        del given_features[name]
    nets = (FusionNetwork(genotype(), CHANNELS, 5, C=6, L=4), Hypernet(CHANNELS, 5, **SIZES))
    for net in nets:
        with pytest.raises(FeatureError, match=message):
            net(given_features)


def test_a_genotype_with_a_feature_of_another_task_is_refused():
    with pytest.raises(FeatureError, match="found feature 'Image_2'; allowed: Audio_1"):
        FusionNetwork(genotype(), {"Audio_1": 2}, 5, C=6, L=4)


def test_any_number_of_modalities_and_features():
    for counts in itertools.product((1, 3), repeat=3):
        channels = {f"M{m}_{i}": 2 for m, n in enumerate(counts) for i in range(n)}
        net = Hypernet(channels, 2, C=4, L=4, N=2, M=1)
        assert net(features(channels=channels)).shape == (3, 2)


STEPS = {
    "sums": (("sum", ("X", "Y")), ("sum", ("X", "S1")), ("sum", ("Y", "S2"))),
    "AoA": (("attention", ("X", "Y")), ("linear_glu", ("X", "S1"))),
    "concat": (("concat_fc", ("X", "Y")),),
    "gate": (("linear_glu", ("X", "Y")),),
}


@pytest.mark.parametrize(
    "task, fusion_models, classes, C, L, cells, here, reported",
    [
        (
            "mmimdb", {"Image": (512,) * 4, "Text": (64, 128)}, 23, 192, 16,
            ((("Image_4", "Text_1"), "concat"), (("C1", "Text_1"), "gate")), 500_567, "0.65 M",
        ),
        (
            "ntu",
            {"Video": (512, 1024, 2048, 2048), "Skeleton": (128, 256, 1024, 512)}, 60, 128, 8,
            ((("Video_4", "Skeleton_4"), "AoA"), (("Video_3", "Skeleton_4"), "AoA")),
            925_116, "0.98 M",
        ),
        (
            "egogesture",
            {"RGB": (512, 1024, 2048, 2048), "Depth": (512, 1024, 2048, 2048)}, 83, 128, 8,
            ((("Depth_1", "RGB_2"), "sums"), (("Depth_2", "RGB_2"), "sums")), 606_163, "0.61 M",
        ),
    ],
)  # fmt: skip
def test_the_papers_networks_are_as_large_as_the_readme_says(
    task, fusion_models, classes, C, L, cells, here, reported, page_tables
):
    channels = {f"{m}_{i + 1}": c for m, taps in fusion_models.items() for i, c in enumerate(taps)}
    genotype = Genotype(
        tuple(channels),
        tuple(
            CellGenotype(pair, tuple(StepGenotype(*step) for step in STEPS[steps]))
            for pair, steps in cells
        ),
    )
    with torch.device("meta"):
        net = FusionNetwork(genotype, channels, classes, C=C, L=L)
    assert count_parameters(net) == here
    (table,) = (table for table in page_tables if "egogesture" in "".join(table[0]))
    column = [cell.strip("` ") for cell in table[0]].index(task)
    (row,) = (row for row in table if "parameters" in row[0])
    assert row[column].strip() == f"{here / 1e6:.2f} M; {reported}"
