"""Baselines: the same features, recipe, seed and space for all, each network tested once."""

from dataclasses import replace
from functools import partial
from itertools import product

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SETTINGS, tiny_task

from bmnas_core import (
    DEFAULT_OPERATIONS,
    FeatureBank,
    Genotype,
    GenotypeError,
    SearchConfig,
    TrainConfig,
    TrainError,
    count_parameters,
    ensemble,
)
from bmnas_core.baselines import (
    BASELINES,
    BaselineContext,
    BaselineError,
    best_settings,
    compare,
    default_rules,
    read_baselines,
    read_settings,
    read_tried,
    register_baseline,
    run_baselines,
    summarize,
    tried_path,
    try_settings,
)
from bmnas_core.baselines.architectures import fixed_genotype, random_genotype, sample_genotype
from bmnas_core.baselines.classical import flat
from bmnas_core.baselines.fusion_models import (
    GMU,
    MLP,
    CentralNet,
    LateFusion,
    LinearFusion,
    last_features,
)
from bmnas_core.baselines.mfas import MFASConfig, MFASNetwork, MFASSearch, Surrogate
from bmnas_core.baselines.searches import mutated, second_look, with_motif, with_random_pairs
from bmnas_core.baselines.table import COLUMNS, TRIED_COLUMNS
from bmnas_core.storage import TableError
from bmnas_core.tasks import TASKS, load_task, register_task
from bmnas_core.train import fusion_network

QUICK = {"config": TrainConfig(epochs=1), "device": "cpu", "progress": False}


@pytest.fixture
def splits_read(monkeypatch) -> list[str]:
    """The splits that networks read, in order, as a list that grows."""
    read, batch = [], FeatureBank.batch

    def recorded(self, split, *args):
        read.append(split)
        return batch(self, split, *args)

    monkeypatch.setattr(FeatureBank, "batch", recorded)
    return read


def context(task=None, epochs=1, seed=0, search=None) -> BaselineContext:
    config, search = TrainConfig(epochs=epochs), SearchConfig.from_optional(search)
    return BaselineContext(task or tiny_task(), config, seed, torch.device("cpu"), search)


def test_the_quick_baselines_run_by_default_with_score_size_and_cost():
    task = tiny_task()
    table = compare(task, **QUICK)
    assert list(table) == [
        "Image alone",
        "Audio alone",
        "late fusion, averaged",
        "late fusion, concatenated",
        "fixed Sum",
        "fixed ConcatFC",
        "random genotypes, mean of 5",
    ]
    for entry in table.values():
        assert entry["test"] == pytest.approx(sum(entry["scores"]) / len(entry["scores"]))
        assert entry["params"] > 0 and entry["seconds"] > 0
    assert len(table["random genotypes, mean of 5"]["scores"]) == 5


def test_the_same_seed_gives_the_same_table():
    names = ["late fusion", "random genotypes"]
    one, other = (compare(tiny_task(), names, seed=1, **QUICK) for _ in range(2))
    assert [e["scores"] for e in one.values()] == [e["scores"] for e in other.values()]


def test_each_network_learns_from_train_and_validation_and_is_tested_once(splits_read):
    assert len(compare(tiny_task(), ["fixed Cells"], **QUICK)) == 2
    assert set(splits_read) == {"train+validation", "test"}
    assert splits_read.count("test") == 2


def test_a_network_is_scored_on_validation_after_it_learned_from_train_alone(splits_read):
    both = {**QUICK, "splits": ("validation", "test")}
    table = compare(tiny_task(), ["fixed Cells", "late fusion"], **both)
    half = len(splits_read) // 2
    assert {"train", "validation"} == set(splits_read[: splits_read.index("train+validation")])
    assert splits_read.count("test") == 4 and half > 4
    for split in ("validation", "test"):
        alone = compare(tiny_task(), list_of(table), **{**QUICK, "splits": (split,)})
        assert {name: e[split] for name, e in table.items()} == {
            name: e[split] for name, e in alone.items()
        }


def list_of(table) -> list[str]:
    """The baselines of a table of fixed Cells and late fusion."""
    return ["fixed Cells", "late fusion"] if table else []


def test_baselines_read_the_bank_that_they_are_given(monkeypatch):
    task, names = tiny_task(), ["single modalities", "fixed Cells", "BM-NAS", "random search"]
    expected, bank = compare(task, names, **QUICK), FeatureBank(task)
    monkeypatch.setattr(FeatureBank, "__init__", None)  # so that no other bank can be made
    found = compare(tiny_task(), names, **QUICK, bank=bank)
    assert {k: e["scores"] for k, e in found.items()} == {
        k: e["scores"] for k, e in expected.items()
    }


def test_a_task_may_have_more_than_two_modalities():
    task = tiny_task(("Image", "Audio", "Text"), channels=(3,))
    table = compare(task, **QUICK)
    assert {"Image alone", "Audio alone", "Text alone"} <= set(table)
    cells = fixed_genotype(task, "Sum").cells
    assert [cell.inputs for cell in cells] == [("Image_1", "Audio_1"), ("C1", "Text_1")]


def test_late_fusion_is_the_mean_of_logits():
    networks = [LinearFusion({name: (2, 4)}, 3, 4).eval() for name in ("A", "B")]
    features = {name: torch.randn(5, 2, 4) for name in ("A", "B")}
    expected = sum(network(features) for network in networks) / 2
    torch.testing.assert_close(LateFusion(networks)(features), expected)
    assert count_parameters(LateFusion(networks)) == 2 * count_parameters(networks[0])


def test_late_fusion_of_a_multi_label_task_is_about_as_good_as_its_modalities():
    config = TrainConfig(epochs=8)
    names = ["single modalities", "late fusion"]
    table = compare(tiny_task(metric="weighted_f1"), names, config=config, device="cpu")
    worst = min(table["Image alone"]["test"], table["Audio alone"]["test"])
    assert table["late fusion, averaged"]["test"] > worst - 0.1


def test_a_single_modality_is_its_last_feature():
    assert last_features(tiny_task()) == {"Image_2": 6, "Audio_2": 6}


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_random_genotypes_are_legal_and_their_cells_take_different_pairs(features, N, M, seed):
    random = torch.Generator().manual_seed(seed)
    genotype = random_genotype(tuple(f"A_{i}" for i in range(features)), N, M, random)
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert len({frozenset(cell.inputs) for cell in genotype.cells}) == N
    assert {len(cell.steps) for cell in genotype.cells} == {M}


@pytest.mark.parametrize("quick", [True, False])
def test_a_new_baseline_is_one_registered_function(quick):
    with BASELINES.restored():

        @register_baseline("fixed LinearGLU", quick=quick)
        def fixed_glu(context):
            yield "fixed GLU", [context.train(fixed_genotype(context.task, "LinearGLU"))]

        assert list(compare(tiny_task(), ["fixed LinearGLU"], **QUICK)) == ["fixed GLU"]
        assert ("fixed GLU" in compare(tiny_task(), **QUICK)) == quick


def no_context():
    yield "none", []


def no_generator(context):
    return [("none", [])]


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("mine", no_context, "baseline 'mine': found <function no_context.*; allowed: a generator"),
        ("mine", no_generator, "baseline 'mine': found <function no_generator"),
        ("mine", LinearFusion, "baseline 'mine': found <class .*LinearFusion'>"),
        ("mine", None, "baseline 'mine': found None; allowed: a generator function"),
        ("GMU", no_context, "'GMU' exists already: bmnas_core.baselines.fusion_models.gmu"),
        (" ", no_context, "baseline name: found ' '; allowed: a printable name"),
        (3, no_context, "baseline name: found 3; allowed: a printable name"),
    ],
)
def test_a_baseline_that_cannot_work_is_refused(name, function, message):
    before = dict(BASELINES)
    with pytest.raises(BaselineError, match=message):
        register_baseline(name)(function)
    assert dict(BASELINES) == before


def test_unknown_baselines_and_motifs_are_refused():
    message = r"baseline: found 'MFSA' \(did you mean 'MFAS'\?\); allowed: single modalities, late"
    with pytest.raises(BaselineError, match=message):
        compare(tiny_task(), ["MFSA"])
    with pytest.raises(GenotypeError, match="motif: found 'Product'; allowed: 'Sum', 'ConcatFC'"):
        fixed_genotype(tiny_task(), "Product")
    with pytest.raises(GenotypeError, match="features"):
        random_genotype(("A",), 1, 1, torch.Generator())


@pytest.mark.slow
def test_baselines_that_search_report_the_seconds_of_their_search():
    names = [name for name in BASELINES if name.startswith("BM-NAS")]
    names += ["searched features", "random features", "random search", "evolution", "best pair"]
    without = ["GMU", "CentralNet", "MLP of one layer", "logistic regression"]
    table = compare(tiny_task(), [*names, *without], **QUICK)
    searching = {name for name, entry in table.items() if entry["search_seconds"] > 0}
    assert searching == set(table) - set(without)
    for entry in table.values():
        assert entry["search_seconds"] < entry["seconds"]
    searched = table["BM-NAS"]["search_seconds"]
    assert table["searched features, Sum"]["search_seconds"] == searched
    assert table["random features, searched Cells, mean of 3"]["search_seconds"] == searched


@pytest.mark.parametrize(
    "name",
    [
        "random search",
        "evolution",
        "best pair",
        "BM-NAS",
        "BM-NAS by perturbation",
        "BM-NAS of more or fewer Cells",
    ],
)
def test_a_search_never_reads_the_test_split_and_depends_on_its_seed_alone(name, splits_read):
    ((_, (net,)),) = BASELINES[name](context(seed=2))
    assert set(splits_read) == {"train", "validation", "train+validation"}
    ((_, (again,)),) = BASELINES[name](context(seed=2))
    assert net.genotype == again.genotype
    cells = 1 if name in ("BM-NAS of more or fewer Cells", "best pair") else tiny_task().config.N
    assert len(net.genotype.cells) == cells
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("N", "label"), [(1, "two Cells"), (2, "one Cell"), (3, "one Cell")])
def test_the_other_size_has_one_cell_or_else_two(N, label, genotypes_trained):
    own = context(search=SearchConfig(N=N, epochs=1, selection="argmax"))
    ((name, _),) = BASELINES["BM-NAS of more or fewer Cells"](own)
    assert name == f"BM-NAS of {label}"
    assert [len(g.cells) for g in genotypes_trained] == [2 if N == 1 else 1]


def test_the_best_pair_is_the_best_on_validation_of_all_pairs(genotypes_trained, monkeypatch):
    wanted = ("Image_2", "Audio_1")

    def validate(self, net):
        return float(net.genotype.cells[0].inputs == wanted)

    monkeypatch.setattr(BaselineContext, "validate", validate)
    ((_, (net,)),) = BASELINES["best pair"](context())
    assert [g.cells[0].inputs for g in genotypes_trained[:-1]] == [
        ("Image_1", "Image_2"),
        ("Image_1", "Audio_1"),
        ("Image_1", "Audio_2"),
        ("Image_2", "Audio_1"),
        ("Image_2", "Audio_2"),
        ("Audio_1", "Audio_2"),
    ]
    assert net.genotype.cells[0].inputs == wanted and net.genotype.cells[0].motif == "ConcatFC"


@settings(max_examples=60)
@given(st.integers(3, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
def test_a_mutation_is_legal_and_changes_one_thing(features, N, M, seed):
    random = torch.Generator().manual_seed(seed)
    parent = random_genotype(tuple(f"A_{i}" for i in range(features)), N, M, random)
    child = mutated(parent, random, DEFAULT_OPERATIONS)
    assert Genotype.from_json(child.to_json()) == child
    assert child.canonical() != parent.canonical()
    assert len({frozenset(cell.inputs) for cell in child.cells}) == N
    changed = [(a, b) for a, b in zip(parent.cells, child.cells, strict=True) if a != b]
    ((old, new),) = changed
    steps = [(a, b) for a, b in zip(old.steps, new.steps, strict=True) if a != b]
    assert (old.inputs != new.inputs) + len(steps) == 1


def test_a_second_look_trains_the_best_for_longer_and_may_change_the_order():
    genotypes = [
        random_genotype(("A", "B", "C"), 1, 2, torch.Generator().manual_seed(seed))
        for seed in range(6)
    ]
    scores, looked = dict(zip(genotypes, (0.1, 0.5, 0.9, 0.8, 0.7, 0.2), strict=True)), []

    def score(some, epochs):
        looked.extend((genotypes.index(genotype), epochs) for genotype in some)
        return [1 - scores[genotype] for genotype in some]

    assert second_look(scores, score, ((6, 3), (3, 7), (1, 15))) == genotypes[4]
    assert looked == [(2, 7), (3, 7), (4, 7), (4, 15)]
    assert second_look(scores, score, ((6, 3),)) == second_look(scores, score, ()) == genotypes[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random search", "evolution"])
def test_searches_by_training_take_a_second_look_as_bm_nas_does(name, monkeypatch):
    trained, train, train_all = [], BaselineContext.train, BaselineContext.train_all
    quick = TrainConfig(epochs=1)

    def recorded(self, genotype, config=None):
        trained.append((config or self.config).epochs)
        return train(self, genotype, quick.with_defaults(self.config))

    def recorded_all(self, genotypes, config=None):
        trained.extend([(config or self.config).epochs] * len(genotypes))
        return train_all(self, genotypes, quick.with_defaults(self.config))

    monkeypatch.setattr(BaselineContext, "train", recorded)
    monkeypatch.setattr(BaselineContext, "train_all", recorded_all)
    own = context(epochs=15, search=SearchConfig(rungs=((4, 3), (3, 7), (2, 20))))
    list(BASELINES[name](own))
    assert trained == [3] * 50 + [7] * 3 + [15] * 2 + [15]


def test_networks_that_a_baseline_trains_together_are_those_that_it_trains_alone(monkeypatch):
    each = SETTINGS.batch_size * SETTINGS.L * SETTINGS.C
    monkeypatch.setattr(ensemble, "MAX_VALUES_TOGETHER", 3 * each)
    monkeypatch.setattr(ensemble, "LEAST_TOGETHER", 3)
    own, random = context(), torch.Generator().manual_seed(0)
    genotypes = [random_genotype(own.task.features, 2, 2, random) for _ in range(7)]  # 3, 3 and 1
    features, _ = FeatureBank(own.task).batch("test", torch.arange(24))
    nets = own.train_all(iter(genotypes), own.recipe_on_train(2))
    for net, genotype in zip(nets, genotypes, strict=True):
        alone = own.train(genotype, own.recipe_on_train(2))
        torch.testing.assert_close(net(features), alone(features), rtol=0, atol=1e-2)


SEARCHES = ("random genotypes", "random search", "evolution", "random features", "BM-NAS")


@pytest.fixture
def genotypes_trained(monkeypatch) -> list[Genotype]:
    """What baselines would train, as a list that grows. Nothing is trained."""
    genotypes = []

    def recorded(genotype, task, config, **how):
        genotypes.append(genotype)
        return fusion_network(genotype, task, config), []

    def recorded_all(some, task, config, **how):
        return [recorded(genotype, task, config)[0] for genotype in some]

    monkeypatch.setattr("bmnas_core.baselines.context.train", recorded)
    monkeypatch.setattr("bmnas_core.baselines.context.train_together", recorded_all)
    return genotypes


def operations_of(genotypes: list[Genotype]) -> set[str]:
    return {step.op for genotype in genotypes for cell in genotype.cells for step in cell.steps}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("operations", [("product",), ("sum", "product"), None])
def test_every_search_takes_the_operations_of_bm_nas(
    name, operations, product_operation, genotypes_trained
):
    search = SearchConfig(operations=operations or DEFAULT_OPERATIONS)
    own = context(epochs=15, search=search)
    list(BASELINES[name](own))
    found = operations_of(genotypes_trained)
    assert found and found <= set(search.operations)
    if name not in ("random features", "BM-NAS"):  # which train what a single search found
        assert found == set(search.operations)


def test_a_mutation_takes_a_registered_operation_only_if_the_search_has_it(product_operation):
    random, chains = torch.Generator().manual_seed(0), []
    start = random_genotype(("A", "B", "C"), 2, 2, random)
    for operations in (DEFAULT_OPERATIONS, (*DEFAULT_OPERATIONS, product_operation)):
        chain = [start]
        for _ in range(100):
            chain.append(mutated(chain[-1], random, operations))
        assert operations_of(chain) == set(operations)
        chains += chain
    assert {name for g in chains for name in g.cells[1].inputs} == {"A", "B", "C", "C1"}


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_has_the_sizes_of_bm_nas(name, genotypes_trained):
    search = SearchConfig(N=3, M=1, C=4, L=2, epochs=1)
    config = TrainConfig(epochs=15, N=1, C=16)
    own = BaselineContext(tiny_task(), config, 0, torch.device("cpu"), search)
    nets = [net for _, nets in BASELINES[name](own) for net in nets]
    assert {len(g.cells) for g in genotypes_trained} == {3}
    assert {len(cell.steps) for g in genotypes_trained for cell in g.cells} == {1}
    assert {net.L for net in nets} == {2}
    assert {net.reshape.layers[0].conv.out_channels for net in nets} == {4}


def test_random_genotypes_take_all_that_a_search_could_take():
    random, own = torch.Generator().manual_seed(0), context(search=SearchConfig(N=3, M=2))
    genotypes = [sample_genotype(own, random) for _ in range(200)]
    assert operations_of(genotypes) == set(DEFAULT_OPERATIONS)
    for i, earlier in enumerate([(), ("C1",), ("C1", "C2")]):
        inputs = {name for genotype in genotypes for name in genotype.cells[i].inputs}
        assert inputs == {*tiny_task().features, *earlier}
    steps = [step for genotype in genotypes for step in genotype.cells[0].steps[1:]]
    assert {name for step in steps for name in step.inputs} == {"X", "Y", "S1"}


def test_a_search_of_bm_nas_has_the_settings_of_the_context():
    own = context(search=SearchConfig(operations=("sum",), epochs=1, selection="perturbation"))
    assert operations_of([own.searched()]) == {"sum"}
    ((config, _),) = own._found.items()
    sizes = {"C": 8, "L": 4, "N": 2, "M": 2}
    assert config == SearchConfig(
        operations=("sum",), epochs=1, selection="perturbation", **sizes
    ).with_defaults(own.task.search_config)


def test_parts_of_a_genotype_are_replaced_alone():
    genotype = random_genotype(("A", "B", "C"), 2, 3, torch.Generator().manual_seed(0))
    fixed = with_motif(genotype, "attention on attention")
    assert {cell.motif for cell in fixed.cells} == {"attention on attention"}
    assert [c.inputs for c in fixed.cells] == [c.inputs for c in genotype.cells]
    moved = with_random_pairs(genotype, torch.Generator().manual_seed(1))
    assert [c.steps for c in moved.cells] == [c.steps for c in genotype.cells]


def test_a_gmu_of_two_modalities_is_the_released_formula_with_its_number_of_parameters():
    net = GMU({"A": (2, 2), "B": (3, 2)}, 5, L=2, width=4, dropout=0.1).eval()
    features = {"A": torch.randn(6, 2, 2), "B": torch.randn(6, 3, 2)}
    p, q = (
        layer(norm(x.flatten(1)))
        for layer, norm, x in zip(net.hidden, net.inputs, features.values(), strict=True)
    )
    z = torch.cat([p, q], dim=1).matmul(net.gates.weight.T).sigmoid()
    h = z * p.tanh() + (1 - z) * q.tanh()
    for norm, maxout in zip(net.norms, net.maxouts, strict=False):
        pieces = maxout(norm(h))
        h = torch.maximum(pieces[:, 0::2], pieces[:, 1::2])
    torch.testing.assert_close(net(features), net.linear(net.norms[2](h)))
    # Of two vectors of 64 numbers, and of two of 512, at width 128 for 19 classes.
    sizes = [count_parameters(GMU({"A": (64, L), "B": (64, L)}, 19, L, 128, 0.1)) for L in (1, 8)]
    assert sizes == [118_675, 235_155]


def test_a_gmu_of_three_modalities_has_a_gate_for_each():
    net = GMU({"A": (2, 1), "B": (3, 1), "C": (4, 1)}, 5, L=1, width=4, dropout=0.1).eval()
    features = {n: torch.randn(6, c, 1) for n, c in zip("ABC", (2, 3, 4), strict=True)}
    assert net.gates.weight.shape == (12, 12)
    assert net(features).shape == (6, 5)


def test_central_net_for_vectors_is_the_formula():
    net = CentralNet({"A": 2, "B": 3}, 7, L=2, width=4, dropout=0.0)
    features = {"A": torch.randn(6, 2, 2), "B": torch.randn(6, 3, 2)}
    assert net(features).shape == (3, 6, 7)
    net.train()(features).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    torch.nn.init.normal_(net.weights), torch.nn.init.normal_(net.mix)
    a, b = (n(x.mean(2)) for n, x in zip(net.eval().inputs, features.values(), strict=True))
    state = 0
    for w, central, (first, second) in zip(
        net.weights, net.central, zip(*net.streams, strict=True), strict=True
    ):
        a, b = first(a).relu(), second(b).relu()
        state = central(w[0] * state + w[1] * a + w[2] * b).relu()
    logits = [head(x) for head, x in zip(net.heads, (state, a, b), strict=True)]
    expected = sum(m * one for m, one in zip(net.mix, logits, strict=True))
    torch.testing.assert_close(net(features), expected)
    assert count_parameters(CentralNet({"A": 64, "B": 64}, 19, L=1, width=128, dropout=0)) == 91_842


def mfas_network(modalities, L):
    configuration = ((1, 0, 0), (0, 1, 1), (1, 1, 0))
    return MFASNetwork(configuration, modalities, 5, width=6, L=L, dropout=0.0)


@pytest.mark.parametrize("of", ["MFAS", "CentralNet"])
@settings(max_examples=10)
@given(L=st.integers(2, 9), seed=st.integers(0, 99))
def test_positions_of_one_modality_may_be_permuted_alone(of, L, seed):
    torch.manual_seed(seed)
    modalities = [{"A": 2, "B": 3}, {"C": 4, "D": 5}]
    features = {name: torch.randn(7, c, L) for m in modalities for name, c in m.items()}
    last = {"B": 3, "D": 5}
    net = mfas_network(modalities, L) if of == "MFAS" else CentralNet(last, 5, L, 6, 0.0)
    order = torch.randperm(L)
    moved = {n: x[:, :, order] if n in "AB" else x for n, x in features.items()}
    torch.testing.assert_close(net.eval()(moved), net(features))
    other = {n: x + 1 if n in "AB" else x for n, x in features.items()}
    assert not torch.allclose(net(other), net(features))


@pytest.mark.parametrize("depth", [1, 2])
def test_an_mlp_reads_all_positions_of_all_features(depth):
    net = MLP({"A": (2, 4), "B": (3, 4)}, 5, L=4, width=8, depth=depth, dropout=0.1).eval()
    features = {"A": torch.randn(6, 2, 4), "B": torch.randn(6, 3, 4)}
    flattened = torch.cat([x.flatten(1) for x in features.values()], dim=1)
    torch.testing.assert_close(net(features), net.layers(flattened))
    widths = [m.out_features for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [8] * depth + [5]


@pytest.mark.slow
def test_baselines_read_a_feature_without_positions_once():
    task, names = tiny_task(embedding=True), ["late fusion", "MLP of one layer", "GMU"]
    table = compare(task, [*names, "logistic regression", "CentralNet", "MFAS"], device="cpu")
    # Two vectors of 6 numbers and their BatchNorm; C = 8, 3 classes.
    assert table["late fusion, concatenated"]["params"] == 2 * 12 + 12 * 3 + 3
    inputs = 2 * (5 * 4 + 6)
    assert table["MLP of one layer"]["params"] == 2 * inputs + inputs * 8 + 8 + 2 * 8 + 8 * 3 + 3
    assert table["logistic regression"]["params"] == 2 * inputs + inputs * 3 + 3
    net = GMU({"A": (6, 1), "B": (6, 1)}, 3, L=4, width=8, dropout=0.1)
    assert table["GMU"]["params"] == count_parameters(net)


CLASSICAL = ("logistic regression", "gradient boosting")


@pytest.mark.parametrize("metric", ["accuracy", "weighted_f1"])
@pytest.mark.parametrize("name", CLASSICAL)
def test_a_classical_classifier_beats_chance_and_its_logits_are_its_probabilities(name, metric):
    task = tiny_task(metric=metric)
    own = context(task)
    ((label, (net,)),) = BASELINES[name](own)
    features, labels = own.samples()
    assert label == name and len(labels) == 72 and net.L == 4
    p = torch.from_numpy(net.model.predict_proba(flat(features, task.features))).float()
    logits = net(features)
    found = logits.sigmoid() if metric == "weighted_f1" else logits.softmax(1)
    torch.testing.assert_close(found, p, atol=1e-4, rtol=1e-4)
    assert own.validate(net) > 0.5 and count_parameters(net) == net.learned.numel() > 0


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_class_that_is_never_seen_in_training_has_a_logit_all_the_same(name):
    task = tiny_task(classes=3)
    task = replace(task, classes=5)  # two more than any sample has
    ((_, (net,)),) = BASELINES[name](context(task))
    logits = net(context(task).samples()[0])
    assert logits.shape == (72, 5) and logits.isfinite().all()
    assert (logits[:, 3:] < logits[:, :3].max(1, keepdim=True).values).all()


@pytest.mark.nightly
@pytest.mark.slow
def test_gradient_boosting_does_not_diverge_on_28_classes():
    task = load_task("digits", rule="voice")
    own = compare(task, ["gradient boosting"], config=TrainConfig(L=1), device="cpu")
    assert own["gradient boosting"]["test"] > 0.5  # 0.06 without its penalty


def test_logistic_regression_has_the_penalty_of_the_recipes_weight_decay():
    config = TrainConfig(weight_decay=0.05)
    own = BaselineContext(tiny_task(), config, 0, torch.device("cpu"))
    ((_, (net,)),) = BASELINES["logistic regression"](own)
    linear = net.model[-1]
    weights = torch.tensor(linear.coef_, requires_grad=True)
    rows = torch.tensor(net.model[0].transform(flat(own.samples()[0], net.names)))
    logits = rows @ weights.T + torch.tensor(linear.intercept_)
    loss = torch.nn.functional.cross_entropy(logits, own.samples()[1])
    (loss + 0.05 / 2 * weights.pow(2).sum()).backward()
    assert weights.grad.abs().max() < 1e-3  # the minimum


@pytest.fixture
def tiny_registered():
    """The rules with which a task ``"tiny"`` is loaded, as a list that grows."""
    loaded = []
    with TASKS.restored():

        @register_task("tiny")
        def load(rule="sum", classes=3):
            loaded.append(rule)
            return tiny_task(classes=classes)

        yield loaded


@pytest.mark.slow
def test_the_table_goes_on_where_it_was_stopped(tiny_registered, tmp_path):
    out, names = tmp_path / "t.csv", ["single modalities", "BM-NAS"]
    first = run_baselines("tiny", ("sum",), (0,), out, names=names, device="cpu")
    assert len(first) == 3
    whole = run_baselines("tiny", ("sum", "same"), (0, 1), out, names=names, device="cpu")
    assert tiny_registered == ["sum", "same", "sum"] and len(whole) == 12
    assert list(whole.columns) == list(COLUMNS)
    assert set(whole["L"]) == {4} and whole["C"].isna().tolist() == [True, True, False] * 4
    assert whole["validation"].between(0, 1).all() and (whole["validation"] > 0).all()
    read = read_baselines(out)
    pd.testing.assert_frame_equal(read, whole, rtol=1e-5, check_dtype=False)
    assert (read["search_seconds"] > 0).tolist() == (read["network"] == "BM-NAS").tolist()
    assert (read["seconds"] > read["search_seconds"]).all() and set(read["device"]) == {"cpu"}
    before = out.read_text()
    run_baselines("tiny", ("sum",), (1,), out, names=names, device="cpu")
    assert out.read_text() == before


def test_each_variant_of_a_task_has_rows_of_its_own_and_may_take_over_settings(
    tiny_registered, tmp_path
):
    out, names = tmp_path / "t.csv", ["single modalities", "GMU"]
    how = {"names": names, "device": "cpu"}
    sizes = [TrainConfig(C=C, epochs=1) for C in (4, 8)]
    first = run_baselines("tiny", ("sum",), (0,), out, settings=sizes, **how)
    tried = read_tried(tried_path(out))
    own = {"options": {"classes": 4}, "settings": tried, **how}
    whole = run_baselines("tiny", ("sum",), (0,), out, **own)
    pd.testing.assert_frame_equal(whole[:3], first, check_dtype=False)
    assert whole["options"].tolist() == [""] * 3 + ["classes=4"] * 3
    assert whole["C"].tolist()[2::3] == 2 * [float(first["C"][2])]
    assert whole["test"].tolist()[3:] != first["test"].tolist()
    assert tried_path(out).read_text().count("\n") == 1 + len(tried)
    before = out.read_text()
    run_baselines("tiny", ("sum",), (0,), out, **own)
    assert out.read_text() == before
    assert summarize(read_baselines(out))["options"].tolist() == [""] * 3 + ["classes=4"] * 3


@pytest.fixture
def ruleless():
    """A registered task ``"plain"`` without rules."""
    with TASKS.restored():

        @register_task("plain")
        def load(classes=3):
            return replace(tiny_task(classes=classes), name="plain", rule=None)

        yield load()


def test_a_task_without_rules_has_one_table_with_empty_rules(ruleless, tmp_path):
    out, sizes = tmp_path / "t.csv", [TrainConfig(C=C, epochs=1) for C in (4, 8)]
    assert default_rules("plain") == default_rules(ruleless) == (None,)
    assert default_rules("digits") == ("sum", "same")
    how = {"names": ["logistic regression", "GMU"], "settings": sizes, "device": "cpu"}
    found = run_baselines("plain", (None,), (0, 1), out, **how)
    assert found["rule"].tolist() == [""] * 4 and found["C"].dropna().nunique() == 1
    tried = read_tried(tried_path(out))
    assert set(tried["rule"]) == {""} and found["C"].iloc[1] == best_of(tried, "GMU")
    before = out.read_text()
    again = run_baselines("plain", (None,), (0, 1), out, **how)
    pd.testing.assert_frame_equal(again, found, check_dtype=False)
    assert out.read_text() == before and ",plain" not in before and "plain,,," in before
    summary = summarize(read_baselines(out))
    assert summary["rule"].tolist() == [""] * 2 and summary["seeds"].tolist() == [2] * 2


def best_of(tried: pd.DataFrame, network: str) -> float:
    own = tried[tried["network"] == network]
    return own.sort_values(["validation", "params"], ascending=[False, True])["C"].iloc[0]


def test_a_table_takes_a_task_as_well_as_its_name(ruleless, tmp_path):
    how = {"names": ["logistic regression"], "device": "cpu"}
    by_name, by_task = (
        run_baselines(task, (None,), (0,), tmp_path / name, **how)
        for task, name in (("plain", "a.csv"), (ruleless, "b.csv"))
    )
    same = [name for name in COLUMNS if "seconds" not in name]
    pd.testing.assert_frame_equal(by_name[same], by_task[same])
    message = "^task 'plain': found options, or rule 'sum', beside a task; allowed: no options, "
    with pytest.raises(BaselineError, match=message):
        run_baselines(ruleless, ("sum",), (0,), tmp_path / "c.csv", **how)
    assert not (tmp_path / "c.csv").exists()


NAMES = ["late fusion", "fixed Cells", "logistic regression", "BM-NAS", "searched features"]


@pytest.mark.slow
def test_each_network_has_the_settings_that_are_best_for_it_on_validation(
    tiny_registered, tmp_path, splits_read
):
    out = tmp_path / "t.csv"
    sizes = [TrainConfig(C=C, L=L, epochs=1) for C in (4, 8) for L in (1, 4)]
    how = {"names": NAMES, "settings": sizes, "device": "cpu"}
    tried = try_settings("tiny", ("sum",), tried_path(out), sizes, names=NAMES, device="cpu")
    assert "test" not in splits_read and set(tried["seed"]) == {0}
    found = run_baselines("tiny", ("sum",), (1,), out, **how)
    pd.testing.assert_frame_equal(read_tried(tried_path(out)), tried, rtol=1e-5, check_dtype=False)
    times = tried.groupby("baseline").size().to_dict()
    # Late fusion and the logistic regression have no width, the latter no epochs either.
    assert times == {"late fusion": 4, "fixed Cells": 8, "logistic regression": 2, "BM-NAS": 4}
    for row in found.to_dict("records"):
        like = "BM-NAS" if row["baseline"] == "searched features" else row["network"]
        own = tried[tried["network"] == like]
        best = own[own["validation"] == own["validation"].max()]
        best = best[best["params"] == best["params"].min()].iloc[0]
        for name in ("C", "L", "epochs", "max_lr"):
            assert row[name] == best[name] or pd.isna(row[name]) and pd.isna(best[name])
    before = out.read_text(), tried_path(out).read_text(), len(splits_read)
    run_baselines("tiny", ("sum",), (1,), out, **how)
    assert (out.read_text(), tried_path(out).read_text(), len(splits_read)) == before


def test_trying_settings_goes_on_where_it_was_stopped_and_refuses_what_are_none(
    tiny_registered, tmp_path
):
    out, sizes = tmp_path / "c.csv", [TrainConfig(C=4, epochs=1), TrainConfig(C=8, epochs=1)]
    how = {"names": ["fixed Cells"], "device": "cpu"}
    try_settings("tiny", ("sum",), out, sizes[:1], **how)
    before = out.read_text()
    try_settings("tiny", ("sum",), out, sizes, **how)
    assert out.read_text().startswith(before) and out.read_text().count("\n") == 5
    with pytest.raises(BaselineError, match="^settings: found int; allowed: a TrainConfig$"):
        try_settings("tiny", ("sum",), out, [4], **how)
    message = "^settings: found field 'batch_size'; allowed: C, L, epochs, max_lr$"
    with pytest.raises(BaselineError, match=message):
        try_settings("tiny", ("sum",), out, [TrainConfig(C=4, batch_size=8)], **how)


def test_of_equally_good_settings_the_smallest_network_is_chosen():
    rows = [
        ("t", "r", None, metric, 0, metric, "A", C, 1, 15, 0.1, score, params, 0.0, 1.0, "cpu")
        for metric, worse in (("accuracy", 0.8), ("rmse", 1.0))
        for C, params in ((2, 10), (8, 300), (4, 200), (16, 400))
        for score in [worse if C == 2 else 0.9]
    ]
    tried = pd.DataFrame(rows, columns=[*TRIED_COLUMNS])
    best = TrainConfig(C=4, L=1, epochs=15, max_lr=0.1)
    assert best_settings(tried) == {("r", m, "A"): best for m in ("accuracy", "rmse")}


def test_a_summary_pairs_seeds_and_puts_the_best_first():
    scores = {"A": (0.9, 0.8), "B": (0.7, 0.7), "C": (0.95, 0.65)}
    costs = 10, 1.0, 3.0, "cpu"
    rows = [
        ("t", "r", None, "auroc", seed, name, name, 8, None, 15, 0.1, score - 0.1, score, *costs)
        for name, pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    found = summarize(pd.DataFrame(rows, columns=[*COLUMNS])).set_index("network")
    assert list(found.index) == ["A", "C", "B"]
    assert found["test"].tolist() == pytest.approx([0.85, 0.8, 0.7])
    assert found["validation"].tolist() == pytest.approx([0.75, 0.7, 0.6])
    assert found["C"].tolist() == [8] * 3 and found["L"].isna().all()
    assert found["behind"].tolist() == pytest.approx([0, 5, 15])
    assert found["behind_std"].tolist() == pytest.approx([0, 20 / 2**0.5, 10 / 2**0.5])
    assert found["train_seconds"].tolist() == [2.0] * 3 and found["seeds"].tolist() == [2] * 3


def test_a_summary_of_errors_puts_the_lowest_first_in_their_own_units():
    costs = 10, 1.0, 3.0, "cpu"
    rows = [
        ("t", "r", None, "mae", seed, name, name, 8, 1, 15, 0.1, score, score, *costs)
        for name, pair in {"A": (50.0, 60.0), "B": (40.0, 44.0)}.items()
        for seed, score in enumerate(pair)
    ]
    found = summarize(pd.DataFrame(rows, columns=[*COLUMNS])).set_index("network")
    assert list(found.index) == ["B", "A"] and found["test"].tolist() == [42.0, 55.0]
    assert found["behind"].tolist() == [0.0, 13.0] and set(found["metric"]) == {"mae"}


def test_a_summary_keeps_the_tables_order_of_rules():
    rows = [
        ("t", rule, None, "accuracy", 0, "A", "A", 8, 4, 15, 0.1, score, score, 10, 1.0, 3.0, "cpu")
        for rule, score in (("sum", 0.5), ("same", 0.9), ("also", 0.7))
    ]
    found = summarize(pd.DataFrame(rows, columns=[*COLUMNS]))
    assert found["rule"].tolist() == ["sum", "same", "also"]


OLD_COLUMNS = "task,rule,seed,rival,network,test,params,search_seconds,seconds,device"


@pytest.mark.parametrize("columns", ["a,b", OLD_COLUMNS])
def test_a_file_with_other_columns_is_refused_and_left_alone(columns, tiny_registered, tmp_path):
    out = tmp_path / "t.csv"
    out.write_text(f"{columns}\n")
    found = columns.replace(",", ", ")
    message = f"t.csv: found columns {found}; allowed: task, rule, options, metric, seed, b"
    with pytest.raises(TableError, match=message):
        run_baselines("tiny", ("sum",), (0,), out, device="cpu")
    assert out.read_text() == f"{columns}\n" and tiny_registered == []
    with pytest.raises(TableError, match=message):
        read_baselines(out)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(TableError, match="nothing.csv: found no table"):
        read_baselines(tmp_path / "nothing.csv")


def committed(root, name):
    return root / "assets" / "results" / f"{name}_baselines.csv"


#: Committed tables whose baselines chose their settings: rules, file of settings, rate and epochs
#: of the task's recipe.
CHOSEN = {
    "avmnist": (("sum", "same"), "settings.json", {"epochs": 15, "max_lr": 1e-3}),
    "digits_voice": (("voice",), "settings_voice.json", {"epochs": 15, "max_lr": 3e-3}),
}


def test_bm_nas_searches_at_the_sizes_of_the_recipe():
    config = TrainConfig(epochs=1, N=1, C=4)
    own = BaselineContext(tiny_task(), config, 0, torch.device("cpu"))
    assert len(own.searched().cells) == 1
    assert [config.C for config in own._found] == [4]


@pytest.mark.parametrize(
    ("name", "rules", "seeds"),
    [
        ("avmnist", ("sum", "same"), 5),
        ("digits", ("sum", "same"), 3),
        ("digits_voice", ("voice",), 5),
    ],
)
def test_the_committed_tables_have_every_network_with_all_seeds_and_their_picture(
    root, name, rules, seeds
):
    table = read_baselines(committed(root, name))
    assert set(table["baseline"]) == set(BASELINES)
    assert set(table["task"]) == {name.split("_")[0]} and set(table["options"]) == {""}
    assert not table[["validation", "test"]].isna().any(axis=None)
    rows = set(table[["rule", "seed", "network"]].itertuples(index=False, name=None))
    assert rows == {*product(rules, range(seeds), set(table["network"]))}
    assert len(rows) == len(table)
    picture = committed(root, name).with_suffix(".svg").read_text()
    for row in summarize(table).to_dict("records"):
        assert row["network"] in picture
        assert f"{row['test']:.3f} ± {row['std']:.3f}" in picture


@pytest.mark.parametrize("name", CHOSEN)
def test_every_network_has_the_settings_that_it_chose(root, name):
    table, best = read_baselines(committed(root, name)), best_tried(root, name)
    used = ["C", "L", "epochs", "max_lr"]
    for row in table.to_dict("records"):
        like = BASELINES[row["baseline"]].like or row["network"]
        expected = best.loc[row["rule"], like]
        found = pd.Series(row)[used]
        assert found.dropna().equals(expected[used][found.notna()]), row["network"]


@pytest.mark.parametrize("name", CHOSEN)
def test_every_baseline_has_tried_all_settings_under_each_rule(root, name):
    rules, listed, recipe = CHOSEN[name]
    path = tried_path(committed(root, name))
    tried, listed = read_tried(path), read_settings(root / "assets" / "results" / listed)
    assert set(tried["task"]) == {name.split("_")[0]} and set(tried["seed"]) == {0}
    assert len(listed) <= 6
    sizes = [config.with_defaults(TrainConfig(**recipe)) for config in listed]
    for (rule, baseline), rows in tried.groupby(["rule", "baseline"]):
        used = [f for f in ("C", "L", "epochs", "max_lr") if f not in BASELINES[baseline].ignores]
        wanted = {tuple(getattr(config, field) for field in used) for config in sizes}
        for network, own in rows.groupby("network"):
            found = list(own[used].itertuples(index=False, name=None))
            assert set(found) == wanted and len(found) == len(wanted), (rule, network)
    own = {baseline for baseline, known in BASELINES.items() if not known.like}
    pairs = set(tried[["rule", "baseline"]].itertuples(index=False, name=None))
    assert pairs == {*product(rules, own)}
    picture = path.with_suffix(".svg").read_text()
    assert all(network in picture for network in ("BM-NAS", "MFAS", "MLP of two layers"))


def best_tried(root, name) -> pd.DataFrame:
    """The best settings tried of each network under each rule."""
    tried = read_tried(tried_path(committed(root, name)))
    order = tried.sort_values(["validation", "params"], ascending=[False, True], kind="stable")
    return order.groupby(["rule", "network"]).head(1).set_index(["rule", "network"])


SMALL_MFAS = MFASConfig(iterations=2, depth=2, samples=3, epochs=1, finalists=2)


@pytest.mark.slow
def test_mfas_goes_depth_by_depth_and_trains_what_it_samples():
    search = MFASSearch(context(), SMALL_MFAS)
    assert len(search.layers()) == 2 * 2 * 2
    rounds, train = [], search._train
    search._train = lambda configurations: rounds.append(configurations) or train(configurations)
    best = search.run()
    assert [len(r) for r in rounds] == [8, 3, 3, 3]
    assert [{len(c) for c in r} for r in rounds] == [{1}, {2}, {2}, {2}]
    assert best in sorted(search.scores, key=search.scores.get)[-2:]
    assert MFASSearch(context(), SMALL_MFAS).run() == best


@pytest.mark.slow
def test_the_mfas_baseline_is_the_network_that_its_search_finds(monkeypatch):
    small = partial(MFASSearch, config=SMALL_MFAS)
    monkeypatch.setattr("bmnas_core.baselines.mfas.MFASSearch", small)
    own = context()
    ((label, (net,)),) = BASELINES["MFAS"](own)
    assert label == "MFAS" and own.search_seconds > 0
    assert net.configuration == small(context()).run()


def test_mfas_shares_weights_between_configurations():
    search = MFASSearch(context(), SMALL_MFAS)
    search._train([((0, 1, 0),)])
    kept = {key: dict(state) for key, state in search._weights.items()}
    started = []
    fit = search.context.fit

    def recorded(build, *args, **kwargs):
        started.append(build().state_dict())
        return fit(build, *args, **kwargs)

    search.context.fit = recorded
    search._train([((1, 0, 0), (1, 1, 0)), ((0, 1, 1),)])
    ((first, state),) = kept.items()
    assert first == (0, state["0.weight"].shape[1], 0)
    alike, other = started
    assert torch.equal(alike["layers.0.0.weight"], state["0.weight"])
    assert not torch.equal(other["layers.0.0.weight"], state["0.weight"])
    assert set(alike) - {"linear.weight", "linear.bias"} == {
        f"layers.{i}.{name}" for i in range(2) for name in state
    }


def test_the_mfas_surrogate_learns_and_its_temperature_falls():
    search = MFASSearch(context(), MFASConfig(surrogate_epochs=300, surrogate_lr=1e-2))
    search.scores = {(layer,): 0.9 if layer[0] else 0.2 for layer in search.layers()}
    search._learn()
    predicted = search.surrogate(torch.tensor([((0, 0, 0),), ((1, 0, 0),)], dtype=torch.float))
    torch.testing.assert_close(predicted, torch.tensor([0.2, 0.9]), atol=0.05, rtol=0)
    temperatures = [search.temperature(step) for step in range(12)]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[:2] == pytest.approx([10, 0.2 + 9.8 * 0.9394], abs=1e-2)
    assert temperatures[4] == temperatures[5] and temperatures[8] == temperatures[9]
    options = [(layer,) for layer in search.layers()]
    search = MFASSearch(context(), MFASConfig(hottest=0.21, samples=4))
    cold = search._sample(options, [0.9 if layer[0] else 0.2 for (layer,) in options], 0)
    assert {layer[0] for (layer,) in cold} == {1}


def test_the_first_draw_of_mfas_is_by_measured_scores_and_trains_nothing(monkeypatch):
    search, drawn = MFASSearch(context(), SMALL_MFAS), []
    sample = search._sample

    def recorded(options, scores, step):
        drawn.append((step, scores, [search.scores.get(c) for c in options]))
        return sample(options, scores, step)

    monkeypatch.setattr(search, "_sample", recorded)
    search.run()
    (first, scores, measured), *others = drawn
    assert first == 0 and scores == measured
    assert [step for step, *_ in others] == [1, 2, 3]
    assert all(scores != measured for _, scores, measured in others)


def test_an_mfas_network_is_the_formula():
    modalities = [{"A": 2}, {"B": 3, "C": 4}]
    net = MFASNetwork(((0, 1, 0), (0, 0, 1)), modalities, 5, width=6, L=2, dropout=0.0).eval()
    features = {n: torch.randn(7, c, 2) for n, c in zip("ABC", (2, 3, 4), strict=True)}
    a, b, c = (x.mean(2) for x in features.values())
    h = net.layers[0](torch.cat([a, c], dim=1)).relu()
    h = net.layers[1](torch.cat([a, b, h], dim=1)).sigmoid()
    torch.testing.assert_close(net(features), net.linear(h))
    assert Surrogate(3)(torch.zeros(4, 2, 3)).shape == (4,)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([None], "found None; allowed: .label, .networks"),
        ([("mine", torch.nn.Linear(2, 2))], "found .*; allowed: .label, .networks"),
        ([("mine", [])], "found .*; allowed"),
        ([(5, [torch.nn.Linear(2, 2)])], "found .*; allowed"),
        ([("mine", [3])], "found .*; allowed"),
        ([("late fusion, averaged", None)], "found .*; allowed"),
    ],
)
def test_what_a_baseline_yields_is_checked(entries, message):
    with BASELINES.restored():

        @register_baseline("mine")
        def mine(context):
            yield from entries

        with pytest.raises(BaselineError, match=f"baseline 'mine': {message}"):
            compare(tiny_task(), ["mine"], device="cpu", progress=False)


@pytest.mark.parametrize("build", [torch.nn.Linear(2, 3), lambda net: net, None])
def test_fit_takes_a_function_that_builds_the_network(build):
    with pytest.raises(BaselineError, match="^fit: found .*; allowed: a function that builds"):
        context().fit(build)
    with pytest.raises(TrainError, match="^net: found NoneType; allowed: a network$"):
        context().fit(lambda: None)
    with pytest.raises(TrainError, match="^config: found SearchConfig; allowed: a TrainConfig$"):
        context().fit(lambda: torch.nn.Linear(2, 3), context().search)


def test_a_label_that_another_baseline_has_is_refused():
    with BASELINES.restored():

        @register_baseline("mine")
        def mine(context):
            yield "GMU", [context.train(fixed_genotype(context.task, "Sum"))]

        recipe = TrainConfig(epochs=1)
        with pytest.raises(BaselineError, match="baseline 'mine': found label 'GMU' a second time"):
            compare(tiny_task(), ["GMU", "mine"], config=recipe, device="cpu", progress=False)
