"""A run's folder: what it says of the run, and what of an earlier one survives a kill."""

import json
import os
import signal
import sys

import pytest

from bmnas_core.experiments.folder import ResumeError, RunFolder

FILES = ("result.json", "genotype.json", "genotype.svg", "nb.ipynb", "nb.html")


def run_folder(out, notebook="nb.ipynb", sha256="abc", **parameters):
    out.mkdir(exist_ok=True)
    return RunFolder(out, notebook, sha256, {"seed": 0, **parameters})


def write_result(folder, text):
    for name in FILES:
        (folder / name).write_text(text)


def a_run(out, text, status="done", **parameters):
    folder = run_folder(out, **parameters)
    folder.begin(resume=False)
    write_result(out, text)
    folder.end(status)
    return folder


def record(out):
    return json.loads((out / "run.json").read_text())


def texts(folder):
    return {name: (folder / name).read_text() for name in FILES if (folder / name).exists()}


def whole(text):
    return dict.fromkeys(FILES, text)


def test_a_run_says_what_runs_and_how_it_ended(tmp_path):
    folder = run_folder(tmp_path, seed=3)
    assert folder.begin(resume=False)
    about = record(tmp_path)
    assert about["status"] == "running" and about["seconds"] is about["error"] is None
    assert about["format"] == "bmnas-run/1" and about["notebook"] == "nb.ipynb"
    assert about["notebook_sha256"] == "abc" and about["parameters"] == {"seed": 3}
    folder.end("failed", "because")
    about = record(tmp_path)
    assert (about["status"], about["error"]) == ("failed", "because") and about["seconds"] >= 0


def test_the_earlier_result_is_kept_until_the_next_is_done(tmp_path):
    a_run(tmp_path, "first")
    second = run_folder(tmp_path, seed=1)
    second.begin(resume=False)
    assert texts(tmp_path) == {} and texts(tmp_path / "earlier") == whole("first")
    assert record(tmp_path / "earlier")["parameters"] == {"seed": 0}
    write_result(tmp_path, "second")
    second.end("failed", "error")
    third = a_run(tmp_path, "third", status="interrupted")
    assert texts(tmp_path / "earlier") == whole("first")  # two runs failed since
    assert third.begin(resume=False)
    write_result(tmp_path, "fourth")
    third.end("done")
    assert texts(tmp_path) == whole("fourth") and not (tmp_path / "earlier").exists()


def test_a_result_of_another_notebook_and_one_without_a_record_are_kept_too(tmp_path):
    write_result(tmp_path, "of an older version")
    other = run_folder(tmp_path, notebook="other.ipynb")
    other.begin(resume=False)
    kept = {name: "of an older version" for name in FILES[:3]}
    assert texts(tmp_path / "earlier") == kept
    (tmp_path / "other.ipynb").write_text("other")
    other.end("done")
    run_folder(tmp_path).begin(resume=False)
    assert (tmp_path / "earlier" / "other.ipynb").read_text() == "other"
    assert not (tmp_path / "other.ipynb").exists()


def test_state_is_kept_until_a_run_is_done_or_a_new_one_starts(tmp_path):
    folder = run_folder(tmp_path)
    folder.begin(resume=False)
    (folder.state / "search").write_text("half")
    folder.end("failed")
    assert run_folder(tmp_path).begin(resume=True)
    assert (folder.state / "search").read_text() == "half"
    assert run_folder(tmp_path).begin(resume=False)
    assert folder.state.is_dir() and not list(folder.state.iterdir())
    a_run(tmp_path, "whole")
    assert not folder.state.exists()


def test_a_run_that_is_done_is_left_and_without_a_run_one_starts(tmp_path):
    assert run_folder(tmp_path / "new").begin(resume=True)
    a_run(tmp_path, "whole")
    before = record(tmp_path)
    assert not run_folder(tmp_path).begin(resume=True)
    assert record(tmp_path) == before and texts(tmp_path) == whole("whole")


@pytest.mark.parametrize("status", ["done", "failed"])
@pytest.mark.parametrize(
    "other, found",
    [
        ({"sha256": "def"}, "a notebook with other cells"),
        ({"notebook": "b.ipynb"}, "notebook 'b.ipynb', not 'nb.ipynb'"),
        ({"seed": 1}, "parameter seed = 1, not 0"),
        ({"seed": 0.0}, "parameter seed = 0.0, not 0"),
        ({"lr": 1}, "parameter lr in one of the two runs"),
    ],
)
def test_another_run_is_not_resumed_and_says_what_differs(tmp_path, status, other, found):
    a_run(tmp_path, "mine", status=status)
    before = record(tmp_path)
    with pytest.raises(ResumeError) as caught:
        run_folder(tmp_path, **other).begin(resume=True)
    assert f"{tmp_path}: resume: found {found}; allowed: " in str(caught.value)
    assert record(tmp_path) == before and texts(tmp_path) == whole("mine")


def test_another_version_is_not_resumed(tmp_path):
    a_run(tmp_path, "mine", status="failed")
    (tmp_path / "run.json").write_text(json.dumps({**record(tmp_path), "version": "0.0"}))
    with pytest.raises(ResumeError, match="found version '.*', not '0.0'; allowed: "):
        run_folder(tmp_path).begin(resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "bmnas-run/2", "status": "done"}'])
def test_a_damaged_record_is_not_resumed_but_its_result_is_kept(tmp_path, text):
    a_run(tmp_path, "mine")
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResumeError, match="found an unreadable run.json; allowed: "):
        run_folder(tmp_path).begin(resume=True)
    run_folder(tmp_path).begin(resume=False)
    assert texts(tmp_path / "earlier") == whole("mine")


def killed_at(step, job):
    """Whether ``job`` was killed, with SIGKILL, before its ``step``-th access to the disk."""
    child = os.fork()
    if not child:
        left = step

        def hook(event, args):
            nonlocal left
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            job()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("earlier", [False, True])
def test_no_kill_at_any_moment_of_a_start_loses_the_earlier_result(tmp_path, earlier):
    step, more = 0, True
    while more:
        out = tmp_path / str(step)
        a_run(out, "first")
        if earlier:  # the one before that is still there, as after a kill of its removal
            (out / "earlier").mkdir()
            write_result(out / "earlier", "older")
        more = killed_at(step, lambda out=out: run_folder(out, seed=1).begin(resume=False))
        there = [texts(folder) for folder in (out, out / "earlier", out / ".earlier")]
        assert whole("first") in there or (there[0] | there[2]) == whole("first"), step
        half = texts(out) and texts(out) != whole("first")
        # Nobody takes the rest of a result for that of a run.
        assert not half or (record_status(out) is None or "result.json" not in texts(out)), step
        run_folder(out, seed=1).begin(resume=False)
        assert texts(out / "earlier") == whole("first"), step
        assert record(out / "earlier")["status"] == "done" and texts(out) == {}
        step += 1
    assert step > 10


def record_status(out):
    return record(out)["status"] if (out / "run.json").exists() else None


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_kill_at_any_moment_of_an_end_loses_a_result(tmp_path):
    step, more = 0, True
    while more:
        out = tmp_path / str(step)
        a_run(out, "first")
        folder = run_folder(out)
        folder.begin(resume=False)
        write_result(out, "second")
        more = killed_at(step, lambda folder=folder: folder.end("done"))
        assert texts(out) == whole("second")
        if record_status(out) == "running":
            assert texts(out / "earlier") == whole("first")
        else:
            assert record_status(out) == "done"
            assert not run_folder(out).begin(resume=True)
            assert not (out / "earlier").exists() and not (out / "state").exists()
        step += 1
    assert step > 5
