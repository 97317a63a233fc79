"""Runs of notebooks as processes: signals, kills, limits, two at once, full disks."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from bmnas_core.experiments import RunError, RunWarning, run
from bmnas_core.experiments.kernel import socket_folder
from bmnas_core.experiments.page import write_page

BMNAS = (sys.executable, "-m", "bmnas_core.cli")
#: A cell that says who its kernel is and starts a process of its own.
STARTED = """\
import os, subprocess
child = subprocess.Popen(["sleep", "300"])
with open(f"{out}/pids.part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(f"{out}/pids.part", f"{out}/pids")"""
SLEEPS = """\
import time
try:
    time.sleep(300)
finally:
    open(f"{out}/cleaned", "w").close()"""
STUBBORN = """\
import time
while True:
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        pass"""
#: A call into C that never lets another thread of Python run.
IN_C = "import re\nre.match('(a+)+b', 'a' * 60)"
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


#: Runs in processes of their own, to be ended with their test.
STARTED_RUNS = []


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    while STARTED_RUNS:
        process = STARTED_RUNS.pop()
        process.kill()
        process.wait()


def write_notebook(*cells, name="nb.ipynb", parameters="seed = 0\nout = 'here'"):
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    nb.cells[0].metadata.tags = ["parameters"]
    nbformat.write(nb, name)


def start(*words, nohup=False):
    """``bmnas run nb.ipynb`` in a process of its own, and, once its second cell has run, others.

    Those are its kernel and the kernel's child.
    """

    def signals():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

    process = subprocess.Popen(
        [*BMNAS, "run", "nb.ipynb", "--out", "out", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals,
    )
    STARTED_RUNS.append(process)
    wait_for(lambda: Path("out/pids").exists() or process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.3)
    return process, [psutil.Process(int(pid)) for pid in Path("out/pids").read_text().split()]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def record(out="out"):
    return json.loads(Path(out, "run.json").read_text())


@POSIX
@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    "name, cell", [("SIGTERM", SLEEPS), ("SIGHUP", STUBBORN)], ids=["asleep", "stubborn"]
)
def test_a_signal_ends_the_kernel_and_its_children_and_leaves_the_page(name, cell):
    write_notebook(STARTED, cell)
    process, others = start()
    process.send_signal(signal.Signals[name])
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name], errors
    first = cell.splitlines()[0]
    line = f"nb.ipynb was interrupted by {name} in cell 3 ('{first}')"
    assert errors == f"error: {line}; executed notebook: out/nb.ipynb\n" and output == ""
    assert all(map(has_ended, others))
    assert record()["status"] == "interrupted" and record()["error"] == line
    page = Path("out/nb.html").read_text(encoding="utf-8")
    assert "child" in page
    if cell == SLEEPS:  # it could clean up, and says where it was
        assert Path("out/cleaned").exists() and "KeyboardInterrupt" in page


@POSIX
@pytest.mark.slow
@pytest.mark.notebook
def test_a_killed_run_takes_its_busy_kernel_children_and_sockets_with_it():
    write_notebook(STARTED, IN_C)
    process, others = start()
    (folder,) = {
        Path(word).parent
        for one in others
        for word in one.cmdline()
        if word.endswith("kernel.json")
    }
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
    assert len([path for path in folder.iterdir() if path.is_socket()]) == 6
    if sys.platform == "linux":  # elsewhere one may not look
        for one in (psutil.Process(process.pid), *others):
            assert not one.net_connections("inet"), one
    process.kill()
    process.wait()
    wait_for(lambda: all(map(has_ended, others)), 10)
    wait_for(lambda: not folder.exists(), 10)
    assert record()["status"] == "running"
    with pytest.raises(RunError, match=r"ran out of time \(2 s\) in cell 3 \('import re'\)"):
        run("nb.ipynb", out="out", progress=False, resume=True, time_limit=2)
    assert record()["status"] == "out of time"


@pytest.mark.skipif(os.name != "posix", reason="sockets of a file system")
def test_where_a_path_is_too_long_for_a_socket_a_shorter_one_is_found(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = socket_folder()
    assert folder and not folder.startswith(str(long)) and not list(long.iterdir())
    Path(folder).rmdir()


@pytest.mark.notebook
@pytest.mark.slow
def test_where_there_are_no_sockets_of_a_file_system_a_run_works_too(monkeypatch):
    monkeypatch.setattr("bmnas_core.experiments.kernel.socket_folder", lambda: None)
    write_notebook("print(seed)")
    run("nb.ipynb", {"seed": 7}, "out", progress=False)
    assert nbformat.read("out/nb.ipynb", as_version=4).cells[-1].outputs[0].text == "7\n"


@POSIX
@pytest.mark.notebook
@pytest.mark.slow
def test_a_second_run_is_refused_with_the_owners_name_and_the_first_outlives_its_terminal():
    write_notebook(
        STARTED, "import time\nwhile not os.path.exists('go'): time.sleep(0.1)\nprint(seed)"
    )
    process, _ = start("-p", "seed", "1", nohup=True)
    second = subprocess.run(
        [*BMNAS, "run", "nb.ipynb", "-p", "seed", "2", "--out", "out"],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 2 and second.stdout == "" and second.stderr.count("\n") == 1
    found = rf"error: out: found it in use for \d+ s by '.*nb.ipynb.*' \(process {process.pid} of "
    assert re.match(found, second.stderr), second.stderr
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    Path("go").touch()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert record()["parameters"] == {"seed": 1} and record()["status"] == "done"
    shown = nbformat.read("out/nb.ipynb", as_version=4).cells[-1].outputs
    assert [output.text for output in shown] == ["1\n"]


@pytest.mark.notebook
@pytest.mark.slow
def test_a_failed_run_is_resumed_with_its_state_which_goes_when_it_is_done():
    write_notebook(
        "import os\nfrom pathlib import Path\nkept = Path(os.environ['BMNAS_STATE'], 'kept')\n"
        "first = not kept.exists()\nkept.touch()\nprint(kept)",
        "assert not first, 'the first time'",
    )
    with pytest.raises(RunError, match="failed in cell 3 .*: AssertionError: the first time"):
        run("nb.ipynb", out="out", progress=False)
    assert Path("out/state/kept").exists() and record()["status"] == "failed"
    with pytest.raises(RunError, match="the first time"):  # without resume it starts anew
        run("nb.ipynb", out="out", progress=False)
    out = run("nb.ipynb", out="out", progress=False, resume=True)
    assert record()["status"] == "done" and not (out / "state").exists()
    shown = nbformat.read("out/nb.ipynb", as_version=4).cells[2].outputs[0].text
    assert Path(shown.strip()) == Path("out/state/kept").absolute()
    before = (out / "nb.ipynb").stat().st_mtime_ns
    (out / "nb.html").unlink()
    run("nb.ipynb", out="out", progress=False, resume=True)
    assert (out / "nb.ipynb").stat().st_mtime_ns == before and (out / "nb.html").exists()


@POSIX
@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    "source, what",
    [
        ("import ctypes\nctypes.string_at(0)", "its kernel died of SIGSEGV"),
        ("import os\nos.kill(os.getpid(), 9)", r"its kernel died of SIGKILL \(is there too little"),
    ],
)
def test_a_kernel_that_dies_is_said_with_its_signal(source, what):
    write_notebook(source)
    with pytest.raises(RunError, match=f"nb.ipynb failed in cell 2 .*: {what}"):
        run("nb.ipynb", out="out", progress=False)
    assert record()["status"] == "failed"


@POSIX
@pytest.mark.slow
@pytest.mark.notebook
def test_no_output_is_lost_and_an_error_that_is_no_unicode_is_said(capfd):
    write_notebook(
        "import os, time\nif not os.fork():\n    print('forked', flush=True)\n    os._exit(0)\n"
        "os.wait()\nos.system('echo from a shell')\ntime.sleep(2)",
        "from IPython.display import display\nfor i in range(3000): display(i)",
        "print('a\\ud800b')\nraise ValueError('c\\ud800d')",
    )
    with pytest.raises(RunError, match=r"failed in cell 4 .*: ValueError: c\\ud800d; executed"):
        run("nb.ipynb", out="out", progress=False)
    cells = nbformat.read("out/nb.ipynb", as_version=4).cells
    others, many, odd = [cell.outputs for cell in cells if cell.cell_type == "code"][-3:]
    assert any(output.text.startswith("forked") for output in others)
    assert len(many) == 3000 and odd[0].text == "a?b\n" and odd[1].evalue == "c?d"
    assert capfd.readouterr() == ("", "")
    assert (
        "a?b" in Path("out/nb.html").read_text(encoding="utf-8") and "c\ud800d" in record()["error"]
    )


@POSIX
@pytest.mark.slow
@pytest.mark.notebook
def test_a_cell_that_prints_without_end_neither_fills_the_memory_nor_hides_what_follows():
    write_notebook(
        "import sys\nfor i in range(15):\n    print(str(i % 10) * 10**7)\n    sys.stdout.flush()",
        "print('the next cell')",
        "from IPython.display import clear_output\n"
        "for i in range(30):\n    clear_output()\n    print('z' * 10**7, flush=True)",
    )
    run("nb.ipynb", out="out", progress=False)
    cells = nbformat.read("out/nb.ipynb", as_version=4).cells
    long, after, cleared = ["".join(output.text for output in cell.outputs) for cell in cells[-3:]]
    assert 8e7 < len(long) < 1.001e8
    assert long.endswith("\nWhat this cell shows beyond 100,000,000 bytes is left out.\n")
    assert after == "the next cell\n" and cleared == "z" * 10**7 + "\n"


def on_small_disk(*words, options="size=1m", before="true"):
    """A command on a disk of its own, ``disk``: its exit status, errors, and files."""
    Path("disk").mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o {options} tmpfs disk"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True)
    if probe.returncode:
        pytest.skip("this user may not mount a small disk")
    command = " ".join([*BMNAS, *words])
    listing = "{ find disk -type f | sort; cat disk/out/run.json; } > files 2> /dev/null"
    script = f"{mount}; {before}; {command}; code=$?; {listing}; exit $code"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    return done, Path("files").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="no unshare")
@pytest.mark.parametrize(
    "length, unwritten, status",
    [(900_000, "nb.ipynb", "failed"), (400_000, "nb.html", "done")],
)
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing_half_written(length, unwritten, status):
    write_notebook(f"print('x' * {length})", f"print('y' * {length // 100})")
    done, files = on_small_disk("run", "nb.ipynb", "--out", "disk/out", "-q")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: disk/out/{unwritten}: not written: No space left on ")
    assert f'"status": "{status}"' in files and ".part" not in files
    assert "disk/out/nb.html" not in files


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="no unshare")
@pytest.mark.parametrize(
    "options, before, error",
    [
        ("ro", "true", "out: found disk/out (Read-only file system); allowed: a folder"),
        ("size=1m", "dd if=/dev/zero of=disk/x bs=1k 2> /dev/null", "run.json: not written: No sp"),
    ],
)
def test_a_disk_that_is_full_or_read_only_from_the_start_refuses_the_run(options, before, error):
    write_notebook("print(1)")
    words = ("run", "nb.ipynb", "--out", "disk/out", "-q")
    done, files = on_small_disk(*words, options=options, before=before)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and error in done.stderr
    assert "nb." not in files and ".part" not in files


@pytest.mark.notebook
@pytest.mark.slow
def test_a_folder_that_vanishes_is_no_run_that_is_done():
    write_notebook("import shutil\nshutil.rmtree(out)", "print(1)")
    with pytest.raises(RunError, match="^out: not written: the folder vanished during the run$"):
        run("nb.ipynb", out="out", progress=False)
    assert not Path("out").exists()


@pytest.mark.notebook
@pytest.mark.slow
def test_a_missing_attachment_is_a_warning_after_the_result():
    write_notebook("print('the result')")
    nb = nbformat.read("nb.ipynb", as_version=4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("![](attachment:lost.png)"))
    nbformat.write(nb, "nb.ipynb")
    with pytest.warns(RunWarning, match="nb.html: without 'lost.png', which is attached to no c"):
        run("nb.ipynb", out="out", progress=False)
    assert (
        "the result" in Path("out/nb.html").read_text(encoding="utf-8")
        and record()["status"] == "done"
    )
    nb.cells[-1].source = "raise OSError('the reason')"
    nbformat.write(nb, "nb.ipynb")
    with pytest.raises(RunError, match="OSError: the reason; executed .*; .*without 'lost.png'"):
        run("nb.ipynb", out="out", progress=False)


PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def page_of(*cells, folder="."):
    """The page of cells, and what it is said to lack."""
    nb = nbformat.v4.new_notebook(cells=list(cells))
    lacks = write_page(nb, Path("page.html"), Path(folder))
    return Path("page.html").read_text(encoding="utf-8"), lacks


def markdown(source, **attachments):
    cell = nbformat.v4.new_markdown_cell(source)
    cell.attachments = {name: {"image/png": png} for name, png in attachments.items()}
    return cell


@pytest.mark.parametrize(
    "name, link",
    [
        ("a.png", "a.png"),
        ("Screen Shot.png", "Screen%20Shot.png"),
        ("é\u202f1.png", "%C3%A9%E2%80%AF1.png"),
        ("é.png", "é.png"),
        ("a&b.png", "a&b.png"),
        ("100%.png", "100%25.png"),
        ("50%.png", "50%.png"),
    ],
)
def test_a_page_finds_an_attachment_as_its_link_spells_it(name, link):
    page, lacks = page_of(markdown(f"![x](attachment:{link})", **{name: PNG}))
    assert lacks == "" and f"data:image/png;base64,{PNG}" in page


@pytest.mark.parametrize("name", ["lost.png", "lo%20st.png", "", "%ff"])
def test_a_page_without_an_attachment_says_so(name):
    page, lacks = page_of(markdown(f"![x](attachment:{name})"), markdown("more text"))
    assert lacks.startswith("page.html: without ") and "more text" in page and "\n" not in lacks


@pytest.mark.parametrize("link", [".", "no.png", "%00.png", "a" * 5000, "data:image/png;base64,!"])
def test_a_page_is_written_whatever_its_pictures_link_to(link):
    page, lacks = page_of(markdown(f"![x]({link})\n\nmore text"))
    assert "more text" in page


def test_a_page_shows_odd_characters_and_cuts_long_texts():
    stream = nbformat.v4.new_output("stream", text="begin" + "x" * 3_000_000)
    result = nbformat.v4.new_output("display_data", data={"text/plain": "y" * 3_000_000})
    code = nbformat.v4.new_code_cell("1", outputs=[stream, result])
    text = "\ud800 and \ue0000\ue001 and $x^2$ and \x1b[31m"
    page, lacks = page_of(markdown(text), code)
    assert lacks == "" and len(page) < 3_000_000
    assert "begin" in page and page.count("characters are only in the notebook") == 2
    assert "? and \ue0000\ue001 and <math" in page
