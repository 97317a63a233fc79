"""Samples that lack a modality: told by a mask, known to the network, used and not left out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bmnas_core as bm
from bmnas_core.baselines import BASELINES, compare
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.ensemble import train_together
from bmnas_core.networks import FusionNetwork, Hypernet
from bmnas_core.tasks.folds import all_samples, make_folds
from bmnas_core.train import drop_modalities, fusion_network

N = 120
SMALL = Settings(C=8, L=2, N=2, M=2, epochs=15, batch_size=32, dropout=0.0, max_lr=1e-2)
QUICK = SearchSettings(selection="argmax", epochs=2, tuning_epochs=0)


def arrays() -> tuple[dict[str, np.ndarray], np.ndarray]:
    random, labels = np.random.default_rng(0), np.arange(N) % 3
    signal = 2.5 * np.eye(3)[labels]
    features = {
        "Image": (signal[:, :, None] + random.normal(size=(N, 3, 4))),
        "Audio": signal + random.normal(size=(N, 3)),
        "Text": random.normal(size=(N, 5)),
    }
    return features, labels


def own_task(share: float = 0.4, **changes) -> bm.Task:
    """A task of three modalities; a share of the samples lacks Image or Audio, NaN there."""
    features, labels = arrays()
    random = np.random.default_rng(1)
    missing, which = random.random(N) < share, random.integers(2, size=N)
    present = {name: ~(missing & (which == k)) for k, name in enumerate(("Image", "Audio"))}
    for name, mask in present.items():
        features[name][~mask] = np.nan
    how = {"config": SMALL, "search_config": QUICK, "present": present}
    return bm.Task.from_features("mine", features, labels, **how | changes)


def cell(x: str, y: str, op: str = "sum") -> bm.CellGenotype:
    return bm.CellGenotype((x, y), (bm.StepGenotype(op, ("X", "Y")),))


def test_a_sample_with_a_gap_is_used_and_the_task_says_how_many_there_are():
    task = own_task()
    assert task.gaps and sum(len(task.split(s)) for s in ("train", "validation", "test")) == N
    assert "Image missing in" in repr(task) and "Audio missing in" in repr(task)
    assert "Text missing" not in repr(task) and "missing" not in repr(own_task(0.0))
    features, _ = bm.FeatureBank(task, device="cpu").batch("train", torch.arange(40))
    for name, m in {"Image_1": 0, "Audio_1": 1, "Text_1": 2}.items():
        gaps = task.split("train").index[:40, m] < 0
        assert torch.equal(features[name].isnan().flatten(1).all(1), gaps)
        assert torch.equal(features[name].isnan().flatten(1).any(1), gaps)


def test_without_gaps_a_mask_changes_nothing():
    plain, masked = own_task(0.0, present=None), own_task(0.0)
    assert not masked.gaps
    first, second = (bm.Search(task, seed=3, device="cpu") for task in (plain, masked))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.alpha, b.alpha) and a.train_loss == b.train_loss


@pytest.mark.parametrize("training", [False, True])
def test_a_gap_is_zeros_after_the_reshape_layer_and_batchnorm_does_not_see_it(training):
    genotype = bm.Genotype(("A", "B"), (cell("A", "B"),))
    net = FusionNetwork(genotype, {"A": 3, "B": 4}, 2, C=5, L=2, gaps=True).train(training)
    x = {"A": torch.randn(6, 3, 2), "B": torch.randn(6, 4, 1)}
    x["A"][[1, 4]] = torch.nan
    before = net.reshape.layers[0].bn.running_mean.clone()
    out = net.reshape(x)[:, :, 0]
    assert not out[[1, 4]].any() and out[[0, 2, 3, 5]].any()
    rows = x["A"][[0, 2, 3, 5]].mT
    if training:
        seen = net.reshape.layers[0].conv(rows).mean((0, 1))
        torch.testing.assert_close(net.reshape.layers[0].bn.running_mean, before * 0.9 + 0.1 * seen)
    else:
        torch.testing.assert_close(out[[0, 2, 3, 5]], net.reshape.layers[0](rows))


def test_a_single_path_reads_statistics_of_the_samples_that_have_the_feature():
    sizes = {"C": 5, "L": 2, "N": 1, "M": 1, "sampling": "single_path", "gaps": True}
    reshape = Hypernet({"A": 3, "B": 4}, 2, **sizes).eval().reshape
    x = {"A": torch.randn(6, 3, 2) + 9, "B": torch.randn(6, 4, 1)}
    there = [0, 2, 3, 5]
    x["A"][[1, 4]] = torch.nan
    out = reshape(x)[:, :, 0]
    torch.testing.assert_close(out[there], reshape.layers[0](x["A"][there].mT))
    assert not out[[1, 4]].any()


def test_networks_with_gaps_are_not_trained_as_one_ensemble():
    whole = own_task(0.0)
    genotype = bm.Genotype(whole.features, (cell("Image_1", "Audio_1"), cell("Text_1", "C1")))
    for task, config in ((own_task(), None), (whole, bm.TrainConfig(modality_dropout=0.2))):
        with pytest.raises(bm.TrainError, match="ensemble: found task 'mine', whose samples lack"):
            train_together([genotype], task, config, device="cpu")


def test_attention_to_a_gap_is_zero_and_from_a_gap_it_is_even():
    genotype = bm.Genotype(("A", "B"), (cell("A", "B", "attention"),))
    net = FusionNetwork(genotype, {"A": 3, "B": 3}, 2, C=3, L=4, gaps=True).eval()
    attention = net.cells[0].steps[0]
    torch.nn.init.normal_(attention.ln.bias)
    x, y, zero = torch.rand(2, 3, 4), torch.rand(2, 3, 4), torch.zeros(2, 3, 4)
    assert attention(x, y).any() and not attention(x, zero).any()
    even = y.mean(2, keepdim=True).expand(-1, -1, 4)
    torch.testing.assert_close(attention(zero, y), attention.ln(even.mT).mT)


def test_what_the_arrays_hold_at_a_gap_does_not_matter():
    features, labels = arrays()
    mask = np.arange(N) % 4 > 0
    found = []
    for filler in (np.nan, 7.0, np.inf):
        features["Audio"][~mask] = filler
        how = {"config": SMALL, "search_config": QUICK, "present": {"Audio": mask}}
        task = bm.Task.from_features("mine", features, labels, **how)
        search = bm.Search(task, device="cpu")
        found.append(([*search][-1].alpha, task.modality("Audio").fingerprint()))
    for alpha, fingerprint in found[1:]:
        assert np.array_equal(alpha, found[0][0]) and fingerprint == found[0][1]


@pytest.mark.parametrize("selection", ["argmax", "perturbation", "successive_halving"])
def test_a_search_learns_from_samples_with_gaps(selection):
    task = own_task(search_config=SearchSettings(epochs=2, tuning_epochs=1, rungs=((2, 1),)))
    search = bm.Search(task, bm.SearchConfig(selection=selection), device="cpu")
    for state in search:
        assert state.val_loss is None or np.isfinite(state.val_loss)
    net, _ = bm.train(search.best_genotype, task, device="cpu", progress=False)
    assert net.gaps and bm.evaluate(net, task) > 0.6


def test_single_paths_and_second_order_know_gaps():
    for how in ({"sampling": "single_path"}, {"order": "second"}, {"partial": 2}):
        search = bm.Search(own_task(), bm.SearchConfig(epochs=1, **how), device="cpu")
        assert all(np.isfinite(state.alpha).all() for state in search)


def test_a_resumed_search_with_gaps_equals_an_unbroken_one(tmp_path):
    whole, broken = (bm.Search(own_task(), seed=5, device="cpu") for _ in range(2))
    for _ in range(3):
        next(broken)
    broken.save(tmp_path / "s.safetensors")
    rest = [*bm.Search.resume(tmp_path / "s.safetensors", own_task(), device="cpu")]
    for a, b in zip([*whole][3:], rest, strict=True):
        assert np.array_equal(a.alpha, b.alpha)


@pytest.mark.slow
def test_baselines_run_on_samples_with_gaps():
    names = [name for name, one in BASELINES.items() if one.quick]
    names += ["GMU", "CentralNet", "MLP of two layers", "logistic regression", "gradient boosting"]
    table = compare(own_task(), names, device="cpu", progress=False)
    assert all(np.isfinite(entry["test"]) for entry in table.values())
    assert table["MLP of two layers"]["test"] > 0.6


def test_baselines_read_the_mean_of_train_at_a_gap_wherever_zero_lies():
    features, labels = arrays()
    mask, found = np.arange(N) % 4 > 0, []
    for offset in (0.0, 1000.0):
        moved = {**features, "Audio": features["Audio"] + offset}
        how = {"config": SMALL, "search_config": QUICK, "present": {"Audio": mask}}
        task = bm.Task.from_features("mine", moved, labels, **how)
        means = bm.FeatureBank.shared(task, None, "cpu").means["Audio_1"]
        train = task.split("train").index[:, 1]
        expected = moved["Audio"][train[train >= 0].numpy()].mean(0)
        np.testing.assert_allclose(means[:, 0].numpy(), expected, rtol=1e-5)
        table = bm.compare(task, ["logistic regression"], device="cpu", progress=False)
        found.append(table["logistic regression"]["test"])
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_gaps_are_kept_on_disk_and_in_memory_alike(tmp_path):
    task = own_task()
    rows = torch.arange(20)
    memory = bm.FeatureBank(task, device="cpu").batch("train", rows)[0]
    disk = bm.FeatureBank(task, device="cpu", folder=tmp_path).batch("train", rows, rows + 20)[0]
    for name, values in memory.items():
        assert torch.equal(values.isnan(), disk[name].isnan())
        torch.testing.assert_close(values, disk[name], rtol=1e-3, atol=1e-3, equal_nan=True)


def test_folds_keep_samples_with_gaps_and_the_order_of_rows():
    task = own_task()
    samples = all_samples(task)
    assert samples.index.max(1).values.tolist() == list(range(N))
    folds = make_folds(task, 4)
    assert sorted(torch.cat([fold.rows for fold in folds]).tolist()) == list(range(N))


@given(p=st.floats(0.05, 0.95), seed=st.integers(0, 99), modalities=st.integers(2, 4))
def test_modality_dropout_hides_whole_modalities_but_never_all(p, seed, modalities):
    names = [f"M{k}" for k in range(modalities)]
    features = {name: np.zeros((9, 3)) + np.arange(9)[:, None] for name in names}
    task = bm.Task.from_features("t", features, np.arange(9) % 3, [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    torch.manual_seed(seed)
    given_features = {f"{name}_1": torch.ones(400, 3, 2) for name in names}
    given_features["M0_1"][:50] = torch.nan
    found = drop_modalities(given_features, task, p)
    there = torch.stack([~values.isnan() for values in found.values()])
    assert there.any(0).all() and not there[0, :50].any()
    assert torch.equal(there.all(-1).all(-1), there.any(-1).any(-1))
    share = 1 - there[1, :, 0, 0].double().mean()
    assert share <= p + 0.1 and share >= p * (1 - p ** (modalities - 2)) - 0.1


@pytest.mark.slow
def test_a_network_trained_with_modality_dropout_bears_a_missing_modality():
    features, labels = arrays()
    splits = [range(0, N, 2), range(1, N, 4), range(3, N, 4)]
    present = {"Audio": np.arange(N) % 4 != 3}  # none of test has it
    how = {"config": SMALL, "search_config": QUICK, "splits": splits}
    task = bm.Task.from_features("mine", features, labels, present=present, **how)
    genotype = bm.Genotype(task.features, (cell("Image_1", "Audio_1"), cell("Text_1", "C1")))
    plain = bm.TrainConfig(C=4, L=1, dropout=0.0)
    assert not fusion_network(genotype, own_task(0.0), plain).gaps
    found = {}
    for p in (0.0, 0.4):
        config = bm.TrainConfig(modality_dropout=p, epochs=31, data="train")
        nets = [
            bm.train(genotype, task, config, seed=k, device="cpu", progress=False)[0]
            for k in range(3)
        ]
        found[p] = np.mean([bm.evaluate(net, task) for net in nets])
    assert found[0.4] >= found[0.0] and found[0.4] > 0.6, found


WRONG = {
    "no dict": ({"present": [True] * N}, "present: found .*; allowed: a dict from modalities to"),
    "another modality": (
        {"present": {"Imge": [True] * N}},
        r"present: found modality 'Imge' \(did you mean 'Image'\?\); allowed: Image, Audio, Text",
    ),
    "a short mask": (
        {"present": {"Image": [True] * 50}},
        r"present: Image: found an array of shape \(50,\) of bool; allowed: \(120,\) booleans",
    ),
    "fractions": (
        {"present": {"Image": [0.5] * N}},
        r"present: Image: found .* of float64; allowed: \(120,\) booleans",
    ),
    "none at all": (
        {"share": 0.0, "present": {name: np.arange(N) != 7 for name in ("Image", "Audio", "Text")}},
        "mine: split '.*': sample .*: found no modality that is present; allowed: at least one",
    ),
    "never": (
        {"share": 0.0, "present": {"Image": np.zeros(N, bool)}},
        "mine: split 'train': found no sample that has Image; allowed: at least one",
    ),
    "NaN where it is present": (
        {"present": {"Image": np.ones(N, bool)}},
        "Image: Image_1, row .*: found NaN; allowed: finite numbers in float32",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_mask_is_said_in_one_line(what):
    changes, message = WRONG[what]
    with pytest.raises(bm.TaskError, match=message) as error:
        own_task(**changes)
    assert "\n" not in str(error.value)


def test_backbones_are_not_fine_tuned_on_samples_with_gaps():
    from dataclasses import replace

    from tiny import tiny_task

    task = tiny_task()
    index = task.split("train").index.clone()
    index[:5, 1] = -1
    splits = {**task.splits, "train": replace(task.split("train"), index=index)}
    task = replace(task, splits=splits)
    genotype = bm.Genotype(task.features, (cell("Image_1", "Audio_2"),))
    with pytest.raises(bm.TrainError, match="finetune: found True for task 'tiny', whose samples"):
        bm.train(genotype, task, bm.TrainConfig(finetune=True), device="cpu")
    net, _ = bm.train(genotype, task, device="cpu", progress=False)
    assert np.isfinite(bm.evaluate(net, task))


def test_samples_with_gaps_can_be_searched_and_trained_in_bf16():
    task = own_task()
    config = bm.SearchConfig(precision="bf16", epochs=1, selection="argmax")
    search = bm.Search(task, config, device="cpu")
    assert all(np.isfinite(state.train_loss) for state in search)
    recipe = bm.TrainConfig(precision="bf16", epochs=1)
    _, history = bm.train(search.best_genotype, task, recipe, device="cpu", progress=False)
    assert np.isfinite(history[-1]["train_loss"])
