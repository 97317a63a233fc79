"""FeatureBank: computed once, right, never stale, on disk or in memory."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import TinyBackbone, tiny_task

from bmnas_core import FeatureBank, FeatureError, Modality, Task, pool
from bmnas_core.features import RawInputs


def rows(n=5):
    return torch.arange(n)


def equal(one: FeatureBank, other: FeatureBank) -> bool:
    (a, _), (b, _) = one.batch("train", rows()), other.batch("train", rows())
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_features_are_what_the_backbone_gives_pooled_to_length():
    task = tiny_task()
    bank = FeatureBank(task, 3)
    features, labels = bank.batch("validation", torch.tensor([4, 0]))
    split = task.split("validation")
    assert torch.equal(labels, split.labels[[4, 0]])
    assert list(features) == list(task.features)
    for m, modality in enumerate(task.modalities):
        outputs = modality.backbone(modality.inputs[split.index[[4, 0], m]])
        for name, output in zip(modality.channels, outputs, strict=True):
            torch.testing.assert_close(features[name], pool(output, 3, "time"))


def test_each_item_runs_through_its_backbone_once():
    task = tiny_task()
    seen = []
    for modality in task.modalities:
        modality.backbone.register_forward_hook(lambda *args: seen.append(len(args[1][0])))
    bank = FeatureBank.of(task, None, "cpu")
    for _ in range(3):
        FeatureBank.of(task, None, "cpu").batch("train", rows())
    assert sum(seen) == sum(len(m.inputs) for m in task.modalities)
    assert FeatureBank.of(task, None, "cpu") is bank
    assert FeatureBank.of(task, 2, "cpu") is not bank


def test_a_bank_in_memory_is_made_anew_when_a_backbone_has_changed():
    task = tiny_task()
    bank = FeatureBank.of(task, None, "cpu")
    with torch.no_grad():
        task.modalities[1].backbone.layers[0].weight.mul_(2)
    assert not equal(bank, FeatureBank.of(task, None, "cpu"))


def test_a_bank_on_disk_is_the_one_in_memory_and_is_not_computed_again(tmp_path, monkeypatch):
    task = tiny_task()
    one = FeatureBank(task, folder=tmp_path)
    assert all(isinstance(table, np.memmap) for table in one.features.values())
    assert equal(one, FeatureBank(task))

    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(FeatureBank, "_computed", fail)
    assert equal(FeatureBank(tiny_task(), folder=tmp_path), one)


@pytest.mark.parametrize("change", ["weights", "inputs", "length", "pooling", "name", "setting"])
def test_whatever_produced_the_features_is_in_the_key(change):
    task = tiny_task()
    first = task.modalities[0]
    key, L, values = FeatureBank(task).key, None, dict(vars(first))
    values = {k: v for k, v in values.items() if not k.startswith("_")}
    if change == "weights":
        with torch.no_grad():
            first.backbone.layers[1].bias[0] += 1e-6
    elif change == "inputs":
        values["inputs"] = first.inputs.clone()
        values["inputs"][7, 0, 0] += 1e-6
    elif change == "setting":
        first.backbone.slope = 5
    elif change == "length":
        L = 3
    elif change == "pooling":
        values["over"] = "grid"
    else:
        values["name"] = "Picture"
    other = Task(
        "tiny", "same", 3, "accuracy", (Modality(**values), task.modalities[1]), task.splits,
        task.config,
    )  # fmt: skip
    assert FeatureBank(other, L).key != key


def test_a_stale_bank_on_disk_is_left_alone(tmp_path):
    FeatureBank(tiny_task(), folder=tmp_path)
    other = tiny_task()
    with torch.no_grad():
        other.modalities[0].backbone.layers[0].weight.mul_(2)
    bank = FeatureBank(other, folder=tmp_path)
    assert equal(bank, FeatureBank(other))
    assert len(list(tmp_path.iterdir())) == 2


def damaged(tmp_path, damage):
    bank = FeatureBank(tiny_task(), folder=tmp_path)
    damage(tmp_path / bank.key)
    return FeatureBank(tiny_task(), folder=tmp_path)


def truncate(folder):
    path = folder / "1.npy"
    path.write_bytes(path.read_bytes()[:-8])


def reshape(folder):
    np.save(folder / "1.npy", np.zeros((3, 4)))


def rekey(folder):
    meta = json.loads((folder / "bank.json").read_text())
    (folder / "bank.json").write_text(json.dumps({**meta, "key": "0"}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "1.npy: feature 'Image_2': .*; delete .* to have it made again"),
        (reshape, r"1.npy: feature 'Image_2': found shape \[3, 4\] of float64; allowed: "),
        (
            lambda folder: (folder / "0.npy").write_bytes(b""),
            "0.npy: feature 'Image_1': .*; delete",
        ),
        (lambda folder: (folder / "0.npy").unlink(), "0.npy: feature 'Image_1': .*; delete"),
        (lambda folder: (folder / "bank.json").write_text("{"), "bank.json: found no bank; delete"),
        (rekey, "found a bank with another key; delete"),
    ],
)
def test_a_damaged_bank_is_refused_with_the_remedy(tmp_path, damage, message):
    with pytest.raises(FeatureError, match=message):
        damaged(tmp_path, damage)


def test_an_unfinished_bank_is_made_again(tmp_path):
    bank = damaged(tmp_path, lambda folder: (folder / "bank.json").unlink())
    assert equal(bank, FeatureBank(tiny_task()))


def test_a_bank_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        FeatureBank(tiny_task(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value, kind", [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_features_that_are_not_finite_are_refused_by_name_and_item(tmp_path, value, kind):
    task = tiny_task()
    task.modalities[1].inputs[70, 2, 3] = value
    for folder in (None, tmp_path):
        with pytest.raises(
            FeatureError, match=f"feature 'Audio_1' of item 70: found {kind}; allow"
        ):
            FeatureBank(task, folder=folder)
    assert list(tmp_path.iterdir()) == []


class Wrong(TinyBackbone):
    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda f: f[:1],
            r"backbone of 'Image': found 1 features; allowed: 2 \(Image_1, Image_2\)",
        ),
        (lambda f: [f[0], f[0]], r"feature 'Image_2': found shape \(96, 5, 6\); allowed: \(96, 6,"),
        (lambda f: [f[0], f[1][:3]], r"feature 'Image_2': found shape \(3, 6, 6\); allowed"),
        (lambda f: f[0], "backbone of 'Image': found a single tensor; allowed: a list of tensors"),
        (lambda f: None, "backbone of 'Image': found NoneType; allowed: a list of tensors"),
        (lambda f: [f[0], 3], "backbone of 'Image': found int; allowed: a list of tensors"),
        (lambda f: [f[0], f[1][..., :0]], r"feature 'Image_2': found shape \(96, 6, 0\)"),
        (lambda f: [f[0].sum((1, 2)), f[1]], r"feature 'Image_1': found shape \(96,\); allowed"),
    ],
)
def test_features_of_the_wrong_number_or_shape_are_refused_by_name(change, message):
    task = tiny_task()
    backbone = Wrong((5, 6))
    backbone.change = change
    object.__setattr__(task.modalities[0], "backbone", backbone)
    with pytest.raises(FeatureError, match=message):
        FeatureBank(task)


@pytest.mark.parametrize("L", [0, -1, "a", 2.0])
def test_a_length_that_is_none_is_refused(L):
    with pytest.raises(FeatureError, match=f"L: found {L!r}; allowed: an int, at least 1"):
        FeatureBank(tiny_task(), L)


def test_splits_can_be_joined():
    task = tiny_task()
    labels = FeatureBank(task).batch("validation+test", torch.tensor([0, 24]))[1]
    with pytest.raises(FeatureError, match="split: found 'train.dev'; allowed: train, validation"):
        FeatureBank(task).batch("train+dev", torch.tensor([0]))
    assert labels.tolist() == [int(task.splits[s].labels[0]) for s in ("validation", "test")]


def test_threads_that_make_the_same_bank_do_not_disturb_each_other(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    tasks = [tiny_task() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        banks = list(pool.map(lambda task: FeatureBank(task, folder=tmp_path), tasks))
    assert all(equal(bank, banks[0]) for bank in banks)
    assert len(list(tmp_path.iterdir())) == 1


def test_raw_inputs_are_served_like_a_bank():
    task = tiny_task()
    inputs, labels = RawInputs(task).batch("validation", torch.tensor([1]))
    split = task.split("validation")
    assert torch.equal(labels, split.labels[[1]])
    assert torch.equal(inputs["Audio"], task.modalities[1].inputs[split.index[[1], 1]])


def test_banks_go_with_their_task(tmp_path):
    import gc
    import weakref

    task = tiny_task()
    bank = weakref.ref(FeatureBank.of(task, None, "cpu"))
    del task
    gc.collect()
    assert bank() is None
    shutil.rmtree(tmp_path)
