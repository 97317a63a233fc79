"""Locks between processes, and work that processes share."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bmnas_core.errors import FileError
from bmnas_core.locks import BusyError, is_locked, locked, share_work

HOLD = """
import sys, time
from bmnas_core.locks import locked
with locked({path!r}):
    print("held", flush=True)
    time.sleep({seconds})
"""

#: Items of work are files in a folder; each process notes what it has done.
WORK = """
import os, sys, time
from pathlib import Path
from bmnas_core.locks import share_work
folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def do(item):
    print("doing", item, flush=True)
    with open(folder / "log", "a") as log:
        log.write(f"{name} {item}\\n")
    time.sleep(seconds)
    (folder / str(item)).touch()
print("ready", flush=True)
sys.stdin.readline()
share_work(folder / "work", range(8), lambda item: not (folder / str(item)).exists(), do, "items")
assert all((folder / str(item)).exists() for item in range(8))
"""


def started(code: str, *words: object) -> subprocess.Popen:
    """A process that runs ``code`` and has printed its first line."""
    command = [sys.executable, "-c", code, *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)
    assert process.stdout.readline()
    return process


def holder(path: Path, seconds: float = 60) -> subprocess.Popen:
    """A process that holds the lock of ``path``."""
    return started(HOLD.format(path=str(path), seconds=seconds))


@pytest.fixture(params=["a file", "a file that is not there", "a folder"])
def path(request, tmp_path) -> Path:
    path = tmp_path / "place"
    if request.param == "a folder":
        path.mkdir()
    elif request.param == "a file":
        path.write_text("kept")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_second_process_is_refused_with_the_owners_command_and_age_until_that_is_killed(tmp_path):
    path = tmp_path / "place"
    process = holder(path)
    time.sleep(1.1)
    with pytest.raises(BusyError) as error, locked(path):
        raise AssertionError("never reached")
    said = str(error.value)
    assert said.startswith(f"{path}: found it in use for ") and "'-c'" in said
    assert f"process {process.pid} of " in said and said.endswith(
        "; allowed: one process at a time"
    )
    assert int(said.split("in use for ")[1].split(" s ")[0]) in range(1, 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(path, wait=5):
        assert is_locked(path)


def test_a_lock_is_held_once_and_free_afterwards(path):
    with locked(path):
        assert is_locked(path)
        with pytest.raises(BusyError), locked(path):
            raise AssertionError("never reached")
        with pytest.raises(BusyError), locked(path, wait=0.2):
            raise AssertionError("never reached")
    assert not is_locked(path)
    assert (not path.is_file()) or path.read_text() == "kept"
    left = path if path.is_dir() else path.parent
    assert [p.name for p in left.glob("*.owner")] == []


def test_another_thread_is_refused_too(tmp_path):
    found = []
    with locked(tmp_path):
        thread = threading.Thread(target=lambda: found.append(is_locked(tmp_path)))
        thread.start()
        thread.join()
    assert found == [True]


def test_the_lock_of_a_link_is_that_of_its_file(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
        with locked(tmp_path / name), pytest.raises(BusyError), locked(tmp_path / f"to {name}"):
            raise AssertionError("never reached")


def test_who_waits_gets_the_lock_once_it_is_free(tmp_path):
    held = threading.Event()

    def hold():
        with locked(tmp_path):
            held.set()
            time.sleep(0.4)

    threading.Thread(target=hold).start()
    held.wait(10)
    start = time.monotonic()
    with locked(tmp_path, wait=None):
        assert time.monotonic() - start > 0.2


@pytest.mark.parametrize("place", ["file/below", "a\0b", "n" * 300, None])
def test_where_no_lock_can_be_made_is_said_in_one_line(tmp_path, place):
    (tmp_path / "file").write_text("a file")
    path = place and tmp_path / place
    message = "^(path: found |/).*(null|None|long|exists)"
    with pytest.raises(FileError, match=message) as error, locked(path):
        raise AssertionError("never reached")
    assert "\n" not in str(error.value)


# --- work that processes share


def shared(folder: Path, names: str, seconds: float) -> list[subprocess.Popen]:
    """Processes of these names, begun at the same time."""
    processes = [started(WORK, folder, name, seconds) for name in names]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def done(folder: Path) -> list[list[str]]:
    """Who did what."""
    return [line.split() for line in (folder / "log").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_do_each_item_once_and_both_end_with_all(tmp_path):
    processes = shared(tmp_path, "AB", 0.15)
    assert [process.wait(60) for process in processes] == [0, 0]
    names, items = zip(*done(tmp_path), strict=True)
    assert sorted(items) == [str(item) for item in range(8)] and {*names} == {"A", "B"}
    assert {p.name for p in tmp_path.iterdir()} == {*items, "log", ".work.lock"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_killed_process_was_doing_is_done_by_the_other(tmp_path):
    (killed,) = shared(tmp_path, "A", 60)
    assert killed.stdout.readline() == "doing 0\n"
    (other,) = shared(tmp_path, "B", 0)
    while len(done(tmp_path)) < 1 + 7:
        time.sleep(0.05)
    assert other.poll() is None  # it waits for item 0
    killed.send_signal(signal.SIGKILL)
    assert other.wait(30) == 0
    assert done(tmp_path)[0] == ["A", "0"] and done(tmp_path)[-1] == ["B", "0"]
    assert not [*tmp_path.glob(".work.?*.lock")]
    killed.wait()


def test_an_item_that_fails_is_free_for_others(tmp_path):
    found = []

    def fails(item):
        raise ValueError(item)

    def missing(item):
        return item not in found

    with pytest.raises(ValueError, match="0"):
        share_work(tmp_path / "work", range(3), missing, fails, "items")
    share_work(tmp_path / "work", range(3), missing, found.append, "items")
    assert found == [0, 1, 2] and os.listdir(tmp_path) == [".work.lock"]


def test_items_that_stay_missing_are_tried_once(tmp_path):
    tried = []
    share_work(tmp_path / "work", "ab", lambda item: True, tried.append, "items")
    assert tried == ["a", "b"]


def test_work_that_is_done_needs_no_lock(tmp_path):
    share_work(tmp_path / "work", range(3), lambda item: False, print, "items")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_vanishes_meanwhile_does_not_hide_the_error(tmp_path):
    place = tmp_path / "folder"
    place.mkdir()

    def vanish(item):
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        raise FileError("the folder is gone")

    with pytest.raises(FileError, match="the folder is gone"):
        share_work(place / "work", range(3), lambda item: True, vanish, "items")
    assert os.listdir(tmp_path) == []


#: Tables of the tiny task, filled by a baseline that notes who called it.
TABLES = """
import sys
from dataclasses import replace
from pathlib import Path
import bmnas_core as bm
from bmnas_core.baselines import BASELINES, run_baselines
from bmnas_core.benchmark import run_benchmark, tabulate
from bmnas_core.tasks import TASKS
from tiny import SETTINGS, tiny_task
folder, name = Path(sys.argv[1]), sys.argv[2]

@bm.register_baseline("noted")
def noted(context):
    with open(folder / "log", "a") as log:
        log.write(f"{name} {context.seed} {context.config.data}\\n")
    yield from BASELINES["logistic regression"](context)

TASKS.add("tiny", lambda rule="sum": tiny_task(settings=replace(SETTINGS, N=1, M=1)))
task = bm.load_task("tiny")
print("ready", flush=True)
sys.stdin.readline()
run_baselines("tiny", ("sum",), range(6), folder / "t.csv", names=["noted"], device="cpu")
how = {"names": ["random search"], "device": "cpu"}
run_benchmark("digits", ["sum"], range(400, 406), folder / "b.csv", **how)
tabulate(task, folder / "t.parquet", [0, 1], device="cpu", progress=False)
how = {"baselines": [], "device": "cpu", "out": folder / "folds", "progress": False}
found = bm.cross_validate(task, 3, **how)
print(found.predictions.sum().item(), flush=True)
"""


@pytest.mark.slow
def test_two_processes_with_one_table_lose_and_double_no_row(root, tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tests")]))
    processes = [started(TABLES, tmp_path, name) for name in "AB"]
    said = {process.communicate("go\n", timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(said) == 1
    table = pd.read_csv(tmp_path / "t.csv")
    assert sorted(table["seed"]) == [*range(6)] and table["test"].notna().all()
    noted = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({(seed, data) for _, seed, data in noted}) == len(noted) == 2 * 6
    assert sorted(pd.read_csv(tmp_path / "b.csv")["seed"]) == [*range(400, 406)]
    networks = pd.read_parquet(tmp_path / "t.parquet")
    assert len(networks) == len(networks[["genotype", "seed"]].drop_duplicates()) == 120
    assert len([*(tmp_path / "folds").glob("*.safetensors")]) == 3
    assert not [path.name for path in tmp_path.rglob(".*") if path.suffix != ".lock"]
