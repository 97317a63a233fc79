"""SearchHistory: a search kept step by step, saved, compared, and replayed without a kernel."""

import base64
import inspect
import json
import random
import re
import time
import tracemalloc
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from strategies import HOSTILE
from tiny import SETTINGS, tiny_task

from bmnas_core import (
    HistoryError,
    Search,
    SearchConfig,
    SearchHistory,
    draw,
    draw_curves,
    draw_heatmaps,
)
from bmnas_core.draw.scene import numbers
from bmnas_core.history import FORMAT
from bmnas_core.selection import derive
from bmnas_core.tensor_files import read_tensors, write_tensors

NUMBERS = ("step", "epoch", "phase", "lr", "train_loss", "val_loss", "val_score")


def search_of(seed=0, task=None, **config):
    return Search(task or tiny_task(), SearchConfig(**config), seed=seed, device="cpu")


def follow(history, search, n=None):
    """Append up to n steps of the search to the history; returns the states."""
    states = [next(search) for _ in range(min(len(search) if n is None else n, len(search)))]
    for state in states:
        history.append(state)
    return states


def history_of(seed=0, n=None, task=None, **config):
    search = search_of(seed, task, **config)
    history = SearchHistory.from_search(search)
    follow(history, search, n)
    return history


@pytest.fixture(scope="module")
def whole() -> SearchHistory:
    """A whole search of three epochs; not to be appended to."""
    return history_of(epochs=3)


def same(a, b) -> bool:
    """Whether two states are equal to the bit and derive the same."""
    arrays = [(a.alpha, b.alpha), *zip(a.beta, b.beta, strict=True)]
    arrays += zip(a.gamma, b.gamma, strict=True)
    numbers = all(getattr(a, n) == getattr(b, n) for n in NUMBERS)
    return numbers and all(map(np.array_equal, *zip(*arrays, strict=True))) and (
        a.genotype == b.genotype and a.weights.features == b.weights.features
    )  # fmt: skip


def made_up(base, n, seed=0, scores=None, far=1.0):
    """n states from step 0 on like ``base``, each with weights a step on from the one before it.

    Epochs have 3 steps; ``scores`` are given to them in turn.
    """
    random, weights = np.random.default_rng(seed), base.weights

    def drawn(array):
        return (array + far * random.normal(size=array.shape)).astype(np.float32)

    for step in range(n):
        weights = replace(
            weights,
            alpha=drawn(weights.alpha),
            beta=tuple(map(drawn, weights.beta)),
            gamma=tuple(map(drawn, weights.gamma)),
        )
        score = None
        if scores and step and step % 3 == 0:
            score = scores[(step // 3 - 1) % len(scores)]
        yield replace(base, step=step, epoch=-(-step // 3), weights=weights, val_score=score)


# --- what is kept


@pytest.mark.parametrize("schedule", ["batch", "epoch"])
@pytest.mark.parametrize("relaxation", ["paper", "pair"])
def test_a_history_holds_what_the_search_gave_to_the_bit(schedule, relaxation):
    search = search_of(schedule=schedule, relaxation=relaxation)
    history = SearchHistory.from_search(search)
    start = search.state
    states = [start, *follow(history, search)]
    assert len(history) == len(states) == search.total_steps + 1
    assert all(map(same, history, states))
    assert (history[0].step, history[0].epoch, history[0].phase) == (0, 0, "start")
    assert (history[0].train_loss, history[0].val_loss, history[0].val_score) == (None, None, None)
    assert all(state.selection == "argmax" for state in history)


def test_a_history_does_not_change_with_the_search_it_follows():
    search = search_of()
    history = SearchHistory.from_search(search)
    (first,) = follow(history, search, 1)
    before = [array.copy() for array in (history[0].alpha, history[1].alpha)]
    follow(history, search)
    assert np.array_equal(history[0].alpha, before[0]) and np.array_equal(
        history[1].alpha, before[1]
    )
    assert not np.array_equal(history[-1].alpha, before[1])
    assert np.array_equal(first.alpha, before[1])


def test_a_history_is_made_of_a_search_only():
    with pytest.raises(
        HistoryError, match="SearchHistory.from_search: found int; allowed: a Search"
    ):
        SearchHistory.from_search(3)


def test_a_history_says_what_it_was_made_with():
    about = history_of(seed=np.int64(3), n=0, arch_lr=0.5).about
    assert (about["task"], about["rule"], about["metric"]) == ("tiny", "same", "accuracy")
    assert (about["seed"], about["steps_per_epoch"]) == (3, 3)
    assert about["config"]["arch_lr"] == 0.5 and about["config"]["C"] == SETTINGS.C
    assert about["features"] == ["Image_1", "Image_2", "Audio_1", "Audio_2"]


def test_a_history_of_a_search_under_way_starts_where_it_stands(tmp_path):
    search = search_of()
    states = list(search)
    broken = search_of()
    next(broken), next(broken)
    broken.save(tmp_path / "search")
    resumed = Search.resume(tmp_path / "search", tiny_task(), device="cpu")
    for search in (broken, resumed):
        history = SearchHistory.from_search(search)
        assert (history[0].step, history[0].epoch, history[0].phase) == (2, 1, "start")
        assert np.array_equal(history[0].alpha, states[1].alpha)
        follow(history, search)
        assert history.steps.tolist() == [2, 3, 4, 5, 6]
        assert all(map(same, history[1:], states[2:]))


def test_items_are_found_by_index_by_slice_and_by_step(whole):
    assert len(whole) == 10
    assert [state.step for state in whole] == whole.steps.tolist() == list(range(10))
    assert (whole[-1].step, whole[np.int64(2)].step) == (9, 2)
    assert [state.step for state in whole[1:8:3]] == [1, 4, 7]
    assert [state.step for state in whole[::-1]][:2] == [9, 8]
    assert [state.step for state in reversed(whole)][-1] == 0
    assert whole[20:] == []
    with pytest.raises(IndexError, match="history: found index 10; allowed: below 10"):
        whole[10]


def test_a_step_that_is_not_kept_is_the_last_one_before(whole):
    history = SearchHistory(whole.about)
    for state in whole[2::3]:
        history.append(state)
    assert history.steps.tolist() == [2, 5, 8]
    assert [history.index(step) for step in (2, 4, 5, 7, 8, 99)] == [0, 0, 1, 1, 2, 2]
    assert history.index(0) == 0
    assert same(history.at(7), whole[5]) and same(history.at(step=8), whole[8])


def test_columns_are_numbers_with_nan_where_there_is_none(whole):
    scores = whole.column("val_score")
    assert np.flatnonzero(~np.isnan(scores)).tolist() == [3, 6, 9]
    assert scores[6] == whole[6].val_score
    assert np.isnan(whole.column("train_loss")[0]) and np.isnan(whole.column("val_loss")[0])
    assert whole.column("train_loss")[1:].tolist() == [s.train_loss for s in whole[1:]]
    assert whole.column("lr").tolist() == [state.lr for state in whole]
    assert whole.column("epoch").tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    with pytest.raises(HistoryError, match="column: found 'loss'; allowed: 'step', 'epoch', 'lr'"):
        whole.column("loss")


def test_changes_are_where_another_genotype_is_derived(whole):
    found = [state.genotype.canonical() for state in whole]
    expected = [i for i in range(1, len(found)) if found[i] != found[i - 1]]
    assert whole.changes == expected != []
    assert history_of(n=0).changes == []


def test_the_best_state_is_the_first_with_the_highest_score(whole):
    base = whole[1]
    history = SearchHistory(whole.about)
    for state in made_up(base, 3):
        history.append(state)
    assert history.best is None
    history = SearchHistory(whole.about)
    for state in made_up(base, 13, scores=[0.25, 0.75, 0.75, 0.5]):
        history.append(state)
    assert (history.best.step, history.best.val_score) == (6, 0.75)


def test_a_history_is_described_in_a_line(whole):
    assert repr(whole) == "SearchHistory(tiny, pair, seed 0: 10 states, steps 0 to 9)"
    assert whole._repr_svg_() == draw_curves(whole).svg


# --- a long search


@settings(max_examples=30)
@given(
    st.sampled_from([3, 4, 10]),
    st.integers(1, 90),
    st.lists(st.sampled_from([0.25, 0.5, 0.75]), max_size=9),
    st.integers(0, 99),
)
def test_a_long_history_is_thinned_and_keeps_first_last_and_best(whole, limit, n, scores, seed):
    history, given = SearchHistory(whole.about, limit), []
    for state in made_up(whole[1], n, seed, scores):
        history.append(state)
        given.append(state)
        assert len(history) <= limit
        assert history[0].step == 0 and same(history[-1], state)
        known = [s for s in given if s.val_score is not None]
        if known:
            assert same(history.best, max(known, key=lambda s: s.val_score))
    assert (np.diff(history.steps) > 0).all()
    assert all(same(kept, given[kept.step]) for kept in history)
    assert {state.genotype for state in history} <= set(history.genotypes)
    if n <= limit:
        assert len(history) == n


def test_a_thinned_history_is_even_with_ends_of_epochs_while_there_is_room(whole):
    history = SearchHistory(whole.about, 20)
    for state in made_up(whole[1], 61):
        history.append(state)
    assert set(np.diff(history.steps)) == {4}
    history = SearchHistory(whole.about, 40)
    for state in made_up(whole[1], 61, scores=[0.5]):
        history.append(state)
    assert history.steps.tolist() == [k for k in range(61) if k % 4 == 0 or k % 3 == 0]


@pytest.mark.parametrize("limit", [3, 4, 10])
def test_a_thinned_history_that_was_saved_goes_on_as_if_unbroken(tmp_path, whole, limit):
    states = list(made_up(whole[1], 80, scores=[0.5, 0.25, 0.75, 0.75]))
    unbroken = SearchHistory(whole.about, limit)
    broken = SearchHistory(whole.about, limit)
    for k, state in enumerate(states):
        unbroken.append(state)
        if k % 11 == 0:
            broken = SearchHistory.load(broken.save(tmp_path / "t")) if k else broken
        broken.append(state)
        assert broken == unbroken
    assert broken.limit == limit


@pytest.mark.parametrize("limit", [2, 0, -1, 3.0, "many", None])
def test_a_limit_that_holds_no_first_last_and_best_is_refused(limit):
    with pytest.raises(HistoryError, match=r"limit: found .*; allowed: an integer of 3 or more"):
        SearchHistory.from_search(search_of(), limit)


@pytest.mark.slow
def test_a_thousand_states_take_little_memory_and_load_fast(tmp_path):
    task = tiny_task(("Image", "Audio", "Text"), (3, 4, 5), settings=replace(SETTINGS, N=3, M=3))
    search = search_of(task=task)
    first = SearchHistory.from_search(search)[0]
    path = tmp_path / "t"
    tracemalloc.start()
    history = SearchHistory.from_search(search)
    for state in made_up(replace(first, phase="both"), 1001, scores=[0.5]):
        if state.step:
            history.append(state)
    del state
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(history) == 1001 and taken < 10e6
    history.save(path)
    start = time.perf_counter()
    loaded = SearchHistory.load(path)
    seconds = time.perf_counter() - start
    print(
        f"{taken / 1e6:.1f} MB, {path.stat().st_size / 1e6:.1f} MB on disk, read in {seconds:.2f} s"
    )
    assert loaded == history


# --- what is refused


@pytest.mark.parametrize("what", [None, 3, "state", {}])
def test_only_states_are_appended(what):
    with pytest.raises(HistoryError, match=r"append: found \w+; allowed: a SearchState"):
        history_of(n=1).append(what)


@pytest.mark.parametrize(
    "other",
    [
        {"relaxation": "paper"},
        {"operations": ("sum", "attention")},
        {"selection": "released"},
        {"N": 1},
        {"M": 3},
        {"task": tiny_task(("Image", "Text"))},
        {"task": tiny_task(channels=(5,))},
    ],
)
def test_a_state_of_another_search_is_not_appended(other):
    history = history_of(n=1)
    kept = list(history)
    search = search_of(**other)
    next(search), next(search)
    message = "append: found a state of another search; allowed: of the same one"
    with pytest.raises(HistoryError, match=message):
        history.append(search.state)
    assert all(map(same, history, kept)) and len(history) == len(kept)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_step_that_does_not_come_after_is_not_appended(whole, step):
    history = history_of(n=2, epochs=3)
    with pytest.raises(HistoryError, match=f"append: found step {step}; allowed: after step 2"):
        history.append(whole[step])
    assert history.steps.tolist() == [0, 1, 2]
    history.append(whole[3])
    assert history.steps.tolist() == [0, 1, 2, 3]


# --- files


@pytest.mark.parametrize("schedule", ["batch", "epoch"])
@pytest.mark.parametrize("n", [0, 1, 4, None])
def test_a_saved_history_is_read_as_it_was(tmp_path, schedule, n):
    history = history_of(n=n, schedule=schedule, relaxation="paper")
    path = history.save(tmp_path / "new" / "search.history")
    assert path == tmp_path / "new" / "search.history"
    loaded = SearchHistory.load(str(path))
    assert loaded == history and loaded.about == history.about and loaded.limit == history.limit
    assert all(map(same, loaded, history)) and len(loaded) == len(history)
    assert loaded.genotypes == history.genotypes and loaded.changes == history.changes
    assert str(loaded.compare(history)) == str(history.compare(history))


def test_histories_that_differ_in_a_bit_are_not_equal(whole):
    def copy(last):
        history = SearchHistory(whole.about)
        for state in [*whole[:-1], last]:
            history.append(state)
        return history

    assert copy(whole[-1]) == whole
    alpha = np.nextafter(whole[-1].alpha, np.float32(9))
    weights = replace(whole[-1].weights, alpha=alpha)
    assert copy(replace(whole[-1], weights=weights)) != whole
    assert copy(replace(whole[-1], train_loss=np.nextafter(whole[-1].train_loss, 9))) != whole
    assert copy(replace(whole[-1], val_score=None)) != whole
    assert copy(replace(whole[-1], phase="weights")) != whole
    assert history_of(n=2, epochs=3) != whole
    assert whole != list(whole)


def test_a_history_can_be_read_even_if_its_selection_rule_is_not_registered(tmp_path):
    from bmnas_core import SELECTIONS, register_selection

    with SELECTIONS.restored():
        register_selection("mine")(lambda weights: derive(weights))
        history = history_of(n=3, selection="mine")
        history.save(tmp_path / "t")
    loaded = SearchHistory.load(tmp_path / "t")
    assert loaded == history and loaded[3].genotype == history[3].genotype


@pytest.mark.parametrize("method", ["save", "to_html"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, whole, method):
    path = tmp_path / "t"
    path.write_text("old")

    def broken(*_):
        for part in tmp_path.glob(".*.part"):
            part.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("bmnas_core.tensor_files.save_file", broken)
    monkeypatch.setattr(import_module("bmnas_core.draw.replay"), "page", broken)
    with pytest.raises(OSError, match="disk full"):
        getattr(whole, method)(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("method", ["save", "to_html"])
def test_where_nothing_can_be_written_nothing_is_left(tmp_path, whole, method):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError):
        getattr(whole, method)(tmp_path / "file" / "t")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        getattr(whole, method)(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "a file"


def a_genotype_file(path):
    search_of().state.genotype.save(path)


def a_search_file(path):
    search_of().save(path)


@pytest.mark.parametrize(
    "make, found",
    [
        (lambda path: None, "found no history"),
        (lambda path: path.mkdir(), "found no history"),
        (lambda path: path.write_bytes(b""), "found no history"),
        (lambda path: path.write_bytes(b"\x00" * 40), "found no history"),
        (lambda path: path.write_bytes(b"\xff" * 40), "found no history"),
        (a_genotype_file, "found no history"),
        (a_search_file, "found format 'bmnas-search/3'; allowed: 'bmnas-history/3'"),
        (lambda path: save_file({"x": torch.zeros(1)}, path), "found format None; allowed"),
        (
            lambda path: save_file({"x": torch.zeros(1)}, path, {"bmnas": "[1]"}),
            r"found format \[1\]; allowed: 'bmnas-history/3'",
        ),
        (
            lambda path: save_file({"x": torch.zeros(1)}, path, {"bmnas": "{"}),
            "found no JSON",
        ),
    ],
)
def test_files_that_are_no_history_are_refused_by_name(tmp_path, make, found):
    path = tmp_path / "t"
    make(path)
    with pytest.raises(HistoryError, match=f"^{re.escape(str(path))}: {found}"):
        SearchHistory.load(path)


class Parts:
    """What a saved history is made of, and a folder to write others to."""

    def __init__(self, history, folder):
        self.folder = folder
        path = history.save(folder / "whole")
        self.header, self.tensors = read_tensors(path, FORMAT, HistoryError, "history")
        self.data = path.read_bytes()

    def write(self, header=None, **tensors):
        """A file with another header or other tensors; one that is None is left out."""
        tensors = {k: v for k, v in {**self.tensors, **tensors}.items() if v is not None}
        path = self.folder / "changed"
        write_tensors(path, tensors, header or self.header)
        return path


@pytest.fixture(scope="module")
def parts(whole, tmp_path_factory) -> Parts:
    return Parts(whole, tmp_path_factory.mktemp("histories"))


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_a_history_cut_off_anywhere_is_refused(parts, share):
    path = parts.folder / "cut"
    path.write_bytes(parts.data[: int(share * len(parts.data))])
    with pytest.raises(HistoryError, match="cut: found no history"):
        SearchHistory.load(path)


def test_no_flipped_bit_of_a_history_goes_unnoticed(parts):
    path, draws = parts.folder / "flipped", random.Random(0)
    header = int.from_bytes(parts.data[:8], "little") + 8
    bits = [draws.randrange(8 * len(parts.data)) for _ in range(50)]
    for bit in [*bits, *(draws.randrange(8 * header) for _ in range(100))]:
        data = bytearray(parts.data)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(HistoryError) as error:
            SearchHistory.load(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def places(value, path=()):
    """Paths of everything in a JSON value."""
    yield path
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield from places(value[key], (*path, key))


def changed(value, path, new):
    """A copy of a JSON value with what stands at ``path`` replaced; taken away where ``...``."""
    value = json.loads(json.dumps(value))
    target = value
    for key in path[:-1]:
        target = target[key]
    if new is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = new
    return value


json_values = st.recursive(
    st.just(...) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner.filter(lambda v: v is not ...), max_size=3) | st.just({}),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.data())
def test_any_value_anywhere_in_the_header_is_read_or_refused_by_name(parts, data):
    place = data.draw(st.sampled_from([p for p in places(parts.header) if p]))
    path = parts.write(changed(parts.header, place, data.draw(json_values)))
    try:
        history = SearchHistory.load(path)
    except HistoryError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert history[0].step == 0 and history[-1].step == 9


@pytest.mark.parametrize("part", ["about", "limit", "strides", "shapes", "genotypes"])
def test_a_history_without_a_part_of_its_header_is_refused(parts, part):
    path = parts.write(changed(parts.header, (part,), ...))
    with pytest.raises(HistoryError, match=f"changed: header: found no '{part}'; allowed: all"):
        SearchHistory.load(path)


@pytest.mark.parametrize("name", ["numbers", "phase", "genotype", "weights"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: None,
        lambda tensor: tensor[:-1],
        lambda tensor: tensor[:0],
        lambda tensor: tensor[None],
        lambda tensor: tensor.flatten()[:1].reshape(()),
        lambda tensor: tensor[:, :-1] if tensor.dim() > 1 else tensor + 100,
        lambda tensor: tensor.repeat(1, 2) if tensor.dim() > 1 else tensor - 100,
    ],
    ids=["gone", "short", "empty", "deep", "single", "narrow", "wide"],
)
def test_a_history_with_tensors_of_wrong_shapes_is_refused(parts, name, change):
    new = change(parts.tensors[name])
    path = parts.write(**{name: new if new is None else new.contiguous()})
    with pytest.raises(HistoryError, match=r"changed: (tensor '\w+'|phase): found .*; allowed: "):
        SearchHistory.load(path)


CONFIG = ("about", "config")
CLAIMS = [
    (("about",), [], r"about: found \[\]; allowed: a dict"),
    (("about", "seed"), True, "about.seed: found True; allowed: an integer"),
    (("about", "features"), ["A"] * 4, r"genotypes\[0\]: found .*; allowed: A, A"),
    (("about", "limits"), [0], r"about.limits: found \[0\]; allowed: a tuple"),
    (("about", "limits"), [0, float("inf")], "about: found NaN or infinity; allowed: finite"),
    (("about", "steps_per_epoch"), "3", "about.steps_per_epoch: found '3'; allowed: an integer"),
    ((*CONFIG, "relaxation"), "other", "relaxation: found 'other'; allowed: "),
    ((*CONFIG, "operations"), ["sum"] * 4000, "shapes: found .*; allowed: .*by features"),
    ((*CONFIG, "operations"), ["other"], "operation: found 'other'; allowed: "),
    ((*CONFIG, "operations"), "sum", "operations: found 'sum'; allowed: a tuple"),
    ((*CONFIG, "selection"), None, "selection: found None; allowed: text"),
    (("limit",), 2, "limit: found 2; allowed: an integer of 3 or more"),
    (("limit",), 9, "phase: found 10 states; allowed: 1 to the limit, 9"),
    (("strides",), [0, 1], r"strides: found \(0, 1\); allowed: at least 1"),
    (("strides",), [1.5, 1], r"strides\[0\]: found 1.5; allowed: an integer"),
    (("strides",), [1], r"strides: found \[1\]; allowed: a tuple"),
    (("shapes", 0), [10**9, 2], "shapes: found .*; allowed: .*by features, operations and Cells"),
    (("shapes", 0), [0, 10**18], "shapes: found .*; allowed: .*by features, operations and Cells"),
    (("shapes", -1), [10**9, 4], "shapes: found .*; allowed: .*by features, operations and Cells"),
    (("shapes",), [], "shapes: found .*; allowed: .*by features, operations and Cells"),
    (("genotypes",), [], "shapes: found .*; allowed: none"),
    (("genotypes", 0, "cells"), [], r"genotypes\[0\]: cells: found \[\]; allowed: at least one"),
]


@pytest.mark.parametrize("place, value, message", CLAIMS)
def test_a_header_that_does_not_fit_its_history_is_refused_by_place(parts, place, value, message):
    path = parts.write(changed(parts.header, place, value))
    with pytest.raises(HistoryError, match=f"changed: {message}") as error:
        SearchHistory.load(path)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, row, column, value, message",
    [
        ("numbers", 3, 0, 2.5, "steps and epochs: found others; allowed: whole numbers from 0"),
        ("numbers", 3, 1, -1, "steps and epochs: found others; allowed: whole numbers from 0"),
        ("numbers", 9, 0, 1e300, "steps and epochs: found others; allowed: whole numbers from 0"),
        ("numbers", 3, 0, torch.nan, "steps and epochs: found others; allowed: whole numbers"),
        ("numbers", 3, 0, 1, "steps: found some that do not rise; allowed: rising ones"),
        ("numbers", 3, 2, torch.nan, "weights and losses: found NaN or infinity; allowed: finite"),
        ("numbers", 3, 3, torch.inf, "weights and losses: found NaN or infinity; allowed: finite"),
        ("weights", 3, 0, torch.nan, "weights and losses: found NaN or infinity; allowed: finite"),
        ("phase", 3, ..., 99, "tensor 'phase': found others; allowed: numbers from 0 to 4"),
        ("genotype", 3, ..., -1, "tensor 'genotype': found others; allowed: numbers from 0 to "),
    ],
)
def test_numbers_that_no_state_has_are_refused(parts, name, row, column, value, message):
    tensor = parts.tensors[name].clone()
    tensor[row, column] = value
    with pytest.raises(HistoryError, match=f"changed: {message}"):
        SearchHistory.load(parts.write(**{name: tensor}))


# --- two histories beside each other


def test_equal_histories_are_equal_in_every_step(whole):
    told = whole.compare(history_of(epochs=3))
    assert (told.settings, told.steps, told.equal_until, told.agreement) == ({}, 10, 9, 1.0)
    assert told.best == (whole.best.val_score,) * 2
    assert str(told).splitlines() == [
        "settings that differ    none",
        "steps in common         10",
        "equal to the bit until  9",
        "same architecture       at 100% of the steps in common",
        f"best validation score   {whole.best.val_score:.3f} and {whole.best.val_score:.3f}",
    ]


def test_histories_of_other_seeds_and_relaxations_say_where_they_differ(whole):
    seed = whole.compare(history_of(seed=1, epochs=3))
    assert (seed.settings, seed.equal_until) == ({"seed": (0, 1)}, None)
    assert seed.agreement < 1
    assert "equal to the bit until  never" in str(seed)
    paper = whole.compare(history_of(relaxation="paper", epochs=3, arch_lr=0.5))
    assert paper.settings == {"relaxation": ("pair", "paper"), "arch_lr": (0.01, 0.5)}
    assert "settings that differ    relaxation: pair and paper; arch_lr: 0.01 and 0.5" in str(paper)


def test_histories_are_equal_until_the_first_step_that_is_not(whole):
    other = SearchHistory(whole.about)
    for state in whole:
        shift = state.step in (4, 6)
        weights = replace(state.weights, alpha=state.alpha + np.float32(shift))
        other.append(replace(state, weights=weights))
    assert whole.compare(other).equal_until == other.compare(whole).equal_until == 3


def test_the_order_a_genotype_is_listed_in_does_not_count_as_another_architecture(whole):
    base = whole[1]
    flipped, history, other = [], SearchHistory(whole.about), SearchHistory(whole.about)
    for state in made_up(base, 40):
        gamma = tuple(np.eye(4, dtype=np.float32)[[0, 0]] for _ in base.gamma)
        beta = tuple(b[:, ::-1].copy() for b in state.beta)
        history.append(replace(state, weights=replace(state.weights, gamma=gamma)))
        other.append(replace(state, weights=replace(state.weights, gamma=gamma, beta=beta)))
        flipped.append(history[-1].genotype != other[-1].genotype)
    assert any(flipped)
    assert history.compare(other).agreement == 1.0


def test_only_steps_that_both_kept_are_compared(whole):
    even, thirds = SearchHistory(whole.about), SearchHistory(whole.about)
    for state in whole[::2]:
        even.append(state)
    for state in whole[::3]:
        thirds.append(state)
    told = even.compare(thirds)
    assert (told.steps, told.equal_until, told.agreement) == (2, 6, 1.0)
    late = SearchHistory(whole.about)
    late.append(whole[9])
    none = even.compare(late)
    assert (none.steps, none.equal_until, none.agreement) == (0, None, 0.0)


def test_a_search_that_was_broken_off_and_resumed_has_the_history_of_an_unbroken_one(
    tmp_path, whole
):
    search = search_of(epochs=3)
    history = SearchHistory.from_search(search)
    follow(history, search, 4)
    search.save(tmp_path / "search"), history.save(tmp_path / "history")
    resumed = Search.resume(tmp_path / "search", tiny_task(), device="cpu")
    history = SearchHistory.load(tmp_path / "history")
    follow(history, resumed)
    assert history == whole
    assert (history.compare(whole).equal_until, history.compare(whole).steps) == (9, 10)


def test_before_an_epoch_ends_there_is_no_best_score(whole):
    told = history_of(n=2, epochs=3).compare(whole)
    assert told.best == (None, whole.best.val_score)
    assert f"best validation score   none yet and {whole.best.val_score:.3f}" in str(told)


def test_a_history_is_compared_with_a_history(whole):
    with pytest.raises(HistoryError, match="compare: found list; allowed: a SearchHistory"):
        whole.compare(list(whole))


# --- the replay


class BrowserBridge(HTMLParser):
    """Tags with their attributes, and the text of the payload."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.inside, self.packed, self.title = [], "", "", ""
        self.feed(path.read_text("utf-8"))
        self.payload = json.loads(zlib.decompress(base64.b64decode(self.packed)))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("id") or tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.packed += data if self.inside == "payload" else ""
        self.title += data if self.inside == "title" else ""


def elements(svg):
    """All elements of an SVG as tag, attributes without ids, and text."""
    found = []
    for element in ElementTree.fromstring(svg).iter():
        own = {k: v for k, v in element.attrib.items() if k != "id" and not k.startswith("{")}
        found.append((element.tag, own, element.text or ""))
    return found


def test_each_frame_of_a_replay_has_the_numbers_and_the_genotype_of_its_state(tmp_path, whole):
    page = BrowserBridge(whole.to_html(tmp_path / "t.html"))
    frames, genotypes = page.payload["frames"], page.payload["genotypes"]
    fields = page.payload["scene"]["fields"]
    assert len(frames) == len(whole) and len(genotypes) == len(whole.genotypes)
    for frame, state in zip(frames, whole, strict=True):
        assert frame["weights"] == numbers(state.weights)
        shown = genotypes[frame["genotype"]]
        assert elements(shown["svg"]) == elements(draw(state.genotype).svg)
        for cell, own in enumerate(state.genotype.cells, 1):
            taken = {fields[k]["what"]: fields[k]["name"] for k in shown["picks"]
                     if (fields[k]["cell"], fields[k]["step"]) == (cell, 0)}  # fmt: skip
            assert taken == dict(zip("XY", own.inputs, strict=True))
    for name, picture in (("graph", draw(whole[0])), ("heat", draw_heatmaps(whole[0]))):
        assert elements(page.payload["scene"][name]) == elements(picture.svg)
    assert frames[0]["text"] == "step 0 · before the first update"
    assert frames[3]["text"] == (
        f"step 3 · epoch 1 · training loss {whole[3].train_loss:.3f} · "
        f"validation loss {whole[3].val_loss:.3f} · validation score {whole[3].val_score:.3f}"
    )


@pytest.mark.parametrize("frames, steps", [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9])])
def test_a_replay_has_as_many_frames_as_asked_first_and_last_among_them(
    tmp_path, whole, frames, steps
):
    page = BrowserBridge(whole.to_html(tmp_path / "t.html", frames=frames))
    told = [int(re.match(r"step (\d+)", f["text"])[1]) for f in page.payload["frames"]]
    assert told == steps


def test_a_replay_of_one_state_has_one_frame(tmp_path):
    page = BrowserBridge(history_of(n=0).to_html(tmp_path / "new" / "t.html"))
    assert [frame["step"] for frame in page.payload["frames"]] == [0]


@pytest.mark.parametrize("frames", [0, -1, 2.0, "all", None])
def test_a_number_of_frames_that_is_none_is_refused(tmp_path, whole, frames):
    with pytest.raises(HistoryError, match=r"frames: found .*; allowed: an integer of 1 or more"):
        whole.to_html(tmp_path / "t.html", frames=frames)
    assert list(tmp_path.iterdir()) == []


def test_a_replay_is_one_file_that_asks_nothing_of_the_network(tmp_path, whole):
    path = whole.to_html(tmp_path / "t.html")
    page = BrowserBridge(path)
    for text in (path.read_text("utf-8"), json.dumps(page.payload, ensure_ascii=False)):
        urls = re.findall(r"\w+://[\w./]*", text)
        assert set(urls) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        for word in ("<link", "@import", "url(", "import(", "fetch(", "XMLHttpRequest", "<base"):
            assert word not in text
    for tag, own in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed")
        assert not {"src", "href", "srcset", "data", "action"} & set(own)
    assert [p.name for p in tmp_path.iterdir()] == ["t.html"]


def test_nothing_in_a_name_becomes_markup_in_a_replay(tmp_path):
    task = tiny_task(tuple(HOSTILE[:4]), (2, 2))
    task = replace(task, name="</title><script>alert(1)</script>$payload", rule="<b>&amp;")
    history = history_of(n=2, task=task)
    page = BrowserBridge(history.to_html(tmp_path / "t.html"))
    assert [own for tag, own in page.tags if tag == "script"] == [
        {"id": "payload", "type": "text/plain"},
        {"type": "module"},
    ]
    assert page.title.startswith("</title><script>alert(1)</script>$payload, rule <b>&amp;: ")
    scene = page.payload["scene"]
    svgs = [scene["graph"], scene["heat"], *(one["svg"] for one in page.payload["genotypes"])]
    known = {"svg", "g", "title", "path", "polygon", "polyline", "ellipse", "text"}
    for svg in svgs:
        for element in ElementTree.fromstring(svg).iter():
            assert element.tag.rpartition("}")[2] in known
            assert not [a for a in element.attrib if a.startswith("on") or "href" in a]
    shown = " ".join(text for _, _, text in elements(scene["graph"]))
    assert all(name in shown for name in task.features)


@pytest.mark.slow
def test_a_replay_of_a_long_search_stays_under_three_megabytes(tmp_path):
    search = search_of(task=tiny_task(("Image", "Audio", "Text")))
    history = SearchHistory.from_search(search)
    base = replace(history[0], phase="both", train_loss=1.0, val_loss=1.0)
    for state in made_up(base, 211, scores=[0.5], far=0.05):
        if state.step:
            history.append(state)
    usual = inspect.signature(history.to_html).parameters["frames"].default
    path = history.to_html(tmp_path / "t.html", frames=usual // 4)
    assert usual == 200 and len(BrowserBridge(path).payload["frames"]) == 50
    print(f"{path.stat().st_size / 1e6:.2f} MB")
    assert path.stat().st_size < 3e6 / 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda whole: SearchHistory(3), "about: found no task; allowed: task, rule"),
        (lambda whole: SearchHistory({}), "about: found no task; allowed: task, rule"),
        (lambda whole: SearchHistory(whole.about | {"features": 3}), "about: found no features"),
        (lambda whole: SearchHistory.load(None), "None: found no history"),
        (lambda whole: whole.at("x"), "step: found 'x'; allowed: an integer"),
        (lambda whole: whole.at(None), "step: found None; allowed: an integer"),
        (lambda whole: SearchHistory(whole.about).at(1), "found a history without states"),
        (
            lambda whole: SearchHistory(whole.about).to_html("t.html"),
            "found a history without states",
        ),
        (
            lambda whole: SearchHistory(whole.about).append(replace(whole[0], phase="lunch")),
            "append: found phase 'lunch'; allowed: 'start'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_the_door(tmp_path, monkeypatch, whole, call, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoryError, match=message):
        call(whole)
    assert not list(tmp_path.iterdir())
