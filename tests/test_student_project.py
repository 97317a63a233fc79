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
from bmnas_core.course import grading, project
from bmnas_core.course.grading import check_submission, hidden_variance, score_submissions
from bmnas_core.course.project import make_variant

DATA_SEED = project.SECRET.start + 77
PRACTICE_SEEDS = grading.PRACTICE_SEEDS["same"]
FIRST = f"seed-{PRACTICE_SEEDS[0]}.json"


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
    _, defaults = grading._reference(None, "same")
    for seed, genotype in defaults.items():
        genotype.save(tmp_path / "default" / f"seed-{seed}.json")
    row = graded(tmp_path)["default"]
    assert row["outcome"] == "level" and row["difference"] == row["low"] == row["high"] == 0
    assert row["remarks"] == "the same as the default search"


@pytest.mark.slow
def test_one_architecture_for_all_seeds_is_as_uncertain_as_its_score(
    tmp_path, submissions, benchmark
):
    submissions("ada", 3, 1, 2, 4, 5)
    submissions("eve", 3, 3, 3, 3, 3)
    found = graded(tmp_path)
    assert found["eve"]["remarks"] == "one architecture for all seeds"
    runs = benchmark.look_up(benchmark.table["genotype"][2])["runs"]
    least = 1.96 * benchmark.noise(top=97) / runs**0.5
    assert found["eve"]["difference"] - found["eve"]["low"] > least > 0
    assert found["ada"]["outcome"] == "better"


@pytest.mark.slow
def test_equal_submissions_are_remarked(tmp_path, submissions):
    for name in ("ada", "bert"):
        submissions(name, 1, 2, 1, 3, 2)
    found = graded(tmp_path)
    assert found["ada"]["remarks"] == "the same as bert"
    assert found["bert"]["remarks"] == "the same as ada"
    submissions("chloë", 2, 1, 3, 2, 1)
    submissions("dora", 4, 9, 1, 3, 2)
    found = graded(tmp_path)
    assert found["chloë"]["remarks"] == ("the same as ada, bert; partly the same as dora (3 of 5)")
    assert found["dora"]["remarks"] == (
        "partly the same as ada (3 of 5), bert (3 of 5), chloë (3 of 5)"
    )
    for k in range(4):
        submissions(f"e{k}", 1, 2, 1, 3, 2)
    assert graded(tmp_path)["ada"]["remarks"].startswith("the same as bert, chloë, e0 and 3 others")


@pytest.mark.parametrize("mine", ["aaaaa", "abcde", "aabbc", "abczz"])
def test_the_variance_that_seeds_do_not_show_is_that_of_errors_that_return(mine):
    random, n, times = np.random.default_rng(0), len(mine), 40_000
    pairs = [*zip(mine, "vwxyz", strict=True)]
    errors = {name: random.normal(size=times) for name in sorted({*mine, *"vwxyz"})}
    found = np.array([errors[one] - errors[other] for one, other in pairs])
    whole, seen = found.mean(0).var(), (found.var(0, ddof=1) / n).mean()
    assert hidden_variance(pairs, lambda _: 1.0) == pytest.approx(max(0, whole - seen), abs=0.02)


def _changed(path: Path, steps: int = 2, cells: int = 1) -> None:
    """Write a genotype of other sizes."""
    genotype = bm.Genotype.load(path)
    cell = genotype.cells[0]
    own = [bm.CellGenotype(cell.inputs, (bm.StepGenotype("sum", ("X", "Y")),) * steps)]
    own += [bm.CellGenotype(("Image_1", "Image_2"), cell.steps)] * (cells - 1)
    bm.Genotype(genotype.features, tuple(own)).save(path)


OTHER_SPACE = bm.Genotype(
    ("Image_3", "Audio_3"),
    (bm.CellGenotype(("Image_3", "Audio_3"), (bm.StepGenotype("sum", ("X", "Y")),)),),
)
SPOILED = {
    "missing": (lambda path: path.unlink(), "found only seed-2101.json, seed-2102.json"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "a readable file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "a readable file"),
    "a link": (
        lambda path: (path.unlink(), path.symlink_to(path.with_name("seed-2101.json"))),
        "a link; allowed: a file",
    ),
    "no JSON": (lambda path: path.write_text("import os"), "a JSON document"),
    "too long": (lambda path: os.truncate(path, 20_000_000_000), "more than 20,000 bytes"),
    "deep": (lambda path: path.write_text("[" * 19_000), "deep nesting"),
    "of other features": (lambda path: OTHER_SPACE.save(path), "features: found Image_3, Audio_3;"),
    "of one step": (lambda path: _changed(path, steps=1), "steps: found 1; allowed: 2"),
    "of two Cells": (lambda path: _changed(path, cells=2), "cells: found 2; allowed: 1"),
    "of Zero": (
        lambda path: path.write_text(re.sub('"op": "[^"]*', '"op": "zero', path.read_text())),
        r"cells\[0\].steps\[0\].op: found 'zero'; allowed: sum, attention",
    ),
    "of an unknown operation": (
        lambda path: path.write_text(path.read_text().replace('"op": "', '"op": "my_')),
        "op",
    ),
    "control characters": (lambda path: path.write_text('{"\x1b[2J": 1}'), "allowed"),
    "in UTF-16": (lambda path: path.write_text(path.read_text(), "utf-16"), "found no UTF-8"),
    "under another name": (
        lambda path: path.rename(path.with_name("seed-2100 (1).json")),
        r"found only seed-2100 \(1\).json, seed-2101.json, .*; allowed: a file of this name",
    ),
    "of a long name": (lambda path: path.write_text('{"format": "%s"}' % ("x" * 9_000)), "format"),
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
        assert remarks.startswith(FIRST) and len(remarks) <= 300, remarks
        assert re.search(SPOILED[what][1], remarks), remarks
        assert remarks.isprintable()


@pytest.mark.slow
def test_what_platforms_and_unpackers_make_of_a_submission_is_read(tmp_path, submissions):
    (tmp_path / "in").mkdir()
    own, put = submissions("own", 1, 2, 1, 3, 2), tmp_path / "in"
    shutil.copytree(own, put / "below" / "project" / "my-name")
    (put / "below" / "__MACOSX").mkdir()
    shutil.copytree(own, put / "Ada Ä_12_assignsubmission_file_")
    (put / "Ada Ä_12_assignsubmission_onlinetext_").mkdir()
    (put / "Bert_7_assignsubmission_file_page.pdf").touch()
    (put / "Bert_7_assignsubmission_file_project.ipynb").touch()
    (put / "Bert_7_assignsubmission_onlinetext_onlinetext.html").touch()
    for path in own.iterdir():
        shutil.copy(path, put / f"Bert_7_assignsubmission_file_{path.name}")
        shutil.copy(path, put / f"Chloë_{path.name}")
    (put / "windows").mkdir()
    for path in own.iterdir():
        text = "\ufeff" + path.read_text().replace("\n", "\r\n")
        (put / "windows" / path.name).write_bytes(text.encode())
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        (put / name).mkdir()
    (put / ".DS_Store").touch()
    found = graded(put)
    assert {*found} == {"below", "Ada Ä_12", "Bert_7", "Chloë", "windows"}
    assert {row["outcome"] for row in found.values()} == {"better"}


@pytest.mark.slow
@pytest.mark.parametrize("depth", range(6))
def test_what_is_put_around_a_submission_is_passed(tmp_path, submissions, depth):
    own = submissions("own", 1, 2, 1, 3, 2)
    below = tmp_path.joinpath("in", "ada", *"abcdef"[:depth])
    shutil.copytree(own, below)
    for name in (".git", ".vscode", "__pycache__", "page"):
        (tmp_path / "in" / "ada" / name).mkdir(exist_ok=True)
    (tmp_path / "in" / "ada" / "seed-notes.txt").touch()
    shutil.rmtree(tmp_path / "in" / "ada" / "page") if depth > 1 else None
    assert graded(tmp_path / "in")["ada"]["outcome"] == "better"


@pytest.mark.slow
def test_who_hands_in_twice_is_not_scored(tmp_path, submissions):
    own = submissions("Ada_1", 1, 2, 1, 3, 2)
    shutil.copytree(own, tmp_path / "Ada_1_assignsubmission_file_")
    submissions("Bert", 1, 2, 1, 3, 2)
    shutil.copy(own / FIRST, tmp_path / f"Bert_{FIRST}")
    found = graded(tmp_path)
    assert {name: row["remarks"] for name, row in found.items()} == dict.fromkeys(
        ("Ada_1", "Bert"), "handed in twice; allowed: once"
    )


@pytest.mark.slow
def test_nobody_is_left_out(tmp_path, submissions):
    submissions("ada", 1, 2, 1, 3, 2)
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "ada")
    (tmp_path / "report.pdf").touch()
    (tmp_path / ".gitignore").touch()
    (tmp_path / "zip inside").mkdir()
    (tmp_path / "zip inside" / "work.tar.xz").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    submissions("flat", 1, 2, 1, 3, 2)
    shutil.move(tmp_path / "flat" / FIRST, tmp_path / f"Dora_3_assignsubmission_file_{FIRST}")
    found = graded(tmp_path)
    assert found.pop("ada")["outcome"] == "better"
    assert {name: row["remarks"] for name, row in found.items() if name != "flat"} == {
        "zipped.zip": "found a file; allowed: a folder for each student; unpack it",
        "report.pdf": "found a file; allowed: a folder for each student",
        "zip inside": f"{FIRST}: found only work.tar.xz; allowed: a file of this name; unpack it",
        "empty": f"{FIRST}: found nothing there; allowed: a file of this name",
        ".hidden": f"{FIRST}: found nothing there; allowed: a file of this name",
        "Dora_3": f"seed-2101.json: found only {FIRST}; allowed: a file of this name",
    }
    assert {row["outcome"] for row in found.values()} == {"not scored"}


@pytest.mark.slow
def test_a_student_can_check_a_submission(tmp_path, submissions, variant):
    own = submissions("ada", 1, 2, 1, 3, 2)
    assert [*check_submission(own)] == [*PRACTICE_SEEDS]
    done = bmnas("project", "check", str(own))
    assert done.output == f"{own}: complete, 5 seeds, 3 different architectures\n"
    given = variant / "made" / "for_students"
    done = bmnas("project", "check", str(own), "--project", str(given))
    assert done.exit_code == 2 and "seed-4.json: found only seed-2100.json" in done.stderr
    for seed, path in zip((4, 2), sorted(own.iterdir()), strict=False):
        path.rename(own / f"seed-{seed}.json")
    assert [*check_submission(own, given)] == [4, 2]
    with pytest.raises(project.ProjectError, match="the folder of a submission"):
        check_submission(tmp_path / "nowhere")
    for folder, message in (("lecturer", "one that students were given"), ("", "for_students")):
        with pytest.raises(project.ProjectError, match=message):
            check_submission(own, variant / "made" / folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "two or more"),
        ({"seeds": [5, 5]}, "each once"),
        ({"seeds": [-1, 2]}, "0 or more"),
        ({"settings": {}}, "settings.M: found None; allowed: a whole number"),
        ({"settings": {"M": "2", "N": 1}}, "settings.M: found '2'"),
        ({"search": {"operations": 5}}, "search.operations: found 5; allowed: names"),
    ],
)
def test_a_changed_project_is_refused_in_one_line(tmp_path, variant, changes, message):
    shutil.copytree(variant / "made" / "for_students", tmp_path / "given")
    path = tmp_path / "given" / "project.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (tmp_path / "mine").mkdir()
    for read in (lambda: check_submission(tmp_path / "mine", tmp_path / "given"),
                 lambda: bm.load_project(tmp_path / "given")):  # fmt: skip
        with pytest.raises(project.ProjectError, match=message):
            read()


@pytest.mark.slow
def test_a_submission_for_one_rule_is_not_scored_as_one_for_the_other(tmp_path, submissions):
    submissions("ada", 1, 2, 1, 3, 2)
    (row,) = score_submissions(tmp_path, rule="sum").table.to_dict("records")
    assert row["outcome"] == "not scored" and "seed-2105.json: found only" in row["remarks"]


@pytest.mark.slow
def test_a_submission_in_place_of_the_folder_above_is_refused(submissions):
    with pytest.raises(project.ProjectError, match="the folder above"):
        score_submissions(submissions("ada", 1, 2, 1, 3, 2))


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
    (folder / "=cmd|' C'!A0").mkdir()
    (folder / "@SUM(1)").symlink_to(folder / "ada")
    for name in ("＝1+1", " =1+1", "a;=1"):
        (folder / name).mkdir()
    bmnas("project", "score", str(folder), "-o", str(tmp_path / "grades.csv"))
    written = pd.read_csv(tmp_path / "grades.csv", keep_default_na=False)
    texts = written[["student", "outcome", "remarks"]].to_numpy().ravel()
    assert len(written) == 8 and not [x for x in texts if re.search(r"(^|[;,])\s*[=+\-@＝＋]", x)]
    assert bmnas("project", "score", str(folder), "-o", str(tmp_path / "g.xlsx")).exit_code == 2
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
    assert secret["data"] == tabular.data_hash(task)


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
        ({"seeds": []}, "two or more"),
        ({"seeds": [3]}, "two or more"),
        ({"seeds": 1}, "two or more"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1, 1]}, "0 or more"),
        ({"seeds": [0.5, 1]}, "an integer"),
        ({"data_seed": "x"}, "an integer"),
        ({"data_seed": 2031}, "at least 1,099,511,627,776, to stay secret"),
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
    known = given.runs[given.runs["seed"] < 2].sort_values("seed", kind="stable")
    (tmp_path / "in").mkdir()
    for kept in (known[:1200], known[:1950], known[:-2]):  # in place of an hour
        tabular._write(path, recipe, kept.to_dict("records"))
        with pytest.raises(project.ProjectError, match="of 1,950 architectures|one seed for each"):
            project.whole_table(folder)
    project.build_table(folder, table_seeds=2)
    built = project.whole_table(folder)
    assert len(built) == 1950 and built.recipe == recipe and len(built.runs) == 3900
    found = sorted(path.name for path in (folder / "lecturer" / "default").iterdir())
    assert found == ["seed-2.json", "seed-4.json"]

    shutil.copytree(folder / "lecturer" / "default", tmp_path / "in" / "as_default")
    for seed in (4, 2):
        built.best().save(tmp_path / "in" / "ada" / f"seed-{seed}.json")
    grades = score_submissions(tmp_path / "in", folder)
    assert grades.seeds == (4, 2)
    rows = grades.table.set_index("student")
    assert rows.loc["ada", "regret"] == 0 and rows.loc["as_default", "outcome"] == "level"
    assert rows.loc["as_default", "remarks"] == "the same as the default search"
    assert rows.loc["ada", "difference"] == pytest.approx(-np.mean(grades.default))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sum", "same"])
def test_a_table_of_another_rule_or_other_data_is_refused(variant, tmp_path, rule):
    folder = tmp_path / "p"
    shutil.copytree(variant / "made", folder)
    shutil.copy(bm.TabularBenchmark("digits", rule).path, folder / "lecturer" / "table.parquet")
    (tmp_path / "in" / "ada").mkdir(parents=True)
    with pytest.raises(project.ProjectError, match=f"a table of other data, of rule {rule}"):
        score_submissions(tmp_path / "in", folder)


@pytest.mark.slow
def test_a_table_is_built_of_the_features_that_were_handed_out_and_of_no_others(variant, tmp_path):
    shutil.copytree(variant / "made", tmp_path / "p")
    path = tmp_path / "p" / "lecturer" / "project.json"
    path.write_text(re.sub('"data": "....', '"data": "0000', path.read_text()))
    with pytest.raises(project.ProjectError, match="other features than those handed out"):
        project.build_table(tmp_path / "p")
    with pytest.raises(project.ProjectError, match="two or more"):
        project.build_table(tmp_path / "p", table_seeds=1)


def test_each_variant_announces_seeds_of_its_own(tmp_path):
    drawn = [project.drawn_seeds(5) for _ in range(2)]
    assert drawn[0] != drawn[1] and all(len({*seeds}) == 5 for seeds in drawn)
