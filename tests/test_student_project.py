"""The project "beat the default search": what students get, and how what they hand in is scored."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import bmnas

import bmnas_core as bm
from bmnas_core.benchmark import tabular
from bmnas_core.course import project
from bmnas_core.course.project import PRACTICE_SEEDS, make_variant, score_submissions

DATA_SEED = 77


@pytest.fixture(scope="module")
def benchmark() -> bm.TabularBenchmark:
    return bm.TabularBenchmark("digits", "same")


@pytest.fixture(scope="module")
def variant(shared_folder) -> Path:
    return shared_folder("variant", lambda f: make_variant(f / "made", "same", [4, 2], DATA_SEED))


@pytest.fixture
def submissions(tmp_path, benchmark):
    """A function that writes a student's genotypes: the architectures on these ranks."""

    def write(student: str, *ranks: int) -> Path:
        for seed, rank in zip(PRACTICE_SEEDS, ranks, strict=True):
            path = tmp_path / student / f"seed-{seed}.json"
            benchmark.table["genotype"][rank - 1].save(path)
        return tmp_path / student

    return write


def graded(folder: Path) -> dict[str, dict]:
    return score_submissions(folder).table.set_index("student").to_dict("index")


# --- grades


@pytest.mark.slow
def test_a_submission_is_scored_by_regret_and_compared_with_the_default_search(
    tmp_path, submissions, benchmark
):
    submissions("ada", 1, 2, 1, 3, 2)
    submissions("bert", 1900, 1800, 1850, 1900, 1700)
    found = score_submissions(tmp_path)
    assert found.seeds == tuple(PRACTICE_SEEDS)
    (ada, bert) = found.table.to_dict("records")
    assert (ada["student"], bert["student"]) == ("ada", "bert")
    own = [benchmark.table["genotype"][k - 1] for k in (1, 2, 1, 3, 2)]
    best = [benchmark.regret(genotype) for genotype in own]
    assert ada["regret"] == pytest.approx(np.mean(best))
    assert ada["rank"] == np.mean([benchmark.rank(genotype) for genotype in own])
    assert ada["difference"] == pytest.approx(np.mean(np.array(best) - found.default))
    assert ada["low"] < ada["difference"] < ada["high"] < 0
    assert ada["outcome"] == "better" and bert["outcome"] == "worse"
    assert ada["remarks"] == bert["remarks"] == ""


@pytest.mark.slow
def test_what_the_default_search_found_is_level_with_itself(tmp_path):
    _, defaults = project._reference(None, "same")
    for seed, genotype in defaults.items():
        genotype.save(tmp_path / "default" / f"seed-{seed}.json")
    row = graded(tmp_path)["default"]
    assert row["outcome"] == "level" and row["difference"] == row["low"] == row["high"] == 0


@pytest.mark.slow
def test_one_architecture_for_all_seeds_is_remarked(tmp_path, submissions):
    submissions("eve", 1, 1, 1, 1, 1)
    assert graded(tmp_path)["eve"]["remarks"] == "one architecture for all seeds"


OTHER_SPACE = bm.Genotype(
    ("Image_3", "Audio_3"),
    (bm.CellGenotype(("Image_3", "Audio_3"), (bm.StepGenotype("sum", ("X", "Y")),)),),
)
SPOILED = {
    "missing": (lambda path: path.unlink(), "nothing there"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "a readable file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "a readable file"),
    "a link": (
        lambda path: (path.unlink(), path.symlink_to(path.with_name("seed-2101.json"))),
        "a link; allowed: a file",
    ),
    "no JSON": (lambda path: path.write_text("import os"), "a JSON document"),
    "too long": (lambda path: path.write_text(" " * 20_000_000), "a readable file"),
    "deep": (lambda path: path.write_text("[" * 100_000), "deep nesting"),
    "of another space": (lambda path: OTHER_SPACE.save(path), "1,950 architectures"),
    "of an unknown operation": (
        lambda path: path.write_text(path.read_text().replace('"op": "', '"op": "my_')),
        "operation|my_|architectures",
    ),
    "control characters": (lambda path: path.write_text('{"\x1b[2J": 1}'), "allowed"),
}  # fmt: skip


@pytest.mark.slow
def test_a_spoiled_file_is_named_in_one_line_and_others_are_scored(tmp_path, submissions):
    for what, (spoil, _) in SPOILED.items():
        spoil(submissions(what, 1, 2, 3, 4, 5) / f"seed-{PRACTICE_SEEDS[0]}.json")
    submissions("ada", 1, 2, 1, 3, 2)
    found = graded(tmp_path)
    assert found.pop("ada")["outcome"] == "better" and set(found) == set(SPOILED)
    for what, row in found.items():
        remarks = row["remarks"]
        assert row["outcome"] == "not scored" and row["regret"] != row["regret"], what
        assert f"seed-{PRACTICE_SEEDS[0]}.json" in remarks or "of a" in what, remarks
        assert re.search(SPOILED[what][1], remarks), remarks
        assert remarks.isprintable()


@pytest.mark.slow
def test_a_students_folder_that_is_a_link_is_not_followed(tmp_path, submissions):
    own = submissions("hidden/ada", 1, 2, 1, 3, 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mallory").symlink_to(own)
    assert "a link" in graded(tmp_path / "in")["mallory"]["remarks"]


@pytest.mark.slow
def test_no_code_that_is_handed_in_runs(tmp_path, submissions):
    own = submissions("mallory", 1, 2, 1, 3, 2)
    for name in ("conftest.py", "__init__.py", "sitecustomize.py", "genotype.py"):
        (own / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (own / "seed-2100.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert graded(tmp_path)["mallory"]["outcome"] == "better"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_grades_are_a_table_on_the_terminal_and_in_a_file(tmp_path, submissions):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("ada", "=HYPERLINK(1)", "evil\x1b[2J"):
        os.rename(submissions(name, 1, 2, 1, 3, 2), folder / name)
    out = bmnas("project", "score", str(folder), "-o", str(tmp_path / "grades.csv"))
    assert out.exit_code == 0, out.output
    assert "default search: mean regret" in out.output and "\x1b" not in out.output
    rows = pd.read_csv(tmp_path / "grades.csv").set_index("student")
    assert "ada" in rows.index and "'=HYPERLINK(1)" in rows.index and "\x1b" not in str(rows.index)
    assert rows.loc["ada", "outcome"] == "better"


def test_a_folder_without_submissions_is_refused(tmp_path):
    with pytest.raises(project.ProjectError, match="one for each student"):
        score_submissions(tmp_path)
    with pytest.raises(project.ProjectError, match="no folder"):
        score_submissions(tmp_path / "nowhere")
    (tmp_path / "ada").mkdir()
    with pytest.raises(project.ProjectError, match="same or sum"):
        score_submissions(tmp_path, rule="voice")


# --- a variant


@pytest.mark.slow
def test_students_get_train_and_validation_and_nothing_of_test(variant):
    made = variant / "made"
    task = bm.load_task("digits", rule="same", data_seed=DATA_SEED)
    table = pd.read_csv(made / "for_students" / "samples.csv")
    assert dict(table["split"].value_counts()) == {"train": 3000, "validation": 1500}
    labels = [task.split(name).labels.numpy() for name in ("train", "validation")]
    assert (table["label"] == np.concatenate(labels)).all()
    given = {path.name for path in (made / "for_students").iterdir()}
    assert given == {f"{name}.npy" for name in task.features} | {"samples.csv", "project.json"}
    assert all(len(np.load(made / "for_students" / f"{f}.npy")) == 4500 for f in task.features)
    for path in (made / "for_students").glob("*.json"):
        assert str(DATA_SEED) not in path.read_text() and "data_seed" not in path.read_text()
    secret = json.loads((made / "lecturer" / "project.json").read_text())
    assert secret["data_seed"] == DATA_SEED and secret["seeds"] == [4, 2]


@pytest.mark.slow
def test_a_search_on_what_students_get_is_that_on_the_variant(variant):
    students = bm.load_project(variant / "made" / "for_students")
    whole = bm.load_task("digits", rule="same", data_seed=DATA_SEED)
    assert students.features == whole.features and students.notes["seeds"] == [4, 2]
    assert (students.config, students.search_config) == (whole.config, whole.search_config)
    config = bm.SearchConfig(epochs=1, selection="argmax")
    found = []
    for task in (students, whole):
        search = bm.Search(task, config, seed=4)
        losses = [state.val_loss for state in search]
        found.append((losses, search.best_genotype))
    assert found[0] == found[1]


@pytest.mark.slow
def test_without_test_samples_test_cannot_be_read(variant):
    task = bm.load_project(variant / "made" / "for_students")
    assert "0 test" in repr(task) and "/ 0" in str(task)
    steps = (bm.StepGenotype("sum", ("X", "Y")), bm.StepGenotype("concat_fc", ("X", "S1")))
    genotype = bm.Genotype(task.features, (bm.CellGenotype(("Image_3", "Audio_3"), steps),))
    net, _ = bm.train(genotype, task, bm.TrainConfig(epochs=1), seed=0, progress=False)
    assert 0 < bm.evaluate(net, task, "validation") < 1
    for read in (bm.evaluate, bm.report):
        with pytest.raises(bm.TaskError, match="split 'test': found no samples"):
            read(net, task)


@pytest.mark.slow
def test_another_data_seed_is_another_split_of_images_and_voices():
    usual, other = (bm.load_task("digits", rule="sum", data_seed=k) for k in (0, DATA_SEED))
    assert "data_seed" not in usual.notes and other.notes["data_seed"] == DATA_SEED
    for modality in ("Image", "Audio"):
        mine, theirs = (set(t.items("test", modality).tolist()) for t in (usual, other))
        assert len(mine) == pytest.approx(len(theirs), rel=0.1) and mine != theirs
        parts = [set(other.items(s, modality).tolist()) for s in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))
    assert bm.TabularBenchmark.covering(other, 1, 2, bm.DEFAULT_OPERATIONS) is None


@pytest.mark.slow
def test_a_variant_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "_write_for_students", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_variant(tmp_path / "p", data_seed=DATA_SEED)
    assert not list(tmp_path.iterdir())
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine.txt").touch()
    with pytest.raises(project.ProjectError, match="a new or empty folder"):
        make_variant(tmp_path / "p", data_seed=DATA_SEED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "voice"}, "same or sum"),
        ({"seeds": []}, "one or more"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "0 or more"),
        ({"seeds": [0.5]}, "an integer"),
        ({"data_seed": "x"}, "an integer"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(tmp_path, given, message):
    with pytest.raises(bm.BmnasError, match=message):
        make_variant(tmp_path / "p", **given)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_project_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(bm.ProjectError, match=r"bmnas project variant"):
            bm.load_project(folder)
    for text in ("[1]", '{"format": "bmnas-project/1", "rule": 3}', "{"):
        (tmp_path / "project.json").write_text(text)
        with pytest.raises(bm.ProjectError, match=r"project\.json"):
            bm.load_project(tmp_path)


@pytest.mark.slow
def test_a_project_without_a_table_cannot_be_scored(variant, tmp_path):
    (tmp_path / "ada").mkdir()
    with pytest.raises(project.ProjectError, match="run `bmnas project table` first"):
        score_submissions(tmp_path, variant / "made")


@pytest.mark.nightly
def test_a_lecturer_builds_what_a_table_lacks_and_scores_by_it(variant, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(variant / "made", folder)
    path, given = folder / "lecturer" / "table.parquet", bm.TabularBenchmark("digits", "same")
    task = bm.load_task("digits", rule="same", data_seed=DATA_SEED)
    recipe = tabular._recipe(task, bm.TrainConfig.from_dict(given.recipe["config"]),
                             bm.DEFAULT_OPERATIONS, sampled=False)  # fmt: skip
    known = given.runs[given.runs["seed"] == 0]
    tabular._write(path, recipe, known[:-2].to_dict("records"))  # in place of half an hour
    project.build_table(folder, table_seeds=1)
    built = bm.TabularBenchmark(path=path)
    assert len(built) == 1950 and built.recipe == recipe
    trained = set(built.runs["genotype"]) - set(known[:-2]["genotype"])
    assert trained == set(known[-2:]["genotype"])
    found = sorted(path.name for path in (folder / "lecturer" / "default").iterdir())
    assert found == ["seed-2.json", "seed-4.json"]

    shutil.copytree(folder / "lecturer" / "default", tmp_path / "in" / "as_default")
    for seed in (4, 2):
        built.best().save(tmp_path / "in" / "ada" / f"seed-{seed}.json")
    grades = score_submissions(tmp_path / "in", folder)
    assert grades.seeds == (4, 2)
    rows = grades.table.set_index("student")
    assert rows.loc["ada", "regret"] == 0 and rows.loc["as_default", "outcome"] == "level"
    assert rows.loc["ada", "difference"] == pytest.approx(-np.mean(grades.default))


@pytest.mark.slow
def test_a_table_of_another_rule_is_refused(variant, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(variant / "made", folder)
    shutil.copy(bm.TabularBenchmark("digits", "sum").path, folder / "lecturer" / "table.parquet")
    (tmp_path / "in" / "ada").mkdir(parents=True)
    with pytest.raises(project.ProjectError, match="rule sum; allowed: same"):
        score_submissions(tmp_path / "in", folder)
