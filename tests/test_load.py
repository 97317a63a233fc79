"""Features as people have them on disk become the arguments of Task.from_features."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import bmnas_core as bm
from bmnas_core.cli.app import app

N = 30
h5py = pytest.importorskip("h5py")


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"Video/early": (N, 3, 4), "Video/late": (N, 5), "Text": (N, 2)}
    found = {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    return found | {"labels": np.arange(N) % 3}


def write(kind: str, arrays: dict, root):
    """The arrays in files of one kind; the path to load."""
    if kind == "npy":
        for key, values in arrays.items():
            (root / key).parent.mkdir(exist_ok=True)
            np.save(root / f"{key}.npy", values)
        return root
    path = root / f"all.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "safetensors":
        save_file({key: torch.from_numpy(values) for key, values in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as opened:
            for key, values in arrays.items():
                chunked = {"compression": "gzip"} if key == "Text" else {}
                opened.create_dataset(key, data=values, **chunked)
    return path


KINDS = ["npy", "npz", "safetensors", "h5"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_arguments(kind, arrays, tmp_path):
    found = bm.load_features(write(kind, arrays, tmp_path))
    names = {modality: set(own) for modality, own in found["features"].items()}
    assert names == {"Video": {"Video_early", "Video_late"}, "Text": {"Text_1"}}
    assert np.array_equal(found["features"]["Video"]["Video_early"], arrays["Video/early"])
    assert np.array_equal(found["features"]["Text"]["Text_1"], arrays["Text"])
    task = bm.Task.from_features("mine", **found)
    assert task.channels["Video_early"] == 3 and task.classes == 3


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_arrays_are_mapped_and_not_read(kind, arrays, tmp_path):
    found = bm.load_features(write(kind, arrays, tmp_path))
    assert isinstance(found["features"]["Video"]["Video_early"], np.memmap)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_beside_the_arrays_has_labels_splits_and_groups(kind, arrays, tmp_path):
    path = write("npy", {k: v for k, v in arrays.items() if k != "labels"}, tmp_path)
    names = np.array(["no", "yes"])[np.arange(N) % 2]
    splits = np.array(["train", "val", "test"])[np.arange(N) // 2 % 3]
    table = pd.DataFrame({"label": names, "split": splits})
    getattr(table, f"to_{kind}")(path / f"table.{kind}", index=False)
    task = bm.Task.from_features("mine", **bm.load_features(path))
    assert task.class_names == ("no", "yes") and len(task.split("validation")) == 10
    (path / f"table.{kind}").unlink()
    own = pd.DataFrame({"label": names, "group": np.arange(N) // 3})
    getattr(own, f"to_{kind}")(path / f"table.{kind}", index=False)
    task = bm.Task.from_features("mine", **bm.load_features(path))
    groups = [set(task.split(s).index[:, 0].numpy() // 3) for s in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == N // 3


def test_columns_of_0_and_1_are_a_multi_hot_matrix_with_names(arrays, tmp_path):
    path = write("npy", {k: v for k, v in arrays.items() if k != "labels"}, tmp_path)
    hot = np.eye(3, dtype=int)[np.arange(N) % 3]
    pd.DataFrame(hot, columns=["label_sad", "label_old", "label_new"]).to_csv(path / "t.csv")
    task = bm.Task.from_features("mine", **bm.load_features(path))
    assert task.class_names == ("sad", "old", "new") and task.metric == "weighted_f1"


def test_features_are_in_the_order_of_their_numbers(arrays, tmp_path):
    for k in (1, 2, 10):
        np.save(tmp_path / f"Video_{k}.npy", arrays["Text"])
    found = bm.load_features(tmp_path)
    assert list(found["features"]["Video"]) == ["Video_1", "Video_2", "Video_10"]


def damaged(kind: str, root):
    path = root / f"bad.{kind}"
    path.write_bytes(b"this is none of these files")
    return path


@pytest.mark.parametrize("kind", [*KINDS, "parquet"])
def test_a_damaged_file_is_named_in_one_line(kind, tmp_path):
    with pytest.raises(bm.DataError, match=rf"bad.{kind}: found no ") as error:
        bm.load_features(damaged(kind, tmp_path))
    assert "\n" not in str(error.value)


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "b.npz", a=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(bm.DataError, match=f"{name}: found no .*(pickle|objects)"):
            bm.load_features(tmp_path / name)


def test_what_cannot_be_loaded_is_said(arrays, tmp_path):
    with pytest.raises(bm.DataError, match="none: found nothing there; allowed: a folder or file"):
        bm.load_features(tmp_path / "none")
    with pytest.raises(bm.DataError, match="path: found 3; allowed: the path of a folder"):
        bm.load_features(3)
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(bm.DataError, match="a.pkl: found a file .pkl; allowed: .npy, .npz"):
        bm.load_features(tmp_path / "a.pkl")
    with pytest.raises(bm.DataError, match="found no array of features; allowed: files .npy"):
        bm.load_features(tmp_path)
    pd.DataFrame({"x": [1]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(bm.DataError, match=r"t.csv: found columns \['x'\]; allowed: one at least"):
        bm.load_features(tmp_path)
    (tmp_path / "t.csv").unlink()
    write("npz", arrays, tmp_path), write("safetensors", arrays, tmp_path)
    with pytest.raises(bm.DataError, match="found a second array of this name; allowed: each once"):
        bm.load_features(tmp_path)


def test_unnamed_arrays_have_the_files_name_and_unused_columns_are_named(tmp_path):
    np.savez(tmp_path / "audio.npz", np.zeros((9, 4)), np.zeros((9, 3, 5)))
    np.save(tmp_path / "text.npy", np.zeros((9, 2)))
    table = pd.DataFrame({"label": np.arange(9) % 3, "speaker": np.arange(9)})
    table.to_csv(tmp_path / "labels.tsv", index=False, sep="\t")
    message = r"labels.tsv: columns \['speaker'\] are not used; label, split and group would be"
    with pytest.warns(bm.DataWarning, match=message):
        found = bm.load_features(tmp_path)
    names = {modality: list(arrays) for modality, arrays in found["features"].items()}
    assert names == {"audio": ["audio_1", "audio_2"], "text": ["text_1"]}
    assert found["labels"].tolist() == (np.arange(9) % 3).tolist()


def test_describe_prints_what_a_task_would_be(arrays, tmp_path):
    path = write("npy", arrays, tmp_path)
    done = CliRunner().invoke(app, ["data", "describe", str(path)])
    assert done.exit_code == 0, done.output
    assert "samples × channels × …" in done.output
    assert "Video     Video_early  30 × 3 × 4              float32" in done.output
    assert "3 classes, accuracy; 18 train" in done.output and "settings: C 32, L 4" in done.output
    (path / "labels.npy").unlink()
    assert "no labels" in CliRunner().invoke(app, ["data", "describe", str(path)]).output
