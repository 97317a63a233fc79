"""Speed of a search, as ratios measured side by side; printed only.

.venv/bin/python -m pytest tests/benchmarks -s
"""

import subprocess
import sys
import time
from statistics import median

import pytest
import torch

from bmnas_core import (
    FeatureBank,
    Search,
    SearchConfig,
    SearchHistory,
    draw,
    draw_curves,
    draw_heatmaps,
    load_task,
)
from bmnas_core.features import RawInputs, extract

pytestmark = pytest.mark.slow


def seconds(function, repeat: int) -> float:
    """Median wall time of ``repeat`` calls, after one for warming up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


class Recomputed:
    """Serves a bank's batches by running the backbones on raw inputs each time."""

    def __init__(self, bank: FeatureBank, task):
        self.bank, self.raw, self.task = bank, RawInputs(task), task
        for name in ("content_hash", "source_hash", "precision", "device", "size"):
            setattr(self, name, getattr(bank, name))

    def batch(self, split, rows, next_rows=None):
        inputs, labels = self.raw.batch(split, rows)
        features = {}
        with torch.no_grad():
            for modality in self.task.modalities:
                part = inputs[modality.name]
                features |= extract(modality, modality.backbone, part, self.bank.L)
        return features, labels


def test_features_from_the_bank_against_recomputing_the_backbones(capsys):
    task = load_task("digits")
    bank = FeatureBank(task)
    recomputed = Recomputed(bank, task)
    rows = torch.arange(64)
    from_bank, _ = bank.batch("train", rows)
    from_raw, _ = recomputed.batch("train", rows)
    for name, values in from_bank.items():
        torch.testing.assert_close(values, from_raw[name], rtol=1e-4, atol=1e-5)
    with capsys.disabled():
        for what, repeat in (("batches", 30), ("search steps", 15)):
            times = []
            for source in (bank, recomputed):
                search = Search(task, SearchConfig(), device="cpu", bank=source)
                batch = (lambda s=source: s.batch("train", rows)) if what == "batches" else None
                times.append(seconds(batch or (lambda s=search: next(s)), repeat))
            print(
                f"\n{what} with the FeatureBank {1e3 * times[0]:.2f} ms, recomputing "
                f"{1e3 * times[1]:.2f} ms: ratio {times[1] / times[0]:.1f}"
            )


@pytest.mark.parametrize("relaxation", ["paper", "pair"])
def test_one_search_step(capsys, relaxation):
    search = Search(load_task("digits"), SearchConfig(relaxation=relaxation), device="cpu")
    with capsys.disabled():
        print(f"\none search step, {relaxation}: {1e3 * seconds(lambda: next(search), 30):.1f} ms")


def test_import_beyond_torch(capsys):
    clock = "time.perf_counter()"
    script = f"import time, torch; t = {clock}; import bmnas_core; print({clock} - t)"

    def beyond() -> float:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        return float(done.stdout)

    with capsys.disabled():
        print(f"\nimport bmnas_core beyond torch: {median(beyond() for _ in range(3)):.2f} s")


def test_drawing_against_a_search_step(capsys):
    search = Search(load_task("digits"), device="cpu")
    history = SearchHistory.from_search(search)
    for _, state in zip(range(100), search, strict=False):
        history.append(state)
    drawings = {
        "hypernet": lambda: draw(state),
        "heatmaps": lambda: draw_heatmaps(state),
        "curves": lambda: draw_curves(history, at=50),
        "genotype": lambda: draw(state.genotype),
    }
    times = {name: 1e3 * seconds(call, 10) for name, call in drawings.items()}
    step = 1e3 * seconds(lambda: next(search), 10)
    with capsys.disabled():
        parts = ", ".join(f"{name} {time:.1f} ms" for name, time in times.items())
        print(f"\ndrawn: {parts}; all together {sum(times.values()) / step:.1f} search steps")


@pytest.mark.gpu
def test_one_search_step_on_the_gpu_against_the_cpu(capsys):
    task = load_task("digits")
    times = {}
    for device in ("cpu", "cuda"):
        search = Search(task, SearchConfig(), device=device)
        times[device] = seconds(lambda s=search: (next(s), torch.cuda.synchronize()), 30)
    with capsys.disabled():
        print(
            f"\none search step, CPU {1e3 * times['cpu']:.1f} ms, GPU {1e3 * times['cuda']:.1f} ms "
            f"({torch.cuda.get_device_name()}): ratio {times['cpu'] / times['cuda']:.1f}"
        )
