"""`bmnas notebooks` and what `bmnas lab` does before JupyterLab starts: copies, whole or none."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bmnas_core.cli import app

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = [*sorted(path.name for path in FOLDER.glob("*.ipynb")), "glossary.md"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def bmnas(*words: str):
    return CliRunner().invoke(app, [*words])


def state(folder: str) -> dict[str, tuple]:
    """The files of a folder, each with its contents and the time at which it was written."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in Path(folder).iterdir()}


def test_all_notebooks_are_copied_byte_for_byte_and_nothing_else(root):
    done = bmnas("notebooks", "new/folder")
    assert done.exit_code == 0, done.output
    assert done.output == (
        f"new/folder: {len(NAMES) - 1} notebooks and a glossary; "
        "to open them: bmnas lab new/folder\n"
    )
    copies = state("new/folder")
    assert sorted(copies) == sorted(NAMES)
    for name, (contents, _) in copies.items():
        assert contents == (root / "notebooks" / name).read_bytes()


def test_a_second_copy_writes_only_what_is_missing():
    bmnas("notebooks", "nbs")
    before = state("nbs")
    Path("nbs", NAMES[1]).unlink()
    assert bmnas("notebooks", "nbs").exit_code == 0
    after = state("nbs")
    assert [name for name in NAMES if after[name] != before[name]] == [NAMES[1]]
    assert after[NAMES[1]][0] == before[NAMES[1]][0]


def test_changed_notebooks_are_named_in_one_line_and_nothing_is_copied():
    Path("nbs").mkdir()
    for name in (NAMES[0], NAMES[3], "mine.ipynb"):
        Path("nbs", name).write_text("mine")
    before = state("nbs")
    done = bmnas("notebooks", "nbs")
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: nbs: found {NAMES[0]}, {NAMES[3]}, not as in the kit; "
        "allowed: another folder, or --force to replace them\n"
    )
    assert state("nbs") == before


def test_force_replaces_the_changed_ones_and_leaves_other_files():
    Path("nbs").mkdir()
    for name in (NAMES[0], "mine.ipynb"):
        Path("nbs", name).write_text("mine")
    assert bmnas("notebooks", "nbs", "--force").exit_code == 0
    found = state("nbs")
    assert sorted(found) == sorted([*NAMES, "mine.ipynb"])
    assert found["mine.ipynb"][0] == b"mine" and found[NAMES[0]][0] != b"mine"


def test_where_one_file_cannot_be_written_all_others_are_whole(root):
    Path("nbs", NAMES[2]).mkdir(parents=True)
    done = bmnas("notebooks", "nbs", "--force")
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: path: found the folder 'nbs/{NAMES[2]}'; "
        "allowed: the path of a file that can be written\n"
    )
    for path in Path("nbs").iterdir():
        assert path.is_dir() or path.read_bytes() == (root / "notebooks" / path.name).read_bytes()


@pytest.mark.parametrize("command", ["notebooks", "lab"])
def test_a_folder_that_is_a_file_is_refused(command):
    Path("file").touch()
    done = bmnas(command, "file")
    assert done.exit_code == 2 and "'file' is a file" in done.stderr
    assert Path("file").read_bytes() == b""


def test_options_of_jupyterlab_come_after_two_dashes():
    done = bmnas("lab", "nbs", "--no-browser")
    assert done.exit_code == 2 and "No such option: --no-browser" in done.stderr
    assert not Path("nbs").exists()
    assert "[-- JUPYTERLAB OPTIONS]" in bmnas("lab", "--help").output
