"""No file from a stranger or a bad disk hangs a reader, fills memory or ends unclearly."""

import csv
import gzip
import json
import resource
import time
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGES, KINDS, NOISE, READERS, TABLE, damage, rows, what_happens
from hypothesis import given, settings
from hypothesis import strategies as st

import bmnas_core as bm
from bmnas_core.tasks import DataError
from bmnas_core.tasks.files import package

#: Seconds of a core and megabytes that any reader may take of a small file.
SECONDS, MEGABYTES = 20, 700


def most_memory() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@cache
def found() -> dict[tuple[str, str], str]:
    """What each reader does with each kind of damage."""
    return {(reader, kind): happens for reader, kind, happens in rows()}


def test_what_each_reader_does_is_what_the_committed_table_says():
    with open(TABLE, encoding="utf-8", newline="") as file:
        head, *listed = csv.reader(file)
    assert head == ["reader", "damage", "what happens"] and len(listed) >= 120
    said = {(reader, kind): happens.split(":")[0] for reader, kind, happens in listed}
    assert said == {key: happens.split(":")[0] for key, happens in found().items()}


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


@pytest.mark.parametrize("reader", READERS)
def test_a_whole_file_is_read(reader, whole):
    path, read = whole[reader]
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
        start, before = time.process_time(), most_memory()
        happens = what_happens(path, read)
        assert time.process_time() - start < SECONDS
        assert most_memory() - before < MEGABYTES
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
    with pytest.raises(DataError, match="clip.m3u8: found a file .m3u8; allowed: .avi, .mp4"):
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
