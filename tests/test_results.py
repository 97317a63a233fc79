"""One result: what may be in it, where it says it comes from, and what is refused by place."""

import json
import math
import os
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_runs import GENOTYPE, RESULT, write_run
from tiny import tiny_task

from bmnas_core import FeatureBank
from bmnas_core.errors import BmnasError
from bmnas_core.experiments import (
    BASELINE_FIELDS,
    RESULT_FIELDS,
    RESULT_FILES,
    ResultError,
    load_result,
    load_run,
    save_run,
)
from bmnas_core.experiments.provenance import cores, git_state, processor_model
from bmnas_core.genotype import Genotype
from bmnas_core.locks import locked
from bmnas_core.metrics import METRICS


def test_save_run_writes_result_genotype_and_picture(tmp_path):
    path = save_run(tmp_path / "new" / "out", result=RESULT, genotype=GENOTYPE)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(RESULT_FILES)
    result = load_result(path.parent)
    assert result == load_result(path)
    assert {name: result[name] for name in RESULT} == RESULT  # numbers with all their digits
    assert result["direction"] == "max"
    assert sorted(result["versions"]) == ["bmnas", "numpy", "python", "torch"]
    assert Genotype.from_json(json.dumps(result["genotype"])) == GENOTYPE
    assert Genotype.load(path.parent / "genotype.json") == GENOTYPE
    assert "<svg" in (path.parent / "genotype.svg").read_text()


def test_save_run_keeps_further_fields_and_takes_numbers_of_numpy_and_torch(tmp_path):
    path = save_run(
        tmp_path,
        result={**RESULT, "test": np.float32(0.5), "params": torch.tensor(7), "sizes": (1, 2)},
        genotype=GENOTYPE,
    )
    result = load_result(path)
    assert (result["test"], result["params"], result["sizes"]) == (0.5, 7, [1, 2])


@pytest.mark.parametrize("field", RESULT_FIELDS)
def test_save_run_refuses_a_result_without(tmp_path, field):
    result = {name: value for name, value in RESULT.items() if name != field}
    refused(tmp_path, result, f"result: found no field {field}; allowed: at least task, rule")


@pytest.mark.parametrize("field", BASELINE_FIELDS)
def test_save_run_refuses_a_baseline_without(tmp_path, field):
    entry = {name: 1 for name in BASELINE_FIELDS if name != field}
    refused(
        tmp_path,
        {**RESULT, "baselines": {"late fusion": entry}},
        rf"result.baselines\['late fusion'\]: found no field {field}; ",
    )


@pytest.mark.parametrize(
    "change, place",
    [
        ({"test": math.nan}, "result.test: found nan"),
        ({"test": None}, "result.test: found None"),
        ({"protocol": 3}, "result.protocol: found 3"),
        ({"seed": "0"}, "result.seed: found '0'"),
        ({"params": "12"}, "result.params: found '12'"),
        ({"train_seconds": math.inf}, "result.train_seconds: found inf"),
        ({"history": [0.5, {"loss": math.nan}]}, r"result.history\[1\].loss: found nan"),
        ({"device": object()}, "result.device: found <object .*>"),
        ({"counts": {1: 2}}, "result.counts: found key 1"),
        ({"baselines": 3}, "result.baselines: found 3"),
        ({"baselines": []}, r"result.baselines: found \[\]"),
        ({"baselines": {"late": 0.3}}, r"result.baselines\['late'\]: found 0.3"),
    ],
)
def test_save_run_refuses_what_is_not_a_finite_plain_value(tmp_path, change, place):
    refused(tmp_path, {**RESULT, **change}, f"{place}; allowed: ")


def refused(tmp_path, result, message):
    with pytest.raises(ResultError, match=message):
        save_run(tmp_path / "out", result=result, genotype=GENOTYPE)
    assert not (tmp_path / "out").exists()


def test_save_run_writes_nothing_unless_it_can_write_all(tmp_path, monkeypatch):
    with pytest.raises(ResultError, match="genotype: found 'sum'; allowed: a Genotype"):
        save_run(tmp_path / "out", result=RESULT, genotype="sum")

    def broken(genotype):
        raise BmnasError("no picture")

    monkeypatch.setattr(sys.modules["bmnas_core.draw"], "draw", broken)
    with pytest.raises(BmnasError, match="no picture"):
        save_run(tmp_path / "out", result=RESULT, genotype=GENOTYPE)
    assert not (tmp_path / "out").exists()


def test_save_run_leaves_no_part_of_a_file_when_writing_fails(tmp_path, monkeypatch):
    save_run(tmp_path, result=RESULT, genotype=GENOTYPE)
    before = (tmp_path / "result.json").read_text()

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        save_run(tmp_path, result={**RESULT, "test": 0.1}, genotype=GENOTYPE)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(RESULT_FILES)
    assert (tmp_path / "result.json").read_text() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": "digits"}'])
def test_load_result_refuses_a_file_that_is_no_result(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ResultError, match="result.json: found "):
        load_result(tmp_path)


def test_load_result_names_a_missing_file(tmp_path):
    with pytest.raises(ResultError, match="result.json: found No such file"):
        load_result(tmp_path)


# --- what is refused, when it is written and when it is read

SHORT = {"metric": "rmse", "test": 1.5, "baselines": {}}
WRONG = {
    "accuracy above 1": ({"test": 1.7}, ".test: found 1.7; allowed: at most 1"),
    "F1 below 0": ({"metric": "f1", "test": -1.0}, ".test: found -1.0; allowed: at least 0"),
    "error below 0": (SHORT | {"test": -0.1}, ".test: found -0.1; allowed: at least 0"),
    "R² above 1": (SHORT | {"metric": "r2"}, ".test: found 1.5; allowed: at most 1"),
    "a baseline's score": (
        {"baselines": {"GMU": {"test": 1.1, "params": 1, "seconds": 1}}},
        ".baselines['GMU'].test: found 1.1; allowed: at most 1",
    ),
    "a baseline's seconds": (
        {"baselines": {"GMU": {"test": 0.1, "params": 1, "seconds": -1}}},
        ".baselines['GMU'].seconds: found -1; allowed: 0 or more",
    ),
    "negative parameters": ({"params": -1}, ".params: found -1; allowed: 0 or more"),
    "too many parameters": ({"params": 1e300}, ".params: found 1e+300; allowed: at most 1e+15"),
    "negative search": ({"search_seconds": -0.5}, ".search_seconds: found -0.5; allowed: 0 or"),
    "negative training": ({"train_seconds": -2}, ".train_seconds: found -2; allowed: 0 or more"),
    "control characters": ({"task": "dig\x1b[31mits"}, ".task: found 'dig\\x1b[31mits'; allowed"),
    "a line break": ({"rule": "sum\nsame"}, ".rule: found 'sum\\nsame'; allowed: printable"),
    "an override of direction": ({"metric": "a\u202eb"}, ".metric: found 'a\\u202eb'; allowed: p"),
    "an empty name": ({"protocol": ""}, ".protocol: found ''; allowed: printable text"),
    "a name without end": ({"task": "x" * 201}, "allowed: printable text of 1 to 200 characters"),
    "a baseline's name": (
        {"baselines": {"a\tb": {"test": 0.1, "params": 1, "seconds": 1}}},
        ".baselines['a\\tb']: found 'a\\tb'; allowed: printable",
    ),
    "a device's name": ({"device": "cpu\x07"}, ".device: found 'cpu\\x07'; allowed: printable"),
    "a lone surrogate": ({"task": "\udcff"}, ".task: found '\\udcff'; allowed: "),
    "a surrogate in a key": ({"notes": {"\udcff": 1}}, ".notes: found key '\\udcff'; allowed: str"),
    "a gigantic integer": ({"seed": 10**30}, ".seed: found an integer of more than 64 bits"),
    "a direction": ({"metric": "own", "direction": "up"}, ".direction: found 'up'; allowed: 'max'"),
    "the other direction": ({"direction": "min"}, ".direction: found 'min'; allowed: 'max'"),
    "the learned network as a baseline": (
        {"baselines": {"learned by BM-NAS": {"test": 0.1, "params": 1, "seconds": 1}}},
        ".baselines: found 'learned by BM-NAS'; allowed: names of baselines",
    ),
    "true for a number": ({"test": True}, ".test: found True; allowed: a number"),
    "text for an origin": ({"provenance": "here"}, ".provenance: found 'here'; allowed: a dict"),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_what_no_run_can_have_found_is_refused_by_place(tmp_path, change, message):
    whole = {k: v for k, v in (RESULT | change).items() if v is not None}
    with pytest.raises(ResultError) as caught:
        save_run(tmp_path / "out", result=whole, genotype=GENOTYPE)
    assert message in str(caught.value) and str(caught.value).startswith("result")
    assert not (tmp_path / "out").exists()
    path = write_run(tmp_path / "read", **change) / "result.json"
    with pytest.raises(ResultError) as caught:
        load_result(path)
    assert message in str(caught.value) and str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"test": 0.5, "test": 0.9}', "field test twice; allowed: each field once"),
        ('{"a": {"b": 1, "b": 1}}', "field a.b twice; allowed: each field once"),
        ("[" * 100_000, "found no JSON (nested too deeply"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "very deep nesting; allowed: 32 levels"),
        ('{"seed": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"test": NaN}', ".test: found nan; allowed: finite numbers"),
        ('{"test": 1e999}', ".test: found inf; allowed: finite numbers"),
        ('{"test": 0.5', "Expecting"),
        ("null", "found None; allowed: a dict"),
    ],
)
def test_json_that_is_no_result_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ResultError) as caught:
        load_result(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'result.json'}") and message in said and "\n" not in said


def test_files_that_cannot_be_read_as_text_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ResultError, match="result.json: found 'utf-8' codec"):
        load_result(path)
    monkeypatch.setattr("bmnas_core.experiments.results.MAX_BYTES", 3)
    with pytest.raises(ResultError, match="found more than 3 bytes; allowed: a result.json"):
        load_result(path)
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # reading it would wait for ever
        with pytest.raises(ResultError, match="found no file, but a device, a pipe or a socket"):
            load_result(path)


def test_a_list_that_holds_itself_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    refused(tmp_path, {**RESULT, "history": loop}, "found very deep nesting; allowed: 32 levels")


@pytest.mark.parametrize("score", [0.0, 1.0, 1 + 1e-15, -1e-15])
def test_scores_at_the_limits_are_kept_as_they_are(tmp_path, score):
    path = save_run(tmp_path, result={**RESULT, "test": score}, genotype=GENOTYPE)
    assert load_result(path)["test"] == score


def test_a_metric_that_is_not_registered_has_no_limits_and_the_direction_it_says(
    tmp_path,
):
    assert "own" not in METRICS
    result = load_result(write_run(tmp_path / "a", metric="own", direction="min", test=12.5))
    assert (result["test"], result["direction"]) == (12.5, "min")


def test_an_older_result_gets_the_direction_of_its_metric(tmp_path):
    errors = {"metric": "rmse", "test": 12.5, "baselines": {}}
    assert load_result(write_run(tmp_path / "a", **errors))["direction"] == "min"
    assert load_result(write_run(tmp_path / "b"))["direction"] == "max"


# --- provenance


def test_a_result_says_what_it_was_made_of_and_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = tiny_task()
    bank = FeatureBank(task, device="cpu")
    how = {"bank": bank, "parameters": {"lr": 0.1, "sizes": (1, 2)}}
    result = load_result(save_run(tmp_path / "out", result=RESULT, genotype=GENOTYPE, **how))
    origin = result["provenance"]
    assert datetime.fromisoformat(origin["time"]).tzinfo is not None
    assert abs(datetime.fromisoformat(origin["time"]).timestamp() - datetime.now().timestamp()) < 60
    assert origin["parameters"] == {"lr": 0.1, "sizes": [1, 2]}
    assert origin["threads"] == torch.get_num_threads()
    assert origin["processor"] == {"model": processor_model(), "cores": cores()}
    assert origin["gpu"] is None and origin["platform"] == platform.platform()
    assert origin["git"]["here"] is None
    assert origin["data"] == {
        "content_hash": bank.content_hash,
        "samples": {"train": 48, "validation": 24, "test": 24},
        "items_left_out": 0,
    }
    assert result["versions"]["torch"] == torch.__version__


def test_the_fingerprint_of_data_differs_with_one_label(tmp_path):
    found = []
    for label in (0, 1):
        task = tiny_task()
        task.splits["test"].labels[0] = label
        how = {"bank": FeatureBank(task, device="cpu")}
        path = save_run(tmp_path, result=RESULT, genotype=GENOTYPE, **how)
        found.append(load_result(path)["provenance"]["data"]["content_hash"])
    assert found[0] != found[1]


def git(folder, *words):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_commit_and_whether_the_tree_is_clean(tmp_path):
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("a = 1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new").touch()
    assert git_state(tmp_path / "runs") == {"commit": commit, "clean": True}
    (tmp_path / "a.py").write_text("a = 2")
    assert git_state(tmp_path) == {"commit": commit, "clean": False}
    assert git_state(tmp_path, "a.py")["commit"] == commit
    assert git_state(tmp_path / "runs", "new") is None  # a package installed inside a checkout


def test_without_git_or_a_folder_there_is_no_commit(tmp_path, monkeypatch):
    assert git_state(tmp_path / "none") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_a_result_takes_its_parameters_from_the_run_that_is_under_way(tmp_path):
    write_run(tmp_path / "out", parameters={"seed": 3, "rule": "sum"}, status="running")

    def saved():
        path = save_run(tmp_path / "out", result=RESULT, genotype=GENOTYPE)
        return load_result(path)["provenance"]["parameters"]

    with locked(tmp_path / "out"):
        assert saved() == {"seed": 3, "rule": "sum"}
    assert saved() is None  # an earlier run that was killed; somebody works in the notebook now
    (tmp_path / "out" / "run.json").write_text("damaged")
    assert saved() is None


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"lr": math.nan}, "parameters.lr: found nan"),
        ({"a b": 1}, "parameters: found key 'a b'; allowed: names of variables"),
        ({1: 1}, "parameters: found key 1; allowed: strings"),
        ([1], "parameters: found .1.; allowed: a Mapping"),
    ],
)
def test_parameters_that_are_not_plain_are_refused(tmp_path, parameters, message):
    with pytest.raises(ResultError, match=message):
        save_run(tmp_path / "out", result=RESULT, genotype=GENOTYPE, parameters=parameters)
    assert not (tmp_path / "out").exists()


def test_a_bank_that_is_none_is_refused(tmp_path):
    with pytest.raises(ResultError, match="bank: found 'bank'; allowed: a FeatureBank"):
        save_run(tmp_path / "out", result=RESULT, genotype=GENOTYPE, bank="bank")


# --- run.json


def test_a_run_says_how_it_ended_and_a_killed_one_is_found_out(tmp_path):
    assert load_run(tmp_path) is None
    for status in ("done", "failed", "out of time", "interrupted"):
        folder = write_run(tmp_path / status, parameters={"a": 1}, status=status)
        assert load_run(folder)["status"] == status
    folder = write_run(tmp_path / "on", parameters={}, status="running")
    with locked(folder):
        assert load_run(folder)["status"] == "running"
    assert load_run(folder)["status"] == "killed"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "other"}, "run.json: found format 'other'; allowed: 'bmnas-run/1'"),
        ({"format": None}, "run.json: found format None; allowed: 'bmnas-run/1'"),
        ({"status": "well"}, "run.json: status: found 'well'; allowed: running, done"),
        ({"status": ["done"]}, "run.json: status: found \\['done'\\]; allowed: text"),
        ({"parameters": []}, "run.json: parameters: found .*; allowed: a dict"),
        ({"parameters": {"a-b": 1}}, "run.json: parameters: found key 'a-b'; allowed: names of"),
        ({"seconds": -1}, "run.json: seconds: found -1; allowed: 0 or more"),
        ({"error": 3}, "run.json: error: found 3; allowed: text"),
        ({"notebook": None}, "run.json: notebook: found None; allowed: text"),
    ],
)
def test_a_run_json_of_another_kind_is_refused_by_place(tmp_path, change, message):
    path = write_run(tmp_path / "a", parameters={"a": 1}) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ResultError, match=message):
        load_run(path.parent)
