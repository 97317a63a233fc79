import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from command_line import bmnas, bmnas_fails
from safetensors.torch import load_file

import bmnas_core.ops
from bmnas_core import experiments
from bmnas_core.cli import main
from bmnas_core.errors import BmnasError
from bmnas_core.registry import Registry
from bmnas_core.tasks import TASKS, DataError, load_task
from bmnas_core.tasks.checkup import Checkup

GENOTYPE = """{"format": "bmnas-genotype/1", "features": ["Image_1", "Audio_1"],
 "cells": [{"inputs": ["Image_1", "Audio_1"], "steps": [{"op": "sum", "inputs": ["X", "Y"]}]}]}"""
PARAMETERS = 'rule = "same"  # or sum\nseed = 0\nout = "runs/here"'
RESULT = {
    "task": "digits",
    "rule": "sum",
    "seed": 3,
    "device": "cpu",
    "metric": "accuracy",
    "test": 0.93,
    "params": 12345,
    "search_seconds": 20,
    "train_seconds": 10,
    "baselines": {
        "late fusion": {"test": 0.33, "params": 20, "seconds": 1.5},
        "oracle": {"test": 1.0, "params": 0, "seconds": 0},
    },
}
SAVES = f"""
import bmnas_core.ops
from bmnas_core.experiments import save_run
from bmnas_core.genotype import Genotype
result = {RESULT!r} | {{"rule": rule, "seed": seed}}
save_run(out, result=result, genotype=Genotype.from_json({GENOTYPE!r}))
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    root = Path(bmnas_core.ops.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)


def write_notebook(*cells):
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, *cells)]
    nb.cells[0].metadata.tags = ["parameters"]
    nbformat.write(nb, "nb.ipynb")


@pytest.mark.notebook
def test_run_in_a_shell_prints_the_files_and_the_table_best_first():
    write_notebook(SAVES)
    args = ["run", "nb.ipynb", "-p", "rule", "sum", "-p", "seed", "3", "--out", "q"]
    done = subprocess.run(
        [sys.executable, "-m", "bmnas_core.cli", *args], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "q/nb.ipynb",
        "q/nb.html",
        "q/result.json",
        "q/genotype.svg",
        "q/genotype.json",
        "",
        "digits, rule sum, seed 3, cpu",
        "                   test accuracy  parameters  seconds",
        "oracle                    1.0000           0      0.0",
        "learned by BM-NAS         0.9300      12,345     30.0",
        "late fusion               0.3300          20      1.5",
    ]


@pytest.mark.parametrize(
    "changes, title",
    [
        ({}, "digits, rule sum, seed 3, cpu"),
        ({"rule": None}, "digits, seed 3, cpu"),
        (
            {"rule": None, "protocol": "cross-subject"},
            "digits, protocol cross-subject, seed 3, cpu",
        ),
    ],
)
def test_a_run_says_what_it_was_of(monkeypatch, changes, title):
    write_notebook()
    write_run("q", **changes)
    monkeypatch.setattr(experiments, "run", lambda *a, **k: Path("q"))
    said = [str(Path("q", "result.json")), "", title]
    assert bmnas("run", "nb.ipynb").stdout.splitlines()[:3] == said


@pytest.mark.notebook
def test_a_failed_run_exits_with_1_and_one_line():
    write_notebook("raise ValueError('first line\\nsecond line')")
    error = bmnas_fails("run", "nb.ipynb", code=1)
    assert "failed in cell 2" in error and "ValueError: first line second line" in error
    assert Path("runs/nb/nb.ipynb").exists()


@pytest.mark.notebook
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_kernel_and_exits_with_130():
    write_notebook("open('started', 'w').write(str(__import__('os').getpid()))", "while True: pass")
    process = subprocess.Popen(
        [sys.executable, "-m", "bmnas_core.cli", "run", "nb.ipynb"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in a job of a script
    )
    deadline = time.monotonic() + 60
    while not Path("started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.count("\n") == 1
    assert errors.startswith("error: nb.ipynb was interrupted by SIGINT in cell 3 ('while True")
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("started").read_text()), 0)


@pytest.mark.parametrize(
    "words", [["-p", "rule", "sum", "-p", "seed", "-3"], ["-p", "rule=sum", "-p", "seed=-3"]]
)
def test_parameters_are_given_as_name_and_value_and_repeat(monkeypatch, words):
    write_notebook()
    calls = []
    monkeypatch.setattr(experiments, "run", lambda *a, **k: calls.append((a, k)) or Path("q"))
    done = bmnas("run", *words, "nb.ipynb", "--out", "q", "--quiet", "--timeout", "60")
    assert done.exit_code == 0, done.output
    assert calls == [
        (
            (Path("nb.ipynb"), {"rule": "sum", "seed": -3}, Path("q")),
            {"progress": False, "resume": False, "timeout": 60, "time_limit": None},
        )
    ]


@pytest.mark.parametrize(
    "words, error",
    [
        (["-p", "rul", "sum"], "no parameter 'rul' (did you mean 'rule'?); allowed: rule = 'same'"),
        (["-p", "seed", "x"], "parameter seed: found 'x'; allowed: an integer"),
        (["-p", "seed"], "parameter seed: found no value; allowed: -p NAME VALUE"),
        (["-p", "out", "q"], "parameter out: set by the run itself"),
        (["--out", "nb.ipynb"], "out: found nb.ipynb"),
    ],
)
def test_what_does_not_fit_stops_the_run_before_it_starts(words, error):
    write_notebook()
    assert error in bmnas_fails("run", "nb.ipynb", *words)
    assert os.listdir() == ["nb.ipynb"]


def test_a_missing_notebook_is_one_line():
    assert "none.ipynb: found nothing there" in bmnas_fails("run", "none.ipynb")
    assert "none.ipynb: found nothing there" in bmnas_fails("parameters", "none.ipynb")


def write_run(folder, **changes):
    Path(folder).mkdir()
    Path(folder, "result.json").write_text(json.dumps({**RESULT, **changes}))


def test_parameters_lists_defaults_and_help():
    write_notebook()
    assert bmnas("parameters", "nb.ipynb").stdout == "rule = 'same'  or sum\nseed = 0\n"


def test_a_console_that_lacks_letters_gets_others(monkeypatch):
    write_notebook()
    nb = nbformat.read("nb.ipynb", 4)
    nb.cells[0].source = "seed = 0  # of α"
    nbformat.write(nb, "nb.ipynb")
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "argv", ["bmnas", "parameters", "nb.ipynb"])
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as end:
        main()
    out.flush()
    assert not end.value.code and out.buffer.getvalue().split() == b"seed = 0 of ?".split()


def test_a_long_line_of_a_table_is_printed_whole_and_as_it_is():
    source = f"x = ['[red]', ':cat:', '{'a' * 300}']"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nb.cells[0].metadata.tags = ["parameters"]
    nbformat.write(nb, "nb.ipynb")
    assert bmnas("parameters", "nb.ipynb").stdout == f"{source}\n"


@pytest.mark.slow
def test_draw_writes_the_picture_of_a_genotype():
    Path("cell.json").write_text(GENOTYPE)
    assert bmnas("draw", "cell.json", "-o", "new/picture.svg").stdout.strip() == "new/picture.svg"
    assert "<svg" in Path("new/picture.svg").read_text()
    assert bmnas("draw", "cell.json").stdout.strip() == "cell.svg"


@pytest.mark.slow
def test_draw_refuses_a_bad_genotype_and_a_bad_picture_name_with_nothing_written():
    Path("cell.json").write_text(GENOTYPE.replace("sum", "product"))
    error = bmnas_fails("draw", "cell.json", "-o", "cell.svg")
    assert "cell.json: cells[0].steps[0].op: found 'product'; allowed: " in error
    assert "none.json: file: found 'nothing there'" in bmnas_fails("draw", "none.json")
    Path("cell.json").write_text(GENOTYPE)
    assert "'.txt'" in bmnas_fails("draw", "cell.json", "-o", "cell.txt")
    assert "'neato'" in bmnas_fails("draw", "cell.json", "--engine", "neato")
    assert os.listdir() == ["cell.json"]


def test_draw_takes_what_the_released_code_logs():
    step = "StepGenotype(inner_edges=[('skip', 0), ('skip', 1)], inner_steps=['Sum'], "
    text = f"10:04 Genotype(edges=[('skip', 0), ('skip', 1)], steps=[{step}inner_concat=[2])], "
    Path("log.txt").write_text(f"{text}concat=[2])\nbest: 0.9\n")
    names = ("--feature", "Eye", "--feature", "Ear")
    assert bmnas("draw", "log.txt", *names).stdout.strip() == "log.svg"
    assert "Eye" in Path("log.svg").read_text()
    assert "log.txt: features: found" in bmnas_fails("draw", "log.txt")
    error = bmnas_fails("draw", "log.txt", *names, "--feature", "Nose")
    assert "log.txt: concat: found [2]; allowed: [3], the outputs of all" in error


class FakeData(SimpleNamespace):
    license, source = "CC BY 4.0", "its authors"
    fetched = False

    @property
    def state(self):
        return "embedded" if self.embedded else "missing" if self.problems else "ready"

    def examine(self, options, *, deep, workers):
        self.asked = options, deep, workers
        notices = ["found two videos"] if self.title == "AV-MNIST" else []
        return Checkup({"all are right": {"files": 3000}}, self.problems, notices)

    def fetch(self):
        if self.title == "Broken":
            raise BmnasError("a.zip: found a wrong hash")
        self.fetched = True


@pytest.fixture
def data_sets(monkeypatch):
    sets = Registry("data set", DataError)
    for name, entry in {
        "digits": FakeData(title="Digits", root=Path("in"), problems=[], embedded=True),
        "avmnist": FakeData(title="AV-MNIST", root=Path("av"), problems=[], embedded=False),
        "mmimdb": FakeData(
            title="Broken", root=Path("mm"), problems=["a.zip: missing", "b: short"], embedded=False
        ),
    }.items():
        sets.add(name, entry)
    monkeypatch.setattr(importlib.import_module("bmnas_core.tasks"), "DATA_SETS", sets)
    return sets


def test_data_list_says_what_is_there(data_sets):
    assert bmnas("data", "list").stdout.splitlines() == [
        "digits   embedded  CC BY 4.0  Digits    in",
        "avmnist  ready     CC BY 4.0  AV-MNIST  av",
        "mmimdb   missing   CC BY 4.0  Broken    mm",
    ]


def test_data_check_prints_problems_and_exits_with_1(data_sets):
    done = bmnas("data", "check")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "digits: 3,000 files: all are right",
        "avmnist: found two videos",
        "avmnist: 3,000 files: all are right",
        "mmimdb: a.zip: missing",
        "mmimdb: b: short",
    ]
    assert bmnas("data", "check", "avmnist").exit_code == 0
    assert bmnas("data", "check", "mmimdb").exit_code == 1


def test_data_check_lists_only_the_first_of_many_problems(data_sets):
    data_sets["mmimdb"].problems = [f"{i}: missing" for i in range(3000)]
    data_sets["mmimdb"].problems += [
        f"{i}.avi: found {i} frames (short); allowed: 8" for i in range(7)
    ]
    lines = bmnas("data", "check", "mmimdb").stdout.splitlines()
    kinds = "3,000 × missing; 7 × found N frames"
    assert (
        len(lines) == 11
        and lines[-1] == f"mmimdb: … and 2,997 more, which --all lists; by kind: {kinds}"
    )
    assert len(bmnas("data", "check", "mmimdb", "--all").stdout.splitlines()) == 3007


def test_data_check_hands_options_on(data_sets):
    words = ("-p", "annotation", "all.json", "-p", "sample", "true", "--deep", "--workers", 2)
    bmnas("data", "check", "mmimdb", *words)
    assert data_sets["mmimdb"].asked == ({"annotation": "all.json", "sample": True}, True, 2)


def test_an_option_of_no_task_is_refused(data_sets):
    error = bmnas_fails("data", "check", "-p", "annotation", "all.json")
    assert "-p: found an option; allowed: one with TASK" in error
    error = bmnas_fails("data", "check", "mmimdb", "--workers", 2)
    assert "--workers: found a number of them; allowed: one with --deep" in error


def test_data_fetch_downloads_one_task(data_sets):
    done = bmnas("data", "fetch", "avmnist")
    assert done.exit_code == 0 and data_sets["avmnist"].fetched
    assert done.stdout.splitlines() == ["avmnist: from its authors", "avmnist: in av"]
    assert "nothing to fetch" in bmnas("data", "fetch", "digits").stdout
    assert "a wrong hash" in bmnas_fails("data", "fetch", "mmimdb")


def test_an_unknown_task_is_refused_with_the_known_ones(data_sets):
    for command in ("check", "fetch"):
        error = bmnas_fails("data", command, "avmnst")
        assert "found 'avmnst' (did you mean 'avmnist'?); allowed: digits, avmnist" in error


def test_a_backbone_is_trained_and_its_weights_kept_and_read_again(monkeypatch):
    words = ("backbone", "mmimdb", "Text", "-p", "sample", "true", "--device", "cpu")
    done = bmnas(*words, "--epochs", 2, "-o", "new/text.safetensors")
    assert done.exit_code == 0, done.output
    first, second, path = done.stdout.splitlines()
    assert path == "new/text.safetensors" and second.startswith("epoch 2: training loss ")
    assert "validation weighted_f1 0." in first
    task = load_task("mmimdb", sample=True, weights={"Text": "new/text.safetensors"})
    assert task.modality("Text").backbone._origin == "text.safetensors"
    more = bmnas(*words, "--weights", path, "--epochs", 1, "--lr", 1e-4, "-o", "more.safetensors")
    losses = [line.split()[4].strip(",") for line in (first, more.stdout)]
    assert float(losses[1]) < float(losses[0])


@pytest.mark.parametrize(
    "words, message",
    [
        (("ntv", "Video"), "task: found 'ntv' (did you mean 'ntu'?); allowed: "),
        (("mmimdb", "Sound"), "modality: found 'Sound'; allowed: Image, Text"),
        (("mmimdb", "Text", "--weights", "no.pt"), "no.pt: cannot be read"),
        (("mmimdb", "Text", "-p", "sampel", "true"), "option 'sampel' (did you mean 'sample'?)"),
        (("mmimdb", "Text", "-p", "sample", "maybe"), "parameter sample: found 'maybe'"),
        (("mmimdb", "Text", "--lr", "0"), "max_lr: found 0.0; allowed: above 0"),
        (("mmimdb", "Text", "-p", "data_root", "2024"), "2024: "),
        (("mmimdb", "Text", "-p", "weights", "a.pth"), "weights: found 'a.pth'; allowed: a dict"),
        (("digits", "Image", "--weights", "x.pt"), "found ConvBackbone, trained from scratch"),
    ],
)
def test_a_backbone_that_cannot_be_trained_is_refused_in_one_line(words, message):
    sample = () if "sample" in " ".join(words) or words[0] != "mmimdb" else ("-p", "sample", "true")
    assert message in bmnas_fails("backbone", *words, *sample, "-o", "x.safetensors")
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize("out", ["x.pth", "weights", "file/x.safetensors"])
def test_weights_that_could_not_be_kept_are_refused_before_the_training(out):
    Path("file").touch()
    error = bmnas_fails("backbone", "mmimdb", "Text", "-p", "sample", "true", "-o", out)
    assert "allowed: " in error and out in error and sorted(os.listdir()) == ["file"]


def test_help_and_version():
    assert "Run a notebook" in bmnas("--help").stdout
    assert "NAME VALUE" in bmnas("run", "--help").stdout
    assert bmnas("--version").stdout.startswith("bmnas ")


@pytest.fixture
def tiny_registered():
    from tiny import SETTINGS, tiny_task

    small = replace(SETTINGS, N=1, M=1)
    with TASKS.restored():
        TASKS.add("tiny", lambda rule="sum": tiny_task(settings=small))
        yield


def test_a_backbone_without_a_classifier_is_trained_on_its_items(tiny_registered):
    done = bmnas("backbone", "tiny", "Image", "-o", "x.safetensors", "--device", "cpu")
    assert done.stdout.splitlines()[-1] == "x.safetensors", done.output
    backbone = TASKS["tiny"]().modality("Image").backbone
    backbone.load_state_dict(load_file("x.safetensors"))


def test_baselines_writes_the_table_and_its_chart(tiny_registered):
    words = ["tiny", "--rule", "sum", "--seeds", 2, "--device", "cpu"]
    names = ["--baseline", "GMU", "--baseline", "single modalities"]
    table, chart = (Path(f"assets/results/tiny_baselines.{end}") for end in ("csv", "svg"))
    done = bmnas("baselines", *words, *names)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{table}\n{chart}\n\ntask  rule  network")
    assert done.output.count(" ± ") == 3 and "GMU" in done.output
    assert len(table.read_text().splitlines()) == 1 + 2 * 3
    assert "of 2 seeds" in chart.read_text() and "Audio alone" in chart.read_text()
    again = [(bmnas("baselines", *words, *names).output, chart.read_bytes()) for _ in range(2)]
    assert again[0] == again[1] and again[0][0] == done.output


def test_a_task_without_rules_needs_none():
    words = ["diabetes", "--seeds", 1, "--device", "cpu", "--baseline", "logistic regression"]
    done = bmnas("baselines", *words, "-o", "t.csv")
    assert done.exit_code == 0, done.output
    assert re.search("^diabetes +ridge regression +– +1 +1 ", done.output, re.M)
    assert Path("t.csv").read_text().splitlines()[1].startswith("diabetes,,,rmse,0,logistic")
    assert "test rmse" in Path("t.svg").read_text() and "rule" not in Path("t.svg").read_text()
    error = bmnas_fails("baselines", "diabetes", "--rule", "sum", "-o", "u.csv")
    assert "task 'diabetes': found option 'rule'; allowed: seed" in error


def test_cross_validate_writes_its_table_and_goes_on_from_kept_folds(tiny_registered):
    words = ["cross-validate", "tiny", "--folds", 2, "--baseline", "logistic regression"]
    words += ["--keep", "folds", "-o", "t.csv", "--device", "cpu"]
    done = bmnas(*words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("t.csv\n\ntiny: accuracy in 2 folds of 96 samples\n")
    rows = [line.split(",") for line in Path("t.csv").read_text().splitlines()]
    assert rows[0][:6] == ["task", "metric", "folds", "repeats", "network", "mean"]
    assert {row[4] for row in rows[1:]} == {"BM-NAS", "logistic regression"}
    assert [row[:4] for row in rows[1:]] == [["tiny", "accuracy", "2", "1"]] * 2
    kept = sorted(path.name for path in Path("folds").glob("*.safetensors"))
    assert kept == ["repeat_0_fold_0.safetensors", "repeat_0_fold_1.safetensors"]
    assert bmnas(*words).output == done.output
    assert "folds: found 97; allowed: " in bmnas_fails("cross-validate", "tiny", "--folds", 97)
    error = bmnas_fails("cross-validate", "tiny", "--baseline", "luck", "-o", "u.csv")
    assert "baseline: found 'luck'" in error and not Path("u.csv").exists()


def test_baselines_choose_among_the_settings_of_a_file(tiny_registered):
    words = ["tiny", "--rule", "sum", "--seeds", 1, "--device", "cpu", "--baseline", "GMU"]
    sizes, out = Path("sizes.json"), ["--settings", "sizes.json", "--out", "t.csv"]
    sizes.write_text('[{"C": 4, "epochs": 1}, {"C": 8, "epochs": 2}]')
    done = bmnas("baselines", *words, *out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("t.csv\nt.svg\nt_settings.svg\n\ntask  rule  network")
    (*_, head, row) = done.output.splitlines()
    cells = dict(zip(re.split("  +", head), re.split("  +", row), strict=True))
    tried = [line.split(",") for line in Path("t_settings.csv").read_text().splitlines()[1:]]
    best = max(tried, key=lambda cells: float(cells[11]))
    assert [cells["C"], cells["L"]] == best[7:9] and len(tried) == 2
    assert "validation score" in Path("t_settings.svg").read_text()


def test_the_kits_own_settings_are_found_from_any_folder(tiny_registered):
    words = ["tiny", "--rule", "sum", "--seeds", 1, "--device", "cpu", "--baseline", "GMU"]
    settings = "assets/results/settings_voice.json"
    assert not Path(settings).exists()
    done = bmnas("baselines", *words, "--settings", settings, "--out", "t.csv")
    assert done.exit_code == 0, done.output
    assert len(Path("t_settings.csv").read_text().splitlines()) == 1 + 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"width": 4}]', "TrainConfig: found field 'width'; allowed: C, L"),
        ('[{"C": 0}]', "TrainConfig.C: found 0; allowed: at least 1"),
        ('{"C": 4}', "sizes.json: found .'C': 4.; allowed: a list of settings"),
        ("[]", r"sizes.json: found \[\]; allowed: a list of settings"),
        ("[4]", "TrainConfig: found 4; allowed: an object"),
        ("C=4", "sizes.json: found no JSON"),
        (None, "sizes.json: found no JSON .*No such file"),
    ],
)
def test_settings_that_are_none_are_refused_before_anything_is_trained(
    tiny_registered, text, message
):
    if text is not None:
        Path("sizes.json").write_text(text)
    error = bmnas_fails("baselines", "tiny", "--settings", "sizes.json", "--out", "t.csv")
    assert re.search(message, error) and not Path("t.csv").exists()


def test_tabulate_builds_a_table_and_says_what_it_is(tiny_registered):
    words = ["tabulate", "tiny", "--seeds", 1, "--out", "t.parquet", "--device", "cpu"]
    done = bmnas(*words)
    assert done.exit_code == 0, done.output
    assert "60 architectures, 60 networks trained; best test accuracy" in done.output
    Path("t.parquet").write_bytes(b"none")
    assert "t.parquet: found no tabular benchmark" in bmnas_fails(*words)


def test_benchmark_writes_the_table_and_prints_its_summary():
    words = ["benchmark", "digits", "--rule", "sum", "--seeds", 2, "--device", "cpu"]
    done = bmnas(*words, "--out", "j.csv", "--strategy", "random search")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("j.csv\n\nrule  strategy") and "random search" in done.output
    rows = [line.split(",") for line in Path("j.csv").read_text().splitlines()]
    assert [row[3] for row in rows] == ["seed", "2100", "2101"]
    assert "strategy: found 'luck'" in bmnas_fails(*words, "--out", "j.csv", "--strategy", "luck")
