"""Cross-validation: folds that cover all samples and leak nothing, intervals wide enough."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import RepeatedStratifiedKFold
from tiny import in_files, tiny_task
from torch import nn

import bmnas_core as bm
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.cross_validation import corrected_interval
from bmnas_core.losses import metric_of
from bmnas_core.metrics import METRICS, register_metric
from bmnas_core.tasks import Modality, Split, Task, TaskError
from bmnas_core.tasks.arrays import SPLITS
from bmnas_core.tasks.folds import all_samples, connected, make_folds, strata
from bmnas_core.tasks.inputs import FeatureArrays

SMALL = Settings(C=8, L=1, N=1, M=1, epochs=3, batch_size=16, dropout=0.0)
QUICK = SearchSettings(selection="argmax", epochs=1, tuning_epochs=0)
ON_CPU = {"device": "cpu", "progress": False, "baselines": ()}


def own_task(n=60, signal=2.0, labels=None, classes=3, seed=0, **changes) -> Task:
    """Two vectors a sample, which tell its class."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes if labels is None else labels
    kinds = np.eye(classes)[np.arange(n) % classes] if np.ndim(labels) == 1 else labels
    a, b = random.normal(size=(n, 5)), random.normal(size=(n, 4))
    a[:, : kinds.shape[1]] += signal * kinds
    given = {"config": SMALL, "search_config": QUICK}
    return Task.from_features("mine", {"A": a, "B": b}, labels, **given | changes)


def rows_of(task: Task) -> dict[str, set[int]]:
    """Split → rows of the arrays that the task was made of."""
    return {name: set(task.split(name).index[:, 0].tolist()) for name in SPLITS}


# --- folds


@settings(max_examples=40)
@given(data=st.data())
def test_folds_cover_all_samples_and_no_split_leaks_into_another(data):
    n, classes = data.draw(st.integers(24, 90)), data.draw(st.integers(2, 3))
    folds, validation = data.draw(st.integers(2, 5)), data.draw(st.floats(0.2, 0.5))
    seed = data.draw(st.integers(0, 9999))
    several = data.draw(st.none() | st.integers(folds, n))
    groups = several and np.random.default_rng(seed).integers(several, size=n).tolist()
    task = own_task(n, classes=classes)
    how = {"validation": validation, "seed": seed}
    try:
        found = make_folds(task, folds, groups, **how)
    except TaskError as error:  # random groups may be too few for a class
        assert groups is not None and "\n" not in str(error)
        return
    assert torch.equal(torch.cat([fold.rows for fold in found]).sort()[0], torch.arange(n))
    for k, fold in enumerate(found):
        assert fold.number == k and fold.task.modalities == task.modalities
        rows = rows_of(fold.task)
        assert rows["test"] == set(fold.rows.tolist())
        assert sum(map(len, rows.values())) == n == len(set().union(*rows.values()))
        for name in SPLITS:
            split = fold.task.split(name)
            assert torch.equal(split.labels, split.index[:, 0] % classes)
        for name in ("train", "test"):
            assert set(fold.task.split(name).labels.tolist()) == set(range(classes))
        if groups is not None:
            kinds = [{groups[row] for row in own} for own in rows.values()]
            assert len(set().union(*kinds)) == sum(map(len, kinds))


def test_without_groups_every_split_has_its_share_of_each_class():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for fold in make_folds(own_task(100, labels=labels), 5, validation=0.25):
        counts = {name: fold.task.split(name).labels.bincount().tolist() for name in SPLITS}
        assert counts == {"train": [36, 18, 6], "validation": [12, 6, 2], "test": [12, 6, 2]}


def test_samples_that_share_an_item_are_a_group_through_others_too():
    index = torch.tensor([[0, 0], [1, 0], [1, 1], [2, 2], [3, 3], [4, 3]])
    assert connected(index).tolist() == [0, 0, 0, 1, 2, 2]
    assert connected(index, list("uuuvvw")).tolist() == [0, 0, 0, 1, 1, 1]
    assert connected(index[:, :1]).tolist() == [0, 1, 1, 2, 3, 4]


def paired_task(pairs: int = 24) -> Task:
    """Each B item is in two samples."""
    random = np.random.default_rng(0)
    inputs = [FeatureArrays({name: random.normal(size=(2 * pairs, 3))}) for name in ("a", "b")]
    modalities = tuple(
        Modality(name, nn.Identity(), {name.lower(): 3}, own)
        for name, own in zip("AB", inputs, strict=True)
    )
    rows = torch.arange(2 * pairs)
    index, labels = torch.stack([rows, rows // 2], 1), rows // 2 % 2
    cut = (0, pairs, 3 * pairs // 2, 2 * pairs)
    splits = {
        name: Split(name, index[a:b], labels[a:b])
        for name, a, b in zip(SPLITS, cut, cut[1:], strict=False)
    }
    whole = SMALL.with_defaults(own_task().config)
    return Task("pairs", None, 2, "accuracy", modalities, splits, whole, QUICK)


def test_samples_that_share_an_item_come_into_one_split():
    found = make_folds(paired_task(), 4)  # a Task refuses an item in two splits
    assert [len(fold.rows) for fold in found] == [12] * 4
    for fold in found:
        assert all(len(set(pair)) == 1 for pair in fold.rows.reshape(-1, 2).numpy() // 2)


def test_other_folds_for_each_seed_and_repeat_and_the_same_for_one():
    task = own_task()
    rows = [[f.rows.tolist() for f in make_folds(task, 3, **how)] for how in (
        {"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "repeat": 1})]  # fmt: skip
    assert rows[0] == rows[1] and rows[0] != rows[2] and rows[0] != rows[3]


def test_samples_are_in_the_order_of_the_arrays():
    samples = all_samples(own_task())
    assert torch.equal(samples.index, torch.arange(60)[:, None].repeat(1, 2))
    assert torch.equal(samples.labels, torch.arange(60) % 3)


def test_several_labels_are_stratified_by_the_rarest():
    labels = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
    assert strata(labels).tolist() == [2, 1, 0, 3, 1]
    assert strata(labels, smallest=2).tolist() == [1] * 5
    random = np.random.default_rng(0)
    labels = (random.random((120, 3)) < [0.7, 0.4, 0.08]).astype(int)
    task = own_task(120, labels=labels)
    for fold in make_folds(task, 5):
        assert fold.task.split("test").labels.any(0).all()
        assert fold.task.split("train").labels.any(0).all()


def test_values_of_a_regression_are_stratified_by_quantiles():
    values = torch.tensor([3.0, -1.0, 10.0, 0.5, 2.0, 7.0])
    assert strata(values, smallest=2).tolist() == [1, 0, 2, 0, 1, 2]
    assert strata(values[:, None], smallest=3).tolist() == [1, 0, 1, 0, 0, 1]
    assert strata(torch.randn(6, 2)).tolist() == [0] * 6
    assert max(strata(torch.randn(500))) == 9


# --- features


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_bank_with_other_splits_equals_one_made_for_them(on_disk, tmp_path):
    task = in_files(tiny_task(), tmp_path / "files")
    (tmp_path / "files" / "Image" / "3.npy").unlink()
    how = {"device": "cpu", "folder": tmp_path / "bank" if on_disk else None, "workers": 0}
    with pytest.warns(bm.tasks.DataWarning, match="1 left out"):
        bank = bm.FeatureBank(task, **how)
        for fold in make_folds(task, 3):
            other, fresh = bank.with_splits(fold.task), bm.FeatureBank(fold.task, **how)
            assert other.features is bank.features
            assert other.source_hash == fresh.source_hash != bank.source_hash
            assert other.content_hash == fresh.content_hash
            for name in (*SPLITS, "train+validation"):
                assert other.size(name) == fresh.size(name)
                rows = torch.arange(other.size(name))
                (one, labels), (two, same) = (own.batch(name, rows) for own in (other, fresh))
                assert torch.equal(labels, same) and one.keys() == two.keys()
                assert all(torch.equal(one[key], two[key]) for key in one)
            assert bm.FeatureBank.shared(fold.task, None, "cpu", other) is other
    assert bank.size("test") == 24


def test_a_bank_takes_no_splits_of_other_data_or_other_weights():
    task = tiny_task()
    bank = bm.FeatureBank(task, device="cpu")
    message = "task: found 'mine', of other modalities, data or backbones; allowed: one with those"
    with pytest.raises(bm.FeatureError, match=message):
        bank.with_splits(own_task())
    with torch.no_grad():
        task.modalities[0].backbone.layers[0].bias += 1
    with pytest.raises(bm.FeatureError, match="of other modalities, data or backbones"):
        bank.with_splits(task)


# --- results


def test_a_result_has_every_score_prediction_and_genotype():
    task = own_task()
    names = ["single modalities", "BM-NAS", "late fusion"]
    found = bm.cross_validate(task, 3, repeats=2, **ON_CPU | {"baselines": names})
    networks = {"BM-NAS", "A alone", "B alone", "late fusion, averaged"}
    networks.add("late fusion, concatenated")
    assert set(found.table["network"]) == set(found.scores["network"]) == networks
    assert list(found.scores) == ["repeat", "fold", "network", "score", "params", "seconds"]
    assert len(found.scores) == 2 * 3 * 5 and len(found.genotypes) == 6
    assert found.predictions.shape == (2, 60, 3) and found.predictions.isfinite().all()
    assert torch.equal(found.labels, torch.arange(60) % 3)
    assert found.table["mean"].is_monotonic_decreasing
    for network, own in found.scores.groupby("network"):
        row = found.table.set_index("network").loc[network]
        assert row["mean"] == pytest.approx(own["score"].mean())
        assert row["std"] == pytest.approx(own["score"].std())
        low, high = corrected_interval(own["score"].to_numpy(), 0.5)
        assert (row["low"], row["high"]) == (max(low, 0.0), min(high, 1.0))  # accuracy's limits
    own = found.scores.set_index(["network", "repeat", "fold"])["score"]
    difference = (own["A alone"] - own["BM-NAS"]).to_numpy()
    row = found.table.set_index("network").loc["A alone"]
    interval = row["difference_low"], row["difference_high"]
    assert row["difference"] == pytest.approx(difference.mean())
    assert interval == corrected_interval(difference, 0.5)
    title = "mine: accuracy in 3 folds of 60 samples, 2 times"
    assert repr(found).splitlines()[0] == title and title in found._repr_html_()


def test_predictions_give_the_scores_of_their_folds_and_of_all():
    found = bm.cross_validate(own_task(61, signal=1.0), 4, **ON_CPU)
    score = metric_of(found.task).score
    folds = found.scores.set_index("fold")["score"]
    sizes = found.tested_in[0].bincount()
    for k, value in folds.items():
        rows = found.tested_in[0] == k
        assert score(found.predictions[0][rows], found.labels[rows]) == value
    whole = score(found.predictions[0], found.labels)
    assert whole == pytest.approx(float((sizes * torch.tensor(folds.to_numpy())).sum() / 61))
    assert 0 < whole < 1 and sizes.tolist() in ([16, 15, 15, 15], [15, 16, 15, 15])


def test_the_seed_fixes_everything():
    how = ON_CPU | {"baselines": ["late fusion"]}
    one, same, other = (bm.cross_validate(own_task(), 3, seed=s, **how) for s in (4, 4, 5))
    assert torch.equal(one.predictions, same.predictions) and one.genotypes == same.genotypes
    pd.testing.assert_frame_equal(*(r.scores.drop(columns="seconds") for r in (one, same)))
    assert not torch.equal(one.predictions, other.predictions)


def test_a_fold_says_the_same_as_a_search_and_a_training_on_its_task():
    task = own_task()
    found, fold = bm.cross_validate(task, 3, **ON_CPU), make_folds(task, 3)[1]
    search = bm.Search(fold.task, device="cpu")
    for _ in search:
        pass
    net, _ = bm.train(search.best_genotype, fold.task, device="cpu", progress=False)
    assert search.best_genotype == found.genotypes[1]
    assert bm.evaluate(net, fold.task) == found.scores["score"][1]


# --- no leak


def test_labels_of_a_fold_change_nothing_that_is_found_without_it():
    labels, groups = np.arange(72) % 3, np.arange(72) // 12
    rows = np.flatnonzero(groups == 4)
    changed = labels.copy()
    changed[rows] = np.roll(labels[rows], 1)  # each group has as many of a class as before
    one, other = (
        bm.cross_validate(own_task(72, labels=own), 3, groups, **ON_CPU)
        for own in (labels, changed)
    )
    assert torch.equal(one.tested_in, other.tested_in)
    k = int(one.tested_in[0, rows[0]])
    tested = one.tested_in[0] == k
    assert one.genotypes[k] == other.genotypes[k]
    assert torch.equal(one.predictions[0][tested], other.predictions[0][tested])
    assert one.scores["score"][k] != other.scores["score"][k]
    assert not torch.equal(one.predictions[0][~tested], other.predictions[0][~tested])


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.35, 0.65), (4.0, 0.9, 1.0)])
def test_noise_scores_as_chance_and_a_signal_well_above(signal, low, high):
    task = own_task(120, signal, classes=2)
    config = bm.TrainConfig(epochs=15, max_lr=1e-2)
    search = bm.SearchConfig(operations=("sum", "concat_fc"))  # no step can leave out an input
    how = ON_CPU | {"config": config, "search": search, "baselines": ["late fusion"]}
    found = bm.cross_validate(task, 4, **how)
    assert found.table["mean"].between(low, high).all()


# --- intervals


def test_the_corrected_interval_is_that_of_a_calculation_by_hand():
    # Mean 0.8, S² 0.02 / 4 = 0.005; 5 folds: variance 0.005 · (1/5 + 1/4) = 0.00225; t 2.776445.
    low, high = corrected_interval(np.array([0.7, 0.75, 0.8, 0.85, 0.9]), 1 / 4)
    reach = 2.776445 * (0.00625 * 0.45) ** 0.5
    assert (low, high) == pytest.approx((0.8 - reach, 0.8 + reach), abs=1e-6)


def test_the_corrected_interval_covers_the_true_score_where_the_naive_one_does_not():
    random, n, k = np.random.default_rng(0), 60, 20

    def classify(x, y, test):
        means = [x[y == c].mean(0) for c in (0, 1)]
        return np.argmin([((test - mean) ** 2).sum(1) for mean in means], axis=0)

    def sample(size):
        y = np.arange(size) % 2
        return random.normal(size=(size, 3)) + 0.4 * y[:, None], y

    large, kinds = sample(20_000)
    expected = np.mean([(classify(*sample(n * 4 // 5), large) == kinds).mean() for _ in range(200)])
    cut, covered = RepeatedStratifiedKFold(n_splits=5, n_repeats=k // 5, random_state=0), []
    for _ in range(150):
        x, y = sample(n)
        scores = [(classify(x[a], y[a], x[b]) == y[b]).mean() for a, b in cut.split(x, y)]
        intervals = [corrected_interval(np.array(scores), share) for share in (1 / 4, 0.0)]
        covered.append([low <= expected <= high for low, high in intervals])
    corrected, naive = np.mean(covered, axis=0)
    assert corrected > 0.9 and naive < 0.75


# --- kinds of tasks


def test_samples_with_several_labels_are_scored_by_their_metric():
    random = np.random.default_rng(1)
    labels = (random.random((80, 3)) < 0.5).astype(int)
    found = bm.cross_validate(own_task(80, 3.0, labels=labels, threshold=0.3), 4, **ON_CPU)
    assert found.task.metric == "weighted_f1" and found.labels.shape == (80, 3)
    assert found.table["mean"][0] > 0.6


def test_the_lowest_is_best_of_a_metric_that_is_an_error():
    with METRICS.restored():
        register_metric("mean loss", labels="classes", direction="min")(mean_loss)
        task = own_task(signal=3.0, metric="mean loss")
        names = ["single modalities", "late fusion"]
        found = bm.cross_validate(task, 2, **ON_CPU | {"baselines": names})
        assert found.table["mean"].is_monotonic_increasing and len(found.table) == 5


@pytest.mark.slow
def test_a_regression_is_cross_validated_in_the_labels_units():
    random = np.random.default_rng(2)
    values = random.normal(size=60) * 40 + 300
    features = {name: values[:, None] + random.normal(size=(60, 4)) * 10 for name in "AB"}
    how = {"metric": "rmse", "config": Settings(C=8, L=1, N=1, M=1, epochs=15, batch_size=16)}
    task = bm.Task.from_features("mine", features, values, **how)
    found = bm.cross_validate(task, 3, **ON_CPU | {"baselines": ["logistic regression"]})
    assert set(found.table["network"]) == {"BM-NAS", "ridge regression"}
    assert found.table["mean"].max() < 40 and found.predictions.shape == (1, 60, 1)
    errors = found.predictions[0, :, 0] - found.labels
    whole = float(errors.square().mean().sqrt())
    own = found.scores[found.scores["network"] == "BM-NAS"]["score"]
    assert whole == pytest.approx(float(np.sqrt((own**2).mean())), rel=1e-4)


def test_folds_keep_the_tasks_own_groups_whole_unless_others_are_given():
    groups = np.arange(60) // 4
    task = own_task(60, 2.0, groups=groups)
    for fold in make_folds(task, 3):
        own = [{int(groups[row]) for row in rows} for rows in rows_of(fold.task).values()]
        assert not (own[0] & own[1] or own[0] & own[2] or own[1] & own[2])
    others = np.arange(60) // 6
    tests = [set(others[list(rows_of(f.task)["test"])]) for f in make_folds(task, 3, others)]
    assert sum(map(len, tests)) == len(set(others))


def mean_loss(logits, labels):
    return 100 * float(nn.functional.cross_entropy(logits, labels))


def test_samples_that_cannot_be_read_are_left_out(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    (tmp_path / "Audio" / "50.npy").unlink()
    with pytest.warns(bm.tasks.DataWarning, match="1 left out"):
        found = bm.cross_validate(task, 3, **ON_CPU)
    assert found.tested_in[0, 50] == -1 and (found.tested_in[0] >= 0).sum() == 95
    bad = found.predictions[0].isnan().any(1)
    assert bad.nonzero().flatten().tolist() == [50]


def test_backbones_may_be_finetuned_in_each_fold():
    config = bm.TrainConfig(finetune=True, epochs=1)
    found = bm.cross_validate(tiny_task(), 2, config=config, **ON_CPU)
    assert found.predictions.isfinite().all() and (found.scores["params"] > 500).all()


def test_backbones_that_learned_from_the_task_are_refused():
    task = tiny_task()
    bm.train_backbone(task, "Audio", bm.TrainConfig(epochs=1), device="cpu", progress=False)
    found = "weights that learned from the task's training split, of which folds test parts"
    message = f"backbone of 'Audio': found {found}; allowed: weights from other data"
    with pytest.raises(TaskError) as error:
        bm.cross_validate(task, **ON_CPU)
    assert str(error.value) == message
    with pytest.raises(TaskError, match="backbone of 'Image': found weights that learned"):
        bm.cross_validate(bm.load_task("digits", rule="sum"), **ON_CPU)


# --- runs that stop


def test_a_run_goes_on_with_the_folds_that_it_lacks(tmp_path):
    task, how = own_task(), ON_CPU | {"baselines": ["single modalities"], "out": tmp_path / "run"}
    whole = bm.cross_validate(task, 3, **how)
    files = sorted((tmp_path / "run").glob("*.safetensors"))
    assert [file.name for file in files] == [f"repeat_0_fold_{k}.safetensors" for k in range(3)]
    files[1].unlink()
    before = [files[k].stat().st_mtime_ns for k in (0, 2)]
    again = bm.cross_validate(task, 3, **how)
    assert [files[k].stat().st_mtime_ns for k in (0, 2)] == before and files[1].exists()
    assert torch.equal(whole.predictions, again.predictions)
    assert whole.genotypes == again.genotypes
    scores = [result.scores.drop(columns="seconds") for result in (whole, again)]
    pd.testing.assert_frame_equal(*scores)
    kept = [result.scores.query("fold != 1") for result in (whole, again)]
    pd.testing.assert_frame_equal(*kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"task": own_task(signal=2.5)},
        {"folds": 4},
        {"config": bm.TrainConfig(epochs=2)},
        {"search": bm.SearchConfig(relaxation="paper")},
        {"baselines": ["late fusion"]},
        {"validation": 0.3},
        {"groups": np.arange(60) // 2},
        {"task": replace(own_task(), class_weights=(1.0, 2.0, 3.0))},
        {"task": replace(own_task(), label_smoothing=0.1)},
        {"task": replace(own_task(), metric="macro_f1")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_folder_of_another_run_is_refused(change, tmp_path):
    given = {"task": own_task(), "folds": 3, "out": tmp_path}
    bm.cross_validate(**ON_CPU | given)
    message = "found a fold of other data or settings; allowed: an empty folder as out"
    with pytest.raises(TaskError, match=f"repeat_0_fold_0.safetensors: {message}"):
        bm.cross_validate(**ON_CPU | given | change)


def test_a_damaged_fold_is_refused(tmp_path):
    bm.cross_validate(own_task(), 2, **ON_CPU, out=tmp_path)
    (tmp_path / "repeat_0_fold_1.safetensors").write_bytes(b"\x08")
    with pytest.raises(TaskError, match="fold_1.safetensors: found no result of a fold"):
        bm.cross_validate(own_task(), 2, **ON_CPU, out=tmp_path)


# --- what is refused


RARE = np.array([0, 1] * 28 + [2] * 4)
KNOWN = ", ".join(bm.BASELINES)
WRONG = {
    "task": ({"task": 1}, "task: found int; allowed: a Task, as load_task gives"),
    "folds of text": ({"folds": "5"}, "folds: found '5'; allowed: an integer"),
    "half a fold": ({"folds": 2.5}, "folds: found 2.5; allowed: an integer"),
    "folds True": ({"folds": True}, "folds: found True; allowed: an integer"),
    "one fold": ({"folds": 1}, "folds: found 1; allowed: 2 to 60, the number of samples"),
    "more folds than samples": (
        {"folds": 61},
        "folds: found 61; allowed: 2 to 60, the number of samples",
    ),
    "folds more than a class has": (
        {"folds": 21},
        "class 0: found 20 samples; allowed: at least 21, one for each fold",
    ),
    "a small class": (
        {"task": own_task(labels=RARE)},
        "class 2: found 4 samples; allowed: at least 5, one for each fold",
    ),
    "a small class with a name": (
        {"task": own_task(labels=RARE, class_names=["a", "b", "rare"])},
        "class 2 ('rare'): found 4 samples; allowed: at least 5, one for each fold",
    ),
    "a class in one group": (
        {"groups": np.where(np.arange(60) % 3 == 1, 99, np.arange(60))},
        "class 1: found 1 group; allowed: at least 5, one for each fold",
    ),
    "few groups": (
        {"groups": np.arange(60) % 4},
        "groups: found 4; allowed: at least 5, one for each fold",
    ),
    "few samples apart": (
        {"task": paired_task(4)},
        "samples that share items: found 4; allowed: at least 5, one for each fold",
    ),
    "groups too short": (
        {"groups": np.arange(59)},
        "groups: found 59 rows; allowed: 60, one for each sample of the splits",
    ),
    "groups of numbers with fractions": (
        {"groups": np.arange(60) / 2},
        "groups: found values of type float64; allowed: a whole number or text for each sample",
    ),
    "groups no column": (
        {"groups": 3},
        "groups: found an array of shape (); allowed: 60 rows, as the features have",
    ),
    "no validation": (
        {"validation": 0.0},
        "validation: found 0.0; allowed: a share above 0 and below 1",
    ),
    "all validation": (
        {"validation": 1},
        "validation: found 1.0; allowed: a share above 0 and below 1",
    ),
    "validation of text": ({"validation": "a"}, "validation: found 'a'; allowed: a number"),
    "little validation": (
        {"validation": 0.02},
        "fold 0: split 'validation': found 1 sample; allowed: at least 2",
    ),
    "little train": (
        {"validation": 0.98},
        "fold 0: split 'train': found 1 sample; allowed: at least 2",
    ),
    "no repeats": ({"repeats": 0}, "repeats: found 0; allowed: 1 or more"),
    "repeats of text": ({"repeats": "2"}, "repeats: found '2'; allowed: an integer"),
    "unknown baseline": (
        {"baselines": ["late fuson"]},
        f"baseline: found 'late fuson' (did you mean 'late fusion'?); allowed: {KNOWN}",
    ),
    "baselines of text": (
        {"baselines": "late fusion"},
        "baselines: found 'late fusion'; allowed: a tuple",
    ),
    "config": ({"config": SMALL}, "config: found Settings; allowed: a TrainConfig"),
    "search": ({"search": 1}, "config: found int; allowed: a SearchConfig"),
    "seed": ({"seed": "a"}, "seed: found 'a'; allowed: an integer"),
    "device": (
        {"device": "gpu"},
        "device: found 'gpu'; allowed: 'auto', 'cpu', 'mps', 'cuda', 'cuda:0', …",
    ),
    "bank": ({"bank": 1}, "bank: found int; allowed: a FeatureBank"),
    "out": ({"out": 1}, "out: found int; allowed: the path of a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(case):
    change, message = WRONG[case]
    with pytest.raises(bm.BmnasError) as error:
        bm.cross_validate(**ON_CPU | {"task": own_task()} | change)
    assert str(error.value) == message


def test_a_split_on_which_the_metric_is_undefined_is_refused():
    with METRICS.restored():
        labels = np.array([0, 0, 0, 1, 1] * 12)
        task = own_task(labels=labels, metric="auroc", classes=2)
        assert len(bm.cross_validate(task, 3, **ON_CPU).scores) == 3
        # All positives are in two groups: what one fold leaves is all needed to learn from.
        groups = np.where(labels, 100 + np.arange(60) // 30, np.arange(60))
        with pytest.raises(TaskError) as error:
            bm.cross_validate(task, 2, groups, **ON_CPU)
        found = "fold 0: split 'validation': found only samples of class 0; allowed: labels for"
        assert str(error.value) == f"{found} which metric 'auroc' is defined; try fewer folds"


def test_a_baseline_may_not_be_called_as_the_search():
    with bm.BASELINES.restored():

        @bm.register_baseline("same name")
        def same_name(context):
            yield "BM-NAS", [context.fit(lambda: nn.Sequential(Last(), nn.Linear(4, 3)))]

        message = "baselines: found label 'BM-NAS' a second time"
        with pytest.raises(bm.BaselineError, match=message):
            bm.cross_validate(own_task(), 2, **ON_CPU | {"baselines": ["same name"]})


class Last(nn.Module):
    """The last feature as a vector."""

    def forward(self, features):
        return features["B_1"].flatten(1)


def test_the_task_and_its_splits_stay_as_they_were():
    task = own_task()
    before = {name: split.index.clone() for name, split in task.splits.items()}
    bm.cross_validate(replace(task), 2, **ON_CPU)
    assert all(torch.equal(before[name], split.index) for name, split in task.splits.items())
