"""Every notebook runs from top to bottom under papermill, with small settings."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml

import bmnas_core as bm
from bmnas_core import Genotype
from bmnas_core.experiments import RESULT_FILES, load_result, notebook_parameters, run
from bmnas_core.experiments.spec import read_spec

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))

ONE = {"backbone_epochs": 1, "search_epochs": 1, "epochs": 1, "finetune_epochs": 1}

#: Of the paper's tasks, with enough epochs for fusion to beat either modality alone.
ENOUGH = ONE | {"backbone_epochs": 3, "epochs": 7}
PAPER = {"10_mmimdb": ENOUGH, "11_ntu": ENOUGH, "12_egogesture": ENOUGH | {"backbone_epochs": 5}}

#: Parameters that make a notebook quick without leaving out any part of it.
QUICK = {
    "00_quickstart": {"search_epochs": 1, "epochs": 1, "selection": "argmax"},
    "01_backbones": {"epochs": 1, "backbone_epochs": 1},
    "04_the_search": {"search_epochs": 1},
    "05_genotypes": {"epochs": 1},
    "06_evaluation": {"epochs": 1},
    "07_ablations": {"epochs": 1},
    "08_does_it_work": {"search_epochs": 1},
    "09_own_task": {"epochs": 2},
    **dict.fromkeys(PAPER, ONE),
    "13_sweeps": {"seeds": 2, "search_epochs": 1, "epochs": 1},
}
pytestmark = [pytest.mark.notebook, pytest.mark.slow]


def run_notebook(name: str, out: Path, **parameters) -> Path:
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    return run(path, {**QUICK.get(name, {}), **parameters}, out, progress=False)


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_from_top_to_bottom(name, notebook_runs):
    out = run_notebook(name, notebook_runs / name, device="cpu")
    executed = json.loads((out / f"{name}.ipynb").read_text())
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    warnings = [
        output
        for cell in code
        for output in cell["outputs"]
        if output.get("name") == "stderr" or output["output_type"] == "error"
    ]
    assert not warnings, warnings[0]
    page = (out / f"{name}.html").read_text()
    assert "http://localhost" not in page and "<script" not in page
    if name == "00_quickstart":
        check_quickstart(out, "digits", "voice", 0)
    if name in PAPER:
        check_paper_task(out)


def test_the_projects_notebook_scores_its_own_search(notebook_runs):
    (path,) = NOTEBOOKS[0].parent.glob("project.ipynb")
    out = run(path, {"device": "cpu"}, notebook_runs / "project", progress=False)
    assert "my-name" in (out / "project.html").read_text()


@pytest.mark.nightly
@pytest.mark.parametrize("name", PAPER)
def test_on_the_papers_tasks_the_learned_network_beats_both_modalities_alone(name, notebook_runs):
    out = run_notebook(name, notebook_runs / f"{name}_enough", device="cpu", **PAPER[name])
    test, alone = check_paper_task(out)
    assert test > max(alone)


def check_paper_task(out: Path) -> tuple[float, list[float]]:
    """The features of both modalities are on disk. The network's score, and those of each alone."""
    result = load_result(out)
    alone = [row["test"] for name, row in result["baselines"].items() if "alone" in name]
    check_genotype(out, result)
    tables = [json.loads(path.read_text()) for path in (out / "features").glob("*/bank.json")]
    assert len(alone) == len(tables) == 2 and not any(table["skipped"] for table in tables)
    return result["test"], alone


def check_genotype(out: Path, result: dict):
    """The genotype in the result is the one in its own file."""
    saved = Genotype.load(out / "genotype.json")
    assert Genotype.from_json(json.dumps(result["genotype"])) == saved


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_a_notebook_takes_a_seed_and_a_device(name):
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    parameters = notebook_parameters(path)
    assert parameters["device"].default == "auto" and parameters["seed"].default == 0
    assert all(parameter.help for parameter in parameters.values())


def check_quickstart(out: Path, task: str, rule: str, seed: int):
    """The quickstart's files and its page agree."""
    assert set(RESULT_FILES) <= {path.name for path in out.iterdir()}
    result = load_result(out)
    assert (result["task"], result["rule"], result["seed"]) == (task, rule, seed)
    check_genotype(out, result)
    assert {"Image alone", "late fusion, averaged", "fixed Sum"} <= set(result["baselines"])
    page = (out / "00_quickstart.html").read_text()
    assert f"{result['metric']} on test: {result['test']:.3f}" in page
    assert f"{result['params']:,} parameters" in page
    assert result["test"] > 0.1  # better than chance


@pytest.mark.nightly
def test_the_quickstart_runs_with_another_task_rule_and_seed(notebook_runs, data_root):
    options = {"task_name": "avmnist", "rule": "same", "seed": 1}
    out = run_notebook("00_quickstart", notebook_runs / "avmnist", **options)
    check_quickstart(out, "avmnist", "same", 1)


def test_an_error_in_a_notebook_fails_the_run_with_a_clear_line(tmp_path):
    with pytest.raises(
        ValueError, match="TaskError: rule: found 'product'; allowed: same, sum, voic"
    ):
        run_notebook("00_quickstart", tmp_path / "out", rule="product")
    found = sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".lock")
    assert found == ["00_quickstart.html", "00_quickstart.ipynb", "run.json"]


def test_the_spec_in_notebook_13_is_one_and_its_command_names_one_of_its_runs(tmp_path):
    (path,) = (path for path in NOTEBOOKS if path.stem == "13_sweeps")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (again,) = re.findall(r'bmnas reproduce "runs/night/(.*)"', text)
    fields = yaml.safe_load(written)
    spec = read_spec(fields | {"notebook": str(path.with_name(fields["notebook"]))})
    assert "That is 2 × 2 × 5 runs" in text and len(spec.runs) == 2 * 2 * 5
    assert again in spec.names(set(), {})


@pytest.mark.gpu
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_on_the_gpu(name, notebook_runs):
    run_notebook(name, notebook_runs / f"{name}_cuda", device="cuda")


def test_the_quickstarts_ablation_is_left_out_where_no_other_feature_fits(capsys):
    """As in a sweep of AV-MNIST, where a Cell read both middle features of the audio."""
    cells = nbformat.read(NOTEBOOKS[0], 4).cells
    (source,) = (cell.source for cell in cells if cell.get("id") == "cell-ablation")
    images, sounds = ([f"{m}_{i}" for i in (1, 2, 3)] for m in ("Image", "Audio"))
    step = bm.StepGenotype("sum", ("X", "Y"))
    pairs = ("Audio_2", "Audio_1"), ("Image_3", "Audio_3")
    genotype = bm.Genotype(images + sounds, [bm.CellGenotype(pair, (step,)) for pair in pairs])
    names = {"genotype": genotype, "probes": {}, "bm": bm, "epochs": 1, "seed": 0, "task": None}
    names |= {"replace": replace, "suppress": suppress, "device": "cpu"}
    names |= {"image": SimpleNamespace(channels=images), "audio": SimpleNamespace(channels=sounds)}
    exec(source, names)
    assert names["changed"] == genotype and "validation" not in capsys.readouterr().out
