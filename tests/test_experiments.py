import json
import math
import subprocess
import sys

import nbformat
import pytest

from bmnas_core.errors import BmnasError
from bmnas_core.experiments import (
    RESULT_FILES,
    NotebookError,
    Parameter,
    ParameterError,
    RunError,
    notebook_parameters,
    parse_parameters,
    run,
)

PARAMETERS = """\
# What to run.
rule = "same"  # "same" or "sum"
seed = 0
epochs: int = 5  # of the search
lr = 0.1
sample = False
operations = [
    "sum",
    "attention",
]  # by name
options = {}
subset = None
out = "runs/here"
"""
NAMES = ["rule", "seed", "epochs", "lr", "sample", "operations", "options", "subset", "out"]
STALE = {name: "of an earlier run" for name in (*RESULT_FILES, "nb.ipynb", "nb.html")}


def write_notebook(path, *cells, parameters=PARAMETERS):
    nb = nbformat.v4.new_notebook()
    nb.cells.append(nbformat.v4.new_markdown_cell("# A title\n\nof $x^2$ in `$HOME`"))
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata.tags = ["parameters"]
        nb.cells.append(cell)
    nb.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(nb, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "nb.ipynb")


def with_stale_result(out):
    out.mkdir()
    for name, text in STALE.items():
        (out / name).write_text(text)
    return out


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_parameters_are_read_with_their_defaults_and_help(notebook):
    found = notebook_parameters(notebook)
    assert list(found) == NAMES
    assert found["rule"] == Parameter("rule", "same", '"same" or "sum"')
    assert found["epochs"] == Parameter("epochs", 5, "of the search")
    assert found["operations"] == Parameter("operations", ["sum", "attention"], "by name")
    assert found["subset"].default is None


@pytest.mark.parametrize(
    "line",
    ["a = b = 1", "when = open('x')", "a, b = 1, 2", "s = {1}", "d = {'a': 1, 'a': 2}"],
)
def test_a_parameter_without_a_plain_value_is_refused_with_its_line(tmp_path, line):
    path = write_notebook(tmp_path / "nb.ipynb", parameters=f"seed = 0\n{line}\n")
    with pytest.raises(NotebookError, match="parameters cell, line 2: found .*; allowed: 'name ="):
        notebook_parameters(path)


@pytest.mark.parametrize(
    "line, default, help",
    [
        ("lr = 0.1  # as published: lr=0.001", 0.1, "as published: lr=0.001"),
        ('url = "https://host/?a=b"  # where', "https://host/?a=b", "where"),
        ("colour = '#eee'  # not #fff", "#eee", "not #fff"),
        ('text = """a # b\nc = d"""  # e', "a # b\nc = d", "e"),
        ("a = (\n    1,  # one\n    2,  # two\n)  # both", [1, 2], "both"),
        ("a = [  # in the first line\n    1,\n]", [1], "in the first line"),
        ("a: int = 3  # epochs", 3, "epochs"),
        ("a: dict[str, int] = {}  # sizes", {}, "sizes"),
        ("a: 'list[int] | None' = None", None, ""),
        ("a = 3  # type: int", 3, ""),
        ("a = 3  # type: int  # epochs", 3, "epochs"),
        ("a = {}  # type: Dict[str, int] sizes", {}, "sizes"),
        ("a = None  # type: int | None of rows", None, "of rows"),
        ("a = 'x'  # type: of the network", "x", "type: of the network"),
        ("a = -1; b = 2  # both", -1, "both"),
        ("a = 1  # \x1b[31mred\x07", 1, "[31mred"),
        ("a = r'\\d'  # pattern", "\\d", "pattern"),
        ("a = '\\d'  # pattern", "\\d", "pattern"),
        ("if True:\n    pass\nimport os\na = 1", 1, ""),
        ("a = 1\r\nb = 2  # of b", 1, ""),
    ],
)
def test_a_line_of_parameters_is_read_as_python_reads_it(tmp_path, recwarn, line, default, help):
    path = write_notebook(tmp_path / "nb.ipynb", parameters=line)
    first = next(iter(notebook_parameters(path).values()))
    assert (first.default, first.help) == (default, help)
    assert not recwarn.list


def test_a_name_that_stands_twice_is_refused_and_so_are_two_cells(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", parameters="seed = 0\nlr = 1\nseed = 2")
    with pytest.raises(NotebookError, match="cell, line 3: found seed twice; allowed: each name o"):
        notebook_parameters(path)
    write_notebook(path, "x = 1")
    edit(path, lambda nb: nb["cells"][2]["metadata"].update(tags=["parameters"]))
    with pytest.raises(NotebookError, match="found 2 cells tagged 'parameters'; allowed: one"):
        notebook_parameters(path)


@pytest.mark.parametrize(
    "source", ["a = " + "[" * 5000, "a = '\0'", "a = 'x", "a = '\ud800'", "a = " + "-" * 9999 + "1"]
)
def test_no_text_in_the_parameters_cell_breaks_its_reader(tmp_path, source):
    path = write_notebook(tmp_path / "nb.ipynb", parameters="a = 1")
    edit(path, lambda nb: nb["cells"][1].update(source=source))
    with pytest.raises(NotebookError, match="nb.ipynb: parameters cell.*: found .*; allowed: "):
        notebook_parameters(path)


def edit(path, change):
    """Change the JSON of a notebook."""
    nb = json.loads(path.read_text())
    change(nb)
    path.write_text(json.dumps(nb))


def as_format_3(nb):
    cells = [
        {"cell_type": c["cell_type"], "metadata": c["metadata"], "source": c["source"]}
        if c["cell_type"] == "markdown"
        else {
            "cell_type": "code",
            "language": "python",
            "collapsed": False,
            "metadata": c["metadata"],
            "input": c["source"],
            "outputs": [],
        }
        for c in nb["cells"]
    ]
    nb.clear()
    sheets = [{"cells": cells, "metadata": {}}]
    nb.update(metadata={"name": ""}, nbformat=3, nbformat_minor=0, worksheets=sheets)


def without_ids(nb):
    for cell in nb["cells"]:
        del cell["id"]


def with_one_id(nb):
    for cell in nb["cells"]:
        cell["id"] = "same"


CHANGES = {
    "format 3": as_format_3,
    "cell ids in 4.4": lambda nb: nb.update(nbformat_minor=4),
    "a later minor version": lambda nb: nb.update(nbformat_minor=9),
    "no cell ids": without_ids,
    "one id for all cells": with_one_id,
    "no kernelspec": lambda nb: nb.update(metadata={}),
    "a kernelspec with a name only": lambda nb: nb.update(metadata={"kernelspec": {"name": "me"}}),
    "an older Python": lambda nb: nb.update(metadata={"language_info": {"name": "python2"}}),
    "IPython": lambda nb: nb.update(metadata={"language_info": {"name": "ipython"}}),
    "lines of a cell": lambda nb: nb["cells"][1].update(source=PARAMETERS.splitlines(True)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_notebooks_are_read_in_the_formats_that_people_have(notebook, recwarn, caplog, change):
    edit(notebook, change)
    assert list(notebook_parameters(notebook)) == NAMES
    assert not recwarn.list and not caplog.records


@pytest.mark.notebook
@pytest.mark.slow
def test_a_notebook_of_format_3_with_a_byte_order_mark_and_a_suffix_in_capitals_runs(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", "print(seed)")
    edit(path, as_format_3)
    old = tmp_path / "OLD.IPYNB"
    old.write_text(path.read_text(), encoding="utf-8-sig")
    out = run(old, {"seed": 5}, tmp_path / "out", progress=False)
    assert visible(out) == ["OLD.IPYNB", "OLD.html", "run.json"]
    executed = nbformat.read(out / "OLD.IPYNB", as_version=4)
    assert executed.cells[-1].outputs[0].text == "5\n"
    again = run(out / "OLD.IPYNB", out=tmp_path / "again", progress=False)  # with the defaults
    executed = nbformat.read(again / "OLD.IPYNB", as_version=4)
    assert executed.cells[-1].outputs[0].text == "0\n"


@pytest.mark.parametrize(
    "metadata, language",
    [
        ({"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}, "R"),
        ({"language_info": {"name": "julia"}}, "julia"),
        ({"kernelspec": {"name": "julia-1.9", "display_name": "Julia"}}, "julia-1.9"),
        ({"kernelspec": {"name": "ir"}}, "ir"),
        ({"kernelspec": {"language": "python"}, "language_info": {"name": "sage"}}, "sage"),
    ],
)
def test_a_notebook_of_another_language_is_refused(notebook, metadata, language):
    edit(notebook, lambda nb: nb.update(metadata=metadata))
    with pytest.raises(NotebookError, match=f"found a notebook in '{language}'; allowed: one in P"):
        notebook_parameters(notebook)


def test_a_notebook_of_format_3_in_another_language_is_refused(notebook):
    edit(notebook, as_format_3)
    edit(notebook, lambda nb: nb["worksheets"][0]["cells"][1].update(language="ruby"))
    with pytest.raises(NotebookError, match="found a notebook in 'ruby'"):
        notebook_parameters(notebook)


def test_a_key_that_stands_twice_is_refused(notebook):
    text = notebook.read_text()
    notebook.write_text(text.replace('"cells"', '"cells": [], "cells"', 1))
    with pytest.raises(NotebookError, match=r"no notebook \(ValueError: key 'cells' twice\)"):
        notebook_parameters(notebook)
    notebook.write_text(text)
    for twice in ('{"a": 1, "a": 2}', "{'a': 1, 'a': 2}", '{"b": {"a": 1, "a": 2}}'):
        with pytest.raises(ParameterError, match="parameter options: found .*; allowed: a dict"):
            parse_parameters(notebook, [("options", twice)])


@pytest.mark.parametrize("metadata", [[], 3, {"kernelspec": []}, {"kernelspec": {"language": 3}}])
def test_metadata_of_other_types_is_no_notebook(notebook, metadata):
    edit(notebook, lambda nb: nb.update(metadata=metadata))
    with pytest.raises(NotebookError, match="found no notebook "):
        notebook_parameters(notebook)


def test_a_parameters_cell_that_is_not_python_is_refused(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", parameters="seed = 0\nrule = = 1\n")
    with pytest.raises(NotebookError, match="line 2: found 'rule = = 1.*; allowed: Python"):
        notebook_parameters(path)


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", "x = 1", parameters=None)
    with pytest.raises(NotebookError, match="nb.ipynb: found no cell tagged 'parameters'"):
        run(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "no json", "{}", "[]", "3", '{"cells": [], "nbformat": 4}', '{"nbformat": "x"}']
)
def test_a_file_that_is_no_notebook_is_refused_before_anything_starts(tmp_path, text):
    path = tmp_path / "nb.ipynb"
    path.write_text(text)
    with pytest.raises(NotebookError, match="nb.ipynb: found no notebook .*; allowed: an .ipynb"):
        run(path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_no_text_are_no_notebook(tmp_path):
    (tmp_path / "nb.ipynb").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotebookError, match="no UTF-8"):
        notebook_parameters(tmp_path / "nb.ipynb")


def test_a_missing_notebook_a_folder_and_another_file_are_refused(tmp_path):
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "file.py").touch()
    for name, found in (
        ("none.ipynb", "nothing there"),
        ("folder.ipynb", "a folder"),
        ("file.py", "a file"),
    ):
        with pytest.raises(NotebookError, match=f"{name}: found {found}; allowed: an .ipynb"):
            run(tmp_path / name)


def test_an_unknown_parameter_is_refused_with_the_known_ones_and_their_defaults(notebook):
    with pytest.raises(ParameterError) as caught:
        run(notebook, {"epoch": 3}, notebook.parent / "out")
    assert "no parameter 'epoch' (did you mean 'epochs'?)" in str(caught.value)
    assert "allowed: rule = 'same', seed = 0, epochs = 5, lr = 0.1" in str(caught.value)
    assert not (notebook.parent / "out").exists()


def test_out_is_not_a_parameter_to_set(notebook):
    with pytest.raises(ParameterError, match="parameter out: .*--out DIR"):
        run(notebook, {"out": "elsewhere"})
    with pytest.raises(ParameterError, match="parameter out: .*--out DIR"):
        parse_parameters(notebook, [("out", "elsewhere")])


@pytest.mark.parametrize(
    "name, value",
    [
        ("seed", "3"),
        ("seed", 1.5),
        ("seed", True),
        ("seed", None),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", False),
        ("lr", 10**400),
        ("sample", 1),
        ("rule", 3),
        ("rule", "\udcff"),
        ("operations", "sum"),
        ("operations", {"sum": 1}),
        ("options", {1: 2}),
        ("options", {"a": {1}}),
        ("subset", object()),
    ],
)
def test_a_value_that_does_not_fit_the_default_is_refused(notebook, name, value):
    with pytest.raises(ParameterError, match=f"parameter {name}: found .*; allowed: "):
        run(notebook, {name: value}, notebook.parent / "out")
    assert not (notebook.parent / "out").exists()


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("seed", "3", 3),
        ("seed", "-3", -3),
        ("rule", "sum", "sum"),
        ("rule", "3", "3"),
        ("rule", "", ""),
        ("lr", "1", 1.0),
        ("lr", "1e-3", 1e-3),
        ("sample", "true", True),
        ("sample", "False", False),
        ("operations", '["sum"]', ["sum"]),
        ("operations", "('sum', 'zero')", ["sum", "zero"]),
        ("options", '{"a": [1, null]}', {"a": [1, None]}),
        ("subset", "100", 100),
        ("subset", "None", None),
        ("subset", "true", True),
        ("subset", "some text", "some text"),
    ],
)
def test_text_from_the_shell_is_read_as_the_default_is(notebook, name, text, value):
    found = parse_parameters(notebook, [(name, text)])
    assert found == {name: value} and type(found[name]) is type(value)


@pytest.mark.parametrize(
    "name, text",
    [
        ("seed", "x"),
        ("seed", "1.5"),
        ("seed", ""),
        ("lr", "nan"),
        ("lr", "fast"),
        ("sample", "1"),
        ("sample", "yes"),
        ("operations", "sum"),
        ("operations", "3"),
        ("operations", "[" * 5000),
        ("options", "[]"),
        ("options", "__import__('os')"),
        ("subset", "NaN"),
    ],
)
def test_text_that_does_not_fit_is_refused(notebook, name, text):
    with pytest.raises(ParameterError, match=f"parameter {name}: found .*; allowed: "):
        parse_parameters(notebook, [(name, text)])


def test_a_parameter_given_twice_is_refused(notebook):
    with pytest.raises(ParameterError, match="parameter seed: found it twice"):
        parse_parameters(notebook, [("seed", "1"), ("seed", "2")])


def test_an_out_that_is_a_file_or_the_notebooks_own_folder_is_refused(notebook):
    (notebook.parent / "file").touch()
    for out in (notebook.parent / "file", notebook.parent / "file" / "below"):
        with pytest.raises(BmnasError, match="out: found .*file.*; allowed: a folder"):
            run(notebook, out=out)
    before = notebook.read_bytes()
    with pytest.raises(BmnasError, match="the notebook's own folder"):
        run(notebook, out=notebook.parent)
    assert notebook.read_bytes() == before


@pytest.mark.notebook
def test_a_run_leaves_the_notebook_its_page_and_its_own_result(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    cells = [
        "import os, sys\nprint([sys.executable, os.getcwd(), rule, lr, operations, out])",
        "from pathlib import Path\nPath(out, 'result.json').write_text('{}')",
        "from IPython.display import SVG, display\n"
        'display(SVG(\'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>\'))',
        "from ipywidgets import IntSlider\nIntSlider(77)",
    ]
    write_notebook(tmp_path / "nb.ipynb", *cells)
    with_stale_result(tmp_path / "q {x}")

    out = run("nb.ipynb", {"rule": 'su"m', "lr": 1, "operations": ("a",)}, "q {x}")

    assert visible(out) == ["nb.html", "nb.ipynb", "result.json", "run.json"]
    assert (out / "result.json").read_text() == "{}"
    nb = nbformat.read(out / "nb.ipynb", as_version=4)
    (line,) = [c.outputs[0].text for c in nb.cells if c.source.startswith("import os")]
    assert line.strip() == str([sys.executable, str(tmp_path), 'su"m', 1.0, ["a"], "q {x}"])
    page = (out / "nb.html").read_text()
    assert "A title" in page and "getcwd" in page and "circle" in page
    assert "IntSlider(value=77" not in page and "<script" not in page
    assert "<math" in page and "$x^2$" not in page and "<code>$HOME</code>" in page
    assert capfd.readouterr() == ("", "")


@pytest.mark.notebook
def test_a_failing_cell_is_named_and_the_notebook_up_to_it_stays(tmp_path, capfd):
    path = write_notebook(
        tmp_path / "nb.ipynb", "x = 1", "\nlist_of = []\nlist_of[x]  # fails", "print('later')"
    )
    out = with_stale_result(tmp_path / "out")
    with pytest.raises(RunError) as caught:
        run(path, out=out)
    message = str(caught.value)
    assert "nb.ipynb failed in cell 4 ('list_of = []'): IndexError: list index out" in message
    assert str(out / "nb.ipynb") in message and "\n" not in message
    assert visible(out) == ["earlier", "nb.html", "nb.ipynb", "run.json"]
    assert {p.name: p.read_text() for p in (out / "earlier").iterdir()} == STALE
    assert f"the result of the run before: {out / 'earlier'}" in message
    assert "IndexError" in (out / "nb.html").read_text()
    cells = nbformat.read(out / "nb.ipynb", as_version=4).cells
    assert cells[-1].source == "print('later')" and not cells[-1].outputs
    assert capfd.readouterr() == ("", "")


@pytest.mark.notebook
@pytest.mark.parametrize(
    "source, timeout, what",
    [
        ("import os\nos._exit(3)", None, "its kernel died with exit status 3"),
        ("import time\ntime.sleep(60)", 1, "took longer than 1 s"),
    ],
)
def test_a_kernel_that_dies_or_hangs_fails_the_run(tmp_path, capfd, source, timeout, what):
    path = write_notebook(tmp_path / "nb.ipynb", source)
    with pytest.raises(RunError, match=f"failed in cell 3 .*: {what}; executed notebook: "):
        run(path, out=tmp_path / "out", timeout=timeout)
    assert (tmp_path / "out" / "nb.html").exists()
    assert capfd.readouterr() == ("", "")


def test_importing_experiments_imports_no_notebooks_and_no_tables():
    code = (
        "import sys, bmnas_core.experiments\n"
        "names = ('papermill', 'nbconvert', 'nbformat', 'pandas', 'itables', 'jinja2', 'scipy')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
