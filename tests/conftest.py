"""What all tests share: threads, their order, fixtures, and what CI must not skip."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread per test process, set before torch is imported; notebook kernels inherit it.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
ORDER = ("slow", "notebook", "browser")
#: Modules in which what tests share takes longer to make than the tests take.
TOGETHER = ("test_reproduce", "test_site", "test_storage")


def pytest_configure(config):
    from hypothesis import HealthCheck, settings

    # Timings never fail a test, and CI draws the same examples every time.
    settings.register_profile(
        "bmnas", deadline=None, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("bmnas")


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, up to five: many tests wait for a kernel or a browser."""
    return min(os.cpu_count() or 1, 4) + 1


def pytest_xdist_make_scheduler(config, log):
    """Tests in the browser stay together: one process runs all of them, beside the others.

    They wait more than they compute, and a module of them starts JupyterLab once. If only they are
    asked for, each process runs whole modules instead. So it is with the modules of TOGETHER.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    alone = config.getoption("markexpr") == "browser"

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if "/browser/" in path:
                return path if alone else "browser"
            return path if Path(path).stem in TOGETHER else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run fast tests first, then slow ones, notebooks, the browser; skip ``gpu`` without one.

    With several processes the longest come first, so that short ones fill the time of those that
    have nothing left: the browser, which one process does alone, then notebooks.
    """
    several = "PYTEST_XDIST_WORKER" in os.environ

    def rank(item) -> int:
        markers = [i for i, marker in enumerate(ORDER, 1) if item.get_closest_marker(marker)]
        longest = max(markers, default=0)
        return -longest if several and longest > ORDER.index("slow") + 1 else longest

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
def committed_files() -> list[Path]:
    """Existing files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="session")
def page_tables() -> list[list[list[str]]]:
    """Tables of README and pages as rows of cells, without the asterisks of bold and italics."""
    tables, rows, pages = [], [], [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for line in "\n\n".join(page.read_text(encoding="utf-8") for page in pages).splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().replace("*", "") for cell in line.strip("|").split("|")])
        elif rows:
            tables.append(rows)
            rows = []
    return tables


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``shared_folder(name, make)``: what ``make`` filled, once for all test processes."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def data_root() -> Path:
    """``$BMNAS_DATA``, the folder with the data sets' original files. Tests skip without it."""
    folder = os.environ.get("BMNAS_DATA")
    if not folder:
        pytest.skip("no data sets: set BMNAS_DATA to the folder that holds 'avmnist'")
    return Path(folder)


@pytest.fixture(scope="session")
def small_task():
    """A task with 60 architectures of one Cell with one step."""
    from tiny import SETTINGS, tiny_task

    return tiny_task(settings=replace(SETTINGS, N=1, M=1))


@pytest.fixture(scope="session")
def small_table(small_task, tmp_path_factory) -> Path:
    """The tabular benchmark of ``small_task``, two seeds. Tests must not write to it."""
    from bmnas_core.benchmark import tabulate

    path = tmp_path_factory.mktemp("benchmark") / "benchmark.parquet"
    tabulate(small_task, path, (0, 1), device="cpu")
    return path


@pytest.fixture
def product_operation():
    """The name of an operation that is registered for one test."""
    from torch import nn

    from bmnas_core.ops import OPERATIONS, register_operation

    with OPERATIONS.restored():

        @register_operation("product", symmetric=True)
        class Product(nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return x * y

        yield "product"


@pytest.fixture(scope="session")
def notebook_runs(tmp_path_factory) -> Path:
    """Where notebook tests leave runs: ``$BMNAS_NOTEBOOK_RUNS``, by default a temporary folder."""
    folder = os.environ.get("BMNAS_NOTEBOOK_RUNS")
    if not folder:
        return tmp_path_factory.mktemp("notebook_runs")
    path = ROOT / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium or Chrome. CI must have one; elsewhere tests skip without it."""
    return system_program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def dot() -> str:
    """Graphviz's ``dot``. CI must have it; elsewhere tests skip without it."""
    return system_program("dot")


def system_program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        (pytest.fail if IN_CI else pytest.skip)(f"not installed: {' or '.join(names)}")
    return found


@pytest.fixture(scope="session")
def built_site(shared_folder) -> Path:
    """The course as a site, built once from what is committed; a warning fails."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
        command += ["-d", str(folder / "cache"), ".", str(folder / "site")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return shared_folder("site", build) / "site"
