"""What a run keeps: a second process finds it, goes on from it, and ends with the same numbers."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny import TinyClassifier, tiny_task

import bmnas_core as bm
from bmnas_core import autosave, selection
from bmnas_core.autosave import Autosave, AutosaveWarning
from bmnas_core.backbones.backbone import ConvBackbone
from bmnas_core.features import FeatureBank
from bmnas_core.kept_training import KeptTraining
from bmnas_core.runtime import seeded
from bmnas_core.search import Search, SearchConfig
from bmnas_core.selection import Selection, register_selection

HALVING = SearchConfig(
    epochs=2, selection="successive_halving", rungs=((3, 1), (2, 2)), tuning_epochs=1
)


class Killed(Exception):
    """Stands for a kill: what is in memory is lost, files stay as they are."""


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Begins a process of a run, which keeps everything however quick it is."""
    monkeypatch.setattr(autosave, "EVERY", 0.0)
    monkeypatch.setattr(autosave, "SHARE", float("inf"))
    for module in ("autosave", "features", "kept_training", "search_state"):
        monkeypatch.setattr(f"bmnas_core.{module}.QUICK", 0.0)

    def begin(folder=tmp_path / "state"):
        monkeypatch.setattr(autosave, "_folder", folder)
        monkeypatch.setattr(autosave, "_made", Counter())

    return begin


def numbers(state):
    weights = [a.tobytes() for a in (state.alpha, *state.beta, *state.gamma)]
    scores = state.train_loss, state.val_loss, state.val_score
    return state.step, state.epoch, state.phase, state.lr, *scores, state.genotype, weights


def searched(config=HALVING, stop=None, seed=0):
    """All states of a search, its best genotype and its weights."""
    search = Search(tiny_task(), config, seed=seed, device="cpu")
    states = []
    for state in search:
        states.append(numbers(state))
        if state.step == stop:
            raise Killed
    weights = [tensor.clone() for tensor in search.hypernet.state_dict().values()]
    return states, search.best_genotype, search.best_score, weights


def same(one, other):
    alike = all(torch.equal(a, b) for a, b in zip(one[3], other[3], strict=True))
    return one[:3] == other[:3] and alike


@pytest.fixture(scope="module")
def unbroken():
    return searched()


SLOW = [pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 3, 6, 7, 8, 9)]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 11, *SLOW])
def test_a_killed_search_gives_all_its_states_again_and_goes_on_to_the_bit(process, unbroken, stop):
    process()
    with pytest.raises(Killed):
        searched(stop=stop)
    process()
    assert same(searched(), unbroken)


@pytest.mark.slow
def test_a_finished_search_is_read_and_not_made_again(process, unbroken, monkeypatch):
    process()
    searched()
    process()
    for name in ("_update_step", "_select"):
        monkeypatch.setattr(Search, name, lambda self: pytest.fail("a step was made again"))
    assert same(searched(), unbroken)


def test_without_a_run_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    searched(SearchConfig(epochs=1, selection="argmax"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_who_looks_at_the_hypernet_amid_a_replay_sees_it_as_it_was_then(process):
    def observed(stop=None):
        search, seen = Search(tiny_task(), HALVING, device="cpu"), []
        for state in search:
            if state.step == 3:
                hypernet = search.hypernet
            if state.step >= 3:
                seen.append(hypernet.alpha.detach().clone())
            if state.step == stop:
                raise Killed
        return torch.stack(seen)

    expected = observed()
    process()
    with pytest.raises(Killed):
        observed(stop=7)
    process()
    assert torch.equal(observed(), expected)


@pytest.mark.slow
def test_who_changes_the_hypernet_amid_a_search_gets_that_search_again(process):
    def changed(stop=None):
        search = Search(tiny_task(), HALVING, device="cpu")
        for state in search:
            if state.step == 2:
                with torch.no_grad():
                    search.hypernet.alpha.add_(1.0)
            if state.step == stop:
                raise Killed
        return search.hypernet.alpha.detach().clone(), search.best_score

    expected = changed()
    process()
    with pytest.raises(Killed):
        changed(stop=5)
    process()
    found = changed()
    assert torch.equal(found[0], expected[0]) and found[1] == expected[1]


@pytest.mark.slow
def test_equal_searches_of_one_run_are_kept_apart(process, tmp_path):
    config = SearchConfig(epochs=1, selection="argmax")
    process()
    one, two = searched(config), searched(config)
    assert same(one, two) and len(list((tmp_path / "state").glob("search-*-1.safetensors"))) == 1


@pytest.mark.slow
def test_searches_by_other_settings_seeds_or_scores_are_not_taken_for_each_other(process):
    process()
    searched()
    for other in ({"seed": 1}, {"config": replace(HALVING, arch_lr=0.02)}):
        expected_kept = searched(**other)
        process(None)
        assert same(expected_kept, searched(**other))
        process()


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "epochs"), [(9, [1, 1, 0]), (12, [1, 1, 1])])
def test_candidates_of_a_killed_selection_are_not_trained_again(stop, epochs, process, monkeypatch):
    """It is killed after the tuning and the first rung, or the second: an epoch each."""
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 1.0)
    process()
    with pytest.raises(Killed):
        searched(stop=stop)
    process()
    found, begin = [], KeptTraining.begin

    def observed(self, *given):
        found.append(len(begin(self, *given)))
        return list(self.records)

    monkeypatch.setattr(KeptTraining, "begin", observed)
    searched()
    assert found == epochs


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["newest", "both", "states"])
def test_what_is_damaged_is_made_again_with_a_warning(process, unbroken, tmp_path, damage):
    process()
    with pytest.raises(Killed):
        searched(stop=7)
    (newest,) = (tmp_path / "state").glob("search-*-0.safetensors")
    files = {"newest": [newest], "both": [newest, Autosave(newest).before]}
    for path in files.get(damage, [newest.with_suffix(".states")]):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    process()
    with pytest.warns(AutosaveWarning, match="search-.*: found"):
        assert same(searched(), unbroken)


# --- trainings


def trained(stop=None, **settings):
    task = tiny_task()
    genotype = searched(SearchConfig(epochs=1, selection="argmax"))[1]

    def on_epoch(record):
        if record["epoch"] == stop:
            raise Killed

    config = bm.TrainConfig(epochs=4, **settings)
    net, records = bm.train(genotype, task, config, device="cpu", on_epoch=on_epoch)
    return records, net.state_dict()


def same_training(one, other):
    plain = [[{**record, "seconds": 0} for record in records] for records, _ in (one, other)]
    tensors = zip(one[1].values(), other[1].values(), strict=True)
    return plain[0] == plain[1] and all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"data": "train"}, {"modality_dropout": 0.3}], ids=str)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_killed_training_goes_on_to_the_bit(process, stop, settings):
    expected = trained(**settings)
    process()
    with pytest.raises(Killed):
        trained(stop, **settings)
    process()
    assert same_training(trained(**settings), expected)


def test_a_finished_training_is_read_and_its_epochs_are_told_again(process, monkeypatch):
    process()
    expected = trained()
    process()
    told = []
    genotype = searched(SearchConfig(epochs=1, selection="argmax"))[1]
    module = sys.modules["bmnas_core.train"]
    monkeypatch.setattr(module, "epoch_batches", lambda *given: pytest.fail("trained again"))
    config = bm.TrainConfig(epochs=4)
    net, records = bm.train(genotype, tiny_task(), config, device="cpu", on_epoch=told.append)
    assert same_training((records, net.state_dict()), expected) and told == records
    assert not net.training


def test_backbones_are_kept_whether_they_learn_labels_or_items(process, tmp_path):
    def task():
        image, sound = tiny_task().modalities
        classifier = TinyClassifier((5, 6))
        labelled = replace(image, backbone=classifier)
        random = torch.Generator().manual_seed(0)
        images = torch.rand(len(sound.inputs), 1, 8, 8, generator=random)
        classes = torch.arange(len(images)) % 3
        with seeded(0, "backbone"):
            backbone = ConvBackbone()
        by_item = bm.Modality.numbered("Audio", backbone, images, classes=classes)
        return replace(tiny_task(), modalities=(labelled, by_item))

    def learned(stop=None):
        own, found = task(), []
        for name in ("Image", "Audio"):

            def on_epoch(record, name=name):
                if stop == (name, record["epoch"]):
                    raise Killed

            config = bm.TrainConfig(epochs=3)
            _, records = bm.train_backbone(own, name, config, device="cpu", on_epoch=on_epoch)
            found += [{**record, "seconds": 0} for record in records]
            found += [t.clone() for t in own.modality(name).backbone.state_dict().values()]
        return found

    expected = learned()
    for stop in (("Image", 2), ("Audio", 2)):
        process(tmp_path / f"{stop}")
        with pytest.raises(Killed):
            learned(stop)
        process(tmp_path / f"{stop}")
        for one, other in zip(learned(), expected, strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# --- features


def test_features_in_memory_are_read_and_not_extracted_again(process, monkeypatch):
    expected = FeatureBank(tiny_task(), device="cpu")
    process()
    FeatureBank(tiny_task(), device="cpu")
    process()
    monkeypatch.setattr("bmnas_core.features.extract", lambda *given: pytest.fail("extracted"))
    found = FeatureBank(tiny_task(), device="cpu")
    assert list(found.features) == list(expected.features)
    for name, values in expected.features.items():
        assert torch.equal(found.features[name], values)
    assert found.content_hash == expected.content_hash


@pytest.mark.slow
def test_a_rule_of_ones_own_is_repeated_on_the_same_random_numbers(process):
    @register_selection("three random ones")
    class ThreeRandom(Selection):
        steps = 3

        def run(self):
            for _ in range(3):
                genotype = bm.most_probable(self.search.state.weights, 20)
                k = int(torch.randint(len(genotype), ()))
                yield list(genotype)[k], float(torch.rand(()))

    config = SearchConfig(epochs=1, selection="three random ones")
    expected = searched(config)
    process()
    with pytest.raises(Killed):
        searched(config, stop=len(expected[0]) - 1)
    process()
    assert same(searched(config), expected)


@pytest.mark.slow
def test_the_folder_leaves_the_environment_so_that_other_commands_do_not_write_there(tmp_path):
    code = "import os, bmnas_core.autosave as a; print(a.is_kept(), 'BMNAS_STATE' in os.environ)"
    environment = {**os.environ, "BMNAS_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "False"]
