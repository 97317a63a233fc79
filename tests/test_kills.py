"""A run that is killed at any moment and resumed ends with the unbroken run's result, to the bit.

``BMNAS_KILLS=20`` makes so many of them, of the quickstart instead of a small notebook with
``BMNAS_KILLS_OF=notebooks/00_quickstart.ipynb``.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from bmnas_core.experiments import load_result

KILLS = int(os.environ.get("BMNAS_KILLS", 1))
NOTEBOOK = os.environ.get("BMNAS_KILLS_OF")

CELLS = [
    "out = 'runs/kills'  # folder for the result\nseed = 0  # fixes everything that is random",
    """
import bmnas_core as bm
from dataclasses import replace
task = bm.load_task("digits")
bm.train_backbone(task, "Image", bm.TrainConfig(epochs=2), seed=seed, device="cpu")
""",
    """
search = bm.Search(task, bm.SearchConfig(epochs=1, rungs=((2, 1),), tuning_epochs=1), seed=seed)
history = bm.SearchHistory.from_search(search)
for state in search:
    history.append(state)
genotype = search.best_genotype
bm.draw_curves(history)
""",
    """
net, records = bm.train(genotype, task, bm.TrainConfig(epochs=3), seed=seed)
others = bm.compare(task, ["late fusion"], config=bm.TrainConfig(epochs=2), seed=seed)
losses = [record["train_loss"] for record in records]
""",
    """
result = dict(
    task=task.name, rule=task.rule, seed=seed, device="cpu", metric=task.metric,
    test=bm.evaluate(net, task), params=bm.count_parameters(net), search_seconds=0.0,
    train_seconds=0.0, baselines=others, losses=losses, best=search.best_score,
    curve=[state.val_loss for state in history if state.val_loss is not None],
    weights=sum(float(p.detach().double().sum()) for p in net.parameters()),
)
bm.save_run(out, result=result, genotype=genotype)
""",
]

pytestmark = [pytest.mark.slow, pytest.mark.notebook]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    if NOTEBOOK:
        return Path(NOTEBOOK).absolute()
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
    nb.cells[0].metadata["tags"] = ["parameters"]
    path = tmp_path_factory.mktemp("kills") / "small.ipynb"
    nbformat.write(nb, path)
    return path


def start(notebook, out, *options):
    command = [sys.executable, "-m", "bmnas_core.cli", "run", str(notebook), "--out", str(out)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, "-q", *options], **how, start_new_session=True)


def finish(process):
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    return said


def numbers(out):
    """A result without times, and without what was there when it was made."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if "seconds" not in k and k != "time"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    found = timeless(load_result(out))
    found["provenance"].pop("resumed")
    return found


@pytest.fixture(scope="module")
def unbroken(notebook, tmp_path_factory):
    """The result of an unbroken run, and how long it took."""
    out, begun = tmp_path_factory.mktemp("unbroken") / "run", time.monotonic()
    finish(start(notebook, out))
    return numbers(out), time.monotonic() - begun


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_that_is_resumed_equals_an_unbroken_one(
    notebook, unbroken, tmp_path, number, record_property
):
    expected, whole = unbroken
    out, moment = tmp_path / "run", random.Random(f"kill {number}").uniform(0.1, 0.98) * whole
    process = start(notebook, out)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    begun = time.monotonic()
    said = finish(start(notebook, out, "--resume"))
    rest = time.monotonic() - begun
    assert numbers(out) == expected
    assert not (out / "state").exists() and json.loads((out / "run.json").read_text())
    print(
        f"kill {number} {'after' if killed else 'too late,'} {moment:.0f} of {whole:.0f} s: "
        f"resumed in {rest:.0f} s, {moment + rest - whole:+.0f} s in all; {said.splitlines()[0]}"
    )
