"""A run made once more: which numbers are equal, and what else differs."""

import json
import os

import nbformat
import pytest
from saved_runs import RESULT, write_notebook, write_run
from typer.testing import CliRunner

from bmnas_core.cli import app
from bmnas_core.errors import BmnasError
from bmnas_core.experiments import (
    NotebookError,
    Number,
    Reproduction,
    ResultError,
    RunError,
    load_result,
    reproduce,
    run,
)
from bmnas_core.experiments.reproduce import compared_results


def number(place, before, after):
    return Number(place, before, after)


# --- comparing results


def test_values_are_compared_by_place_and_times_are_left_out():
    before = {
        "test": 0.5,
        "seed": 3,
        "search_seconds": 1.0,
        "provenance": {"time": 1},
        "versions": {"torch": 1},
        "baselines": {"GMU": {"test": 0.25, "seconds": 2.0}},
        "losses": [1.0, 2.0],
        "note": "a",
        "empty": {},
        "gone": None,
    }
    after = json.loads(json.dumps(before)) | {"search_seconds": 9.0, "note": "b", "new": True}
    after["baselines"]["GMU"] |= {"test": 0.26, "seconds": 7.0}
    after["losses"] = [1.0]
    del after["gone"]
    found = {n.place: n for n in compared_results(before, after)}
    assert [place for place, n in found.items() if n.equal] == [
        *("test", "seed", "losses[0]", "empty", "gone"),
    ]
    assert set(found) - {place for place, n in found.items() if n.equal} == {
        *("baselines.GMU.test", "losses[1]", "note", "new"),
    }
    assert found["baselines.GMU.test"].difference == pytest.approx(0.01)
    assert found["baselines.GMU.test"].relative == pytest.approx(0.01 / 0.26)
    assert found["note"].relative == found["losses[1]"].relative == float("inf")


@pytest.mark.parametrize(
    "before, after, equal",
    [(0.1 + 0.2, 0.3, False), (1, 1, True), (1, 1.0, False), (True, 1, False), (0.0, -0.0, False)],
)
def test_equal_means_to_the_bit(before, after, equal):
    assert number("a", before, after).equal is equal


def test_within_is_a_relative_difference_and_texts_have_none(tmp_path):
    numbers = (number("a", 100, 101), number("b", 0.5, 0.5), number("c", 1.0, 2.0))
    found = Reproduction(tmp_path, numbers, {}, within=0.01)
    assert [len(part) for part in (found.equal, found.near, found.different)] == [1, 1, 1]
    assert not found.succeeded
    assert Reproduction(tmp_path, numbers[:2], {}, within=0.01).succeeded
    texts = (number("op", "sum", "attention"),)
    assert not Reproduction(tmp_path, texts, {}, within=10.0).succeeded


# --- what cannot be reproduced


def test_what_cannot_be_run_again_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ResultError, match="none.*: found No such file"):
        reproduce(tmp_path / "none")
    failed = write_run(tmp_path / "failed", parameters={}, status="failed", error="x")
    for _ in range(2):  # without a result, and with that of an earlier run
        with pytest.raises(ResultError, match="failed: found a run with status 'failed'; allowed"):
            reproduce(failed)
        (failed / "result.json").write_text(json.dumps(RESULT))
    bare = write_run(tmp_path / "bare")
    with pytest.raises(ResultError, match="result.json: found a file; allowed: the folder of"):
        reproduce(bare / "result.json")
    with pytest.raises(NotebookError, match="bare: found 0 notebooks; allowed: the one that was"):
        reproduce(bare)
    write_notebook(bare / "nb.ipynb")
    for within in (-1, float("nan"), "1"):
        with pytest.raises(BmnasError, match="within: found .*; allowed: a number of at least 0"):
            reproduce(bare, within=within)
    with pytest.raises(BmnasError, match="out: found .*, the run's own folder; allowed: another"):
        reproduce(bare, bare / ".." / "bare")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "failed"]


# --- real runs


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    notebook = write_notebook(folder / "nb.ipynb")
    return run(notebook, {"seed": 7}, folder / "q", progress=False)


@pytest.mark.notebook
@pytest.mark.slow
def test_a_run_is_made_again_with_its_parameters_and_threads(first, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    whole = json.loads((first / "result.json").read_text())
    threads = whole["provenance"]["threads"]
    found = reproduce(first, progress=False)
    assert "OMP_NUM_THREADS" not in os.environ
    assert found.folder == first.with_name("q-reproduced") and found.succeeded
    assert not found.different and not found.near and len(found.equal) == len(found.numbers) > 15
    again = load_result(found.folder)
    assert again["seed"] == 7 and again["test"] == whole["test"]
    assert again["search_seconds"] != whole["search_seconds"]
    assert again["extra"]["threads"] == str(threads)
    nb = nbformat.read(found.folder / "nb.ipynb", as_version=4)
    tags = [cell.metadata.get("tags") for cell in nb.cells]
    assert tags.count(["injected-parameters"]) == 1 and len(nb.cells) == 3
    assert not found.origins


@pytest.mark.notebook
@pytest.mark.slow
def test_what_comes_out_otherwise_is_named_and_the_exit_status_says_so(
    first, tmp_path, monkeypatch
):
    path = first / "result.json"
    whole = json.loads(path.read_text())
    monkeypatch.setenv("NOISE", str(1e-6 * whole["test"]))
    older = whole | {"versions": whole["versions"] | {"torch": "1.0"}}
    path.write_text(json.dumps(older))
    try:
        words = ["reproduce", str(first), "--out", str(tmp_path / "again"), "--quiet"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, done.output
        lines = done.stdout.splitlines()
        assert lines[0] == str(tmp_path / "again" / "result.json")
        assert lines[1].endswith(" values are equal to the bit.")
        (row,) = [line.split() for line in lines if line.startswith("test ")]
        assert float(row[1]) == whole["test"] and row[4] == "1e-06"
        assert any(line.startswith("extra.losses[0]") for line in lines)
        assert any(line.split() == ["torch", "1.0", whole["versions"]["torch"]] for line in lines)
        done = CliRunner().invoke(app, [*words, "--within", "1e-5"])
        assert done.exit_code == 0 and "within 1e-05" in done.stdout
    finally:
        path.write_text(json.dumps(whole))


@pytest.mark.notebook
@pytest.mark.slow
def test_a_run_that_fails_the_second_time_is_a_failed_run(first, tmp_path, monkeypatch):
    monkeypatch.setenv("NOISE", "no number")
    with pytest.raises(RunError, match="failed in cell 2 .*ValueError"):
        reproduce(first, tmp_path / "again", progress=False)
