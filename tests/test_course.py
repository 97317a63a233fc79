"""The course: exercises refuse wrong answers and accept right ones, and solutions are right."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from wrong_answers import WRONG

import bmnas_core as bm
from bmnas_core.course import checks
from bmnas_core.course.checks import EXERCISES, MODULES, ExerciseError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.md"))
#: Answers that are right nowhere.
NONSENSE = [
    None, True, math.nan, -17.25, "", "nonsense", b"12", [], {}, set(), {"nonsense"}, object(),
    object, int, lambda *args: None, lambda: 1 / 0, torch.zeros(3), range(3),
]  # fmt: skip


def exercises() -> list[str]:
    """The names of all exercises, from the headings of the solutions."""
    texts = [path.read_text(encoding="utf-8") for path in SOLUTIONS]
    return [name for text in texts for name in re.findall(r"^## (\d\d\.\d+)$", text, re.M)]


NAMES = exercises()


def solution(name: str) -> str:
    """The code of a solution."""
    (path,) = (path for path in SOLUTIONS if path.name.startswith(f"{name[:2]}_"))
    text = path.read_text(encoding="utf-8")
    part = re.split(r"^## ", text, flags=re.M)
    (own,) = (one for one in part if one.startswith(f"{name}\n"))
    return "\n".join(re.findall(r"```python\n(.*?)```", own, re.S))


@pytest.fixture(autouse=True)
def first_attempt(monkeypatch):
    monkeypatch.setattr(checks, "_WRONG", type(checks._WRONG)())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_four_exercises_or_more_each_with_a_check_and_a_solution(notebook):
    number = notebook.stem[:2]
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    asked = [name for text in code for name in re.findall(r"bm\.check\(\"([\d.]+)\", ", text)]
    assert asked == [f"{number}.{k}" for k in range(1, len(asked) + 1)] and len(asked) >= 4
    assert asked == [name for name in NAMES if name.startswith(f"{number}.")]
    with pytest.raises(ExerciseError):
        bm.check(f"{number}.99")
    assert sorted(asked) == sorted(name for name in EXERCISES if name.startswith(f"{number}."))
    assert not any("<details>" in "".join(cell["source"]) for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_solution_is_accepted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *before, last = solution(name).strip().splitlines()
    assert last.startswith(f'bm.check("{name}", ') or last == ")"
    names = {"bm": bm, "torch": torch, "checked": None}
    *lines, call = re.split(r"^(?=bm\.check\()", solution(name), flags=re.M)
    exec("".join(lines) + f"checked = {call}", names)
    assert names["checked"].right is True, names["checked"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_refused_in_one_line(name):
    assert WRONG[name]
    for answer in [*WRONG[name], *NONSENSE]:
        checked = bm.check(name, answer)
        assert checked.right is False, answer
        assert "\n" not in repr(checked) and "Traceback" not in repr(checked)
        assert checked.wrong.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_yet_is_neither_right_nor_wrong(name):
    checked = bm.check(name, ...)
    assert checked.right is None and not checked
    assert repr(checked) == f"{name}: no answer yet."


@pytest.mark.parametrize("name", NAMES)
def test_hints_come_one_after_the_other_and_do_not_give_the_answer_away(name):
    bm.check(name)
    hints = EXERCISES[name].hints
    assert hints and len(set(hints)) == len(hints)
    for k, hint in enumerate([*hints, hints[-1]]):
        shown = bm.check(name, None).hint
        assert shown == f"Hint {min(k + 1, len(hints))} of {len(hints)}: {hint}"
    plain = re.findall(rf'bm\.check\("{re.escape(name)}", ([\d.]+|"[^"]+")\)', solution(name))
    for answer in plain:
        assert not any(re.search(rf"\b{re.escape(answer)}\b", hint) for hint in hints)


def test_an_unknown_exercise_is_refused_with_those_there_are():
    with pytest.raises(ExerciseError, match=r"found '03.9'.*allowed: 03.1, 03.2"):
        bm.check("03.9", 1)
    for name in ("3", "99.1", None, 3.2, ""):
        with pytest.raises(ExerciseError, match="such as '03.2', of notebooks 00 to 13"):
            bm.check(name, 1)


def test_a_function_that_fails_is_a_wrong_answer():
    checked = bm.check("03.1", lambda F, N: F / 0)
    assert not checked
    assert "It raised ZeroDivisionError: " in repr(checked)


def test_a_check_leaves_random_numbers_as_they_were():
    torch.manual_seed(7)
    bm.check("03.4", lambda logits: torch.rand(len(logits)))
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1))


def test_a_check_shows_itself_and_escapes_what_it_found():
    checked = bm.check("03.3", "<script>alert(1)</script>")
    assert "<script>" not in checked._repr_html_() and "&lt;script&gt;" not in repr(checked)
    assert "03.3: not yet." in checked._repr_html_()
    assert "right." in bm.check("03.1", lambda F, N: N * F + N * (N - 1) // 2)._repr_html_()


def test_every_notebook_has_a_module_of_exercises():
    assert [path.stem[:2] for path in NOTEBOOKS] == [*MODULES]
    assert [path.stem[3:] for path in NOTEBOOKS] == [*MODULES.values()]


# --- texts


HEADS = ("**For** ", "**You need** ", "**Takes** ", "**Afterwards you can**")
GLOSSARY = ROOT / "notebooks" / "glossary.md"


def markdown(path: Path) -> list[str]:
    """The Markdown cells of a notebook, or the sections of a page."""
    if path.suffix == ".md":
        return re.split(r"\n(?=## )", path.read_text(encoding="utf-8"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize(
    "notebook", [*NOTEBOOKS, ROOT / "notebooks" / "project.ipynb"], ids=lambda path: path.stem
)
def test_a_notebook_says_for_whom_it_is_what_it_takes_and_what_one_learns(notebook):
    head = markdown(notebook)[0]
    places = [head.find(part) for part in HEADS]
    assert places == sorted(places) and places[0] > 0
    assert 3 <= head[places[-1] :].count("\n* ") <= 7


def terms() -> dict[str, str]:
    """Anchor → entry of the glossary."""
    _, *entries, references = markdown(GLOSSARY)
    assert references.startswith("## References\n")
    heads = [text.partition("\n")[0].removeprefix("## ") for text in entries]
    return {head.replace(" ", "-"): text for head, text in zip(heads, entries, strict=True)}


def test_the_glossary_is_in_order_and_each_entry_is_a_short_text():
    assert [*terms()] == sorted(terms()) and len(terms()) > 50
    for anchor, text in terms().items():
        # of other letters JupyterLab and the site make different anchors
        assert re.fullmatch(r"[a-z][a-z0-9-]+", anchor), anchor
        assert 5 < len(text.split()) < 90, anchor


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, GLOSSARY], ids=lambda path: path.stem)
def test_links_to_the_glossary_lead_to_an_entry(notebook):
    text = "\n".join(markdown(notebook))
    pattern = r"\]\(#([^)]+)\)" if notebook == GLOSSARY else r"glossary\.md#([^)]+)\)"
    linked = re.findall(pattern, text)
    assert linked and set(linked) <= set(terms())


def test_most_entries_of_the_glossary_are_linked_from_a_notebook():
    text = "\n".join(part for notebook in NOTEBOOKS for part in markdown(notebook))
    linked = set(re.findall(r"glossary\.md#([^)]+)\)", text))
    assert len(linked) > 0.8 * len(terms())


@pytest.mark.slow
def test_the_examples_of_parts_of_your_own_run():
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.S)
    parts = set(re.findall(r"@bm\.register_(\w+)\(", "".join(code)))
    assert parts == {
        "operation", "task", "rule", "metric", "relaxation", "selection", "baseline",
    }  # fmt: skip
    tried = """
settings = bm.SearchConfig(N=1, epochs=1, selection="most probable", relaxation="sharp",
                           operations=("sum", "product"))
search = bm.Search(by_gap, settings)
print(len([*search]), search.best_genotype.cells[0].inputs, tapped.features, digits.classes)
"""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*code, tried])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "('Sound_1', 'Sound_2', 'Text_1') 10" in done.stdout
