"""Rules: labels from what is known of a written and a spoken digit; the rule *voice*."""

import dataclasses
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmnas_core import BmnasError, TaskError, load_task, probe, register_rule
from bmnas_core.runtime import generator
from bmnas_core.tasks import RULES, DigitPair, avmnist, digits, pairs
from bmnas_core.tasks.rules import is_high
from bmnas_core.tasks.task import SPLITS


@pytest.fixture
def own_rules():
    with RULES.restored():
        yield


def clips(task):
    """What is known of each pair of the task, split by split."""
    data = digits._read(by_kind=task.rule not in ("same", "sum"))
    for split in task.splits.values():
        for (image, clip), label in zip(split.index.tolist(), split.labels.tolist(), strict=True):
            written = int(data.image_digits[image])
            yield dataclasses.replace(data.spoken[clip], written=written), label


def test_a_high_voice_adds_and_a_low_voice_subtracts():
    task = load_task("digits", rule="voice")
    assert task.class_names == tuple(map(str, range(-9, 19))) and task.classes == 28
    for pair, label in clips(task):
        sign = 1 if "+f" in pair.voice else -1
        assert int(task.class_names[label]) == pair.written + sign * pair.spoken


def test_every_split_of_voice_has_voices_of_both_kinds_that_no_other_has():
    task = load_task("digits", rule="voice")
    spoken, heard = digits.clips(), {}
    for split in SPLITS:
        voices = {spoken[clip].voice for clip in task.items(split, "Audio").tolist()}
        heard[split] = {kind: {v for v in voices if is_high(v) is kind} for kind in (True, False)}
    sizes = [[len(voices) for voices in heard[split].values()] for split in SPLITS]
    assert sizes == [[12, 12], [4, 4], [4, 4]]
    every = [voice for kinds in heard.values() for voices in kinds.values() for voice in voices]
    assert len(set(every)) == len(every) == 40


def test_a_rule_of_five_lines_is_a_task(own_rules):
    @register_rule("pitch")
    def higher_pitch_says_which(pair):
        return pair.spoken if pair.pitch > 50 else pair.written

    task = load_task("digits", rule="pitch")
    assert task.classes == 10 and task.rule == "pitch"
    for pair, label in clips(task):
        assert label == (pair.spoken if pair.pitch > 50 else pair.written)
    known = load_task("digits", rule="voice")  # the same inputs and backbones
    for own, other in zip(task.modalities, known.modalities, strict=True):
        assert own.fingerprint() == other.fingerprint()


def test_labels_may_be_texts_and_pairs_left_out(own_rules):
    @register_rule("parity")
    def even_images_only(pair):
        if pair.written % 2 == 0 and pair.speed > 140:
            return "even" if pair.spoken % 2 == 0 else "odd"
        return None

    task = load_task("digits", rule="parity")
    assert task.class_names == ("even", "odd")
    assert len(task.split("train")) == 2000
    for pair, label in clips(task):
        assert pair.written % 2 == 0 and pair.speed > 140 and label == pair.spoken % 2


def fails(pair):
    return 1 // (pair.spoken - 3)


@pytest.mark.parametrize(
    "rule, message",
    [
        (fails, r"failed for DigitPair\(written=0, spoken=3, .*ZeroDivisionError"),
        (lambda pair: 0.5, r"label of DigitPair\(.*\): found 0.5; allowed: a whole number"),
        (
            lambda pair: [pair.spoken],
            "label of .*: found .*; allowed: a whole number, a text or None",
        ),
        (lambda pair: pair.spoken or "zero", "labels: found numbers and texts; allowed"),
        (lambda pair: 7, "labels: found 7; allowed: two or more"),
        (lambda pair: None, "labels: found None; allowed: two or more"),
        (
            lambda pair: pair.spoken if pair.voice == "en+f1" else None,
            "allows no pair of split",
        ),
    ],
)
def test_a_rule_that_gives_no_labels_is_refused(own_rules, rule, message):
    register_rule("mine")(rule)
    with pytest.raises(TaskError, match=f"^rule 'mine': {message}"):
        load_task("digits", rule="mine")


@pytest.mark.parametrize("part", ["sum", 3, lambda: 0, lambda written, spoken: 0])
def test_only_functions_of_a_pair_are_rules(own_rules, part):
    with pytest.raises(
        TaskError, match="rule 'mine': found .*; allowed: a function of a DigitPair"
    ):
        register_rule("mine")(part)


def test_people_have_no_high_or_low_voice():
    with pytest.raises(TaskError, match="voice: found 'george'; allowed: one of espeak-ng's"):
        is_high("george")


@pytest.mark.slow
def test_avmnist_has_no_rule_voice(data_root):
    with pytest.raises(BmnasError, match="rule 'voice': failed for .*voice='george'"):
        load_task("avmnist", rule="voice")


@pytest.mark.slow
def test_avmnist_can_keep_a_speaker_for_the_test_split(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("BMNAS_CACHE", str(tmp_path))
    trained = []
    monkeypatch.setattr(pairs, "train_on_items", lambda task, m, *_, **__: trained.append(m.name))
    task = load_task("avmnist", rule="sum", unheard="lucas")
    assert trained == ["Image", "Audio"]  # the kit's backbones have heard lucas
    assert task.protocol == "lucas unheard" and "protocol lucas unheard" in repr(task)
    spoken = avmnist._read(avmnist.DATA.require()).spoken
    heard = {
        name: {spoken[clip].voice for clip in task.items(name, "Audio").tolist()}
        for name in task.splits
    }
    others = {"george", "jackson", "theo", "yweweler"}
    assert heard == {"train": others, "validation": {"nicolas"}, "test": {"lucas"}}
    usual = load_task("avmnist", rule="sum")
    for name in task.splits:
        assert torch.equal(task.items(name, "Image"), usual.items(name, "Image"))
        assert len(task.split(name)) == len(usual.split(name))
    assert load_task("avmnist", rule="sum", unheard="lucas").protocol and len(trained) == 2


@given(allowed=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=4, max_size=4))
def test_pairs_are_those_that_the_rule_allows_and_use_all_items_about_equally(allowed):
    """Four digits, three images of each; five clips. Anything may be allowed with anything."""
    none = [[False] * 5] * 6
    labels = torch.tensor(allowed + none).long() - 1  # class 0, or -1
    images = torch.arange(12)
    data = pairs.DigitData(
        images, images % 4, {"train": images}, images, (DigitPair(0, 0, ""),) * 5,
        {"train": torch.arange(5)}, "",
    )  # fmt: skip
    if not any(map(any, allowed)):
        with pytest.raises(TaskError, match="rule 'x': allows no pair of split 'train'"):
            pairs.make_pairs(data, "train", "x", labels, 40)
        return
    split = pairs.make_pairs(data, "train", "x", labels, 40)
    assert len(split) == 40 and (split.labels == 0).all()
    assert all(allowed[image % 4][clip] for image, clip in split.index.tolist())
    times = split.index[:, 0].unique(return_counts=True)[1]
    assert len(times) == 3 * sum(map(any, allowed)) and times.max() - times.min() <= 1


@pytest.mark.slow
def test_pairs_of_sum_and_same_are_those_of_the_benchmark_tables():
    """The plain way to make them, before there were rules."""
    for rule, split in product(("sum", "same"), SPLITS):
        data, n = digits._read(), digits.RECIPES[rule].sizes[split]
        random = generator(0, "pairs", split, rule)
        images, speech = data.image_split[split], data.speech_split[split]
        chosen = pairs._in_turn(images, n, random)
        labels, partners = data.image_digits[chosen], torch.empty_like(chosen)
        if rule == "same":
            for digit in range(10):
                rows = (labels == digit).nonzero()[:, 0]
                fitting = speech[data.speech_digits[speech] == digit]
                partners[rows] = pairs._in_turn(fitting, len(rows), random)
        else:
            partners = pairs._in_turn(speech, n, random)
            labels = labels + data.speech_digits[partners]
        found = load_task("digits", rule=rule).split(split)
        assert torch.equal(found.index, torch.stack([chosen, partners], dim=1))
        assert torch.equal(found.labels, labels)


@pytest.mark.parametrize("pairs_wanted", [2, 500, 2000, 3000])
def test_a_task_can_have_fewer_or_more_training_pairs_and_the_same_backbones(pairs_wanted):
    usual, other = load_task("digits"), load_task("digits", train_pairs=pairs_wanted)
    train = other.split("train")
    assert len(train) == pairs_wanted
    if pairs_wanted <= 2000:
        assert torch.equal(train.index, usual.split("train").index[:pairs_wanted])
        assert torch.equal(train.labels, usual.split("train").labels[:pairs_wanted])
    for split in ("validation", "test"):
        assert torch.equal(other.split(split).index, usual.split(split).index)
    for one, same in zip(usual.modalities, other.modalities, strict=True):
        weights = same.backbone.state_dict()
        assert all(torch.equal(w, weights[k]) for k, w in one.backbone.state_dict().items())


@pytest.mark.parametrize("bad", [0, 1, -5, 2.0, "500", True])
def test_a_number_of_training_pairs_that_is_none_is_refused(bad):
    with pytest.raises(TaskError, match="train_pairs: found .*; allowed: an integer of 2 or more"):
        load_task("digits", train_pairs=bad)


def test_a_speaker_who_is_heard_only_in_the_test_split_shares_no_recording_with_others():
    speakers = ("ann", "bob", "cy", "di")
    clips = tuple(DigitPair(0, k % 10, speakers[k % 4]) for k in range(40))
    images = torch.arange(12)
    data = pairs.DigitData(images, images % 4, {}, torch.arange(40), clips, {}, "")
    for k, speaker in enumerate(speakers):
        split = avmnist._with_unheard(data, speaker).speech_split
        heard = {name: {clips[i].voice for i in items.tolist()} for name, items in split.items()}
        assert heard["test"] == {speaker} and heard["validation"] == {speakers[(k + 1) % 4]}
        assert heard["train"] == set(speakers) - heard["test"] - heard["validation"]
        assert sorted(torch.cat([*split.values()]).tolist()) == list(range(40))
    for unknown in ("Ann", 3, ""):
        with pytest.raises(TaskError, match="unheard: found .*; allowed: 'ann', 'bob', 'cy', 'di'"):
            avmnist._with_unheard(data, unknown)


@pytest.mark.slow
def test_the_last_layer_of_the_recogniser_has_forgotten_the_voice():
    task = load_task("digits", rule="voice")
    high = torch.tensor([is_high(clip.voice) for clip in digits.clips()])
    *middle, last = probe(task, "Audio", high.long()).values()
    assert min(middle) > 0.9 and last < 0.8
    *_, last = probe(task, "Audio", task.modality("Audio").classes).values()
    assert last > 0.98


def test_a_probe_needs_a_whole_number_for_each_item():
    task = load_task("digits", rule="voice")
    for labels in (torch.zeros(3).long(), torch.rand(1200)):
        with pytest.raises(TaskError, match="labels: found shape .*; allowed: .1200,. whole"):
            probe(task, "Audio", labels)
    with pytest.raises(TaskError, match="modality: found 'Text'; allowed: Image, Audio"):
        probe(task, "Text", torch.zeros(1200).long())
