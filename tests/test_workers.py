"""Worker processes that read: from any script, with little shared memory, and when they die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from bmnas_core import DataError
from bmnas_core.tasks import DataWarning, FileInputs
from bmnas_core.tasks.inputs import load

ITEMS = 12


def column(read):
    return FileInputs(tuple(map(str, range(ITEMS))), read, "1")


def numbers(read, workers=2):
    """Every item is full of its number; these are the numbers that arrive."""
    rows = torch.arange(ITEMS)
    batches = [(part, part[:, None]) for part in rows.split(3)]
    parts = [batch.inputs[0][:, 0] for batch in load([column(read)], batches, workers=workers)]
    return torch.cat(parts).tolist()


def full_of_its_number(item, random):
    return torch.full((2,), float(item))


def in_worker() -> bool:
    return torch.utils.data.get_worker_info() is not None


def ends_at_seven(item, random):
    if item == 7 and in_worker():
        os._exit(3)
    return full_of_its_number(item, random)


def is_killed_at_seven(item, random):
    if item == 7 and in_worker():
        os.kill(os.getpid(), signal.SIGKILL)
    return full_of_its_number(item, random)


def blocks_at_seven(item, random):
    if item == 7 and in_worker():
        time.sleep(1000)
    return full_of_its_number(item, random)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 9])
def test_batches_come_in_order_from_any_number_of_workers(workers):
    assert numbers(full_of_its_number, workers) == numbers(full_of_its_number, 0)
    assert numbers(full_of_its_number, workers) == list(range(ITEMS))


@pytest.mark.parametrize("read, code", [(ends_at_seven, 3), (is_killed_at_seven, -9)])
def test_a_worker_that_dies_is_noticed(monkeypatch, read, code):
    if code < 0 and sys.platform == "win32":
        pytest.skip("Windows has no SIGKILL")
    monkeypatch.setattr("bmnas_core.tasks.workers.POLL", 0.1)
    message = rf"^2 worker processes: found one that ended \(exit code {code}\); allowed: as many"
    others = set(multiprocessing.active_children())
    with pytest.raises(DataError, match=message):
        numbers(read)
    assert set(multiprocessing.active_children()) <= others


def test_a_worker_that_blocks_is_given_up_and_killed(monkeypatch):
    monkeypatch.setattr("bmnas_core.tasks.workers.POLL", 0.1)
    monkeypatch.setattr("bmnas_core.tasks.workers.MAX_WAIT", 0.5)
    others = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="^2 worker processes: found no batch for .* s; allowed: "):
        numbers(blocks_at_seven)
    assert set(multiprocessing.active_children()) <= others


def test_a_slow_worker_is_waited_for(monkeypatch):
    monkeypatch.setattr("bmnas_core.tasks.workers.POLL", 0.05)

    def slowly(item, random):
        time.sleep(0.04)
        return full_of_its_number(item, random)

    if multiprocessing.get_start_method() != "fork":
        pytest.skip("a function in a test is not sent to workers")
    assert numbers(slowly) == list(range(ITEMS))


def _read_in_a_daemon(results):
    with pytest.warns(DataWarning, match="a worker itself; files are read in this process") as said:
        results.put(numbers(full_of_its_number))
    results.put(sum(issubclass(one.category, DataWarning) for one in said))


def says_where_it_is(item, random):
    return torch.full((2,), float(in_worker()))


@pytest.mark.parametrize("given, there", [("0", 0.0), ("1", 1.0), ("", 1.0)])
def test_the_environment_says_how_many_workers_there_are(monkeypatch, given, there):
    monkeypatch.setenv("BMNAS_WORKERS", given)
    assert numbers(says_where_it_is, workers=None) == [there] * ITEMS
    assert numbers(says_where_it_is, workers=1) == [1.0] * ITEMS


@pytest.mark.parametrize("given", ["two", "-1", "1.5"])
def test_a_wrong_number_of_workers_in_the_environment_is_refused(monkeypatch, given):
    monkeypatch.setenv("BMNAS_WORKERS", given)
    with pytest.raises(DataError, match=f"BMNAS_WORKERS: found '{given}'; allowed: an integer of"):
        numbers(says_where_it_is, workers=None)


def test_a_process_that_may_start_no_workers_reads_by_itself():
    results = multiprocessing.Queue()
    process = multiprocessing.Process(target=_read_in_a_daemon, args=(results,), daemon=True)
    process.start()
    assert results.get(timeout=60) == list(range(ITEMS)) and results.get(timeout=60) == 1
    process.join(60)


# Items of 2 MB, so that a batch takes 6 MB.
LARGE = """
import tempfile, warnings
from pathlib import Path
import test_workers

warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}")
print(test_workers.numbers(test_workers.large) == list(range(test_workers.ITEMS)))
assert not list(Path(tempfile.gettempdir()).glob("bmnas-*"))
"""


def large(item, random):
    return torch.full((1 << 19,), float(item))


def run(arguments, **more):
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | more.pop("env", {})
    how = {"capture_output": True, "text": True, "timeout": 100, "encoding": "utf-8"}
    done = subprocess.run(arguments, env=env, **how, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


FILES, HERE = "batches go through files", "read in this process, which is slower"
SMALL = "found too little shared memory (unable to allocate"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mount, begins, ends",
    [
        ("size=64m", "", ""),
        ("size=8m", SMALL, FILES),
        ("size=8m with size=4m for files", "found unable to allocate shared memory", HERE),
        ("size=4k", "found no shared memory for locks (No space left", HERE),
        ("ro", "found no shared memory for locks (Read-only file system", HERE),
    ],
)
def test_little_shared_memory_is_said_and_done_without(mount, begins, ends):
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    shared, _, files = mount.partition(" with ")
    files = files.removesuffix(" for files") or "size=90m"
    script = f"mount -t tmpfs -o {shared} none /dev/shm; mount -t tmpfs -o {files} none /tmp;"
    env = {"TMPDIR": "/tmp"}
    command = [*inside, f'{script} exec "$@"', "sh"]
    try:
        run([*command, "true"], env=env)
    except (OSError, AssertionError) as error:
        pytest.skip(f"nothing can be mounted over /dev/shm here ({error})")
    *said, right = run([*command, sys.executable, "-c", LARGE], env=env).splitlines()
    assert right == "True" and len(said) == bool(ends)
    for line in said:
        assert line.startswith(f"DataNotice: worker processes: {begins}") and line.endswith(ends)


SCRIPT = """
import multiprocessing, sys, warnings
multiprocessing.set_start_method("{method}", force=True)
warnings.showwarning = lambda message, category, *_: print(category.__name__, message)
print("begins")
import test_workers
from test_workers import DataError, full_of_its_number
{own}
try:
    print(test_workers.numbers({read}, workers=1))
except DataError as error:
    print(error)
"""
OWN = "def own(item, random): return full_of_its_number(item, random)"
ALL = str([float(item) for item in range(ITEMS)])
GUARD = 'if __name__ == "__main__":'


def script_of(method, read="full_of_its_number"):
    return SCRIPT.format(method=method, own=OWN if read == "own" else "", read=read)


@pytest.mark.slow
@pytest.mark.parametrize("method, arguments", [("spawn", ["script.py"]), ("forkserver", ["-"])])
def test_a_script_without_main_guard_is_not_run_by_its_workers(tmp_path, method, arguments):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    script = script_of(method)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    out = run([sys.executable, *arguments], cwd=tmp_path, input=script)
    assert out.splitlines() == ["begins", ALL]


@pytest.mark.slow
def test_what_workers_cannot_have_of_a_script_is_read_by_the_script(tmp_path):
    path, script = tmp_path / "script.py", script_of("spawn", "own")
    path.write_text(script, encoding="utf-8")
    without = "a notebook, or a script without a file; allowed: own in a module of its own"
    guard = f"{path}, which has no `{GUARD}`; allowed: that line, or own in a module of its own"
    for arguments, why in ((["-c", script], without), ([path], guard)):
        begins, warning, found = run([sys.executable, *arguments]).splitlines()
        said = f"found own in {why}; files are read in this process, which is slower"
        assert (begins, warning) == ("begins", f"DataNotice worker processes: {said}")
        assert found == ALL


@pytest.mark.slow
def test_a_main_guard_at_the_wrong_place_is_named(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(f"{script_of('spawn', 'own')}\n{GUARD}\n    pass\n", encoding="utf-8")
    out = run([sys.executable, path]).splitlines()
    assert out[-1].startswith("1 worker processes: found ") and GUARD in out[-1]
    own, _, work = script_of("spawn", "own").partition("try:")
    path.write_text(f"{own}\n{GUARD}\n{textwrap.indent('try:' + work, '    ')}", encoding="utf-8")
    assert run([sys.executable, path]).splitlines()[-1] == ALL
