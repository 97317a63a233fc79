"""Folders of runs as `bmnas run` leaves them, without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

from bmnas_core.genotype import CellGenotype, Genotype, StepGenotype

FEATURES = ("Image_1", "Image_2", "Audio_1", "Audio_2")
RESULT = {
    "task": "digits",
    "rule": "sum",
    "seed": 0,
    "device": "cpu",
    "metric": "accuracy",
    "test": 0.93212345678,
    "params": 12345,
    "search_seconds": 20.0,
    "train_seconds": 10.0,
    "baselines": {"late fusion": {"test": 0.33, "params": 20, "seconds": 1.5}},
}


def genotype_of(*inputs: str, features=FEATURES, order=("X", "Y")) -> Genotype:
    """One Cell with a sum of two features, in whatever order."""
    cell = CellGenotype(inputs, (StepGenotype("sum", order),))
    return Genotype(tuple(features), (cell,))


GENOTYPE = genotype_of("Image_1", "Audio_1")


def write_run(
    folder: Path, *, parameters: dict | None = None, status: str = "done", error=None, **changes
) -> Path:
    """A folder with a ``result.json``; with ``parameters``, a ``run.json`` too.

    A run whose status is not "done" has no result.
    """
    folder.mkdir(parents=True)
    if status == "done":
        (folder / "result.json").write_text(json.dumps(RESULT | changes))
    if parameters is not None:
        record = {
            "format": "bmnas-run/1",
            "notebook": "nb.ipynb",
            "notebook_sha256": "0" * 64,
            "parameters": parameters,
            "status": status,
            "error": error,
            "started": "2026-11-29T10:00:00+01:00",
            "seconds": 60.5 if status == "done" else None,
        }
        (folder / "run.json").write_text(json.dumps(record))
    return folder


#: A cell that saves a result as a run does; its score follows from the seed.
CELL = f"""
import os, time
from pathlib import Path
import torch
from bmnas_core.experiments import save_run
from bmnas_core.genotype import Genotype
with torch.random.fork_rng():
    torch.manual_seed(seed)
    score = float(torch.rand(1, dtype=torch.float64))
score += float(os.environ.get("NOISE", 0))
result = {RESULT!r} | {{"seed": seed, "test": score, "search_seconds": time.time()}}
result["extra"] = {{"losses": [score / 3, 1.0], "note": "as it was", "threads": str(os.environ["OMP_NUM_THREADS"])}}
save_run(out, result=result, genotype=Genotype.from_json({GENOTYPE.to_json()!r}), parameters={{"seed": seed}})
"""  # noqa: E501


def write_notebook(path: Path) -> Path:
    """A notebook with parameters and one cell of code, which saves a result."""
    nb = nbformat.v4.new_notebook()
    source = 'seed = 0  # of all\nrate = 0.5  # of nothing\nout = "runs/here"'
    nb.cells = [nbformat.v4.new_code_cell(text) for text in (source, CELL)]
    nb.cells[0].metadata.tags = ["parameters"]
    nbformat.write(nb, path)
    return path
