"""Networks that are trained together are the networks that are trained alone."""

from itertools import combinations, product

import pytest
import torch
from tiny import tiny_task

from bmnas_core import FeatureBank, Genotype, TrainConfig, TrainError, evaluate, train
from bmnas_core.benchmark.ensemble import ModelEnsemble, build_ensemble, shape_of, train_together
from bmnas_core.genotype import CellGenotype, StepGenotype
from bmnas_core.train import fusion_network

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


@pytest.mark.parametrize(("groups", "distinct"), [(1, 1), (2, 4)])
def test_networks_share_dropout_masks_only_if_there_is_one_seed(groups, distinct):
    task, genotype = tiny_task(), one_cell(FEATURES[:2], (StepGenotype("linear_glu", ("X", "Y")),))
    config = TrainConfig(dropout=0.5).with_defaults(task.config)
    ensemble = build_ensemble([genotype] * (4 // groups), task, config, (3,) * groups)
    features, _ = FeatureBank(task).batch("train", torch.arange(24).expand(groups, -1))
    assert len(ensemble(features).detach().unique(dim=0)) == distinct


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


def test_networks_of_one_shape_differ_only_in_their_features():
    a, b = one_cell(("Image_1", "Audio_2")), one_cell(("Image_2", "Audio_1"))
    assert shape_of(a) == shape_of(b)
    assert shape_of(a) != shape_of(one_cell(("Audio_2", "Image_1")))
    assert shape_of(a) != shape_of(one_cell(("Image_1", "Audio_2"), AOA[:1]))


def test_networks_that_cannot_be_an_ensemble_are_refused():
    task = tiny_task()
    with pytest.raises(TrainError, match="found networks of 2 shapes; allowed: of one"):
        train_together([one_cell(FEATURES[:2]), one_cell(FEATURES[:2], AOA[:1])], task, **QUICK)
    with pytest.raises(TrainError, match="found networks of 0 shapes"):
        ModelEnsemble([], task.channels)
    nets = [fusion_network(one_cell(pair), task, task.config) for pair in combinations(FEATURES, 2)]
    with pytest.raises(TrainError, match="found networks that are not 2 groups of the same"):
        ModelEnsemble(nets, task.channels, 2)
    with pytest.raises(TrainError, match="finetune: found True"):
        train_together([one_cell(FEATURES[:2])], task, TrainConfig(finetune=True), **QUICK)
