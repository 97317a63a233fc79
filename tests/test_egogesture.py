"""EgoGesture: the annotation, the frames, what is left out, and the synthetic sample."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bmnas_core import DataError, DataWarning, TaskError
from bmnas_core.backbones.paper import ResNeXt3D, save_checkpoint
from bmnas_core.tasks.inputs import load
from bmnas_core.tasks.paper.egogesture import (
    MEAN,
    PAPER,
    SAMPLE_SIZES,
    SCALES,
    FrameReader,
    egogesture,
    read_annotation,
)
from bmnas_core.tasks.paper.samples import gestures as sample


def write_frames(folder, numbers, picture=None, size=(32, 24), quality=95):
    """Write JPEG files. Without a picture frame k is grey of level 2k."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        frame = picture or Image.new("RGB", size, (2 * number,) * 3)
        frame.save(folder / f"{number:06d}.jpg", quality=quality, subsampling=0)


def entry(subset="training", label="Wave_hand", start="1", end="20"):
    return {
        "subset": subset,
        "annotations": {"label": label, "start_frame": start, "end_frame": end},
    }


def annotate(root, database, labels=("Wave_hand", "Knock")):
    content = {"labels": list(labels), "database": database}
    (root / "annotation.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    """Four gestures of three subjects, in the real format, with few and small frames."""
    for subject in ("Subject01", "Subject02", "Subject03"):
        write_frames(tmp_path / subject / "Scene1" / "Color" / "rgb1", range(1, 41))
        write_frames(tmp_path / subject / "Scene1" / "Depth" / "depth1", range(1, 41))
    annotate(
        tmp_path,
        {
            "Subject01/Scene1/Color/rgb1": entry(),
            "Subject01/Scene1/Color/rgb1_17": entry(label="Knock", start="21", end="40"),
            "Subject02/Scene1/Color/rgb1": entry("validation", start=2.0, end=30),
            "Subject03/Scene1/Color/rgb1_3": entry("testing", start="3.0", end="40.0"),
        },
    )
    return tmp_path


@pytest.fixture(scope="module")
def rendered(shared_folder):
    """The sample with one subject per subset. Tests must not write to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "SUBJECTS", dict.fromkeys(sample.SUBJECTS, 1))
        return shared_folder("gestures_of_three", sample.make)


# --- the task


@pytest.mark.slow
def test_the_full_size_task_has_the_papers_inputs_features_and_settings(rendered):
    task = egogesture(rendered)
    assert [len(task.splits[s]) for s in ("train", "validation", "test")] == [20, 20, 20]
    assert (task.classes, task.metric) == (12, "accuracy")
    assert (task.rule, task.protocol) == (None, "cross-subject")
    assert task.modality("RGB").inputs[3].shape == (3, 32, 112, 112)
    assert task.modality("Depth").inputs[3].shape == (1, 32, 112, 112)
    assert task.channels == {
        f"{m}_{i}": c for m in ("RGB", "Depth") for i, c in enumerate((512, 1024, 2048, 2048), 1)
    }
    config = {
        "C": 128, "L": 8, "N": 2, "M": 3, "epochs": 7, "batch_size": 72, "dropout": 0.0,
        "max_lr": 3e-3, "min_lr": 1e-6, "weight_decay": 1e-4, "restart": 5,
    }  # fmt: skip
    assert task.config.to_dict() == config


def test_the_small_task_reads_the_same_files_smaller(rendered):
    task = egogesture(rendered, sample=True)
    clip = task.modality("RGB").inputs[torch.arange(4)]
    assert clip.shape == (4, 3, 16, 32, 32) and clip.dtype == torch.float32
    features = task.modality("RGB").backbone(clip)
    assert [f.shape[1] for f in features] == list(task.channels.values())[:4]
    assert task.modality("RGB").backbone.classify(features).shape == (4, 12)
    assert (task.config.L, task.config.N, task.config.M) == (8, 2, 3)


def test_gestures_have_the_split_and_class_of_the_annotation(root):
    task = egogesture(root, sample=True)
    assert task.splits["train"].index.tolist() == [[0, 0], [1, 1]]
    assert task.splits["train"].labels.tolist() == [0, 1]
    assert task.splits["test"].index.tolist() == [[3, 3]]
    names = task.modality("Depth").inputs.names
    assert names[1] == "Subject01/Scene1/Depth/depth1, frames 21…40"
    assert names[3] == "Subject03/Scene1/Depth/depth1, frames 3…40"


def test_two_calls_give_the_same_backbones_and_inputs(root):
    first, second = (egogesture(root, sample=True) for _ in range(2))
    for a, b in zip(first.modalities, second.modalities, strict=True):
        assert a.fingerprint() == b.fingerprint()


def test_other_frames_or_another_annotation_give_other_fingerprints(root):
    before = [m.inputs.version for m in egogesture(root, sample=True).modalities]
    write_frames(root / "Subject02" / "Scene1" / "Color" / "rgb1", [41])
    after = [m.inputs.version for m in egogesture(root, sample=True).modalities]
    assert before[0] != after[0] and before[1] == after[1]
    content = (root / "annotation.json").read_text()
    (root / "annotation.json").write_text(content.replace('"21"', '"22"'))
    assert egogesture(root, sample=True).modalities[1].inputs.version != after[1]


def test_no_frame_is_opened_before_its_gesture_is_read(root):
    for path in root.rglob("*.jpg"):
        path.unlink()
    task = egogesture(root, sample=True)
    with pytest.raises(DataError, match=r"rgb1/000003.jpg: missing"):
        task.modality("RGB").inputs[0]


def test_weights_are_read_into_the_backbone_of_their_modality(root, tmp_path):
    trained = ResNeXt3D(classes=2, colours=1, **SAMPLE_SIZES)
    save_checkpoint(trained, tmp_path / "depth.safetensors")
    task = egogesture(root, sample=True, weights={"Depth": tmp_path / "depth.safetensors"})
    found = task.modality("Depth").backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in trained.state_dict().items())
    with pytest.raises(TaskError, match="weights: found 'Flow'; allowed: RGB, Depth"):
        egogesture(root, weights={"Flow": tmp_path / "depth.safetensors"})


# --- frames


def shown(values, colour=0):
    """The numbers of a clip's frames, which have level 2·number."""
    return ((values[colour, :, 0, 0] + MEAN[colour]) / 2).round().int().tolist()


@pytest.mark.parametrize(
    "n, expected",
    [
        (40, range(14, 46)),
        (35, range(11, 43)),
        (33, range(10, 42)),
        (32, range(10, 42)),
        (20, [*range(10, 30), *range(10, 22)]),
        (12, [*range(10, 22), *range(10, 22), *range(10, 18)]),
        (1, [10] * 32),
    ],
)
def test_evaluation_reads_the_middle_frames_and_repeats_a_short_gesture(tmp_path, n, expected):
    """Like the loaders with which the published checkpoints were trained."""
    write_frames(tmp_path / "clip", range(10, 10 + n))
    read = FrameReader(tmp_path, (("clip", 10, 9 + n),), 3, 32, 8)
    assert shown(read(0)) == list(expected)


def test_a_random_start_lies_anywhere_in_the_gesture(tmp_path):
    write_frames(tmp_path / "clip", range(10, 30))
    read = FrameReader(tmp_path, (("clip", 10, 29),), 1, 16, 8)
    random = torch.Generator().manual_seed(0)
    starts = set()
    for _ in range(60):
        frames = shown(read(0, random))
        assert frames == list(range(frames[0], frames[0] + 16))
        starts.add(frames[0])
    assert starts == {10, 11, 12, 13, 14}


def scene(size):
    """Redder to the right, greener to the bottom."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (112, 112), (64, 48), (641, 97)])
def test_evaluation_scales_the_shorter_side_and_crops_the_centre(tmp_path, size):
    """Up to rounding as if the whole frame were scaled and then cropped."""
    write_frames(tmp_path / "clip", [1], scene(size))
    found = FrameReader(tmp_path, (("clip", 1, 1),), 3, 32, 112)(0)
    with Image.open(tmp_path / "clip" / "000001.jpg") as image:
        width, height = (112 * side // min(size) for side in size)
        scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 112) / 2), round((height - 112) / 2)
    expected = np.asarray(scaled.crop((left, top, left + 112, top + 112)), np.float32)
    difference = found[:, 0].movedim(0, -1) + torch.tensor(MEAN) - torch.from_numpy(expected)
    assert difference.abs().max() < 1.01
    assert (difference.abs() > 0.5).float().mean() < 0.01


def test_pixels_are_in_0_to_255_minus_the_published_mean(tmp_path):
    write_frames(tmp_path / "clip", [1], Image.new("RGB", (32, 24), (200, 100, 50)))
    colour = FrameReader(tmp_path, (("clip", 1, 1),), 3, 4, 8)(0)
    expected = torch.tensor((200, 100, 50)) - torch.tensor((114.7748, 107.7354, 99.4750))
    assert (colour.mean((1, 2, 3)) - expected).abs().max() < 1.5
    grey = FrameReader(tmp_path, (("clip", 1, 1),), 1, 4, 8)(0)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert grey.shape == (1, 4, 8, 8) and abs(float(grey.mean()) - (luma - 114.7748)) < 1.5


def test_all_frames_of_a_clip_have_the_same_random_crop_and_are_not_mirrored(tmp_path):
    write_frames(tmp_path / "clip", range(1, 5), scene((320, 240)))
    read = FrameReader(tmp_path, (("clip", 1, 4),), 3, 4, 28)
    random = torch.Generator().manual_seed(0)
    widths, lefts = set(), set()
    for _ in range(40):
        clip = read(0, random) + torch.tensor(MEAN).view(3, 1, 1, 1)
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
        red, green = clip[0, 0, 14], clip[1, 0, :, 14]
        assert red[-1] > red[0] and green[-1] > green[0]
        slope = float(red[-2] - red[1]) / 25 * 28 / 255 * 320
        assert slope == pytest.approx(float(green[-2] - green[1]) / 25 * 28 / 255 * 240, rel=0.08)
        widths.add(min(SCALES, key=lambda scale: abs(scale * 240 - slope)))
        lefts.add(int(red[0]))
        assert min(abs(scale * 240 - slope) for scale in SCALES) < 8
    assert widths == set(SCALES) and len(lefts) > 20


def test_a_generator_fixes_the_augmentation(root):
    inputs = egogesture(root, sample=True).modality("RGB").inputs
    first, again, other = (inputs.read(3, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_frames_may_be_of_any_size(tmp_path):
    write_frames(tmp_path / "clip", [1], scene((320, 240)))
    write_frames(tmp_path / "clip", [2], scene((90, 90)))
    read = FrameReader(tmp_path, (("clip", 1, 2),), 3, 2, 16)
    assert read(0).isfinite().all()
    assert read(0, torch.Generator().manual_seed(0)).shape == (3, 2, 16, 16)


def test_inputs_can_be_sent_to_another_process(root):
    inputs = egogesture(root, sample=True).modality("Depth").inputs
    assert torch.equal(pickle.loads(pickle.dumps(inputs))[2], inputs[2])


# --- missing and malformed files


def damage(path, how):
    if how == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        damaged = {
            "short": content[:-12],
            "shorter": content[:-150],
            "text": b"no JPEG",
            "empty": b"",
        }
        path.write_bytes(damaged[how])


@pytest.mark.parametrize(
    "how, message",
    [
        ("missing", "000012.jpg: missing; allowed: a file for each"),
        ("short", "000012.jpg: found no picture that can be decoded .*truncated"),
        ("shorter", "000012.jpg: found no picture that can be decoded .*Truncated"),
        ("empty", "000012.jpg: found no picture that can be decoded"),
        ("text", "000012.jpg: found no picture that can be decoded"),
    ],
)
def test_a_gesture_with_a_bad_frame_is_left_out_of_its_batch_alone(root, how, message):
    folder = root / "Subject01" / "Scene1" / "Depth" / "depth1"
    damage(folder / "000012.jpg", how)
    damage(folder / "000014.jpg", how)
    task = egogesture(root, sample=True)
    depth = task.modality("Depth").inputs
    with pytest.raises(DataError, match=message):
        depth[0]
    columns = [m.inputs for m in task.modalities]
    rows = torch.arange(4)
    batch = next(load(columns, [(rows, rows[:, None].expand(-1, 2))], workers=0))
    assert batch.kept.tolist() == [1, 2, 3]
    assert list(batch.failures) == [(1, 0)]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "annotation.json: found no JSON"),
        (b"\xff\xfe", "annotation.json: found no JSON"),
        (b"[" * 100_000, "annotation.json: found no JSON"),
        (b"[]", "annotation.json: found list; allowed: an object with 'labels'"),
        (b'{"labels": []}', "found 'labels'; allowed: an object with 'database'"),
        (b'{"database": {}}', "found 'database'; allowed: an object with 'labels'"),
        (b'{"labels": 3, "database": {}}', "labels: found 3; allowed: a list"),
        (b'{"labels": ["a"], "database": []}', r"database: found \[\]; allowed: an object"),
        (b'{"labels": ["a", 2], "database": {}}', r"labels\[1\]: found 2; allowed: names, each"),
        (b'{"labels": ["a", "a"], "database": {}}', r"labels\[1\]: found 'a'; allowed: names, ea"),
        (b'{"labels": ["a"], "database": {}}', "found none of the folders of the 0 gestures"),
    ],
)
def test_a_malformed_annotation_is_refused(root, content, message):
    (root / "annotation.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        egogesture(root, sample=True)


NAME = "Subject01/Scene1/Color/rgb1_4"


@pytest.mark.parametrize(
    "name, changed, message",
    [
        (NAME, entry(label="Sneeze"), "found label 'Sneeze'; allowed: the 2 in 'labels'"),
        (NAME, entry(label=3), "label: found 3; allowed: a name"),
        (NAME, entry("train"), "found subset 'train'; allowed: training, validation, testing"),
        (NAME, entry(start="9", end="8"), "found frames 9 to 8; allowed: start to end"),
        (NAME, entry(start="x"), "found start_frame 'x'; allowed: a frame's number"),
        (NAME, entry(end="8.5"), "found end_frame '8.5'; allowed: a frame's number"),
        (NAME, entry(end=None), "found end_frame None; allowed: a frame's number"),
        (NAME, entry(end=True), "found end_frame True; allowed: a frame's number"),
        (NAME, entry(end=float("nan")), "found end_frame nan; allowed: a frame's number"),
        (NAME, entry(end=10**400), "found end_frame 1000.*; allowed: a frame's number"),
        (NAME, entry(start=-1), "found start_frame -1; allowed: a frame's number"),
        (NAME, {"subset": "testing"}, "found 'subset'; allowed: an object with 'annotations'"),
        (NAME, {"annotations": {}}, "found 'annotations'; allowed: an object with 'subset'"),
        (NAME, [], "found list; allowed: an object with 'subset'"),
        (NAME, {**entry(), "annotations": []}, r"annotations: found \[\]; allowed: an object"),
        ("Subject01/rgb1", entry(), "allowed: SubjectNN/SceneM/Color/rgbK or …/rgbK_<k>"),
        ("Subject01/Scene1/Depth/depth1", entry(), "allowed: SubjectNN/SceneM/Color/rgbK"),
        ("../../Scene1/Color/rgb1/x", entry(), "allowed: SubjectNN/SceneM/Color/rgbK"),
    ],
)
def test_a_malformed_entry_is_refused_with_its_name(root, name, changed, message):
    annotate(root, {"Subject02/Scene1/Color/rgb1": entry("validation"), name: changed})
    with pytest.raises(DataError, match=f"annotation.json: '{name}': {message}"):
        egogesture(root, sample=True)


@pytest.mark.parametrize("missing", ["Color/rgb1", "Depth/depth1"])
def test_gestures_without_both_folders_are_left_out_and_counted(root, missing):
    write_frames(root / "Subject01" / "Scene2" / "Color" / "rgb12", range(1, 21))
    write_frames(root / "Subject01" / "Scene2" / "Depth" / "depth12", range(1, 21))
    database = json.loads((root / "annotation.json").read_text())["database"]
    annotate(root, {**database, "Subject01/Scene2/Color/rgb12_9": entry()})
    shutil.rmtree(root / "Subject01" / "Scene1" / missing)
    message = f"annotation.json: 2 left out: Subject01/.*: no folder Subject01/Scene1/{missing}"
    with pytest.warns(DataWarning, match=message):
        task = egogesture(root, sample=True)
    assert task.modality("RGB").inputs.names[2].startswith("Subject01/Scene2/Color/rgb12,")
    assert task.modality("Depth").inputs.names[2].startswith("Subject01/Scene2/Depth/depth12,")
    assert len(task.splits["train"]) == 1 and task.notes["left out"] == 2


def test_frames_in_two_subsets_are_refused_with_both_gestures(root):
    one, two = "Subject01/Scene1/Color/rgb1", "Subject01/Scene1/Color/rgb1_8"
    annotate(root, {two: entry("testing", start=20, end=25), one: entry(end=20)})
    message = f"'{one}' in 'training' and '{two}' in 'testing' share frames 20…20; allowed: each"
    with pytest.raises(DataError, match=message):
        egogesture(root, sample=True)


def test_an_overlap_is_found_even_if_a_shorter_gesture_comes_between(root):
    names = [f"Subject01/Scene1/Color/rgb1_{k}" for k in range(3)]
    database = {
        names[0]: entry(end=30),
        names[1]: entry(start=5, end=8),
        names[2]: entry("testing", start=30, end=40),
    }
    annotate(root, database)
    with pytest.raises(DataError, match=f"'{names[0]}' in 'training' and '{names[2]}'"):
        egogesture(root, sample=True)


def test_a_subject_in_two_subsets_gives_a_warning(root):
    database = json.loads((root / "annotation.json").read_text())["database"]
    annotate(root, {**database, "Subject02/Scene1/Color/rgb1_1": entry(start=31, end=40)})
    with pytest.warns(DataWarning, match="in more than one subset: 1, such as Subject02"):
        egogesture(root, sample=True)


def test_an_empty_or_missing_folder_is_refused_with_what_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"found no \*.json; looked for SubjectNN/SceneM/.*jpg and"):
        egogesture(tmp_path)
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="egogesture: no such folder; looked for Subj"):
        egogesture()


def test_an_annotation_without_any_of_its_folders_is_refused(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match="elsewhere: found none of the folders of the 4 gestures"):
        egogesture(tmp_path / "elsewhere", annotation=root / "annotation.json")


def test_several_annotations_are_listed_and_one_can_be_chosen(root):
    shutil.copy(root / "annotation.json", root / "other.json")
    with pytest.raises(DataError, match="found annotation.json, other.json; .*annotation=NAME"):
        egogesture(root)
    assert len(egogesture(root, sample=True, annotation=root / "other.json").splits["train"]) == 2
    with pytest.raises(DataError, match="none.json: cannot be read"):
        egogesture(root, annotation=root / "none.json")


# --- the sample


def test_the_sample_is_in_the_data_sets_own_format(rendered):
    content = json.loads((rendered / "annotation.json").read_text())
    assert content["labels"] == list(sample.LABELS) and len(sample.LABELS) == 12
    labels, gestures = read_annotation(rendered / "annotation.json")
    assert len(gestures) == 60
    for gesture in gestures:
        assert 24 <= gesture.last - gesture.first + 1 <= 48
        frames = [sorted((rendered / f).iterdir()) for f in gesture.folders.values()]
        names = [f"{k:06d}.jpg" for k in range(1, len(frames[0]) + 1)]
        assert [p.name for p in frames[0]] == [p.name for p in frames[1]] == names
        assert gesture.first >= 1 and gesture.last <= len(names)
    folders = {gesture.folders["RGB"] for gesture in gestures}
    assert len(folders) == 12
    subjects = {(gesture.subject, gesture.subset) for gesture in gestures}
    assert len(subjects) == len({s for s, _ in subjects}) == 3


@pytest.mark.slow
def test_the_sample_is_the_same_each_time(rendered, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "SUBJECTS", {"training": 1})
    for folder in ("a", "b"):
        sample.make(tmp_path / folder)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*")]
    assert len(files) > 1000
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_depth_of_the_sample_tells_push_from_pull(rendered):
    """By a simple measure: whether the hand, the brightest part, becomes brighter."""
    task = egogesture(rendered, sample=True)
    share = {}
    for modality in task.modalities:
        right = []
        for split in task.splits.values():
            for item, label in zip(split.index[:, 0], split.labels, strict=True):
                clip = modality.inputs[int(item)].mean(0).flatten(1)
                bright = clip.quantile(0.95, dim=1)
                brighter = bool(bright[-5:].mean() > bright[:5].mean())
                right.append(brighter == sample.LABELS[label].startswith("Pull"))
        share[modality.name] = sum(right) / len(right)
    assert share["Depth"] > 0.8 and 0.3 < share["RGB"] < 0.7


@pytest.mark.nightly
@pytest.mark.slow
def test_the_whole_sample_has_480_gestures_across_24_subjects(tmp_path):
    sample.make(tmp_path)
    labels, gestures = read_annotation(tmp_path / "annotation.json")
    for subset, n, subjects in (("training", 280, 14), ("validation", 100, 5), ("testing", 100, 5)):
        own = [gesture for gesture in gestures if gesture.subset == subset]
        assert len(own) == n and len({gesture.subject for gesture in own}) == subjects
        times = np.bincount([gesture.label for gesture in own], minlength=12)
        assert times.max() - times.min() <= 1
    assert sum(p.stat().st_size for p in tmp_path.rglob("*.*")) < 60e6
    assert PAPER.batch_size == egogesture(tmp_path).config.batch_size
