"""Folders of runs as `bmnas run` leaves them, without running anything."""

from __future__ import annotations

import json
from pathlib import Path

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
