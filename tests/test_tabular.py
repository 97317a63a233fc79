"""Tabular benchmark: the space, its symmetries, its table."""

from itertools import permutations, product

import pytest
import torch
from tiny import tiny_task

from bmnas_core import (
    FusionNetwork,
    Genotype,
    TabularBenchmark,
    TrainConfig,
    evaluate,
    load_task,
    tabular,
    train,
)
from bmnas_core.benchmark.tabular import OPERATIONS, BenchmarkError, architectures, build
from bmnas_core.genotype import CellGenotype, StepGenotype
from bmnas_core.ops import OPERATIONS as REGISTERED
from bmnas_core.runtime import generator
from bmnas_core.train import cosine_ends

FEATURES = ("Image_1", "Image_2", "Image_3", "Audio_1", "Audio_2", "Audio_3")
RULES = ("sum", "same")


def two_steps():
    """All ways to write two steps down: 8 × 24."""
    first = product(OPERATIONS, permutations(("X", "Y"), 2))
    second = product(OPERATIONS, permutations(("X", "Y", "S1"), 2))
    return [tuple(StepGenotype(*s) for s in steps) for steps in product(first, second)]


def same_function(net: FusionNetwork, steps: tuple[StepGenotype, ...]) -> FusionNetwork:
    """The network of the same Cell written as ``steps``, with the weights of ``net`` moved over."""
    (cell,) = net.genotype.cells
    genotype = Genotype(net.genotype.features, (CellGenotype(cell.inputs, steps),))
    channels, C = net.reshape.channels, net.cells[0].output.ln.normalized_shape[0]
    other = FusionNetwork(genotype, channels, net.classifier.linear.out_features, C=C, L=net.L)
    for order in permutations(range(len(steps))):
        # Step j of the one is step order[j] of the other, if their inputs agree but for swaps.
        names = {f"S{order[j] + 1}": f"S{j + 1}" for j in range(len(steps))}
        swaps = []
        for step, k in zip(cell.steps, order, strict=True):
            inputs = tuple(names.get(name, name) for name in steps[k].inputs)
            if step.op == steps[k].op and set(inputs) == set(step.inputs):
                swaps.append(inputs != step.inputs)
        if len(swaps) == len(steps) and not any(
            swap and not REGISTERED[step.op].symmetric
            for swap, step in zip(swaps, cell.steps, strict=True)
        ):
            break
    else:
        raise AssertionError(f"{cell.steps} and {steps} are no rewriting of each other")
    state = {k: v for k, v in net.state_dict().items() if ".steps." not in k}
    for j, (k, swap) in enumerate(zip(order, swaps, strict=True)):
        for name, value in net.cells[0].steps[j].state_dict().items():
            if swap and name == "conv.weight":
                value = value.roll(C, dims=1)
            state[f"cells.0.steps.{k}.{name}"] = value
    weight = "cells.0.output.reduce.conv.weight"
    blocks = state[weight].split(C, dim=1)
    state[weight] = torch.cat([blocks[order.index(k)] for k in range(len(steps))], dim=1)
    other.load_state_dict(state)
    return other


def test_the_space_of_digits_has_1950_architectures_in_canonical_form():
    space = architectures(FEATURES)
    assert len(space) == len(set(space)) == 30 * 65
    assert all(genotype.canonical() == genotype for genotype in space)
    assert len(architectures(FEATURES[:4], M=1)) == 12 * 5


def test_what_counts_once_computes_the_same_function():
    """All 192 ways to write two steps: each equals its canonical form, weights moved over."""
    torch.manual_seed(0)
    features = {"A": torch.randn(5, 3, 4), "B": torch.randn(5, 6, 4)}
    seen = set()
    for steps in two_steps():
        genotype = Genotype(("A", "B"), (CellGenotype(("A", "B"), steps),))
        net = FusionNetwork(genotype, {"A": 3, "B": 6}, 7, C=8, L=4).eval()
        canonical = genotype.canonical().cells[0].steps
        other = same_function(net, canonical).eval()
        torch.testing.assert_close(net(features), other(features), rtol=1e-5, atol=1e-5)
        seen.add(canonical)
    assert len(seen) == 65


def test_x_and_y_swapped_throughout_is_another_architecture():
    """X alone is added to the output, so that swapping it with Y is no mere relabelling."""
    step = StepGenotype("concat_fc", ("X", "Y"))
    one, other = (
        Genotype(("A", "B"), (CellGenotype(pair, (step, step)),))
        for pair in (("A", "B"), ("B", "A"))
    )
    assert one.canonical() != other.canonical()
    assert {g.cells[0].inputs for g in architectures(("A", "B"))} == {("A", "B"), ("B", "A")}


def test_a_build_trains_every_architecture_with_every_seed(small_task, small_table):
    benchmark = TabularBenchmark(path=small_table)
    space = set(architectures(small_task.features, M=1))
    assert len(benchmark) == len(space) == 60 and set(benchmark.table["genotype"]) == space
    assert len(benchmark.runs) == 120 and set(benchmark.runs["seed"]) == {0, 1}
    assert benchmark.table["test"].is_monotonic_decreasing and (benchmark.table["runs"] == 2).all()
    row = benchmark.runs.sample(1, random_state=5).iloc[0]
    genotype = Genotype.from_json(row["genotype"])
    config, how = TrainConfig(data="train"), {"device": "cpu", "progress": False}
    net, history = train(genotype, small_task, config, seed=int(row["seed"]), **how)
    curve = [record["validation_score"] for record in history]
    assert cosine_ends(small_task.config) == (1, 2) and list(row["curve"]) == pytest.approx(curve)
    for split in ("validation", "test"):
        assert evaluate(net, small_task, split) == pytest.approx(row[split])


def test_a_stopped_build_goes_on_where_it_was(small_task, small_table, tmp_path, monkeypatch):
    path, trained, real = tmp_path / "t.parquet", [], tabular.build_ensemble

    def is_interactive(genotypes, *args):
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append(len(genotypes))
        return real(genotypes, *args)

    monkeypatch.setattr(tabular, "build_ensemble", is_interactive)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        build(small_task, path, (0, 1), device="cpu")
    assert len(TabularBenchmark(path=path).runs) == sum(trained) < 120
    stop = None
    build(small_task, path, (0, 1), device="cpu")
    assert sum(trained) == 120
    wanted = ["genotype", "seed", "validation", "test", "parameters"]
    assert (
        TabularBenchmark(path=path)
        .runs[wanted]
        .equals(TabularBenchmark(path=small_table).runs[wanted])
    )


def test_seeds_trained_at_once_fill_the_same_table(small_task, small_table, tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(small_table.read_bytes())
    build(small_task, path, range(5), device="cpu", together=2)
    benchmark, before = TabularBenchmark(path=path), TabularBenchmark(path=small_table).runs
    assert (benchmark.table["runs"] == 5).all() and set(benchmark.runs["device"]) == {"cpu"}
    assert benchmark.runs.iloc[:120].drop(columns="curve").equals(before.drop(columns="curve"))
    means = benchmark.runs.groupby("seed")["validation"].mean()
    assert means.max() - means.min() < 0.15


def test_more_seeds_can_go_to_those_that_lead(small_task, small_table, tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(small_table.read_bytes())
    before = TabularBenchmark(path=path).table
    leaders = {g for split in ("validation", "test") for g in before.nlargest(5, split)["genotype"]}
    build(small_task, path, (0, 1, 2), device="cpu", top=5)
    table = TabularBenchmark(path=path).table
    assert set(table["genotype"][table["runs"] == 3]) == leaders
    assert (table["runs"] >= 2).all()


def test_a_build_never_mixes_two_recipes(small_task, small_table):
    before = small_table.read_bytes()
    with pytest.raises(BenchmarkError, match="another task, recipe, data or backbones"):
        build(tiny_task(settings=small_task.config, classes=4), small_table, (2,), device="cpu")
    assert small_table.read_bytes() == before


def test_ranks_scores_and_regret_agree(small_table):
    benchmark = TabularBenchmark(path=small_table)
    for split in ("validation", "test"):
        best = benchmark.best(split)
        assert benchmark.rank(best, split) == 1 and benchmark.regret(best, split) == 0
        for genotype in benchmark.table["genotype"][::7]:
            better = (benchmark.table[split] > benchmark.score(genotype, split)).sum()
            assert benchmark.rank(genotype, split) == better + 1
            assert benchmark.percentile(genotype, split) == pytest.approx(100 * (better + 1) / 60)
            assert benchmark.regret(genotype, split) == pytest.approx(
                100 * (benchmark.score(best, split) - benchmark.score(genotype, split))
            )
    pairs = benchmark.runs.groupby("genotype")["test"]
    expected = 100 * float(((pairs.max() - pairs.min()) ** 2 / 2).mean()) ** 0.5
    assert benchmark.noise() == pytest.approx(expected)
    assert "60 architectures, 120 networks trained" in repr(benchmark)


def test_a_trial_is_read_off_the_curve(small_table):
    benchmark = TabularBenchmark(path=small_table)
    row = benchmark.runs.iloc[17]
    genotype = Genotype.from_json(row["genotype"])
    assert benchmark.ends == (1, 2)
    for epochs, score in zip(benchmark.ends, row["curve"], strict=True):
        assert benchmark.trial(genotype, epochs, int(row["seed"])) == score
    assert benchmark.trial(genotype, 2, int(row["seed"])) == row["validation"]
    with pytest.raises(BenchmarkError, match="epochs: found 3; allowed: 1, 2"):
        benchmark.trial(genotype, 3, 0)
    with pytest.raises(BenchmarkError, match="seed 9, 2 epochs: found no score"):
        benchmark.trial(genotype, 2, 9)


def test_a_genotype_is_found_however_it_is_listed():
    benchmark = TabularBenchmark("digits", "sum")
    steps = StepGenotype("sum", ("Y", "X")), StepGenotype("concat_fc", ("S1", "X"))
    listed = Genotype(FEATURES, (CellGenotype(("Image_3", "Audio_3"), steps),))
    assert listed.canonical() != listed
    assert benchmark.rank(listed) == benchmark.rank(listed.canonical())


@pytest.mark.parametrize(
    "genotype",
    [
        Genotype(("A", "B"), (CellGenotype(("A", "B"), (StepGenotype("sum", ("X", "Y")),)),)),
        Genotype(
            FEATURES,
            (CellGenotype(("Image_3", "Audio_3"), (StepGenotype("sum", ("X", "Y")),)),) * 2,
        ),
        "sum",
    ],
)
def test_what_is_not_in_the_table_is_refused(genotype):
    with pytest.raises(BenchmarkError, match="allowed: (a Genotype|the 1,950 architectures)"):
        TabularBenchmark("digits", "sum").rank(genotype)


def test_a_table_that_is_none_is_refused(tmp_path, small_table):
    with pytest.raises(BenchmarkError, match="benchmark_product.parquet: found no table"):
        TabularBenchmark("digits", "product")
    path = tmp_path / "t.parquet"
    path.write_bytes(small_table.read_bytes()[:400])
    with pytest.raises(BenchmarkError, match="t.parquet: found no table"):
        TabularBenchmark(path=path)
    with pytest.raises(BenchmarkError, match="split: found 'train'"):
        TabularBenchmark(path=small_table).rank(TabularBenchmark(path=small_table).best(), "train")


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_random_handful_trained_again_is_as_the_table_says(rule):
    """One of the table's seeds and a new one: to within four standard deviations of a seed.

    Those are the architecture's own, or the table's where that is more. A seed of the table is no
    exception: rounding on another machine, or alone instead of in a stack, grows.
    """
    benchmark, task = TabularBenchmark("digits", rule), load_task("digits", rule=rule)
    random = generator(0, "handful", rule)
    rows = torch.randperm(len(benchmark), generator=random)[:4].tolist()
    config = TrainConfig.from_dict(benchmark.recipe["config"])
    for genotype in benchmark.table["genotype"].iloc[rows]:
        runs = benchmark.runs[benchmark.runs["genotype"] == genotype.to_json()]
        for seed in (int(runs["seed"].iloc[0]), 1000):
            net, _ = train(genotype, task, config, seed=seed, device="cpu", progress=False)
            for split in ("validation", "test"):
                spread = max(100 * runs[split].std(), benchmark.noise(split))
                found = 100 * evaluate(net, task, split)
                assert found == pytest.approx(
                    100 * benchmark.score(genotype, split), abs=4 * spread
                )


@pytest.mark.parametrize("rule", RULES)
def test_the_tables_are_whole(rule):
    benchmark = TabularBenchmark("digits", rule)
    assert set(benchmark.table["genotype"]) == set(architectures(FEATURES))
    assert (benchmark.table["runs"] >= 6).all() and not benchmark.runs.isna().any(axis=None)
    assert not benchmark.runs.duplicated(["genotype", "seed"]).any()
    task = load_task("digits", rule=rule)
    assert (
        benchmark.recipe["config"] == TrainConfig(data="train").with_defaults(task.config).to_dict()
    )
