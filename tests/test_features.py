"""FeatureBank: features computed once, correct and never stale, in memory and on disk."""

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import ReadNpy, TinyBackbone, in_files, tiny_task

from bmnas_core import (
    DataError,
    FeatureBank,
    FeatureError,
    Modality,
    Task,
    TaskError,
    load_task,
    pool,
)  # fmt: skip
from bmnas_core.backbones.backbone import INITIAL
from bmnas_core.features import RawInputs
from bmnas_core.tasks import DataWarning


def rows(n=5):
    return torch.arange(n)


def equal(one: FeatureBank, other: FeatureBank) -> bool:
    split = "train+validation+test"
    every = torch.arange(one.size(split))
    (a, _), (b, _) = one.batch(split, every), other.batch(split, every)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def folders(place):
    """What is in the folder of a bank, without the locks, which stay."""
    return {path for path in place.iterdir() if path.suffix != ".lock"}


def test_features_are_what_the_backbone_gives_pooled_to_length():
    task = tiny_task()
    bank = FeatureBank(task, 3)
    features, labels = bank.batch("validation", torch.tensor([4, 0]))
    split = task.split("validation")
    assert torch.equal(labels, split.labels[[4, 0]])
    assert list(features) == list(task.features)
    for m, modality in enumerate(task.modalities):
        outputs = modality.backbone(modality.inputs[split.index[[4, 0], m]])
        for name, output in zip(modality.channels, outputs, strict=True):
            torch.testing.assert_close(features[name], pool(output, 3, "time"))


def test_each_item_runs_through_its_backbone_once():
    task = tiny_task()
    seen = []
    for modality in task.modalities:
        modality.backbone.register_forward_hook(lambda *args: seen.append(len(args[1][0])))
    bank = FeatureBank.shared(task, None, "cpu")
    for _ in range(3):
        FeatureBank.shared(task, None, "cpu").batch("train", rows())
    assert sum(seen) == sum(len(m.inputs) for m in task.modalities)
    assert FeatureBank.shared(task, None, "cpu") is bank
    assert FeatureBank.shared(task, 2, "cpu") is not bank


def test_a_bank_in_memory_is_computed_anew_when_a_backbone_has_changed():
    task = tiny_task()
    bank = FeatureBank.shared(task, None, "cpu")
    with torch.no_grad():
        task.modalities[1].backbone.layers[0].weight.mul_(2)
    assert not equal(bank, FeatureBank.shared(task, None, "cpu"))


def test_a_bank_on_disk_equals_the_one_in_memory_and_is_computed_once(tmp_path, monkeypatch):
    task = tiny_task()
    one = FeatureBank(task, folder=tmp_path)
    on_disk, in_memory = one.batch("train", rows())[0], FeatureBank(task).batch("train", rows())[0]
    assert list(on_disk) == list(in_memory)
    for name, values in in_memory.items():
        assert torch.equal(on_disk[name], values.half().float())
        assert on_disk[name].is_contiguous()

    monkeypatch.setattr(TinyBackbone, "forward", None)  # no backbone can run again
    assert equal(FeatureBank(tiny_task(), folder=tmp_path), one)


def table_of(folder, modality):
    """The folder of a modality's features in that of a bank."""
    (found,) = (
        path.parent
        for path in folder.glob("*/bank.json")
        if json.loads(path.read_text())["modality"] == modality
    )
    return found


def test_a_bank_on_disk_is_not_read_into_memory(tmp_path):
    bank = FeatureBank(tiny_task(), folder=tmp_path)
    file = np.load(table_of(tmp_path, "Audio") / "features.npy", mmap_mode="r+")
    before = bank.batch("train", rows())[0]["Audio_2"]
    file[:] += 1
    file.flush()
    after = bank.batch("train", rows())[0]["Audio_2"]
    torch.testing.assert_close(after, before + 1, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("folder", [False, True])
def test_prefetched_rows_are_the_same_as_rows_read_alone(tmp_path, folder):
    bank = FeatureBank(tiny_task(), folder=tmp_path if folder else None)
    batches = [torch.tensor([3, 1]), torch.tensor([[0, 5], [2, 2]]), torch.tensor([7])]
    prefetched = list(bank.batches("train", batches))
    for (features, labels), wanted in zip(prefetched, batches, strict=True):
        alone, same = bank.batch("train", wanted)
        assert torch.equal(labels, same)
        assert all(torch.equal(features[name], alone[name]) for name in alone)
    bank.batch("train", batches[0], next_rows=batches[2])
    features, _ = bank.batch("train", batches[1])  # other rows than the prefetched ones
    assert all(torch.equal(features[name], prefetched[1][0][name]) for name in features)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_feature_without_positions_is_kept_and_served_once(tmp_path, on_disk):
    task, folder = tiny_task(embedding=True), tmp_path if on_disk else None
    shapes = {"Image_1": (5, 4), "Image_2": (6, 1), "Audio_1": (5, 4), "Audio_2": (6, 1)}
    for bank in (FeatureBank(task, folder=folder), FeatureBank(task, folder=folder)):
        served, _ = bank.batch("train", torch.tensor([[3, 1, 4], [1, 5, 9]]))
        for name, shape in shapes.items():
            assert bank.features[name].shape == (96, *shape)
            assert served[name].shape == (2, 3, *shape)
        image = task.modality("Image")
        vectors = image.backbone(image.inputs[task.split("train").index[:5, 0]])[1]
        found = bank.batch("train", torch.arange(5))[0]["Image_2"][:, :, 0]
        torch.testing.assert_close(found, vectors, rtol=0, atol=2e-3 if on_disk else 1e-6)


def test_items_that_cannot_be_read_have_the_shapes_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("bmnas_core.features.MAX_VALUES_PER_FORWARD", 2 * 24)  # two at a time
    task = in_files(tiny_task(), tmp_path / "data")
    for item in (0, 1, 2, 50):
        (tmp_path / "data" / "Image" / f"{item}.npy").write_bytes(b"")
    with pytest.warns(DataWarning, match="Image"):
        bank = FeatureBank(task, folder=tmp_path / "banks", workers=0)
    assert sorted(bank.skipped["Image"]) == [0, 1, 2, 50]
    assert bank.features["Image_1"].shape == (96, 5, 4) and not bank.features["Image_1"][:3].any()


@pytest.mark.parametrize("change", ["weights", "inputs", "length", "pooling", "name", "setting"])
def test_a_change_of_whatever_produces_the_features_changes_their_hash(change):
    task = tiny_task()
    first = task.modalities[0]
    before, L = FeatureBank(task).source_hash, None
    values = {field.name: getattr(first, field.name) for field in fields(first)}
    if change == "weights":
        with torch.no_grad():
            first.backbone.layers[1].bias[0] += 1e-6
    elif change == "inputs":
        values["inputs"] = first.inputs.clone()
        values["inputs"][7, 0, 0] += 1e-6
    elif change == "setting":
        first.backbone.slope = 5
    elif change == "length":
        L = 3
    elif change == "pooling":
        values["pooling"] = "grid"
    else:
        values["name"] = "Picture"
    other = Task(
        "tiny", "same", 3, "accuracy", (Modality(**values), task.modalities[1]), task.splits,
        task.config,
    )  # fmt: skip
    assert FeatureBank(other, L).source_hash != before


def test_a_stale_bank_on_disk_is_left_alone(tmp_path):
    FeatureBank(tiny_task(), folder=tmp_path)
    other = tiny_task()
    with torch.no_grad():
        other.modalities[0].backbone.layers[0].weight.mul_(2)
    bank = FeatureBank(other, folder=tmp_path)
    assert equal(bank, FeatureBank(other, folder=tmp_path / "alone"))
    assert not equal(bank, FeatureBank(tiny_task(), folder=tmp_path))
    assert len(list(tmp_path.glob("*/bank.json"))) == 3  # Audio's features are the same


def test_features_in_an_older_format_are_left_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("bmnas_core.feature_files.FORMAT", "bmnas-features/2")
        FeatureBank(tiny_task(), folder=tmp_path)
    older = folders(tmp_path)
    FeatureBank(tiny_task(), folder=tmp_path)
    assert older < folders(tmp_path) and len(folders(tmp_path)) == 4


def test_new_weights_of_one_backbone_keep_the_features_of_the_others(tmp_path):
    task = in_files(tiny_task(), tmp_path / "data")
    FeatureBank(task, folder=tmp_path / "banks", workers=0)
    with torch.no_grad():
        task.modalities[1].backbone.layers[0].weight.mul_(2)
    read, original = [], ReadNpy.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReadNpy, "__call__", lambda *a: read.append(a[0].folder) or original(*a))
        FeatureBank(task, folder=tmp_path / "banks", workers=0)
    assert {path.name for path in read} == {"Audio"}


def damaged(tmp_path, damage):
    FeatureBank(tiny_task(), folder=tmp_path)
    damage(table_of(tmp_path, "Audio"))
    return FeatureBank(tiny_task(), folder=tmp_path)


def truncate(folder):
    path = folder / "features.npy"
    path.write_bytes(path.read_bytes()[:-8])


def reshape(folder):
    np.save(folder / "features.npy", np.zeros((3, 4)))


def change_meta(**changed):
    def change(folder):
        meta = json.loads((folder / "bank.json").read_text())
        (folder / "bank.json").write_text(json.dumps(meta | changed))

    return change


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "features.npy: found no .* 'Audio' .*; delete .* to have it made again"),
        (
            reshape,
            r"features.npy: found no .* 'Audio' \(found its header changed since it was .*; del",
        ),
        (
            lambda folder: (folder / "features.npy").write_bytes(b""),
            "features.npy: found no features of 'Audio' .*; delete",
        ),
        (lambda folder: (folder / "features.npy").unlink(), "found no features of 'Audio' .*; del"),
        (
            lambda folder: (folder / "bank.json").write_text("{"),
            "bank.json: found no features of 'Audio' .*; delete",
        ),
        (change_meta(cache_key="0"), "'Audio' .found cache_key '0'; allowed: '.*delete"),
        (change_meta(format="bmnas-features/2"), ".found format '.*/2'; allowed: '.*/5'.*delete"),
    ],
)
def test_a_damaged_bank_is_refused_with_the_remedy(tmp_path, damage, message):
    with pytest.raises(FeatureError, match=message):
        damaged(tmp_path, damage)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of four items, which have 88 bytes each."""
    monkeypatch.setattr("bmnas_core.feature_files.SHARD_BYTES", 400)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def all_rows(bank):
    split = "train+validation+test"
    return bank.batch(split, torch.arange(bank.size(split)))


def test_a_flipped_bit_of_a_bank_is_noticed_and_named(tmp_path, small_shards):
    task, random = tiny_task(), np.random.default_rng(0)
    whole = all_rows(FeatureBank(task, folder=tmp_path))
    folder = table_of(tmp_path, "Audio")
    header = np.lib.format.open_memmap(folder / "features.npy", "r").offset
    size = {path.name: path.stat().st_size for path in folder.iterdir()}
    places = [("features.npy", byte) for byte in random.integers(header, size["features.npy"], 25)]
    places += [("features.npy", byte) for byte in random.integers(0, header, 10)]
    places += [("bank.json", byte) for byte in random.integers(0, size["bank.json"], 15)]
    for name, byte in places:
        content, bit = (folder / name).read_bytes(), 8 * int(byte) + int(random.integers(8))
        flip(folder / name, bit)
        with pytest.raises(FeatureError) as error:
            all_rows(FeatureBank(task, folder=tmp_path))
        said = str(error.value)
        assert said.startswith(f"{folder / name}: ") and "\n" not in said
        assert said.endswith(f"; delete {folder} to have it made again")
        if byte >= header and name == "features.npy":
            shard = (byte - header) // 352
            which = f"items {4 * shard} … {4 * shard + 3} of 'Audio' changed"
            assert f"shard {shard}: found {which} since they were written" in said
        (folder / name).write_bytes(content)
    again = all_rows(FeatureBank(task, folder=tmp_path))
    assert all(torch.equal(again[0][name], values) for name, values in whole[0].items())


def test_a_shard_is_checked_when_it_is_first_read(tmp_path, small_shards):
    FeatureBank(tiny_task(), folder=tmp_path)
    path = table_of(tmp_path, "Audio") / "features.npy"
    flip(path, 8 * path.stat().st_size - 1)  # of item 95, the last of test
    bank = FeatureBank(tiny_task(), folder=tmp_path)
    assert bank.shapes["Audio_1"] == (5, 4)
    bank.batch("train", torch.arange(48), next_rows=torch.arange(4))
    bank.batch("test", torch.arange(20))
    for read in (lambda: bank.batch("test", torch.tensor([20])), lambda: bank.features):
        with pytest.raises(FeatureError, match="shard 23: found items 92 … 95 of 'Audio' changed"):
            read()


def test_an_unfinished_bank_is_made_again(tmp_path):
    bank = damaged(tmp_path, lambda folder: (folder / "bank.json").unlink())
    assert equal(bank, FeatureBank(tiny_task(), folder=tmp_path / "other"))


class Killed(BaseException):
    """Ends an extraction, as the end of the process would."""


@pytest.fixture
def frequent_flushes(monkeypatch):
    """Flush every eight items, which go through the backbone four at a time."""
    monkeypatch.setattr("bmnas_core.feature_files.FLUSH_EVERY", 8)
    monkeypatch.setattr("bmnas_core.features.MAX_VALUES_PER_FORWARD", 4 * 4 * 6)


def killed_after(monkeypatch, items: int):
    """End the process after ``items`` inputs have been read in it."""
    read, left = ReadNpy.__call__, [items]

    def reading(self, item, random):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return read(self, item, random)

    monkeypatch.setattr(ReadNpy, "__call__", reading)


@pytest.mark.parametrize("items", [1, 21, 96, 97, 130])
def test_a_killed_extraction_goes_on_from_its_last_flush(
    tmp_path, monkeypatch, frequent_flushes, items
):
    task = in_files(tiny_task(), tmp_path / "data")
    whole = FeatureBank(task, folder=tmp_path / "unbroken", workers=0)
    with monkeypatch.context() as patch:
        killed_after(patch, items)
        with pytest.raises(Killed):
            FeatureBank(task, folder=tmp_path / "banks", workers=0)
    keys = {name: table_of(tmp_path / "unbroken", name).name for name in ("Image", "Audio")}
    names = {path.name for path in folders(tmp_path / "banks")}
    unfinished = keys["Image"] if items < 97 else keys["Audio"]
    finished = {keys["Image"]} if items >= 97 else set()
    assert names == {f".{unfinished}.part"} | finished
    read = []
    with monkeypatch.context() as patch:
        original = ReadNpy.__call__
        patch.setattr(ReadNpy, "__call__", lambda *a: read.append(a[1]) or original(*a))
        bank = FeatureBank(task, folder=tmp_path / "banks", workers=0)
    # The first input of each modality is read once more, for its shape.
    kept = (items - 1) // 8 * 8 if items <= 97 else 96 + (items - 98) // 8 * 8
    assert len(read) - (2 if kept < 96 else 1) == 2 * 96 - kept
    for key in keys.values():
        files = [
            folder / key / "features.npy" for folder in (tmp_path / "unbroken", tmp_path / "banks")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert equal(bank, whole)
    assert {path.name for path in folders(tmp_path / "banks")} == {*keys.values()}


def test_an_extraction_whose_progress_is_damaged_starts_again(
    tmp_path, monkeypatch, frequent_flushes
):
    task = in_files(tiny_task(), tmp_path / "data")
    whole = FeatureBank(task, folder=tmp_path / "unbroken", workers=0)
    for damage in ("{", "[]", '{"format": 3}', 5, -8):
        with monkeypatch.context() as patch:
            killed_after(patch, 40)
            with pytest.raises(Killed):
                FeatureBank(task, folder=tmp_path / "banks", workers=0)
        (part,) = (tmp_path / "banks").glob(".*.part")
        if isinstance(damage, str):
            (part / "progress.json").write_text(damage)
        else:
            values = (part / "features.npy").read_bytes()
            (part / "features.npy").write_bytes(values[:damage])
        assert equal(FeatureBank(task, folder=tmp_path / "banks", workers=0), whole)
        shutil.rmtree(tmp_path / "banks")


def test_a_resumed_extraction_checks_what_it_keeps(tmp_path, monkeypatch, frequent_flushes):
    task = in_files(tiny_task(), tmp_path / "data")
    whole = FeatureBank(task, folder=tmp_path / "unbroken", workers=0)
    with monkeypatch.context() as patch:
        killed_after(patch, 40)
        with pytest.raises(Killed):
            FeatureBank(task, folder=tmp_path / "banks", workers=0)
    (part,) = (tmp_path / "banks").glob(".*.part")
    flip(part / "features.npy", 8 * (128 + 88 * 10 + 3))
    read, original = [], ReadNpy.__call__
    with monkeypatch.context() as patch:
        patch.setattr(ReadNpy, "__call__", lambda *a: read.append(a[1]) or original(*a))
        bank = FeatureBank(task, folder=tmp_path / "banks", workers=0)
    # First the one that tells the shape of an input; then of Image what was damaged or is left.
    assert read[: 1 + 8 + 96 - 32] == [0, *range(8, 16), *range(32, 96)]
    assert equal(bank, whole)
    name = table_of(tmp_path / "banks", "Image").name
    files = [tmp_path / folder / name / "bank.json" for folder in ("unbroken", "banks")]
    assert files[0].read_bytes() == files[1].read_bytes()


SLOW_BANK = """
import sys, time
from pathlib import Path
from bmnas_core import FeatureBank
from tiny import ReadNpy, in_files, tiny_task
read, place = ReadNpy.__call__, Path(sys.argv[1])

def reading(self, item, random):
    with open(place / "log", "a") as log:
        log.write(f"{self.folder.name} {item}\\n")
    time.sleep(0.01)
    return read(self, item, random)

ReadNpy.__call__ = reading
bank = FeatureBank(in_files(tiny_task(), place / "data"), folder=place / "banks", workers=0)
print(float(bank.batch("train", bank.splits["train"][0][:, 0])[0]["Image_1"].sum()))
"""


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_a_killed_one_blocks_nobody(tmp_path):
    in_files(tiny_task(), tmp_path / "data")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", SLOW_BANK, tmp_path]
    pipes, log = {"stdout": subprocess.PIPE, "text": True, "env": env}, tmp_path / "log"
    killed = subprocess.Popen(command, **pipes)
    others = [subprocess.Popen(command, **pipes) for _ in range(2)]
    while not (log.exists() and "Image 40" in log.read_text(encoding="utf-8")):
        time.sleep(0.01)
    killed.kill()
    said = {process.communicate(timeout=60)[0] for process in others}
    assert len(said) == 1 and all(process.returncode == 0 for process in others)
    read = log.read_text(encoding="utf-8").splitlines()
    assert len(set(read)) == 2 * 96
    assert len(read) < 3 * 96  # once but for what was lost, and for the shapes of inputs


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


LINUX = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only Linux has the call")


@pytest.mark.parametrize(
    "call", [pytest.param((os, "posix_fallocate"), marks=LINUX), (np.memmap, "flush")]
)
def test_a_bank_that_cannot_be_written_says_where_and_goes_on_later(tmp_path, monkeypatch, call):
    task = tiny_task()
    with monkeypatch.context() as patch:
        patch.setattr(*call, full)
        with pytest.raises(FeatureError, match="part: No space left on device; what was extr"):
            FeatureBank(task, folder=tmp_path)
    assert bool(list(tmp_path.rglob("*.npy"))) == (call[1] == "flush")
    assert equal(FeatureBank(task, folder=tmp_path), FeatureBank(task, folder=tmp_path / "other"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say what has holes")
@pytest.mark.parametrize("platform", ["Linux", "macOS"])
def test_a_file_of_features_has_no_holes_before_it_is_written_to(tmp_path, monkeypatch, platform):
    task = in_files(tiny_task(), tmp_path / "data")
    monkeypatch.setattr("bmnas_core.features.MAX_VALUES_PER_FORWARD", 1)  # an item at a time
    other = FeatureBank(task, folder=tmp_path / "other", workers=0)
    if platform == "macOS":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    holes, read = [], ReadNpy.__call__

    def reading(self, item, random):
        stats = (path.stat() for path in (tmp_path / "banks").glob(".*.part/features.npy"))
        holes.extend(stat.st_size - 512 * stat.st_blocks for stat in stats)
        return read(self, item, random)

    monkeypatch.setattr(ReadNpy, "__call__", reading)
    bank = FeatureBank(task, folder=tmp_path / "banks", workers=0)
    # It is created once the first items have told its shape.
    assert len(holes) >= 96 and max(holes) <= 0
    assert equal(bank, other)


FULL_DISK = """
import shutil, sys, types
from bmnas_core import FeatureBank
from tiny import tiny_task
shutil.disk_usage = lambda _: types.SimpleNamespace(free=1 << 40)  # it filled up since
FeatureBank(tiny_task(), folder=sys.argv[1])
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_is_an_error_and_no_crash(tmp_path):
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    mount = 'mount -t tmpfs -o size=8k none "$0"; exec "$@"'
    try:
        subprocess.run([*inside, mount, tmp_path, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here ({error})")
    command = [*inside, mount, tmp_path, sys.executable, "-c", FULL_DISK, tmp_path]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 1  # not SIGBUS
    assert ".part: No space left on device; what was extracted" in done.stderr.splitlines()[-1]


def test_a_bank_larger_than_the_disk_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(FeatureError, match=r"the features need 0.00 GB; found 0.00"):
        FeatureBank(tiny_task(), folder=tmp_path)


def test_features_too_large_for_half_precision_are_refused_by_name_and_item(tmp_path):
    task = tiny_task()
    task.modalities[1].inputs[70] *= 1e6
    FeatureBank(task)
    with pytest.raises(FeatureError, match="'Audio_1' of item 70: found .*at most 65504"):
        FeatureBank(task, folder=tmp_path)


@pytest.mark.parametrize("folder", [None, "banks"])
def test_items_that_cannot_be_read_are_left_out_with_their_samples(tmp_path, folder):
    task = in_files(tiny_task(), tmp_path / "data")
    whole = FeatureBank(task, folder=folder and tmp_path / "whole")
    for place in ("Image/3.npy", "Audio/5.npy", "Audio/50.npy"):
        (tmp_path / "data" / place).write_bytes(b"no array")
    task = in_files(tiny_task(), tmp_path / "data")
    for _ in range(2 if folder else 1):
        with pytest.warns(DataWarning, match="cannot be read: 3 left out: Image .*3") as caught:
            bank = FeatureBank(task, folder=folder and tmp_path / folder)
        assert {name: list(items) for name, items in bank.skipped.items()} == {
            "Image": [3],
            "Audio": [5, 50],
        }
        assert "5.npy: cannot be read" in bank.skipped["Audio"][5]
        assert ("tried again, delete" in str(caught[0].message)) == bool(folder)
        assert bank.content_hash != whole.content_hash
        assert len(bank.content_hash) == len(whole.content_hash)
        assert [bank.size(s) for s in ("train", "validation", "test")] == [46, 23, 24]
        kept = torch.tensor([i for i in range(48) if i not in (3, 5)])
        (left, labels), (all_, same) = (
            bank.batch("train", torch.arange(46)), whole.batch("train", kept)
        )  # fmt: skip
        assert torch.equal(labels, same)
        assert all(torch.equal(left[name], all_[name]) for name in all_)


def test_a_disk_that_is_gone_is_not_mistaken_for_damaged_files(
    tmp_path, monkeypatch, frequent_flushes
):
    monkeypatch.setattr("bmnas_core.feature_files.MAX_UNREADABLE_RUN", 8)
    task = in_files(tiny_task(), tmp_path / "data")
    whole = FeatureBank(task, folder=tmp_path / "unbroken", workers=0)
    read = ReadNpy.__call__
    with monkeypatch.context() as patch:

        def gone(self, item, random):
            if item >= 41:
                raise DataError(f"{item}: stale file handle")
            return read(self, item, random)

        patch.setattr(ReadNpy, "__call__", gone)
        with pytest.raises(DataError, match="Image: items 48 … 55: none can be read, .*48: stale"):
            FeatureBank(task, folder=tmp_path / "banks", workers=0)
    with pytest.warns(DataWarning, match="7 left out"):  # those before the run
        bank = FeatureBank(task, folder=tmp_path / "banks", workers=0)
    assert bank.size("train") == whole.size("train") - 7


@pytest.fixture
def in_process_cluster():
    distributed = pytest.importorskip("distributed")
    how = {"processes": False, "n_workers": 2, "threads_per_worker": 2}
    with (
        distributed.LocalCluster(**how, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_cluster_resumes_an_extraction_and_keeps_it_if_it_ends(
    tmp_path, monkeypatch, frequent_flushes, in_process_cluster
):
    task, read = in_files(tiny_task(), tmp_path / "data"), ReadNpy.__call__
    (tmp_path / "data" / "Audio" / "5.npy").write_bytes(b"no array")
    how = {"folder": tmp_path / "banks", "client": in_process_cluster, "device": "cpu"}
    with pytest.warns(DataWarning, match="5.npy"):
        whole = FeatureBank(task, folder=tmp_path / "unbroken", workers=0)

    def reading(self, item, random):
        if item == 50:
            end = time.monotonic() + 20
            while not [*how["folder"].glob(".*.part/progress.json")] and time.monotonic() < end:
                time.sleep(0.01)  # until something is kept, however busy the machine
            threading.Thread(target=in_process_cluster.close).start()
        return read(self, item, random)

    with monkeypatch.context() as patch:
        patch.setattr(ReadNpy, "__call__", reading)
        with pytest.raises(DataError, match="^cluster: found it ended .*; what was extracted befo"):
            FeatureBank(task, **how)
    (progress,) = (tmp_path / "banks").glob(".*.part/progress.json")
    sums = json.loads(progress.read_text(encoding="utf-8"))["sums"]
    kept = [8 * k + i for k, value in enumerate(sums) if value is not None for i in range(8)]
    assert 0 < len(kept) < 96
    items = []
    monkeypatch.setattr(ReadNpy, "__call__", lambda *a: items.append(a[1]) or read(*a))
    with pytest.raises(FeatureError, match="client: found <Client.*; allowed: a distributed.Cli"):
        FeatureBank(task, **how)
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        pytest.warns(DataWarning, match="5.npy"),
    ):
        bank = FeatureBank(task, **how | {"client": client})
    assert not set(kept) - {0} & set(items[: 96 - len(kept)])
    assert equal(bank, whole) and bank.content_hash == whole.content_hash


@pytest.mark.nightly
@pytest.mark.slow
def test_a_cluster_extracts_the_same_even_if_a_worker_is_killed(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("bmnas_core.feature_files.FLUSH_EVERY", 32)
    task = load_task("mmimdb", sample=True)
    alone = FeatureBank(task, folder=tmp_path / "alone", device="cpu", workers=0)
    how = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
        worker = next(iter(client.run(os.getpid).values()))

        def kill():
            while not list((tmp_path / "banks").glob(".*.part/progress.json")):
                time.sleep(0.01)
            os.kill(worker, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        bank = FeatureBank(task, folder=tmp_path / "banks", device="cpu", client=client)
        assert worker not in client.run(os.getpid).values()
    assert bank.content_hash == alone.content_hash
    for path in (tmp_path / "alone").glob("*/*"):
        assert path.read_bytes() == (tmp_path / "banks" / path.parent.name / path.name).read_bytes()


@pytest.mark.parametrize("client, found", [(3, "3"), ("tcp://127.0.0.1:1", "'tcp:.*'")])
def test_a_client_that_is_none_is_refused(tmp_path, client, found):
    pytest.importorskip("distributed")
    with pytest.raises(FeatureError, match=f"client: found {found}; allowed: a distributed.Client"):
        FeatureBank(tiny_task(), folder=tmp_path, client=client)
    with pytest.raises(FeatureError, match="client: found no folder; allowed: a folder for feat"):
        FeatureBank(tiny_task(), client=client)


@pytest.mark.parametrize("folder", ["file", 5])
def test_a_path_that_is_not_a_folder_is_refused(tmp_path, folder):
    (tmp_path / "file").touch()
    folder = tmp_path / folder if isinstance(folder, str) else folder
    with pytest.raises(FeatureError, match="folder: found .*; allowed: the path of a folder that"):
        FeatureBank(tiny_task(), folder=folder)


@pytest.mark.parametrize("workers", [-1, "2", 1.0, True])
def test_an_invalid_number_of_workers_is_refused(tmp_path, workers):
    task = in_files(tiny_task(), tmp_path)
    with pytest.raises(DataError, match="workers: found .*; allowed: an int"):
        FeatureBank(task, workers=workers)


def test_a_bank_on_another_device_is_refused():
    task = tiny_task()
    bank = FeatureBank(task, device="cpu")
    bank.device = torch.device("meta")
    with pytest.raises(FeatureError, match="bank: found one on 'meta'; allowed: on 'cpu', as "):
        FeatureBank.shared(task, None, "cpu", bank)


def test_a_backbone_returns_to_its_device():
    task = tiny_task()
    moved = []
    for modality in task.modalities:
        to = modality.backbone.to
        modality.backbone.to = lambda device, to=to: moved.append(str(device)) or to(device)
    FeatureBank(task)
    assert moved == ["cpu"] * 4  # there and back


def test_at_most_four_batches_are_prefetched(tmp_path):
    bank = FeatureBank(tiny_task(), folder=tmp_path)
    for k in range(9):
        bank.batch("train", torch.tensor([k]), next_rows=torch.tensor([40 + k % 5, k]))
    assert len(bank._store._prefetched) == 4


def test_a_split_of_which_nothing_can_be_read_is_refused(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    for item in range(48, 72):
        (tmp_path / "Audio" / f"{item}.npy").unlink()
    with pytest.warns(DataWarning), pytest.raises(DataError, match="split 'validation': none of"):
        FeatureBank(task)


def test_workers_read_the_same_as_the_process_itself(tmp_path):
    task = in_files(tiny_task(), tmp_path)
    assert equal(FeatureBank(task, workers=0), FeatureBank(task, workers=2))
    batches = list(torch.arange(48).split(7))
    for random in (None, (3, "noise")):
        one, two = (
            list(RawInputs(task, workers=n).batches("train", batches, random)) for n in (0, 2)
        )
        for (a, labels), (b, same) in zip(one, two, strict=True):
            assert torch.equal(labels, same)
            assert all(torch.equal(a[name], b[name]) for name in ("Image", "Audio"))


def test_augmentation_follows_the_seed_and_the_sample_not_the_batch(tmp_path):
    raw = RawInputs(in_files(tiny_task(), tmp_path), workers=0)

    def read(batches, *random):
        parts = [inputs["Image"] for inputs, _ in raw.batches("train", batches, random)]
        return torch.cat(parts)

    together = read([torch.arange(6)], 0, "epoch", 1)
    assert torch.equal(together, read(list(torch.arange(6).split(2)), 0, "epoch", 1))
    assert not torch.equal(together, read([torch.arange(6)], 0, "epoch", 2))
    plain = raw.batch("train", torch.arange(6))[0]["Image"]
    assert not torch.equal(together, plain)


@pytest.mark.parametrize("value, kind", [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_features_that_are_not_finite_are_refused_by_name_and_item(tmp_path, value, kind):
    task = tiny_task()
    task.modalities[1].inputs[70, 2, 3] = value
    for folder in (None, tmp_path):
        with pytest.raises(
            FeatureError, match=f"feature 'Audio_1' of item 70: found {kind}; allow"
        ):
            FeatureBank(task, folder=folder)
    image = table_of(tmp_path, "Image")  # it is whole, and what was written of Audio is gone
    assert folders(tmp_path) == {image}


class Wrong(TinyBackbone):
    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda f: f[:1],
            r"backbone of 'Image': found 1 features; allowed: 2 \(Image_1, Image_2\)",
        ),
        (lambda f: [f[0], f[0]], r"feature 'Image_2': found shape \(96, 5, 6\); allowed: \(96, 6,"),
        (lambda f: [f[0], f[1][:3]], r"feature 'Image_2': found shape \(3, 6, 6\); allowed"),
        (lambda f: f[0], "backbone of 'Image': found a single tensor; allowed: a list of tensors"),
        (lambda f: None, "backbone of 'Image': found NoneType; allowed: a list of tensors"),
        (lambda f: [f[0], 3], "backbone of 'Image': found int; allowed: a list of tensors"),
        (lambda f: [f[0], f[1][..., :0]], r"feature 'Image_2': found shape \(96, 6, 0\)"),
        (lambda f: [f[0].sum((1, 2)), f[1]], r"feature 'Image_1': found shape \(96,\); allowed"),
    ],
)
def test_features_of_the_wrong_number_or_shape_are_refused_by_name(change, message):
    task = tiny_task()
    backbone = Wrong((5, 6))
    backbone.change = change
    object.__setattr__(task.modalities[0], "backbone", backbone)
    with pytest.raises(FeatureError, match=message):
        FeatureBank(task)


@pytest.mark.parametrize("L", [0, -1, "a", 2.0])
def test_an_invalid_length_is_refused(L):
    with pytest.raises(FeatureError, match=f"L: found {L!r}; allowed: an integer of 1 or more"):
        FeatureBank(tiny_task(), L)


def test_a_bank_of_untrained_backbones_says_so(recwarn):
    task = tiny_task()
    FeatureBank(task)
    assert not recwarn
    task.modalities[1].backbone._origin = INITIAL
    with pytest.warns(UserWarning, match="backbone of 'Audio': found initial values; features"):
        FeatureBank(task)


def test_splits_can_be_joined():
    task = tiny_task()
    labels = FeatureBank(task).batch("validation+test", torch.tensor([0, 24]))[1]
    with pytest.raises(TaskError, match="split: found 'train.dev'; allowed: train, validation"):
        FeatureBank(task).batch("train+dev", torch.tensor([0]))
    assert labels.tolist() == [int(task.splits[s].labels[0]) for s in ("validation", "test")]


def test_threads_that_make_the_same_bank_do_not_disturb_each_other(tmp_path):
    tasks = [tiny_task() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        banks = list(pool.map(lambda task: FeatureBank(task, folder=tmp_path), tasks))
    assert all(equal(bank, banks[0]) for bank in banks)
    assert len(folders(tmp_path)) == 2


def test_raw_inputs_are_served_like_a_bank():
    task = tiny_task()
    inputs, labels = RawInputs(task).batch("validation", torch.tensor([1]))
    split = task.split("validation")
    assert torch.equal(labels, split.labels[[1]])
    assert torch.equal(inputs["Audio"], task.modalities[1].inputs[split.index[[1], 1]])


def test_a_bank_is_freed_with_its_task():
    task = tiny_task()
    bank = weakref.ref(FeatureBank.shared(task, None, "cpu"))
    del task
    gc.collect()
    assert bank() is None
