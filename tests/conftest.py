"""What every test may rely on: threads, data folders, the order of tests, and what CI demands."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread per test process, set before torch is imported; notebook kernels inherit it.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
if not os.environ.get("BMNAS_DATA") and (SHARED / "data").is_dir():
    os.environ["BMNAS_DATA"] = str(SHARED / "data")

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
ORDER = ("slow", "notebook", "browser")


def pytest_configure(config):
    from hypothesis import HealthCheck, settings

    # Timings never fail a test, and CI path_samples the same examples every time.
    settings.register_profile(
        "bmnas", deadline=None, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("bmnas")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Fast tests first, then slow ones, notebooks, the browser; ``gpu`` only where there is one."""

    def rank(item) -> int:
        return max(
            (1 + i for i, marker in enumerate(ORDER) if item.get_closest_marker(marker)), default=0
        )

    items.sort(key=rank)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def readme_tables() -> list[list[list[str]]]:
    """The README's tables as rows of cells, without marks for bold and italics."""
    tables, rows = [], []
    for line in [*(ROOT / "README.md").read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("*", "") for cell in line.strip("|").split("|")])
        elif rows:
            tables.append(rows)
            rows = []
    return tables


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with reference numbers and data sets, not distributed."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared: reference numbers and data sets are not distributed")
    return SHARED


@pytest.fixture(scope="session")
def data_root() -> Path:
    """``$BMNAS_DATA``, the folder with the data sets' original files."""
    folder = os.environ.get("BMNAS_DATA")
    if not folder:
        pytest.skip("no data sets: BMNAS_DATA is not set and there is no ../shared/data")
    return Path(folder)


@pytest.fixture(scope="session")
def small_task():
    """A task with 60 architectures of one Cell with one step."""
    from tiny import SETTINGS, tiny_task

    return tiny_task(settings=replace(SETTINGS, M=1))


@pytest.fixture(scope="session")
def small_table(small_task, tmp_path_factory) -> Path:
    """the tabular benchmark of ``small_task``, two seeds. Not to be written to."""
    from bmnas_core.benchmark.tabular import build

    path = tmp_path_factory.mktemp("benchmark") / "benchmark.parquet"
    build(small_task, path, (0, 1), device="cpu")
    return path


@pytest.fixture(scope="session")
def notebook_runs(tmp_path_factory) -> Path:
    """Where notebook tests leave their runs: ``$BMNAS_NOTEBOOK_RUNS``, else a temporary folder."""
    folder = os.environ.get("BMNAS_NOTEBOOK_RUNS")
    if not folder:
        return tmp_path_factory.mktemp("notebook_runs")
    path = ROOT / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium or Chrome. CI must have one; elsewhere tests without it skip."""
    return system_program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def dot() -> str:
    """Graphviz's ``dot``. CI must have it; elsewhere tests without it skip."""
    return system_program("dot")


def system_program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        (pytest.fail if IN_CI else pytest.skip)(f"not installed: {' or '.join(names)}")
    return found
