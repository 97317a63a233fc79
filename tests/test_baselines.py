"""Baselines: the same features, recipe, seed and space for all, each network tested once."""

from functools import partial

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task

from bmnas_core import (
    DEFAULT_OPERATIONS,
    FeatureBank,
    Genotype,
    GenotypeError,
    SearchConfig,
    TrainConfig,
    TrainError,
    count_parameters,
)
from bmnas_core.baselines import (
    BASELINES,
    BaselineContext,
    BaselineError,
    compare,
    read_baselines,
    register_baseline,
    run_baselines,
    summarize,
)
from bmnas_core.baselines.architectures import fixed_genotype, random_genotype, sample_genotype
from bmnas_core.baselines.fusion_models import (
    GMU,
    CentralNet,
    LateFusion,
    LinearFusion,
    last_features,
)
from bmnas_core.baselines.mfas import MFASConfig, MFASNetwork, MFASSearch, Surrogate
from bmnas_core.baselines.searches import mutated, with_motif, with_random_pairs
from bmnas_core.baselines.table import COLUMNS
from bmnas_core.storage import TableError
from bmnas_core.tasks import TASKS, register_task
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


def test_baselines_read_the_bank_that_they_are_given(tmp_path, monkeypatch):
    task, names = tiny_task(), ["single modalities", "fixed Cells", "BM-NAS", "random search"]
    expected, bank = compare(task, names, **QUICK), FeatureBank(task, folder=tmp_path)
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
    networks = [LinearFusion({name: 2}, 3, 4).eval() for name in ("A", "B")]
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
    assert last_features(tiny_task()) == [{"Image_2": 6}, {"Audio_2": 6}]


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


def test_baselines_that_search_report_the_seconds_of_their_search():
    names = [name for name in BASELINES if name.startswith("BM-NAS")]
    names += ["searched features", "random features", "random search", "evolution"]
    table = compare(tiny_task(), [*names, "GMU", "CentralNet", "all features"], **QUICK)
    searching = {name for name, entry in table.items() if entry["search_seconds"] > 0}
    assert searching == set(table) - {"GMU", "CentralNet", "all features, concatenated"}
    for entry in table.values():
        assert entry["search_seconds"] < entry["seconds"]
    searched = table["BM-NAS"]["search_seconds"]
    assert table["searched features, Sum"]["search_seconds"] == searched
    assert table["random features, searched Cells, mean of 3"]["search_seconds"] == searched


@pytest.mark.parametrize(
    "name",
    ["random search", "evolution", "BM-NAS", "BM-NAS by perturbation", "BM-NAS of one Cell"],
)
def test_a_search_never_reads_the_test_split_and_depends_on_its_seed_alone(name, splits_read):
    ((_, (net,)),) = BASELINES[name](context(seed=2))
    assert set(splits_read) == {"train", "validation", "train+validation"}
    ((_, (again,)),) = BASELINES[name](context(seed=2))
    assert net.genotype == again.genotype
    cells = 1 if name == "BM-NAS of one Cell" else tiny_task().config.N
    assert len(net.genotype.cells) == cells
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_half_the_width_is_searched_and_trained_at_half_the_width():
    own = context(seed=1)
    ((_, (net,)),) = BASELINES["BM-NAS at half the width"](own)
    ((config, (genotype, _)),) = own._searched.items()
    assert net.genotype == genotype
    assert config.C == own.config.C // 2 == net.reshape.layers[0].conv.weight.shape[0]


@settings(max_examples=60)
@given(st.integers(3, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
def test_a_mutation_is_legal_and_changes_one_thing(features, N, M, seed):
    random = torch.Generator().manual_seed(seed)
    parent = random_genotype(tuple(f"A_{i}" for i in range(features)), N, M, random)
    child = mutated(parent, random, DEFAULT_OPERATIONS)
    assert Genotype.from_json(child.to_json()) == child != parent
    assert len({frozenset(cell.inputs) for cell in child.cells}) == N
    changed = [(a, b) for a, b in zip(parent.cells, child.cells, strict=True) if a != b]
    ((old, new),) = changed
    steps = [(a, b) for a, b in zip(old.steps, new.steps, strict=True) if a != b]
    assert (old.inputs != new.inputs) + len(steps) == 1


SEARCHES = ("random genotypes", "random search", "evolution", "random features", "BM-NAS")


@pytest.fixture
def genotypes_trained(monkeypatch) -> list[Genotype]:
    """What baselines would train, as a list that grows. Nothing is trained."""
    genotypes = []

    def recorded(genotype, task, config, **how):
        genotypes.append(genotype)
        return fusion_network(genotype, task, config), []

    monkeypatch.setattr("bmnas_core.baselines.context.train", recorded)
    return genotypes


def operations_of(genotypes: list[Genotype]) -> set[str]:
    return {step.op for genotype in genotypes for cell in genotype.cells for step in cell.steps}


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
    ((config, _),) = own._searched.items()
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


def test_a_gmu_is_the_formula():
    net = GMU([{"A": 2}, {"B": 3}], 5, C=4, L=2).eval()
    features = {"A": torch.randn(6, 2, 2), "B": torch.randn(6, 3, 2)}
    flat = [bn(x).flatten(1) for bn, x in zip(net.bn, features.values(), strict=True)]
    joined = torch.cat(flat, dim=1)
    h = 0
    for gate, hidden, x in zip(net.gates, net.hidden, flat, strict=True):
        h = h + torch.sigmoid(gate(joined)) * torch.tanh(hidden(x))
    torch.testing.assert_close(net(features), net.linear(h))


def test_central_net_joins_modalities_of_other_depths_at_the_end():
    net = CentralNet([{"A": 2, "B": 3, "C": 4}, {"D": 5}], 7, C=4, L=2, dropout=0.0)
    assert net.layers == [["A"], ["B"], ["C", "D"]]
    features = {n: torch.randn(6, c, 2) for n, c in zip("ABCD", (2, 3, 4, 5), strict=True)}
    assert net(features).shape == (3, 6, 7) and net.eval()(features).shape == (6, 7)
    net.train()(features).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.fixture
def tiny_registered():
    """The rules with which a task ``"tiny"`` is loaded, as a list that grows."""
    loaded = []
    with TASKS.restored():

        @register_task("tiny")
        def load(rule="sum"):
            loaded.append(rule)
            return tiny_task()

        yield loaded


def test_the_table_goes_on_where_it_was_stopped(tiny_registered, tmp_path):
    out, names = tmp_path / "t.csv", ["single modalities", "BM-NAS"]
    first = run_baselines("tiny", ("sum",), (0,), out, names=names, device="cpu")
    assert tiny_registered == ["sum"] and len(first) == 3
    whole = run_baselines("tiny", ("sum", "same"), (0, 1), out, names=names, device="cpu")
    assert tiny_registered == ["sum", "same", "sum", "same"] and len(whole) == 12
    assert list(whole.columns) == list(COLUMNS)
    read = read_baselines(out)
    pd.testing.assert_frame_equal(read, whole, rtol=1e-5, check_dtype=False)
    assert (read["search_seconds"] > 0).tolist() == (read["network"] == "BM-NAS").tolist()
    assert (read["seconds"] > read["search_seconds"]).all() and set(read["device"]) == {"cpu"}
    before = out.read_text()
    run_baselines("tiny", ("sum",), (1,), out, names=names, device="cpu")
    assert out.read_text() == before


def test_a_summary_pairs_seeds_and_puts_the_best_first():
    scores = {"A": (0.9, 0.8), "B": (0.7, 0.7), "C": (0.95, 0.65)}
    rows = [
        ("t", "r", seed, name, name, score, 10, 1.0, 3.0, "cpu")
        for name, pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    found = summarize(pd.DataFrame(rows, columns=COLUMNS)).set_index("network")
    assert list(found.index) == ["A", "C", "B"]
    assert found["test"].tolist() == pytest.approx([0.85, 0.8, 0.7])
    assert found["behind"].tolist() == pytest.approx([0, 5, 15])
    assert found["behind_std"].tolist() == pytest.approx([0, 20 / 2**0.5, 10 / 2**0.5])
    assert found["train_seconds"].tolist() == [2.0] * 3 and found["seeds"].tolist() == [2] * 3


def test_a_summary_keeps_the_tables_order_of_rules():
    rows = [
        ("t", rule, 0, "A", "A", score, 10, 1.0, 3.0, "cpu")
        for rule, score in (("sum", 0.5), ("same", 0.9), ("also", 0.7))
    ]
    found = summarize(pd.DataFrame(rows, columns=COLUMNS))
    assert found["rule"].tolist() == ["sum", "same", "also"]


OLD_COLUMNS = "task,rule,seed,rival,network,test,params,search_seconds,seconds,device"


@pytest.mark.parametrize("columns", ["a,b", OLD_COLUMNS])
def test_a_file_with_other_columns_is_refused_and_left_alone(columns, tiny_registered, tmp_path):
    out = tmp_path / "t.csv"
    out.write_text(f"{columns}\n")
    found = columns.replace(",", ", ")
    message = f"t.csv: found columns {found}; allowed: task, rule, seed, baseline, network"
    with pytest.raises(TableError, match=message):
        run_baselines("tiny", ("sum",), (0,), out, device="cpu")
    assert out.read_text() == f"{columns}\n" and tiny_registered == []
    with pytest.raises(TableError, match=message):
        read_baselines(out)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(TableError, match="nothing.csv: found no table"):
        read_baselines(tmp_path / "nothing.csv")


def committed(root, task):
    return root / "assets" / "results" / f"{task}_baselines.csv"


def test_bm_nas_searches_at_the_sizes_of_the_recipe():
    config = TrainConfig(epochs=1, N=1, C=4)
    own = BaselineContext(tiny_task(), config, 0, torch.device("cpu"))
    assert len(own.searched().cells) == 1
    assert [config.C for config in own._searched] == [4]


@pytest.mark.parametrize("task", ["avmnist", "digits"])
def test_the_committed_tables_have_every_network_with_all_seeds_and_their_picture(root, task):
    table = read_baselines(committed(root, task))
    found = summarize(table)
    assert list(dict.fromkeys(found["rule"])) == ["sum", "same"] and set(table["task"]) == {task}
    assert found["seeds"].nunique() == 1 and found["seeds"][0] >= 3
    assert not table.duplicated(["rule", "seed", "network"]).any()
    if task == "avmnist":
        assert set(table["baseline"]) == set(BASELINES) and found["seeds"][0] == 5
    picture = committed(root, task).with_suffix(".svg").read_text()
    for row in found.to_dict("records"):
        assert row["network"] in picture
        assert f"{row['test']:.3f} ± {row['std']:.3f}" in picture


def test_the_readme_has_the_committed_baselines(root, readme_tables):
    (table,) = (t for t in readme_tables if "search, s" in t[0])
    found = summarize(read_baselines(committed(root, "avmnist"))).set_index(["rule", "network"])
    assert len(table) > 8
    for name, *cells in table[2:]:
        rows = [found.loc[rule, name] for rule in ("sum", "same")]
        expected = [f"{row.test:.3f} ± {row['std']:.3f}" for row in rows]
        expected.append(" / ".join(f"{row.params:,}" for row in rows))
        searches = [f"{row.search_seconds:.0f}" for row in rows]
        expected.append(" / ".join(searches) if searches != ["0", "0"] else "–")
        assert cells == expected, name


SMALL_MFAS = MFASConfig(iterations=2, depth=2, samples=3, epochs=1, finalists=2)


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
    ((first, state),) = [(key, kept[key]) for key in kept if key[-1] == "conv"]
    assert first == (0, state["weight"].shape[1], 0, "conv")
    alike, other = started
    assert torch.equal(alike["convs.0.weight"], state["weight"])
    assert not torch.equal(other["convs.0.weight"], state["weight"])
    assert {key[-1] for key in search._weights} == {"conv", "norm"}


def test_the_mfas_surrogate_learns_and_its_temperature_falls():
    search = MFASSearch(context(), MFASConfig(surrogate_epochs=300, surrogate_lr=1e-2))
    search.scores = {(layer,): 0.9 if layer[0] else 0.2 for layer in search.layers()}
    search._learn()
    predicted = search.surrogate(torch.tensor([((0, 0, 0),), ((1, 0, 0),)], dtype=torch.float))
    torch.testing.assert_close(predicted, torch.tensor([0.2, 0.9]), atol=0.05, rtol=0)
    temperatures = [search.temperature(step) for step in range(12)]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[0] == pytest.approx(0.2 + 9.8 * 0.9394, abs=1e-2)
    cold = search._sample([(layer,) for layer in search.layers()], 0.01)
    assert {layer[0] for (layer,) in cold[:4]} == {1}


def test_an_mfas_network_is_the_formula():
    modalities = [{"A": 2}, {"B": 3, "C": 4}]
    net = MFASNetwork(((0, 1, 0), (0, 0, 1)), modalities, 5, C=6, L=2, dropout=0.0).eval()
    features = {n: torch.randn(7, c, 2) for n, c in zip("ABC", (2, 3, 4), strict=True)}
    first = torch.cat([features["A"], features["C"]], dim=1)
    h = net.norms[0](net.convs[0](first)).relu()
    second = torch.cat([features["A"], features["B"], h], dim=1)
    h = net.norms[1](net.convs[1](second)).sigmoid()
    torch.testing.assert_close(net(features), net.linear(h.flatten(1)))
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
