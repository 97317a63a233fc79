"""Predictions for new samples, and reports of what a network gets right and wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_task
from torch.utils.data import TensorDataset

import bmnas_core as bm
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.draw.predictions import draw_confusion
from bmnas_core.train import outputs_of

N = 90
SMALL = Settings(C=8, L=2, N=1, M=1, epochs=7, batch_size=32, dropout=0.0, max_lr=1e-2)
QUICK = SearchSettings(selection="argmax", epochs=1, tuning_epochs=0)
LABELS = {
    "classes": np.array(["low", "mid", "high"])[np.arange(N) % 3],
    "multi-label": np.eye(3, dtype=int)[np.arange(N) % 3],
    "values": np.linspace(100, 900, N),
}


def arrays() -> dict[str, list[np.ndarray]]:
    random, signal = np.random.default_rng(0), np.arange(N) % 3
    image = random.normal(size=(N, 3, 4, 4)) + signal[:, None, None, None]
    audio = np.linspace(-2, 2, N)[:, None] + random.normal(size=(N, 5)) / 9
    return {"Image": [image, image.mean((2, 3))], "Audio": [audio]}


def trained(kind: str = "classes", **changes):
    how = {"config": SMALL, "search_config": QUICK, **changes}
    task = bm.Task.from_features("mine", arrays(), LABELS[kind], **how)
    step = (bm.StepGenotype("sum", ("X", "Y")),)
    genotype = bm.Genotype(task.features, (bm.CellGenotype(("Image_1", "Audio_1"), step),))
    return bm.train(genotype, task, device="cpu", progress=False)[0], task


@pytest.mark.parametrize("kind", LABELS)
def test_predictions_of_a_tasks_own_samples_are_the_networks(kind):
    net, task = trained(kind)
    bank = bm.FeatureBank.shared(task, None, "cpu")
    outputs, _ = outputs_of(net, task, bank, "test")
    rows = task.split("test").index[:, 0].numpy()
    found = bm.predict(net, {m: [a[rows] for a in own] for m, own in arrays().items()})
    expected = {
        "classes": outputs.softmax(1),
        "multi-label": outputs.sigmoid(),
        "values": task.targets.in_units(outputs) if task.targets else None,
    }[kind]
    np.testing.assert_allclose(found.to_numpy(), expected.numpy(), rtol=1e-5)
    names = {"classes": ["high", "low", "mid"], "values": [0]}
    assert list(found.columns) == names.get(kind, [0, 1, 2])


def test_predictions_come_from_a_saved_network_and_any_form_of_arrays(tmp_path):
    net, task = trained()
    bm.save_network(net, tmp_path / "net.safetensors")
    loaded = bm.load_network(tmp_path / "net.safetensors")
    image, _ = arrays()["Image"]
    audio = arrays()["Audio"][0]
    np.save(tmp_path / "a.npy", audio)
    forms = [
        {"Image": {"Image_1": image}, "Audio": audio},
        {"Image": {"Image_1": torch.from_numpy(image)}, "Audio": [audio.tolist()]},
        {"Image": arrays()["Image"], "Audio": np.load(tmp_path / "a.npy", mmap_mode="r")},
    ]
    first, *others = (bm.predict(loaded, form) for form in forms)
    assert len(first) == N and np.allclose(first.sum(axis=1), 1, atol=1e-5)
    for other in others:
        np.testing.assert_allclose(other.to_numpy(), first.to_numpy(), rtol=1e-5)
    one = bm.predict(loaded, {"Image": {"Image_1": image[:1]}, "Audio": audio[:1]})
    np.testing.assert_allclose(one.to_numpy(), first.to_numpy()[:1], rtol=1e-5)
    assert (first.to_numpy().argmax(1) == np.array([1, 2, 0])[np.arange(N) % 3]).mean() > 0.7


def test_more_samples_than_a_batch_are_predicted_in_order():
    net, _ = trained()
    many = {m: [np.tile(a, (7, *[1] * (a.ndim - 1))) for a in own] for m, own in arrays().items()}
    found = bm.predict(net, many).to_numpy()
    np.testing.assert_allclose(found[:N], found[-N:], rtol=1e-4, atol=1e-6)


def test_a_network_that_knows_gaps_predicts_samples_that_lack_a_modality():
    present = {"Audio": np.arange(N) % 5 > 0}
    net, _ = trained(present=present)
    found = bm.predict(net, arrays(), present=present)
    changed = arrays()
    changed["Audio"][0][~present["Audio"]] = np.nan
    np.testing.assert_allclose(found, bm.predict(net, changed, present=present))
    whole = bm.predict(net, arrays())
    assert not np.allclose(found[~present["Audio"]], whole[~present["Audio"]])
    np.testing.assert_allclose(found[present["Audio"]], whole[present["Audio"]], rtol=1e-5)


@pytest.mark.parametrize("finetune", [False, True])
def test_raw_inputs_go_through_the_backbones(finetune):
    task = tiny_task()
    step = (bm.StepGenotype("linear_glu", ("X", "Y")),)
    genotype = bm.Genotype(task.features, (bm.CellGenotype(("Image_2", "Audio_1"), step),))
    config = bm.TrainConfig(finetune=finetune)
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    rows = task.split("test").index[:, 0]
    inputs = {m.name: m.inputs[rows] for m in task.modalities}
    given = {} if finetune else {"task": task}
    found = bm.predict(net, inputs, **given).to_numpy()
    labels = task.split("test").labels.numpy()
    assert (found.argmax(1) == labels).mean() == pytest.approx(bm.evaluate(net, task), abs=1e-6)
    sets = {name: TensorDataset(values) for name, values in inputs.items()}
    np.testing.assert_allclose(bm.predict(net, sets, **given, workers=0), found, rtol=1e-5)
    with pytest.raises(bm.PredictionError, match="inputs: found {'Image': 24, 'Audio': 9} samples"):
        bm.predict(net, inputs | {"Audio": inputs["Audio"][:9]}, **given)


A = arrays()
WRONG = {
    "no dict": ({"inputs": [1]}, "inputs: found [1]; allowed: a dict by modality"),
    "no network": ({"net": 3}, "net: found int; allowed: a network, as train gives"),
    "another modality": (
        {"inputs": {"Imge": A["Image"]}},
        "inputs: found modality 'Imge' (did you mean 'Image'?); allowed: Image, Audio",
    ),
    "a modality too few": (
        {"inputs": {"Image": A["Image"]}},
        "inputs: found features Image_1; allowed: 'Audio_1' among them",
    ),
    "features too few": (
        {"inputs": A | {"Image": A["Image"][:1]}},
        "Image: features: found 1; allowed: 2: Image_1, Image_2",
    ),
    "another feature": (
        {"inputs": A | {"Image": {"Image_7": A["Image"][0]}}},
        "Image: feature: found 'Image_7' (did you mean 'Image_2'?); allowed: Image_1, Image_2",
    ),
    "channels": (
        {"inputs": A | {"Audio": A["Audio"][0][:, :4]}},
        "feature 'Audio_1': found shape (90, 4); allowed: (n, 5, …)",
    ),
    "lengths": (
        {"inputs": A | {"Audio": A["Audio"][0][:50]}},
        "feature 'Audio_1': found 50 rows; allowed: 90, as 'Image_1' has: one a sample (a list has "
        "an array a feature)",
    ),
    "NaN": (
        {"inputs": A | {"Audio": np.where(np.arange(N)[:, None] == 8, np.nan, A["Audio"][0])}},
        "Audio: Audio_1, row 8: found NaN; allowed: finite numbers in float32",
    ),
    "objects": (
        {"inputs": A | {"Audio": A["Audio"][0].astype(object)}},
        "Audio: Audio_1: found values of type object; allowed: numbers, as array.astype(float) "
        "gives",
    ),
    "gaps": (
        {"present": {"Audio": np.ones(N, bool)}},
        "present: found it with a network that knows no gaps; allowed: features, of a network "
        "trained on gaps",
    ),
    "a task of features": (
        {"task": True},
        "task: found a task of features, without backbones; allowed: no task",
    ),
}


@pytest.fixture(scope="module")
def net_and_task():
    return trained()


@pytest.mark.parametrize("what", WRONG)
def test_wrong_samples_are_said_in_one_line(what, net_and_task):
    changes, message = WRONG[what]
    net, task = net_and_task
    changes = changes | ({"task": task} if "task" in changes else {})
    with pytest.raises(bm.BmnasError) as error:
        bm.predict(**{"net": net, "inputs": A} | changes)
    assert str(error.value) == message


def test_a_network_without_signature_says_where_one_comes_from(net_and_task):
    net, task = net_and_task
    plain = bm.FusionNetwork(net.genotype, task.channels, 3, C=4, L=1)
    with pytest.raises(bm.PredictionError, match="net: found a network without signature; allow"):
        bm.predict(plain, A)


def test_another_task_is_refused(net_and_task):
    with pytest.raises(bm.PredictionError, match="task: found task 'tiny'; allowed: one with feat"):
        bm.predict(net_and_task[0], {"Image": torch.zeros(2, 4, 6)}, task=tiny_task())


# --- reports


@pytest.mark.parametrize("kind", LABELS)
def test_a_report_has_a_table_and_a_chart(kind, tmp_path):
    import matplotlib.pyplot as plt

    net, task = trained(kind)
    found = bm.report(net, task)
    score = bm.evaluate(net, task)
    assert f"mine, test: {task.metric} " in found.title and f"of {len(task.split('test'))} " in (
        found.title
    )
    found.figure.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 5000
    if kind == "classes":
        share = (found.table["recall"] * found.table["samples"]).sum() / found.table[
            "samples"
        ].sum()
        assert share == pytest.approx(score) and list(found.table.index) == ["high", "low", "mid"]
    elif kind == "multi-label":
        weights = found.table["samples"] / found.table["samples"].sum()
        assert (found.table["f1"] * weights).sum() == pytest.approx(score)
    else:
        assert found.table["rmse"].iloc[0] == pytest.approx(score)
    assert "<table" in found._repr_html_() and found.title in repr(found)
    plt.close("all")


def test_a_report_of_several_values_has_a_panel_each():
    both = np.stack([np.linspace(0, 1, N), np.linspace(9, 3, N)], 1)
    task = bm.Task.from_features("two", arrays(), both, metric="mae", config=SMALL)
    step = (bm.StepGenotype("sum", ("X", "Y")),)
    genotype = bm.Genotype(task.features, (bm.CellGenotype(("Image_1", "Audio_1"), step),))
    net, _ = bm.train(genotype, task, device="cpu", progress=False)
    found = bm.report(net, task, "validation")
    assert len(found.table) == 2 and len(found.axes) == 2
    assert found.table["mae"].mean() == pytest.approx(bm.evaluate(net, task, "validation"))


def test_a_report_of_a_network_with_backbones_reads_raw_inputs():
    task = tiny_task()
    step = (bm.StepGenotype("sum", ("X", "Y")),)
    genotype = bm.Genotype(task.features, (bm.CellGenotype(("Image_2", "Audio_1"), step),))
    config = bm.TrainConfig(finetune=True, epochs=1)
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    assert bm.report(net, task).table["samples"].sum() == 24


def test_a_confusion_matrix_of_many_classes_keeps_its_size():
    names = [f"class number {k}" for k in range(60)]
    ax = draw_confusion(np.eye(60, dtype=int), names)
    assert ax.figure.get_size_inches().max() < 11 and len(ax.get_xticks()) <= 40
    with pytest.raises(bm.DrawError, match=r"counts: found shape \(2, 3\); allowed: \(2, 2\), for"):
        draw_confusion(np.zeros((2, 3)), ["a", "b"])


def test_classes_that_the_split_lacks_are_in_the_report():
    net, task = trained()
    rows = task.split("test").labels > 0
    test = replace(
        task.split("test"),
        index=task.split("test").index[rows],
        labels=task.split("test").labels[rows],
    )
    found = bm.report(net, replace(task, splits={**task.splits, "test": test}))
    assert found.table["samples"].iloc[0] == 0 and found.table["recall"].iloc[0] == 0
