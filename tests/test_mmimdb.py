"""MM-IMDB: both layouts of the real data, malformed files, and the synthetic sample."""

import json
import os
import pickle
import shutil
import warnings

import h5py
import numpy as np
import pytest
import torch

from bmnas_core import DataError, DataNotice, TaskError, load_task
from bmnas_core.backbones.paper import CheckpointError, save_checkpoint
from bmnas_core.metrics import weighted_f1
from bmnas_core.runtime import generator
from bmnas_core.tasks import DATA_SETS, DataWarning, files
from bmnas_core.tasks.inputs import load
from bmnas_core.tasks.paper.common import DEVIATION, MEAN
from bmnas_core.tasks.paper.mmimdb_films import (
    HDF5,
    SPLIT,
    SPLITS,
    read_films,
)
from bmnas_core.tasks.paper.mmimdb_posters import SCALES, PosterReader, scale_of
from bmnas_core.tasks.paper.samples import posters

GENRES = list(posters.GENRES)
SIZES = {"train": 6, "dev": 3, "test": 4}
N = sum(SIZES.values())


@pytest.fixture(scope="session")
def sample_folder(shared_folder):
    """The sample's files. Tests must not write to them."""
    return shared_folder("posters", posters.make)


@pytest.fixture
def sample_task(sample_folder, monkeypatch):
    monkeypatch.setattr(files, "cached_folder", lambda name, make: sample_folder)
    return load_task("mmimdb", sample=True)


def contents() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    genres = random.integers(0, 2, (N, 23)).astype("int32")
    genres[1] = 0
    return {
        "images": random.integers(0, 256, (N, 3, 256, 160)).astype("int32"),
        "features": random.normal(size=(N, 300)).astype("float32"),
        "genres": genres,
        "imdb_ids": np.array([f"{i:07d}" for i in range(100, 100 + N)], "S7"),
        "vgg_features": np.zeros((N, 5), "float32"),
    }


def split_table(**changes) -> np.ndarray:
    """Where each split is, as Fuel stores it; ``changes``: split → (start, stop)."""
    kinds = [
        ("split", "S5"), ("source", "S12"), ("start", "i8"), ("stop", "i8"),
        ("indices", h5py.special_dtype(ref=h5py.Reference)), ("available", "?"), ("comment", "S1"),
    ]  # fmt: skip
    rows, start = [], 0
    for split, size in SIZES.items():
        first, last = changes.get(split, (start, start + size))
        for source in contents():
            rows.append(
                (split.encode(), source.encode(), first, last, h5py.Reference(), True, b".")
            )
        start += size
    return np.array(rows, kinds)


def ids_by_split() -> dict[str, list[str]]:
    ids = iter(contents()["imdb_ids"].astype(str).tolist())
    return {split: [next(ids) for _ in range(size)] for split, size in SIZES.items()}


def write_hdf5(folder, data=None, *, names=GENRES, table=None, split=None):
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / HDF5, "w") as file:
        for name, values in (contents() if data is None else data).items():
            file[name] = values
        if names is not None and "genres" in file:
            file["genres"].attrs["target_names"] = json.dumps(names)
        file.attrs["split"] = split_table() if table is None else table
    if split is not None:
        (folder / SPLIT).write_text(split if isinstance(split, str) else json.dumps(split))
    return folder


def write_npy(folder, data=None):
    data, row = contents() if data is None else data, 0
    for split, size in SIZES.items():
        (folder / split).mkdir(parents=True)
        for i in range(size):
            np.save(folder / split / f"image_{i:06d}.npy", data["images"][row])
            np.save(folder / split / f"text_{i:06d}.npy", data["features"][row])
            np.save(folder / split / f"label_{i:06d}.npy", data["genres"][row])
            row += 1
    return folder


def reader_of(source, **how) -> PosterReader:
    return PosterReader(source, scale_of(source), **how)


def normalised(image: np.ndarray) -> torch.Tensor:
    rgb = torch.tensor(image) / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    return (rgb - mean) / deviation


# --- the two layouts


@pytest.mark.parametrize("layout", ["split attribute", "split.json", "npy folders"])
def test_a_task_is_the_same_from_either_layout(tmp_path, layout):
    if layout == "npy folders":
        folder = write_npy(tmp_path / "data")
    elif layout == "split.json":
        folder = write_hdf5(tmp_path / "data", split=ids_by_split())
    else:
        folder = write_hdf5(tmp_path / "data")
    task = load_task("mmimdb", data_root=str(folder))
    data = contents()
    image, text = task.modalities
    assert len(image.inputs) == len(text.inputs) == N
    row = 0
    for split, size in SIZES.items():
        found = task.split(SPLITS[split])
        assert found.index.tolist() == [[row + i] * 2 for i in range(size)]
        assert found.labels.tolist() == data["genres"][row : row + size].tolist()
        row += size
    assert torch.equal(text.inputs, torch.from_numpy(data["features"]))
    for item in (0, N - 1):
        torch.testing.assert_close(image.inputs[item], normalised(data["images"][item]))
    assert task.notes["genres"] == tuple(GENRES) and task.notes["left out"] == 0


def test_the_full_task_has_the_papers_settings_and_backbones(tmp_path):
    task = load_task("mmimdb", data_root=write_hdf5(tmp_path / "data"))
    assert (task.config.C, task.config.L, task.config.N, task.config.M) == (192, 16, 2, 1)
    assert (task.config.epochs, task.config.batch_size, task.config.dropout) == (12, 96, 0.1)
    assert task.metric == "weighted_f1" and task.classes == 23
    images = {f"Image_{i}": 512 for i in (1, 2, 3, 4)}
    assert task.channels == images | {"Text_1": 64, "Text_2": 128}
    assert task.modalities[0].inputs[0].shape == (3, 256, 160)


def test_split_json_replaces_the_files_own_splits_and_fixes_the_order(tmp_path):
    ids = ids_by_split()
    ids["dev"], ids["test"] = ids["test"][::-1], ids["dev"]
    films = read_films(write_hdf5(tmp_path / "data", split=ids))
    assert films.sizes == (6, 4, 3)
    assert films.posters.rows == (0, 1, 2, 3, 4, 5, 12, 11, 10, 9, 6, 7, 8)
    assert torch.equal(films.plots[6], torch.from_numpy(contents()["features"][12]))


def test_a_split_may_be_a_list_of_rows(tmp_path):
    folder = write_hdf5(tmp_path / "data")
    with h5py.File(folder / HDF5, "a") as file:
        file["dev_rows"] = np.array([8, 6])
        table = split_table()
        for entry in table:
            if entry["split"] == b"dev":
                entry["indices"] = file["dev_rows"].ref
        file.attrs["split"] = table
    assert read_films(folder).posters.rows[6:8] == (8, 6)


def test_of_27_genres_the_papers_23_are_kept(tmp_path):
    data = contents()
    names = ["News", *GENRES[:5], "Adult", "Talk-Show", *GENRES[5:], "Reality-TV"]
    wide = np.ones((N, 27), "int32")
    wide[:, [names.index(genre) for genre in GENRES]] = data["genres"]
    films = read_films(write_hdf5(tmp_path / "data", data | {"genres": wide}, names=names))
    assert films.genres.tolist() == data["genres"].tolist() and films.names == tuple(GENRES)


def test_a_film_may_have_no_genre(tmp_path):
    assert read_films(write_hdf5(tmp_path / "data")).genres[1].sum() == 0


def test_a_plot_may_be_the_vectors_of_its_words(tmp_path):
    folder = write_npy(tmp_path / "data")
    words = np.random.default_rng(1).normal(size=(7, 300))
    np.save(folder / "train" / "text_000002.npy", words)
    np.testing.assert_allclose(read_films(folder).plots[2], words.mean(0), atol=1e-6)


# --- posters


def as_the_authors_wrote(images: np.ndarray) -> np.ndarray:
    less = np.array([103.939, 116.779, 123.68])[:, None, None]
    return (images[:, ::-1] - less).astype("int32")


@pytest.mark.parametrize("write", [write_hdf5, write_npy])
def test_posters_in_blue_green_red_minus_their_means_are_recognised_and_restored(tmp_path, write):
    data = contents()
    folder = write(tmp_path / "data", data | {"images": as_the_authors_wrote(data["images"])})
    reader = reader_of(read_films(folder).posters)
    assert reader.scale.name == "BGR less mean"
    for item in (0, 12):
        found, wanted = reader(item), normalised(data["images"][item])
        assert (found - wanted).abs().max() < 1 / 255 / min(DEVIATION)


def test_raw_posters_are_the_numbers_in_the_file(tmp_path):
    images = as_the_authors_wrote(contents()["images"])
    folder = write_hdf5(tmp_path / "data", contents() | {"images": images})
    task = load_task("mmimdb", data_root=folder, raw=True)
    assert torch.equal(task.modalities[0].inputs[3], torch.tensor(images[3]).float())


def test_each_pixel_of_a_shrunken_poster_is_a_mean(tmp_path):
    films = read_films(write_hdf5(tmp_path / "data"))
    small = reader_of(films.posters, shrink=4)(2)
    whole = normalised(contents()["images"][2])
    torch.testing.assert_close(small, whole.reshape(3, 64, 4, 40, 4).mean((2, 4)))


def test_augmentation_mirrors_and_shifts_and_depends_on_its_generator_alone(tmp_path):
    reader = reader_of(read_films(write_hdf5(tmp_path / "data")).posters)
    whole, mirrored, shifts = reader(0), 0, set()
    for seed in range(20):
        poster = reader(0, generator(seed, "augmentation"))
        assert poster.shape == whole.shape
        assert torch.equal(poster, reader(0, generator(seed, "augmentation")))
        inner = poster[:, 8:-8, 8:-8]
        for flip, source in enumerate((whole, whole.flip(2))):
            for down in range(17):
                for right in range(17):
                    corner = source[:, down : down + 240, right : right + 144]
                    if torch.equal(corner, inner):
                        mirrored += flip
                        shifts.add((down - 8, right - 8))
    assert 3 < mirrored < 17 and len(shifts) > 15
    assert max(abs(s) for pair in shifts for s in pair) <= 8


def test_posters_are_read_in_other_processes_even_after_the_file_was_opened_here(tmp_path):
    inputs = reader_of(read_films(write_hdf5(tmp_path / "data")).posters).inputs()
    inputs[0]  # the file was open here before
    batches = [(torch.tensor(n), torch.tensor(n)[:, None]) for n in ([1, 2], [3])]
    for found, (_, items) in zip(load([inputs], batches, workers=2), batches, strict=True):
        assert torch.equal(found.inputs[0], inputs[items[:, 0]])
    assert torch.equal(pickle.loads(pickle.dumps(inputs))[4], inputs[4])


def test_the_version_of_inputs_depends_on_all_that_determines_them(tmp_path):
    folder = write_hdf5(tmp_path / "data", split=ids_by_split())

    def version(**how):
        return reader_of(read_films(folder).posters, **how).inputs().version

    found = {version(), version(shrink=4), version(raw=True)}
    ids = ids_by_split()
    ids["dev"].reverse()
    (folder / SPLIT).write_text(json.dumps(ids))
    assert len(found | {version()}) == 4 and version() == version()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda image: image + 100,
            "found numbers 100 … 355; allowed: a poster on the scale '0 to",
        ),
        (lambda image: image * 1.0 * np.nan, "found numbers nan … nan; allowed: a poster on the"),
        (
            lambda image: image / 255,
            "found numbers 0 … 1; allowed: a poster on the scale '0 to 255'",
        ),
        (lambda image: image / 127.5 - 1, "found numbers -1 … 1; allowed: a poster on the scale"),
        (lambda image: 3 + image / 255, "found numbers 3 … 4; allowed: a poster on the scale '0 t"),
    ],
)
@pytest.mark.parametrize("write", [write_hdf5, write_npy])
def test_one_poster_on_another_scale_is_refused_when_it_is_read(tmp_path, change, message, write):
    images = contents()["images"].astype("float32")
    images[2] = change(images[2])
    folder = write(tmp_path / "data", contents() | {"images": images})
    inputs = reader_of(read_films(folder).posters).inputs()
    place = r"image_000002.npy" if write is write_npy else r"images\[2\]"
    with pytest.raises(DataError, match=f"{place}: {message}"):
        inputs[2]
    assert inputs[1].std() > 0.9  # and the others are read


def test_a_black_poster_is_a_poster(tmp_path):
    images = contents()["images"]
    images[2] = 0
    inputs = reader_of(
        read_films(write_hdf5(tmp_path / "data", contents() | {"images": images})).posters
    )
    assert torch.allclose(inputs(2)[:, 0, 0], -torch.tensor(MEAN) / torch.tensor(DEVIATION))


def on_scale(name: str, images: np.ndarray) -> np.ndarray:
    """Posters of levels in 0 … 255 as people write them."""
    mean, deviation = (np.array(v)[:, None, None] for v in (MEAN, DEVIATION))
    less = np.array([123.68, 116.779, 103.939])[:, None, None]
    return {
        "0 to 255": images,
        "BGR less mean": (images - less)[:, ::-1],
        "RGB less mean": images - less,
        "0 to 1": images / 255,
        "-1 to 1": images / 127.5 - 1,
        "ImageNet": (images / 255 - mean) / deviation,
        "0 to 1 less mean": images / 255 - mean,
    }[name]


def pictures(dark: int = 0, bright: int = 255) -> np.ndarray:
    """Posters with soft shades between two levels, other ones in each colour."""
    y, x = np.mgrid[0:256, 0:160]
    shades = [(y + (k + 1) * x + 40 * c) % 256 / 255 for k in range(N) for c in range(3)]
    shades = np.reshape(shades, (N, 3, 256, 160))
    return (dark + (bright - dark) * shades).round()


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("levels", [(0, 255), (0, 140), (60, 255)], ids=["full", "dark", "bright"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.slow
def test_posters_are_recognised_on_any_scale_and_look_the_same(tmp_path, name, levels, dtype):
    images = pictures(*levels)
    folder = write_npy(
        tmp_path / "data", contents() | {"images": on_scale(name, images).astype(dtype)}
    )
    reader = reader_of(read_films(folder).posters)
    assert reader.scale is SCALES[name]
    for item in (0, 12):
        found, wanted = reader(item), normalised(images[item])
        rounding = 1e-4 if dtype != "float16" else 1 / 255 / min(DEVIATION)
        assert (found - wanted).abs().max() < rounding and found.std() > 0.4


def test_an_unusual_scale_is_named_and_another_can_be_given(tmp_path):
    images = on_scale("0 to 1", pictures()).astype("float32")
    folder = write_npy(tmp_path / "data", contents() | {"images": images})
    with pytest.warns(
        DataNotice, match="found posters on the scale '0 to 1'; scale=NAME reads ano"
    ):
        task = load_task("mmimdb", data_root=folder, sample=True)
    assert task.notes["scale"] == "0 to 1" and task.modalities[0].inputs[0].std() > 0.9
    task = load_task("mmimdb", data_root=folder, sample=True, scale="-1 to 1")
    assert task.notes["scale"] == "-1 to 1"
    assert task.modalities[0].inputs[0].min() > 0  # grey to white, as was said
    with pytest.raises(
        TaskError, match="scale: found '0 to 2'; allowed: '0 to 255', 'BGR less mean'"
    ):
        load_task("mmimdb", data_root=folder, scale="0 to 2")


@pytest.mark.parametrize("other", ["0 to 1", "-1 to 1", "ImageNet", "nothing"])
def test_posters_on_no_one_scale_are_refused(tmp_path, other):
    images = pictures().astype("float32")
    images[::2] = on_scale(other, images)[::2] if other != "nothing" else 1000 * images[::2]
    folder = write_npy(tmp_path / "data", contents() | {"images": images})
    with pytest.raises(
        DataError, match="12 other posters: found numbers .*; allowed: scale=, one of '0"
    ):
        load_task("mmimdb", data_root=folder, sample=True)


CLIP = np.array([[0.481, 0.458, 0.408], [0.269, 0.261, 0.276]])[..., None, None]
#: Posters as somebody may have written them that are on none of the scales.
UNKNOWN = {
    "centred": lambda u: u / 255 - 0.5,
    "normalised for CLIP": lambda u: (u / 255 - CLIP[0]) / CLIP[1],
    "0 to 1 cut to whole numbers": lambda u: (u / 255).astype(np.uint8),
    "0 to 1 rounded": lambda u: (u / 255).round().astype(np.int64),
    "-1 to 1 cut to whole numbers": lambda u: (u / 127.5 - 1).astype(np.int8),
    "0 to 65535": lambda u: (u * 257).astype(np.uint16),
}


@pytest.mark.parametrize("how", UNKNOWN)
def test_posters_on_a_scale_that_is_not_known_are_refused(tmp_path, how):
    images = UNKNOWN[how](pictures())
    images = images if images.dtype.kind in "iu" else images.astype("float32")
    folder = write_npy(tmp_path / "data", contents() | {"images": images})
    with pytest.raises(DataError, match="12 other posters: found numbers .*; allowed: scale=, on"):
        load_task("mmimdb", data_root=folder, sample=True)


def test_levels_a_little_beyond_black_and_white_are_cut_off(tmp_path):
    images = on_scale("0 to 1", pictures()).astype("float32")
    images[:, :, 0, 0], images[:, :, 0, 1] = -0.015, 1.02  # as resizing leaves them
    folder = write_npy(tmp_path / "data", contents() | {"images": images})
    reader = reader_of(read_films(folder).posters)
    assert reader.scale is SCALES["0 to 1"]
    black, white = reader(3)[:, 0, 0], reader(3)[:, 0, 1]
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    assert torch.allclose(black, -mean / deviation) and torch.allclose(
        white, (1 - mean) / deviation
    )


def test_a_quick_check_does_not_say_that_it_read_posters_of_an_hdf5_file(tmp_path):
    folder = write_hdf5(tmp_path / "data")
    quick = DATA_SETS["mmimdb"].examine({"data_root": folder})
    said = "in one file, which opens; not read, as --deep would"
    assert str(quick) == f"{N} Image: {said}; {N} Text: read, all are right"
    deep = DATA_SETS["mmimdb"].examine({"data_root": folder}, deep=True, workers=0)
    assert str(deep).startswith(f"{N} Image: decoded, without an error")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
def test_a_file_that_is_locked_can_be_read(tmp_path):
    import fcntl

    folder = write_hdf5(tmp_path / "data")
    with open(folder / HDF5, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert reader_of(read_films(folder).posters)(0).shape == (3, 256, 160)


def test_a_damaged_poster_of_an_hdf5_file_fails_alone(tmp_path):
    folder = write_hdf5(tmp_path / "data", contents() | {"images": np.zeros((0, 3, 256, 160))})
    path = folder / HDF5
    with h5py.File(path, "a") as file:
        del file["images"]
        chunks = {"chunks": (1, 3, 256, 160), "compression": "gzip"}
        file.create_dataset("images", data=contents()["images"], **chunks)
        where = file["images"].id.get_chunk_info(5)
    with path.open("r+b") as file:
        file.seek(where.byte_offset)
        file.write(b"\0" * where.size)
    inputs = reader_of(read_films(folder).posters).inputs()
    with pytest.raises(DataError, match=r"multimodal_imdb.hdf5: images\[5\]: cannot be read"):
        inputs[5]
    batch = next(load([inputs], [(torch.tensor([4, 5]), torch.tensor([[4], [5]]))], workers=0))
    assert batch.kept.tolist() == [0] and list(batch.failures) == [(0, 5)]


# --- malformed HDF5 files


@pytest.mark.parametrize("name", ["images", "features", "genres", "imdb_ids"])
def test_a_file_without_a_data_set_is_refused(tmp_path, name):
    data = contents()
    del data[name]
    with pytest.raises(DataError, match=f"imdb.hdf5: found no data set '{name}' among .*vgg_feat"):
        read_films(write_hdf5(tmp_path / "data", data))


@pytest.mark.parametrize("name", ["features", "genres", "imdb_ids"])
def test_data_sets_of_different_length_are_refused(tmp_path, name):
    data = contents()
    data[name] = data[name][:-2]
    with pytest.raises(DataError, match=f"found 13 rows of 'images' and 11 of '{name}'; allowed"):
        read_films(write_hdf5(tmp_path / "data", data))


@pytest.mark.parametrize(
    "name, values, message",
    [
        (
            "images",
            np.zeros((N, 1, 256, 160)),
            r"found shape \(13, 1, 256, 160\) of float64",
        ),
        ("images", np.zeros((N, 3, 160, 256)), r"allowed: \(n, 3, 256, 160\) of numbers"),
        ("features", np.zeros((N, 4096)), r"'features': found shape \(13, 4096\).*\(n, 300\)"),
        ("features", np.full((N, 300), b"x"), r"'features': found shape \(13, 300\) of \|S1"),
        ("features", np.float32(1), r"'features': found shape \(\) of float32"),
        ("features", h5py.Empty("f4"), "'features': found shape None"),
        ("genres", np.zeros(N), r"'genres': found shape \(13,\).*allowed: \(n, genres\)"),
        ("imdb_ids", np.zeros((N, 2)), r"'imdb_ids': found shape \(13, 2\).*\(n\) of names"),
    ],
)
def test_data_sets_of_another_shape_are_refused(tmp_path, name, values, message):
    with pytest.raises(DataError, match=message):
        read_films(write_hdf5(tmp_path / "data", contents() | {name: values}, names=None))


@pytest.mark.parametrize(
    "columns, names, message",
    [
        (27, None, "found 27 columns and 23 names; allowed: the same"),
        (23, GENRES[:-1], "found 23 columns and 22 names; allowed: the same"),
        (24, [*GENRES, "Adult-Western"], "found 24 genres besides News, Adult, .*; allowed: 23"),
        (23, 7, "target_names: found '7'; allowed: a JSON list of names"),
    ],
)
def test_columns_without_the_names_of_23_genres_are_refused(tmp_path, columns, names, message):
    data = contents() | {"genres": np.zeros((N, columns), "int32")}
    with pytest.raises(DataError, match=f"data set 'genres': {message}"):
        read_films(write_hdf5(tmp_path / "data", data, names=names))


@pytest.mark.parametrize("wrong", [2, -1])
def test_labels_other_than_0_and_1_are_refused(tmp_path, wrong):
    data = contents()
    data["genres"][4, 7] = wrong
    message = rf"genres\[4\]: found {wrong} for Horror; allowed: 0 and 1"
    with pytest.raises(DataError, match=message):
        read_films(write_hdf5(tmp_path / "data", data))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e200])
def test_films_without_a_finite_plot_are_left_out_and_counted(tmp_path, wrong):
    data = contents()
    data["features"] = data["features"].astype("float64" if wrong == 1e200 else "float32")
    data["features"][[2, 7], 11] = wrong
    with pytest.warns(DataWarning, match=r"films: 2 left out: .*features\[2\] \(film 0000102\)"):
        films = read_films(write_hdf5(tmp_path / "data", data))
    assert films.sizes == (5, 2, 4) and films.left_out == 2
    assert films.posters.rows == (0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12)
    assert torch.equal(films.genres[2], torch.from_numpy(data["genres"][3]).long())


def test_films_that_are_not_in_the_file_are_left_out_and_counted(tmp_path):
    ids = ids_by_split()
    ids["dev"] += ["9999998", "9999999"]
    with pytest.warns(DataWarning, match=r"films: 2 left out: .*split.json: dev: '9999998' is not"):
        films = read_films(write_hdf5(tmp_path / "data", split=ids))
    assert films.sizes == (6, 3, 4)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"dev": [*s["dev"], "0000101"]}, "film '0000101' in 'train' and 'dev'"),
        (lambda s: s | {"test": s["test"] * 2}, "film '0000109' twice in 'test'; allowed: once"),
        (lambda s: s | {"dev": "all"}, "split.json: dev: found str; allowed: a list of ids"),
        (lambda s: s | {"dev": [101]}, r"dev\[0\]: found 101; allowed: an id as a string"),
        (lambda s: {"train": [], "val": []}, "found 'train', 'val'; allowed: an object with train"),
        (lambda s: [1], "split.json: found list; allowed: an object with train, dev, test"),
        (lambda s: "{", "split.json: found no JSON"),
        (lambda s: s | {"dev": []}, "imdb.hdf5: found no film of 'dev' that can be read"),
    ],
)
def test_a_split_json_that_does_not_hold_together_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_films(write_hdf5(tmp_path / "data", split=change(ids_by_split())))


def test_an_id_of_two_rows_is_refused(tmp_path):
    data = contents()
    data["imdb_ids"][8] = data["imdb_ids"][3]
    with pytest.raises(DataError, match="imdb_ids: found '0000103' in rows 3 and 8; allowed: once"):
        read_films(write_hdf5(tmp_path / "data", data, split=ids_by_split()))


def with_field(table, split, source, field, value):
    for entry in table:
        if entry["split"] == split and entry["source"] == source:
            entry[field] = value
    return table


@pytest.mark.parametrize(
    "table, message",
    [
        (split_table(dev=(5, 9)), "attribute 'split': found row 5 in 'train' and 'dev'; allowed"),
        (split_table(test=(9, 14)), "'test': found row 13; allowed: 0 … 12"),
        (split_table()[:5], "attribute 'split': found no 'images' of 'dev'; allowed: all splits"),
        (
            with_field(split_table(), b"dev", b"genres", "available", False),
            "attribute 'split': found no 'genres' of 'dev'",
        ),
        (
            with_field(split_table(), b"dev", b"features", "stop", 8),
            "'dev': found other rows of 'features' than of 'images'; allowed: the same",
        ),
        (np.arange(3), "found no table of split, source, start, stop, and no split.json beside"),
    ],
)
def test_a_split_table_that_does_not_hold_together_is_refused(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        read_films(write_hdf5(tmp_path / "data", table=table))


@pytest.mark.parametrize("damage", ["truncated", "empty", "no HDF5"])
def test_a_damaged_hdf5_file_is_refused_as_a_whole(tmp_path, damage):
    path = write_hdf5(tmp_path / "data") / HDF5
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-1000], "empty": b"", "no HDF5": b"x" * 999}[damage])
    message = r"data.multimodal_imdb.hdf5: found no whole HDF5 file.*allowed: a whole one"
    with pytest.raises(DataError, match=message):
        read_films(path.parent)


@pytest.mark.parametrize(
    "folder, found", [("empty", "no known layout"), ("none", "no such folder")]
)
def test_a_folder_without_films_is_refused_with_the_layouts_that_are_allowed(
    tmp_path, monkeypatch, folder, found
):
    (tmp_path / "empty" / "mmimdb").mkdir(parents=True)
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path / folder))
    place = tmp_path / folder / "mmimdb"
    with pytest.raises(DataError, match=f"'mmimdb': {place}: found {found}; allowed: multimodal"):
        load_task("mmimdb")


# --- malformed folders


@pytest.mark.parametrize("part", ["image", "text", "label"])
def test_a_film_with_a_file_missing_is_left_out_and_counted(tmp_path, part):
    folder = write_npy(tmp_path / "data")
    (folder / "dev" / f"{part}_000001.npy").unlink()
    with pytest.warns(DataWarning, match=f"films: 1 left out: .*dev.{part}_000001.npy: missing"):
        films = read_films(folder)
    assert films.sizes == (6, 2, 4)
    assert torch.equal(films.genres[7], torch.from_numpy(contents()["genres"][8]).long())
    assert films.posters.paths[7].name == "image_000002.npy"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    "part, damage, message",
    [
        ("text", truncate, "cannot be read"),
        ("label", truncate, "cannot be read"),
        ("label", lambda path: path.write_bytes(b""), "cannot be read"),
        ("text", lambda path: path.write_bytes(b"words"), "cannot be read"),
        (
            "text",
            lambda path: np.save(path, np.zeros(299)),
            r"found shape \(299,\) of float64",
        ),
        ("text", lambda path: np.save(path, np.zeros((0, 300))), r"\(300,\) or \(words, 300\)"),
        ("text", lambda path: np.save(path, np.full(300, "x")), "of <U1; allowed"),
        ("text", lambda path: np.save(path, np.full((2, 300), np.nan)), "found NaN or infinity"),
        ("label", lambda path: np.save(path, np.zeros((1, 23))), r"allowed: \(23,\) of numbers"),
    ],
)
def test_a_film_with_a_damaged_file_is_left_out_and_counted(tmp_path, part, damage, message):
    folder = write_npy(tmp_path / "data")
    damage(folder / "train" / f"{part}_000003.npy")
    with pytest.warns(DataWarning, match=f"films: 1 left out: .*{part}_000003.npy: .*{message}"):
        assert read_films(folder).sizes == (5, 3, 4)


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
        (
            lambda path: np.save(path, np.zeros((256, 160, 3))),
            r"found shape \(256, 160, 3\)",
        ),
        (lambda path: np.save(path, np.full((3, 256, 160), "x")), "of <U1; allowed: "),
        (lambda path: np.save(path, np.full((3, 256, 160), None)), "found Python objects"),
    ],
)
def test_a_damaged_poster_fails_when_it_is_read(tmp_path, damage, message):
    folder = write_npy(tmp_path / "data")
    inputs = reader_of(read_films(folder).posters).inputs()
    damage(folder / "train" / "image_000003.npy")
    with pytest.raises(DataError, match=f"train.image_000003.npy: .*{message}"):
        inputs[3]
    assert inputs[4].isfinite().all()


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code in a file was run",))


@pytest.mark.parametrize("part", ["text", "label"])
def test_files_of_python_objects_are_refused_without_running_their_code(tmp_path, part):
    folder = write_npy(tmp_path / "data")
    path = folder / "train" / f"{part}_000002.npy"
    np.save(path, np.array([Harmful()], object), allow_pickle=True)
    with pytest.raises(DataError, match=f"{path.name}: found Python objects; allowed: an array"):
        read_films(folder)


def test_labels_of_a_folder_other_than_0_and_1_are_refused(tmp_path):
    folder = write_npy(tmp_path / "data")
    np.save(folder / "test" / "label_000001.npy", np.full(23, 3))
    with pytest.raises(DataError, match="label_000001.npy: found 3; allowed: 0 and 1"):
        read_films(folder)


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_that_lacks_a_split_is_refused(tmp_path, empty):
    folder = write_npy(tmp_path / "data")
    shutil.rmtree(folder / "dev")
    message = f"{folder / 'dev'}: cannot be read.*allowed: multimodal_imdb.hdf5"
    if empty:
        (folder / "dev").mkdir()
        message = f"{folder}: found no film of 'dev' that can be read; allowed: at least one"
    with pytest.raises(DataError, match=message):
        read_films(folder)


# --- options


# --- the raw archive

PLOTS = ["A spaceship lands.", "Two sisters fall in love with one pianist.", "Robots and ROBOTS!"]


def write_raw(folder, **changes):
    """The raw archive: a JSON file and a poster for each film; ``changes`` of the first film."""
    pil = files.package("PIL.Image")
    (folder / "dataset").mkdir(parents=True)
    for k, one in enumerate(one for ids in ids_by_split().values() for one in ids):
        about = {
            "title": "x",
            "plot": [PLOTS[k % 3], "Short."],
            "genres": ["Drama", GENRES[k], "News"],
        }
        about |= changes if not k else {}
        (folder / "dataset" / f"{one}.json").write_text(json.dumps(about))
        pixels = np.full((300, 200, 3), (200, 10 * k, 30), np.uint8)
        pil.fromarray(pixels).save(folder / "dataset" / f"{one}.jpeg")
    (folder / SPLIT).write_text(json.dumps(ids_by_split()))
    return folder


def test_the_raw_archive_is_read_with_its_words_counted(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = load_task("mmimdb", data_root=write_raw(tmp_path / "data"), sample=True)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 6, "validation": 3, "test": 4,
    }  # fmt: skip
    labels = torch.cat([split.labels for split in task.splits.values()])
    for k, row in enumerate(labels):  # "News" is none of the 23
        assert {GENRES[i] for i in row.nonzero()[:, 0]} == {"Drama", GENRES[k]}
    image, text = task.modalities
    wanted = (torch.tensor([200, 40, 30]) / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    assert torch.allclose(image.inputs[4].mean((1, 2)), wanted, atol=0.05)
    assert image.inputs[4].shape == (3, 64, 40)
    words = text.inputs
    assert words.shape == (N, 7)  # without "a", "in", "with", "one", "two", "and"
    assert torch.allclose(words[0], words[3]) and words[0] @ words[1] == 0
    assert ((words > 0).sum(1)[:3]).tolist() == [2, 4, 1]
    assert torch.allclose(words.norm(dim=1), torch.ones(N))
    net = task.modalities[1].backbone
    assert [feature.shape for feature in net(words)] == [(N, 64), (N, 128)]


def test_words_of_validation_and_test_are_not_counted(tmp_path):
    folder = write_raw(tmp_path / "data")
    last = folder / "dataset" / f"{ids_by_split()['test'][0]}.json"
    last.write_text(json.dumps({"plot": "unheard zeppelins", "genres": ["War"]}))
    task = load_task("mmimdb", data_root=folder, sample=True)
    assert task.modalities[1].inputs.shape == (N, 7)
    assert not task.modalities[1].inputs[9].any()


def test_plots_of_the_raw_archive_may_be_vectors_of_ones_own(tmp_path):
    folder, ids = write_raw(tmp_path / "data"), contents()["imdb_ids"].astype(str)
    vectors = np.random.default_rng(0).normal(size=(N, 12))
    np.savez(tmp_path / "texts.npz", ids=ids[::-1][:-1], vectors=vectors[::-1][:-1])
    with pytest.warns(
        DataWarning, match=rf"films: 1 left out: .*found no vector of film '{ids[0]}'"
    ):
        task = load_task("mmimdb", data_root=folder, sample=True, texts=tmp_path / "texts.npz")
    assert torch.allclose(task.modalities[1].inputs, torch.from_numpy(vectors[1:]).float())


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"ids": ["a"]}, "found no vectors .* allowed: an .npz of ids"),
        (
            {"ids": ["a"], "vectors": [[1.0], [2.0]]},
            r"found ids of shape \(1,\) and vectors of shape",
        ),
        (
            {"ids": ["a"], "vectors": [1.0]},
            r"found ids of shape \(1,\) and vectors of shape \(1,\)",
        ),
        ({"ids": ["a"], "vectors": [[np.nan]]}, "vectors: found others than finite numbers"),
        ({"ids": ["a"], "vectors": [["x"]]}, "vectors: found others than finite numbers"),
        ({"ids": ["a"], "vectors": np.array([[{}]], object)}, "found no vectors"),
        ({"ids": [100], "vectors": [[1.0]]}, "ids: found numbers of type int64, which have lost"),
        ({"ids": ["a", "a"], "vectors": [[1.0], [2.0]]}, "ids: found 'a' twice; allowed: each"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "texts.npz", **arrays)
    folder = write_raw(tmp_path / "data")
    with pytest.raises(DataError, match=f"texts.npz: {message}"):
        load_task("mmimdb", data_root=folder, sample=True, texts=tmp_path / "texts.npz")
    with pytest.raises(DataError, match="texts: found .*; allowed: None, but with the raw archive"):
        load_task("mmimdb", data_root=write_npy(tmp_path / "npy"), texts=tmp_path / "texts.npz")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"plot": []}, r"json: plot: found ''; allowed: text"),
        ({"plot": 3}, r"json: plot: found 3; allowed: text, or a list of texts"),
        ({"plot": None}, "json: plot: found None; allowed: text"),
        ({"genres": ["News"]}, r"json: genres: found \['News'\]; allowed: one at least of the 23"),
        ({"genres": "Drama"}, "json: genres: found 'Drama'; allowed: a list of names"),
        ("json", "0000100.json: cannot be read"),
        ("text", "0000100.json: found no JSON"),
        ("list", "0000100.json: plot: found None"),
        ("jpeg", "0000100.jpeg: missing"),
    ],
)
def test_a_film_of_the_raw_archive_that_lacks_a_part_is_left_out(tmp_path, changes, message):
    folder = write_raw(tmp_path / "data", **(changes if isinstance(changes, dict) else {}))
    path = folder / "dataset" / "0000100.json"
    if changes == "json":
        path.unlink()
    elif changes in ("text", "list"):
        path.write_text("[" * (200_000 if changes == "text" else 1) + "]" * (changes == "list"))
    elif changes == "jpeg":
        path.with_suffix(".jpeg").unlink()
    with pytest.warns(DataWarning, match=f"films: 1 left out: .*{message}"):
        task = load_task("mmimdb", data_root=folder, sample=True)
    assert len(task.split("train")) == 5


def test_plots_without_any_word_are_refused(tmp_path):
    folder = write_raw(tmp_path / "data")
    for path in (folder / "dataset").glob("*.json"):
        path.write_text(json.dumps({"plot": "and of the", "genres": ["Drama"]}))
    with pytest.raises(DataError, match="dataset: found no word in the training plots; allowed"):
        load_task("mmimdb", data_root=folder, sample=True)


def test_the_raw_archive_may_have_other_folders_beside_it(tmp_path):
    folder = write_raw(tmp_path / "data")
    (folder / "test").mkdir()
    assert len(load_task("mmimdb", data_root=folder, sample=True).split("test")) == 4


def test_an_id_that_climbs_out_of_the_folder_is_refused(tmp_path):
    folder, ids = write_raw(tmp_path / "data"), ids_by_split()
    ids["train"][0] = "../../outside"
    (folder / SPLIT).write_text(json.dumps(ids))
    with pytest.raises(DataError, match=r"split.json: found id '../../outside'; allowed: letters"):
        load_task("mmimdb", data_root=folder, sample=True)


def test_a_poster_that_is_no_jpeg_asks_no_other_decoder(tmp_path):
    folder = write_raw(tmp_path / "data")
    pil = files.package("PIL.Image")
    path = folder / "dataset" / "0000100.jpeg"
    pil.fromarray(np.zeros((30, 20, 3), np.uint8)).save(path, format="PNG")
    inputs = load_task("mmimdb", data_root=folder, sample=True).modalities[0].inputs
    with pytest.raises(
        DataError, match="0000100.jpeg: found no picture that can be decoded; allowed: a JPEG"
    ):
        inputs[0]
    assert inputs[1].shape == (3, 64, 40)


@pytest.mark.slow
def test_weights_of_unknown_modalities_are_refused(sample_task):
    with pytest.raises(TaskError, match="weights: found 'Audio'; allowed: Image, Text"):
        load_task("mmimdb", sample=True, weights={"Audio": "x.safetensors"})


def test_own_files_can_be_read_as_small_as_the_sample(sample_task):
    task = load_task("mmimdb", sample=True, data_root=sample_task.notes["root"])
    for one, other in zip(task.modalities, sample_task.modalities, strict=True):
        assert torch.equal(one.inputs[3], other.inputs[3])
    assert task.config == sample_task.config


def test_weights_are_read_into_the_backbones(sample_task, tmp_path):
    text = sample_task.modality("Text").backbone
    with torch.no_grad():
        text.op1.lin.bias.fill_(0.5)
    save_checkpoint(text, tmp_path / "text.safetensors")
    task = load_task("mmimdb", sample=True, weights={"Text": tmp_path / "text.safetensors"})
    assert (task.modality("Text").backbone.op1.lin.bias == 0.5).all()
    with pytest.raises(CheckpointError, match="text.safetensors: found weights that do not fit"):
        load_task("mmimdb", sample=True, weights={"Image": tmp_path / "text.safetensors"})


# --- the sample


def test_the_sample_has_the_format_of_the_real_file(sample_folder):
    with h5py.File(sample_folder / HDF5) as file:
        n = sum(posters.SIZES.values())
        assert file["images"].shape == (n, 3, 256, 160) and file["images"].dtype == "int32"
        assert file["images"].chunks == (1, 3, 256, 160) and file["images"].compression == "gzip"
        assert file["features"].shape == (n, 300) and file["features"].dtype == "float32"
        assert file["genres"].shape == (n, 23) and file["imdb_ids"].dtype == "S7"
        assert json.loads(file["genres"].attrs["target_names"]) == GENRES
        assert file["images"][:50].min() >= 0 and 200 < file["images"][:50].max() <= 255
        genres_each = file["genres"][:].sum(1)
        assert (genres_each.min(), genres_each.max()) == (1, 4)
        assert set(file.attrs["split"].dtype.names) >= {"split", "source", "start", "stop"}
    size = sum(path.stat().st_size for path in sample_folder.iterdir())
    assert size < 20e6
    split = json.loads((sample_folder / SPLIT).read_text())
    assert {name: len(ids) for name, ids in split.items()} == posters.SIZES
    plots = json.loads((sample_folder / "plots.json").read_text())
    assert list(plots) == [i for ids in split.values() for i in ids]


def test_the_samples_table_of_splits_agrees_with_its_split_json(sample_folder, tmp_path):
    shutil.copyfile(sample_folder / HDF5, tmp_path / HDF5)
    by_table, by_id = read_films(tmp_path), read_films(sample_folder)
    assert by_table.sizes == by_id.sizes and by_table.posters.rows == by_id.posters.rows


def test_the_sample_is_made_once_and_read_small(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_CACHE", str(tmp_path))
    monkeypatch.setattr(posters, "SIZES", {"train": 20, "dev": 8, "test": 8})
    task = load_task("mmimdb", sample=True)
    made = next((tmp_path / "made").glob("mmimdb-*"))
    before = (made / HDF5).stat()
    again = load_task("mmimdb", sample=True)
    assert (made / HDF5).stat() == before
    assert [m.fingerprint() for m in task.modalities] == [m.fingerprint() for m in again.modalities]
    assert task.modalities[0].inputs[0].shape == (3, 64, 40)
    assert task.channels["Image_4"] == 64 and task.config.C < 64
    assert (task.config.L, task.config.N, task.config.M) == (16, 2, 1)
    whole = load_task("mmimdb", data_root=made)
    assert whole.modalities[0].inputs[0].shape == (3, 256, 160) and whole.config.C == 192


def test_the_sample_is_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(posters, "SIZES", {"train": 3, "dev": 1, "test": 1})
    films = []
    for name in "ab":
        (tmp_path / name).mkdir()
        posters.make(tmp_path / name)
        films.append(read_films(tmp_path / name))
    assert torch.equal(films[0].plots, films[1].plots)
    for item in range(5):
        a, b = (f.posters.read(item) for f in films)
        assert np.array_equal(a, b)


def test_common_genres_are_common_and_rare_ones_rare_in_every_split(sample_task):
    for split in sample_task.splits.values():
        share = dict(zip(GENRES, split.labels.double().mean(0).tolist(), strict=True))
        assert 0.3 < share["Drama"] < 0.5 and 0.01 < share["Film-Noir"] < 0.1
        assert {genre for genre, s in share.items() if s} == set(posters.WORDS)


def test_no_two_films_of_the_sample_have_the_same_plot(sample_task):
    plots = sample_task.modality("Text").inputs
    assert len(plots.unique(dim=0)) == len(plots)


def linear_score(inputs: torch.Tensor, task) -> float:
    """Weighted F1 on test of logistic regression on training inputs."""
    train, test = (task.split(s) for s in ("train", "test"))
    known = inputs[train.index[:, 0]]
    x = (inputs - known.mean(0)) / known.std(0).clamp(min=1e-3)
    torch.manual_seed(0)
    linear = torch.nn.Linear(x.shape[1], 23)
    optimizer = torch.optim.AdamW(linear.parameters(), 1e-2, weight_decay=1.0)
    for _ in range(150):
        logits = linear(x[train.index[:, 0]])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, train.labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weighted_f1(linear(x[test.index[:, 0]]).detach(), test.labels)


@pytest.mark.slow
def test_the_samples_plots_show_some_of_its_genres(sample_task):
    """The floor is the score of calling every film a drama."""
    test = sample_task.split("test").labels
    dramas = torch.full((len(test), 23), -9.0)
    dramas[:, 0] = 9
    floor = weighted_f1(dramas, test)
    assert floor + 0.2 < linear_score(sample_task.modality("Text").inputs, sample_task) < 0.7


def test_well_formed_files_are_read_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_films(write_hdf5(tmp_path / "a", split=ids_by_split()))
        read_films(write_npy(tmp_path / "b"))
