"""Tasks: their parts, digits and avmnist, and data files that are missing or damaged."""

import dataclasses
import gzip
import math
import re
import shutil
import wave

import numpy as np
import pytest
import torch
from tiny import tiny_task

from bmnas_core import (
    BmnasError,
    ConfigError,
    DataError,
    Search,
    Split,
    Task,
    TaskError,
    TrainConfig,
    load_task,
    register_task,
    train_backbone,
)
from bmnas_core.config import Settings
from bmnas_core.tasks import DATA_SETS, TASKS, audio, avmnist, digits, pairs
from bmnas_core.tasks.files import DataSet, asset, read_manifest

# --- any task


def task_with(**changes) -> Task:
    task = tiny_task()
    values = {
        "name": "tiny",
        "rule": "same",
        "classes": 3,
        "metric": "accuracy",
        "modalities": task.modalities,
        "splits": task.splits,
        "config": task.config,
    }
    return Task(**{**values, **changes})


def split_with(index=None, labels=None, name="validation") -> dict:
    task = tiny_task()
    old = task.splits[name]
    new = Split(
        name, old.index if index is None else index, old.labels if labels is None else labels
    )
    return {"splits": {**task.splits, name: new}}


def with_channels(channels) -> dict:
    first, second = tiny_task().modalities
    return {"modalities": (dataclasses.replace(first, channels=channels), second)}


RANGE = torch.arange(48, 72)[:, None].expand(-1, 2)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"modalities": tiny_task().modalities[:1]},
            "tiny: found 1 modality; allowed: two or more",
        ),
        ({"modalities": tiny_task().modalities[:1] * 2}, "modality 'Image' twice"),
        (with_channels({"Image_1": 5, "Audio_1": 6}), "feature 'Audio_1' twice"),
        (
            with_channels({"Image_1": 5, "C1": 6}),
            r"features\[1\]: found 'C1'; allowed: names other",
        ),
        ({"config": Settings()}, "tiny: config.C: found None; allowed: a value"),
        ({"splits": {}}, "split 'train' is empty"),
        (split_with(RANGE[:0], torch.zeros(0, dtype=torch.long)), "split 'validation' is empty"),
        (
            split_with(RANGE[:, :1]),
            r"'validation': found index of shape \(24, 1\); allowed: \(24, 2",
        ),
        (split_with(RANGE + 60), "split 'validation': found Image items 108…131; allowed: 0…95"),
        (split_with(RANGE - 60), "split 'validation': found Image items -12…11; allowed: 0…95"),
        (split_with(RANGE - 30), "Image item 18 is in more than one split; allowed: one"),
        (split_with(labels=torch.full((24,), 3)), "found labels 3…3; allowed: 0…2"),
        (
            split_with(labels=torch.zeros(24, 5).long()),
            r"found labels of shape \(24, 5\); allowed: \(n,\), or \(n, 3\)",
        ),
        (split_with(labels=torch.full((24, 3), 2)), "found labels 2…2; allowed: 0…1"),
        (split_with(labels=torch.zeros(24)), r"found labels \(n,\) of values; allowed: \(n, 3\)"),
        (split_with(labels=torch.zeros(24, 3)), "found labels of kinds classes, values; allowed"),
        (split_with(labels=torch.zeros(24).double()), "found labels of torch.float64; allowed: to"),
        (split_with(labels=torch.zeros(24, 3, 1).long()), r"found labels of shape \(24, 3, 1\)"),
        (split_with(RANGE.float()), "found index of torch.float32; allowed: torch.int64"),
    ],
)
def test_a_task_that_does_not_hold_together_is_refused(changes, message):
    with pytest.raises(TaskError, match=message):
        task_with(**changes)


PARTS = {"Task": tiny_task(), "Modality": tiny_task().modalities[0]}
PARTS["Split"] = tiny_task().splits["train"]


@pytest.mark.parametrize(
    "part, field", [(part, f.name) for part in PARTS for f in dataclasses.fields(PARTS[part])]
)
def test_a_field_of_another_type_is_refused_by_name(part, field):
    message = rf"^{part}\.{field}: found <object object at .*>; allowed: \S"
    with pytest.raises(TaskError, match=message):
        dataclasses.replace(PARTS[part], **{field: object()})


@pytest.mark.parametrize(
    "part, changes, message",
    [
        ("Task", {"modalities": "ab"}, "Task.modalities: found 'ab'; allowed: a tuple"),
        ("Task", {"modalities": [1, 2]}, "Task.modalities[0]: found 1; allowed: a Modality"),
        ("Task", {"splits": {"train": 3}}, "Task.splits['train']: found 3; allowed: a Split"),
        ("Task", {"splits": {0: 3}}, "Task.splits: key: found 0; allowed: text"),
        ("Task", {"classes": True}, "Task.classes: found True; allowed: an integer"),
        ("Task", {"rule": 3}, "Task.rule: found 3; allowed: text"),
        ("Modality", {"channels": {"a": "5"}}, "Modality.channels['a']: found '5'; allowed: an i"),
        ("Modality", {"channels": {}}, "Image: channels: found {}; allowed: feature names, each"),
        ("Modality", {"channels": {"a": 0}}, "Image: channels: found {'a': 0}; allowed: feature"),
        ("Modality", {"pooling": "max"}, "Image: pooling: found 'max'; allowed: grid, time"),
        ("Modality", {"inputs": [[1.0]]}, "inputs: found [[1.0]]; allowed: a Tensor or a FileInp"),
        ("Split", {"index": torch.tensor(3)}, "split 'train': found a single number; allowed: in"),
        ("Split", {"labels": torch.tensor(3)}, "split 'train': found a single number; allowed: i"),
    ],
)
def test_a_part_of_a_task_that_does_not_fit_is_refused_by_name(part, changes, message):
    with pytest.raises(TaskError, match=re.escape(message)):
        dataclasses.replace(PARTS[part], **changes)


def test_modalities_may_be_a_list():
    modalities = tiny_task().modalities
    assert task_with(modalities=[*modalities]).modalities == modalities


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(
        TaskError, match="tiny: metric: found 'auc'; allowed: accuracy, balanced_accuracy, f1"
    ):
        Search(task_with(metric="auc"), device="cpu")


def test_a_task_lists_its_features_items_and_splits():
    task = tiny_task()
    assert task.features == ("Image_1", "Image_2", "Audio_1", "Audio_2")
    assert task.channels == {"Image_1": 5, "Image_2": 6, "Audio_1": 5, "Audio_2": 6}
    assert len(task.split("train+validation")) == 72
    assert torch.equal(task.items("validation", "Audio"), torch.arange(48, 72))
    assert "48 train, 24 validation, 24 test" in repr(task)
    for name in ("dev", "train+dev", ""):
        with pytest.raises(TaskError, match=re.escape(f"split: found {name!r}; allowed: train")):
            task.split(name)
    with pytest.raises(TaskError, match="modality: found 'Text'; allowed: Image, Audio"):
        task.items("train", "Text")


def test_unknown_tasks_and_options_are_refused_with_the_nearest_and_the_known_ones():
    message = r"task: found 'mnist' \(did you mean 'avmnist'\?\); allowed: digits, avmnist, mmimdb"
    with pytest.raises(TaskError, match=message):
        load_task("mnist")
    message = r"found option 'snr' \(did you mean 'snr_db'\?\); allowed: rule, image_energy, snr_db"
    with pytest.raises(TaskError, match=message):
        load_task("digits", snr=3)


def test_an_own_task_is_one_function():
    with TASKS.restored():
        register_task("mine")(lambda rule="x": task_with(rule=rule))
        assert load_task("mine", rule="y").rule == "y"


# --- digits and avmnist


@pytest.fixture(scope="module", params=["digits", "avmnist"])
def name(request):
    if request.param == "avmnist":
        request.getfixturevalue("data_root")
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("rule, classes", [("same", 10), ("sum", 19)])
def test_labels_follow_the_rule_and_splits_share_nothing(name, rule, classes):
    task = load_task(name, rule=rule)
    assert task.classes == classes and task.metric == "accuracy"
    for modality in task.modalities:
        items = [task.items(split, modality.name) for split in task.splits]
        assert len(torch.cat(items).unique()) == sum(map(len, items))
    for split in task.splits.values():
        image, spoken = (m.classes[split.index[:, k]] for k, m in enumerate(task.modalities))
        assert torch.equal(split.labels, image if rule == "same" else image + spoken)
        if rule == "same":
            assert torch.equal(image, spoken)
        assert len(split.labels.unique()) == classes


@pytest.mark.slow
def test_items_of_a_split_are_used_equally_often_or_once_more(name):
    task = load_task(name, rule="sum")
    for column in task.split("train").index.T:
        times = column.unique(return_counts=True)[1]
        assert times.max() - times.min() <= 1


@pytest.mark.slow
def test_inputs_are_finite_and_backbones_come_with_the_kit_in_evaluation_mode(name, monkeypatch):
    monkeypatch.setattr(pairs, "train_on_items", None)  # weights come from the kit's assets
    task = load_task(name, rule="same")
    for modality in task.modalities:
        assert modality.inputs.isfinite().all() and not modality.backbone.training
    assert task.modalities[1].inputs.shape[1:] == (1, audio.MELS, audio.FRAMES)
    assert pairs.backbones_file(task).stat().st_size < 500_000


def test_loading_twice_gives_the_same_task():
    one, other = load_task("digits"), load_task("digits")
    for a, b in zip(one.modalities, other.modalities, strict=True):
        assert a.fingerprint() == b.fingerprint()
    assert torch.equal(one.split("test").index, other.split("test").index)


def test_no_two_clips_and_no_two_images_are_the_same(name):
    data = digits._read() if name == "digits" else avmnist._read(avmnist.DATA.require())
    for items in (data.images, data.speech):
        contents = items.flatten(1)
        assert len(contents.unique(dim=0)) == len(contents)


def test_speakers_do_not_cross_splits():
    task = load_task("digits")
    with np.load(asset("digits/speech.npz")) as file:
        voice = torch.from_numpy(file["voice"].astype(int))
    voices = [set(voice[task.items(split, "Audio")].tolist()) for split in task.splits]
    assert not voices[0] & voices[1] and not voices[1] & voices[2] and not voices[0] & voices[2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rule": "product"}, "rule: found 'product'; allowed: same, sum, voice"),
        ({"image_energy": 0}, "image_energy: found 0; allowed: above 0, at most 1"),
        ({"image_energy": 1.5}, "image_energy: found 1.5; allowed"),
        ({"image_energy": "half"}, "image_energy: found 'half'; allowed"),
        ({"snr_db": math.nan}, "snr_db: found nan; allowed: decibels of -100 or more, or inf"),
        ({"snr_db": -math.inf}, "snr_db: found -inf; allowed"),
        ({"snr_db": -4000}, "snr_db: found -4000; allowed"),
        ({"image_energy": True}, "image_energy: found True; allowed"),
        ({"rule": ["sum"]}, r"rule: found \['sum'\]; allowed"),
    ],
)
def test_knobs_out_of_range_are_refused(options, message):
    with pytest.raises(TaskError, match=message):
        load_task("digits", **options)


def test_a_backbone_seed_that_is_no_integer_is_refused():
    with pytest.raises(ConfigError, match="seed: found 'x'; allowed: an integer"):
        load_task("digits", backbone_seed="x")


def test_image_energy_keeps_its_share_of_the_training_variance():
    images = digits._read().images
    train = digits._read().image_split["train"]

    def variance(values):
        flat = values[train].flatten(1).double()
        return float((flat - flat.mean(0)).square().sum())

    for share in (0.25, 0.75):
        kept = variance(pairs.keep_energy(images, share, train)) / variance(images)
        assert share <= kept < share + 0.15
    assert torch.equal(pairs.keep_energy(images, 1, train), images)


def test_components_are_fitted_on_training_images_alone():
    images = digits._read().images.clone()
    train, test = (digits._read().image_split[s] for s in ("train", "test"))
    before = pairs.keep_energy(images, 0.5, train)[train]
    images[test] = images[test].flip(-1) * 3
    assert torch.equal(pairs.keep_energy(images, 0.5, train)[train], before)


@pytest.mark.nightly
@pytest.mark.slow
def test_other_knobs_train_backbones_once_and_keep_them(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_CACHE", str(tmp_path))
    monkeypatch.setattr(pairs, "PRETRAINING", dataclasses.replace(pairs.PRETRAINING, epochs=1))
    task = load_task("digits", image_energy=0.9)
    assert len(list((tmp_path / "backbones").iterdir())) == 1
    monkeypatch.setattr(pairs, "train_on_items", None)
    again = load_task("digits", image_energy=0.9)
    assert [m.fingerprint() for m in again.modalities] == [m.fingerprint() for m in task.modalities]


@pytest.mark.slow
def test_train_backbone_trains_as_the_weights_of_the_task_were_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_CACHE", str(tmp_path))
    monkeypatch.setattr(pairs, "PRETRAINING", dataclasses.replace(pairs.PRETRAINING, epochs=2))
    task, other = (load_task("digits", rule="sum", image_energy=e) for e in (0.9, 0.75))
    image = dataclasses.replace(other.modality("Image"), inputs=task.modality("Image").inputs)
    other = dataclasses.replace(other, modalities=(image, other.modality("Audio")))

    def draws(record):
        torch.rand(3)  # changes nothing of what follows
        seen.append(record)

    seen = []
    classifier, history = train_backbone(
        other, "Image", device="cpu", progress=False, on_epoch=draws
    )
    trained, expected = image.backbone, task.modality("Image").backbone
    assert not trained.training
    for found, wanted in zip(trained.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert seen == history and [record["epoch"] for record in history] == [1, 2]
    assert history[1]["train_loss"] < history[0]["train_loss"] and history[1]["seconds"] > 0
    items = task.items("validation", "Image")
    right = classifier(image.inputs[items]).argmax(1) == image.classes[items]
    assert history[1]["validation_score"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_backbone_learns_the_classes_of_items_of_any_shape(device):
    task = tiny_task()
    audio = dataclasses.replace(task.modality("Audio"), classes=task.modality("Audio").classes % 2)
    task = dataclasses.replace(task, modalities=(task.modalities[0], audio))
    config = TrainConfig(epochs=8, max_lr=0.05)
    classifier, history = train_backbone(task, "Audio", config, device=device, progress=False)
    assert classifier(audio.inputs[:3].to(device)).shape == (3, 2)
    assert len(history) == 8 and history[-1]["train_loss"] < 0.6 < history[0]["train_loss"]
    with pytest.raises(BmnasError, match="training loss in epoch 1: found nan; allowed: finite"):
        config = TrainConfig(epochs=1, max_lr=1e30)
        train_backbone(task, "Audio", config, device=device, progress=False)


def test_weights_are_read_only_into_the_task_they_were_trained_on(tmp_path):
    task = load_task("digits", rule="sum")
    path = pairs.save_backbones(task, tmp_path / "weights.safetensors")
    assert pairs.load_backbones(task, path)
    assert not pairs.load_backbones(load_task("digits", rule="same"), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="weights.safetensors: found no weights of this task's"):
        pairs.load_backbones(task, path)


# --- sound


def test_mel_bands_add_up_to_the_power_of_the_sound():
    filters = audio.mel_filters()
    assert filters.shape == (audio.MELS, audio.WINDOW // 2 + 1)
    inner = filters.sum(0)[4:-9]
    torch.testing.assert_close(inner, torch.ones_like(inner), rtol=0, atol=1e-4)


def test_a_tone_is_loud_in_its_band():
    time = torch.arange(audio.SAMPLES) / audio.SAMPLE_RATE
    loudest = [
        int(audio.mel_power(torch.sin(2 * math.pi * hz * time)).mean(1).argmax())
        for hz in (200, 1000, 3500)
    ]
    assert loudest == sorted(loudest) and loudest[0] < 6 and loudest[2] > 26


def test_noise_has_the_signal_to_noise_ratio_that_was_given():
    time = torch.arange(audio.SAMPLES) / audio.SAMPLE_RATE
    power = audio.mel_power(torch.sin(2 * math.pi * 1000 * time).expand(64, -1))
    for snr in (-10.0, 0.0, 20.0):
        noisy = audio.add_noise(power, snr, torch.Generator().manual_seed(0))
        added = (noisy - power).sum(1).mean()
        found = 10 * math.log10(power.sum(1).mean() / added)
        assert found == pytest.approx(snr, abs=0.3)
    assert torch.equal(audio.add_noise(power, math.inf, torch.Generator()), power)


def test_log_mel_lies_between_minus_one_and_one_at_any_level():
    power = torch.rand(4, audio.MELS, audio.FRAMES) ** 8
    levels = audio.log_mel(power)
    assert levels.min() >= -1 and levels.flatten(1).amax(1).tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(audio.log_mel(power * 1e-3), levels)
    assert audio.log_mel(torch.zeros(1, audio.MELS, audio.FRAMES)).isfinite().all()


def test_sounds_are_cut_or_followed_by_silence():
    assert audio.fit_length(torch.ones(10)).tolist()[:12] == [1] * 10 + [0] * 2
    assert len(audio.fit_length(torch.ones(9999))) == audio.SAMPLES


# --- files


@pytest.fixture
def copy(data_root, tmp_path, monkeypatch):
    """A folder of its own with the files of avmnist, for $BMNAS_DATA."""
    for name in avmnist.DATA.manifest():
        target = tmp_path / "avmnist" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data_root / "avmnist" / name, target)
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    return tmp_path / "avmnist"


def test_the_files_of_a_task_are_checked_by_content(copy):
    assert avmnist.DATA.check() == []
    recording = copy / "fsdd" / "recordings" / "7_theo_3.wav"
    recording.write_bytes(recording.read_bytes()[:-100])
    (copy / avmnist.LABELS).unlink()
    problems = avmnist.DATA.check()
    assert len(problems) == 2
    assert any("7_theo_3.wav: found" in p and "SHA-256" in p for p in problems)
    assert any(p.endswith("t10k-labels-idx1-ubyte.gz: missing") for p in problems)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "truncated", "wrong hash", "empty"])
def test_a_task_with_a_wrong_file_is_refused_by_its_name(copy, damage):
    path = copy / avmnist.IMAGES
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        changed = {"truncated": content[:-9], "wrong hash": content[:-1] + b"x", "empty": b""}
        path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"data of task 'avmnist': .*t10k-images.*bmnas data fetch"):
        load_task("avmnist")


def unpacked(content, name):
    return gzip.decompress(content), name.removesuffix(".gz")


LEFT_BEHIND = {
    "unpacked": unpacked,
    "unpacked, with a dot": lambda c, n: (gzip.decompress(c), n[:-3].replace("-idx", ".idx")),
    "with a dot": lambda c, n: (c, n.replace("-idx", ".idx")),
    "packed anew": lambda c, n: (gzip.compress(gzip.decompress(c), 1, mtime=7), n),
    "packed, without .gz": lambda c, n: (c, n.removesuffix(".gz")),
    "unpacked, with .gz": lambda c, n: (gzip.decompress(c), n),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", LEFT_BEHIND)
def test_mnist_is_known_by_its_contents_however_it_was_unpacked(copy, how):
    usual = [avmnist.read_idx(copy / name) for name in (avmnist.IMAGES, avmnist.LABELS)]
    for name in (avmnist.IMAGES, avmnist.LABELS):
        content, other = LEFT_BEHIND[how]((copy / name).read_bytes(), name)
        (copy / name).unlink()
        (copy / other).write_bytes(content)
    assert avmnist.DATA.check() == []
    for name, expected in zip((avmnist.IMAGES, avmnist.LABELS), usual, strict=True):
        assert np.array_equal(avmnist.read_idx(avmnist.DATA.locate(name)), expected)
    where = avmnist.DATA.locate(avmnist.IMAGES)
    content = bytearray(avmnist.read_bytes(where, unpack=True))
    content[5000] ^= 1  # one pixel
    where.write_bytes(content)
    (problem,) = avmnist.DATA.check()
    assert problem.startswith(f"{where}: found 7840016 bytes with SHA-256 ")


def test_mnist_may_lie_in_folders_called_like_its_files(copy):
    for name in (avmnist.IMAGES, avmnist.LABELS):
        content, path = gzip.decompress((copy / name).read_bytes()), copy / name[:-3]
        (copy / name).unlink()
        path.mkdir()
        (path / path.name.replace("-idx", ".idx")).write_bytes(content)
    assert avmnist.DATA.check() == []
    assert avmnist.read_idx(avmnist.DATA.locate(avmnist.IMAGES)).shape == (10_000, 28, 28)


def test_a_broken_download_beside_the_right_file_is_passed_over(copy):
    packed = copy / avmnist.IMAGES
    content = packed.read_bytes()
    packed.with_suffix("").write_bytes(gzip.decompress(content))
    packed.write_bytes(content[:1000])
    assert avmnist.DATA.check() == [] and avmnist.DATA.locate(avmnist.IMAGES).suffix == ""


def test_a_file_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bmnas_core.reading.MOST_BYTES", 1 << 20)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(2 << 20)))
    with pytest.raises(DataError, match="x.gz: cannot be read .unpacks to more than 1,048,576 by"):
        avmnist.read_idx(tmp_path / "x.gz")


def test_missing_files_are_counted_and_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"and 2999 more\). Set BMNAS_DATA to .*'avmnist', or run"):
        load_task("avmnist")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "found no IDX file of bytes"),
        (b"\x1f\x8b", "found no whole gzip file"),
        (gzip.compress(b"abc", mtime=0)[:-4], "found no whole gzip file"),
        (gzip.compress(b"abc", mtime=0)[:-4] + b"xxxx", "found no whole gzip file"),
        (gzip.compress(b"abc", mtime=0), "found no IDX file of bytes"),
        (
            gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc", mtime=0),
            r"found 3 values; allowed: \(5,\)",
        ),
    ],
)
def test_a_file_that_is_not_in_idx_format_is_refused(tmp_path, content, message):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match=f"x.gz: {message}"):
        avmnist.read_idx(tmp_path / "x.gz")


def test_a_file_that_is_not_a_mono_recording_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(DataError, match="x.wav: found no WAV file"):
        avmnist.read_wave(path)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8)
    with pytest.raises(DataError, match=r"found \(channels, bytes, Hz\) \(2, 2, 8000\); allowed: "):
        avmnist.read_wave(path)


def test_embedded_speech_that_was_changed_is_refused(tmp_path, monkeypatch):
    shutil.copytree(asset("digits"), tmp_path / "digits")
    (tmp_path / "digits" / "speech.npz").write_bytes(b"PK")
    monkeypatch.setattr("bmnas_core.tasks.files.asset", lambda name: tmp_path / name)
    digits._read.cache_clear()
    try:
        with pytest.raises(DataError, match="data of task 'digits': .*speech.npz: found 2 bytes"):
            load_task("digits")
    finally:
        digits._read.cache_clear()


def test_fetching_checks_each_file_before_it_is_put_in_place(tmp_path, monkeypatch):
    """From a folder on this machine: one right file, one with other contents, one missing."""
    source, target = tmp_path / "source", tmp_path / "data"
    source.mkdir()
    (source / "right.bin").write_bytes(b"right")
    (source / "wrong.bin").write_bytes(b"wrong")
    hashes = {"right.bin": read_manifest_hash(b"right"), "wrong.bin": read_manifest_hash(b"other")}
    monkeypatch.setenv("BMNAS_DATA", str(target))

    def data(*names):
        return DataSet(
            name="x",
            title="",
            license="",
            source="",
            manifest=lambda: {name: hashes[name] for name in names},
            url=lambda path: server.url + path,
        )

    with serving(source) as server:
        data("right.bin").fetch()
        assert (target / "x" / "right.bin").read_bytes() == b"right"
        with pytest.raises(DataError, match="data of task 'x': download failed: .*hash"):
            data("wrong.bin").fetch()
        with pytest.raises(DataError, match="data of task 'x': download failed: .*404"):
            hashes["none.bin"] = "0" * 64
            data("none.bin").fetch()
    assert [p.name for p in (target / "x").iterdir()] == ["right.bin"]


def test_embedded_data_have_nothing_to_fetch():
    with pytest.raises(DataError, match="data of task 'digits': comes with the kit"):
        DATA_SETS["digits"].fetch()


def test_every_task_has_files_that_can_be_checked():
    for name, entry in DATA_SETS.items():
        assert entry.name == name and entry.license and entry.source
        assert entry.manifest() if entry.manifest else name in TASKS
    assert set(DATA_SETS) == set(TASKS)


@pytest.mark.parametrize("name", ["mmimdb", "ntu", "egogesture"])
def test_the_papers_data_sets_are_checked_by_reading_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    entry = DATA_SETS[name]
    assert entry.state == "missing"
    (problem,) = entry.check()
    assert str(tmp_path / name) in problem and "BMNAS_DATA" in problem
    with pytest.raises(DataError, match="cannot be fetched, .* into ") as refused:
        entry.fetch()
    assert str(refused.value).endswith(str(tmp_path / name))
    (tmp_path / name).mkdir()
    assert entry.state == "ready" and len(entry.check()) == 1


def test_a_check_reports_samples_that_reading_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    for name in ("S001C002P001R001A001", "S001C002P002R001A001", "S001C002P003R001A001"):
        for kind in ("_rgb.avi", ".skeleton"):
            (tmp_path / "ntu").mkdir(exist_ok=True)
            (tmp_path / "ntu" / f"{name}{kind}").touch()
    empty = DATA_SETS["ntu"].check()
    assert len(empty) == 6 and all(": found an empty file; allowed: one with" in p for p in empty)
    (tmp_path / "ntu" / "S001C002P004R001A001_rgb.avi").touch()
    (problem,) = set(DATA_SETS["ntu"].check()) - set(empty)
    name = str(tmp_path / "ntu" / "S001C002P004R001A001")
    assert problem == f"{name}_rgb.avi: found no S001C002P004R001A001.skeleton"
    assert read_manifest(asset("avmnist/files.sha256"))[avmnist.IMAGES]


def read_manifest_hash(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


class serving:
    """A web server on this machine for one folder."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        import functools
        import http.server
        import threading

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Quiet, directory=str(self.folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_settings_of_a_task_are_checked():
    with pytest.raises(ConfigError, match="Settings.C: found 0; allowed: at least 1"):
        Settings(C=0)


def test_a_task_may_have_any_number_of_modalities_and_features():
    task = tiny_task(("A", "B", "C"), channels=(2,))
    assert task.channels == {"A_1": 2, "B_1": 2, "C_1": 2}
