"""Networks that are trained together are the networks that are trained alone."""

import copy
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task

from bmnas_core import (
    FeatureBank,
    FusionNetwork,
    Genotype,
    TrainConfig,
    TrainError,
    evaluate,
    register_operation,
    train,
)
from bmnas_core.baselines.architectures import random_genotype
from bmnas_core.ensemble import FusionEnsemble, build_ensemble, ensemble_loss, train_together
from bmnas_core.genotype import DEFAULT_OPERATIONS, OPERATIONS, CellGenotype, StepGenotype
from bmnas_core.runtime import seeded
from bmnas_core.train import adam, fit_by_epoch, fusion_network

QUICK = {"device": "cpu", "seeds": (3,)}
ALONE = {"device": "cpu", "seed": 3, "progress": False}
AOA = (StepGenotype("attention", ("X", "Y")), StepGenotype("linear_glu", ("X", "S1")))
FEATURES = ("Image_1", "Image_2", "Audio_1", "Audio_2")


def one_cell(pair, steps=AOA):
    return Genotype(FEATURES, (CellGenotype(pair, steps),))


@pytest.mark.parametrize("metric", ["accuracy", "weighted_f1"])
def test_each_network_of_an_ensemble_is_as_trained_alone(metric):
    task, config = tiny_task(metric=metric), TrainConfig(data="train", epochs=4)
    genotypes = [one_cell(pair) for pair in (FEATURES[:2], FEATURES[1:3], FEATURES[2:])]
    nets = train_together(genotypes, task, config, **QUICK)
    features, _ = FeatureBank(task).batch("test", torch.arange(24))
    for genotype, net in zip(genotypes, nets, strict=True):
        alone, _ = train(genotype, task, config, **ALONE)
        assert net.genotype == genotype and not net.training
        assert net.signature == alone.signature is not None
        torch.testing.assert_close(net(features), alone(features), rtol=0, atol=0.02)
        scores = evaluate(net, task, "test"), evaluate(alone, task, "test")
        assert scores[0] == pytest.approx(scores[1], abs=0.02)  # one answer may be a close call


def test_each_seed_of_an_ensemble_has_its_own_initial_weights_and_batches():
    task, config = tiny_task(), TrainConfig(data="train", epochs=3, dropout=0.0)
    seeds, glu = (3, 5, 8), (StepGenotype("linear_glu", ("X", "Y")),)
    genotypes = [one_cell(pair, glu) for pair in (FEATURES[:2], FEATURES[2:])]
    nets = train_together(genotypes, task, config, seeds=seeds, device="cpu")
    features, _ = FeatureBank(task).batch("test", torch.arange(24))
    assert [net.genotype for net in nets] == genotypes * 3
    outputs = [net(features) for net in nets]
    for (seed, genotype), output in zip(product(seeds, genotypes), outputs, strict=True):
        alone, _ = train(genotype, task, config, device="cpu", seed=seed, progress=False)
        torch.testing.assert_close(output, alone(features), rtol=0, atol=0.02)
    assert (outputs[0] - outputs[2]).abs().max() > 0.1


@pytest.mark.parametrize(("groups", "distinct"), [(1, 1), (2, 2)])
def test_networks_of_a_seed_share_dropout_masks(groups, distinct):
    task, genotype = tiny_task(), one_cell(FEATURES[:2], (StepGenotype("linear_glu", ("X", "Y")),))
    config = TrainConfig(dropout=0.5).with_defaults(task.config)
    ensemble = build_ensemble([genotype] * (4 // groups), task, config, (3,) * groups)
    features, _ = FeatureBank(task).batch("train", torch.arange(24).expand(groups, -1))
    assert len(ensemble(features).detach().unique(dim=0)) == distinct


def random_nets(count, N=2, M=2, seed=0, dropout=0.3, operations=DEFAULT_OPERATIONS):
    """Networks of any genotypes, in double precision: apart from rounding, chaos is not in play."""
    task, random = tiny_task(), torch.Generator().manual_seed(seed)
    genotypes = [random_genotype(FEATURES, N, M, random, operations) for _ in range(count)]
    sizes = {"C": 6, "L": 4, "dropout": dropout}
    return [FusionNetwork(g, task.channels, 3, **sizes).double() for g in genotypes]


def some_features(seed):
    random = torch.Generator().manual_seed(seed)
    channels = tiny_task().channels.items()
    features = {k: torch.randn(5, c, 4, generator=random).double() for k, c in channels}
    return features | {"Audio_2": features["Audio_2"][:, :, :1]}  # one without positions


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_steps_may_be_zero(seed):
    """Outputs alone: where BatchNorm sees a constant, rounding decides which way ReLU's goes."""
    nets = random_nets(4, seed=seed, operations=(*DEFAULT_OPERATIONS, "zero"))
    ensemble, features = FusionEnsemble(nets).double().eval(), some_features(seed)
    expected = torch.stack([net.eval()(features) for net in nets])
    torch.testing.assert_close(ensemble(features), expected)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6))
def test_outputs_gradients_and_statistics_are_those_of_each_network(seed, N, M, count):
    nets = random_nets(count, N, M, seed)
    ensemble, features = FusionEnsemble(nets).double(), some_features(seed)
    with seeded(seed, "dropout"):  # whatever other threads draw
        together = ensemble.train()(features)
    together.square().sum().backward()
    gradients = {}
    for layers in (m for m in ensemble.modules() if hasattr(m, "layers")):
        for name, parameter in layers.named_parameters(recurse=False):
            for layer, own in zip(layers.layers, parameter.grad, strict=True):
                gradients[getattr(layer, name)] = layers.turned(own)
    for net, output in zip(nets, together, strict=True):
        alone = copy.deepcopy(net).train()
        with seeded(seed, "dropout"):
            expected = alone(features)
        torch.testing.assert_close(output, expected)
        expected.square().sum().backward()
        for own, parameter in zip(net.parameters(), alone.parameters(), strict=True):
            expected = torch.zeros_like(own) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradients[own], expected)
    ensemble.networks()
    torch.testing.assert_close(
        torch.stack([net.eval()(features) for net in nets]), ensemble.eval()(features)
    )


def test_networks_that_are_kept_train_on_as_if_they_had_been_alone_from_the_start():
    task, config = (
        tiny_task(),
        TrainConfig(data="train", epochs=4).with_defaults(tiny_task().config),
    )
    bank, random = FeatureBank(task), torch.Generator().manual_seed(2)
    genotypes = [random_genotype(FEATURES, 2, 2, random) for _ in range(6)]

    def trained(genotypes, kept):
        ensemble = build_ensemble(genotypes, task, config, (3,))
        how = {"seed": 3, "loss": ensemble_loss(task), "validate": False}
        how["optimizer"] = adam(ensemble, config)
        records = fit_by_epoch(ensemble, task, bank, config, **how)
        next(records), next(records)
        ensemble.keep(kept, how["optimizer"])
        assert ensemble.genotypes == tuple(genotypes[k] for k in sorted(kept))
        for _ in fit_by_epoch(ensemble, task, bank, config, done=2, **how):
            pass
        return ensemble.networks()

    some, all_of_them = trained(genotypes, [4, 1]), trained(genotypes, range(6))
    features, _ = bank.batch("test", torch.arange(24))
    for net, k in zip(some, (1, 4), strict=True):
        expected = all_of_them[k].eval()(features)
        torch.testing.assert_close(net.eval()(features), expected, rtol=0, atol=1e-3)


def test_a_registered_operation_may_be_in_an_ensemble():
    @register_operation("difference", label="Difference")
    class Difference(torch.nn.Module):
        def __init__(self, C, L, dropout):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.rand(C, L))

        def forward(self, x, y):
            assert x.shape[1:] == y.shape[1:] == self.scale.shape  # (N, C, L)
            return self.scale * (x - y)

    try:
        own = (StepGenotype("difference", ("X", "Y")), StepGenotype("concat_fc", ("X", "S1")))
        genotypes = [
            one_cell(FEATURES[:2], own),
            one_cell(FEATURES[1:3]),
            one_cell(FEATURES[2:], own),
        ]
        task, config = tiny_task(), TrainConfig(dropout=0.0, epochs=1)
        nets = train_together(genotypes, task, config, **QUICK)
        features, _ = FeatureBank(task).batch("test", torch.arange(24))
        for genotype, net in zip(genotypes, nets, strict=True):
            alone, _ = train(genotype, task, config, **ALONE)
            torch.testing.assert_close(net(features), alone(features), rtol=0, atol=1e-3)
    finally:
        del OPERATIONS["difference"]


def test_networks_of_two_cells_can_be_an_ensemble():
    task = tiny_task()
    genotypes = [
        Genotype(FEATURES, (CellGenotype(pair, AOA), CellGenotype(("C1", pair[1]), AOA[:1])))
        for pair in (("Image_1", "Audio_1"), ("Image_2", "Audio_2"))
    ]
    nets = train_together(genotypes, task, **QUICK)
    alone, _ = train(genotypes[1], task, **ALONE)
    features, _ = FeatureBank(task).batch("test", torch.arange(5))
    torch.testing.assert_close(nets[1](features), alone(features), rtol=0, atol=0.02)


def test_networks_of_an_ensemble_may_read_features_without_positions():
    task = tiny_task(embedding=True)
    genotypes = [one_cell(pair) for pair in (("Image_1", "Audio_2"), ("Image_2", "Audio_1"))]
    nets = train_together(genotypes, task, **QUICK)
    features, _ = FeatureBank(task).batch("test", torch.arange(5))
    for genotype, net in zip(genotypes, nets, strict=True):
        alone, _ = train(genotype, task, **ALONE)
        torch.testing.assert_close(net(features), alone(features), rtol=0, atol=0.02)


def test_networks_that_cannot_be_an_ensemble_are_refused():
    task = tiny_task()
    allowed = "of one: C, L, dropout, classes, Cells, steps"
    with pytest.raises(TrainError, match=f"found networks of 2 sizes; allowed: {allowed}"):
        train_together([one_cell(FEATURES[:2]), one_cell(FEATURES[:2], AOA[:1])], task, **QUICK)
    with pytest.raises(TrainError, match="found networks of 0 sizes"):
        FusionEnsemble([])
    nets = [fusion_network(one_cell(pair), task, task.config) for pair in combinations(FEATURES, 2)]
    with pytest.raises(TrainError, match="found 6 networks; allowed: 4 groups of equal size"):
        FusionEnsemble(nets, 4)
    gaps = FusionNetwork(one_cell(FEATURES[:2]), task.channels, 3, C=6, L=4, gaps=True)
    with pytest.raises(TrainError, match="found networks with gaps"):
        FusionEnsemble([gaps])
    with pytest.raises(TrainError, match="finetune: found True"):
        train_together([one_cell(FEATURES[:2])], task, TrainConfig(finetune=True), **QUICK)
