"""Rivals: the same features, recipe and seed for each, and one test."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task

from bmnas_core import FeatureBank, Genotype, GenotypeError, TrainConfig, count_parameters
from bmnas_core.baselines import RIVALS, RivalError, compare, register_rival
from bmnas_core.baselines.architectures import fixed_genotype, random_genotype
from bmnas_core.baselines.streams import LateFusion, LinearFusion, last_features

QUICK = {"config": TrainConfig(epochs=1), "device": "cpu", "progress": False}


def test_the_table_has_every_rival_with_score_size_and_cost():
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


def test_rivals_train_on_train_and_validation_and_test_once(monkeypatch):
    read, batch = [], FeatureBank.batch

    def watched(self, split, rows):
        read.append(split)
        return batch(self, split, rows)

    monkeypatch.setattr(FeatureBank, "batch", watched)
    compare(tiny_task(), ["fixed Cells"], **QUICK)
    assert set(read) == {"train+validation", "test"}
    assert read.count("test") == 2


def test_more_than_two_modalities():
    task = tiny_task(("Image", "Audio", "Text"), channels=(3,))
    table = compare(task, **QUICK)
    assert {"Image alone", "Audio alone", "Text alone"} <= set(table)
    cells = fixed_genotype(task, "Sum").cells
    assert [cell.inputs for cell in cells] == [("Image_1", "Audio_1"), ("C1", "Text_1")]


def test_late_fusion_is_the_mean_of_logits():
    streams = [LinearFusion({name: 2}, 3, 4).eval() for name in ("A", "B")]
    features = {name: torch.randn(5, 2, 4) for name in ("A", "B")}
    expected = sum(stream(features) for stream in streams) / 2
    torch.testing.assert_close(LateFusion(streams)(features), expected)
    assert count_parameters(LateFusion(streams)) == 2 * count_parameters(streams[0])


def test_late_fusion_of_a_multi_label_task_is_about_as_good_as_its_streams():
    config = TrainConfig(epochs=8)
    names = ["single modalities", "late fusion"]
    table = compare(tiny_task(metric="weighted_f1"), names, config=config, device="cpu")
    worst = min(table["Image alone"]["test"], table["Audio alone"]["test"])
    assert table["late fusion, averaged"]["test"] > worst - 0.1


def test_single_streams_read_the_last_feature_alone():
    assert last_features(tiny_task()) == [{"Image_2": 6}, {"Audio_2": 6}]


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_random_genotypes_are_legal_and_their_cells_take_different_pairs(features, N, M, seed):
    random = torch.Generator().manual_seed(seed)
    genotype = random_genotype(tuple(f"A_{i}" for i in range(features)), N, M, random)
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert len({frozenset(cell.inputs) for cell in genotype.cells}) == N
    assert {len(cell.steps) for cell in genotype.cells} == {M}


def test_a_rival_of_ones_own_is_one_function():
    @register_rival("guess")
    def guess(contest):
        yield "guess", [contest.train(fixed_genotype(contest.task, "LinearGLU"))]

    try:
        assert list(compare(tiny_task(), ["guess"], **QUICK)) == ["guess"]
    finally:
        del RIVALS["guess"]


def test_unknown_rivals_and_motifs_are_refused():
    with pytest.raises(RivalError, match="found 'MFAS'; allowed: single modalities, late fusion"):
        compare(tiny_task(), ["MFAS"])
    with pytest.raises(GenotypeError, match="motif: found 'Product'; allowed: 'Sum', 'ConcatFC'"):
        fixed_genotype(tiny_task(), "Product")
    with pytest.raises(GenotypeError, match="features"):
        random_genotype(("A",), 1, 1, torch.Generator())
