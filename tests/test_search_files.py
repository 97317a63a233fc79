"""Saved searches: what is saved is what is resumed, and nothing else is."""

import json
import random
import threading
from dataclasses import replace

import pytest
import torch
from tiny import tiny_task

import bmnas_core as bm
from bmnas_core import search_files
from bmnas_core.autosave import AutosaveWarning
from bmnas_core.errors import BmnasError
from bmnas_core.search import Search, SearchConfig, SearchError
from bmnas_core.search_files import FORMAT
from bmnas_core.selection import Selection, register_selection
from bmnas_core.tensor_files import read_tensors, write_tensors

EXP_AVG = "weight_optimizer.0.exp_avg"
ADAM_STEP = "weight_optimizer.0.step"
WEIGHT = "hypernet.reshape.layers.0.conv.weight"
VARIANCE = "hypernet.reshape.layers.0.bn.running_var"


def whole(path):
    return read_tensors(path, FORMAT, SearchError, "search")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A search after three steps, as a file with right checksums."""
    path = tmp_path_factory.mktemp("search") / "s"
    search = Search(tiny_task(), SearchConfig(epochs=2), device="cpu")
    for _ in range(3):
        next(search)
    search.save(path)
    return path


def refusal(saved, tmp_path, change, task=None):
    """How a file that somebody changed, checksums included, is refused."""
    header, tensors = whole(saved)
    change(header, tensors)
    path = tmp_path / "changed"
    write_tensors(path, tensors, header)
    with pytest.raises(SearchError) as error:
        Search.resume(path, task or tiny_task())
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said and len(said) < 700
    return said.removeprefix(f"{path}: ")


SETTINGS = {
    "C": (10**9, 20_000, 9, -1, "32", True, 2.5, 10**400),
    "L": (10**9, 10**6, 5, None),
    "N": (64, 65, 1, 10**6),
    "M": (64, 1, 10**5),
    "operations": (["sum"], ["__import__"], ["sum"] * 1000, []),
    "relaxation": ("softest", None, 3),
    "selection": ("unknown", 7),
    "rungs": ([[10**9, 1]], [[2, 10**9]], "all", [[1]]),
    "epochs": (10**18, 10**400, 0),
    "batch_size": (10**12, 1),
    "restart": (10**400,),
    "temperature": ([1.0, 0.0], [1.0], "hot"),
    "partial": (10**9,),
    "path_samples": (10**9,),
    "speed": (3,),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values]
)
def test_settings_that_are_not_those_of_the_tensors_are_refused_by_name(
    saved, tmp_path, name, value
):
    def change(header, tensors):
        header["config"][name] = value

    said = refusal(saved, tmp_path, change)
    assert name in said or "by the sizes in the header" in said or "tensor" in said


FIELDS = {
    "seed": ("0", 0.5, None, [0], True),
    "step": (-1, "3", 2.5, 10**9, None, True, [3]),
    "selection_steps": (-5, "a", 10**9, None),
    "best_score": ("high", float("nan"), [1]),
    "best_genotype": ("{}", 7, {}, ["x"]),
    "features": ([], ["Image_1"], "Image_1", None),
    "bank": ("another", None, 3),
    "scoring": ({}, None, {"metric": "auroc"}),
    "config": ([], None, "x", {}),
    "states": (3, []),
    "autosave": (1.0, "often", None),
    "every": (-1.0, "often"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values]
)
def test_fields_that_no_search_writes_are_refused(saved, tmp_path, name, value):
    def change(header, tensors):
        header[name] = value

    refusal(saved, tmp_path, change)


@pytest.mark.parametrize("name", ["config", "seed", "step", "bank", "features"])
def test_a_missing_field_is_named(saved, tmp_path, name):
    assert name in refusal(saved, tmp_path, lambda header, tensors: header.pop(name))


def changed(name, values):
    return lambda header, tensors: tensors.update({name: values(tensors[name])})


TENSORS = {
    "a lost weight": lambda h, t: t.pop(WEIGHT),
    "a lost α": lambda h, t: t.pop("hypernet.alpha"),
    "half of Adam's numbers": lambda h, t: t.pop(EXP_AVG),
    "a weight more": lambda h, t: t.update({"hypernet.x": torch.zeros(2)}),
    "some other tensor": lambda h, t: t.update({"payload": torch.zeros(2)}),
    "Adam's of no weight": lambda h, t: t.update({"weight_optimizer.999.step": torch.ones(())}),
    "Adam's of no number": lambda h, t: t.update({"weight_optimizer.x.y": torch.ones(())}),
    "NaN in α": changed("hypernet.alpha", lambda x: x * torch.nan),
    "infinity in α": changed("hypernet.alpha", lambda x: x + torch.inf),
    "a shorter α": changed("hypernet.alpha", lambda x: x[:-1].clone()),
    "α in double precision": changed("hypernet.alpha", lambda x: x.double()),
    "whole numbers as α": changed("hypernet.alpha", lambda x: x.long()),
    "weights in half precision": changed(WEIGHT, lambda x: x.half()),
    "NaN in a weight": changed(WEIGHT, lambda x: x * torch.nan),
    "a negative variance": changed(VARIANCE, lambda x: x - 5),
    "NaN in Adam": changed(EXP_AVG, lambda x: x * torch.nan),
    "Adam of another shape": changed(EXP_AVG, lambda x: torch.zeros(3)),
    "Adam far ahead": changed(ADAM_STEP, lambda x: torch.tensor(1e30)),
    "Adam before its start": changed(ADAM_STEP, lambda x: torch.tensor(-5.0)),
    "Adam between two steps": changed(ADAM_STEP, lambda x: torch.tensor(1.5)),
    "several steps of Adam": changed(ADAM_STEP, lambda x: torch.ones(5)),
    "a negative square": changed("weight_optimizer.0.exp_avg_sq", lambda x: -1 - x),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_no_search_has_are_refused_by_name(saved, tmp_path, change):
    assert "tensor '" in refusal(saved, tmp_path, change)


def test_the_best_genotype_is_one_of_the_task(saved, tmp_path):
    other = bm.Genotype.from_json(
        '{"format":"bmnas-genotype/1","features":["A","B"],"cells":[{"inputs":["A","B"],'
        '"steps":[{"op":"sum","inputs":["X","Y"]}]}]}'
    )

    def change(header, tensors):
        header["best_genotype"] = json.loads(other.to_json())

    assert "best_genotype: found" in refusal(saved, tmp_path, change)


def test_a_search_of_another_task_is_refused_by_its_features(saved, tmp_path):
    task = tiny_task(names=("Video", "Text"))
    said = refusal(saved, tmp_path, lambda header, tensors: None, task)
    assert said.startswith("features: found")


def test_nothing_of_a_claimed_size_is_built(saved, tmp_path, monkeypatch):
    """A hypernet with C = 20,000 has 6 GB."""
    built, build = [], search_files.Hypernet

    def observed(*given, **sizes):
        built.append(sizes)
        return build(*given, **sizes)

    monkeypatch.setattr(search_files, "Hypernet", observed)

    def change(header, tensors):
        header["config"]["C"] = 20_000

    refusal(saved, tmp_path, change)
    assert built == []


def test_a_bit_flipped_at_fifty_random_places_is_noticed_fifty_times(saved, tmp_path):
    random_places, data = random.Random(0), saved.read_bytes()
    path = tmp_path / "flipped"
    for _ in range(50):
        place, bit = random_places.randrange(len(data)), random_places.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        with pytest.raises(SearchError, match=str(path)):
            Search.resume(path, tiny_task())


@pytest.mark.slow
def test_a_search_saved_beside_a_running_step_is_the_state_of_one_step(tmp_path):
    task, config = tiny_task(), SearchConfig(epochs=4, selection="argmax")
    reference = Search(task, config, device="cpu")
    after = {0: reference.hypernet.alpha.detach().clone()}
    for state in reference:
        after[state.step] = reference.hypernet.alpha.detach().clone()
    search, steps = Search(task, config, device="cpu"), []
    thread = threading.Thread(target=lambda: [None for _ in search])
    thread.start()
    while thread.is_alive():
        search.save(tmp_path / f"{len(steps)}")
        steps.append(len(steps))
    thread.join()
    assert len(steps) >= reference.step / 2  # no save waits for more than a step or two
    for number in steps:
        resumed = Search.resume(tmp_path / f"{number}", task, device="cpu")
        assert torch.equal(resumed.hypernet.alpha, after[resumed.step])
        counts = {float(s["step"]) for s in resumed.weight_optimizer.state_dict()["state"].values()}
        assert counts <= {float(resumed.step)}


def test_a_rule_that_searches_and_saves_beside_another_save_waits_for_nobody(tmp_path):
    """A save elsewhere waits for the step that the rule is part of."""

    @register_selection("search within")
    class SearchWithin(Selection):
        def run(self):
            inner = Search(self.search.task, SearchConfig(epochs=1, selection="argmax"))
            saver = threading.Thread(target=lambda: inner.save(tmp_path / "beside"), daemon=True)
            saver.start()
            saver.join(0.2)  # it waits by now
            for _ in inner:
                pass
            inner.save(tmp_path / "within")
            yield inner.best_genotype, inner.best_score

    config = SearchConfig(epochs=1, selection="search within")
    search = Search(tiny_task(), config, device="cpu")
    thread = threading.Thread(target=lambda: [None for _ in search], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and search.step == search.total_steps


# --- autosave


@pytest.mark.slow
def test_a_search_saves_itself_and_is_resumed_from_there_to_the_bit(tmp_path):
    path, task = tmp_path / "s.safetensors", tiny_task()
    whole_search = [state.alpha for state in Search(task, device="cpu")]
    killed = Search(task, device="cpu", autosave=path, every=0)
    for _ in range(4):
        next(killed)
    resumed = Search.resume(path, task, device="cpu")
    assert resumed.step == 4
    rest = [state.alpha for state in resumed]
    assert all((a == b).all() for a, b in zip(whole_search[4:], rest, strict=True))
    assert Search.resume(path, task, device="cpu").step == len(whole_search)  # it went on saving


def test_it_saves_itself_at_its_end_and_otherwise_only_so_often(tmp_path):
    path = tmp_path / "s.safetensors"
    search = Search(tiny_task(), device="cpu", autosave=path, every=1000)
    next(search)
    assert not path.exists()
    for _ in search:
        pass
    assert Search.resume(path, tiny_task(), device="cpu").step == search.step


def test_the_newest_two_are_kept_and_a_damaged_one_falls_back_to_the_one_before(tmp_path):
    path = tmp_path / "s.safetensors"
    search = Search(tiny_task(), device="cpu", autosave=path, every=0)
    for _ in range(3):
        next(search)
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["s.before.safetensors", "s.safetensors"]
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    with pytest.warns(AutosaveWarning, match="continuing from the one before it, s.before"):
        resumed = Search.resume(path, tiny_task(), device="cpu")
    assert resumed.step == 2
    path.unlink()  # killed between two renames
    assert Search.resume(path, tiny_task(), device="cpu").step == 2


def test_an_autosave_never_replaces_another_search(tmp_path):
    path = tmp_path / "s.safetensors"
    next(Search(tiny_task(), device="cpu", autosave=path, every=0))
    with pytest.raises(SearchError, match="which is there already; allowed: Search.resume"):
        Search(tiny_task(), device="cpu", autosave=path)


@pytest.mark.parametrize("path", [".", "", True, 5])
def test_an_autosave_is_the_path_of_a_file(path):
    with pytest.raises(BmnasError, match="autosave: found .*; allowed: the path of a file"):
        Search(tiny_task(), device="cpu", autosave=path)
    with pytest.raises(BmnasError, match="autosave: found .*; allowed: the path of a file"):
        Search.resume(path, tiny_task())


@pytest.mark.parametrize("every", [-1, "often", float("nan"), True])
def test_how_often_is_a_number_of_seconds(tmp_path, every):
    with pytest.raises(SearchError, match="every: found"):
        Search(tiny_task(), device="cpu", autosave=tmp_path / "s", every=every)


def test_a_search_goes_on_where_it_cannot_save_itself_and_says_so_once(tmp_path):
    path = tmp_path / "folder" / "s.safetensors"
    search = Search(tiny_task(), device="cpu", autosave=path, every=0)
    (tmp_path / "folder").write_text("a file where the folder should be")
    with pytest.warns(AutosaveWarning, match="no autosave: ") as warned:
        for _ in search:
            pass
    assert len(warned) == 1 and search.best_genotype is not None


def test_a_search_by_another_metric_says_so_and_not_what_was_before(tmp_path):
    path = tmp_path / "s.safetensors"
    search = Search(tiny_task(), device="cpu", autosave=path, every=0)
    next(search), next(search)
    with pytest.raises(SearchError, match="s.safetensors: scoring of task 'tiny'"):
        Search.resume(path, replace(tiny_task(), metric="macro_f1"), device="cpu")
