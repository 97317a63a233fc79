import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import dask
import nbformat
import psutil
import pytest
import yaml
from saved_runs import write_run

import bmnas_core as bm
from bmnas_core.errors import BmnasError
from bmnas_core.experiments import SpecError, SweepError, load_result, read_spec
from bmnas_core.experiments.expressions import Expression, ExpressionError
from bmnas_core.experiments.spec import MAX_NAME, run_key
from bmnas_core.experiments.sweep import _planned

PARAMETERS = """\
rule = "same"
relaxation = "pair"
lr = 0.1
C = 8
sample = False
operations = ["sum"]
subset = None
seed = 0
out = ""
"""
ROOT = Path(bm.__file__).parents[1]


def write_notebook(path, *cells, parameters=PARAMETERS):
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    nb.cells[0].metadata.tags = ["parameters"]
    nbformat.write(nb, path)
    return path


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "nb.ipynb")


def spec_of(text):
    Path("s.yaml").write_text(f"notebook: nb.ipynb\n{text}")
    return read_spec("s.yaml")


def names_of(text):
    return spec_of(text).names((), {})


# --- specs


def test_a_grid_with_seeds_and_a_filter_is_every_combination_that_it_keeps(notebook):
    spec = spec_of("""
parameters: {C: 16}
grid:
  rule: [sum, same]
  relaxation: [paper, pair]
seeds: 2
filter: rule == "sum" or relaxation == "pair"
""")
    assert spec.names((), {}) == [
        "relaxation=paper,rule=sum,seed=0",
        "relaxation=paper,rule=sum,seed=1",
        "relaxation=pair,rule=sum,seed=0",
        "relaxation=pair,rule=sum,seed=1",
        "relaxation=pair,rule=same,seed=0",
        "relaxation=pair,rule=same,seed=1",
    ]
    assert spec.runs[0] == {
        "rule": "sum", "relaxation": "paper", "lr": 0.1, "C": 16, "sample": False,
        "operations": ["sum"], "subset": None, "seed": 0,
    }  # fmt: skip


def test_a_list_is_taken_as_written_with_defaults_for_what_an_entry_lacks(notebook):
    spec = spec_of("list: [{rule: sum, C: 4}, {lr: 1}, {C: 4}]\nseeds: [7]\ntime_limit: 60")
    found = [(run["rule"], run["C"], run["lr"], run["seed"]) for run in spec.runs]
    assert found == [("sum", 4, 0.1, 7), ("same", 8, 1.0, 7), ("same", 4, 0.1, 7)]
    assert spec.time_limit == 60.0 and spec.timeout is None
    assert names_of("") == ["run"]


SPACES = "{lr: {log_uniform: [1e-4, 1e-1]}, C: {integers: [3, 5]}, rule: [sum, same]}"


@pytest.mark.parametrize("kind", ["random", "sobol"])
def test_a_sample_stays_in_its_space_covers_it_and_depends_on_its_seed_alone(notebook, kind):
    text = f"{kind}: {{count: 50, seed: 3, parameters: {SPACES}}}"
    runs = spec_of(text).runs
    assert len(runs) == 50 and spec_of(text).runs == runs
    assert spec_of(text.replace("seed: 3", "seed: 4")).runs != runs
    assert all(1e-4 <= run["lr"] <= 1e-1 for run in runs)
    assert {run["C"] for run in runs} == {3, 4, 5}
    assert {run["rule"] for run in runs} == {"sum", "same"}
    below = sum(run["lr"] < 10**-2.5 for run in runs)  # the middle, by the logarithm
    assert abs(below - 25) <= (2 if kind == "sobol" else 12)


def test_a_uniform_range_is_even_and_points_that_are_drawn_twice_count_once(notebook):
    runs = spec_of("random: {count: 200, parameters: {lr: {uniform: [-1, 3]}}}").runs
    values = [run["lr"] for run in runs]
    assert -1 <= min(values) < -0.9 and 2.9 < max(values) <= 3
    assert 0.8 < sum(values) / len(values) < 1.2
    assert len(spec_of("random: {count: 99, parameters: {C: {integers: [1, 3]}}}").runs) == 3


def test_several_ways_to_vary_are_combined(notebook):
    text = """
grid: {rule: [sum, same]}
list: [{C: 1}, {C: 2}]
random: {count: 3, parameters: {lr: {uniform: [0, 1]}}}
seeds: 2
"""
    runs = spec_of(text).runs
    assert len(runs) == 2 * 2 * 3 * 2
    of_rule = [[r["lr"] for r in runs if r["rule"] == rule] for rule in ("sum", "same")]
    assert of_rule[0] == of_rule[1]


@pytest.mark.parametrize(
    "text, value",
    [
        ("lr: 1e-3", 0.001),
        ("lr: 1", 1.0),
        ("lr: .5", 0.5),
        ("rule: no", "no"),
        ("rule: on", "on"),
        ("rule: 2026-01-01", "2026-01-01"),
        ("rule: '1'", "1"),
        ("C: 010", 10),
        ("sample: true", True),
        ("subset: ~", None),
        ("subset: 1:30", "1:30"),
        ("operations: [sum, zero]", ["sum", "zero"]),
    ],
)
def test_plain_values_are_what_people_mean_by_them(notebook, text, value):
    name = text.partition(":")[0]
    found = spec_of(f"parameters: {{{text}}}").runs[0][name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("grd: {rule: [sum]}", "s.yaml: found field 'grd' (did you mean 'grid'?); allowed: note"),
        ("grid: [rule]", "s.yaml: grid: found ['rule']; allowed: a dict"),
        ("grid: {rule: sum}", "s.yaml: grid.rule: found 'sum'; allowed: a list"),
        ("grid: {rule: []}", "s.yaml: grid.rule: found an empty list; allowed: at least one"),
        ("grid: {rul: [sum]}", "s.yaml: grid.rul: nb.ipynb: found no parameter 'rul' (did you"),
        ("grid: {C: [1, two]}", "s.yaml: grid.C[1]: parameter C: found 'two'; allowed: an integer"),
        ("grid: {C: [1, 2, 1]}", "s.yaml: grid.C[2]: found {'C': 1} again; allowed: each once"),
        ("grid: {lr: [1, 1.0]}", "s.yaml: grid.lr[1]: found {'lr': 1.0} again"),
        ("grid: {out: [a]}", "s.yaml: grid.out: parameter out: set by the run itself"),
        ("list: [{C: 8}, {}]", "s.yaml: list[1]: found {} again; allowed: each once"),
        ("list: [3]", "s.yaml: list[0]: found 3; allowed: a dict"),
        ("seeds: 0", "s.yaml: seeds: found 0; allowed: 1 … 10,000"),
        ("seeds: true", "s.yaml: seeds: found True; allowed: an integer or a list"),
        ("seeds: [0, a]", "s.yaml: seeds[1]: parameter seed: found 'a'"),
        ("seeds: 2\ngrid: {seed: [1]}", "s.yaml: seeds: found 'seed', as in grid.seed; allowed:"),
        ("seeds: 101\ngrid: {C: " + str([*range(100)]) + "}",
         "s.yaml: found 10,100 runs; allowed: at most 10,000"),
        ("random: {count: 1e9, parameters: {}}", "s.yaml: random: count: found 1000000000.0; all"),
        ("random: {count: 100000000, parameters: {C: [1]}}", "random.count: found 100,000,000; al"),
        ("random: {count: 3}", "s.yaml: random: found no field parameters"),
        ("random: {count: 3, parameters: {}}", "s.yaml: random.parameters: found none"),
        ("random: {count: 3, seed: -1, parameters: {C: [1]}}", "random.seed: found -1; allowed:"),
        ("random: {count: 3, parameters: {C: 3}}", "random.parameters.C: found 3; allowed: a list"),
        ("random: {count: 3, parameters: {C: {normal: [0, 1]}}}", "parameters.C: found {'normal':"),
        ("random: {count: 3, parameters: {C: {integers: [5, 3]}}}", "C.integers: found [5, 3]; al"),
        ("random: {count: 3, parameters: {C: {integers: [1.5, 3]}}}", "C.integers[0]: found 1.5; "),
        ("random: {count: 3, parameters: {C: {integers: [0, 1%s]}}}" % ("0" * 16), "C.integers: f"),
        ("random: {count: 3, parameters: {lr: {log_uniform: [0, 1]}}}", "allowed: 0 < low < high"),
        ("random: {count: 3, parameters: {lr: {uniform: [0, 1e999]}}}", "s.yaml"),
        ("random: {count: 3, parameters: {C: {uniform: [0, 1]}}}", "random[0]: parameter C: found"),
        ("timeout: 0", "s.yaml: timeout: found 0; allowed: seconds, more than 0"),
        ("timeout: soon", "s.yaml: timeout: found 'soon'; allowed: an integer"),
        ("time_limit: -1", "s.yaml: time_limit: found -1.0; allowed: seconds, more than 0"),
        ("filter: rule = 'sum'", "s.yaml: filter: found \"rule = 'sum'\"; allowed: names of"),
        ("filter: rul == 'sum'", "s.yaml: filter: found no parameter 'rul' (did you mean 'rule'?)"),
        ("filter: rule == 'other'", "s.yaml: filter: found no run for which it is true"),
        ("filter: 3", "s.yaml: filter: found 3; allowed: text"),
        ("grid: {C: [1]}\ngrid: {C: [2]}", "s.yaml, line 3: found key 'grid' again"),
        ("grid: {C: [1], C: [2]}", "s.yaml, line 2: found key 'C' again; allowed: plain YAML"),
        ("grid: {1: [2]}", "s.yaml, line 2: found key 1, no text"),
        ("grid: &a {C: [1]}", "s.yaml, line 2: found an anchor or alias"),
        ("grid: {C: !!int 3}", "s.yaml, line 2: found a tag"),
        ("grid: !!python/object/apply:os.system ['touch here']", "s.yaml, line 2: found a tag"),
        ("grid: {C: [1", "s.yaml, line 2: found no YAML (expected "),
        ("grid: " + "[" * 1500, "s.yaml: found no plain YAML (RecursionError)"),
        ("---\na: 1", "s.yaml, line 2: found but found another document"),
        ("grid: {C: ['\udcff']}", "s.yaml: found no UTF-8"),
        ("x: " + "y" * 300_000, "s.yaml: found more than 100,000 bytes"),
    ],
)  # fmt: skip
def test_a_spec_that_does_not_hold_together_is_refused_by_place(notebook, text, message):
    with pytest.raises(BmnasError) as caught:
        Path("s.yaml").write_text(f"notebook: nb.ipynb\n{text}", errors="surrogateescape")
        bm.sweep("s.yaml", "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir()) == ["nb.ipynb", "s.yaml"]


def test_a_spec_that_is_missing_or_empty_and_one_of_a_missing_notebook_are_refused(notebook):
    Path("empty.yaml").touch()
    Path("other.yaml").write_text("notebook: other.ipynb")
    Path("without.yaml").write_text("seeds: 3")
    for path, message in {
        "none.yaml": "none.yaml: found No such file or directory; allowed: a YAML file",
        ".": ".: found Is a directory",
        "empty.yaml": "empty.yaml: found None; allowed: a dict",
        "without.yaml": "without.yaml: found no field notebook; allowed: notebook, parameters, gr",
        "other.yaml": "other.ipynb: found nothing there; allowed: an .ipynb notebook",
    }.items():
        with pytest.raises(BmnasError, match=re.escape(message)):
            read_spec(path)
    with pytest.raises(SpecError, match="spec: seeds: found 1.5; allowed: an integer or a list"):
        read_spec({"notebook": "nb.ipynb", "seeds": 1.5})
    for spec in ([{"notebook": "nb.ipynb"}], None, 5):
        with pytest.raises(
            SpecError, match="spec: found .*; allowed: text or a PathLike or a dict"
        ):
            read_spec(spec)


def test_the_notebook_is_found_beside_the_spec(notebook):
    Path("below").mkdir()
    Path("below/s.yaml").write_text("notebook: ../nb.ipynb\ngrid: {C: [1, 2]}")
    assert read_spec("below/s.yaml").names((), {}) == ["C=1", "C=2"]
    with pytest.raises(SpecError, match="no parameter 'seed'"):
        write_notebook(notebook, parameters="C = 1")
        spec_of("seeds: 3")


# --- names


@pytest.mark.parametrize(
    "text",
    [
        "grid: {rule: [a, A, á, 'a ', 'a,C=1', 'a/b', 'a:b', '..', 'CON', '', 'x.', '~', 日本]}",
        "grid: {subset: [1, '1', 1.0, true, 'true', null, 'null', [1], '[1]', {a: 1}]}",
        f"grid: {{rule: [{'x' * 200}1, {'x' * 200}2]}}",
        "grid: {rule: [a, b], relaxation: ['x,rule=b', x]}",
        "grid: {lr: [1e-30, 1e+30, 0.1], C: [-1, 1]}",
    ],
)
def test_names_are_different_and_allowed_on_every_system(notebook, text):
    names = names_of(text)
    assert len({name.casefold() for name in names}) == len(names) > 1
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.+,=~-]+", name) and not name.endswith(".")
        assert len(name) <= MAX_NAME + 13
        assert not os.path.exists(name)
        Path(name).mkdir()


def test_a_name_that_is_taken_gets_a_hash_and_one_that_a_run_has_stays(notebook):
    spec = spec_of("grid: {C: [1, 2, 3]}")
    names = spec.names(("c=1",), {})
    assert re.fullmatch("C=1~[0-9a-f]{12}", names[0]) and names[1:] == ["C=2", "C=3"]
    named = {run_key(spec.sha256, spec.runs[1]): "of before"}
    assert spec.names((), named) == ["C=1", "of before", "C=3"]


# --- filters


@pytest.mark.parametrize(
    "text, value",
    [
        ("a == 1 and b == 'x'", True),
        ("not (a > 1 or b != 'x')", True),
        ("0 < a <= 1 < 2", True),
        ("0 < a > 1", False),
        ("b in ['x', 'y'] and 'z' not in c", True),
        ("a + 2 * a - 6 / 2 == -0.0", True),
        ("a % 2 == 1", True),
        ("flag", True),
        ("flag == true and none == null", True),
        ("none is None", ExpressionError),
        ("a", ExpressionError),
        ("none < 3", ExpressionError),
        ("b and flag", ExpressionError),
        ("b * 999999999 == b", ExpressionError),
        ("9 ** 9 ** 9 > a", ExpressionError),
        ("a / 0 == 1", ExpressionError),
        ("c[0] == 'x'", ExpressionError),
        ("b.upper() == 'X'", ExpressionError),
        ("[x for x in c] == c", ExpressionError),
        ("(lambda: flag)()", ExpressionError),
        ("open('here', 'w') == 1", ExpressionError),
        ("__import__('os').system('touch here') == 0", ExpressionError),
        ("b'x' == b", ExpressionError),
        ("1j == a", ExpressionError),
        ("flag; flag", ExpressionError),
        ("(" * 400 + "flag" + ")" * 400, ExpressionError),
        ("not " * 240 + "flag", True),
        ("flag" + " or flag" * 200, ExpressionError),
        ("\x00", ExpressionError),
        ("", ExpressionError),
    ],
)
def test_a_filter_has_the_value_it_has_in_python_or_is_refused(tmp_path, text, value):
    values = {"a": 1, "b": "x", "c": ["x", "y"], "flag": True, "none": None}
    if value is ExpressionError:
        with pytest.raises(ExpressionError, match="filter: found .*; allowed: ") as caught:
            Expression(text, values, "filter")(values)
        assert "\n" not in str(caught.value)
    else:
        assert Expression(text, values, "filter")(values) is value
    assert not (tmp_path / "here").exists()


# --- what cannot start


@pytest.mark.parametrize("package", ["distributed", "cryptography"])
def test_without_dask_a_line_says_how_to_install_it(notebook, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SweepError, match=r"a sweep needs dask: pip install 'bmnas\[cluster\]'"):
        bm.sweep({"notebook": "nb.ipynb"}, "out")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"scheduler": "tcp://127.0.0.1:8786"},
            "encryption; allowed: tls://…, or --insecure",
        ),
        ({"scheduler": "127.0.0.1:8786"}, "encryption; allowed: tls://…, or --insecure"),
        (
            {"scheduler": "tls://127.0.0.1:8786"},
            "no certificates for tls://; allowed: dask's",
        ),
        (
            {"scheduler": "tls://x:1", "workers": 2},
            "scheduler: found workers or a dashboard beside it",
        ),
        ({"workers": 0}, "workers: found 0; allowed: at least 1"),
    ],
)
def test_options_that_are_not_safe_or_do_not_go_together_are_refused(notebook, options, message):
    with pytest.raises(SweepError, match=message):
        bm.sweep({"notebook": "nb.ipynb"}, "out", **options)
    assert not Path("out").exists()


def test_a_folder_with_something_else_is_refused(notebook):
    Path("file").touch()
    with pytest.raises(BmnasError, match="out: found file .*; allowed: a folder"):
        bm.sweep({"notebook": "nb.ipynb"}, "file")
    for text in ("", "[]", '{"format": "bmnas-sweep/1"}', '{"format": "bmnas-sweep/2"}'):
        Path("out").mkdir(exist_ok=True)
        Path("out/sweep.json").write_text(text)
        with pytest.raises(SweepError, match="out/sweep.json: found a damaged file"):
            bm.sweep({"notebook": "nb.ipynb"}, "out")
        assert Path("out/sweep.json").read_text() == text
        assert sorted(os.listdir("out")) == [".lock", "sweep.json"]


def test_a_scheduler_that_is_not_there_is_a_line(notebook):
    with (
        closed_port() as port,
        dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}),
        pytest.raises(SweepError, match=f"^scheduler {port}: no answer \\(.*\\)$"),
    ):
        bm.sweep({"notebook": "nb.ipynb"}, "out", scheduler=port, insecure=True)
    assert sorted(os.listdir("out")) == [".lock", "notebooks", "sweep.json"]


def test_a_failed_run_of_a_notebook_that_was_mended_takes_its_folder_again(notebook):
    spec = spec_of("grid: {operations: [[sum], [sum, attention]], lr: [0.1, 0.2]}")
    mark = Path("out/.mark")
    Path("out").mkdir()
    before = [job.name for job in _planned(spec, Path("out"), mark)]
    assert all("~" in name for name in before)
    for name in before:
        write_run(Path("out", name), parameters={}, status="failed", error="broken")
    write_notebook(Path("nb.ipynb"), "mended = True")
    spec = spec_of("grid: {operations: [[sum], [attention]], lr: [0.1, 0.2]}")
    after = _planned(spec, Path("out"), mark)
    kept = [job for job in after if job.parameters["operations"] == ["sum"]]
    assert [job.name for job in kept] == [name for name in before if "attention" not in name]
    assert all(job.before.status == "failed" and job.before.key != job.key for job in kept)
    assert len({job.name for job in after}) == 4 and not {job.name for job in after} & {
        name for name in before if "attention" in name
    }
    statuses = {job.name: "failed" if job in kept else "missing" for job in after}
    assert {run.folder.name: run.status for run in bm.collect("out").others} == statuses


def test_a_run_takes_the_folder_of_one_that_failed_before_the_notebook_was_mended(notebook):
    mark = Path("out/.mark")
    Path("out").mkdir()
    for values in ("[1, 2]", "[3, 4]"):
        write_notebook(Path("nb.ipynb"), f"broken = {values}")
        for job in _planned(spec_of(f"grid: {{C: {values}}}"), Path("out"), mark):
            write_run(job.folder, parameters=job.parameters, status="failed", error="broken")
    write_notebook(Path("nb.ipynb"), "mended = True")
    found = _planned(spec_of("grid: {C: [1, 4]}"), Path("out"), mark)
    assert [job.name for job in found] == ["C=1", "C=4"]


@contextmanager
def closed_port():
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


# --- runs

#: A run that does in its cell what its parameter ``how`` says; it takes a second.
HOW = """\
how = "well"
seed = 0
out = ""
"""
CELL = """\
import json, os, signal, time
from pathlib import Path

mended, once = Path("mended").exists(), Path(f"once-{how}")
if how == "raises" and not mended:
    raise ValueError("broken")
if how == "ends its kernel" and not mended:
    os.kill(os.getpid(), signal.SIGKILL)
if how == "takes long" and not mended:
    time.sleep(100)
if how == "ends its worker" and not once.exists():
    once.touch()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(100)
if how == "ends all workers":
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(100)
while how == "waits" and not Path("go").exists():
    Path("waiting").touch()
    time.sleep(0.05)
with open("done", "a") as file:
    file.write(f"{how} {seed}\\n")
result = dict(task="t", rule=None, seed=seed, device="cpu", metric="accuracy", test=0.5, params=1,
              search_seconds=1.0, train_seconds=1.0, baselines={})
Path(out, "result.json").write_text(json.dumps(result))
"""
EVIL = ("raises", "ends its kernel", "takes long", "ends its worker")


def spec_file(**fields):
    write_notebook(Path("nb.ipynb"), CELL, parameters=HOW)
    Path("s.yaml").write_text(yaml.safe_dump({"notebook": "nb.ipynb", **fields}))
    return "s.yaml"


def command(*args, start=subprocess.run, **options):
    words = [sys.executable, "-m", "bmnas_core.cli", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return start(words, **pipes, **options)


def statuses(out="out"):
    runs = sorted(path.parent for path in Path(out).glob("*/run.json"))
    return {run.name: json.loads((run / "run.json").read_text())["status"] for run in runs}


def times_done():
    return Counter(Path("done").read_text().splitlines()) if Path("done").exists() else Counter()


@contextmanager
def separate_cluster(worker_words=lambda *words: words):
    """A scheduler and two workers in processes of their own: options for the command."""
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    scheduler += ["--port", "0", "--no-dashboard", "--scheduler-file", "scheduler.json"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
    worker += ["--nworkers", "2", "--host", "127.0.0.1", "--no-dashboard", "--death-timeout", "20"]
    worker += ["--scheduler-file", "scheduler.json"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        for words in (scheduler, worker_words(*worker)):
            process = subprocess.Popen(words, **quiet)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            wait_for(lambda: Path("scheduler.json").exists())
        address = json.loads(Path("scheduler.json").read_text())["address"]
        yield ["--scheduler", address, "--insecure"]


@contextmanager
def workers_of_its_own():
    yield ["--workers", "2"]


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def without_numbers(text):
    return re.sub(r"\d+\.?\d*", "#", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster, well",
    [
        (workers_of_its_own, 6),
        pytest.param(separate_cluster, 2, marks=pytest.mark.nightly),
    ],
)
def test_of_runs_with_four_accidents_three_fail_and_only_those_are_done_again(cluster, well):
    count = well + len(EVIL)
    spec = spec_file(
        list=[{"how": "well", "seed": s} for s in range(well)] + [{"how": how} for how in EVIL],
        time_limit=12,
    )
    with cluster() as options:
        done = command("sweep", spec, "--out", "out", *options)
        assert done.returncode == 1, done.stderr
        assert Counter(statuses().values()) == {"done": well + 1, "failed": 2, "out of time": 1}
        assert times_done() == Counter(
            [f"well {seed}" for seed in range(well)] + ["ends its worker 0"]
        )
        assert (
            done.stdout.splitlines()[0]
            == f"out: {count} runs: {well + 1} done, 2 failed, 1 out of time"
        )
        table = {line.split("  ")[0]: line for line in done.stdout.splitlines()[3:6]}
        for how, why in {
            "raises": "ValueError: broken",
            "ends-its-kernel": "kernel died of SIGKILL",
            "takes-long": "ran out of time (12 s) in cell 2",
        }.items():
            (run,) = Path("out").glob(f"how={how}*")
            assert why in table[run.name]
            assert sorted(p.name for p in run.glob("nb.*")) == ["nb.html", "nb.ipynb"]
        assert done.stdout.splitlines()[-1] == "all results as a table: bmnas collect out"
        lines = done.stderr.splitlines()
        assert len(lines) == count and all(re.match(r"how=\S+: [a-z ]+$", line) for line in lines)
        Path("mended").touch()
        before = {path: path.read_text() for path in Path("out").glob("*/result.json")}
        again = command("sweep", spec, "--out", "out", *options)
        assert (again.returncode, again.stdout.splitlines()[0]) == (
            0,
            f"out: {count} runs: {count} done",
        )
        assert set(times_done().values()) == {1} and times_done().total() == count
    assert not list(Path("out").glob(".sweep-*"))
    found = bm.sweep(spec, "out")
    assert set(found["status"]) == {"done"} and times_done().total() == len(found) == count
    assert all(path.read_text() == text for path, text in before.items())
    for run in Path("out").glob("how=*"):
        load_result(run)


@pytest.mark.slow
def test_a_changed_spec_adds_runs_and_a_changed_notebook_is_refused(capfd):
    found = bm.sweep(spec_file(), "out", workers=1, progress=False)
    assert found.values.tolist() == [["run", "done", found["seconds"][0], ""]]
    assert found["seconds"][0] > 0
    before = Path("out/run/result.json").stat()
    spec = spec_file(list=[{}, {"seed": 1}, {"how": "ends all workers"}])
    found = bm.sweep(spec, "out", workers=1, progress=False).set_index("run")
    assert found["status"].tolist() == ["done", "done", "killed"]
    assert found["error"].tolist() == ["", "", "its worker died 3 times"]
    assert list(found.index[:2]) == ["run", "how=well,seed=1"]
    assert capfd.readouterr() == ("", "")
    assert times_done() == {"well 0": 1, "well 1": 1}
    assert Path("out/run/result.json").stat() == before
    record = json.loads(Path("out/sweep.json").read_text())
    assert record["format"] == "bmnas-sweep/1" and len(record["specs"]) == 2
    assert list(record["runs"]) == list(found.index) and statuses().keys() == {*found.index}
    for name, about in record["runs"].items():
        told = json.loads((Path("out") / name / "run.json").read_text())
        assert {key: told[key] for key in about} == about

    (kept,) = Path("out/notebooks").glob("*/nb.ipynb")
    write_notebook(Path("nb.ipynb"), CELL, "x = 1", parameters=HOW)
    message = f"2 runs of nb.ipynb as it was before a change; allowed: another --out, or .*{kept}"
    with pytest.raises(SweepError, match=message):
        bm.sweep("s.yaml", "out")
    shutil.copy(kept, "nb.ipynb")
    assert bm.sweep({"notebook": "nb.ipynb"}, "out")["status"].tolist() == ["done"]


@pytest.mark.slow
def test_two_sweeps_on_one_folder_share_the_runs():
    listed = [{"how": "waits"}, *({"how": "well", "seed": seed} for seed in range(5))]
    words = "sweep", spec_file(list=listed), "--out", "out", "--workers", "1", "-q"
    nb = nbformat.read("nb.ipynb", 4)
    nb.cells.append(nbformat.v4.new_markdown_cell("![A dot](dot.png)"))
    nbformat.write(nb, "nb.ipynb")
    Path("dot.png").write_bytes(b"dot")
    both = [command(*words, start=subprocess.Popen) for _ in range(2)]
    wait_for(lambda: Counter(statuses().values()) == {"running": 1, "done": 5}, 120)
    Path("go").touch()
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert output.startswith("out: 6 runs: 6 done\n")
    assert times_done() == {"waits 0": 1, **{f"well {seed}": 1 for seed in range(5)}}
    for page in Path("out").glob("how=*/nb.html"):  # has the picture beside the original notebook
        assert "data:image/png;base64,ZG90" in page.read_text(encoding="utf-8")


def from_a_terminal(words, **pipes):
    """A process that Ctrl-C ends, even if those that run the tests leave it alone."""
    return subprocess.Popen(
        words, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )


@contextmanager
def sweep_that_waits(*options, start=None):
    """A sweep with one result and one run that is under way; its processes, ended afterwards."""
    words = "sweep", spec_file(list=[{"how": "well"}, {"how": "waits"}]), "--out", "out", *options
    process = start() if start else command(*words, "--workers", "1", start=from_a_terminal)
    try:
        wait_for(lambda: sorted(statuses().values()) == ["done", "running"], 120)
        wait_for(Path("waiting").exists)
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("kernel.json" in " ".join(child.cmdline()) for child in started)
        yield process, started
    finally:
        Path("go").touch()
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_sweep_that_is_interrupted_leaves_its_results_and_no_process():
    with sweep_that_waits() as (process, started):
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert not alive(started, 1)
        assert (process.returncode, output) == (130, "")
        assert errors == "how=well: done\nerror: interrupted\n"
        assert sorted(statuses().values()) == ["done", "interrupted"]
        assert len([*Path("out").glob("*waits/nb.*")]) == 2
        assert not [*Path("out").glob(".sweep-*")]
    assert times_done() == {"well 0": 1}


def alive(processes, seconds):
    """Those that do not end in so many seconds; the system may keep the rest of one that did."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


SCRIPT = """\
import bmnas_core as bm

with open("ran", "a") as file:
    file.write("once\\n")
bm.sweep("s.yaml", "out", workers=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_of_a_killed_script_without_a_main_guard_nothing_ran_twice_and_nothing_stays():
    Path("script.py").write_text(SCRIPT)
    with sweep_that_waits(start=lambda: subprocess.Popen([sys.executable, "script.py"])) as (
        script,
        started,
    ):
        addresses = {
            connection.laddr.ip
            for child in [psutil.Process(script.pid), *started]
            for connection in child.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
        script.kill()
        assert not alive(started, 20)
    assert Path("ran").read_text() == "once\n" and times_done() == {"well 0": 1}


@pytest.mark.slow
def test_a_folder_that_vanishes_ends_the_sweep_with_a_line():
    with sweep_that_waits("-q") as (process, started):
        shutil.rmtree("out")
        Path("go").touch()
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert re.fullmatch(r"error: \S+/out.*(gone|vanished).*\n", errors)
    assert not Path("out").exists()
    assert not alive(started, 20)


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_sweep_with_a_line(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    with separate_cluster() as options, ExitStack() as stack:
        words = "sweep", spec_file(list=[{"how": "waits"}]), "--out", "out", "-q", *options
        process = command(*words, start=subprocess.Popen)
        stack.callback(process.kill)
        stack.callback(Path("go").touch)
        wait_for(Path("waiting").exists, 120)
        (scheduler,) = (
            child
            for child in psutil.Process().children()
            if "distributed.cli.dask_scheduler" in child.cmdline()
        )
        scheduler.kill()
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (2, "")
    assert re.fullmatch(r"error: scheduler tcp://127.0.0.1:\d+: gone .*\n", errors)


def in_a_namespace(*words, mount):
    """Words of a command that sees an empty file system of 1 MB in a folder; skips if it cannot."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("no permission to mount")
    script = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, mount, *words]


@pytest.mark.slow
def test_a_folder_that_workers_do_not_share_is_noticed_before_the_first_run():
    Path("out").mkdir()
    with separate_cluster(partial(in_a_namespace, mount="out")) as options:
        done = command("sweep", spec_file(seeds=2), "--out", "out", *options)
    assert (done.returncode, done.stdout) == (2, "")
    message = r"error: \S+/out: found worker \S+ without it .*; allowed: a folder that all"
    assert re.match(message, done.stderr) and done.stderr.count("\n") == 1
    assert statuses() == {} and times_done() == {}


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_with_a_line_and_leaves_nothing_half_written():
    Path("out").mkdir()
    words = [sys.executable, "-m", "bmnas_core.cli", "sweep", spec_file(seeds=9), "--out", "out"]
    look = "status=$?; tar -cf seen.tar out; exit $status"
    fill = "head -c 900000 /dev/zero > out/.fill"  # what is left is too little for a run's page
    script = f"{fill}; {shlex.join([*words, '--workers', '1', '-q'])}; {look}"
    words = in_a_namespace("sh", "-c", script, mount="out")
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    message = r"error: \S+/out.*: not written: No space left on device\n"
    assert re.fullmatch(message, done.stderr), done.stderr
    with tarfile.open("seen.tar") as tar:
        tar.extractall("seen", filter="data")
    runs = statuses("seen/out")
    assert 1 <= times_done().total() < 9 and set(runs.values()) == {"done"}
    for name in runs:
        load_result(Path("seen/out", name))
        nbformat.read(Path("seen/out", name, "nb.ipynb"), 4)
    assert not list(Path("seen").rglob("*.part"))
