"""Selection: how a search ends with one genotype."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task

from bmnas_core import (
    ConfigError,
    Genotype,
    Hypernet,
    Search,
    SearchConfig,
    SearchError,
    Selection,
    SelectionError,
    derive,
    register_selection,
)
from bmnas_core.architecture import ArchitectureWeights
from bmnas_core.config import SearchSettings
from bmnas_core.selection import SELECTIONS

OPERATIONS = ("sum", "attention", "linear_glu")
FEATURES = ("A_1", "A_2", "B_1")


def weights(relaxation="pair", N=2, M=2, scale=3.0, seed=0) -> ArchitectureWeights:
    torch.manual_seed(seed)
    net = Hypernet(
        dict.fromkeys(FEATURES, 2), 3, C=4, L=2, N=N, M=M,
        operations=OPERATIONS, relaxation=relaxation,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.architecture_parameters():
            parameter.normal_(std=scale)
    return ArchitectureWeights.from_hypernet(net, OPERATIONS, relaxation)


def with_alpha(given_weights, *cells):
    """Weights whose α makes each Cell prefer ``(X, Y)`` of ``cells``, given by index."""
    alpha = np.zeros_like(given_weights.alpha)
    start = 0
    for i, (x, y) in enumerate(cells):
        alpha[start + x, 0] = alpha[start + y, 1] = 5
        start += len(FEATURES) + i
    return replace(given_weights, alpha=alpha)


@settings(max_examples=40)
@given(
    st.sampled_from(["paper", "pair"]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0.001, 10),
    st.integers(0, 99),
)
def test_argmax_always_gives_a_legal_genotype_whose_cells_take_different_pairs(
    relaxation, N, M, scale, seed
):
    genotype = derive(weights(relaxation, N, M, scale, seed), "argmax")
    assert Genotype.from_json(genotype.to_json()) == genotype
    pairs = [frozenset(cell.inputs) for cell in genotype.cells]
    assert len(set(pairs)) == len(pairs)


def test_argmax_takes_the_heaviest_pair_operation_and_inputs():
    genotype = derive(with_alpha(weights(), (2, 0), (3, 1)), "argmax")
    assert [cell.inputs for cell in genotype.cells] == [("B_1", "A_1"), ("C1", "A_2")]
    found = weights()
    for i, cell in enumerate(derive(found, "argmax").cells):
        for j, step in enumerate(cell.steps):
            assert step.op == OPERATIONS[found.gamma[i][j].argmax()]
            names, x, y = found.step_edges(i, j)
            product = x[names.index(step.inputs[0])] * y[names.index(step.inputs[1])]
            off = [x[a] * y[b] for a in range(len(names)) for b in range(len(names)) if a != b]
            assert product == max(off)


def test_a_pair_that_is_taken_is_passed_over_in_either_order():
    genotype = derive(with_alpha(weights(), (2, 0), (0, 2)), "argmax")
    assert genotype.cells[0].inputs == ("B_1", "A_1")
    assert set(genotype.cells[1].inputs) != {"B_1", "A_1"}


def test_the_released_rule_takes_raw_features_and_asks_for_a_new_one():
    genotype = derive(with_alpha(weights(), (2, 0), (3, 1)), "released")
    assert genotype.cells[0].inputs == ("B_1", "A_1")
    assert "C1" not in genotype.cells[1].inputs and "A_2" in genotype.cells[1].inputs


def test_the_released_rule_says_when_features_run_out():
    with pytest.raises(SelectionError, match=r"cells\[0\]: no pair of inputs: found 3 features"):
        derive(with_alpha(weights(N=3), (2, 0), (0, 1), (1, 2)), "released")


def test_two_features_are_enough_for_any_number_of_cells():
    net = Hypernet({"A": 2, "B": 2}, 3, C=4, L=2, N=4, M=1)
    genotype = derive(ArchitectureWeights.from_hypernet(net, ("sum",) * 4, "pair"))
    assert len({frozenset(cell.inputs) for cell in genotype.cells}) == 4


def test_a_snapshot_does_not_follow_the_hypernet():
    net = Hypernet(dict.fromkeys(FEATURES, 2), 3, C=4, L=2, N=1, M=1)
    before = ArchitectureWeights.from_hypernet(net, ("sum",) * 4, "paper")
    kept = before.alpha.copy()
    with torch.no_grad():
        net.alpha.add_(1)
    assert np.array_equal(before.alpha, kept)


def test_edge_weights_are_probabilities():
    found = weights()
    for x in found.cell_edges(1)[1:]:
        assert x.sum() == pytest.approx(1)
    assert found.cell_edges(1)[0] == ("A_1", "A_2", "B_1", "C1")
    assert found.step_edges(0, 1)[0] == ("X", "Y", "S1")
    assert found.operation_weights(0).sum(1) == pytest.approx(1)


def test_an_unknown_rule_is_refused_with_the_nearest_one():
    expected = r"selection: found 'argmx' \(did you mean 'argmax'\?\); allowed: argmax, released, "
    with pytest.raises(SelectionError, match=expected):
        derive(weights(), "argmx")
    with pytest.raises(ConfigError, match="SearchConfig.selection: found 'argmx'"):
        SearchConfig(selection="argmx")


# --- rules of one's own

FIXED = [("Audio_2", "Image_1"), ("C1", "Audio_1")]


def fixed_function(weights):
    """A rule that is a function of α, β and γ."""
    return derive(weights, "argmax").with_inputs(FIXED)


class FixedSelection(Selection):
    """A rule that reads the search."""

    def run(self):
        genotype = self.search.state.genotype.with_inputs(FIXED)
        yield genotype, self.search.score_of(genotype)


def inputs_of(genotype):
    return [cell.inputs for cell in genotype.cells]


CONFIGURATIONS = {
    "the task's": {},
    "epoch schedule": {"schedule": "epoch"},
    "paper relaxation": {"relaxation": "paper"},
    "edge relaxation": {"relaxation": "edge"},
    "single paths": {"sampling": "single_path"},
    "second order": {"order": "second"},
    "warm-up": {"warmup": 1},
    "annealed Gumbel": {"temperature": (1.0, 0.1), "gumbel": True},
    "partial channels": {"partial": 2},
    "rungs": {"rungs": ((4, 1), (2, 2))},
}


@pytest.mark.parametrize("ending", ["argmax", "perturbation", "successive_halving"])
@pytest.mark.parametrize("rule", [fixed_function, FixedSelection])
@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.slow
def test_a_registered_rule_decides_the_genotype_under_every_configuration(config, rule, ending):
    task = replace(tiny_task(), search_config=SearchSettings(selection=ending))
    with SELECTIONS.restored():
        register_selection("mine")(rule)
        search = Search(task, SearchConfig(selection="mine", **config), device="cpu")
        genotypes = [state.genotype for state in search]
    assert inputs_of(search.best_genotype) == inputs_of(genotypes[-1]) == FIXED
    assert (inputs_of(genotypes[-2]) == FIXED) == (rule is fixed_function)


@pytest.mark.parametrize("rule", [fixed_function, FixedSelection])
def test_a_task_may_name_a_registered_rule(rule):
    with SELECTIONS.restored():
        register_selection("mine")(rule)
        task = replace(tiny_task(), search_config=SearchSettings(selection="mine"))
        search = Search(task, device="cpu")
        list(search)
    assert inputs_of(search.best_genotype) == FIXED


def test_a_rule_reads_the_weights_the_bank_and_the_scores_of_its_search():
    seen = {}

    class Reading(Selection):
        def run(self):
            search = self.search
            seen["weights"] = search.state.weights
            seen["samples"] = search.bank.size("validation")
            seen["scores"] = search.scores_with_inputs([[FIXED[0]], [("Image_2", "Audio_1")]])
            yield derive(seen["weights"]), max(seen["scores"])

    with SELECTIONS.restored():
        register_selection("reading")(Reading)
        search = Search(tiny_task(), SearchConfig(selection="reading"), device="cpu")
        list(search)
    assert np.array_equal(seen["weights"].alpha, search.hypernet.alpha.detach())
    assert seen["samples"] == 24 and len(seen["scores"]) == 2
    assert search.best_score == max(seen["scores"])


@pytest.mark.parametrize("selection", ["perturbation", "successive_halving"])
def test_what_evaluates_on_validation_is_previewed_as_argmax(selection):
    assert derive(weights(), selection) == derive(weights(), "argmax")


@pytest.mark.parametrize(
    "rule", [3, lambda: None, Selection, type("Empty", (Selection,), {}), dict]
)
def test_what_is_no_rule_is_refused_when_it_is_registered(rule):
    with pytest.raises(SelectionError, match="selection 'mine': found .*; allowed: a function of "):
        register_selection("mine")(rule)
    assert "mine" not in SELECTIONS


def selected_by(rule, **config):
    with SELECTIONS.restored():
        register_selection("mine")(rule)
        search = Search(tiny_task(), SearchConfig(selection="mine", **config), device="cpu")
        states = list(search)
    return search, states


OTHER = tiny_task(channels=(5,))


@pytest.mark.parametrize(
    "found",
    [None, "text", {}, iter(()), derive(weights()), Search(OTHER, device="cpu").state.genotype],
)
def test_a_function_that_gives_no_genotype_of_the_space_is_refused(found):
    with pytest.raises(
        SelectionError, match="selection 'mine': found .*; allowed: a Genotype of 2"
    ):
        selected_by(lambda weights: found)


GENOTYPE = Search(tiny_task(), device="cpu").state.genotype


@pytest.mark.parametrize(
    ("yielded", "message"),
    [
        ([], "found None; allowed: \\(genotype, score\\)"),
        ([GENOTYPE], "found Genotype.*; allowed: \\(genotype, score\\)"),
        ([(0.5, GENOTYPE)], "found .*; allowed: \\(genotype, score\\)"),
        ([(GENOTYPE, None)], "found .*; allowed: \\(genotype, score\\)"),
        ([(GENOTYPE, float("nan"))], "found score nan; allowed: finite"),
        ([(derive(weights()), 0.5)], "found .*; allowed: a Genotype of 2 Cells on Image_1"),
        ([(GENOTYPE, 0.1), (GENOTYPE, 0.9)], "found more than 1 steps"),
    ],
)
def test_a_selection_that_yields_something_else_is_refused_in_one_line(yielded, message):
    class Mine(Selection):
        def run(self):
            yield from yielded

    with pytest.raises((SelectionError, SearchError), match=f"selection 'mine': {message}"):
        selected_by(Mine)


def test_a_selection_whose_run_yields_nothing_at_all_is_refused():
    mine = type("Mine", (Selection,), {"run": lambda self: None})
    with pytest.raises(SelectionError, match="selection 'mine': run: found NoneType; allowed: a g"):
        selected_by(mine)


@pytest.mark.parametrize("steps", [0, -3, None, "3"])
def test_a_selection_has_at_least_one_step(steps):
    mine = type("Mine", (FixedSelection,), {"steps": steps})
    with pytest.raises(
        SelectionError, match="selection 'mine': steps: found .*; allowed: an integer"
    ):
        selected_by(mine)


@pytest.mark.slow
def test_a_selection_that_draws_random_numbers_follows_the_seed_and_resumes(tmp_path):
    class Random(Selection):
        steps = 3

        def run(self):
            for _ in range(3):
                assert not self.search.hypernet.training
                yield GENOTYPE, float(torch.rand(()))

    scores = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        search, states = selected_by(Random)
        scores.append([state.val_score for state in states[-3:]])
    assert scores[0] == scores[1] and len(set(scores[0])) == 3
    with SELECTIONS.restored():
        register_selection("mine")(Random)
        broken = Search(tiny_task(), SearchConfig(selection="mine"), device="cpu")
        for _ in range(broken.updates + 1):
            next(broken)
        broken.save(tmp_path / "s")
        resumed = Search.resume(tmp_path / "s", tiny_task(), device="cpu")
        assert [state.val_score for state in resumed] == scores[0][1:]


@pytest.mark.parametrize("what", [None, 3, "state"])
def test_only_weights_are_derived_from(what):
    with pytest.raises(SelectionError, match="weights: found .*; allowed: ArchitectureWeights"):
        derive(what)
