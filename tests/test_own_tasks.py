"""A task from arrays: ten lines to a network, and one line for what is wrong with them."""

import time
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bmnas_core as bm
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.tasks import inputs
from bmnas_core.tasks.arrays import SPLITS, split_rows

N = 60
SMALL = Settings(C=8, L=2, N=1, M=1, epochs=1, batch_size=16)
QUICK = SearchSettings(selection="argmax", epochs=1, tuning_epochs=0)


def arrays(n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    """Features of every shape, which tell three classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    shapes = {
        "vector": (n, 5),
        "moments": (n, 4, 6),
        "image": (n, 3, 4, 5),
        "video": (n, 2, 3, 4, 5),
    }
    found = {name: random.normal(size=shape) for name, shape in shapes.items()}
    for values in found.values():
        values[:, 0] += 2 * labels.reshape(-1, *[1] * (values.ndim - 2))
    return found | {"labels": labels}


def own_task(**changes) -> bm.Task:
    a = arrays()
    given = {
        "name": "mine",
        "features": {"Video": [a["video"], a["moments"]], "Text": {"words": a["vector"]}},
        "labels": a["labels"],
        "config": SMALL,
        "search_config": QUICK,
    }
    return bm.Task.from_features(**given | changes)


def test_ten_lines_lead_from_arrays_to_a_drawn_genotype_and_a_test_score():
    a = arrays(120)
    task = bm.Task.from_features("mine", {"Image": a["image"], "Text": a["vector"]}, a["labels"])
    assert task.features == ("Image_1", "Text_1") and task.classes == 3
    search = bm.Search(task, bm.SearchConfig(epochs=1, selection="argmax"), device="cpu")
    for _ in search:
        pass
    assert "<svg" in bm.draw(search.best_genotype).svg
    config = bm.TrainConfig(epochs=7)
    net, _ = bm.train(search.best_genotype, task, config, device="cpu", progress=False)
    assert bm.evaluate(net, task) > 0.6


def test_features_of_every_shape_may_meet_in_a_modality():
    task = own_task()
    assert task.channels == {"Video_1": 2, "Video_2": 4, "words": 5}
    assert task.modality("Video").pooling == "time" and task.modality("Text").pooling == "grid"
    bank = bm.FeatureBank(task, 2, device="cpu")
    shapes = {name: tuple(values.shape[1:]) for name, values in bank.features.items()}
    assert shapes == {"Video_1": (2, 2), "Video_2": (4, 2), "words": (5, 1)}
    video = torch.from_numpy(arrays()["video"]).float()
    torch.testing.assert_close(bank.features["Video_1"], bm.pool(video, 2, "time"))


@pytest.mark.parametrize("kind", ["numpy", "tensor", "memory-mapped", "half", "list"])
def test_every_kind_of_array_gives_the_same_features(kind, tmp_path):
    values = np.random.default_rng(1).integers(-8, 8, (N, 3, 4)).astype(np.float64)
    np.save(tmp_path / "a.npy", values)
    same = {
        "numpy": values,
        "tensor": torch.from_numpy(values),
        "memory-mapped": np.load(tmp_path / "a.npy", mmap_mode="r"),
        "half": values.astype(np.float16),
        "list": [row.tolist() for row in values],
    }[kind]
    task = own_task(features={"A": {"a": same}, "B": {"b": arrays()["vector"]}})
    bank = bm.FeatureBank(task, 4, device="cpu")
    assert torch.equal(bank.features["a"], torch.from_numpy(values).float())
    plain = own_task(features={"A": {"a": values}, "B": {"b": arrays()["vector"]}})
    own, other = (one.modality("A").fingerprint() for one in (task, plain))
    assert own == other


@pytest.mark.parametrize("name", ["digits", pytest.param("avmnist", marks=pytest.mark.slow)])
def test_a_task_from_the_features_of_another_gives_the_same_search_to_the_bit(name, request):
    if name == "avmnist":
        request.getfixturevalue("data_root")
    task = bm.load_task(name, rule="sum")
    bank = bm.FeatureBank(task, device="cpu")
    index = torch.cat([task.split(name).index for name in SPLITS])
    labels = torch.cat([task.split(name).labels for name in SPLITS])
    ends = np.cumsum([len(task.split(name)) for name in SPLITS])
    features = {
        modality.name: {name: bank.features[name][index[:, m]] for name in modality.channels}
        for m, modality in enumerate(task.modalities)
    }
    same = bm.Task.from_features(
        "other",
        features,
        labels,
        np.split(np.arange(len(labels)), ends[:-1]),
        config=task.config,
        search_config=task.search_config,
    )
    config = bm.SearchConfig(epochs=1, selection="argmax")
    first = bm.Search(task, config, seed=3, device="cpu", bank=bank)
    second = bm.Search(same, config, seed=3, device="cpu")
    for a, b in islice(zip(first, second, strict=True), 12):
        assert np.array_equal(a.alpha, b.alpha)
        assert a.val_loss == b.val_loss and a.genotype == b.genotype


def test_settings_follow_from_the_data_and_can_be_given():
    a = arrays(2000)
    features = {"Image": a["image"], "Text": a["vector"], "Time": a["moments"]}
    large = bm.Task.from_features("large", features, a["labels"])
    small = bm.Task.from_features(
        "small", {k: v[:99] for k, v in features.items()}, a["labels"][:99]
    )
    assert large.config.N == small.config.N == 2 and large.config.L == 4
    assert small.config.C < large.config.C and small.config.dropout > large.config.dropout
    assert small.config.epochs > large.config.epochs
    vectors = own_task(features={k: {k: a["vector"][:N]} for k in "AB"}, config=None)
    assert vectors.config.L == 1  # none has positions
    mine = bm.Task.from_features("mine", features, a["labels"], config=Settings(C=10))
    assert mine.config.C == 10 and mine.config.epochs == large.config.epochs


def test_labels_may_be_numbers_names_or_several_at_once():
    numbers = arrays()["labels"]
    assert own_task().class_names == ()
    names = np.array(["low", "mid", "high"])[numbers]
    for labels in (names, names.tolist(), names.astype(object)):
        task = own_task(labels=labels)
        assert task.class_names == ("high", "low", "mid") and task.classes == 3
        found = [task.class_names[k] for k in task.split("test").labels]
        assert found == [names[row] for row in task.split("test").index[:, 0]]
    assert own_task(labels=numbers + 1).class_names == ("1", "2", "3")
    assert own_task(labels=numbers > 0).class_names == ("False", "True")
    assert own_task(class_names=("a", "b", "c")).class_names == ("a", "b", "c")
    hot = np.eye(3, dtype=int)[numbers]
    task = own_task(labels=hot, class_names=("a", "b", "c"))
    assert task.metric == "weighted_f1" and task.split("train").labels.shape[1] == 3


@given(
    sizes=st.lists(st.integers(8, 30), min_size=2, max_size=5),
    train=st.floats(0.4, 0.7),
    seed=st.integers(0, 9),
)
def test_fractions_split_each_class_alike(sizes, train, seed):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
    rest = (1 - train) / 2
    rows = split_rows((train, rest, rest), labels, seed=seed)
    assert sorted(torch.cat([*rows.values()]).tolist()) == list(range(len(labels)))
    for k, n in enumerate(sizes):
        for name, share in zip(SPLITS, (train, rest, rest), strict=True):
            assert abs(int((labels[rows[name]] == k).sum()) - share * n) <= 1.5
    again = split_rows((train, rest, rest), labels, seed=seed)
    assert all(torch.equal(rows[name], again[name]) for name in SPLITS)


@given(seed=st.integers(0, 99), groups=st.integers(8, 20))
def test_a_group_comes_into_one_split(seed, groups):
    own = np.random.default_rng(seed).integers(groups, size=200)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(2, size=200))
    rows = split_rows((0.5, 0.25, 0.25), labels, [f"speaker {g}" for g in own], seed)
    found = [set(own[rows[name].numpy()]) for name in SPLITS]
    assert sum(map(len, found)) == len(set(own)) and all(found)


def test_groups_stay_with_the_samples_and_may_come_with_given_splits():
    names = np.array(["train", "dev", "test"])[np.arange(N) // 20 % 3]
    groups = [f"speaker {k // 5}" for k in range(N)]
    task = own_task(splits=names, groups=groups)
    for split in SPLITS:
        own = task.split(split)
        assert own.groups.tolist() == [
            sorted(set(groups)).index(groups[row]) for row in own.index[:, 0]
        ]
    assert len(task.split("train+validation").groups) == 40


def test_splits_may_be_names_rows_or_booleans():
    names = np.array(["train", "dev", "test"])[np.arange(N) // 20 % 3]
    rows = [np.flatnonzero(names == name) for name in ("train", "dev", "test")]
    for splits in (names, names.tolist(), rows, [names == n for n in ("train", "dev", "test")]):
        task = own_task(splits=splits)
        for name, own in zip(SPLITS, rows, strict=True):
            assert task.split(name).index[:, 0].tolist() == own.tolist()
    part = own_task(splits={"train": rows[0], "validation": rows[1], "test": rows[2][:5]})
    assert len(part.split("test")) == 5


def test_forms_that_people_use_are_taken():
    numbers, names = arrays()["labels"], np.array(["low", "mid", "high"])[arrays()["labels"]]
    plain = own_task(labels=numbers)
    rows = [plain.split(name).index[:, 0] for name in SPLITS]
    twelve = np.arange(N) % 12
    objects = own_task(labels=twelve.astype(object))
    assert objects.class_names == () and objects.classes == 12
    for labels in (pd.Series(numbers), pd.Series(numbers, dtype="Int64"), list(numbers)):
        assert torch.equal(
            own_task(labels=labels).split("train").labels, plain.split("train").labels
        )
    for labels in (names.astype("S"), [name.encode() for name in names], pd.Categorical(names)):
        assert own_task(labels=labels).class_names == ("high", "low", "mid")
    shares = np.array([0.6, 0.2, 0.2])
    named = {"train": 0.6, "val": 0.2, "test": 0.2}
    for splits in (shares, torch.from_numpy(shares), tuple(shares.astype("f4")), named):
        found = own_task(splits=splits)
        assert [found.split(k).index[:, 0].tolist() for k in SPLITS] == [r.tolist() for r in rows]
    by_rows = own_task(splits=dict(zip(("train", "dev", "test"), rows, strict=True)))
    assert torch.equal(by_rows.split("validation").index, plain.split("validation").index)
    listed = own_task(features={"A": np.ones((N, 4)).tolist(), "B": arrays()["vector"]})
    assert listed.channels == {"A_1": 4, "B_1": 5}
    assert own_task(class_names=np.array(["a", "b", "c"])).class_names == ("a", "b", "c")


def test_large_data_are_split_at_once_and_read_by_the_piece(monkeypatch):
    labels = torch.arange(500_000) % 7
    start = time.perf_counter()
    rows = split_rows((0.8, 0.1, 0.1), labels)
    assert time.perf_counter() - start < 5 and abs(len(rows["test"]) - 50_000) < 4
    monkeypatch.setattr(inputs, "MAX_CHUNK", 100)
    values = np.arange(600.0).reshape(20, 30)
    chunks = list(inputs.FeatureArrays({"a": values}).chunks())
    assert [start for _, start, _ in chunks] == list(range(0, 20, 3))
    assert torch.equal(torch.cat([rows for _, _, rows in chunks]), torch.from_numpy(values).float())


def with_value(value, shape=(N, 5)):
    values = np.zeros(shape)
    values[7, 2] = value
    return values


VECTOR = np.zeros((N, 5))
THREE = np.arange(N) % 3
WRONG = {
    "one class": (
        {"labels": ["same"] * N},
        "labels: found one class for every sample; allowed: two classes or more",
    ),
    "an empty class name": (
        {"labels": ["", "b"] * (N // 2)},
        "labels: class: found ''; allowed: printable text of 1 to 100 characters",
    ),
    "a class name of two lines": (
        {"labels": ["a\nb", "b"] * (N // 2)},
        r"labels: class: found 'a\\nb'; allowed: printable text of 1 to 100 characters",
    ),
    "a value that is none": (
        {"labels": [None, *range(N - 1)], "metric": "rmse"},
        "labels, row 0: found None; allowed: finite numbers",
    ),
    "values in words": (
        {"labels": ["1.5"] * N, "metric": "rmse"},
        "labels: found values of type <U3; allowed: finite numbers",
    ),
    "a generator of values": (
        {"labels": (k for k in range(N)), "metric": "rmse"},
        r"labels: found an array of shape \(\); allowed: \(60,\) or \(60, values\)",
    ),
    "values that float32 rounds": (
        {"labels": 1.7e9 + np.arange(N), "metric": "rmse"},
        "labels: found errors of 59 in float32, of a deviation of 17; allowed: values near 0, such",
    ),
    "one of two values that float32 rounds": (
        {"labels": np.stack([np.arange(N), 1e12 + np.arange(N)], 1), "metric": "rmse"},
        "labels, value 1: found errors of .* in float32",
    ),
    "values of hundreds of digits": (
        {"labels": [10**400, *range(N - 1)], "metric": "rmse"},
        "labels: found numbers of more than 64 bits; allowed: finite numbers",
    ),
    "no dict": ({"features": [VECTOR, VECTOR]}, "features: found .*; allowed: a dict from mod"),
    "no modality": ({"features": {}}, "features: found {}; allowed: a dict from modalities"),
    "one modality": ({"features": {"A": VECTOR}}, "mine: found 1 modality; allowed: two or more"),
    "a number as a name": (
        {"features": {1: VECTOR}},
        "features: modality: found 1; allowed: printable text",
    ),
    "no feature": ({"features": {"A": [], "B": VECTOR}}, "A: features: found none; allowed: at l"),
    "twice": ({"features": {"A": {"f": VECTOR}, "B": {"f": VECTOR}}}, "feature 'f' twice"),
    "a Cell's name": ({"features": {"A": {"C1": VECTOR}, "B": VECTOR}}, r"features\[0\]: found 'C"),
    "a column": ({"features": {"A": VECTOR[:, 0], "B": VECTOR}}, r"A: A_1: found .*\(60,\); allo"),
    "six axes": ({"features": {"A": np.zeros((N, 1, 1, 1, 1, 1)), "B": VECTOR}}, "A: A_1: found"),
    "no channel": ({"features": {"A": VECTOR[:, :0], "B": VECTOR}}, r"A_1: found .*\(60, 0\); al"),
    "objects": ({"features": {"A": VECTOR.astype(object), "B": VECTOR}}, "A: A_1: .* type object"),
    "texts": ({"features": {"A": VECTOR.astype(str), "B": VECTOR}}, "A: A_1: .*; allowed: numbers"),
    "complex": ({"features": {"A": VECTOR + 0j, "B": VECTOR}}, "A_1: found values of type complex"),
    "ragged": ({"features": {"A": {"a": [[1], [1, 2]]}, "B": VECTOR}}, "A: a: found lists of uneq"),
    "lengths": ({"features": {"A": VECTOR, "B": VECTOR[:50]}}, "'B_1': found 50 rows; allowed: 60"),
    "NaN": ({"features": {"A": with_value(np.nan), "B": VECTOR}}, "A: A_1, row 7: found NaN; allo"),
    "infinity": (
        {"features": {"A": with_value(-np.inf), "B": VECTOR}},
        "A_1, row 7: found infinity",
    ),
    "too large": (
        {"features": {"A": with_value(1e300), "B": VECTOR}},
        "A_1, row 7: found infinity",
    ),
    "fewer labels": ({"labels": THREE[:50]}, "labels: found 50 rows; allowed: 60"),
    "one label": ({"labels": 3}, r"labels: found an array of shape \(\); allowed: 60 rows"),
    "floats of classes": (
        {"labels": THREE / 2, "metric": "accuracy"},
        "labels: found values of type float64; allowed: class numbers or names",
    ),
    "whole floats": (
        {"labels": THREE * 1.0},
        r"labels: found .* float64; .* for a regression .*; whole numbers as integers: .astype",
    ),
    "names of values": (
        {"labels": ["a", "b"] * 30, "metric": "rmse"},
        "labels: found values of type <U1; allowed: finite numbers",
    ),
    "NaN of a regression": (
        {"labels": np.r_[np.arange(7) / 7, np.nan, np.arange(N - 8) / 7]},
        "labels, row 7: found NaN; allowed: ",
    ),
    "a value that is NaN": (
        {"labels": np.r_[np.nan, np.arange(N - 1) / 7], "metric": "mae"},
        "labels, row 0: found NaN; allowed: finite numbers in float32",
    ),
    "an infinite value": (
        {"labels": np.r_[np.arange(N - 1) / 7, np.inf]},
        "labels, row 59: found infinity; allowed: finite numbers in float32",
    ),
    "one value": (
        {"labels": np.full(N, 2.5)},
        "split 'train': labels: found 2.5 for every sample; allowed: values that differ",
    ),
    "fewer values": (
        {"labels": np.arange(50) / 7},
        r"labels: found an array of shape \(50,\); allowed: \(60,\) or \(60, values\)",
    ),
    "a metric of classes": (
        {"labels": np.arange(N) / 7, "metric": "auroc"},
        "labels: found values of type float64; allowed: class numbers or names",
    ),
    "a fraction among 0 and 1": (
        {"labels": np.eye(3)[THREE] * 0.9},
        "labels, row 0: found 0.9; allowed: 0 and 1 in a multi-hot matrix, or for a regression",
    ),
    "weights of values": (
        {"labels": np.arange(N) / 7, "class_weights": "balanced"},
        "class_weights: found 'balanced'; allowed: None for a regression",
    ),
    "two weights": (
        {"class_weights": (1.0, 2.0)},
        r"class_weights: found \(1.0, 2.0\); allowed: 'balanced', or 3 numbers above 0",
    ),
    "a weight of 0": (
        {"class_weights": (1.0, 2.0, 0.0)},
        "mine: class_weights: found .*; allowed: 3 numbers above 0",
    ),
    "weights by name": ({"class_weights": "equal"}, "class_weights: found 'equal'; allowed: 'bal"),
    "smoothing": ({"label_smoothing": 1.0}, "mine: label_smoothing: found 1.0; allowed: at least"),
    "a threshold": ({"threshold": -0.5}, "mine: threshold: found -0.5; allowed: at least 0"),
    "a class that test lacks": (
        {
            "metric": "auroc",
            "splits": [np.arange(N)[:30], range(30, 45), np.flatnonzero(THREE > 0)[-6:]],
        },
        "split 'test': found no sample of class 0; allowed: labels for which metric 'auroc' is",
    ),
    "values that test repeats": (
        {
            "labels": np.r_[np.arange(50) / 7, np.full(10, 0.5)],
            "metric": "r2",
            "splits": [range(30), range(30, 50), range(50, 60)],
        },
        "split 'test': found a score of .*; allowed: labels for which metric 'r2'",
    ),
    "a cube": (
        {"labels": np.zeros((N, 2, 2), int)},
        r"labels: found an array of shape \(60, 2, 2\)",
    ),
    "a gap in labels": (
        {"labels": ["a", None, "b"] * 20},
        "labels, row 1: found None; allowed: class numbers or names",
    ),
    "no 0 or 1": (
        {"labels": np.eye(3, dtype=int)[THREE] * 2},
        "labels, row 0: found .*2.*; allowed: 0 a",
    ),
    "uneven labels": ({"labels": [[1], [0, 1]] * 30}, "labels: found lists of unequal lengths"),
    "names twice": (
        {"labels": THREE + 5, "class_names": ("a", "b", "c")},
        "class_names: found names bes",
    ),
    "too few names": ({"class_names": ("a",)}, "mine: found 1 class names; allowed: 3, or none"),
    "a rare class": (
        {"labels": np.r_[THREE[:-1], 3], "splits": [range(40), range(40, 50), range(50, N)]},
        "split 'train': class 3: found no samples; allowed: one at least",
    ),
    "an empty column": (
        {"labels": np.eye(4, dtype=int)[THREE]},
        "split 'train': class 3: found no samp",
    ),
    "fractions": (
        {"splits": (0.5, 0.2, 0.2)},
        r"splits: found \(0.5, 0.2, 0.2\); allowed: three fractions",
    ),
    "no test": ({"splits": (0.5, 0.5, 0)}, "splits: found .*; allowed: three fractions above 0"),
    "two fractions": (
        {"splits": (0.5, 0.5)},
        "splits: found .*; allowed: three fractions, three arr",
    ),
    "another name": (
        {"splits": ["train"] * 59 + ["tset"]},
        r"splits, row 59: found 'tset' \(did you mean 'test'",
    ),
    "a split's name": ({"splits": {"trian": [0]}}, r"splits: found 'trian' \(did you mean 'train'"),
    "no validation": (
        {"splits": {"train": range(30), "test": range(30, N)}},
        "split 'validation': found no",
    ),
    "a row too many": (
        {"splits": [range(30), range(30, 40), range(40, 61)]},
        "splits: test: found row 60; allowed: 0…59",
    ),
    "in two": (
        {"splits": [range(31), range(30, 40), range(40, N)]},
        "splits: found row 30 in 'train' and 'valid",
    ),
    "in one twice": (
        {"splits": [[0, 1, 2, 2], range(30, 40), range(40, N)]},
        "splits: found row 2 twice in 'train'",
    ),
    "floats as rows": (
        {"splits": [np.arange(30) / 2, range(30, 40), range(40, N)]},
        "splits: train: found an array",
    ),
    "groups": ({"groups": range(50)}, "groups: found 50 rows; allowed: 60 rows"),
    "a group in two splits": (
        {
            "groups": [f"speaker {k // 20}" for k in range(N)],
            "splits": [range(30), range(30, 40), range(40, N)],
        },
        "groups: found 'speaker 1' in 'train' and 'validation'; allowed: each in one split",
    ),
    "two groups": ({"groups": [0, 1] * 30}, "split '(validation|test)': found no samples"),
    "a metric": ({"metric": "acuracy"}, "acuracy"),
    "a pooling": (
        {"pooling": {"Text": "tiem"}},
        "Text: pooling: found 'tiem'; allowed: grid, time",
    ),
    "pooling of none": (
        {"pooling": {"Txt": "time"}},
        r"pooling: found modality 'Txt' \(did you mean 'Text'",
    ),
    "a gap in numbers": ({"labels": [0, 1, float("nan")] * 20}, "labels, row 2: found nan; allow"),
    "NaN in a column": ({"labels": np.where(THREE > 1, np.nan, THREE)}, "labels, row 2: found NaN"),
    "1 and its text": ({"labels": [1, "1", 2] * 20}, "labels, row 1: found '1' beside 1; allowed"),
    "a column of one": ({"labels": (THREE % 2)[:, None]}, "labels: found .*its one column"),
    "a masked feature": (
        {"features": {"A": np.ma.masked_equal(with_value(5.0), 5), "B": VECTOR}},
        "A: A_1, row 7: found a masked value; allowed: values that are all there",
    ),
    "a sparse tensor": (
        {"features": {"A": torch.eye(N).to_sparse(), "B": VECTOR}},
        "A: A_1: found a tensor that is sparse",
    ),
    "a tensor of nothing": (
        {"features": {"A": torch.zeros(N, 3, device="meta"), "B": VECTOR}},
        "A: A_1: found a tensor that is meta",
    ),
    "labels of nothing": ({"labels": torch.zeros(N, device="meta")}, "labels: found a tensor that"),
    "a line in a name": ({"features": {"A\nB": VECTOR, "B": VECTOR}}, "modality: found 'A.*nB'"),
    "a line in a feature": ({"features": {"A": {"a\n": VECTOR}, "B": VECTOR}}, "A: feature: found"),
    "a group of nobody": (
        {"groups": [1, None] * 30},
        "groups, row 1: found None; allowed: a whole",
    ),
    "two splits": (
        {"splits": (range(40), range(40, N))},
        "splits: found .*; allowed: three fracti",
    ),
    "rows in rows": (
        {"splits": ([[1], [1, 2]], [3], [4])},
        "splits: train: found lists of unequal",
    ),
    "one in validation": (
        {"splits": [range(40), [40], range(41, N)]},
        "split 'validation': found 1 sample; allowed: at least two",
    ),
    "another dict": ({"splits": {"train": 0.5, "vall": 0.2, "test": 0.3}}, "splits: found 'vall'"),
    "a metric for several": (
        {"metric": "equal_error_rate"},
        "metric: found 'equal_error_rate' for 3 classes; allowed: accuracy, balanced_accuracy, ma",
    ),
    "a metric for one": (
        {"labels": np.eye(3, dtype=int)[THREE], "metric": "accuracy"},
        "metric: found 'accuracy' for 3 classes, several a sample; allowed: macro_f1, micro_f1",
    ),
    "settings as a dict": ({"config": {"L": 3}}, r"config: found {'L': 3}; allowed: bm.Settings"),
    "other settings": ({"config": bm.TrainConfig()}, r"config: found .*; allowed: bm.Settings"),
    "search settings": (
        {"search_config": 5},
        r"search_config: found 5; allowed: bm.SearchSettings",
    ),
    "65 Cells": (
        {"config": lambda: Settings(N=65)},
        "Settings.N: found 65; allowed: at least 1, at",
    ),
    "pooling as text": ({"pooling": "grid"}, "pooling: found 'grid'; allowed: a dict"),
    "pooling of a video": (
        {"pooling": {"Video": "grid"}},
        r"Video: pooling of 'Video_1': found 'grid' for 3 axes behind \(n, C\); allowed: 'time'",
    ),
    "a seed": ({"seed": 1.5}, "seed: found 1.5; allowed: an integer"),
    "a set of names": ({"class_names": {"a", "b", "c"}}, "class_names: found .*; allowed: a list"),
    "letters": ({"class_names": "abc"}, "class_names: found 'abc'; allowed: a list of texts"),
    "a name twice": (
        {"class_names": ("a", "b", "a")},
        r"class_names\[2\]: found 'a'; allowed: each",
    ),
    "a split twice": (
        {"splits": {"train": [0], "val": [1], "validation": [2], "test": [3]}},
        "splits: found 'validation' twice; allowed: each split once",
    ),
    "a list of metrics": ({"metric": ["accuracy"]}, "metric: found list; allowed: a str"),
    "a huge number": ({"labels": [2**70, 1] * 30}, "labels: found numbers of more than 64 bits"),
    "no name": ({"name": 3}, "name: found 3; allowed: printable text"),
}


@pytest.mark.parametrize("n", [10, 13, 20, 49])
def test_few_values_are_split_by_the_fractions(n):
    sizes = [len(rows) for rows in split_rows((0.6, 0.2, 0.2), torch.linspace(0, 1, n)).values()]
    assert np.abs(np.subtract(sizes, [0.6 * n, 0.2 * n, 0.2 * n])).max() < 2 and min(sizes) >= 2


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(what):
    changes, message = WRONG[what]
    late = {name: value for name, value in changes.items() if callable(value)}
    with pytest.raises(bm.BmnasError, match=message) as error:
        task = own_task(**changes | {name: value() for name, value in late.items()})
        bm.Search(task, device="cpu")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_features_without_backbones_cannot_be_fine_tuned():
    task = own_task()
    genotype = bm.Genotype(
        task.features,
        (bm.CellGenotype(("Video_1", "words"), (bm.StepGenotype("sum", ("X", "Y")),)),),
    )
    with pytest.raises(bm.TrainError, match="finetune: found True for task 'mine', whose features"):
        bm.train(genotype, task, bm.TrainConfig(finetune=True), device="cpu")


def test_test_samples_may_be_withheld_by_a_dict_without_test():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 60, 4)).astype(np.float32)
    labels = np.arange(60) % 3
    rows = {"train": np.arange(40), "val": np.arange(40, 60)}
    task = bm.Task.from_features("mine", {"A": a, "B": b}, labels, rows)
    assert len(task.splits["test"]) == 0 and "20 validation, 0 test" in repr(task)
    assert "class 0 14 / 6 / 0" in str(task)
    for splits in (rows | {"test": []}, [rows["train"], rows["val"], []]):
        with pytest.raises(bm.TaskError, match="split .test.: found no samples; allowed"):
            bm.Task.from_features("mine", {"A": a, "B": b}, labels, splits)
    with pytest.raises(bm.TaskError, match="split .validation.: found no samples"):
        bm.Task.from_features("mine", {"A": a, "B": b}, labels, {"train": np.arange(60)})
