"""Two, three, four and six modalities: searches, final selections, baselines, tables, folds."""

import time
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tiny import SETTINGS, tiny_task

import bmnas_core as bm
from bmnas_core import (
    BASELINES,
    RELAXATIONS,
    SELECTIONS,
    BaselineContext,
    Genotype,
    Search,
    SearchConfig,
    Settings,
    TabularBenchmark,
    Task,
    TrainConfig,
    networks,
    selection,
)
from bmnas_core.architecture import most_probable
from bmnas_core.baselines import compare
from bmnas_core.baselines.architectures import fixed_genotype, random_genotype
from bmnas_core.baselines.fusion_models import LateFusion, last_features
from bmnas_core.baselines.mfas import MAX_LAYERS, MFASConfig, MFASNetwork, MFASSearch
from bmnas_core.baselines.searches import mutated
from bmnas_core.benchmark import tabulate
from bmnas_core.config import SearchSettings
from bmnas_core.genotype import free_pairs
from bmnas_core.networks import FixedInputs, Hypernet
from bmnas_core.runtime import generator

COUNTS = (2, 3, 4, 6)
NAMES = ("Image", "Audio", "Text", "Depth", "Pose", "Gaze")
QUICK = Settings(C=8, L=2, epochs=1, batch_size=32, max_lr=1e-2)
SEARCH = SearchSettings(selection="argmax", epochs=1, tuning_epochs=1, rungs=((2, 1), (1, 2)))
counts = pytest.mark.parametrize("count", COUNTS)


@cache
def a_task(count: int, features: int = 2, *, defaults: bool = False, **how) -> Task:
    """Sequences of every modality, which show the label in noise."""
    random, labels = np.random.default_rng(0), np.arange(90) % 3
    prototypes = random.normal(size=(3, 5, 1))

    def values():
        return prototypes[labels] + random.normal(size=(len(labels), 5, 4))

    arrays = {name: [values() for _ in range(features)] for name in NAMES[:count]}
    how |= {} if defaults else {"config": QUICK, "search_config": SEARCH}
    return Task.from_features("many", arrays, labels, **how)


def searched(task: Task, **settings) -> Search:
    search = Search(task, SearchConfig(**settings), device="cpu")
    for _ in search:
        pass
    return search


# --- the search


@counts
def test_by_default_there_are_enough_cells_to_read_every_modality(count):
    task = a_task(count, 1, defaults=True)
    assert max(2, count - 1) == task.config.N
    chain = fixed_genotype(task, "Sum")
    assert chain.used_features == task.features and len(chain.cells) == count - 1 <= task.config.N
    net = Hypernet(task.channels, 3, C=4, L=2, N=task.config.N, M=1)
    assert net.alpha.shape == (sum(count + i for i in range(task.config.N)), 2)
    most = random_genotype(task.features, task.config.N, 1, generator(0, "many"))
    assert len(most.cells) == task.config.N


@counts
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.slow
def test_every_selection_ends_with_a_genotype_of_the_task(count, selection):
    task = a_task(count, 2 if count < 4 else 1)
    genotype = searched(task, selection=selection).best_genotype
    assert genotype.features == task.features and len(genotype.cells) == task.config.N
    net, records = bm.train(genotype, task, device="cpu", progress=False)
    assert len(records) == 1 and 0 <= bm.evaluate(net, task) <= 1


@counts
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_and_single_paths_search_all_modalities(count, relaxation):
    task = a_task(count)
    for sampling in ("mixture", "single_path"):
        search = searched(task, relaxation=relaxation, sampling=sampling)
        assert search.state.weights.alpha.shape == tuple(search.hypernet.alpha.shape)
        moved = search.hypernet.alpha.detach().abs().amax(1) > 0.01
        assert bool(moved.any()) and bool(search.hypernet.alpha.isfinite().all())


@pytest.mark.parametrize("count", [3, 6])
def test_a_task_with_backbones_is_searched(count):
    task = tiny_task(NAMES[:count], (3,), settings=replace(SETTINGS, N=count - 1, M=1))
    search = searched(task, selection="successive_halving", rungs=((2, 1), (1, 2)))
    assert search.best_genotype.features == task.features
    history = bm.SearchHistory.from_search(search)
    assert history[-1].genotype == search.best_genotype


@counts
def test_the_released_rule_leaves_a_new_feature_for_every_later_cell(count):
    features = tuple(f"{name}_1" for name in NAMES[:count])
    for seed in range(20):
        torch.manual_seed(seed)
        net = Hypernet(dict.fromkeys(features, 2), 3, C=4, L=2, N=count - 1, M=1)
        weights = bm.ArchitectureWeights.from_hypernet(net, ("sum",) * 4, "pair")
        genotype, used = bm.derive(weights, "released"), set()
        for cell in genotype.cells:
            assert set(cell.inputs) - used and set(cell.inputs) <= set(features)
            used |= set(cell.inputs)
        assert used == set(features)


def test_a_search_that_the_released_rule_cannot_end_is_refused_before_it_begins():
    message = "no pair of inputs: found 6 features for 6 Cells; allowed: at least 7 features"
    with pytest.raises(bm.SelectionError, match=message):
        Search(a_task(6, 1), SearchConfig(selection="released", N=6), device="cpu")


@pytest.mark.parametrize("most", [networks.MAX_VALUES_TOGETHER, 1])
def test_pairs_fixed_one_after_the_other_share_what_earlier_cells_make_of_them(most, monkeypatch):
    monkeypatch.setattr(networks, "MAX_VALUES_TOGETHER", most)
    task = a_task(4, 1)
    torch.manual_seed(0)
    net = Hypernet(task.channels, 3, C=8, L=2, N=3, M=1, dropout=0.5)
    features = {name: torch.randn(5, c, 2) for name, c in task.channels.items()}
    first = ("Image_1", "Text_1")
    lists = [[first, pair] for pair in free_pairs((*task.features, "C1"), [first])]
    lists += [[("Audio_1", "Image_1")], [("Audio_1", "Image_1"), ("C1", "Image_1")], []]
    runs = []
    hook = net.cells[0].register_forward_hook(lambda *_: runs.append(1))
    together = FixedInputs(net, lists).eval()(features)
    hook.remove()
    assert len(runs) == 1 + 3  # once for all that begin with the first pair, and the last three
    for own, pairs in zip(together, lists, strict=True):  # a larger batch may round differently
        alone = FixedInputs(net, [pairs]).eval()(features)[0]
        torch.testing.assert_close(own, alone, rtol=1e-5, atol=1e-6)
    one, other = FixedInputs(net, [[first], [first]]).train()(features)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_the_selection_from_24_features_is_done_in_seconds():
    task = a_task(6, 4, defaults=True)
    config = SearchConfig(selection="perturbation", epochs=1, tuning_epochs=0, C=8, N=2)
    search, start = Search(task, config, device="cpu"), time.perf_counter()
    for _ in search:
        pass
    most = selection.MAX_PAIRS
    assert most < 24 * 23 and [len(odds) for odds in search.selection.odds] == [most, most]
    weights = search.state.weights
    found = most_probable(weights, 5)
    assert len(found) == 5 and time.perf_counter() - start < 120


@pytest.mark.nightly
@pytest.mark.slow
def test_perturbation_of_twenty_cells_is_done_in_seconds():
    task = a_task(3, 4, defaults=True)
    config = SearchConfig(selection="perturbation", epochs=1, tuning_epochs=0, N=20)
    search, start = Search(task, config, device="cpu"), time.process_time()
    for _ in search:
        pass
    assert len(search.best_genotype.cells) == 20 and time.process_time() - start < 60


def test_of_too_many_pairs_the_most_probable_are_evaluated(monkeypatch):
    task, n = a_task(4, 1), 5
    monkeypatch.setattr(selection, "MAX_PAIRS", n)
    search = Search(task, SearchConfig(selection="perturbation", N=2), device="cpu")
    for _ in search:
        pass
    weights = search.state.weights
    for i, odds in enumerate(search.selection.odds):
        names, x, y = weights.cell_edges(i)
        x, y = (dict(zip(names, side, strict=True)) for side in (x, y))
        fixed = [cell.inputs for cell in search.best_genotype.cells[:i]]
        pairs = sorted(free_pairs(names, fixed), key=lambda pair: -x[pair[0]] * y[pair[1]])
        assert set(odds) == set(pairs[:n]) and sum(odds.values()) == pytest.approx(1)
        assert search.best_genotype.cells[i].inputs in odds


@pytest.mark.nightly
@pytest.mark.slow
def test_with_half_the_pairs_evaluated_a_search_still_finds_one_of_the_best(monkeypatch):
    monkeypatch.setattr(selection, "MAX_PAIRS", 15)
    task = bm.load_task("digits", rule="sum")
    search = Search(task, device="cpu")
    for _ in search:
        pass
    assert len(search.selection.odds[0]) == 15
    assert bm.TabularBenchmark("digits", rule="sum").percentile(search.best_genotype) < 5


# --- baselines


def reads(net: torch.nn.Module, task: Task) -> set[str]:
    """The features that make a difference to a network's output."""
    bank = bm.FeatureBank.shared(task, net.L, torch.device("cpu"))
    features, _ = bank.batch("train", torch.arange(40))
    random = torch.Generator().manual_seed(0)
    net.eval()
    with torch.no_grad():
        before, found = net(features), set()
        for name, values in features.items():
            other = 10 * torch.randn(values.shape, generator=random)
            if not torch.equal(net({**features, name: other}), before):
                found.add(name)
    return found


def claimed(label: str, net: torch.nn.Module, task: Task) -> set[str]:
    """What a baseline says that it reads."""
    last = list(last_features(task))
    if label.endswith(" alone"):
        return {last[[m.name for m in task.modalities].index(label.removesuffix(" alone"))]}
    if label.startswith("best pair"):
        (cell,) = net.genotype.cells
        return set(cell.inputs)
    if hasattr(net, "genotype") and not label.startswith("fixed "):
        return set(net.genotype.used_features)
    if isinstance(net, MFASNetwork):
        return {name for layer in net.names for name in layer}
    if label.startswith(("fixed ", "late fusion", "GMU", "CentralNet")):
        return set(last)
    return set(task.features)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(6, marks=pytest.mark.nightly)])
def test_every_baseline_runs_and_its_networks_read_what_they_claim(count):
    task = a_task(count)
    space = SearchConfig(epochs=1, selection="argmax", N=2, M=1)
    context = BaselineContext(task, TrainConfig(epochs=1), 0, torch.device("cpu"), space)
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, baseline in BASELINES.items():
            for label, nets in baseline(context):
                seen.add(name)
                for net in nets:
                    found, wanted = reads(net, task), claimed(label, net, task)
                    if label == "gradient boosting":  # its trees may pass over a feature
                        assert found <= wanted and found, label
                    else:
                        assert found == wanted, label
                    assert 0 <= bm.evaluate(net, task, "test") <= 1, label
    assert seen == set(BASELINES)


@counts
def test_the_quick_baselines_have_a_row_for_every_modality(count):
    task = a_task(count)
    found = compare(task, config=TrainConfig(epochs=1), device="cpu", progress=False)
    assert {f"{name} alone" for name in NAMES[:count]} < set(found)
    assert {"late fusion, averaged", "late fusion, concatenated", "fixed Sum"} < set(found)


def test_late_fusion_is_the_mean_of_all_modalities():
    context = BaselineContext(a_task(6), TrainConfig(), 0, torch.device("cpu"))
    (_, [averaged]), (_, [joined]) = BASELINES["late fusion"](context)
    assert isinstance(averaged, LateFusion) and len(averaged.networks) == 6
    assert joined.names == tuple(last_features(context.task))


def test_a_baseline_that_is_not_defined_for_a_task_is_left_out_with_a_warning():
    from bmnas_core.baselines.context import NotDefined

    with BASELINES.restored():

        @bm.register_baseline("of two modalities")
        def of_two(context):
            if len(context.task.modalities) > 2:
                found = f"{len(context.task.modalities)} modalities"
                raise NotDefined("of two modalities", found, "2")
            yield from BASELINES["late fusion"](context)

        names = ["of two modalities", "single modalities"]
        how = {"config": TrainConfig(epochs=1), "device": "cpu", "progress": False}
        with pytest.warns(UserWarning, match="left out: of two modalities: found 3 modalities; al"):
            found = compare(a_task(3), names, **how)
        assert set(found) == {f"{name} alone" for name in NAMES[:3]}
        assert "late fusion, averaged" in compare(a_task(2), names, **how)


@pytest.mark.parametrize(("count", "features", "options"), [(3, 4, 128), (6, 4, MAX_LAYERS)])
def test_mfas_considers_no_more_layers_than_it_can_train(count, features, options):
    task = a_task(count, features)
    config = MFASConfig(iterations=1, depth=2, samples=3, epochs=1, finalists=1, surrogate_epochs=1)
    context = BaselineContext(task, TrainConfig(), 0, torch.device("cpu"))
    search = MFASSearch(context, config)
    layers = search.layers()
    assert len(set(layers)) == len(layers) == options
    assert {len(layer) for layer in layers} == {count + 1}
    for k in range(count):
        assert {layer[k] for layer in layers} == set(range(features))
    if count == 6:
        assert MFASSearch(context, config).layers() == layers


@counts
def test_mutations_reach_every_feature(count):
    task, random = a_task(count), generator(0, "mutations")
    genotype, seen = fixed_genotype(task, "Sum"), set()
    for _ in range(300):
        genotype = mutated(genotype, random, bm.DEFAULT_OPERATIONS)
        seen |= set(genotype.used_features)
    assert seen == set(task.features)


# --- files and tables


@counts
def test_a_published_genotype_of_any_number_of_modalities_is_written_and_read(count, tmp_path):
    task = a_task(count)
    for seed in range(5):
        genotype = random_genotype(task.features, task.config.N, 2, generator(seed, "published"))
        assert Genotype.from_published(genotype.to_published(), task.features) == genotype
        assert Genotype.load(genotype.save(tmp_path / "g.json")) == genotype


def test_a_task_of_three_modalities_has_a_tabular_benchmark(tmp_path):
    settings = replace(SETTINGS, N=1, M=1, epochs=1)
    task = tiny_task(NAMES[:3], (3,), settings=settings)
    tabulate(task, tmp_path / "t.parquet", (0,), device="cpu", operations=("sum", "attention"))
    table = TabularBenchmark(path=tmp_path / "t.parquet")
    assert len(table) == 3 * 2 * (1 + 2)  # pairs; Sum, and Attention in both orders
    best = table.best("validation")
    assert 1 <= table.rank(best, "validation") <= len(table)
    sample = tiny_task(NAMES[:3], (3,), settings=replace(settings, N=2))
    rows = tabulate(sample, tmp_path / "s.parquet", (0,), device="cpu", sample=4)
    assert len(rows) == 4 and TabularBenchmark(path=tmp_path / "s.parquet").sampled


@pytest.mark.parametrize("count", [3, 6])
def test_many_modalities_are_cross_validated(count):
    found = bm.cross_validate(
        a_task(count), folds=3, baselines=["late fusion"], device="cpu", progress=False
    )
    assert len(found.genotypes) == 3
    assert all(genotype.features == a_task(count).features for genotype in found.genotypes)
