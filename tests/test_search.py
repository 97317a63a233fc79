"""Search: reproducible to the bit, resumable, blind to test data."""

import math
import sys
from collections import Counter
from dataclasses import fields, replace
from itertools import permutations
from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import f1_score
from tiny import SETTINGS, SIZES, recording_bank, tiny_task

from bmnas_core import (
    ConfigError,
    DeviceError,
    FusionNetwork,
    MixedCell,
    Search,
    SearchConfig,
    SearchError,
    Task,
    TrainConfig,
    load_task,
    selection,
    train,
)
from bmnas_core.architecture import genotype_probability, most_probable, sample_candidates
from bmnas_core.cells import RELAXATIONS, Temperature
from bmnas_core.config import SearchSettings
from bmnas_core.runtime import generator
from bmnas_core.selection import derive


def run(search) -> list:
    return list(search)


def same(a, b) -> bool:
    """Whether two states are equal to the bit."""
    arrays = [(a.alpha, b.alpha), *zip(a.beta, b.beta, strict=True)]
    arrays += zip(a.gamma, b.gamma, strict=True)
    numbers = ("step", "epoch", "phase", "lr", "train_loss", "val_loss", "val_score", "genotype")
    return all(np.array_equal(x, y) for x, y in arrays) and all(
        getattr(a, n) == getattr(b, n) for n in numbers
    )


@pytest.mark.parametrize("relaxation", ["paper", "pair"])
@pytest.mark.parametrize("schedule", ["batch", "epoch"])
def test_the_same_seed_gives_the_same_search_to_the_bit(relaxation, schedule):
    config = SearchConfig(relaxation=relaxation, schedule=schedule)
    one = run(Search(tiny_task(), config, seed=3, device="cpu"))
    torch.manual_seed(99)
    other = run(Search(tiny_task(), config, seed=3, device="cpu"))
    assert all(same(a, b) for a, b in zip(one, other, strict=True))
    third = run(Search(tiny_task(), config, seed=4, device="cpu"))
    assert not np.array_equal(one[-1].alpha, third[-1].alpha)


def test_two_searches_side_by_side_do_not_disturb_each_other():
    alone = run(Search(tiny_task(), seed=0, device="cpu"))
    pair = [Search(tiny_task(), seed=s, device="cpu") for s in (0, 1)]
    together = [(next(pair[0]), next(pair[1]))[0] for _ in range(len(pair[0]))]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_two_searches_in_two_threads_give_the_same_as_alone():
    config = SearchConfig(dropout=0.5, epochs=6)
    alone = [run(Search(tiny_task(), config, seed=s, device="cpu")) for s in (0, 1)]
    tasks, together, start = [tiny_task(), tiny_task()], [None, None], Barrier(2)

    def search(seed):
        start.wait()
        together[seed] = run(Search(tasks[seed], config, seed=seed, device="cpu"))

    threads = [Thread(target=search, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_the_state_of_a_search_is_where_it_stands():
    search = Search(tiny_task(), device="cpu")
    start = search.state
    assert (start.step, start.epoch, start.phase, start.lr) == (0, 0, "start", SETTINGS.max_lr)
    assert np.array_equal(start.alpha, search.hypernet.alpha.detach())
    before = start.alpha.copy()
    for given in search:
        stands = search.state
        assert (stands.step, stands.epoch, stands.lr) == (given.step, given.epoch, given.lr)
        assert (stands.phase, stands.train_loss, stands.val_loss) == ("start", None, None)
        assert stands.val_score is None and stands.genotype == given.genotype
        for kind in ("beta", "gamma"):
            assert all(map(np.array_equal, getattr(stands, kind), getattr(given, kind)))
        assert np.array_equal(stands.alpha, given.alpha)
    assert np.array_equal(start.alpha, before) and not np.array_equal(stands.alpha, before)


@pytest.mark.parametrize("schedule", ["batch", "epoch"])
def test_asking_for_the_state_does_not_change_the_search(schedule):
    config = SearchConfig(schedule=schedule)
    alone = run(Search(tiny_task(), config, seed=1, device="cpu"))
    search, asked = Search(tiny_task(), config, seed=1, device="cpu"), []
    while len(search):
        assert search.state.step == len(asked)
        asked.append(next(search))
    assert all(same(a, b) for a, b in zip(alone, asked, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["batch", "epoch"])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_search_equals_an_unbroken_one_to_the_bit(tmp_path, schedule, stop):
    config = SearchConfig(schedule=schedule, epochs=3)
    whole = Search(tiny_task(), config, seed=1, device="cpu")
    states = run(whole)
    broken = Search(tiny_task(), config, seed=1, device="cpu")
    for _ in range(stop):
        next(broken)
    broken.save(tmp_path / "search.safetensors")
    resumed = Search.resume(tmp_path / "search.safetensors", tiny_task(), device="cpu")
    assert (resumed.step, len(resumed)) == (stop, len(states) - stop)
    assert all(same(a, b) for a, b in zip(states[stop:], run(resumed), strict=True))
    assert resumed.best_genotype == whole.best_genotype
    assert resumed.best_score == whole.best_score
    for key, value in whole.hypernet.state_dict().items():
        assert torch.equal(value, resumed.hypernet.state_dict()[key]), key


HALVING = {"selection": "successive_halving", "rungs": ((4, 1), (2, 2)), "tie_margin": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": (1.0, 0.01)}, {"tuning_epochs": 2}], ids=str
)
@pytest.mark.parametrize("stop", [5, 6, 7, 8, 9, 11, 12, 13, 14])
def test_a_search_resumed_in_its_final_selection_equals_an_unbroken_one(
    tmp_path, stop, settings, monkeypatch
):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    config = SearchConfig(**HALVING, **settings)
    whole = Search(tiny_task(), config, seed=1, device="cpu")
    states = run(whole)
    assert [s.phase for s in states] == ["both"] * 6 + ["selection"] * 8
    broken = Search(tiny_task(), config, seed=1, device="cpu")
    for _ in range(stop):
        next(broken)
    broken.save(tmp_path / "search.safetensors")
    resumed = Search.resume(tmp_path / "search.safetensors", tiny_task(), device="cpu")
    assert resumed.state.genotype == states[stop - 1].genotype
    assert all(same(a, b) for a, b in zip(states[stop:], run(resumed), strict=True))
    assert resumed.best_genotype == whole.best_genotype == states[-1].genotype
    assert resumed.best_score == whole.best_score == states[-1].val_score


def pair_odds(search, score, best):
    n = len(search.task.split("validation"))
    p = (best * n + 1) / (n + 2)
    return np.exp((score - best) / (p * (1 - p) / (n + 2)) ** 0.5)


def perturbation_of(search):
    """Pairs Cell by Cell, their odds and the best score, computed in the simplest way."""
    kept, odds = [], []
    hypernet, n = search.hypernet, len(search.task.split("validation"))
    for i in range(search.config.N):
        found, names = {}, [*search.task.features, *(f"C{k + 1}" for k in range(i))]
        for pair in permutations(names, 2):
            if set(pair) in map(set, kept):
                continue
            hypernet.eval()
            features, labels = search.bank.batch("validation", torch.arange(n))
            with torch.no_grad():
                states = list(hypernet.reshape(features).unbind(2))
                outs = []
                for j, cell in enumerate(hypernet.cells):
                    if j <= i:
                        nodes = dict(zip([*search.task.features, "C1", "C2"], states, strict=False))
                        outs.append(cell(*(nodes[name] for name in [*kept, pair][j])))
                    else:
                        start = sum(hypernet.edges[:j])
                        logits = hypernet.alpha[start : start + hypernet.edges[j]]
                        weights = hypernet.relaxation.weights(logits)
                        both = [[w * s for w, s in zip(k, states, strict=True)] for k in weights]
                        outs.append(cell(*map(sum, both)))
                    states.append(outs[-1])
                logits = hypernet.classifier(outs)
            found[pair] = float((logits.argmax(1) == labels).float().mean())
        best = max(found.values())
        each = {pair: pair_odds(search, score, best) for pair, score in found.items()}
        odds.append({pair: p / sum(each.values()) for pair, p in each.items()})
        kept.append(max(found, key=found.get))
    return kept, odds, best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_perturbation_fixes_one_pair_at_a_time_and_takes_the_best_on_validation(seed):
    search = Search(tiny_task(), SearchConfig(selection="perturbation"), seed=seed, device="cpu")
    states = run(search)
    assert [s.phase for s in states] == ["both"] * 6 + ["selection"] * 2
    kept, odds, best = perturbation_of(search)
    genotype = states[-1].genotype
    assert [cell.inputs for cell in genotype.cells] == kept
    assert states[-1].val_score == search.best_score == pytest.approx(best)
    assert search.best_genotype == genotype
    derived = derive(states[5].weights)
    assert [cell.steps for cell in genotype.cells] == [cell.steps for cell in derived.cells]
    assert states[6].genotype.cells[0].inputs == kept[0]
    for found, expected in zip(search.selection.odds, odds, strict=True):
        assert found == pytest.approx(expected)


def test_once_a_cell_has_its_pair_a_copy_of_the_hypernet_learns_what_the_next_one_adds():
    untuned, search = (
        Search(tiny_task(), SearchConfig(selection="perturbation", tuning_epochs=k), device="cpu")
        for k in (0, 2)
    )
    for one in (untuned, search):
        run(one)
    kept = search.hypernet.state_dict()
    assert all(torch.equal(value, kept[k]) for k, value in untuned.hypernet.state_dict().items())
    assert untuned.selection.hypernet is untuned.hypernet
    tuned, searched = search.selection.hypernet, {"alpha", "beta", "gamma"}
    same = {k.split(".")[-1] for k, v in tuned.state_dict().items() if torch.equal(v, kept[k])}
    assert searched <= same and not {"weight", "bias", "running_mean"} & same
    first, second = (cell.inputs for cell in search.best_genotype.cells)
    assert first == untuned.best_genotype.cells[0].inputs
    assert search.selection.odds[0] == untuned.selection.odds[0]
    pairs = [[first, pair] for pair in search.selection.odds[1]]
    read = search.scores_with_inputs(pairs, hypernet=tuned)
    assert max(read) == search.best_score == read[pairs.index([first, second])]
    assert search.selection.odds[1] != untuned.selection.odds[1]


@pytest.mark.nightly
@pytest.mark.slow
def test_a_tuned_hypernet_knows_that_the_second_cell_needs_the_voice():
    voices, task = {"Audio_1", "Audio_2", "Audio_3"}, load_task("digits", rule="voice")
    odds = {}
    for epochs in (0, task.search_config.tuning_epochs):
        config = SearchConfig(selection="perturbation", tuning_epochs=epochs)
        search = Search(task, config, seed=6, device="cpu")
        run(search)
        of_second = search.selection.odds[1].items()
        odds[epochs > 0] = sum(p for pair, p in of_second if voices & set(pair))
    assert odds[False] < 0.8 < 0.9 < odds[True]


def test_a_search_by_single_paths_has_no_mixture_to_tune():
    config = SearchConfig(**PATHS, selection="perturbation", tuning_epochs=2)
    search = Search(tiny_task(), config, device="cpu")
    run(search)
    assert search.selection.hypernet is search.hypernet


def test_perturbation_with_single_paths_scores_the_derived_architecture_with_other_pairs():
    search = Search(tiny_task(), SearchConfig(**PATHS, selection="perturbation"), device="cpu")
    states = run(search)
    derived, selected = derive(states[-1].weights), states[-1].genotype
    for i in range(search.config.N):
        kept = [cell.inputs for cell in selected.cells[:i]]
        scores = {
            pair: search.score_of(derived.with_inputs([*kept, pair]))
            for pair in search.selection.odds[i]
        }
        assert scores[selected.cells[i].inputs] == max(scores.values())


def as_on_a_gpu(config: SearchConfig) -> Search:
    """A search that reads its numbers as on a device for which every read has to wait."""
    search = Search(tiny_task(), config, device="cpu")
    search._waits = True
    return search


def test_a_step_reads_no_number_from_a_gpu_and_states_read_theirs_when_asked(monkeypatch):
    config = SearchConfig(selection="argmax")
    usual, search = run(Search(tiny_task(), config, device="cpu")), as_on_a_gpu(config)
    with monkeypatch.context() as patch:
        for name in ("__float__", "__bool__", "item", "cpu", "numpy", "tolist"):
            patch.setattr(torch.Tensor, name, None)
        states = [next(search) for _ in range(search.steps_per_epoch - 1)]
    states += run(search)
    assert len(states) == len(usual) and all(map(same, states, usual))


def test_on_a_gpu_a_loss_that_is_not_finite_ends_the_search_at_the_end_of_its_epoch():
    search = as_on_a_gpu(SearchConfig(selection="argmax"))
    next(search)
    with torch.no_grad():
        search.weights[0].fill_(math.nan)
    steps = search.steps_per_epoch
    assert steps == 3
    for _ in range(steps - 2):
        next(search)
    with pytest.raises(SearchError, match="train loss at step 2: found nan; not finite"):
        next(search)


@pytest.mark.parametrize("behind", [0, 0.5, 1])
def test_perturbation_reads_all_of_validation_only_for_pairs_that_pass_the_screening(
    behind, monkeypatch
):
    monkeypatch.setattr(selection, "SCREENING_SAMPLES", 8)
    monkeypatch.setattr(selection, "SCREENING_MARGIN", behind)
    task = tiny_task(settings=replace(SETTINGS, epochs=8, N=1, M=1))
    task.modalities[0].inputs.zero_()
    search = Search(task, SearchConfig(selection="perturbation"), seed=1, device="cpu")
    asked, outputs_with_inputs = [], search.outputs_with_inputs

    def counted(pairs, rows=None, hypernet=None):
        asked.append((pairs, rows))
        return outputs_with_inputs(pairs, rows, hypernet)

    monkeypatch.setattr(search, "outputs_with_inputs", counted)
    run(search)
    (pairs, rows), (near, others) = asked
    monkeypatch.undo()
    items = search.bank.size("validation")
    assert len(rows) == 8 and sorted(torch.cat([rows, others]).tolist()) == list(range(items))
    screened, read = search.scores_with_inputs(pairs, rows), search.scores_with_inputs(near)
    assert len(pairs) == len(set(map(str, pairs)))
    best = max(screened)
    p = (8 * best + 1) / 10
    enough = best - behind * (p * (1 - p) / 10) ** 0.5
    assert near == [pair for pair, score in zip(pairs, screened, strict=True) if score >= enough]
    assert 0 < len(near) < len(pairs)
    assert [search.best_genotype.cells[0].inputs] == near[read.index(max(read))]
    assert search.best_score == max(read)
    (odds,) = search.selection.odds
    for [pair] in pairs:
        score = read[near.index([pair])] if [pair] in near else screened[pairs.index([pair])]
        exact = pair_odds(search, min(score, max(read)), max(read))
        assert odds[pair] / max(odds.values()) <= exact + 1e-9


def test_perturbation_finds_the_informative_modality_even_if_alpha_has_learned_nothing():
    task = tiny_task(settings=replace(SETTINGS, epochs=8, N=1, M=1))
    task.modalities[0].inputs.zero_()
    config = SearchConfig(selection="perturbation", arch_lr=1e-9)
    for seed in range(3):
        search = Search(task, config, seed=seed, device="cpu")
        run(search)
        assert any(name.startswith("Audio") for name in search.best_genotype.cells[0].inputs)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("margin", [0.0, 1.0, 2.0, 100.0])
def test_successive_halving_trains_sampled_candidates_and_selects_by_score_and_probability(
    margin, limit, monkeypatch
):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", limit)
    task = tiny_task()
    config = SearchConfig(selection="successive_halving", rungs=((5, 1), (3, 2)), tie_margin=margin)
    search = Search(task, config, seed=4, device="cpu")
    states = run(search)
    first, weights, odds = states[7].genotype, states[5].weights, search.selection.odds
    sampled = sample_candidates(weights, odds, 5, generator(4, "candidates"))
    probability = {first.canonical(): genotype_probability(weights, odds, first)} | sampled
    candidates, scores = list(probability)[:5], {}
    for genotype in candidates:
        records = []
        train(
            genotype, task, TrainConfig(data="train"), seed=4, progress=False, device="cpu",
            on_epoch=records.append,
        )  # fmt: skip
        scores[genotype] = [record["validation_score"] for record in records]

    def variance(score):
        n = len(task.split("validation"))
        p = (score * n + 1) / (n + 2)
        return p * (1 - p) / (n + 2)

    def ordered(among, epoch, noise_ratio):
        best = max(scores[g][epoch] for g in among)
        enough = best - margin * noise_ratio * variance(best) ** 0.5
        equals = [g for g in among if scores[g][epoch] >= enough]
        others = [g for g in among if g not in equals]
        return sorted(equals, key=lambda g: (-probability[g], -scores[g][epoch])) + sorted(
            others, key=lambda g: -scores[g][epoch]
        )

    for k in range(5):
        so_far = [scores[g][0] for g in candidates[: k + 1]]
        low, high = np.quantile(so_far, [0.25, 0.75])
        noise = np.mean([variance(score) for score in so_far])
        noise_ratio = noise / max(((high - low) / 1.349) ** 2, noise)
        assert states[8 + k].genotype == ordered(candidates[: k + 1], 0, noise_ratio)[0]
    assert search.selection.noise_ratio == pytest.approx(noise_ratio) and 0 < noise_ratio <= 1
    assert len({s.weights.alpha.tobytes() for s in states[5:]}) == 1
    if noise_ratio > limit:
        assert len(states) == search.total_steps == 13 and not len(search)
        return
    left = ordered(candidates, 0, noise_ratio)[:3]
    assert len(states) == 16
    assert states[-1].genotype == search.best_genotype == ordered(left, 1, noise_ratio)[0]
    assert states[-1].val_score == search.best_score == scores[states[-1].genotype][1]


def test_successive_halving_of_equals_ends_with_its_first_rung_and_resumes_as_ended(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 0.0)
    task = tiny_task()
    search = Search(task, SearchConfig(**HALVING), device="cpu")
    most = len(search)
    states = run(search)
    assert len(states) == search.total_steps == most - 2 and not len(search)
    search.save(tmp_path / "s.safetensors")
    ended = Search.resume(tmp_path / "s.safetensors", task, device="cpu")
    assert not len(ended) and run(ended) == []
    assert ended.best_genotype == search.best_genotype


def test_a_final_selection_that_ends_earlier_when_repeated_ends_the_resumed_search(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    search = Search(tiny_task(), SearchConfig(**HALVING), device="cpu")
    for _ in range(search.updates + 2 + 4 + 1):
        found = next(search)
    search.save(tmp_path / "s.safetensors")
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 0.0)
    resumed = Search.resume(tmp_path / "s.safetensors", tiny_task(), device="cpu")
    assert len(resumed) == 1 and run(resumed) == [] and len(resumed) == 0
    assert resumed.best_genotype == found.genotype


@pytest.mark.parametrize(("warmup", "best"), [(0, 0.9), (1, 0.8), (2, 0.5), (3, 0.9)])
def test_the_best_epoch_is_one_in_which_the_architecture_learned(warmup, best, monkeypatch):
    scores = {3: 0.9, 6: 0.8, 9: 0.5}
    search = Search(tiny_task(), SearchConfig(warmup=warmup, epochs=3), device="cpu")
    monkeypatch.setattr(search, "score_of", lambda mixture: scores[search.step])
    states = {state.val_score: state for state in run(search)}
    assert search.best_score == best and search.best_genotype == states[best].genotype


def test_a_selection_that_is_not_given_is_the_tasks_and_then_successive_halving():
    assert Search(tiny_task(), device="cpu").config.selection == "argmax"
    default = next(f.default for f in fields(Task) if f.name == "search_config")
    assert default.selection == "successive_halving"
    task = replace(tiny_task(), search_config=SearchSettings(selection="successive_halving"))
    search = Search(task, device="cpu")
    assert search.config.selection == "successive_halving"
    assert search.selection.rungs == selection.RUNGS
    task = replace(task, search_config=SearchSettings(epochs=1))
    assert Search(task, device="cpu").config.selection == "successive_halving"
    task = replace(
        task, search_config=SearchSettings(selection="successive_halving", rungs=((3, 2), (1, 4)))
    )
    assert Search(task, device="cpu").selection.rungs == ((3, 2), (1, 4))
    own = SearchConfig(rungs=[(2, 1)])
    assert Search(task, own, device="cpu").selection.rungs == ((2, 1),)
    assert Search(task, SearchConfig(selection="argmax"), device="cpu").selection.steps == 0


def test_a_final_selection_reads_no_test_data_and_trains_on_train_alone(monkeypatch):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    task = tiny_task()
    bank, read = recording_bank(task)
    search = Search(task, SearchConfig(**HALVING), device="cpu", bank=bank)
    for _ in range(search.updates):
        next(search)
    read.clear()
    run(search)
    assert {split for split, _ in read} == {"train", "validation"}
    assert sum(len(rows) for split, rows in read if split == "validation") == (2 + 2) * 24


def test_fewer_candidates_than_a_rung_has_room_for_end_the_search_early(monkeypatch):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    task = tiny_task(channels=(5,), settings=replace(SETTINGS, N=1, M=1))
    config = SearchConfig(
        selection="successive_halving", rungs=((9, 1), (8, 2)), operations=("sum", "concat_fc")
    )
    search = Search(task, config, device="cpu")
    states = run(search)
    assert len(search) == 0 and len(states) == search.total_steps == search.updates + 1 + 4 + 4


@pytest.mark.parametrize("rungs", [(), ((4, 1), (5, 2)), ((4, 2), (2, 1)), ((0, 1),), ((4, 0),)])
def test_rungs_without_fewer_candidates_for_more_epochs_are_refused(rungs):
    with pytest.raises(ConfigError, match=r"SearchConfig.rungs: found .*; allowed: at least one"):
        SearchConfig(rungs=rungs)


@pytest.mark.parametrize(
    "clash",
    [
        {"sampling": "single_path", "order": "second"},
        {"sampling": "single_path", "gumbel": True},
        {"sampling": "single_path", "partial": 2},
    ],
)
def test_settings_that_do_not_go_together_are_refused(clash):
    name = list(clash)[1]
    with pytest.raises(ConfigError, match=rf"SearchConfig.{name}: found .*; allowed: .* with"):
        SearchConfig(**clash)


def test_warm_up_leaves_the_architecture_alone():
    search = Search(tiny_task(), SearchConfig(warmup=1), device="cpu")
    start = search.hypernet.alpha.detach().clone()
    states = [next(search) for _ in range(4)]
    assert [s.phase for s in states] == ["weights"] * 3 + ["both"]
    assert [s.val_loss is None for s in states] == [True] * 3 + [False]
    assert np.array_equal(states[2].alpha, start) and not np.array_equal(states[3].alpha, start)


def test_the_temperature_changes_geometrically_and_divides_the_logits():
    search = Search(tiny_task(), SearchConfig(temperature=(4.0, 0.25)), device="cpu")
    found = []
    for _ in search:
        found.append(search.hypernet.temperature.value)
    assert found == pytest.approx([4.0 * (1 / 16) ** (k / 5) for k in range(6)])
    temperature = search.hypernet.temperature
    logits = torch.tensor([1.0, 2.0])
    assert torch.equal(temperature(logits), logits / 0.25)


def test_gumbel_noise_samples_by_the_softmax_and_stops_with_training():
    temperature = Temperature()
    temperature.gumbel = True
    logits = torch.tensor([0.0, 1.0, 2.0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wins = temperature(logits.expand(20000, 3)).argmax(1).bincount(minlength=3) / 20000
    torch.testing.assert_close(wins, logits.softmax(0), atol=0.02, rtol=0)
    assert torch.equal(temperature.eval()(logits), logits)
    one, other = (
        run(Search(tiny_task(), SearchConfig(gumbel=True), seed=1, device="cpu")) for _ in range(2)
    )
    assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_partial_channels_pass_the_others_on():
    cell = MixedCell(8, 4, 1, ("sum", "concat_fc"), 0.0, RELAXATIONS["pair"], partial=4).eval()
    a, b = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    out = cell.steps[0](torch.tensor([[1.0, 0.0]]), a, b)
    torch.testing.assert_close(out, (a + b).roll(-2, dims=2))
    with pytest.raises(ConfigError, match="partial: found 3; allowed: a divisor of C, 8"):
        Search(tiny_task(), SearchConfig(partial=3), device="cpu")
    states = run(Search(tiny_task(), SearchConfig(partial=2), device="cpu"))
    assert len(states) == 6 and states[-1].val_loss < states[0].val_loss


def test_the_second_order_gradient_is_that_of_finite_differences():
    """d/dα of the validation loss after w - ξ ∇w L_train(w, α), against moving α by ± ε."""
    task = tiny_task(settings=replace(SETTINGS, dropout=0.0, N=1))
    config = SearchConfig(order="second", operations=("sum", "linear_glu", "concat_fc"))
    search = Search(task, config, seed=2, device="cpu")
    for _ in range(3):
        next(search)
    search.hypernet.double()
    batch = search.bank.batch

    def double(split, rows, next_rows):
        features, labels = batch(split, rows, next_rows)
        return {name: x.double() for name, x in features.items()}, labels

    search.bank = SimpleNamespace(batch=double, size=search.bank.size)
    parameters = search.architecture
    validation = search._batch("validation", 0)
    exact = torch.autograd.grad(search._unrolled_loss(validation), parameters)
    first = torch.autograd.grad(search._loss(validation), parameters)
    largest = max(float((a - b).abs().max()) for a, b in zip(exact, first, strict=True))
    assert largest > 1e-4, "the unrolled step must matter for this test to say anything"
    for parameter, gradient in zip(parameters, exact, strict=True):
        for place in range(parameter.numel()):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * 1e-5
                losses.append(float(search._unrolled_loss(validation).detach()))
                with torch.no_grad():
                    parameter.view(-1)[place] -= sign * 1e-5
            numeric = (losses[0] - losses[1]) / 2e-5
            assert float(gradient.view(-1)[place]) == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_the_second_order_search_runs_and_differs_from_the_first():
    first, second = (
        run(Search(tiny_task(), SearchConfig(order=order), seed=1, device="cpu"))
        for order in ("first", "second")
    )
    assert first[0].train_loss == second[0].train_loss
    assert not np.array_equal(first[0].alpha, second[0].alpha)


def test_a_resumed_search_that_was_finished_keeps_its_best(tmp_path):
    search = Search(tiny_task(), seed=1, device="cpu")
    run(search)
    search.save(tmp_path / "s")
    resumed = Search.resume(tmp_path / "s", tiny_task(), device="cpu")
    assert run(resumed) == [] and resumed.best_genotype == search.best_genotype is not None


def test_alternating_per_batch_makes_both_updates_in_every_step():
    search = Search(tiny_task(), SearchConfig(schedule="batch"), device="cpu")
    assert search.steps_per_epoch == 3 and search.total_steps == len(search) == 6
    before = search.hypernet.alpha.detach().clone(), search.weights[0].detach().clone()
    state = next(search)
    assert state.phase == "both" and None not in (state.train_loss, state.val_loss)
    assert not torch.equal(before[0], search.hypernet.alpha)
    assert not torch.equal(before[1], search.weights[0])


def test_the_epoch_schedule_trains_weights_then_architecture():
    search = Search(tiny_task(), SearchConfig(schedule="epoch"), device="cpu")
    assert search.steps_per_epoch == 3 + 2
    phases = []
    for _ in range(5):
        alpha, weight = (t.detach().clone() for t in (search.hypernet.alpha, search.weights[0]))
        state = next(search)
        phases.append(state.phase)
        assert torch.equal(alpha, search.hypernet.alpha) == (state.phase == "weights")
        assert torch.equal(weight, search.weights[0]) == (state.phase == "architecture")
    assert phases == ["weights"] * 3 + ["architecture"] * 2
    assert state.val_score is not None


@pytest.mark.parametrize("schedule", ["batch", "epoch"])
def test_a_search_reads_train_and_validation_only(schedule):
    task = tiny_task()
    bank, read = recording_bank(task)
    run(Search(task, SearchConfig(schedule=schedule), device="cpu", bank=bank))
    assert {split for split, _ in read} == {"train", "validation"}
    seen = torch.cat([rows for split, rows in read if split == "train"]).unique()
    assert len(seen) == SIZES["train"]


def test_the_genotype_is_that_of_the_best_validation_epoch():
    search = Search(tiny_task(), SearchConfig(epochs=4), seed=2, device="cpu")
    assert search.best_genotype is None
    ends = [state for state in search if state.val_score is not None]
    assert len(ends) == 4
    best = max(ends, key=lambda state: state.val_score)
    assert search.best_score == best.val_score
    assert search.best_genotype == best.genotype


def test_a_search_learns():
    search = Search(tiny_task(), SearchConfig(epochs=8, dropout=0.0), device="cpu")
    states = run(search)
    assert states[-1].train_loss < 0.5 * states[0].train_loss
    assert search.best_score > 0.6


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("M", [1, 3])
def test_a_search_runs_with_and_without_dropout_for_any_number_of_modalities(dropout, M):
    task = tiny_task(("Image", "Audio", "Text"), channels=(3,))
    search = Search(task, SearchConfig(dropout=dropout, M=M, epochs=1), device="cpu")
    run(search)
    assert search.best_genotype.features == ("Image_1", "Audio_1", "Text_1")


def test_a_multi_label_task_is_searched_by_weighted_f1():
    search = Search(tiny_task(metric="weighted_f1"), SearchConfig(epochs=1), device="cpu")
    run(search)
    rows = torch.arange(search.bank.size("validation"))
    features, labels = search.bank.batch("validation", rows)
    with torch.no_grad():
        predicted = search.hypernet.eval()(features).sigmoid() > 0.5
    found = f1_score(labels, predicted, average="weighted", zero_division=0)
    assert search.best_score == pytest.approx(found) and found > 0


def test_settings_that_are_none_are_the_tasks():
    search = Search(tiny_task(), SearchConfig(N=1), device="cpu")
    assert (search.config.N, search.config.C, search.config.epochs) == (1, SETTINGS.C, 2)


# --- precision


def seen_types(net, calls):
    """The types of a network's outputs, pass by pass, appended to ``calls``."""
    return net.register_forward_hook(lambda _, __, out: calls.append((net.training, out.dtype)))


@pytest.mark.parametrize("order", ["first", "second"])
def test_bf16_multiplies_in_bfloat16_while_it_trains_and_learns_the_same(order):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = SearchConfig(precision=precision, selection="argmax", order=order)
        search, calls = Search(tiny_task(), config, seed=1, device="cpu"), []
        seen_types(search.hypernet, calls)
        losses[precision] = [state.train_loss for state in search]
        trained = {dtype for training, dtype in calls if training}
        assert trained == {torch.bfloat16 if precision == "bf16" else torch.float32}
        assert {dtype for training, dtype in calls if not training} == {torch.float32}
        assert {p.dtype for p in search.hypernet.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"] == pytest.approx(losses["bf16"], rel=0.05)


def test_a_search_in_bf16_selects_in_bf16_and_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    config, used = SearchConfig(**HALVING, precision="bf16", tuning_epochs=1), []
    train_module = sys.modules["bmnas_core.train"]  # the package's attribute is a function
    real = train_module.autocast

    def recorded(precision, device):
        used.append(precision)
        return real(precision, device)

    monkeypatch.setattr(train_module, "autocast", recorded)
    search = Search(tiny_task(), config, device="cpu")
    for _ in range(4):
        next(search)
    search.save(tmp_path / "s.safetensors")
    expected = run(search)
    assert used and set(used) == {"bf16"}
    resumed = Search.resume(tmp_path / "s.safetensors", tiny_task(), device="cpu")
    assert resumed.config.precision == "bf16"
    assert all(same(a, b) for a, b in zip(run(resumed), expected, strict=True))


def test_an_unknown_precision_is_refused():
    for kind in (SearchConfig, TrainConfig):
        with pytest.raises(ConfigError, match="precision: found 'fp64'.*; allowed: 'fp32', 'bf16'"):
            kind(precision="fp64")


# --- refusals


def test_a_loss_that_is_not_finite_stops_the_search_and_names_the_step():
    search = Search(tiny_task(), device="cpu")
    next(search)
    with torch.no_grad():
        search.weights[0].fill_(float("nan"))
    with pytest.raises(SearchError, match="train loss at step 2: found nan"):
        next(search)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_one_is_refused_before_anything_starts():
    with pytest.raises(DeviceError, match="'cuda', but this machine has 0"):
        Search(tiny_task(), device="cuda")


def test_files_that_are_no_search_are_refused(tmp_path):
    path = tmp_path / "s"
    with pytest.raises(SearchError, match="s: found no search to resume"):
        Search.resume(path, tiny_task())
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(SearchError, match="s: found no search to resume"):
        Search.resume(path, tiny_task())
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(SearchError, match="s: found format None; allowed: 'bmnas-search/3'"):
        Search.resume(path, tiny_task())


def test_a_truncated_search_is_refused(tmp_path):
    path = tmp_path / "s"
    search = Search(tiny_task(), device="cpu")
    next(search)
    search.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SearchError, match="s: found no search to resume"):
        Search.resume(path, tiny_task())


def test_a_search_on_other_features_is_not_resumed(tmp_path):
    search = Search(tiny_task(), device="cpu")
    search.save(tmp_path / "s")
    other = tiny_task()
    with torch.no_grad():
        other.modalities[0].backbone.layers[0].weight.add_(1)
    with pytest.raises(SearchError, match="was made on other features"):
        Search.resume(tmp_path / "s", other)


@pytest.mark.parametrize(
    "change", [{"metric": "macro_f1"}, {"class_weights": (1.0, 2.0, 3.0)}, {"label_smoothing": 0.1}]
)
def test_a_search_by_another_metric_or_other_weights_is_not_resumed(tmp_path, change):
    path = tmp_path / "s"
    Search(replace(tiny_task(), **change), device="cpu").save(path)
    Search.resume(path, replace(tiny_task(), **change))
    with pytest.raises(SearchError) as error:
        Search.resume(path, tiny_task())
    found = (
        f"{path}: scoring of task 'tiny': found {{'metric': 'accuracy'}}; allowed: as the search"
    )
    assert str(error.value).startswith(found) and "\n" not in str(error.value)


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s"
    search = Search(tiny_task(), device="cpu")
    search.save(path)
    before = path.read_bytes()
    next(search)

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        search.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("operations", [(), ("sum", "sum")])
def test_candidate_operations_are_at_least_one_and_each_once(operations):
    with pytest.raises(ConfigError, match="operations: found .*; allowed: at least one"):
        SearchConfig(operations=operations)


def test_seeds_are_whole_numbers_of_any_kind(tmp_path):
    one = Search(tiny_task(), seed=np.int64(3), device="cpu")
    assert same(next(one), next(Search(tiny_task(), seed=3, device="cpu")))
    one.save(tmp_path / "s")
    for seed in ("a", 0.5, None):
        with pytest.raises(ConfigError, match="seed: found .*; allowed: an integer"):
            Search(tiny_task(), seed=seed)


def test_random_streams_of_a_search_do_not_repeat_between_splits_and_epochs():
    orders = {
        tuple(torch.randperm(50, generator=generator(0, split, cycle)).tolist())
        for split in ("train", "validation")
        for cycle in range(3)
    }
    assert len(orders) == 6


@pytest.mark.gpu
def test_a_search_on_the_gpu_ends_near_the_one_on_the_cpu():
    config = SearchConfig(dropout=0.0, epochs=1)
    cpu = run(Search(tiny_task(), config, device="cpu"))
    gpu = run(Search(tiny_task(), config, device="cuda"))
    for a, b in zip(cpu, gpu, strict=True):  # attention drops weights, other ones on each device
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.1)


PATHS = {"sampling": "single_path", "path_samples": 3}


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["paper", "pair", "edge"])
def test_paths_are_sampled_by_their_probability_under_the_hypernet(relaxation):
    """Frequencies against most_probable(), and the logarithm against the same."""
    settings = replace(SETTINGS, N=2, M=1)
    config = SearchConfig(**PATHS, relaxation=relaxation, operations=("sum", "concat_fc"))
    search = Search(tiny_task(channels=(5,), settings=settings), config, device="cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in search.architecture:
            parameter.normal_()
        sampled = [search.hypernet.sample_path() for _ in range(3000)]
    probability = most_probable(search.state.weights)
    found = Counter(genotype.canonical() for genotype, _ in sampled)
    assert sum(probability.values()) == pytest.approx(1)
    for genotype, p in list(probability.items())[:10]:
        assert found[genotype] / 3000 == pytest.approx(p, abs=0.04)
    assert all(len({frozenset(c.inputs) for c in g.cells}) == 2 for g, _ in sampled)
    logs = {genotype: float(log) for genotype, log in sampled}
    sums = Counter()
    for genotype, log in logs.items():
        sums[genotype.canonical()] += np.exp(log)
    for genotype, p in list(probability.items())[:3]:
        assert sums[genotype] == pytest.approx(p, rel=1e-4)


def test_a_path_is_the_fusion_network_with_the_hypernets_weights():
    search = Search(tiny_task(), SearchConfig(**PATHS), device="cpu")
    with torch.no_grad():
        path, _ = search.hypernet.sample_path()
    net = FusionNetwork(path, search.task.channels, 3, C=8, L=4, dropout=0.1)
    own, shared = net.state_dict(), search.hypernet.state_dict()
    reshape = list(search.task.channels)
    for name in own:
        source, part = name, slice(None)
        for k, feature in enumerate(path.used_features):
            source = source.replace(f"reshape.layers.{k}.", f"reshape.layers.@{feature}.")
        for k, feature in enumerate(reshape):
            source = source.replace(f"@{feature}.", f"{k}.")
        for i, cell in enumerate(path.cells):
            for j, step in enumerate(cell.steps):
                prefix = f"cells.{i}.steps.{j}."
                projected = search.hypernet.cells[i].steps[j].parts.get(step.op)
                if projected and name.startswith(prefix):
                    part = slice(8 * projected.start, 8 * projected.stop)
                else:
                    source = source.replace(prefix, f"{prefix}operations.{step.op}.")
        if source in shared:  # all but running statistics
            own[name].copy_(shared[source][part])
    features, _ = search.bank.batch("train", torch.arange(20))
    for dropout in (m for m in net.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.p = 0.0
    search.hypernet.eval()
    with search.hypernet.single_path(path):
        # Statistics of the batch, in evaluation too.
        torch.testing.assert_close(search.hypernet(features), net.train()(features))
    assert search.hypernet.path is None


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 5, 7, 8, 9])
def test_a_search_by_single_paths_is_reproducible_and_resumes(tmp_path, stop):
    config = SearchConfig(**PATHS, selection="successive_halving", rungs=((2, 2),), warmup=1)
    whole = Search(tiny_task(), config, seed=1, device="cpu")
    states = run(whole)
    assert [s.phase for s in states] == ["weights"] * 3 + ["both"] * 3 + ["selection"] * 4
    broken = Search(tiny_task(), config, seed=1, device="cpu")
    for _ in range(stop):
        next(broken)
    broken.save(tmp_path / "search.safetensors")
    resumed = Search.resume(tmp_path / "search.safetensors", tiny_task(), device="cpu")
    assert all(same(a, b) for a, b in zip(states[stop:], run(resumed), strict=True))


def test_paths_with_a_lower_loss_become_more_probable():
    """A task in which Audio alone shows the label: the search moves to pairs with Audio."""
    task = tiny_task(settings=replace(SETTINGS, epochs=12, N=1, M=1))
    task.modalities[0].inputs.zero_()
    config = SearchConfig(**PATHS, arch_lr=0.1, warmup=2, operations=("sum", "concat_fc"))
    search = Search(task, config, device="cpu")
    run(search)
    odds = Counter()
    for genotype, p in most_probable(search.state.weights).items():
        odds[any(name.startswith("Audio") for name in genotype.cells[0].inputs)] += p
    assert odds[True] > 0.95  # 10 of 12 pairs have one: 0.83 by chance


@pytest.mark.slow
def test_candidates_take_pairs_by_odds_and_steps_uniformly_and_come_with_their_probability():
    settings = replace(SETTINGS, N=1, M=1)
    config = SearchConfig(operations=("sum", "concat_fc"))
    search = Search(tiny_task(channels=(5,), settings=settings), config, device="cpu")
    with torch.no_grad():
        for parameter in search.architecture:
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    weights, random = search.state.weights, torch.Generator().manual_seed(1)
    odds = [{("Image_1", "Audio_1"): 0.8, ("Audio_1", "Image_1"): 0.2}]
    sampled = [next(iter(sample_candidates(weights, odds, 1, random).items())) for _ in range(3000)]
    found = Counter(genotype for genotype, _ in sampled)
    steps = Counter()
    for genotype, p in most_probable(weights).items():
        steps[genotype.cells[0].steps] += p
    assert len(found) == 4
    for genotype, p in dict(sampled).items():
        (cell,) = genotype.cells
        assert found[genotype] / 3000 == pytest.approx(odds[0][cell.inputs] / 2, abs=0.03)
        assert p == pytest.approx(odds[0][cell.inputs] * steps[cell.steps])
    assert len(sample_candidates(weights, odds, 2, random)) == 2
    assert set(sample_candidates(weights, odds, 99, random)) == set(found)


def test_scores_of_single_architectures_are_read_off_the_shared_weights():
    search = Search(tiny_task(), SearchConfig(epochs=6), device="cpu")
    run(search)
    genotypes = list(most_probable(search.state.weights, 5))
    before = {key: value.clone() for key, value in search.hypernet.state_dict().items()}
    scores = [search.score_of(genotype) for genotype in genotypes]
    assert scores == [search.score_of(genotype) for genotype in genotypes]
    assert len(set(scores)) > 1
    for key, value in search.hypernet.state_dict().items():
        assert torch.equal(value, before[key]), key
