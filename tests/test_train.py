"""Training and testing fusion networks."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import f1_score
from strategies import genotypes
from tiny import in_files, recording_bank, tiny_task

from bmnas_core import (
    ConfigError,
    FeatureBank,
    FeatureError,
    FusionNetwork,
    Genotype,
    TaskError,
    TrainConfig,
    TrainError,
    count_parameters,
    evaluate,
    fit,
    network_cost,
    optimizers,
    train,
    train_backbone,
)
from bmnas_core.config import Settings
from bmnas_core.features import RawInputs
from bmnas_core.losses import metric_of
from bmnas_core.metrics import METRICS
from bmnas_core.tasks import DataWarning
from bmnas_core.train import EndToEnd, Unimodal, _micro_batches, outputs_of

TEXT = """{"format": "bmnas-genotype/1",
 "features": ["Image_1", "Image_2", "Audio_1", "Audio_2"],
 "cells": [{"inputs": ["Image_2", "Audio_1"],
            "steps": [{"op": "attention", "inputs": ["X", "Y"]},
                      {"op": "linear_glu", "inputs": ["X", "S1"]}]}]}"""
GENOTYPE = Genotype.from_json(TEXT)
QUICK = {"device": "cpu", "progress": False}


def test_training_learns_and_records_each_epoch():
    task = tiny_task()
    net, history = train(GENOTYPE, task, TrainConfig(epochs=12, data="train"), **QUICK)
    assert not net.training and isinstance(net, FusionNetwork)
    assert [record["epoch"] for record in history] == list(range(1, 13))
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["validation_score"] == evaluate(net, task, "validation")
    assert evaluate(net, task, "test") > 0.6
    assert all(record["seconds"] > 0 for record in history)


def test_train_and_validation_together_leave_nothing_to_validate_on():
    task = tiny_task()
    _, history = train(GENOTYPE, task, TrainConfig(epochs=1), **QUICK)
    assert history[0]["validation_score"] is None


@pytest.mark.parametrize("data, n", [("train", 48), ("train+validation", 72)])
def test_only_the_data_asked_for_are_trained_on(data, n):
    task = tiny_task()
    bank, read = recording_bank(task)
    train(GENOTYPE, task, TrainConfig(epochs=1, data=data), bank=bank, **QUICK)
    trained = torch.cat([rows for split, rows in read if split == data])
    assert sorted(trained.tolist())[:n] == list(range(n))
    assert "test" not in {split for split, _ in read}


def test_the_same_seed_gives_the_same_network_to_the_bit():
    seeds = 1, np.int64(1), 2
    nets = [train(GENOTYPE, tiny_task(), seed=seed, **QUICK)[0] for seed in seeds]
    states = [torch.cat([v.flatten().float() for v in net.state_dict().values()]) for net in nets]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_works_with_and_without_dropout(dropout):
    net, history = train(GENOTYPE, tiny_task(), TrainConfig(dropout=dropout, epochs=6), **QUICK)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    dropouts = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts.count(dropout) >= 4


def share_of_hits(net, task) -> float:
    """Accuracy on test of a network that reads raw inputs, computed here."""
    split = task.split("test")
    inputs = {m.name: m.inputs[split.index[:, k]] for k, m in enumerate(task.modalities)}
    with torch.no_grad():
        hits = net.eval()(inputs).argmax(1) == split.labels
    return float(hits.double().mean())


def test_joint_fine_tuning_trains_backbones_of_its_own():
    task = tiny_task()
    before = {k: v.clone() for k, v in task.modalities[0].backbone.state_dict().items()}
    net, _ = train(GENOTYPE, task, TrainConfig(finetune=True, epochs=2), **QUICK)
    assert isinstance(net, EndToEnd)
    for key, value in before.items():
        assert torch.equal(task.modalities[0].backbone.state_dict()[key], value)
        if key.startswith("layers.1"):  # Image_2, the feature that the genotype uses
            assert not torch.equal(net.backbones[0].state_dict()[key], value)
    assert evaluate(net, task, "test") == share_of_hits(net, task)


def test_training_goes_on_from_a_trained_network_and_leaves_it_alone():
    task = tiny_task()
    first, history = train(GENOTYPE, task, TrainConfig(epochs=12), **QUICK)
    before = {k: v.clone() for k, v in first.state_dict().items()}
    config = TrainConfig(epochs=1, finetune=True, max_lr=1e-4)
    net, more = train(GENOTYPE, task, config, start=first, **QUICK)
    assert more[0]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert all(torch.equal(before[k], v) for k, v in first.state_dict().items())
    assert not torch.equal(net.fusion.classifier.linear.weight, first.classifier.linear.weight)
    for wrong, sizes in ((3, {}), (torch.nn.Linear(2, 2), {}), (first, {"C": 16})):
        with pytest.raises(TrainError, match="start: found .*; allowed: a FusionNetwork of the s"):
            train(GENOTYPE, task, TrainConfig(**sizes), start=wrong, **QUICK)


def test_backbones_have_a_learning_rate_of_their_own():
    task = tiny_task()
    slow = TrainConfig(finetune=True, epochs=1, backbone_lr=1e-12, weight_decay=0.0, min_lr=0.0)
    net, _ = train(GENOTYPE, task, slow, **QUICK)
    for one, other in zip(
        net.backbones[0].parameters(), task.modalities[0].backbone.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_joint_fine_tuning_reads_files_and_keeps_the_backbones_in_evaluation_mode(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    task.modalities[0].backbone.layers[1] = torch.nn.Sequential(
        torch.nn.Conv1d(4, 6, 1), torch.nn.BatchNorm1d(6), torch.nn.Dropout(1.0)
    )
    config = TrainConfig(finetune=True, epochs=2, micro_batch=5)
    net, history = train(GENOTYPE, task, config, **QUICK)
    before, after = task.modalities[0].backbone.layers[1], net.backbones[0].layers[1]
    assert not torch.equal(before[0].weight, after[0].weight)
    assert not torch.equal(before[1].weight, after[1].weight)
    assert torch.equal(before[1].running_mean, after[1].running_mean)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    again, _ = train(GENOTYPE, task, config, **QUICK)
    assert torch.equal(net.backbones[0].fc.weight, again.backbones[0].fc.weight)
    assert torch.equal(after[0].weight, again.backbones[0].layers[1][0].weight)
    assert evaluate(net, task, "test") == share_of_hits(net, task)


def test_gradients_added_up_over_micro_batches_are_those_of_the_batch(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    weights = []
    for micro_batch in (None, 16, 7, 2):
        net = Unimodal(task.modalities[0])
        net.backbone = copy.deepcopy(net.backbone)
        config = TrainConfig(data="train", epochs=2, batch_size=16, micro_batch=micro_batch)
        source = RawInputs(task, modalities=("Image",), workers=0)
        fit(
            net,
            task,
            source,
            config.with_defaults(task.config),
            seed=0,
            progress=False,
            validate=False,
        )
        weights.append(net.backbone.layers[1].weight)
    assert not torch.equal(weights[0], task.modalities[0].backbone.layers[1].weight)
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9, 96])
@pytest.mark.parametrize("size", [None, 2, 3, 8, 200])
def test_no_micro_batch_has_one_sample_alone(n, size):
    parts = _micro_batches(torch.arange(n), size)
    assert torch.equal(torch.cat(parts), torch.arange(n))
    assert min(map(len, parts)) >= 2
    assert size is None or max(map(len, parts)) <= max(size, 3)


@pytest.mark.slow
def test_a_backbone_learns_alone_from_its_own_modality_and_the_training_split(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    task = replace(task, backbone_config={"Audio": Settings(epochs=8, max_lr=0.05)})
    before = copy.deepcopy(task.modalities[0].backbone)
    net, history = train_backbone(task, "Audio", seed=0, device="cpu", progress=False)
    assert len(history) == 8 and history[-1]["validation_score"] > 0.5
    assert net.backbone is task.modalities[1].backbone and not net.backbone.training
    assert torch.equal(before.layers[0].weight, task.modalities[0].backbone.layers[0].weight)
    assert evaluate(net, task, "validation") == history[-1]["validation_score"]
    for item in task.items("train", "Audio").tolist():
        (tmp_path / "Audio" / f"{item}.npy").unlink()
    with pytest.warns(DataWarning), pytest.raises(TrainError, match="none of 48 samples can be r"):
        train_backbone(task, "Audio", device="cpu", progress=False)
    modalities = [replace(modality, classes=None) for modality in tiny_task().modalities]
    unlabelled = replace(tiny_task(), modalities=tuple(modalities))
    for found, error, message in (
        ((task, "Video"), TaskError, "modality: found 'Video'; allowed: Image, Audio"),
        ((unlabelled, "Image"), TrainError, "found TinyBackbone; allowed: one with classify"),
    ):
        with pytest.raises(error, match=message):
            train_backbone(*found, device="cpu")


def test_samples_that_cannot_be_read_are_left_out_of_live_training_and_counted(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    for item in (0, 7, 50, 80):
        (tmp_path / "Image" / f"{item}.npy").write_bytes(b"")
    with pytest.warns(DataWarning) as caught:
        net, _ = train_backbone(task, "Image", TrainConfig(epochs=2), device="cpu", progress=False)
    said = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    assert said[0].startswith("items that cannot be read: 2 left out: ")
    with pytest.warns(DataWarning, match="cannot be read: 1 left out"):
        logits, labels = outputs_of(net, task, RawInputs(task, modalities=("Image",)), "test")
    assert len(logits) == len(labels) == 23


def test_multi_label_tasks_use_binary_cross_entropy_and_weighted_f1():
    task = tiny_task(metric="weighted_f1")
    net, history = train(GENOTYPE, task, TrainConfig(epochs=12), **QUICK)
    logits, labels = outputs_of(net, task, FeatureBank.shared(task, None, "cpu"), "test")
    expected = f1_score(labels, logits.sigmoid() > 0.5, average="weighted", zero_division=0)
    assert evaluate(net, task, "test") == pytest.approx(expected)
    assert expected > 0.5
    loss = metric_of(task).loss(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.long))
    assert float(loss) == pytest.approx(0.6931, abs=1e-4)


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert METRICS["accuracy"].score(logits, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)


def test_evaluation_neither_trains_nor_leaves_training_mode():
    task = tiny_task()
    net, _ = train(GENOTYPE, task, TrainConfig(epochs=1), **QUICK)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert evaluate(net, task, "validation") == evaluate(net, task, "validation")
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_the_learning_rate_falls_along_cosines_that_restart():
    config = TrainConfig(epochs=7, restart=1, max_lr=1e-2, min_lr=1e-4, batch_size=8)
    _, history = train(GENOTYPE, tiny_task(), config, **QUICK)
    lr = [record["lr"] for record in history]
    assert lr[1] > lr[2] > 1e-4 and lr[3] > lr[4] > lr[5] > lr[6] > 1e-4
    assert lr[3] > lr[2] and max(lr) < 1e-2


def test_a_genotype_of_another_task_is_refused():
    other = tiny_task(("Image", "Text"))
    with pytest.raises(
        TrainError, match="found features Image_1, .*; allowed: those of task 'tiny"
    ):
        train(GENOTYPE, other, **QUICK)


def test_a_bank_of_another_task_is_refused():
    other = tiny_task(channels=(7, 8))
    net, _ = train(GENOTYPE, tiny_task(), TrainConfig(epochs=1), **QUICK)
    with pytest.raises(
        FeatureError, match="bank: found one made of other data, .* 'tiny'; allowed"
    ):
        train(GENOTYPE, tiny_task(), bank=FeatureBank(other), **QUICK)
    with pytest.raises(FeatureError, match="bank: found one made of other data"):
        evaluate(net, tiny_task(), bank=FeatureBank(other))
    with pytest.raises(TrainError, match="genotype: found str; allowed: a Genotype"):
        train("genotype.json", tiny_task(), **QUICK)


def test_a_loss_that_is_not_finite_stops_the_training():
    task = tiny_task()
    config = TrainConfig(epochs=2).with_defaults(task.config)
    net = FusionNetwork(GENOTYPE, task.channels, 3, C=config.C, L=config.L)
    with torch.no_grad():
        net.classifier.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainError, match="training loss in epoch 1: found nan; allowed: finite"):
        fit(net, task, FeatureBank(task), config, progress=False)


def test_an_unknown_split_is_refused():
    task = tiny_task()
    net, _ = train(GENOTYPE, task, TrainConfig(epochs=1), **QUICK)
    with pytest.raises(TaskError, match="split: found 'dev'; allowed: train, validation, test"):
        evaluate(net, task, "dev")


# --- what is told of each epoch


def test_each_epoch_is_told_when_it_ends_and_training_is_the_same():
    told, lengths = [], []
    config = TrainConfig(epochs=3, data="train")

    def on_epoch(record):
        told.append(record)
        lengths.append(len(told))
        torch.rand(5)

    net, history = train(GENOTYPE, tiny_task(), config, on_epoch=on_epoch, **QUICK)
    assert told == history and lengths == [1, 2, 3]
    assert all(record["validation_score"] is not None for record in told)
    alone, _ = train(GENOTYPE, tiny_task(), config, **QUICK)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])


def test_what_is_raised_at_the_end_of_an_epoch_ends_the_training():
    told = []

    def on_epoch(record):
        told.append(record["epoch"])
        if len(told) == 2:
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        train(GENOTYPE, tiny_task(), TrainConfig(epochs=5), on_epoch=on_epoch, **QUICK)
    assert told == [1, 2]


# --- what a network costs


def multiplications(genotype, channels, C, L, classes) -> int:
    """Multiplications and additions of a fusion network on one sample, counted by hand."""
    total = sum(2 * channels[name] * C * L for name in genotype.used_features)
    each = {
        "zero": 0,
        "sum": 0,
        "attention": 2 * (2 * L * L * C),
        "linear_glu": 2 * (2 * C) * (2 * C) * L,
        "concat_fc": 2 * (2 * C) * C * L,
    }
    for cell in genotype.cells:
        total += sum(each[step.op] for step in cell.steps)
        total += 2 * len(cell.steps) * C * C * L if len(cell.steps) > 1 else 0
    return total + 2 * len(genotype.cells) * C * L * classes


@pytest.mark.slow
@settings(max_examples=20)
@given(genotypes(features=tiny_task().features, max_cells=3, max_steps=3))
def test_the_cost_of_a_network_is_its_parameters_and_its_multiplications(genotype):
    task = tiny_task()
    for C, L in ((8, 4), (3, 5)):
        net = FusionNetwork(genotype, task.channels, 3, C=C, L=L)
        expected = count_parameters(net), multiplications(genotype, task.channels, C, L, 3)
        assert network_cost(genotype, task, TrainConfig(C=C, L=L)) == expected


def test_the_cost_is_that_of_the_network_that_training_gives_and_path_samples_no_random_numbers():
    task = tiny_task(classes=5, metric="weighted_f1")
    before = torch.get_rng_state()
    parameters, operations = network_cost(GENOTYPE, task)
    assert torch.equal(torch.get_rng_state(), before)
    net, _ = train(GENOTYPE, task, TrainConfig(epochs=1), **QUICK)
    assert parameters == count_parameters(net)
    assert operations == multiplications(GENOTYPE, task.channels, 8, 4, 5)


def test_the_cost_of_a_genotype_of_another_task_is_refused():
    with pytest.raises(TrainError, match="found features Image_1, .*; allowed: those of task"):
        network_cost(GENOTYPE, tiny_task(("Image", "Text")))
    with pytest.raises(TrainError, match="genotype: found str; allowed: a Genotype"):
        network_cost("genotype.json", tiny_task())


@pytest.mark.gpu
def test_training_on_the_gpu_ends_near_the_one_on_the_cpu():
    config = TrainConfig(dropout=0.0, epochs=1)
    losses = [
        train(GENOTYPE, tiny_task(), config, device=d, progress=False)[1][0]["train_loss"]
        for d in ("cpu", "cuda")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("call", [train, network_cost])
def test_what_is_no_task_or_no_config_is_refused(call):
    task = tiny_task()
    genotype = GENOTYPE
    with pytest.raises(TaskError, match="task: found int; allowed: a Task"):
        call(genotype, 3)
    with pytest.raises(ConfigError, match="config: found dict; allowed: a TrainConfig"):
        call(genotype, task, {"epochs": 1})


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_optimisers_make_the_steps_of_pytorchs(kind):
    own, theirs = (getattr(m, kind) for m in (optimizers, torch.optim))
    nets = [torch.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    pair = [make(net.parameters(), 0.1) for make, net in zip((own, theirs), nets, strict=True)]
    x = torch.randn(7, 5)
    for _ in range(4):
        for net, optimizer in zip(nets, pair, strict=True):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    assert not nets[0].weight.grad.requires_grad and nets[0].weight.requires_grad
    pair[0].load_state_dict(pair[1].state_dict())
