"""Many runs in one table: what is grouped, what is paired, what is refused, what is listed."""

import json
import math
import statistics
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from command_line import bmnas, bmnas_fails
from saved_runs import RESULT, write_notebook, write_run

import bmnas_core as bm
from bmnas_core.errors import BmnasError
from bmnas_core.experiments import ResultError, RunError, run, t_interval
from bmnas_core.experiments.results import LEARNED
from bmnas_core.locks import locked

SCORES = {"pair": [0.90, 0.92, 0.91, 0.95, 0.93], "paper": [0.89, 0.90, 0.91, 0.90, 0.90]}
#: Student's t for four degrees of freedom, two-sided 95 %, from a printed table.
T4 = 2.776


def baseline(test, **more):
    return {"test": test, "params": 20, "seconds": 1.5} | more


@pytest.fixture
def sweep(tmp_path):
    """Five seeds under two relaxations; late fusion is behind by 0.1, and by 0.2 for odd seeds."""
    for relaxation, scores in SCORES.items():
        for seed, score in enumerate(scores):
            parameters = {"relaxation": relaxation, "seed": seed, "rule": "sum", "epochs": 15}
            late = baseline(round(score - 0.1 - 0.1 * (seed % 2), 6), search_seconds=0.5)
            write_run(
                tmp_path / "s" / f"{relaxation}-{seed}",
                parameters=parameters,
                seed=seed,
                test=score,
                baselines={"late fusion": late},
            )
    return tmp_path / "s"


def cells(text):
    """The words of a table's lines, by two or more spaces."""
    return [[word.strip() for word in line.split("  ") if word.strip()] for line in text]


# --- the table of runs


def test_a_sweep_becomes_a_row_for_each_run_and_network(sweep):
    found = bm.collect(sweep)
    assert len(found.done) == 10 and not found.others and found.settings == ("relaxation",)
    assert list(found.runs.columns) == [
        *("task", "rule", "protocol", "relaxation", "metric", "direction", "seed", "network"),
        *("test", "params", "seconds", "search_seconds", "train_seconds", "device", "notebook"),
        "folder",
    ]
    assert len(found.runs) == 20
    first, second = found.runs.head(2).to_dict("records")
    assert (first["network"], first["seconds"], first["test"]) == (LEARNED, 30.0, 0.90)
    assert (first["relaxation"], first["seed"], first["device"]) == ("pair", 0, "cpu")
    assert (second["network"], second["search_seconds"], second["train_seconds"]) == (
        *("late fusion", 0.5),
        1.0,
    )
    assert first["folder"] == str(sweep / "pair-0") and first["notebook"] == "nb.ipynb"


def test_the_table_is_the_same_as_csv_and_as_parquet(sweep, tmp_path):
    found = bm.collect(sweep)
    csv = pd.read_csv(found.save(tmp_path / "new" / "t.csv"))
    parquet = pd.read_parquet(found.save(tmp_path / "t.parquet"))
    for table in (csv, parquet):
        assert table.pop("protocol").isna().all()
    pd.testing.assert_frame_equal(csv, parquet)
    assert csv["test"].tolist() == found.runs["test"].tolist()
    with pytest.raises(BmnasError, match="t.xlsx: found suffix '.xlsx'; allowed: '.csv', '.parq"):
        found.save(tmp_path / "t.xlsx")


def test_settings_of_any_kind_can_be_written_as_parquet(tmp_path):
    kinds = [
        {"a": 1, "b": True, "c": "x", "d": [1], "e": 1, "f": None},
        {"a": None, "b": None, "c": None, "d": {"k": 1}, "e": 0.5, "f": "y"},
        {"a": 2, "b": False, "c": "z", "d": "text", "e": 2, "f": 7},
    ]
    for k, parameters in enumerate(kinds):
        write_run(tmp_path / "s" / str(k), parameters=parameters)
    found = bm.collect(tmp_path / "s")
    assert found.settings == ("a", "b", "c", "d", "e", "f")
    table = pd.read_parquet(found.save(tmp_path / "t.parquet"))
    own = table[table["network"] == LEARNED].sort_values("folder")
    assert own["a"].isna().tolist() == [False, True, False]
    assert own["d"].tolist() == ["[1]", '{"k": 1}', "text"]
    assert own["e"].tolist() == [1.0, 0.5, 2.0]
    assert [None if pd.isna(x) else x for x in own["f"]] == [None, "y", "7"]


def test_a_parameter_named_as_a_column_keeps_both(tmp_path):
    for k in range(2):
        parameters = {"network": f"n{k}", "test": k, "folder": str(k), "difference": k}
        write_run(tmp_path / "s" / str(k), parameters=parameters)
    found = bm.collect(tmp_path / "s")
    assert found.settings == ("network_", "test_", "folder_", "difference_")
    assert set(found.runs["network"]) == {LEARNED, "late fusion"}
    assert len(found.summary) == 4 and len(bmnas("collect", tmp_path / "s").stdout) > 100


def test_what_repeats_the_task_and_the_rule_is_no_setting_and_neither_are_seed_and_out(tmp_path):
    for k, rule in enumerate(("sum", "same")):
        parameters = {"rule": rule, "task_name": "digits", "seed": k, "out": f"runs/{k}"}
        write_run(tmp_path / "s" / rule, parameters=parameters, rule=rule, seed=k)
    assert bm.collect(tmp_path / "s").settings == ()


def test_results_of_two_notebooks_are_not_averaged(tmp_path):
    for k in range(2):
        path = write_run(tmp_path / "s" / str(k), parameters={}, seed=k) / "run.json"
        path.write_text(path.read_text().replace("nb.ipynb", f"nb{k}.ipynb"))
    found = bm.collect(tmp_path / "s")
    assert found.settings == ("notebook",) and set(found.summary["seeds"]) == {1}


def test_without_run_json_parameters_come_from_the_result(tmp_path):
    for k, rate in enumerate((0.1, 0.2)):
        origin = {"parameters": {"lr": rate}}
        write_run(tmp_path / "s" / str(k), provenance=origin)
    found = bm.collect(tmp_path / "s")
    assert found.settings == ("lr",) and set(found.runs["lr"]) == {0.1, 0.2}


# --- where runs are looked for


def test_folders_are_searched_at_any_depth_but_not_those_of_states_and_of_repetitions(tmp_path):
    write_run(tmp_path / "s" / "a" / "b", seed=1)
    write_run(tmp_path / "s" / "c", seed=2)
    for skipped in ("state", "earlier", ".hidden"):
        write_run(tmp_path / "s" / "c" / skipped, seed=2, test=0.1)
        write_run(tmp_path / "s" / skipped / "d", seed=3)
    again = write_run(tmp_path / "s" / "c-reproduced", seed=2)
    assert sorted(bm.collect(tmp_path / "s").runs["seed"].unique()) == [1, 2]
    assert len(bm.collect(again).done) == 1


def test_a_link_back_does_not_lead_in_a_circle_and_a_folder_named_twice_counts_once(tmp_path):
    write_run(tmp_path / "s" / "a")
    with suppress(OSError):  # Windows may not let us
        (tmp_path / "s" / "again").symlink_to(tmp_path / "s", target_is_directory=True)
    found = bm.collect(tmp_path / "s", tmp_path / "s" / "a", tmp_path / "s" / "a" / "result.json")
    assert len(found.done) == 1


def test_a_run_that_was_moved_to_another_disk_and_linked_is_found(tmp_path):
    write_run(tmp_path / "s" / "a", seed=0)
    write_run(tmp_path / "disk" / "b", seed=1)
    try:
        (tmp_path / "s" / "b").symlink_to(tmp_path / "disk" / "b", target_is_directory=True)
    except OSError:
        pytest.skip("Windows may not let us")
    found = bm.collect(tmp_path / "s")
    assert sorted(found.runs["seed"].unique()) == [0, 1]
    assert found.done[1].folder == tmp_path / "s" / "b"


def test_a_run_inside_another_runs_folder_is_found_too(tmp_path):
    write_run(tmp_path / "outer", parameters={"a": 1}, seed=0)
    write_run(tmp_path / "outer" / "inner", seed=1)
    assert len(bm.collect(tmp_path).done) == 2


def test_a_notebook_that_saves_runs_of_its_own_is_no_run_without_a_result(tmp_path):
    cover = write_run(tmp_path / "13", parameters={})
    (cover / "result.json").unlink()
    assert list(bm.collect(cover).failed["status"]) == ["no result"]
    write_run(cover / "a")
    found = bm.collect(tmp_path)
    assert len(found.done) == 1 and found.failed.empty


def test_a_list_of_folders_is_refused_by_place(tmp_path):
    write_run(tmp_path / "a")
    with pytest.raises(ResultError, match=r"folder 2: found \[.*; allowed: text or a PathLike"):
        bm.collect(tmp_path, [tmp_path])


def test_places_without_runs_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match="empty: found no run; allowed: a folder with a result"):
        bm.collect(tmp_path / "empty")
    with pytest.raises(ResultError, match="none: found No such file"):
        bm.collect(tmp_path / "none")
    with pytest.raises(ResultError, match="found no runs; allowed: at least one folder"):
        bm.collect()


def test_one_damaged_result_is_named(sweep):
    (sweep / "pair-3" / "result.json").write_text('{"task": "digits"}')
    with pytest.raises(ResultError, match="pair-3.result.json: found no field rule"):
        bm.collect(sweep)


def test_two_runs_that_are_equal_in_everything_are_refused(sweep, tmp_path):
    again = write_run(tmp_path / "again", parameters={"relaxation": "pair", "epochs": 15}, seed=3)
    with pytest.raises(ResultError) as caught:
        bm.collect(sweep, again)
    message = f"{again}: found digits, rule sum, seed 3, as in {sweep / 'pair-3'}; allowed: each"
    assert str(caught.value).startswith(message)


def test_runs_without_a_result_are_listed_with_what_is_known(sweep, tmp_path):
    for status in ("failed", "out of time", "interrupted", "running"):
        why = f"cell 4:\x1b[31m {status}" if status != "running" else None
        folder = write_run(sweep / status, parameters={"a": 1}, status=status, error=why)
    (write_run(sweep / "empty", parameters={}) / "result.json").unlink()
    with locked(folder):
        found = bm.collect(sweep)
    assert len(found.done) == 10
    rows = found.failed.set_index("status").to_dict("index")
    assert sorted(rows) == ["failed", "interrupted", "no result", "out of time", "running"]
    assert rows["failed"] == {
        "folder": str(sweep / "failed"),
        "error": "cell 4:\ufffd[31m failed",
        "notebook": "nb.ipynb",
        "parameters": "a 1",
    }
    text = bmnas("collect", sweep).stdout
    assert "Runs without a result" in text and "killed" in text and "\x1b" not in text


def test_runs_of_a_sweep_that_have_not_begun_are_listed_too(sweep):
    about = {"notebook": "nb.ipynb", "notebook_sha256": "0" * 64, "parameters": {"seed": 7}}
    planned = {"format": "bmnas-sweep/1", "specs": [], "runs": {"pair-0": about, "later": about}}
    (sweep / "sweep.json").write_text(json.dumps(planned))
    found = bm.collect(sweep)
    assert len(found.done) == 10
    (row,) = found.failed.to_dict("records")
    assert (row["folder"], row["status"]) == (str(sweep / "later"), "missing")
    assert (row["notebook"], row["parameters"]) == ("nb.ipynb", "seed 7")
    for wrong, message in (
        ([], "sweep.json: found .*; allowed: a dict"),
        ({"runs": 3}, "sweep.json: runs: found 3; allowed: a dict"),
        ({"runs": {"a": {}}}, r"sweep.json: runs\['a'\]: notebook: found None; allowed: text"),
    ):
        (sweep / "sweep.json").write_text(json.dumps(wrong))
        with pytest.raises(ResultError, match=message):
            bm.collect(sweep)


def test_a_run_that_failed_after_it_had_saved_a_result_counts_as_failed(tmp_path):
    folder = write_run(tmp_path / "s" / "a", parameters={})
    record = json.loads((folder / "run.json").read_text()) | {"status": "failed"}
    (folder / "run.json").write_text(json.dumps(record))
    found = bm.collect(tmp_path / "s")
    assert not found.done and list(found.failed["status"]) == ["failed"]
    assert found.runs.empty and found.summary.empty and found.comparisons.empty
    assert "learned" not in bmnas("collect", tmp_path / "s").stdout


# --- mean, deviation, intervals


def test_five_values_have_an_interval_of_2_78_standard_errors():
    values = SCORES["pair"]
    mean, std, low, high = t_interval(values)
    assert mean == pytest.approx(statistics.mean(values))
    assert std == pytest.approx(statistics.stdev(values))
    assert (high - mean) / (std / math.sqrt(5)) == pytest.approx(T4, abs=1e-3)
    assert mean - low == pytest.approx(high - mean)
    assert t_interval([0.5])[0] == 0.5 and all(math.isnan(x) for x in t_interval([0.5])[1:])


def test_intervals_hold_the_mean_in_19_of_20_samples():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        _, _, low, high = t_interval(random.normal(3.0, 2.0, size=5))
        held += low <= 3.0 <= high
    assert 0.935 < held / 2000 < 0.965  # three standard errors; two of them instead of 2.78: 0.884


def test_the_summary_has_mean_deviation_and_interval_of_each_network(sweep):
    table = bm.collect(sweep).summary
    assert table[["relaxation", "network"]].values.tolist() == [
        ["pair", LEARNED],
        ["pair", "late fusion"],
        ["paper", LEARNED],
        ["paper", "late fusion"],
    ]
    row = table.iloc[0]
    reach = T4 * statistics.stdev(SCORES["pair"]) / math.sqrt(5)
    assert row["seeds"] == 5 and row["test"] == pytest.approx(0.922)
    assert row["std"] == pytest.approx(statistics.stdev(SCORES["pair"]))
    assert row["low"] == pytest.approx(0.922 - reach, abs=1e-5)
    assert row["high"] == pytest.approx(0.922 + reach, abs=1e-5)
    assert (row["params"], row["seconds"], row["search_seconds"]) == (12345, 30.0, 20.0)


def test_an_interval_ends_at_the_metrics_limit(tmp_path):
    for seed, score in enumerate((1.0, 0.9)):
        write_run(tmp_path / "s" / str(seed), seed=seed, test=score)
    row = bm.collect(tmp_path / "s").summary.iloc[0]
    assert row["high"] == 1.0 and row["low"] == pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3)


def test_an_accuracy_is_never_averaged_with_an_f1_nor_max_with_min(tmp_path):
    ways = [("accuracy", "max"), ("weighted_f1", "max"), ("own", "max"), ("own", "min")]
    for metric, direction in ways:
        for seed in range(2):
            how = {"metric": metric, "direction": direction, "seed": seed, "rule": None}
            write_run(tmp_path / "s" / f"{metric}{direction}{seed}", **how)
    table = bm.collect(tmp_path / "s").summary
    learned = table[table["network"] == LEARNED]
    assert sorted(learned[["metric", "direction"]].values.tolist()) == sorted(map(list, ways))
    assert set(learned["seeds"]) == {2}


def test_the_best_comes_first_by_the_direction_of_the_metric(tmp_path):
    rows = {"metric": "own", "test": 0.5, "baselines": {"late fusion": baseline(1.5)}}
    write_run(tmp_path / "min", **rows, direction="min")
    write_run(tmp_path / "max", **rows, direction="max")
    table = bm.collect(tmp_path).summary.groupby("direction")["network"].agg(list)
    assert table["min"] == [LEARNED, "late fusion"] and table["max"] == ["late fusion", LEARNED]


# --- paired comparisons


def test_baselines_are_compared_with_the_learned_network_on_the_same_seeds(sweep):
    table = bm.collect(sweep).comparisons
    row = table[(table["compared"] == "network") & (table["relaxation"] == "pair")].squeeze()
    gaps = [-0.1, -0.2, -0.1, -0.2, -0.1]
    assert (row["base"], row["other"], row["seeds"]) == (LEARNED, "late fusion", 5)
    assert row["difference"] == pytest.approx(-0.14)
    assert row["std"] == pytest.approx(statistics.stdev(gaps))
    reach = T4 * statistics.stdev(gaps) / math.sqrt(5)
    assert row["high"] == pytest.approx(-0.14 + reach, abs=1e-4)
    assert row["low"] == pytest.approx(-0.14 - reach, abs=1e-4)


def test_settings_are_compared_on_the_seeds_that_both_have(sweep):
    (sweep / "paper-3" / "result.json").unlink()
    table = bm.collect(sweep).comparisons
    (row,) = table[table["compared"] == "relaxation"].to_dict("records")
    gaps = [b - a for a, b in zip(SCORES["pair"], SCORES["paper"], strict=True)]
    del gaps[3]
    assert (row["base"], row["other"], row["seeds"]) == ("pair", "paper", 4)
    assert row["difference"] == pytest.approx(statistics.mean(gaps))
    assert row["std"] == pytest.approx(statistics.stdev(gaps))
    assert pd.isna(row["relaxation"])


def test_only_one_setting_differs_between_two_sides(tmp_path):
    for lr in (0.1, 0.2):
        for width in (16, 32):
            for seed in range(2):
                score = 0.5 + lr + width / 1000 + seed / 100
                parameters = {"lr": lr, "width": width}
                folder = tmp_path / "s" / f"{lr}-{width}-{seed}"
                write_run(folder, parameters=parameters, seed=seed, test=score, baselines={})
    table = bm.collect(tmp_path / "s").comparisons
    named = [
        (row["compared"], row["lr"], row["width"], row["base"], row["other"], row["seeds"])
        for row in table.astype(object).where(table.notna(), None).to_dict("records")
    ]
    assert named == [
        ("lr", None, 16, "0.1", "0.2", 2),
        ("lr", None, 32, "0.1", "0.2", 2),
        ("width", 0.1, None, "16", "32", 2),
        ("width", 0.2, None, "16", "32", 2),
    ]
    assert table["difference"].tolist() == pytest.approx([0.1, 0.1, 0.016, 0.016])
    assert (table["low"] - table["difference"]).abs().max() < 1e-6  # seeds differ alike


def test_few_values_are_compared_in_all_pairs_many_with_the_first_one(tmp_path):
    for k in range(3):
        write_run(tmp_path / "few" / str(k), parameters={"k": k}, baselines={})
    for k in range(9):
        write_run(tmp_path / "many" / str(k), parameters={"k": k}, baselines={})
    few = bm.collect(tmp_path / "few").comparisons
    assert few[["base", "other"]].values.tolist() == [["0", "1"], ["0", "2"], ["1", "2"]]
    many = bm.collect(tmp_path / "many").comparisons
    assert many["base"].tolist() == ["0"] * 8 and many["low"].isna().all()


def test_a_baseline_that_some_runs_lack_is_paired_where_it_is(tmp_path):
    for seed in range(3):
        own = {"late fusion": baseline(0.3)} | ({"GMU": baseline(0.5)} if seed else {})
        write_run(tmp_path / "s" / str(seed), seed=seed, baselines=own, test=0.6)
    table = bm.collect(tmp_path / "s").comparisons.set_index("other")
    assert table["seeds"].to_dict() == {"GMU": 2, "late fusion": 3}
    assert table.loc["GMU", "difference"] == pytest.approx(-0.1)


# --- in a shell


def test_collect_prints_the_summary_best_first_and_the_differences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    late = {"late fusion": baseline(0.33)}
    write_run(tmp_path / "a", seed=0, test=0.90, baselines=late)
    write_run(tmp_path / "b", seed=1, test=0.94, baselines=late)
    write_run(tmp_path / "c", seed=0, rule=None, test=0.5, baselines={})
    done = bmnas("collect", "a", "b", "c", "-o", "table.csv", "--report", "page.html")
    assert done.exit_code == 0 and done.stderr == ""
    assert cells(done.stdout.splitlines()) == [
        ["task", "rule", "metric", "network", "seeds", "test", "95 % interval", "parameters",
         "seconds"],
        ["digits", "sum", "accuracy", LEARNED, "2", "0.9200 ± 0.0283", "0.6659 … 1.0000", "12,345",
         "30.0"],
        ["digits", "sum", "accuracy", "late fusion", "2", "0.3300 ± 0.0000", "0.3300 … 0.3300",
         "20", "1.5"],
        ["digits", "–", "accuracy", LEARNED, "1", "0.5000", "–", "12,345", "30.0"],
        [],
        ["Networks, on the same seeds"],
        ["task", "rule", "metric", "difference", "seeds", "mean [95 % interval]"],
        ["digits", "sum", "accuracy", f"late fusion − {LEARNED}", "2",
         "−0.590 [−0.844, −0.336]"],
    ]  # fmt: skip
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[1].startswith("digits,sum,,accuracy,max,0,learned by BM-NAS,0.9,12345,30.0,20.0")
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_seconds_of_resumed_runs_are_a_dash_and_count_in_no_mean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", seed=0, baselines={}, provenance={"resumed": 5.0})
    (line,) = bmnas("collect", "a").stdout.splitlines()[1:]
    assert line.split()[-1] == "–"
    write_run(tmp_path / "b", seed=1, baselines={})
    line = bmnas("collect", "a", "b").stdout.splitlines()[1]
    assert line.split()[-1] == "30.0"


def test_collect_tells_protocols_apart_and_shows_them_as_the_rule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ntu = {"task": "ntu", "rule": None, "baselines": {}}
    write_run(tmp_path / "a", **ntu, protocol="cross-subject", test=0.8)
    write_run(tmp_path / "b", **ntu, protocol="cross-view", test=0.9)
    write_run(tmp_path / "c", **ntu, test=0.7)
    done = bmnas("collect", "a", "b", "c")
    rules = [line.split()[1] for line in done.stdout.splitlines()]
    assert rules == ["rule", "cross-subject", "cross-view", "–"]
    write_run(tmp_path / "d", **ntu, protocol="cross-view")
    error = bmnas_fails("collect", "b", "d")
    assert "d: found ntu, protocol cross-view, seed 0, as in b; allowed: each seed" in error


def test_collect_writes_nothing_if_something_is_wrong(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = bmnas_fails("collect", sweep, "-o", "t.csv", "--report", "page.pdf")
    assert "page.pdf: found suffix '.pdf'; allowed: '.html', '.htm'" in error
    assert "t.json: found suffix '.json'" in bmnas_fails("collect", sweep, "-o", "t.json")
    (sweep / "pair-0" / "result.json").write_text(json.dumps(RESULT | {"test": 1.7}))
    error = bmnas_fails("collect", sweep, "-o", "t.csv", "--report", "page.html")
    assert f"{sweep / 'pair-0' / 'result.json'}.test: found 1.7; allowed: at most 1" in error
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_collect_says_in_what_the_runs_differ(sweep):
    for seed in range(3):
        path = sweep / f"pair-{seed}" / "result.json"
        whole = json.loads(path.read_text()) | {"versions": {"torch": f"2.{seed % 2}"}}
        path.write_text(json.dumps(whole | {"provenance": {"threads": 4, "git": "?"}}))
    assert "The runs differ in: torch (2 values)" in bmnas("collect", sweep).stdout
    assert bm.collect(sweep).origins()["threads"] == {"4": 3}


@pytest.mark.notebook
@pytest.mark.slow
def test_what_real_runs_leave_is_collected_with_their_parameters_and_errors(tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path / "nb.ipynb")
    for rate in (0.5, 0.7):
        run(notebook, {"rate": rate}, tmp_path / "s" / f"rate={rate}", progress=False)
    monkeypatch.setenv("NOISE", "no number")
    with pytest.raises(RunError):
        run(notebook, {}, tmp_path / "s" / "bad", progress=False)
    found = bm.collect(tmp_path / "s")
    assert found.settings == ("rate",) and found.runs["rate"].tolist() == [0.5, 0.5, 0.7, 0.7]
    (row,) = found.comparisons.query("compared == 'rate'").to_dict("records")
    assert (row["base"], row["other"], row["difference"]) == ("0.5", "0.7", 0.0)
    (failed,) = found.failed.to_dict("records")
    assert failed["status"] == "failed" and "ValueError: could not convert" in failed["error"]
    assert failed["parameters"] == "seed 0, rate 0.5"
    saved = found.done[0].result["provenance"]
    assert saved["parameters"] == {"seed": 0}  # what the notebook itself has named
