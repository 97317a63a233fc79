"""Speed of a bank on disk and of one in memory, at the sizes of NTU RGB+D; printed only.

.venv/bin/python -m pytest tests/benchmarks/test_bank_speed.py -s

With BMNAS_BENCHMARK_ITEMS=250000 the bank takes 30 GB, more than the memory of most machines. The
bank in memory therefore has at most 1,024 items.
"""

import os
import time
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from bmnas_core import FeatureBank, Search, SearchConfig
from bmnas_core.config import Settings
from bmnas_core.tasks import Modality, Split, Task

pytestmark = pytest.mark.slow

ITEMS = int(os.environ.get("BMNAS_BENCHMARK_ITEMS", 1024))
CHANNELS = {"Video": (512, 1024, 2048, 2048), "Skeleton": (128, 256, 1024, 512)}
SETTINGS = Settings(
    C=128, L=8, N=2, M=2, epochs=30, batch_size=96, dropout=0.2, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip


class FreeFeatures(nn.Module):
    """Features that cost nothing: the same random numbers for every 512 items."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.blocks = [torch.randn(512, c, SETTINGS.L).relu() for c in channels]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [block[: len(x)].to(x.device) for block in self.blocks]


def task_of(items: int) -> Task:
    random = torch.Generator().manual_seed(0)
    modalities = tuple(
        Modality(
            name,
            FreeFeatures(channels),
            {f"{name}_{i + 1}": c for i, c in enumerate(channels)},
            torch.randn(items, 1, generator=random),
            pooling="time",
        )
        for name, channels in CHANNELS.items()
    )
    parts = torch.arange(items)[:, None].expand(-1, 2).tensor_split([items // 2, items * 3 // 4])
    splits = {
        name: Split(name, rows, torch.randint(60, (len(rows),), generator=random))
        for name, rows in zip(("train", "validation", "test"), parts, strict=True)
    }
    return Task("large", "", 60, "accuracy", modalities, splits, SETTINGS)


def step_seconds(search: Search, steps: int) -> float:
    next(search)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        next(search)
        times.append(time.perf_counter() - start)
    return median(times)


def test_a_search_on_a_bank_on_disk_against_one_in_memory(capsys, tmp_path):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, steps = SearchConfig(selection="argmax"), 12
    small, large = task_of(min(ITEMS, 1024)), task_of(ITEMS)
    start = time.perf_counter()
    on_disk = FeatureBank(large, folder=tmp_path, device=device)
    written = time.perf_counter() - start
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    in_memory = FeatureBank(small, device=device)
    memory, disk = (
        step_seconds(Search(task, config, device=device, bank=bank), steps)
        for task, bank in ((small, in_memory), (large, on_disk))
    )
    start, batches = time.perf_counter(), 20
    for _ in range(batches):
        on_disk.batch("train", torch.randint(on_disk.size("train"), (96,)))
    alone = (time.perf_counter() - start) / batches
    with capsys.disabled():
        print(
            f"\nbank of {ITEMS:,} items, {size / 1e9:.2f} GB on disk, written in {written:.0f} s; "
            f"a search step on {device}: in memory {1e3 * memory:.0f} ms, on disk "
            f"{1e3 * disk:.0f} ms, ratio {disk / memory:.2f}; a random batch read alone "
            f"{1e3 * alone:.0f} ms"
        )
