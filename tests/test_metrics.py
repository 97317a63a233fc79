"""Metrics: scores of classes and values, their losses, directions and noise."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as sk
from torch import nn
from torch.func import vmap

import bmnas_core as bm
from bmnas_core.baselines import compare
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.errors import BmnasError
from bmnas_core.losses import LOSSES, Targets, cross_entropy, metric_of
from bmnas_core.metrics import METRICS, _try_out, absolute_error, binomial_error, standard_error

N = 90
SMALL = Settings(C=8, L=1, N=1, M=1, epochs=15, batch_size=32, dropout=0.0, max_lr=1e-2)
QUICK = SearchSettings(selection="argmax", epochs=1, tuning_epochs=0)
DRAWN = np.random.default_rng(0)
LOGITS = torch.from_numpy(DRAWN.normal(size=(50, 4))).float()
CLASSES = torch.from_numpy(DRAWN.integers(4, size=50))
TWO = torch.from_numpy(DRAWN.integers(2, size=50))
HOT = torch.from_numpy(DRAWN.integers(2, size=(50, 4)))
VALUES = torch.from_numpy(DRAWN.normal(size=(50, 1)) * 30 + 5).float()
TRUE = VALUES[:, 0] + torch.from_numpy(DRAWN.normal(size=50) * 9).float()


def task_of(labels, **options) -> bm.Task:
    """A task whose features hold the labels' number, in noise."""
    random, labels = np.random.default_rng(1), np.asarray(labels)
    numbers = np.unique(labels, return_inverse=True)[1] if labels.dtype.kind == "U" else labels
    signal = np.asarray(numbers, float).reshape(len(labels), -1)[:, :1]
    signal = (signal - signal.mean()) / signal.std()
    features = {name: signal + random.normal(size=(len(labels), 3)) / 2 for name in ("A", "B")}
    how = {"config": SMALL, "search_config": QUICK}
    return bm.Task.from_features("own", features, labels, **how | options)


def best_of(task: bm.Task, **settings) -> bm.Search:
    search = bm.Search(task, bm.SearchConfig(**settings), device="cpu")
    for _ in search:
        pass
    return search


softmax, sigmoid = LOGITS.softmax(1).numpy(), LOGITS.sigmoid().numpy()
EXPECTED = {
    ("accuracy", "classes"): sk.accuracy_score(CLASSES, softmax.argmax(1)),
    ("balanced_accuracy", "classes"): sk.balanced_accuracy_score(CLASSES, softmax.argmax(1)),
    ("f1", "binary"): sk.f1_score(TWO, softmax[:, :2].argmax(1)),
    ("macro_f1", "classes"): sk.f1_score(CLASSES, softmax.argmax(1), average="macro"),
    ("micro_f1", "classes"): sk.f1_score(CLASSES, softmax.argmax(1), average="micro"),
    ("weighted_f1", "multi-label"): sk.f1_score(HOT, sigmoid > 0.5, average="weighted"),
    ("macro_f1", "multi-label"): sk.f1_score(HOT, sigmoid > 0.5, average="macro"),
    ("micro_f1", "multi-label"): sk.f1_score(HOT, sigmoid > 0.5, average="micro"),
    ("auroc", "binary"): sk.roc_auc_score(TWO, LOGITS[:, 1] - LOGITS[:, 0]),
    ("auroc", "classes"): sk.roc_auc_score(CLASSES, softmax, multi_class="ovr"),
    ("auroc", "multi-label"): sk.roc_auc_score(HOT, sigmoid),
    ("average_precision", "binary"): sk.average_precision_score(TWO, LOGITS[:, 1] - LOGITS[:, 0]),
    ("average_precision", "multi-label"): sk.average_precision_score(HOT, sigmoid),
    ("rmse", "values"): sk.root_mean_squared_error(TRUE, VALUES[:, 0]),
    ("mae", "values"): sk.mean_absolute_error(TRUE, VALUES[:, 0]),
    ("r2", "values"): sk.r2_score(TRUE, VALUES[:, 0]),
    ("pearson", "values"): pearsonr(TRUE, VALUES[:, 0])[0],
}
GIVEN = {
    "classes": (LOGITS, CLASSES),
    "binary": (LOGITS[:, :2], TWO),
    "multi-label": (LOGITS, HOT),
    "values": (VALUES, TRUE),
}


@pytest.mark.parametrize(("name", "kind"), EXPECTED, ids="-".join)
def test_a_score_is_scikit_learns(name, kind):
    assert METRICS[name].score(*GIVEN[kind]) == pytest.approx(EXPECTED[name, kind], abs=1e-6)


def test_every_metric_has_a_test_of_its_score():
    assert {name for name, _ in EXPECTED} | {"equal_error_rate"} == set(METRICS)


def test_the_equal_error_rate_is_where_false_alarms_and_misses_are_equal():
    margins = torch.tensor([0.1, 0.4, 0.35, 0.8, 0.7, 0.2])
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    logits = torch.stack([-margins / 2, margins / 2], 1)
    # At a threshold between 0.35 and 0.4, one of three misses and one of three false alarms.
    assert METRICS["equal_error_rate"].score(logits, labels) == pytest.approx(1 / 3)
    assert METRICS["equal_error_rate"].score(logits, 1 - labels) == pytest.approx(2 / 3)
    assert METRICS["equal_error_rate"].score(logits, (margins > 0.3).long()) == 0
    assert METRICS["equal_error_rate"].direction == "min"


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.125, 0.5, 2.0, 64.0]))
def test_rankings_do_not_change_with_the_scale_of_logits(seed, scale):
    random = np.random.default_rng(seed)
    labels = torch.from_numpy(np.r_[0, 1, random.integers(2, size=20)])
    logits = torch.from_numpy(random.normal(size=(22, 2)).round(2))
    for name in ("auroc", "average_precision", "equal_error_rate"):
        score = METRICS[name].score
        assert score(logits * scale, labels) == pytest.approx(score(logits, labels))


def test_values_are_scored_in_their_units_and_learned_standardised():
    task = task_of(np.linspace(1000.0, 5000.0, N))
    assert task.label_kind == "values" and task.classes == 1 and task.metric == "rmse"
    labels = task.split("train").labels
    standard = task.targets.standardised(labels)
    assert float(standard.mean()) == pytest.approx(0, abs=1e-5)
    assert float(standard.std(correction=0)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(task.targets.in_units(standard)[:, 0], labels)
    metric = metric_of(task)
    assert float(metric.loss(standard, labels)) == pytest.approx(0, abs=1e-6)
    assert metric.score(torch.zeros(len(labels), 1), labels) == pytest.approx(
        float(labels.std(correction=0)), rel=1e-5
    )


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "pearson"])
def test_a_regression_is_searched_and_trained(metric):
    labels = np.random.default_rng(2).normal(size=N) * 200 + 5000
    task = task_of(labels, metric=metric, search_config=SearchSettings(epochs=3))
    search = best_of(task, selection="perturbation")
    net, history = bm.train(search.best_genotype, task, device="cpu", progress=False)
    found, guess = bm.evaluate(net, task), labels.std()
    good = {"rmse": found < 0.7 * guess, "mae": found < 0.6 * guess}
    assert good.get(metric, found > 0.5), f"{metric} {found}"


def test_several_values_are_learned_at_once():
    both = np.stack([np.linspace(0, 1, N), np.linspace(50, 10, N)], axis=1)
    task = task_of(both, metric="mae")
    assert task.classes == 2 and len(task.targets.mean) == 2
    search = best_of(task)
    net, _ = bm.train(search.best_genotype, task, device="cpu", progress=False)
    assert bm.evaluate(net, task) < 0.7 * float(np.abs(both - both.mean(0)).mean())
    with pytest.raises(bm.TaskError, match="labels, row 0: found 50.0; allowed: 0 and 1 in a m"):
        task_of(both)


def test_whole_numbers_are_values_if_the_metric_says_so():
    task = task_of(np.arange(N) % 7, metric="mae")
    assert task.label_kind == "values" and "1 value, mae" in repr(task)


@pytest.mark.parametrize("selection", ["argmax", "perturbation", "successive_halving"])
def test_a_search_minimises_what_is_better_when_lower(selection):
    labels = np.random.default_rng(3).normal(size=N)
    settings = SearchSettings(epochs=3, tuning_epochs=1, rungs=((4, 1), (2, 3)))
    task = task_of(labels, metric="rmse", search_config=settings)
    search = bm.Search(task, bm.SearchConfig(selection=selection), device="cpu")
    history = bm.SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    ends = [s for s in history if s.val_score is not None and s.phase != "selection"]
    if selection == "argmax":
        assert search.best_score == min(s.val_score for s in ends)
        assert history.best.val_score == search.best_score
    assert search.best_score < labels.std()  # better than a guess
    assert "<svg" in bm.draw_curves(history).svg


def test_of_two_candidates_the_one_with_the_lower_error_stays():
    task = task_of(np.random.default_rng(4).normal(size=N), metric="rmse")
    search = bm.Search(task, bm.SearchConfig(selection="successive_halving"), device="cpu")
    rule = search.selection
    rule.noise_ratio = 0.0
    names = [("good", 0.5), ("bad", 0.9), ("worst", 2.0)]

    class Known:
        error, probability = 0.1, 0.5

        def __init__(self, name, score):
            self.name, self.score = name, score

    found = rule._best_first([Known(*pair) for pair in reversed(names)])
    assert [one.name for one in found] == ["good", "bad", "worst"]


def test_the_noise_of_a_share_of_hits_is_binomial_and_the_bootstraps_agrees():
    labels = torch.zeros(400, dtype=torch.long)
    logits = torch.stack([torch.linspace(-1, 3, 400), torch.zeros(400)], 1)
    exact = standard_error(METRICS["accuracy"], logits, labels, 0)
    assert exact == binomial_error(0.75, 400)
    resampled = standard_error(METRICS["micro_f1"], logits, labels, 0)
    assert resampled == pytest.approx(exact, rel=0.25)


def test_the_noise_of_a_mean_error_is_its_deviation_over_the_root_of_n():
    random = torch.Generator().manual_seed(0)
    labels = torch.randn(500, generator=random) * 3
    found = standard_error(METRICS["mae"], torch.zeros(500, 1), labels, 0)
    expected = float(labels.abs().std() / math.sqrt(500))
    assert found == pytest.approx(expected, rel=0.25)
    assert standard_error(METRICS["mae"], torch.zeros(500, 1), torch.zeros(500), 0) > 0


def test_a_resample_keeps_each_class():
    labels = torch.tensor([0] * 60 + [1] * 2)
    logits = torch.stack([torch.zeros(62), torch.arange(62.0)], 1)
    assert math.isfinite(standard_error(METRICS["auroc"], logits, labels, 0))


def test_class_weights_and_smoothing_are_in_the_loss():
    task = task_of(["a"] * 60 + ["b"] * 30, class_weights="balanced", label_smoothing=0.1)
    assert task.class_weights == pytest.approx((0.75, 1.5))
    labels = task.split("train").labels[:8]
    logits = torch.randn(8, 2)
    how = {"weight": torch.tensor(task.class_weights), "label_smoothing": 0.1}
    expected = nn.functional.cross_entropy(logits, labels, **how, reduction="none").mean()
    torch.testing.assert_close(metric_of(task).loss(logits, labels), expected)
    parts = [metric_of(task).loss(logits[k], labels[k]) for k in (slice(3), slice(3, 8))]
    torch.testing.assert_close(parts[0] * 3 / 8 + parts[1] * 5 / 8, expected)  # micro-batches
    hot = np.eye(3, dtype=int)[np.arange(N) % 3]
    several = task_of(hot, class_weights="balanced", label_smoothing=0.2)
    labels = several.split("train").labels
    expected = ((1 - labels).sum(0) / labels.sum(0)).tolist()
    assert several.class_weights == pytest.approx(expected) and min(expected) > 1
    logits, labels = torch.randn(4, 3), several.split("train").labels[:4]
    expected = nn.functional.binary_cross_entropy_with_logits(
        logits, labels * 0.8 + 0.1, pos_weight=torch.tensor(several.class_weights)
    )
    torch.testing.assert_close(metric_of(several).loss(logits, labels), expected)


def test_scikit_learns_models_have_the_class_weights_too():
    from bmnas_core.baselines.classical import _class_weights
    from bmnas_core.baselines.context import BaselineContext

    labels = ["a"] * 60 + ["b"] * 30
    weighted = task_of(labels, class_weights=(1.0, 9.0))
    context = BaselineContext(weighted, bm.TrainConfig(), 0, torch.device("cpu"))
    assert _class_weights(context) == {0: 1.0, 1: 9.0}
    table = compare(weighted, ["logistic regression", "gradient boosting"], device="cpu")
    assert all(0 <= entry["test"] <= 1 for entry in table.values())


def test_a_threshold_says_when_a_class_is_predicted():
    hot = np.eye(3, dtype=int)[np.arange(N) % 3]
    low, high = (task_of(hot, threshold=t, metric="micro_f1") for t in (0.1, 0.9))
    logits = torch.zeros(9, 3)  # probabilities of 0.5
    labels = low.split("train").labels[:9]
    assert metric_of(low).score(logits, labels) == pytest.approx(0.5)
    assert metric_of(high).score(logits, labels) == 0


def test_weights_that_a_loss_of_ones_own_does_not_take_are_refused():
    with bm.METRICS.restored():
        bm.register_metric("mine", lambda logits, labels: logits.mean(), labels="classes")(
            lambda logits, labels: 0.5
        )
        task = task_of(np.arange(N) % 3, metric="mine", class_weights="balanced")
        message = (
            "own: metric 'mine': found class weights .*; allowed: a loss with arguments weight"
        )
        with pytest.raises(bm.TaskError, match=message):
            bm.Search(task, device="cpu")


def test_a_metric_of_ones_own_knows_its_labels_direction_and_loss():
    with bm.METRICS.restored():

        @bm.register_metric("off_by", labels="values", direction="min", limits=(0, None))
        def off_by(values, labels):
            return float((values[:, 0] - labels).abs().max())

        task = task_of(np.random.default_rng(5).normal(size=N) + 8, metric="off_by")
        search = best_of(task, selection="perturbation")
        assert search.metric.direction == "min" and 0 < search.best_score < 4
        table = compare(task, ["single modalities"], device="cpu", progress=False)
        assert all(0 < entry["test"] < 4 for entry in table.values())


WRONG = {
    "a direction": ({"direction": "up"}, "metric 'm': direction: found 'up'; allowed: 'max', 'm"),
    "labels": ({"labels": "texts"}, r"metric 'm': labels: found \('texts',\); allowed: binary, c"),
    "no labels": ({"labels": ()}, None),
    "no loss": (
        {"loss": lambda a, b: a},
        "metric 'm': found a loss of tensor.*; allowed: a scalar",
    ),
    "a loss that fails": (
        {"loss": lambda a, b: 1 / 0},
        "metric 'm': found a loss that raised ZeroDivisionError: division by zero; allowed: a sca",
    ),
    "a loss that fails in lines": (
        {"loss": lambda a, b: nn.Linear(2, 2)(torch.ones(1, 3))},
        "metric 'm': found a loss that raised RuntimeError: mat1 and mat2 .*; allowed: a scalar",
    ),
    "a loss without gradient": (
        {"loss": lambda a, b: torch.tensor(1.0)},
        "metric 'm': found a loss without gradient; allowed: one that follows from the outputs",
    ),
    "labels that are no texts": (
        {"labels": 5},
        "metric 'm': labels: found 5; allowed: a tuple",
    ),
    "labels in a list of lists": (
        {"labels": [["classes"]]},
        r"metric 'm': labels\[0\]: found \['classes'\]; allowed: text",
    ),
    "a direction in a list": (
        {"direction": ["max"]},
        r"metric 'm': direction: found \['max'\]; allowed: 'max', 'min'",
    ),
    "limits that are no pair": ({"limits": 5}, "metric 'm': limits: found 5; allowed: a tuple"),
    "one limit": ({"limits": (0,)}, r"metric 'm': limits: found \(0,\); allowed: a tuple"),
    "limits in words": (
        {"limits": ("a", None)},
        r"metric 'm': limits\[0\]: found 'a'; allowed: a number",
    ),
    "a loss of values only": (
        {"loss": lambda a, b: (a[:, 0] - b).square(), "labels": "values"},
        "metric 'm': found a loss of tensor.*; allowed: a scalar tensor for outputs of shape",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_metric_that_does_not_work_is_refused_in_one_line(what):
    how, message = WRONG[what]
    with bm.METRICS.restored():
        if message is None:  # no kind is like None: classes
            bm.register_metric("m", **how)(lambda a, b: 0.5)
            assert METRICS["m"].labels == ("classes",)
            return
        with pytest.raises(bm.TaskError, match=message) as error:
            bm.register_metric("m", **how)(lambda a, b: 0.5)
        assert "\n" not in str(error.value)
        for score in (3, lambda outputs: 0.5):
            message = "metric 'm': found a score of .*; allowed: a function of outputs and labels"
            with pytest.raises(bm.TaskError, match=message):
                bm.register_metric("m")(score)


def test_outputs_that_are_not_finite_have_no_score():
    for name, kind in EXPECTED:
        outputs, labels = GIVEN[kind]
        broken = outputs.clone()
        broken[0, 0] = math.nan
        with pytest.raises(BmnasError, match="^outputs: found NaN or infinity; allowed: finite"):
            METRICS[name].score(broken, labels)


def test_baselines_of_a_regression_are_in_its_units_and_mfas_is_left_out():
    task = task_of(np.random.default_rng(6).normal(size=N) * 50 + 900, metric="mae")
    names = ["logistic regression", "gradient boosting", "best pair", "late fusion", "MFAS"]
    with pytest.warns(UserWarning, match="left out: MFAS: found metric 'mae'; allowed: one from 0"):
        table = compare(task, names, device="cpu", progress=False)
    assert "ridge regression" in table and "MFAS" not in table
    guess = 40.0  # the mean absolute deviation of the labels
    assert all(entry["test"] < guess for entry in table.values()), table


def test_baselines_of_several_values_and_labels_run():
    both = np.stack([np.linspace(0, 1, N), np.linspace(50, 10, N)], axis=1)
    names = ["logistic regression", "gradient boosting", "CentralNet", "GMU", "fixed Cells"]
    for task in (task_of(both, metric="r2"), task_of(np.eye(3, dtype=int)[np.arange(N) % 3])):
        table = compare(task, names, device="cpu", progress=False)
        assert len(table) == 6 and all(math.isfinite(e["test"]) for e in table.values())


@pytest.mark.slow
def test_every_metric_of_classes_is_searched_by():
    labels = np.arange(N) % 2
    for name in METRICS:
        if METRICS[name].fits("classes", 2):
            search = best_of(task_of(labels, metric=name), selection="perturbation")
            assert math.isfinite(search.best_score)


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e30])
def test_scores_of_values_do_not_depend_on_their_scale(scale):
    labels, values = TRUE.double(), VALUES.double()
    labels, values = (labels * scale).float(), (values * scale).float()
    for name, power in {"rmse": 1, "mae": 1, "r2": 0, "pearson": 0}.items():
        expected = EXPECTED[name, "values"] * scale**power
        assert METRICS[name].score(values, labels) == pytest.approx(expected, rel=1e-5)
        assert not METRICS[name].undefined(labels, 1)


def test_a_score_that_is_nan_is_never_the_best():
    found = iter([math.nan, 0.5, math.nan, 0.6, 0.4, 0.3])
    task = task_of(np.arange(N) % 3, search_config=SearchSettings(selection="argmax", epochs=6))
    search = bm.Search(task, device="cpu")
    search.score_of = lambda genotype: next(found)
    history = bm.SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    assert search.best_score == history.best.val_score == 0.6


def test_a_weighted_loss_is_the_same_in_micro_batches_and_in_an_ensemble():
    labels = torch.arange(12) % 3
    logits = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0))
    loss = partial(cross_entropy, weight=(1.0, 5.0, 20.0), label_smoothing=0.1)
    each = vmap(loss, in_dims=(0, None))(logits, labels)
    torch.testing.assert_close(each, torch.stack([loss(own, labels) for own in logits]))
    parts = [loss(logits[0, rows], labels[rows]) for rows in torch.arange(12).split(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), each[0])


@pytest.mark.parametrize("kind", ["classes", "multi-label", "values", "several values"])
def test_losses_of_an_ensemble_are_those_of_its_networks(kind):
    logits = torch.randn(2, 3, 7, 4, generator=torch.Generator().manual_seed(1))
    labels = {"classes": torch.arange(14) % 4, "values": torch.linspace(0, 1, 14)}.get(kind)
    if labels is None:
        labels = (logits[:, 0] > 0).long() if kind == "multi-label" else logits[:, 0] + 1
    labels, logits = labels.reshape(2, 7, -1), logits[..., :1] if kind == "values" else logits
    labels = labels[..., 0] if kind in ("classes", "values") else labels
    for loss in {LOSSES[kind.split()[-1]], *([absolute_error] if "values" in kind else [])}:
        found = vmap(vmap(loss, in_dims=(0, None)))(logits, labels)  # seeds, then networks
        expected = [
            [loss(one, own) for one in each] for each, own in zip(logits, labels, strict=True)
        ]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_a_value_that_does_not_vary_is_not_divided_by_zero():
    same = Targets.from_labels(torch.full((7,), 0.1))
    assert same.scale == (1.0,)
    targets = Targets.from_labels(torch.tensor([[1.0, 2.0], [1.0, 4.0]]))
    assert targets.scale == (1.0, 1.0) and targets.mean == (1.0, 3.0)
    assert targets.standardised(torch.tensor([[1.0, 4.0]])).tolist() == [[0.0, 1.0]]


def test_a_task_prints_its_settings():
    text = str(task_of(np.arange(N) % 2, metric="auroc", label_smoothing=0.1))
    assert text.splitlines()[0].startswith("Task 'own': 2 classes, auroc; 54 train, 18 validation")
    assert "settings: C 8, L 1, N 1, M 1, epochs 15, batch_size 32" in text
    assert "in its search: " in text and text.endswith("labels: label_smoothing 0.1")


def no_score(outputs, labels) -> float:
    return 0.0


def test_losses_of_the_kits_own_metrics_work_as_those_of_others_must():
    own = {name: metric for name, metric in METRICS.items() if metric.loss}
    assert "mae" in own
    for name, metric in own.items():
        # The score makes it a metric of another module, which is tried.
        _try_out(name, replace(metric, score=no_score))
