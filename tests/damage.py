"""Every file that the kit reads, and what may happen to it: what a stranger or a bad disk leaves.

``python tests/damage.py`` writes assets/results/damaged_files.csv, what each reader does with each
kind of damage.
"""

import csv
import gzip
import json
import os
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tiny import tiny_task

import bmnas_core as bm
from bmnas_core.backbones.paper import HCN, load_checkpoint, save_checkpoint
from bmnas_core.baselines import read_baselines, read_settings, read_tried
from bmnas_core.baselines.table import COLUMNS, TRIED_COLUMNS
from bmnas_core.benchmark import read_benchmark, tabular
from bmnas_core.benchmark.strategies import COLUMNS as RANKED
from bmnas_core.experiments import notebook_parameters, read_spec
from bmnas_core.experiments.results import RUN_FORMAT, ResultError, load_planned, load_run
from bmnas_core.experiments.sweep import FORMAT as SWEEP_FORMAT
from bmnas_core.genotype import read_text
from bmnas_core.search_state import StateLog
from bmnas_core.tasks import avmnist
from bmnas_core.tasks.files import package
from bmnas_core.tasks.paper import egogesture, mmimdb_films, mmimdb_posters, ntu_readers
from bmnas_core.tasks.paper.common import read_picture

TABLE = Path(__file__).parents[1] / "assets" / "results" / "damaged_files.csv"
NOISE = np.random.default_rng(0).bytes(3000)
PAGE = b"<html><title>403 Forbidden</title></html>\n"

# --- what happens to a file: its bytes → others


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit(content: bytes) -> bytes:
    return _flipped(content, len(content) // 2)


def first_bytes(content: bytes) -> bytes:
    return bytes(b ^ 0xFF for b in content[:4]) + content[4:]


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut to half": half,
    "last byte lost": lambda content: content[:-1],
    "one bit changed": one_bit,
    "first bytes changed": first_bytes,
    "bytes after the end": lambda content: content + NOISE[:100],
    "zeros": lambda content: bytes(len(content)),
    "noise": lambda content: NOISE,
    "a web page": lambda content: PAGE,
    "nested a million deep": lambda content: b"[" * 1_000_000,
    "escapes for a terminal": lambda content: b"\x1b]0;owned\x07\x1b[2J\n" * 50,
}


def damage(path: Path, kind: str) -> None:
    """Make this of the file: one of DAMAGES, or something else in its place."""
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind != "missing":
        path.write_bytes(DAMAGES[kind](content))


KINDS = [*DAMAGES, "missing", "a folder", "a pipe", "a link to itself"]

# --- the files: a folder → the file, and how it is read


def genotype(folder: Path):
    path = tiny_genotype().save(folder / "genotype.json")
    return path, bm.Genotype.load


def tiny_genotype() -> bm.Genotype:
    step = bm.StepGenotype("sum", ("X", "Y"))
    cell = bm.CellGenotype(("Image_2", "Audio_2"), (step, step))
    return bm.Genotype(("Image_1", "Image_2", "Audio_1", "Audio_2"), (cell,))


def searched(folder: Path) -> bm.Search:
    search = bm.Search(tiny_task(), bm.SearchConfig(epochs=1, selection="argmax"), device="cpu")
    list(search)
    return search


def history(folder: Path):
    path = bm.SearchHistory.from_search(searched(folder)).save(folder / "history.safetensors")
    return path, bm.SearchHistory.load


def search(folder: Path):
    searched(folder).save(folder / "search.safetensors")
    task = tiny_task()
    return folder / "search.safetensors", lambda path: bm.Search.resume(path, task, device="cpu")


def network(folder: Path):
    config = bm.TrainConfig(epochs=1)
    net, _ = bm.train(tiny_genotype(), tiny_task(), config, device="cpu", progress=False)
    bm.save_network(net, folder / "network.safetensors")
    return folder / "network.safetensors", bm.load_network


def read_weights(path: Path) -> dict:
    backbone = HCN(5)
    load_checkpoint(backbone, path)
    return backbone.state_dict()


def weights(folder: Path):
    save_checkpoint(HCN(5), folder / "weights.safetensors")
    return folder / "weights.safetensors", read_weights


def others_weights(folder: Path):
    torch.save({"state_dict": HCN(5).state_dict(), "epoch": 3}, folder / "weights.pth")
    return folder / "weights.pth", read_weights


def baselines(folder: Path):
    cells = {
        name: "x" if kind.startswith(("name", "text")) else 1 for name, kind in COLUMNS.items()
    }
    rows = [cells | {"metric": "accuracy", "seed": seed, "test": 0.5} for seed in range(9)]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "baselines.csv", index=False)
    return folder / "baselines.csv", read_baselines


def benchmark(folder: Path):
    recipe = {
        "task": "tiny", "rule": None, "features": ["Image_1"], "operations": ["sum"],
        "metric": "accuracy", "config": bm.TrainConfig(epochs=2, restart=1).to_dict(),
        "sampled": False,
    }  # fmt: skip
    one = {"genotype": tiny_genotype().to_json(), "validation": 0.5, "test": 0.5}
    one |= {"curve": [0.3, 0.5], "parameters": 10, "seconds": 1.0, "device": "cpu"}
    tabular._write(folder / "table.parquet", recipe, [one | {"seed": k} for k in range(9)])
    return folder / "table.parquet", lambda path: tabular.TabularBenchmark(path=path)


def result(folder: Path):
    about = {"task": "digits", "rule": "sum", "seed": 0, "device": "cpu", "metric": "accuracy"}
    about |= {"test": 0.5, "params": 9, "baselines": {}, "search_seconds": 1, "train_seconds": 1}
    bm.save_run(folder / "run", result=about, genotype=tiny_genotype())
    return folder / "run" / "result.json", bm.load_result


def notebook(folder: Path):
    cells = [
        nbformat.v4.new_code_cell('seed = 0\ndevice = "cpu"  # "auto" or "cpu"', id="parameters"),
        nbformat.v4.new_code_cell("print(device)", id="code"),
    ]
    cells[0].metadata.tags = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "a.ipynb")
    return folder / "a.ipynb", notebook_parameters


def spec(folder: Path):
    notebook(folder)
    (folder / "sweep.yaml").write_text("notebook: a.ipynb\nseeds: 3\ngrid:\n  device: [cpu]\n")
    return folder / "sweep.yaml", read_spec


def tried(folder: Path):
    cells = {
        name: "x" if kind.startswith(("name", "text")) else 1
        for name, kind in TRIED_COLUMNS.items()
    }
    rows = [cells | {"metric": "accuracy", "C": 8 * k, "validation": 0.5} for k in range(1, 9)]
    pd.DataFrame(rows, columns=list(TRIED_COLUMNS)).to_csv(folder / "tried.csv", index=False)
    return folder / "tried.csv", read_tried


def strategies(folder: Path):
    known = bm.TabularBenchmark("digits", "sum").table["genotype"][0].to_json()
    cells = {name: "x" if kind.startswith(("name", "text")) else 1 for name, kind in RANKED.items()}
    cells |= {"task": "digits", "rule": "sum", "genotype": known}
    rows = [cells | {"seed": seed} for seed in range(3)]
    pd.DataFrame(rows, columns=list(RANKED)).to_csv(folder / "strategies.csv", index=False)
    return folder / "strategies.csv", read_benchmark


def published(folder: Path):
    (folder / "search.log").write_text("epoch 3\n" + tiny_genotype().to_published() + "\n")
    names = tiny_genotype().features
    return folder / "search.log", lambda path: bm.Genotype.from_published(
        read_text(path), names, str(path)
    )


def run_record(folder: Path):
    about = {"format": RUN_FORMAT, "notebook": "a.ipynb", "parameters": {"seed": 3}}
    about |= {"notebook_sha256": "0" * 64, "status": "done", "seconds": 1.5}
    (folder / "run.json").write_text(json.dumps(about))

    def read(path: Path):
        if load_run(path.parent) is None:
            raise ResultError(path, "nothing there", "a run's record")

    return folder / "run.json", read


def sweep_record(folder: Path):
    run = {"notebook": "a.ipynb", "notebook_sha256": "0" * 64, "parameters": {"seed": 3}}
    about = {"format": SWEEP_FORMAT, "specs": [], "runs": {"seed=3": run}}
    (folder / "sweep.json").write_text(json.dumps(about))
    return folder / "sweep.json", lambda path: load_planned(path.parent)


def _bank(folder: Path) -> bm.FeatureBank:
    return bm.FeatureBank(tiny_task(), folder=folder, device="cpu", workers=0)


def features(folder: Path):
    _bank(folder / "bank")
    path, *_ = sorted(folder.glob("bank/*/features.npy"))
    return path, lambda path: _bank(path.parents[1]).features


def features_record(folder: Path):
    path, read = features(folder)
    return path.with_name("bank.json"), read


def states(folder: Path):
    search = searched(folder)
    kept = StateLog(folder / "search.states", search.state)
    for state in bm.Search(tiny_task(), search.config, device="cpu"):
        kept.append(state)
    account = kept.write()
    return folder / "search.states", lambda path: StateLog(path, search.state).read(account)[0]


def settings(folder: Path):
    (folder / "settings.json").write_text(json.dumps([{"C": 8, "L": 4}, {"C": 16, "L": 4}]))
    return folder / "settings.json", read_settings


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"Video_1": random.normal(size=(20, 5)), "Audio_1": random.normal(size=(20, 6))}


def _features(path: Path) -> dict:
    found = bm.load_features(path)
    for modality in found["features"].values():
        [np.asarray(array) for array in modality.values()]
    return found


def npy(folder: Path):
    np.save(folder / "Video_1.npy", _arrays(folder)["Video_1"])
    return folder / "Video_1.npy", _features


def npz(folder: Path):
    np.savez_compressed(folder / "all.npz", **_arrays(folder))
    return folder / "all.npz", _features


def hdf5(folder: Path):
    with package("h5py").File(folder / "all.h5", "w") as file:
        for name, values in _arrays(folder).items():
            file.create_dataset(name, data=values, compression="gzip" if "V" in name else None)
    return folder / "all.h5", _features


def tensors(folder: Path):
    found = {name: torch.from_numpy(values) for name, values in _arrays(folder).items()}
    save_file(found, folder / "all.safetensors")
    return folder / "all.safetensors", _features


def table(folder: Path):
    np.save(folder / "Video_1.npy", _arrays(folder)["Video_1"])
    pd.DataFrame({"label": ["a", "b"] * 10}).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv", lambda path: _features(path.parent)


def parquet(folder: Path):
    np.save(folder / "Video_1.npy", _arrays(folder)["Video_1"])
    pd.DataFrame({"label": ["a", "b"] * 10}).to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet", lambda path: _features(path.parent)


def skeleton(folder: Path):
    joints = ["0.1 0.2 3.0 1 1 1 1 0 0 0 0 2"] * 25
    lines = ["6"] + 6 * ["1", "7 0 1 1 1 1 0 0 0 2", "25", *joints]
    (folder / "S001.skeleton").write_text("\n".join(lines) + "\n")
    return folder / "S001.skeleton", ntu_readers.read_skeleton


def video(folder: Path):
    av = package("av")
    random = np.random.default_rng(0)
    with av.open(str(folder / "clip_rgb.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return folder / "clip_rgb.avi", lambda path: ntu_readers.read_video(path, size=32)


def frame(folder: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    package("PIL.Image").fromarray(pixels).save(folder / "000001.jpg")
    return folder / "000001.jpg", lambda path: read_picture(path, "RGB", (32, 32))


def poster(folder: Path):
    np.save(folder / "image_000000.npy", np.zeros((3, 256, 160), np.uint8))
    return folder / "image_000000.npy", mmimdb_posters.read_npy


def films(folder: Path):
    n, names = 3, list(mmimdb_films.posters.GENRES)
    path = folder / mmimdb_films.HDF5
    with package("h5py").File(path, "w") as file:
        file["images"] = np.zeros((n, 3, 256, 160), np.uint8)
        file["features"], file["genres"] = np.zeros((n, 300)), np.ones((n, 23), int)
        file["imdb_ids"] = np.array(["a", "b", "c"], "S1")
        file["genres"].attrs["target_names"] = json.dumps(names)
    splits = {"train": ["a"], "dev": ["b"], "test": ["c"]}
    (folder / mmimdb_films.SPLIT).write_text(json.dumps(splits))
    return path, lambda path: mmimdb_films.read_films(path.parent).posters.read(0)


def film(folder: Path):
    (folder / "dataset").mkdir()
    for one in "abc":
        about = {"plot": ["A ship sinks."], "genres": ["Drama"]}
        (folder / "dataset" / f"{one}.json").write_text(json.dumps(about))
        shutil.copy(frame(folder)[0], folder / "dataset" / f"{one}.jpeg")
    (folder / "split.json").write_text(json.dumps({"train": ["a"], "dev": ["b"], "test": ["c"]}))
    read = mmimdb_films._raw_film
    return folder / "dataset" / "a.json", lambda path: read(path.parent, path.stem)


def vectors(folder: Path):
    np.savez(folder / "texts.npz", ids=["a", "b"], vectors=np.ones((2, 3)))
    return folder / "texts.npz", mmimdb_films._read_vectors


def split_json(folder: Path):
    films(folder)
    return folder / "split.json", lambda path: mmimdb_films.read_films(path.parent)


def annotation(folder: Path):
    about = {"label": "Wave", "start_frame": "1", "end_frame": "20"}
    entry = {"subset": "training", "annotations": about}
    content = {"labels": ["Wave"], "database": {"Subject01/Scene1/Color/rgb1": entry}}
    (folder / "gestures.json").write_text(json.dumps(content))
    return folder / "gestures.json", egogesture.read_annotation


def idx(folder: Path):
    content = b"\x00\x00\x08\x01" + (900).to_bytes(4, "big") + bytes(range(225)) * 4
    (folder / "a-idx1-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))
    return folder / "a-idx1-ubyte.gz", avmnist.read_idx


def recording(folder: Path):
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(range(200)) * 8)
    return folder / "a.wav", avmnist.read_wave


READERS = {
    "genotype": genotype, "history": history, "saved search": search, "trained network": network,
    "backbone's weights": weights, "others' weights": others_weights,
    "table of baselines": baselines, "tabular benchmark": benchmark, "result": result,
    "notebook": notebook, "sweep": spec, "settings": settings, "array": npy, "arrays": npz,
    "HDF5 of arrays": hdf5, "safetensors of arrays": tensors, "labels as CSV": table,
    "labels as Parquet": parquet, "skeleton": skeleton, "video": video, "frame": frame,
    "poster": poster, "MM-IMDB's HDF5": films, "MM-IMDB's splits": split_json,
    "EgoGesture's annotation": annotation, "MNIST's file": idx, "recording": recording,
    "film of the raw archive": film, "vectors of plots": vectors, "settings tried": tried,
    "table of strategies": strategies, "published genotype": published, "run's record": run_record,
    "sweep's record": sweep_record, "features on disk": features,
    "record of features": features_record, "states of a search": states,
}  # fmt: skip


def what_happens(path: Path, read: Callable[[Path], object]) -> str:
    """``"read"``, or ``"refused"`` and why, with FILE for the file's path."""
    try:
        read(path)
    except bm.BmnasError as error:
        return f"refused: {error}".replace(str(path), "FILE").replace(str(path.parent), "FOLDER")
    return "read"


def rows() -> Iterator[tuple[str, str, str]]:
    """Reader, damage, what happens; each on a fresh copy."""
    for name, make in READERS.items():
        with tempfile.TemporaryDirectory() as root:
            whole = Path(root) / "whole"
            whole.mkdir()
            path, read = make(whole)
            for kind in KINDS:
                folder = Path(root) / "damaged"
                shutil.copytree(whole, folder)
                file = folder / path.relative_to(whole)
                damage(file, kind)
                yield name, kind, what_happens(file, read)
                shutil.rmtree(folder)


if __name__ == "__main__":
    with open(TABLE, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("reader", "damage", "what happens"))
        writer.writerows(rows())
    sys.exit()
