"""No file from a stranger or a bad disk hangs a reader, fills memory or ends unclearly."""

import csv
import gzip
import json
import math
import os
import re
import signal
import struct
import time
import zipfile
import zlib
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import DAMAGES, KINDS, NOISE, READERS, TABLE, damage, rows, what_happens
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_task

import bmnas_core as bm
from bmnas_core.autosave import work_in
from bmnas_core.baselines import read_settings
from bmnas_core.benchmark import tabular
from bmnas_core.experiments.folder import RunFolder
from bmnas_core.experiments.results import load_run
from bmnas_core.experiments.sweep import _read_record
from bmnas_core.locks import locked
from bmnas_core.tasks import DataError, DataWarning
from bmnas_core.tasks.files import package
from bmnas_core.tasks.paper import egogesture, mmimdb_films

#: Seconds and megabytes that any reader may take of a small file.
SECONDS, MEGABYTES = 20, 700


@contextmanager
def bounded(seconds: float = SECONDS, megabytes: float = MEGABYTES):
    """Fail if what is in this block takes longer, waits longer, or has more memory at a time."""

    def late(*_):
        raise TimeoutError(f"not within {seconds} s")

    own = Path("/proc/self")
    with suppress(OSError):
        (own / "clear_refs").write_text("5")  # forget how much there was before
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    start = memory("VmRSS")
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert memory("VmHWM") - start < megabytes


def memory(name: str) -> float:
    """Megabytes that this process has now, ``VmRSS``, or had at most, ``VmHWM``."""
    with suppress(OSError):
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
        return int(found[1]) / 1024
    return 0.0  # where the system does not say


@cache
def found() -> dict[tuple[str, str], str]:
    """What each reader does with each kind of damage."""
    return {(reader, kind): happens for reader, kind, happens in rows()}


@pytest.mark.slow
def test_what_each_reader_does_is_what_the_committed_table_says():
    with open(TABLE, encoding="utf-8", newline="") as file:
        head, *listed = csv.reader(file)
    assert head == ["reader", "damage", "what happens"] and len(listed) >= 120
    said = {(reader, kind): happens.split(":")[0] for reader, kind, happens in listed}
    assert said == {key: happens.split(":")[0] for key, happens in found().items()}
    page = TABLE.parents[2].joinpath("docs", "data.md").read_text("utf-8")
    assert f"[{len(READERS)} readers and {len(KINDS)} kinds of damage]" in page


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_refusal_is_one_short_line_that_names_the_file(reader):
    for kind in KINDS:
        happens = found()[reader, kind]
        if happens == "read":
            continue
        assert happens.startswith("refused: ") and ("FILE" in happens or "FOLDER" in happens), kind
        assert happens.isprintable() and len(happens) <= 300, (kind, happens)


def test_what_is_missing_cut_or_something_else_is_never_taken_for_the_file():
    exempt = {"labels as CSV", "labels as Parquet"}  # without labels there are features still
    exempt |= {"record of features"}  # without it they are made again
    for reader in set(READERS) - exempt:
        for kind in (
            "missing",
            "a folder",
            "a pipe",
            "empty",
            "cut to half",
            "zeros",
            "a web page",
        ):
            assert found()[reader, kind] != "read", (reader, kind)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Reader → a whole file, and how it is read."""
    made = {}
    for name, make in READERS.items():
        folder = tmp_path_factory.mktemp("whole")
        made[name] = make(folder)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_whole_file_is_read(reader, whole):
    path, read = whole[reader]
    assert what_happens(path, read) == "read"


@pytest.mark.slow
@pytest.mark.parametrize(
    "reader",
    ["genotype", "result", "sweep", "settings", "labels as CSV", "table of baselines",
     "settings tried", "table of strategies", "notebook", "run's record", "MM-IMDB's splits"],
)  # fmt: skip
def test_a_text_that_an_editor_of_windows_saved_is_read(reader, tmp_path):
    path, read = READERS[reader](tmp_path)
    text = "\ufeff" + path.read_text(encoding="utf-8").replace("\n", "\r\n")
    path.write_bytes(text.encode())
    assert what_happens(path, read) == "read"


def changes(size: int):
    """Up to four changes of a file's bytes: what, where, and how much of it."""
    kinds = st.sampled_from(["flip", "cut", "lose", "double", "noise", "swap", "digits"])
    one = st.tuples(kinds, st.integers(0, size), st.integers(1, max(1, size // 3)))
    return st.lists(one, min_size=1, max_size=4)


def changed(content: bytes, kind: str, at: int, much: int) -> bytes:
    before, part, after = content[:at], content[at : at + much], content[at + much :]
    return {
        "flip": before + bytes(b ^ 0x21 for b in part[:3]) + part[3:] + after,
        "cut": before,
        "lose": before + after,
        "double": before + part + part + after,
        "noise": before + NOISE[: len(part)] + after,
        "swap": after + part + before,
        # Large numbers in the place of others: what a header claims.
        "digits": before + bytes(0x39 if 0x30 <= b <= 0x39 else b for b in part) + after,
    }[kind]


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_change_is_refused_or_read_in_bounded_time(reader, whole, data):
    path, read = whole[reader]
    content = path.read_bytes()
    broken = content
    for kind, at, much in data.draw(changes(len(content))):
        broken = changed(broken, kind, at, much)
    try:
        path.write_bytes(broken)
        with bounded():
            happens = what_happens(path, read)
    finally:
        path.write_bytes(content)
    assert happens == "read" or happens.startswith("refused: ")
    assert happens.isprintable() and len(happens) <= 300, happens


# --- files that claim more than they hold, or hold more than they weigh


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bmnas_core.reading.MOST_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "all.npz", Video_1=np.zeros((1000, 2000)))
    assert (tmp_path / "all.npz").stat().st_size < 20_000
    with pytest.raises(DataError, match="all.npz: found no archive .*15 MB, packed in 15 KB"):
        bm.load_features(tmp_path / "all.npz")


def test_an_array_that_claims_more_than_there_is_is_refused(tmp_path):
    np.save(tmp_path / "Video_1.npy", np.zeros((20, 5)))
    content = (tmp_path / "Video_1.npy").read_bytes()
    claims = content.replace(b"(20, 5), }        ", b"(20000000, 50000), }")[: len(content)]
    (tmp_path / "Video_1.npy").write_bytes(claims)
    with pytest.raises(DataError, match="Video_1.npy: found no array"):
        bm.load_features(tmp_path / "Video_1.npy")


@pytest.fixture
def hdf5(tmp_path):
    """An HDF5 file of features to write to."""
    with package("h5py").File(tmp_path / "all.h5", "w") as file:
        file["Audio_1"] = np.ones((20, 6))
        yield file


def read_hdf5(hdf5, tmp_path) -> dict:
    hdf5.flush()
    hdf5.close()
    return bm.load_features(tmp_path / "all.h5")


def test_a_data_set_without_values_cannot_claim_any_size(hdf5, tmp_path):
    hdf5.create_dataset("Video_1", shape=(10**9, 300), dtype="f4", chunks=(1000, 300))
    message = "all.h5: data set '/Video_1': found 0 bytes for 1,200,000,000,000 of values; allowed"
    with pytest.raises(DataError, match=message):
        read_hdf5(hdf5, tmp_path)


def test_values_in_another_file_are_not_read(hdf5, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(800))
    external = [(str(tmp_path / "secret"), 0, 800)]
    hdf5.create_dataset("Video_1", shape=(20, 5), dtype="f8", external=external)
    with pytest.raises(DataError, match="'/Video_1': found values in another file; allowed: value"):
        read_hdf5(hdf5, tmp_path)


def test_a_virtual_data_set_is_not_read(hdf5, tmp_path):
    h5py = package("h5py")
    with h5py.File(tmp_path / "other", "w") as other:
        other["x"] = np.zeros((20, 5))
    layout = h5py.VirtualLayout((20, 5), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other"), "x", (20, 5))
    hdf5.create_virtual_dataset("Video_1", layout)
    with pytest.raises(DataError, match="'/Video_1': found values in another file; allowed: value"):
        read_hdf5(hdf5, tmp_path)


def test_links_to_other_files_are_not_followed(hdf5, tmp_path):
    h5py = package("h5py")
    with h5py.File(tmp_path / "other", "w") as other:
        other["x"] = np.zeros((20, 5))
    hdf5["Video_1"] = h5py.ExternalLink(str(tmp_path / "other"), "x")
    assert set(read_hdf5(hdf5, tmp_path)["features"]) == {"Audio"}


@pytest.mark.parametrize("name", ["images", "features", "genres", "imdb_ids"])
@pytest.mark.parametrize("how", ["link", "soft link to a link", "external"])
def test_films_in_another_file_are_not_read(tmp_path, name, how):
    h5py = package("h5py")
    path, _ = READERS["MM-IMDB's HDF5"](tmp_path)
    with h5py.File(tmp_path / "other", "w") as other, h5py.File(path, "a") as file:
        other["x"] = file[name][()]
        del file[name]
        if how == "external":
            (tmp_path / "raw").write_bytes(bytes(1 << 21))
            given = [(str(tmp_path / "raw"), 0, 1 << 21)]
            shape = {"images": (3, 3, 256, 160), "features": (3, 300), "genres": (3, 23)}
            file.create_dataset(name, shape.get(name, (3,)), "f4", external=given)
        else:
            place = "hidden" if how != "link" else name
            file[place] = h5py.ExternalLink(str(tmp_path / "other"), "x")
            if place != name:
                file[name] = h5py.SoftLink("/hidden")
    with pytest.raises(DataError, match="(no data set|values in another file|no whole HDF5)"):
        bm.load_task("mmimdb", data_root=tmp_path, sample=True)


def test_a_small_table_of_long_texts_is_refused(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setattr("bmnas_core.reading.MOST_BYTES", 1 << 20)
    pd.DataFrame({"label": ["x" * 10_000] * 5_000}).to_parquet(tmp_path / "labels.parquet")
    np.save(tmp_path / "Video_1.npy", np.zeros((5_000, 1)))
    assert (tmp_path / "labels.parquet").stat().st_size < 100_000
    with pytest.raises(DataError, match="labels.parquet: found no table .more than 1,048,576"):
        bm.load_features(tmp_path)


def genotype_text(features=("A_1", "B_1"), cells=1, steps=1) -> str:
    step = {"op": "sum", "inputs": ["X", "Y"]}
    one = {"inputs": ["A_1", "B_1"], "steps": [step] * steps}
    return json.dumps({"format": "bmnas-genotype/1", "features": features, "cells": [one] * cells})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (genotype_text(cells=65), "cells: found '65 Cells'; allowed: at most 64"),
        (genotype_text(cells=9000), "cells: found '9000 Cells'; allowed: at most 64"),
        (genotype_text(steps=65), r"cells\[0\].steps: found '65 steps'; allowed: at most 64"),
        (
            genotype_text([f"f{i}" for i in range(513)]),
            "features: found '513 names'; allowed",
        ),
        (genotype_text([f"f{i}" for i in range(90_000)]), "features: found '90000 names'; "),
        (
            genotype_text(["x" * 2_000_000]),
            "file: found 'more than 1,048,576 bytes'",
        ),
        ("[" * 900_000, "document: found 'very deep nesting'; allowed: a genotype"),
        (genotype_text()[:-1] + ', "cells": []}', "document: found 'field cells twice'; allowed"),
    ],
)
def test_a_genotype_of_any_size_is_refused_at_once(tmp_path, text, message):
    (tmp_path / "g.json").write_text(text)
    start = time.process_time()
    with pytest.raises(bm.GenotypeError, match=f"g.json: {message}"):
        bm.Genotype.load(tmp_path / "g.json")
    assert time.process_time() - start < 2  # seconds


def test_a_genotype_as_large_as_allowed_is_read(tmp_path):
    names = [f"A_{i}" for i in range(510)] + ["B_1"]
    (tmp_path / "g.json").write_text(genotype_text(names, cells=64, steps=64))
    found = bm.Genotype.load(tmp_path / "g.json")
    assert len(found.features) == 511 and len(found.cells) == len(found.cells[0].steps) == 64


# --- nothing outside the folder is read


@pytest.mark.parametrize(
    "name",
    ["../outside/Color/rgb1", "Subject01/../Color/rgb1", "./S/Color/rgb1", "a\\..\\b/S/Color/rgb1",
     "/etc/S/Color/rgb1", "Subject01/\x1b[2J/Color/rgb1", "\0/S/Color/rgb1"],
)  # fmt: skip
def test_an_annotation_cannot_climb_out_of_the_folder(tmp_path, name):
    path, read = READERS["EgoGesture's annotation"](tmp_path)
    content = json.loads(path.read_text())
    content["database"] = {name: next(iter(content["database"].values()))}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="gestures.json: .*: allowed: SubjectNN/SceneM/Color/rgbK"):
        read(path)


@pytest.mark.parametrize(
    "content", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n"]
)
def test_a_play_list_named_as_a_video_opens_no_other_file(tmp_path, content):
    video, read = READERS["video"](tmp_path)
    path = tmp_path / "list_rgb.avi"
    path.write_text(content.format(video))
    with pytest.raises(DataError, match="list_rgb.avi: found no video that can be decoded"):
        read(path)


def test_a_video_of_another_ending_is_refused(tmp_path):
    path = Path(tmp_path / "clip.m3u8")
    path.write_text("#EXTM3U\n")
    with pytest.raises(DataError, match="clip.m3u8: found a file .m3u8; allowed: .avi$"):
        READERS["video"](tmp_path)[1](path)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP", "EPS"])
def test_a_picture_asks_no_decoder_but_its_own(tmp_path, kind):
    path, read = READERS["frame"](tmp_path)
    package("PIL.Image").new("RGB", (64, 64)).save(path, format=kind)
    with pytest.raises(DataError, match="000001.jpg: found no picture that can be decoded"):
        read(path)


def test_a_picture_of_any_size_is_not_decoded(tmp_path):
    path, read = READERS["frame"](tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5  # height and width in the frame's header
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(DataError, match="000001.jpg: found .*(65535|decoded).*; allowed: "):
        read(path)


def test_links_that_the_owner_put_into_the_folder_are_followed(tmp_path):
    path, read = READERS["array"](tmp_path)
    other = tmp_path / "elsewhere" / "Audio_1.npy"
    other.parent.mkdir()
    path.rename(other)
    path.symlink_to(other)
    assert set(read(path)["features"]) == {"Video"}


def test_every_damage_changes_the_file():
    for kind, change in DAMAGES.items():
        assert change(b"0123456789" * 20) != b"0123456789" * 20, kind


def test_a_zip_of_weights_is_not_unpacked(tmp_path):
    path, read = READERS["others' weights"](tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data/0", bytes(50 << 20))
    with pytest.raises(bm.BmnasError, match="found compressed; allowed: as it is"):
        read(path)


def test_a_gzip_of_a_gigabyte_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("bmnas_core.reading.MOST_BYTES", 1 << 20)
    path, read = READERS["MNIST's file"](tmp_path)
    path.write_bytes(gzip.compress(bytes(30 << 20)))
    with pytest.raises(DataError, match="unpacks to more than 1,048,576 bytes"):
        read(path)


def test_damage_leaves_what_it_says(tmp_path):
    for kind in KINDS:
        path = tmp_path / kind.replace(" ", "_")
        path.write_bytes(b"abc")
        damage(path, kind)
        assert path.is_fifo() == (kind == "a pipe") and path.is_dir() == (kind == "a folder")


# --- tables with cells that no run writes


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("test", 1.5, "row 3: test: found 1.5; allowed: at most 1"),
        ("validation", -0.2, "row 3: validation: found -0.2; allowed: at least 0"),
        ("test", "nan", "row 3: test: found nothing; allowed: a finite number"),
        ("test", "inf", "row 3: test: found inf; allowed: a finite number"),
        ("test", "high", "row 3: test: found 'high'; allowed: a finite number"),
        ("params", -1, "row 3: params: found -1; allowed: a whole number, 0 or more"),
        ("params", 2.5, "row 3: params: found 2.5; allowed: a whole number, 0 or more"),
        ("params", 1e300, "row 3: params: found 1e.300; allowed: a whole number, 0 or more"),
        ("seconds", -3, "row 3: seconds: found -3; allowed: a number, 0 or more"),
        ("seed", "one", "row 3: seed: found 'one'; allowed: a whole number, 0 or more"),
        ("C", -8, "row 3: C: found -8.*; allowed: a number, 0 or more"),
        ("network", "x" * 201, "row 3: network: found 'xxx.*; allowed: printable text of 1 to 200"),
        ("network", "a\x1b[2Jb", r"row 3: network: found 'a\\x1b\[2Jb'; allowed: printable text"),
        ("network", "", "row 3: network: found nothing; allowed: printable text"),
        ("params", True, "row 3: params: found .*True.*; allowed: a whole number, 0 or more"),
        ("seed", 1, "row 3: found the network of an earlier row; allowed: each once"),
    ],
)
def test_a_table_of_baselines_with_a_wrong_cell_is_refused_by_its_row(
    tmp_path, column, value, message
):
    import pandas as pd

    path, read = READERS["table of baselines"](tmp_path)
    found = pd.read_csv(path).astype(object)
    found.loc[2, column] = value
    found.to_csv(path, index=False)
    with pytest.raises(bm.BmnasError, match=f"baselines.csv: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(seed=0), "row 2: found a genotype and seed twi"),
        (lambda rows: rows.assign(test=1.1), "row 1: test: found 1.1; allowed: at "),
        (
            lambda rows: rows.assign(test=np.nan),
            "row 1: test: found nothing; allowed: a finite num",
        ),
        (
            lambda rows: rows.assign(seconds=-1.0),
            "row 1: seconds: found -1.0; allowed: a number, 0",
        ),
        (
            lambda rows: rows.assign(curve=[[0.1, 2.0]] * len(rows)),
            "row 2: curve: found 2.0; allow",
        ),
        (
            lambda rows: rows.assign(curve=[[0.1, np.nan]] * len(rows)),
            "curve: found others; allowed",
        ),
        (
            lambda rows: rows.assign(curve=[[0.1]] * 8 + [[0.1, 0.2]]),
            "curve: found others; allowed",
        ),
        (lambda rows: rows.assign(curve=[[0.1] * 50] * 9), "curve: found 50 scores; allowed: 2, a"),
        (lambda rows: rows.assign(curve=[[]] * 9), "curve: found 0 scores; allowed: 2, after epo"),
        (lambda rows: rows.assign(seed=[True] * 9), "row 1: seed: found True; allowed: a whole n"),
        (
            lambda rows: rows.assign(curve=[["a"]] * len(rows)),
            "curve: found .*; allowed: scores aft",
        ),
        (
            lambda rows: rows.assign(genotype="{}"),
            "document: found 'no field format'; allowed: fie",
        ),
        (lambda rows: rows[:0], "found no rows; allowed: one for each"),
    ],
)
def test_a_tabular_benchmark_with_wrong_cells_is_refused(tmp_path, change, message):
    import pyarrow
    from pyarrow import parquet

    path, read = READERS["tabular benchmark"](tmp_path)
    columns = parquet.read_table(path)
    changed = pyarrow.Table.from_pandas(change(columns.to_pandas()), preserve_index=False)
    parquet.write_table(changed.replace_schema_metadata(columns.schema.metadata), path)
    with pytest.raises(bm.BmnasError, match=f"table.parquet: {message}"):
        read(path)


def test_an_error_is_one_line_whatever_it_quotes():
    error = bm.BmnasError("a\nb", "\x1b[2J\u2028\udc80", "é 日本 …")
    assert str(error) == r"a\nb: found \x1b[2J\u2028\udc80; allowed: é 日本 …"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"rule": [1]}, r"recipe.rule: found \[1\]; allowed: text"),
        ({"features": 5}, "recipe.features: found 5; allowed: a tuple"),
        ({"sampled": "yes"}, "recipe.sampled: found 'yes'; allowed: True or False"),
        ({"metric": "zzz"}, "recipe.metric: found 'zzz'; allowed: accuracy"),
        ({"config": {"C": -5}}, "recipe.config: TrainConfig.C: found -5; allowed: at least 1"),
        ({"config": {"max_lr": math.inf}}, "recipe.config: TrainConfig.max_lr: found inf"),
    ],
)
def test_a_tabular_benchmark_of_a_wrong_recipe_is_refused(tmp_path, recipe, message):
    path, read = READERS["tabular benchmark"](tmp_path)
    known, rows = tabular._read(path)
    tabular._write(path, known | recipe, rows.to_dict("records"))
    with pytest.raises(bm.BmnasError, match=f"table.parquet: {message}"):
        read(path)


@pytest.mark.parametrize("task", ["../" * 12 + "etc/outside", "/etc/outside", "a/../../b"])
def test_a_table_names_no_file_outside_the_kit(tmp_path, task):
    import pandas as pd

    path, read = READERS["table of strategies"](tmp_path)
    pd.read_csv(path).assign(task=task).to_csv(path, index=False)
    message = "strategies.csv: assets: found .*; allowed: the name of a file of the kit"
    with pytest.raises(bm.BmnasError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"C": 8}, {"Cx": 8}]', r"\[1\]: TrainConfig: found field 'Cx'"),
        ('[{"max_lr": Infinity}]', r"\[0\]: TrainConfig.max_lr: found inf; allowed: a fin"),
        ('[{"weight_decay": 1e999}]', r"\[0\]: TrainConfig.weight_decay: found inf"),
        ("[" + ",".join(["{}"] * 2000) + "]", "found 2,000 settings; allowed: at most 1000"),
        (" " * (2 << 20), "found no JSON .more than 1,048,576 bytes"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_file_and_entry(tmp_path, text, message):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(bm.BmnasError, match=f"settings.json: {message}"):
        read_settings(tmp_path / "settings.json")


# --- labels are what the file says, or nothing


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("label,split\ncat,train,\ndog,test,\n", ["cat", "dog"]),
        ("label\ncat,train\ndog,test\n", None),
        ("label,split\ncat,train,x\ndog,test,y\n", None),
    ],
)
def test_cells_beyond_the_head_are_empty_or_refused(tmp_path, text, labels):
    path, read = READERS["labels as CSV"](tmp_path)
    np.save(tmp_path / "Video_1.npy", np.zeros((2, 3)))
    path.write_text(text)
    if labels:
        assert read(path)["labels"].tolist() == labels
    else:
        with pytest.raises(DataError, match="labels.csv: found no table .rows of more cells than"):
            read(path)


@pytest.mark.parametrize("column", ["label", "label_a"])
def test_a_column_that_is_twice_there_is_refused(tmp_path, column):
    import pyarrow
    from pyarrow import parquet

    path, read = READERS["labels as Parquet"](tmp_path)
    twice = pyarrow.table([pyarrow.array([0, 1] * 10)] * 2, names=[column] * 2)
    parquet.write_table(twice, path)
    with pytest.raises(DataError, match=f"labels.parquet: columns: found '{column}' twice"):
        read(path)


@pytest.mark.parametrize("notes", [b"{}", b"[]", b'{"index_columns": 3}', b"\xff"])
def test_what_pandas_noted_in_a_table_does_not_matter(tmp_path, notes):
    from pyarrow import parquet

    path, read = READERS["labels as Parquet"](tmp_path)
    known = parquet.read_table(path)
    parquet.write_table(known.replace_schema_metadata({b"pandas": notes}), path)
    assert read(path)["labels"].tolist() == ["a", "b"] * 10


@pytest.mark.parametrize(
    ("reader", "text", "field"),
    [
        ("EgoGesture's annotation", '{"labels": [], "database": {}, "labels": []}', "labels"),
        ("MM-IMDB's splits", '{"train": [], "dev": [], "test": [], "train": []}', "train"),
        ("film of the raw archive", '{"plot": "a", "genres": [], "plot": "b"}', "plot"),
    ],
)
def test_a_field_that_is_twice_there_is_refused(tmp_path, reader, text, field):
    path, read = READERS[reader](tmp_path)
    path.write_text(text)
    with pytest.raises(DataError, match=f"{path.name}: found field {field} twice; allowed: each"):
        read(path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"direction": "sideways"}, "about.direction: found 'sideways'; allowed: "),
        ({"limits": [5, -5]}, "about.limits: found 5 and -5; allowed: a lower and a higher one"),
        ({"steps_per_epoch": -7}, "about.steps_per_epoch: found -7; allowed: 1 or more"),
    ],
)
def test_a_history_of_a_search_that_cannot_be_is_refused(tmp_path, about, message):
    path, read = READERS["history"](tmp_path)
    found = read(path)
    found.about |= about
    found.save(path)
    with pytest.raises(bm.BmnasError, match=f"history.safetensors: {message}"):
        read(path)


def test_a_history_of_scores_that_cannot_be_is_refused(tmp_path):
    search = bm.Search(tiny_task(), bm.SearchConfig(epochs=1, selection="argmax"), device="cpu")
    history = bm.SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    history.about["limits"] = [-1.0, -0.5]
    history.save(tmp_path / "h.safetensors")
    message = "h.safetensors: validation scores: found one of .*; allowed: -1.0 to -0.5"
    with pytest.raises(bm.BmnasError, match=message):
        bm.SearchHistory.load(tmp_path / "h.safetensors")


# --- small files that would take hours, or all memory


def hdf5_bomb(folder: Path, how: str) -> Path:
    h5py, path = package("h5py"), folder / "all.h5"
    with h5py.File(path, "w") as file:
        if how == "many empty sets":
            for i in range(40):
                file.create_dataset(f"V_{i + 1}", (1000, 60_000), "f4", chunks=(1000, 600))
        elif how == "one text many times":
            texts = file.create_dataset("Video_1", (1500, 1), h5py.string_dtype())
            texts[0, 0] = "x" * 1_000_000
            at = texts.id.get_offset()
        elif how == "a huge chunk":
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((200_000_000, 5))
            plan.set_deflate(9)
            space = h5py.h5s.create_simple((20, 5), (h5py.h5s.UNLIMITED, 5))
            made = h5py.h5d.create(file.id, b"Video_1", h5py.h5t.NATIVE_INT8, space, plan)
            made.write_direct_chunk((0, 0), zlib.compress(bytes(1_000_000_000)))
        else:
            file["Video_1"], file["t"] = np.ones((20, 5)), np.dtype("f4")
    if how == "one text many times":
        content = bytearray(path.read_bytes())
        content[at : at + 16 * 1500] = bytes(content[at : at + 16]) * 1500
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("how", ["many empty sets", "one text many times", "a huge chunk"])
@pytest.mark.slow
def test_an_hdf5_file_cannot_fill_the_memory(tmp_path, how, monkeypatch):
    path = hdf5_bomb(tmp_path, how)
    with bounded(), pytest.raises(DataError, match=r"all.h5: .*found .*(MB|characters|chunks)"):
        bm.load_features(path)


def test_a_type_in_an_hdf5_file_is_no_array(tmp_path):
    assert set(bm.load_features(hdf5_bomb(tmp_path, "a type"))["features"]) == {"Video"}


def test_rows_that_a_file_of_films_claims_are_counted_before_they_are_listed(tmp_path):
    path, _ = READERS["MM-IMDB's HDF5"](tmp_path)
    (tmp_path / "split.json").unlink()
    kind = [("split", "S5"), ("source", "S8"), ("start", "i8"), ("stop", "i8")]
    sources = "images", "features", "genres"
    rows = [(split, one, 0, 10**9) for split in ("train", "dev", "test") for one in sources]
    with package("h5py").File(path, "a") as file:
        file.attrs["split"] = np.array(rows, kind)
    message = "split': 'train': found row 999999999; allowed: 0 … 2"
    with bounded(5), pytest.raises(DataError, match=message):
        bm.load_task("mmimdb", data_root=tmp_path, sample=True)


@pytest.mark.parametrize("indices", ["a name", "a group"])
def test_rows_may_be_in_a_table_of_the_file_alone(tmp_path, indices):
    h5py = package("h5py")
    path, _ = READERS["MM-IMDB's HDF5"](tmp_path)
    (tmp_path / "split.json").unlink()
    os.mkfifo(tmp_path / "pipe")
    which = h5py.string_dtype() if indices == "a name" else h5py.ref_dtype
    kind = [("split", "S5"), ("source", "S8"), ("start", "i8"), ("stop", "i8"), ("indices", which)]
    sources = "images", "features", "genres"
    with h5py.File(path, "a") as file:
        file["outside"] = h5py.ExternalLink(str(tmp_path / "pipe"), "x")
        given = "outside" if indices == "a name" else file.create_group("g").ref
        splits = enumerate(("train", "dev", "test"))
        rows = [(split, one, k, k + 1, given) for k, split in splits for one in sources]
        file.attrs["split"] = np.array(rows, kind)
    with bounded(5), pytest.raises(DataError, match="indices: found .*; allowed: a reference to a"):
        bm.load_task("mmimdb", data_root=tmp_path, sample=True)


def test_fields_that_are_repeated_everywhere_are_found_at_once(tmp_path):
    path, read = READERS["settings"](tmp_path)
    path.write_text("[" + ",".join(['{"C":1,"C":2}'] * 60_000) + "]")
    with bounded(5), pytest.raises(bm.BmnasError, match=r"found field \[0\].C twice"):
        read(path)


def test_dictionaries_in_each_other_are_looked_into_once(tmp_path):
    path, read = READERS["others' weights"](tmp_path)
    inner = {f"a{i}": 1 for i in range(100)}
    for _ in range(5):
        inner = {f"a{i}": inner for i in range(100)}
    torch.save(inner, path)
    with bounded(5), pytest.raises(bm.BmnasError, match="weights.pth: found 'a0': dict without te"):
        read(path)


def test_a_cell_of_thousands_of_parameters_is_read_at_once(tmp_path):
    import nbformat

    path, read = READERS["notebook"](tmp_path)
    nb = nbformat.read(path, 4)
    (cell,) = (c for c in nb.cells if "parameters" in c.metadata.get("tags", ()))
    cell.source = "\n".join(f"a{i} = 1  # the {i}th" for i in range(10_000))
    nbformat.write(nb, path)
    with bounded():
        assert read(path)["a77"].help == "the 77th"


def test_a_notebook_of_millions_of_objects_is_refused(tmp_path):
    path, read = READERS["notebook"](tmp_path)
    path.write_text('{"metadata": {"x": [' + ",".join(["{}"] * 1_000_000) + "]}}")
    with (
        bounded(5),
        pytest.raises(bm.BmnasError, match="found no notebook .*1,000,002 objects, mor"),
    ):
        read(path)


def test_a_picture_of_many_scans_is_refused(tmp_path):
    path, read = READERS["frame"](tmp_path)
    picture = package("PIL.Image").new("L", (6000, 6000), 128)
    picture.save(path, "JPEG", progressive=True)
    content = path.read_bytes()
    end, last = content.rindex(b"\xff\xd9"), content.rindex(b"\xff\xda")
    path.write_bytes(content[:end] + content[last:end] * 5000 + content[end:])
    with bounded(5), pytest.raises(DataError, match="found 5,0.. scans; allowed: 100 at most"):
        read(path)


def test_frames_larger_than_the_first_one_are_not_decoded(tmp_path):
    """An AVI of MJPEG pictures, the last of which is larger than any video's."""
    av, image = package("av"), package("PIL.Image")
    path, read = READERS["video"](tmp_path)
    parts = []
    for size in [(64, 48)] * 20 + [(12_000, 12_000)] * 3:
        image.new("L", size, 128).save(tmp_path / "x.jpg", "JPEG")
        parts.append((tmp_path / "x.jpg").read_bytes())
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for k, part in enumerate(parts):
            packet = av.Packet(part)
            packet.stream, packet.pts, packet.dts = stream, k, k
            packet.time_base = Fraction(1, 30)
            file.mux(packet)
    with bounded(megabytes=300):
        assert what_happens(path, read).startswith(("refused: FILE: found", "read"))


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_packed_in_an_unusual_way_are_refused(tmp_path, packing):
    path, read = READERS["arrays"](tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((1000, 1000)))
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.write(tmp_path / "x.npy", "Video_1.npy")
    with pytest.raises(
        DataError, match="found no archive of arrays .'Video_1.npy', packed in an un"
    ):
        read(path)


def test_what_would_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path, read = READERS["arrays"](tmp_path)
    monkeypatch.setattr("bmnas_core.tasks.files.half_of_memory", lambda: 1000)
    with pytest.raises(DataError, match="found no archive of arrays .0 MB to unpack, of which 0"):
        read(path)


def test_other_members_of_an_archive_are_refused(tmp_path):
    path, read = READERS["arrays"](tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
    with pytest.raises(
        DataError, match="all.npz: 'README.txt': found no array; allowed: arrays al"
    ):
        read(path)


def test_a_file_full_of_holes_is_not_read_into_memory(tmp_path):
    path = tmp_path / "text_000000.npy"
    with open(path, "wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (1_500_000, 300)}
        np.lib.format.write_array_header_1_0(file, about)
        file.truncate(file.tell() + 1_800_000_000)
    with (
        bounded(5, 100),
        pytest.raises(DataError, match="1,800,000,000 bytes of values, more than"),
    ):
        mmimdb_films._plot(path)


@pytest.mark.slow
def test_a_table_of_few_long_cells_is_refused(tmp_path):
    import pandas as pd

    path, read = READERS["labels as Parquet"](tmp_path)
    pd.DataFrame({"label": ["x" * 150_000_000] * 2}).to_parquet(path)
    with bounded(), pytest.raises(DataError, match="found no table .more than 268,435,456 bytes"):
        read(path)


def test_a_table_of_empty_rows_is_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path, read = READERS["labels as Parquet"](tmp_path)
    parquet.write_table(pyarrow.table({"label": pyarrow.nulls(20_000_000)}), path)
    assert path.stat().st_size < 100_000
    with bounded(), pytest.raises(DataError, match="20,000,000 rows, more than 10,000,000"):
        read(path)


def test_a_table_of_a_million_columns_is_refused(tmp_path):
    path, read = READERS["labels as CSV"](tmp_path)
    path.write_text("label" + "," * 1_000_000 + "\n")
    with bounded(5), pytest.raises(DataError, match="1,000,001 columns, more than 10,000"):
        read(path)


@pytest.mark.parametrize("axes", [5, 255])
def test_an_idx_file_of_many_axes_is_refused(tmp_path, axes):
    path, read = READERS["MNIST's file"](tmp_path)
    path.write_bytes(b"\x00\x00\x08" + bytes([axes]) + (1).to_bytes(4, "big") * axes + b"a")
    with pytest.raises(DataError, match=f"found {axes} axes; allowed: at most 4"):
        read(path)


def test_tensors_of_impossible_shapes_are_refused(tmp_path):
    path, read = READERS["safetensors of arrays"](tmp_path)
    for name, shape in {"Video_1": [0, 2**64 - 1], "9" * 5000: [0]}.items():
        head = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
        path.write_bytes(struct.pack("<Q", len(head)) + head)
        assert what_happens(path, read).startswith(("refused: FILE", "read"))


def test_a_genotype_of_many_equal_steps_is_compared_in_seconds():
    steps = [bm.StepGenotype("sum", ("X", "Y"))]
    for j in range(59):
        steps.append(bm.StepGenotype("sum", ("X", f"S{j // 2 + 1}")))
    cells = (bm.CellGenotype(("A_1", "B_1"), tuple(steps)),) * 16
    with bounded():
        bm.Genotype(("A_1", "B_1"), cells).canonical()


def test_a_published_genotype_of_thousands_of_steps_is_refused_at_once():
    inner = f"inner_edges={[('skip', 0)] * 8000}, inner_steps={['Sum'] * 4000}, inner_concat=[2]"
    text = f"Genotype(edges=[('skip', 0), ('skip', 1)], steps=[StepGenotype({inner})], concat=[2])"
    message = r"steps\[0\].inner_steps: found '4000 steps'; allowed: at most 64"
    with bounded(5), pytest.raises(bm.GenotypeError, match=message):
        bm.Genotype.from_published(text, ("A_1", "B_1"))


def test_unknown_names_of_a_sample_are_refused_before_it_is_drawn(tmp_path):
    path, read = READERS["sweep"](tmp_path)
    names = "".join(f"    x{i}: [1, 2]\n" for i in range(800))
    path.write_text(f"notebook: a.ipynb\nrandom:\n  count: 10000\n  parameters:\n{names}")
    with bounded(5), pytest.raises(bm.BmnasError, match="found no parameter 'x0'"):
        read(path)


def test_frames_that_an_annotation_claims_are_counted_at_once(tmp_path):
    reader = egogesture.FrameReader(tmp_path, (("c", 0, 999_999),) * 200, 3, 32, 112)
    (tmp_path / "c").mkdir()
    with bounded(5):
        for item in range(200):
            with pytest.raises(DataError, match="found no 000000.jpg and 999,999 more; allowed: f"):
                reader.look(item)


# --- a stranger's folder changes nothing outside it


def strange_run(folder: Path) -> Path:
    path, _ = READERS["run's record"](folder)
    path.write_text(path.read_text().replace('"done"', '"running"'))
    return folder


def test_to_ask_whether_a_run_is_running_writes_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    run = strange_run(tmp_path / "run")
    (tmp_path / "precious").write_text("mine")
    (run / ".lock.owner").symlink_to(tmp_path / "precious")
    assert load_run(run)["status"] == "killed"
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("what", ["a link", "a pipe", "a folder"])
def test_whoever_locks_a_folder_writes_to_no_file_outside_it(tmp_path, what):
    (tmp_path / "precious").write_text("mine")
    owner = tmp_path / "run" / ".lock.owner"
    owner.parent.mkdir()
    if what == "a link":
        owner.symlink_to(tmp_path / "precious")
    elif what == "a pipe":
        os.mkfifo(owner)
    else:
        owner.mkdir()
    run = tmp_path / "run"
    refused = pytest.raises(bm.BmnasError, match="found it in use .*by")
    with bounded(5), locked(run), refused, locked(run):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_files_of_another_folder_are_not_taken_back_through_a_link(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    (run / ".earlier").symlink_to(other)
    assert RunFolder(run, "a.ipynb", "x", {}).begin(resume=False)
    assert (other / "thesis.tex").read_text() == "mine" and not (run / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "..", "a/b", "", "a\x1b[2J"])
def test_a_sweep_names_no_run_outside_its_folder(tmp_path, name):
    path, read = READERS["sweep's record"](tmp_path)
    content = json.loads(path.read_text())
    content["runs"] = {name: content["runs"]["seed=3"]}
    path.write_text(json.dumps(content))
    for reader in (read, lambda path: _read_record(path)):
        with pytest.raises(bm.BmnasError, match="sweep.json: runs.*found .*; allowed: a folder's"):
            reader(path)


def test_pipes_among_what_a_run_keeps_are_passed_over(tmp_path):
    os.mkfifo(tmp_path / "search-0123-0.safetensors")
    (tmp_path / "training-0123-0.safetensors").write_bytes(NOISE)
    with bounded(5):
        assert work_in(tmp_path) == 0


def test_a_warning_is_one_line_without_control_characters():
    text = "a\x1b]0;owned\x07\nb"
    assert str(DataWarning(text)) == r"a\x1b]0;owned\x07\nb"


@pytest.mark.parametrize(
    "text",
    [
        genotype_text([f"a_long_name_{i}" for i in range(300)]),
        genotype_text().replace('"cells"', f'"{"e" * 3000}"'),
        genotype_text().replace("sum", "s" * 3000),
    ],
)
def test_an_error_about_a_long_genotype_is_short(tmp_path, text):
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(bm.GenotypeError) as error:
        bm.Genotype.load(tmp_path / "g.json")
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
