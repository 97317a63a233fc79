"""Files that are whole or not there, checksums of tensors, and tables that processes share."""

import csv
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bmnas_core.errors import BmnasError, FileError
from bmnas_core.reading import parse_json
from bmnas_core.storage import (
    ABANDONED,
    ResumableTable,
    TableError,
    atomic_write,
    check_writable,
    is_stream,
)
from bmnas_core.tasks.files import cached_folder
from bmnas_core.tensor_files import read_tensors, write_tensors

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as beside:
        beside.write_text(text)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what is replaced, and what is not


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path, there):
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "file").write_text("old")
    (tmp_path / "far" / "link").symlink_to("file")
    (tmp_path / "near").symlink_to(Path("far") / "link")
    write(tmp_path / "near")
    assert os.readlink(tmp_path / "near") == "far/link" and (tmp_path / "near").is_symlink()
    assert not (tmp_path / "far" / "file").is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "far")) == ["file", "link"]


@posix
def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileError, match="path: found '.*/a'.*; allowed: the path of a file"):
        write(tmp_path / "a")


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_file_keeps_its_mode_and_a_new_one_has_the_usual(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("old")
    usual = mode_of(path)
    path.chmod(mode)
    write(path)
    write_tensors(tmp_path / "new", {"x": torch.zeros(1)}, {})
    assert (mode_of(path), mode_of(tmp_path / "new")) == (mode, usual)


@posix
def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_text()))
    reader.start()
    write(path, "text " * 50_000)
    reader.join(10)
    assert found == ["text " * 50_000] and stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"] and is_stream(path)


@posix
def test_a_device_is_written_to_and_stays_a_device():
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if os.path.exists("/dev/full"):
        with pytest.raises(FileError, match="^/dev/full: not written: No space left on device$"):
            write("/dev/full")
    assert not [name for name in os.listdir("/dev") if name.endswith(".part")]


@posix
def test_a_socket_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(FileError, match="path: found 'socket', which is no file; allowed"):
            write("socket")
    assert stat.S_ISSOCK(os.stat("socket").st_mode) and os.listdir() == ["socket"]


@posix
@pytest.mark.slow
def test_dev_stdout_is_the_standard_output_wherever_that_goes(tmp_path):
    code = """
import sys
from bmnas_core.storage import atomic_write
print("before")
with atomic_write("/dev/stdout") as beside:
    beside.write_text("written\\n")
print("after")
"""
    command = [sys.executable, "-c", code]
    log = tmp_path / "log"
    log.write_text("earlier\n")
    with open(log, "a") as out:
        subprocess.run(command, stdout=out, check=True)
    assert log.read_text() == "earlier\nbefore\nwritten\nafter\n"
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert piped.stdout == "before\nwritten\nafter\n" and os.listdir(tmp_path) == ["log"]


def test_a_write_that_is_only_tried_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "file").write_text("old")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    with pytest.raises(FileError, match="path: found the folder"):
        check_writable(tmp_path)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


# --- parts


def test_each_thread_has_a_part_of_its_own(tmp_path):
    path, parts, both = tmp_path / "file", [], threading.Barrier(2)

    def one(text):
        with atomic_write(path) as beside:
            parts.append(beside.name)
            both.wait(10)
            beside.write_text(text)
            both.wait(10)

    threads = [threading.Thread(target=one, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*parts}) == 2 and all(f"-{os.getpid()}-" in part for part in parts)
    assert path.read_text() in ("one", "two") and os.listdir(tmp_path) == ["file"]


@posix
def test_parts_of_processes_that_are_gone_are_swept_and_those_of_this_one_are_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with atomic_write(tmp_path / "file") as beside:
        beside.write_text("whole")
        half = beside.with_name(beside.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
        half.write_text("half")
        write(tmp_path / "other")
        assert not half.exists() and beside.exists()
    assert (tmp_path / "file").read_text() == "whole"


@posix
def test_a_pipe_with_a_number_for_its_name_is_no_open_file(tmp_path):
    found = []
    os.mkfifo(tmp_path / "2")
    reader = threading.Thread(target=lambda: found.append((tmp_path / "2").read_text()))
    reader.start()
    write(tmp_path / "2")
    reader.join(10)
    assert found == ["new"]


def test_a_folder_of_the_cache_is_made_once_and_its_parts_are_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_CACHE", str(tmp_path))
    made = cached_folder("made", make_folder)
    half = tmp_path / "made" / ".made.0123abcd-1-1.part"
    half.mkdir(), (half / "file").write_text("half")
    os.utime(half, (0, 0))
    assert cached_folder("made", make_folder) == made and (made / "file").read_text() == "whole"
    other = cached_folder("made", make_folder, "other")
    assert sorted(os.listdir(tmp_path / "made")) == sorted([made.name, other.name])
    with pytest.raises(FileError, match="made-.*: not written: No such file or directory$"):
        cached_folder("made", make_folder, "gone")
    assert len(os.listdir(tmp_path / "made")) == 2


def make_folder(folder: Path, text: str = "whole") -> None:
    if text == "gone":
        folder.rmdir()
    (folder / "file").write_text(text)


@posix
@pytest.mark.slow
def test_parts_of_killed_processes_are_swept_and_those_of_running_ones_are_not(tmp_path):
    code = """
import sys, threading
from bmnas_core.storage import atomic_write
with atomic_write(sys.argv[1]) as beside:
    beside.write_text("half")
    print(beside, flush=True)
    sys.stdin.readline()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code, tmp_path / "file"]
    killed, running = (subprocess.Popen(command, **pipes) for _ in range(2))
    half, whole = (Path(process.stdout.readline().strip()) for process in (killed, running))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert half.exists() and whole.exists() and half != whole
    write(tmp_path / "other")
    assert not half.exists() and whole.exists()
    running.communicate("go on\n")
    assert running.returncode == 0 and (tmp_path / "file").read_text() == "half"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_parts_of_other_machines_are_swept_after_a_day(tmp_path):
    fresh, old = (tmp_path / f".file.0123abcd-{number}-1.part" for number in (1, 2))
    for part in (fresh, old, tmp_path / ".mine.part"):
        part.write_text("half")
    past = time.time() - ABANDONED - 60
    os.utime(old, (past, past))
    write(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == [fresh.name, ".mine.part", "file"]


def test_bytes_are_on_the_disk_before_the_name_is_theirs(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace
    size = lambda file: done.append(os.fstat(file).st_size) or sync(file)  # noqa: E731
    monkeypatch.setattr("os.fsync", size)
    monkeypatch.setattr("os.replace", lambda *paths: done.append("renamed") or replace(*paths))
    write(tmp_path / "file", "12345")
    assert done == [5, "renamed"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 200])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_vanishes_meanwhile_is_said_in_one_line(tmp_path):
    path = tmp_path / "folder" / "file"
    message = f"^{path}: not written: No such file or directory$"
    with pytest.raises(FileError, match=message), atomic_write(path) as beside:
        beside.write_text("half")
        shutil.rmtree(path.parent)
    assert os.listdir(tmp_path) == []


@posix
@pytest.mark.slow
def test_a_file_that_grows_beyond_its_limit_is_said_in_one_line(tmp_path):
    code = """
import resource, sys, torch
from bmnas_core.errors import FileError
from bmnas_core.storage import atomic_write
from bmnas_core.tensor_files import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for name in ("text", "tensors"):
    try:
        if name == "text":
            with atomic_write(sys.argv[1]) as beside:
                beside.write_text("text " * 10_000)
        else:
            write_tensors(sys.argv[1], {"x": torch.zeros(10_000)}, {})
    except FileError as error:
        print(error)
"""
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == f"{path}: not written: File too large\n" * 2 and not done.stderr
    assert os.listdir(tmp_path) == []


# --- a full disk, and one that is read-only


ON_DISK = """
import json, os, sys, threading
import torch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from click.testing import CliRunner
from typer.main import get_command
import bmnas_core as bm
from bmnas_core.cli.app import app
from bmnas_core.backbones.paper.checkpoints import save_checkpoint
from bmnas_core.benchmark import tabulate
from bmnas_core.experiments import save_run
from bmnas_core.tensor_files import write_tensors
from bmnas_core.tasks import TASKS, files
from tiny import SETTINGS, tiny_task
from dataclasses import replace

disk, home = Path(sys.argv[1]), Path(sys.argv[2])
small = replace(SETTINGS, N=1, M=1)
TASKS.add("tiny", lambda rule="sum": tiny_task(settings=small))
task = bm.load_task("tiny")
search = bm.Search(task, bm.SearchConfig(epochs=1), device="cpu")
next(search)
genotype, history = search.state.genotype, bm.SearchHistory.from_search(search)
config = bm.TrainConfig(epochs=1)
net = bm.train(genotype, task, config, seed=0, device="cpu", progress=False)[0]
found, python = {}, {
    "network": lambda: bm.save_network(net, disk / "x"),
    "history": lambda: history.save(disk / "x"),
    "page": lambda: history.to_html(disk / "x.html"),
    "genotype": lambda: genotype.save(disk / "x.json"),
    "picture": lambda: bm.draw(genotype).save(disk / "x.svg"),
    "tensors": lambda: write_tensors(disk / "x", {"x": torch.zeros(10**6)}, {}),
    "weights": lambda: save_checkpoint(net, disk / "x.safetensors"),
    "parquet": lambda: tabulate(task, disk / "x.parquet", [0], sample=2, progress=False),
}
for name, call in python.items():
    try:
        call()
        found[name] = 0, "", os.listdir(disk)
    except BaseException as error:
        found[name] = type(error).__name__, str(error), os.listdir(disk)
result = {"task": "tiny", "rule": "sum", "seed": 0, "device": "cpu", "metric": "accuracy",
          "test": 0.5, "params": 9, "search_seconds": 1.0, "train_seconds": 1.0, "baselines": {}}
save_run(home / "run", result=result, genotype=genotype)


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200), self.send_header("Content-Length", "100000"), self.end_headers()
        self.wfile.write(bytes(100_000))

    def log_message(self, *words):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
files.URLS = dict.fromkeys(files.URLS, f"http://127.0.0.1:{server.server_port}/")
os.environ["BMNAS_DATA"] = str(disk / "data")
genotype.save(home / "g.json"), bm.save_network(net, home / "net.safetensors")
commands = {
    "draw": ["draw", home / "g.json", "-o", disk / "g.svg"],
    "export --source": ["export", home / "net.safetensors", "--source", "-o", disk / "net.py"],
    "export": ["export", home / "net.safetensors", "--torch-export", "-o", disk / "net.pt2"],
    "backbone": ["backbone", "tiny", "Image", "--epochs", 1, "-o", disk / "x.safetensors"],
    "baselines": ["baselines", "tiny", "--rule", "sum", "--seeds", 1, "--baseline",
                  "logistic regression", "-o", disk / "t.csv"],
    "tabulate": ["tabulate", "tiny", "--sample", 2, "--seeds", 1, "-o", disk / "t.parquet"],
    "benchmark": ["benchmark", "digits", "--rule", "sum", "--seeds", 1, "--strategy",
                  "random search", "-o", disk / "t.csv"],
    "cross-validate": ["cross-validate", "tiny", "--folds", 2, "--baseline",
                       "logistic regression", "-o", disk / "t.csv"],
    "cross-validate --keep": ["cross-validate", "tiny", "--folds", 2, "--baseline",
                              "logistic regression", "-o", home / "t.csv", "--keep", disk],
    "collect": ["collect", home / "run", "-o", disk / "c.csv"],
    "notebooks": ["notebooks", disk],
    "data fetch": ["data", "fetch", "avmnist"],
}
for name, words in commands.items():
    done = CliRunner().invoke(get_command(app), [*map(str, words)])
    left = [str(path) for path in disk.rglob("*") if path.is_file()]
    found[name] = done.exit_code, done.stderr, [os.path.basename(path) for path in left]
print(json.dumps(found))
"""
WRITERS = ["network", "history", "page", "genotype", "picture", "tensors", "weights", "parquet"]
COMMANDS = [
    *("draw", "export --source", "export", "backbone", "baselines", "tabulate", "benchmark"),
    *("cross-validate", "cross-validate --keep", "collect", "notebooks", "data fetch"),
]


@pytest.fixture(scope="module", params=["full", "read-only"])
def on_disk(request, root, shared_folder) -> tuple[str, dict[str, list]]:
    """What each writer said on a small disk: exit status or error, message, files left."""
    state = request.param
    folder = shared_folder(f"disk_{state}", lambda folder: write_on_disk(folder, state, root))
    return state, json.loads((folder / "said.json").read_text(encoding="utf-8"))


def write_on_disk(folder: Path, state: str, root: Path):
    disk, home, script = folder / "disk", folder / "home", folder / "script.py"
    disk.mkdir(), home.mkdir(), script.write_text(ON_DISK)
    options = "size=1m" if state == "full" else "ro"
    fill = f"head -c 1m /dev/zero > {disk}/fill" if state == "full" else "true"
    mounted = f"mount -t tmpfs -o {options} tmpfs {disk} && {{ {fill}; true; }}"
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "-m", "sh", "-c", f"{mounted}"], capture_output=True
        ).returncode
    ):
        pytest.skip("no small disk can be mounted here")
    command = f'{mounted} && exec "$0" {script} {disk} {home}'
    paths = os.pathsep.join([str(root), str(root / "tests")])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout.splitlines()[-1], encoding="utf-8")


def check_disk(found: tuple[str, dict[str, list]], name: str, status: object) -> str:
    """What was said, once it is in one line and nothing half-written is left."""
    (state, said) = found[0], found[1][name]
    assert said[0] == status and len(said[1].strip().splitlines()) == 1, said
    why = "No space left on device" if state == "full" else "Read-only file system|is read-only"
    assert any(reason in said[1] for reason in why.split("|")), said
    left = [name for name in said[2] if name != "fill" and not name.endswith(".lock")]
    assert left == [], said
    return said[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_takes_no_more_is_a_file_error_in_one_line(on_disk, name):
    check_disk(on_disk, name, "FileError")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_disk_that_takes_no_more_says_so_in_one_line(on_disk, name):
    assert check_disk(on_disk, name, 2).startswith("error: ")


# --- tensors with checksums


TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4),
    "step": torch.tensor(3),
    "none": torch.zeros(0, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flags é": torch.tensor([True, False]),
}


@pytest.fixture
def file(tmp_path) -> Path:
    write_tensors(tmp_path / "file", TENSORS, {"format": "thing/1", "words": 'é "\\'})
    return tmp_path / "file"


def read(path, check=None):
    return read_tensors(path, "thing/1", FileError, "thing", check)


def test_tensors_come_back_with_their_header(file):
    header, tensors = read(file)
    assert header == {"format": "thing/1", "words": 'é "\\'} and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_a_header_is_checked_with_shapes_and_types_before_tensors_are_read(file):
    seen = {}

    def check(header, described):
        seen.update(described)
        return header["words"], len(described)

    found, _ = read(file, check)
    assert found == ('é "\\', 5) and all(tensor.is_meta for tensor in seen.values())
    for name, tensor in TENSORS.items():
        assert (seen[name].shape, seen[name].dtype) == (tensor.shape, tensor.dtype)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # a tensor is damaged, but the header is refused before
    file.write_bytes(data)

    def refuse(header, described):
        raise BmnasError("size", 9, "less")

    with pytest.raises(FileError, match=f"^{file}: size: found 9; allowed: less$"):
        read(file, refuse)


@pytest.mark.parametrize(
    "check, message",
    [
        (lambda h, d: h["seed"], "header: found no 'seed'; allowed: all that was saved"),
        (lambda h, d: h["words"] + 1, "header: found can only concatenate str"),
        (lambda h, d: h["words"].alpha, "header: found 'str' object has no attribute 'alpha'"),
        (lambda h, d: int(h["words"]), "header: found invalid literal for int"),
        (lambda h, d: 1 / len(h["words"][9:]), "header: found division by zero"),
    ],
)
def test_a_header_that_trips_its_check_is_refused_in_one_line(file, check, message):
    with pytest.raises(FileError, match=f"^{file}: {message}") as error:
        read(file, check)
    assert "\n" not in str(error.value)


def test_no_flipped_bit_of_tensors_goes_unnoticed(file):
    data, draws = file.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    bits = [draws.randrange(8 * len(data)) for _ in range(300)]
    for bit in [*bits, *range(8 * header, 8 * len(data))]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(FileError) as error:
            read(file)
        assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


CHANGED = "allowed: that of the saved values: the file was changed, or is damaged"


def with_metadata(path: Path, **changes: str | None) -> None:
    """Write the same tensors with other metadata; None takes a part away."""
    from safetensors import safe_open

    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, {k: v for k, v in {**metadata, **changes}.items() if v is not None})


def test_a_file_of_an_earlier_format_is_named_by_it(file):
    with_metadata(file, bmnas='{"format": "thing/0"}', sha256=None)
    with pytest.raises(FileError, match="found format 'thing/0'; allowed: 'thing/1'"):
        read(file)


def test_a_header_without_its_checksum_is_refused(file):
    with_metadata(file, sha256=None)
    with pytest.raises(FileError, match=f"found another checksum of its header; {CHANGED}"):
        read(file)


def test_other_tensors_than_were_saved_are_refused(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    for tensors in ({"more": torch.zeros(1)}, {"step": None}, {"step": torch.tensor(4)}):
        changed = {k: v for k, v in {**TENSORS, **tensors}.items() if v is not None}
        save_file(changed, file, metadata)
        with pytest.raises(FileError, match="^.*file: found .*; allowed|found no thing"):
            read(file)


@posix
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="found no thing .no file, but a device, a pipe or"):
        read(tmp_path / "pipe")
    with pytest.raises(TableError, match="found no table .no file, but a device, a pipe or"):
        ResumableTable(tmp_path / "pipe", {"a": "count"})


# --- JSON


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "file: found no JSON .Expecting property name"),
        ("[" * 100_000, "file: found no JSON .*(recursion|nest)"),
        ("1" * 5000, "file: found no JSON .Exceeds the limit"),
        ('{"a": 1, "a": 1}', "file: found field a twice; allowed: each field once"),
        ('{"a": {"b": [0, {"c": 1, "d": 2, "c": 3}]}}', r"file: found field a\.b\[1\]\.c twice"),
        ('[[{"c": 1, "c": 3}]]', r"file: found field \[0\]\[0\]\.c twice"),
    ],
)
def test_json_is_refused_by_place(text, message):
    with pytest.raises(FileError, match=f"^{message}") as error:
        parse_json(text, FileError, "file")
    assert "\n" not in str(error.value)


# --- a table that several processes fill


def test_a_table_reads_what_others_have_added(tmp_path):
    one, two = (
        ResumableTable(tmp_path / "t.csv", {"a": "count", "b": "number?"}) for _ in range(2)
    )
    one.add([{"a": 1, "b": None}])
    assert two.holds(a=1) and two.holds(a=1, b=None) and not two.holds(a=2)
    two.add([{"a": 2, "b": 0.12345678}])
    one.add([{"a": 3, "b": 1.5}])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,\n2,0.123457\n3,1.5\n"
    assert one.frame()["a"].tolist() == two.frame()["a"].tolist() == [1, 2, 3]


def test_a_table_that_is_deleted_meanwhile_is_written_anew(tmp_path):
    table = ResumableTable(tmp_path / "t.csv", {"a": "count"})
    table.add([{"a": 1}])
    (tmp_path / "t.csv").unlink()
    table.add([{"a": 2}])
    assert (tmp_path / "t.csv").read_text() == "a\n1\n2\n"


def test_a_tables_folder_that_vanishes_meanwhile_is_made_again_and_no_row_is_lost(tmp_path):
    path = tmp_path / "folder" / "t.csv"

    def compute(run):
        if run["a"] == 2:
            shutil.rmtree(path.parent)
        return [run]

    ResumableTable(path, {"a": "count"}).fill([{"a": k} for k in range(4)], compute, "runs")
    assert path.read_text() == "a\n0\n1\n2\n3\n"


def test_threads_that_fill_one_table_lose_and_double_no_row(tmp_path):
    computed, runs = [], [{"a": k} for k in range(12)]

    def compute(run):
        computed.append(run["a"])
        time.sleep(0.02)
        return [run | {"b": k} for k in range(2)]

    def fill():
        ResumableTable(tmp_path / "t.csv", {"a": "count", "b": "count"}).fill(runs, compute, "runs")

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(tmp_path / "t.csv", newline="") as file:
        rows = [*csv.reader(file)][1:]
    assert sorted(computed) == [*range(12)]
    assert sorted(rows) == sorted([str(a), str(b)] for a in range(12) for b in range(2))
    assert sorted(os.listdir(tmp_path)) == [".t.csv.lock", "t.csv"]
