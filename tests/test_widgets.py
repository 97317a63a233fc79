"""Widgets: their buttons do what a plain loop does, show errors, and never block the kernel."""

import asyncio
import base64
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HOSTILE, genotypes
from tiny import recording_bank, tiny_task
from widget_driver import (
    button,
    cell_rows,
    click,
    click_row,
    close_view,
    display,
    error,
    fill,
    is_enabled,
    is_on,
    look_at,
    markup,
    messages,
    open_view,
    options,
    parts,
    plain,
    press,
    scene_data,
    slide,
    stage,
    status,
    text,
    until,
)

from bmnas_core import (
    BmnasError,
    CellGenotype,
    ConfigError,
    FusionNetwork,
    Genotype,
    GenotypeEditor,
    GenotypeError,
    Scoreboard,
    Search,
    SearchConfig,
    SearchHistory,
    SearchStepper,
    StepGenotype,
    TabularBenchmark,
    TrainConfig,
    TrainError,
    count_parameters,
    draw,
    draw_curves,
    draw_heatmaps,
    evaluate,
    interactive,
    load_task,
    register_operation,
    selection,
    side_by_side,
    train,
)
from bmnas_core.draw.genotypes import graph
from bmnas_core.draw.scene import numbers
from bmnas_core.genotype import DEFAULT_OPERATIONS, LARGEST, MOTIFS, OPERATIONS
from bmnas_core.train import network_cost
from bmnas_core.widgets.base import KernelLock, stop_all
from bmnas_core.widgets.editor import CUSTOM
from bmnas_core.widgets.scoreboard import Entry
from bmnas_core.widgets.stepper import UNATTENDED_STEPS

TASK = tiny_task()


def search_of(seed=0, task=None, bank=None, **config):
    return Search(task or tiny_task(), SearchConfig(**config), seed=seed, device="cpu", bank=bank)


def stepper_of(seed=0, **config):
    return SearchStepper(search_of(seed, **config))


def looped(seed=0, until=None, **config) -> SearchHistory:
    """The history of a plain loop, to its end or ``until`` a step."""
    search = search_of(seed, **config)
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
        if state.step == until:
            break
    return history


def cell(inputs, *steps):
    return CellGenotype(inputs, tuple(StepGenotype(op, pair) for op, pair in steps))


def one_step(op="sum", inputs=("Image_1", "Audio_1"), of=("X", "Y")):
    return Genotype(TASK.features, (cell(inputs, (op, of)),))


# --- SearchStepper: the buttons


def test_the_buttons_make_the_steps_of_a_plain_loop_to_the_bit():
    loop = looped(epochs=5)
    stepper = stepper_of(epochs=5)
    assert stepper.history.steps.tolist() == [0]
    press(stepper, "Step")
    assert stepper.history.steps.tolist() == [0, 1]
    press(stepper, "Step ×10")
    assert len(stepper.history) == 12 and stepper.state.step == 11
    stepper.step()
    assert stepper.search.step == stepper.state.step == 12
    press(stepper, "Run")
    assert stepper.history == loop
    assert stepper.search.best_genotype == loop.best.genotype
    assert not error(stepper)


def test_at_the_end_of_the_search_only_reset_can_be_pressed():
    stepper = stepper_of()
    assert is_enabled(stepper, "Step") and is_enabled(stepper, "Run")
    assert not is_enabled(stepper, "Pause")
    press(stepper, "Step ×10")
    assert len(stepper.history) == 7
    for name in ("Step", "Step ×10", "Run"):
        assert not is_enabled(stepper, name)
        press(stepper, name)
    stepper.step(5)
    assert len(stepper.history) == 7 and not error(stepper)
    assert is_enabled(stepper, "Reset")


def test_the_browser_is_sent_the_numbers_of_every_state():
    stepper = stepper_of()
    press(stepper, "Step ×10")
    sent = scene_data(stepper)["last"]
    for frame, state in zip(sent["frames"], stepper.history, strict=True):
        assert frame["weights"] == numbers(state.weights) and frame["text"] == str(state)
        genotype = sent["genotypes"][frame["genotype"]]
        assert genotype["svg"] == draw(state.genotype).svg
        picked = [sent["scene"]["fields"][k] for k in genotype["picks"]]
        names = [name for c in state.genotype.cells for name in taken(c)]
        assert [field["name"] for field in picked] == names
    assert len(sent["genotypes"]) == len(stepper.history.genotypes)
    assert len(json.dumps(sent["frames"][-1])) < 1000


def taken(cell: CellGenotype) -> list[str]:
    """What a Cell takes, in the order of its decisions: inputs, those of steps, operations."""
    inputs = [name for step in cell.steps for name in step.inputs]
    return [*cell.inputs, *inputs, *(step.op for step in cell.steps)]


@pytest.mark.slow
def test_a_saved_notebook_shows_the_state_that_the_slider_shows():
    stepper = stepper_of()
    press(stepper, "Step ×10")
    for frame in (6, 3, 0):
        slide(stepper, frame)
        state = stepper.history[frame]
        before = stepper.history[max(frame - 1, 0)].genotype
        changes = state.genotype.changes_from(before)
        drawn = draw(state.genotype, against=before if changes else None)
        curves = draw_curves(stepper.history, at=state.step)
        assert svgs(stepper.pictures()) == [
            draw(state).svg, draw_heatmaps(state).svg, drawn.svg, curves.svg
        ]  # fmt: skip
        assert listed(stepper).count("<li>") == len(changes)
        assert all(str(change) in plain(listed(stepper)) for change in changes)
        best = stepper.history.best
        assert status(stepper).startswith(f"step {frame} · ")
        assert f"best validation score {best.val_score:.3f} at step {best.step}" in status(stepper)


def listed(stepper) -> str:
    """What a saved notebook says of the changes."""
    (found,) = (p.data for p in stepper.pictures() if "<ul>" in getattr(p, "data", ""))
    return found


def test_the_slider_shows_earlier_states_and_the_search_continues_from_the_last_one():
    loop = looped(epochs=4)
    stepper = stepper_of(epochs=4)
    stepper.step(8)
    slide(stepper, 3)
    assert (stepper.state.step, stepper.search.step) == (3, 8)
    assert "looking back, the search is at step 8" in status(stepper)
    press(stepper, "Step")
    assert (stepper.state.step, stepper.search.step) == (9, 9)
    assert "looking back" not in status(stepper)
    stepper.show(5)
    assert stepper.state.step == 5
    press(stepper, "Run")
    assert stepper.history == loop and stepper.state.step == 12


@pytest.mark.parametrize("frame, shown", [(-3, 0), (99, 4)])
def test_a_slider_beyond_its_ends_shows_the_state_there(frame, shown):
    stepper = stepper_of()
    stepper.step(4)
    slide(stepper, frame)
    assert stepper.state.step == shown


@pytest.mark.slow
def test_what_changed_is_what_was_not_so_before_the_press():
    stepper = stepper_of(epochs=5)
    stepper.step(2)
    for name, until_step in (("Step", 3), ("Step ×10", 13), ("Run", 15)):
        before = stepper.state
        press(stepper, name)
        assert stepper.state.step == until_step
        changes = stepper.state.genotype.changes_from(before.genotype)
        assert listed(stepper).count("<li>") == len(changes)
        said = f"changed since step {before.step}" if changes else f"as at step {before.step}"
        assert said in plain(listed(stepper))
    slide(stepper, 7)
    assert re.search("(changed since|as at) step 6", plain(listed(stepper)))


def test_a_run_to_the_next_change_ends_with_another_genotype():
    stepper = stepper_of(epochs=5)
    for _ in range(3):
        first, before = stepper.search.step, stepper.state.genotype
        press(stepper, "To a change")
        made = stepper.history[stepper.history.index(first) + 1 :]
        assert all(not state.genotype.changes_from(before) for state in made[:-1])
        assert made[-1].genotype.changes_from(before) or not len(stepper.search)
    assert stepper.history == looped(epochs=5, until=stepper.search.step)


def test_a_run_to_the_end_of_an_epoch_ends_with_its_validation_score():
    stepper = stepper_of(epochs=3)
    press(stepper, "Step")
    for epoch in (1, 2, 3):
        press(stepper, "To the epoch's end")
        assert stepper.state.step == 3 * epoch and stepper.state.val_score is not None
    with pytest.raises(BmnasError, match="run: found 'never'; allowed: end, change, epoch"):
        stepper.run("never")


def test_reset_keeps_the_run_before_as_a_ghost():
    stepper = stepper_of()
    assert scene_data(stepper)["ghost"] is None
    press(stepper, "Run")
    before = scene_data(stepper)["last"]
    fill(stepper, "seed", 3)
    press(stepper, "Reset")
    press(stepper, "Step")
    assert scene_data(stepper)["ghost"] == before
    assert [frame["step"] for frame in scene_data(stepper)["last"]["frames"]] == [0, 1]


def test_cells_are_a_setting_that_reset_takes():
    stepper = stepper_of(N=2)
    fill(stepper, "Cells", 1)
    press(stepper, "Reset")
    assert stepper.search.config.N == 1 and len(stepper.state.genotype.cells) == 1
    assert "Cell 2" not in scene_data(stepper)["last"]["scene"]["graph"]


@pytest.mark.slow
def test_the_rank_of_the_derived_network_is_shown_where_all_architectures_were_trained():
    task = load_task("digits", rule="sum")
    stepper = SearchStepper(Search(task, SearchConfig(selection="argmax"), device="cpu"))
    stepper.step(2)
    table = TabularBenchmark("digits", "sum")
    shown = scene_data(stepper)["last"]
    assert shown["scene"]["size"] == len(table) == 1950
    for frame, state in zip(shown["frames"], stepper.history, strict=True):
        assert shown["genotypes"][frame["genotype"]]["rank"] == table.rank(state.genotype)
    assert f"rank {table.rank(stepper.state.genotype):,} of 1,950" in status(stepper)
    stepper.reset(N=2)
    assert scene_data(stepper)["last"]["scene"]["size"] == 0 and "rank" not in status(stepper)


def test_a_changed_copy_of_the_task_has_no_table():
    task = load_task("digits", rule="sum", snr_db=5.0)
    assert TabularBenchmark.covering(task, 1, 2, DEFAULT_OPERATIONS) is None
    assert TabularBenchmark.covering(tiny_task(), 1, 2, DEFAULT_OPERATIONS) is None


def test_settings_take_effect_at_reset():
    stepper = stepper_of()
    stepper.step(2)
    before = stepper.search
    fill(stepper, "relaxation", "paper")
    fill(stepper, "schedule", "epoch")
    fill(stepper, "rate of α, β, γ", 0.5)
    fill(stepper, "seed", 7)
    assert "press Reset" in text(stepper)
    assert stepper.search is before and len(stepper.history) == 3
    wanted = {"relaxation": "paper", "schedule": "epoch", "arch_lr": 0.5}
    assert stepper.settings == {**wanted, "max_lr": before.config.max_lr, "N": 2, "seed": 7}
    press(stepper, "Reset")
    assert "press Reset" not in text(stepper) and not error(stepper)
    config = stepper.search.config
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert (stepper.search.seed, stepper.state.step, len(stepper.history)) == (7, 0, 1)
    press(stepper, "Run")
    assert stepper.history == looped(7, **wanted)


def test_reset_takes_settings_by_name_and_keeps_the_others():
    stepper = stepper_of(arch_weight_decay=0.25, N=1)
    bank, scoreboard = stepper.search.bank, stepper.scoreboard
    stepper.step(3)
    stepper.reset(seed=np.int64(2), relaxation="paper", M=3)
    config = stepper.search.config
    assert (config.M, config.N, config.arch_weight_decay) == (3, 1, 0.25)
    assert (stepper.settings["seed"], stepper.settings["relaxation"]) == (2, "paper")
    assert stepper.search.bank is bank and stepper.scoreboard is scoreboard
    stepper.reset()
    assert (stepper.search.seed, stepper.search.config.M) == (2, 3)
    with pytest.raises(ConfigError, match="SearchConfig.max_lr: found -1.0; allowed: above 0.0"):
        stepper.reset(max_lr=-1.0)
    assert stepper.search.config == config


def test_a_setting_that_is_not_allowed_is_shown_and_the_search_stays():
    stepper = stepper_of()
    stepper.step(2)
    before = stepper.search
    fill(stepper, "rate of weights", -1)
    press(stepper, "Reset")
    assert "ConfigError: SearchConfig.max_lr: found -1.0; allowed: above 0.0" in error(stepper)
    assert stepper.search is before and is_enabled(stepper, "Reset")
    press(stepper, "Step")
    assert stepper.state.step == 3 and not error(stepper)
    fill(stepper, "rate of weights", 0.02)
    press(stepper, "Reset")
    assert (stepper.search.config.max_lr, stepper.state.step) == (0.02, 0)


def test_a_loss_that_is_not_finite_is_shown_and_reset_starts_a_new_search():
    stepper = stepper_of()
    fill(stepper, "rate of weights", 1e30)
    press(stepper, "Reset")
    press(stepper, "Run")
    assert re.search(r"SearchError: .* loss at step \d: found nan; not finite", error(stepper))
    assert "Traceback" not in error(stepper)
    assert not is_enabled(stepper, "Pause") and is_enabled(stepper, "Run")
    fill(stepper, "rate of weights", 1e-2)
    press(stepper, "Reset")
    assert not error(stepper)
    press(stepper, "Run")
    assert stepper.history == looped()


def test_an_unexpected_error_is_shown_as_text_with_its_traceback(monkeypatch):
    stepper = stepper_of()
    stepper.step(1)

    def broken(*_):
        raise RuntimeError("<img src=x onerror=alert(1)>")

    with monkeypatch.context() as patched:
        patched.setattr(stepper.search.bank, "batch", broken)
        press(stepper, "Run")
    assert "RuntimeError: <img src=x onerror=alert(1)>" in error(stepper)
    assert "<img" not in markup(stepper)
    assert "Traceback" in error(stepper)
    assert len(stepper.history) == 2 and not is_enabled(stepper, "Pause")
    press(stepper, "Reset")
    assert not error(stepper)
    press(stepper, "Run")
    assert stepper.history == looped()


def test_a_search_that_has_made_steps_continues_from_there():
    search = search_of()
    next(search), next(search)
    stepper = SearchStepper(search)
    assert (stepper.state.step, len(stepper.history)) == (2, 1)
    press(stepper, "Run")
    assert stepper.history.steps.tolist() == [2, 3, 4, 5, 6]
    assert np.array_equal(stepper.state.alpha, looped()[-1].alpha)


def test_a_task_is_searched_with_its_own_settings():
    task = tiny_task()
    stepper = SearchStepper(task)
    assert stepper.search.task is task and stepper.search.config == Search(task).config
    assert stepper.scoreboard is Scoreboard.shared(task)


def test_a_search_that_ends_early_ends_the_steps(monkeypatch):
    monkeypatch.setattr(selection, "MAX_NOISE_RATIO", 0.0)
    stepper = stepper_of(selection="successive_halving", rungs=((2, 1), (1, 2)))
    most = len(stepper.search)
    stepper.step(2 * most)
    assert stepper.search.step == most - 1 and not len(stepper.search)
    assert "· 0 of" in status(stepper) and stepper.state.phase == "selection"


@pytest.mark.parametrize("what", [None, "digits", 3, one_step()])
def test_only_searches_and_tasks_can_be_stepped_through(what):
    with pytest.raises(BmnasError, match=r"SearchStepper: found \w+; allowed: a Search or a Task"):
        SearchStepper(what)


@pytest.mark.parametrize("steps", [-1, 1.5, "2", None])
def test_only_a_number_of_steps_can_be_made_or_shown(steps):
    stepper = stepper_of()
    with pytest.raises(BmnasError, match="step: found .*; allowed: an integer of 0 or more"):
        stepper.step(steps)
    if steps != -1:
        with pytest.raises(BmnasError, match="show: found .*; allowed: an integer"):
            stepper.show(steps)
    assert stepper.search.step == 0


def test_save_writes_the_genotype_shown_and_the_whole_history(tmp_path):
    stepper = stepper_of()
    stepper.step(5)
    stepper.show(2)
    genotype = stepper.state.genotype
    assert genotype != stepper.history[-1].genotype
    fill(stepper, "folder", str(tmp_path / "new"))
    press(stepper, "Save")
    assert "saved the genotype of step 2" in text(stepper)
    assert Genotype.load(tmp_path / "new" / "genotype.json") == genotype
    assert (tmp_path / "new" / "genotype.svg").read_text("utf-8") == draw(genotype).svg
    assert SearchHistory.load(tmp_path / "new" / "history.safetensors") == stepper.history
    assert stepper.save(tmp_path / "other") == tmp_path / "other"
    assert len(list((tmp_path / "other").iterdir())) == 3


def test_a_folder_that_cannot_be_written_to_is_shown_as_an_error(tmp_path):
    stepper = stepper_of()
    (tmp_path / "<b>").write_text("a file")
    fill(stepper, "folder", str(tmp_path / "<b>"))
    press(stepper, "Save")
    message = r"path: found .*<b>\S* \(.*\); allowed: the path of a file"
    assert re.search(message, error(stepper)) and "<b>" not in markup(stepper, "alert")
    assert "saved" not in text(stepper)
    with pytest.raises(BmnasError, match=message):
        stepper.save(tmp_path / "<b>" / "c")


# --- training from the stepper


def test_the_genotype_shown_is_trained_once_on_train_and_scored_on_validation():
    task = tiny_task()
    bank, read = recording_bank(task)
    stepper = SearchStepper(search_of(task=task, bank=bank))
    stepper.step(4)
    stepper.show(1)
    press(stepper, "Train this one")
    (entry,) = stepper.scoreboard.entries
    genotype = stepper.history[1].genotype
    assert (entry.name, entry.genotype) == ("step 1, pair, seed 0", genotype)
    net, history = train(genotype, tiny_task(), TrainConfig(data="train"), progress=False)
    assert entry.score == history[-1]["validation_score"] == evaluate(net, task, "validation")
    assert entry.parameters == count_parameters(net) and entry.operations > entry.parameters
    count = len(read)
    press(stepper, "Train this one")
    assert "already in the table: step 1, pair, seed 0" in text(stepper.scoreboard)
    stepper.train()
    assert len(stepper.scoreboard.entries) == 1 and len(read) == count
    stepper.show(4)
    stepper.train()
    assert [e.name for e in stepper.scoreboard.entries][1] == "step 4, pair, seed 0"
    press(stepper, "Run")
    press(stepper, "Train this one")
    assert {split for split, _ in read} == {"train", "validation"}
    assert not error(stepper) and is_enabled(stepper, "Train this one")


@pytest.mark.slow
def test_flops_can_be_counted_while_another_thread_searches():
    """They are counted by hooks of all modules, which the step of a search would run into."""
    task, found = tiny_task(), []
    counting = threading.Thread(
        target=lambda: [found.append(network_cost(one_step(), task)) for _ in range(200)]
    )
    counting.start()
    histories = [looped(epochs=10) for _ in range(3)]
    counting.join()
    assert len({*found}) == 1 and len(found) == 200
    assert histories[0] == histories[1] == histories[2] == looped(epochs=10)


@pytest.mark.slow
def test_a_run_waits_while_a_network_is_trained_and_then_goes_on():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=300))
        stepper = SearchStepper(search_of(task=task, epochs=200), scoreboard=board)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 3)
        training = button(stepper, "Train this one")
        training.click()
        await until(lambda: "epoch" in training.description)
        here = stepper.search.step
        await until(lambda: "waiting while step" in status(stepper))
        await asyncio.sleep(0.3)
        assert stepper.search.step <= here + 1 and board.entries == []
        await until(lambda: board.entries)
        await until(lambda: stepper.search.step > here + 5)
        stepper.pause()
        await stepper.finished()
        assert "waiting" not in status(stepper) and not error(stepper)
        return stepper.history

    history = asyncio.run(main())
    assert history == looped(epochs=200, until=history.steps[-1])


def test_a_training_can_be_cancelled():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=5000))
        stepper = SearchStepper(search_of(task=task), scoreboard=board)
        assert not is_enabled(stepper, "Cancel")
        training = button(stepper, "Train this one")
        training.click()
        await until(lambda: "epoch" in training.description)
        assert is_enabled(stepper, "Cancel")
        press(stepper, "Cancel")
        await until(lambda: is_on(training))
        assert "training of step 0, pair, seed 0 stopped in epoch" in text(board)
        assert board.entries == [] and not is_enabled(stepper, "Cancel")

    asyncio.run(main())


def test_an_interrupt_stops_everything():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=5000))
        one = SearchStepper(search_of(task=task, epochs=200), scoreboard=board)
        other = stepper_of(1, epochs=200)
        training = button(one, "Train this one")
        training.click()
        press(other, "Run")
        await until(lambda: "epoch" in training.description)
        stop_all()
        await until(lambda: is_on(training) and is_enabled(other, "Step"))
        assert board.entries == [] and len(other.search) > 100

    asyncio.run(main())


@pytest.mark.slow
def test_a_saved_notebook_keeps_pictures_of_what_was_shown_last(monkeypatch):
    shown = {}
    monkeypatch.setattr("bmnas_core.widgets.base.is_interactive", lambda: True)
    for name in ("display", "update_display"):
        monkeypatch.setattr(
            f"IPython.display.{name}",
            lambda one, display_id, raw=False: shown.update({display_id: one}),
        )
    steppers = stepper_of(), stepper_of(1)
    both = side_by_side(*steppers)
    for widget in (stepper_of(), both):
        with pytest.raises(NotImplementedError):
            display(widget)
    shown.clear()
    press(steppers[0], "Step ×10")
    assert "step 6 ·" in " ".join(plain(one.data) for one in shown.values() if hasattr(one, "data"))
    pictures = [one for one in shown.values() if isinstance(one, dict)]
    found = {one["image/svg+xml"] for one in pictures}
    assert {draw(stepper.state).svg for stepper in steppers} <= found
    for one in pictures:  # what an untrusted notebook shows
        assert base64.b64decode(one["image/png"]).startswith(b"\x89PNG")


def test_a_training_that_fails_is_shown_and_leaves_no_entry(monkeypatch):
    stepper = stepper_of()

    def broken(*_, **__):
        raise TrainError("training loss: found <nan>")

    monkeypatch.setattr("bmnas_core.widgets.scoreboard.train", broken)
    press(stepper, "Train this one")
    assert "TrainError: training loss: found <nan>" in error(stepper)
    assert stepper.scoreboard.entries == [] and is_enabled(stepper, "Train this one")
    assert "training step 0" not in text(stepper.scoreboard)


# --- in the kernel's event loop


def test_a_run_is_paused_from_elsewhere_and_continues_later():
    async def main():
        stepper = stepper_of(epochs=200)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 4)
        assert is_enabled(stepper, "Pause") and not is_enabled(stepper, "Step")
        press(stepper, "Pause")
        reached = stepper.search.step
        await until(lambda: is_enabled(stepper, "Step"))
        await asyncio.sleep(0.1)
        assert reached <= stepper.search.step <= reached + 1 < stepper.search.total_steps
        here = stepper.search.step
        assert stepper.state.step == here
        press(stepper, "Step")
        await until(lambda: stepper.state.step == here + 1)
        stepper.run()
        await until(lambda: stepper.search.step > here + 3)
        stepper.pause()
        await stepper.finished()
        assert stepper.state.step == stepper.search.step
        return stepper.history

    history = asyncio.run(main())
    assert history == looped(epochs=200, until=history.steps[-1])


def test_the_event_loop_is_free_while_a_step_is_made(monkeypatch):
    async def main():
        stepper = stepper_of()
        free, batch = threading.Event(), stepper.search.bank.batch

        def waits(*arguments):
            assert free.wait(20)
            return batch(*arguments)

        monkeypatch.setattr(stepper.search.bank, "batch", waits)
        press(stepper, "Run")
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert is_enabled(stepper, "Pause") and len(stepper.history) == 1
        slide(stepper, 0)
        free.set()
        await stepper.finished()
        return stepper.history

    assert asyncio.run(main()) == looped()


def test_a_run_stops_when_the_last_view_is_closed():
    async def main():
        stepper = stepper_of(epochs=200)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 2)
        open_view(stepper)
        assert is_enabled(stepper, "Pause")
        close_view(stepper)
        assert not is_enabled(stepper, "Pause")
        here = stepper.search.step
        await asyncio.sleep(0.1)
        assert stepper.search.step <= here + 1 < stepper.search.total_steps

    asyncio.run(main())


def test_a_run_stops_when_the_widget_is_closed():
    async def main():
        stepper = stepper_of(epochs=200)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 2)
        stepper.close()
        here = stepper.search.step
        await asyncio.sleep(0.1)
        assert stepper.search.step <= here + 1 < stepper.search.total_steps

    asyncio.run(main())


@pytest.mark.slow
def test_two_steppers_at_once_give_the_same_as_each_alone():
    kinds = [(0, {"relaxation": "pair"}), (1, {"relaxation": "paper", "schedule": "epoch"})]

    async def main():
        steppers = [stepper_of(seed, epochs=5, **config) for seed, config in kinds]
        for stepper in steppers:
            press(stepper, "Run")
        await until(lambda: all(stepper.search.step > 0 for stepper in steppers))
        assert all(is_enabled(stepper, "Pause") for stepper in steppers)
        for stepper in steppers:
            await stepper.finished()
        return [stepper.history for stepper in steppers]

    for history, (seed, config) in zip(asyncio.run(main()), kinds, strict=True):
        assert history == looped(seed, epochs=5, **config)


@pytest.mark.slow
def test_a_run_and_a_plain_search_do_not_change_each_other():
    async def main():
        stepper, search = stepper_of(epochs=6), search_of(3, epochs=4)
        press(stepper, "Run")
        history = SearchHistory.from_search(search)
        for state in search:
            history.append(state)
            await asyncio.sleep(0)
        await stepper.finished()
        return stepper.history, history

    assert asyncio.run(main()) == (looped(epochs=6), looped(3, epochs=4))


def test_buttons_pressed_in_quick_succession_leave_the_steps_in_order():
    async def main():
        stepper = stepper_of(epochs=6)
        for _ in range(4):
            press(stepper, "Run")
            press(stepper, "Step")
            await asyncio.sleep(0.02)
            press(stepper, "Pause")
            press(stepper, "Step ×10")
            press(stepper, "Pause")
            press(stepper, "Step")
            await asyncio.sleep(0)
        await stepper.finished()
        press(stepper, "Run")
        await stepper.finished()
        assert not len(stepper.search)
        return stepper.history

    assert asyncio.run(main()) == looped(epochs=6)


@pytest.mark.slow
def test_a_run_does_not_move_on_from_an_earlier_state_that_is_shown():
    async def main():
        stepper = stepper_of(epochs=20)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 3)
        slide(stepper, 1)
        assert stepper.state.step == 1 and "looking back" in status(stepper)
        here = len(stepper.history)
        await until(lambda: len(stepper.history) > here + 3)
        assert stepper.state.step == 1
        assert len(scene_data(stepper)["last"]["frames"]) == len(stepper.history)
        slide(stepper, len(stepper.history) - 1)
        await stepper.finished()
        assert stepper.state.step == stepper.search.step == 60

    asyncio.run(main())


def test_reset_during_a_run_stops_it_and_the_new_search_is_the_same_as_alone():
    async def main():
        stepper = stepper_of(epochs=200)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 3)
        fill(stepper, "seed", 5)
        press(stepper, "Reset")
        await until(lambda: stepper.search.seed == 5)
        await asyncio.sleep(0.1)
        assert not is_enabled(stepper, "Pause") and stepper.history.steps.tolist() == [0]
        for k in range(3):
            press(stepper, "Step")
            await stepper.finished()
            assert stepper.state.step == k + 1
        return stepper.history

    history = asyncio.run(main())
    search = search_of(5, epochs=200)
    assert np.array_equal([next(search) for _ in range(3)][-1].alpha, history[-1].alpha)


def test_run_pressed_during_a_reset_runs_once_the_reset_is_done(monkeypatch):
    def slow_search(*arguments, **options):
        time.sleep(0.3)
        return Search(*arguments, **options)

    async def main():
        stepper = stepper_of(epochs=200)
        monkeypatch.setattr("bmnas_core.widgets.stepper.Search", slow_search)
        fill(stepper, "seed", 5)
        press(stepper, "Reset")
        await until(lambda: not is_enabled(stepper, "Reset"))
        press(stepper, "Run")
        await until(lambda: stepper.search.seed == 5 and stepper.search.step > 3)
        stepper.pause()
        await stepper.finished()
        step = stepper.search.step
        press(stepper, "Reset")
        await until(lambda: stepper.search.step == 0 and is_enabled(stepper, "Reset"))
        await asyncio.sleep(0.1)
        assert stepper.search.step == 0 < step  # the earlier press does not count again

    asyncio.run(main())


def test_a_step_of_the_old_search_that_ends_after_a_reset_is_dropped():
    async def main():
        stepper = stepper_of(epochs=200)
        for seed in range(3):
            press(stepper, "Run")
            await until(lambda: len(stepper.history) > 3)
            stepper.reset(seed=seed)
            await asyncio.sleep(0.05)
            assert stepper.search.seed == seed and not is_enabled(stepper, "Pause")
            assert stepper.history.steps.tolist() == [0] and not error(stepper)

    asyncio.run(main())


def test_a_button_pressed_in_another_thread_works_in_the_event_loop():
    async def main():
        stepper = stepper_of()
        await asyncio.to_thread(press, stepper, "Step ×10")
        await until(lambda: len(stepper.history) == 7)
        await asyncio.to_thread(slide, stepper, 2)
        await until(lambda: stepper.state.step == 2)
        return stepper.history

    assert asyncio.run(main()) == looped()


def test_an_error_in_a_run_is_shown_and_the_next_steps_are_as_if_it_had_not_been(monkeypatch):
    async def main():
        stepper = stepper_of(epochs=5)
        bank = stepper.search.bank
        batch = bank.batch

        def breaks(*arguments):
            if stepper.search.step == 4:
                raise ValueError("<oh> no")
            return batch(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(bank, "batch", breaks)
            press(stepper, "Run")
            await stepper.finished()
        assert "ValueError: <oh> no" in error(stepper)
        assert stepper.state.step == 4
        assert is_enabled(stepper, "Step") and not is_enabled(stepper, "Pause")
        press(stepper, "Step")
        await stepper.finished()
        assert stepper.state.step == 5 and not error(stepper)
        press(stepper, "Run")
        await stepper.finished()
        return stepper.history

    assert asyncio.run(main()) == looped(epochs=5)


def test_a_training_shows_each_epoch_and_stops_when_its_last_view_is_closed():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=5000))
        stepper = SearchStepper(search_of(task=task), scoreboard=board)
        training = button(stepper, "Train this one")
        press(stepper, "Train this one")
        await until(lambda: "training step 0, pair, seed 0: epoch" in text(board))
        assert not is_on(training) and board.entries == []
        close_view(stepper)
        await until(lambda: is_on(training))
        assert "training of step 0, pair, seed 0 stopped in epoch" in text(board)
        assert board.entries == [] and "nothing trained yet" in text(board)
        board.config = TrainConfig(epochs=2, data="train")
        press(stepper, "Train this one")
        await until(lambda: board.entries and is_on(training))
        assert not error(stepper)

    asyncio.run(main())


@pytest.mark.parametrize("stop", [lambda stepper: press(stepper, "Pause"), close_view])
def test_a_run_can_be_stopped_right_after_it_began(stop):
    async def main():
        stepper = stepper_of(epochs=20)
        press(stepper, "Run")
        stop(stepper)
        await until(lambda: is_enabled(stepper, "Step"))
        assert stepper.search.step <= 1

    asyncio.run(main())


def test_one_of_two_views_closed_stops_nothing_and_a_reloaded_page_counts_from_zero():
    async def main():
        stepper = stepper_of(epochs=200)
        open_view(stepper, "one")
        open_view(stepper, "one")
        close_view(stepper, "one")
        open_view(stepper, "two")
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 5)
        assert is_enabled(stepper, "Pause")
        close_view(stepper, "two")
        await until(lambda: is_enabled(stepper, "Step"))
        assert len(stepper.search)

    asyncio.run(main())


def test_a_reset_in_code_during_a_run_can_be_run_at_once():
    async def main():
        stepper = stepper_of(epochs=20)
        press(stepper, "Run")
        await until(lambda: len(stepper.history) > 3)
        with pytest.raises(BmnasError, match="step: found a run in progress; allowed: in a cell"):
            stepper.step()
        stepper.reset(seed=6)
        stepper.run()
        await until(lambda: stepper.search.step > 3)
        assert stepper.search.seed == 6
        stepper.pause()
        await until(lambda: is_enabled(stepper, "Step"))

    asyncio.run(main())


def test_threads_that_a_cell_starts_do_not_wait_for_it():
    lock = KernelLock()
    lock.enter_cell()
    searches = [search_of(seed=seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        steps = [state.step for state in pool.map(next, searches, timeout=20)]
    assert steps == [1, 1]
    lock.leave_cell()


def test_jobs_wait_for_cells_and_cells_for_the_running_job():
    lock, order = KernelLock(), []

    def job():
        with lock.job():
            order.append("job")

    lock.enter_cell()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(job)
        time.sleep(0.05)
        order.append("cell")
        lock.leave_cell()
        done.result(10)
    assert order == ["cell", "job"]

    with ThreadPoolExecutor(1) as pool:
        with lock.job():
            cell = pool.submit(lambda: (lock.enter_cell(), order.append("next"), lock.leave_cell()))
            time.sleep(0.05)
            order.append("job ends")
        cell.result(10)
    assert order[2:] == ["job ends", "next"]


def test_jobs_run_while_a_cell_waits_for_them_and_after_it_waited_outside_of_one():
    lock, order = KernelLock(), []

    def job(name):
        with lock.job():
            order.append(name)

    with ThreadPoolExecutor(1) as pool:
        lock.enter_cell()
        with lock.open():
            pool.submit(job, "inside").result(10)
        done = pool.submit(job, "next")
        time.sleep(0.05)
        order.append("cell ends")
        lock.leave_cell()
        done.result(10)
        with lock.open():
            pass
        pool.submit(job, "outside").result(10)
    assert order == ["inside", "cell ends", "next", "outside"]


# --- in a notebook that runs unattended


@pytest.fixture
def left_behind(monkeypatch):
    """Displays a widget in a notebook that runs unattended, and returns what that leaves there."""
    monkeypatch.setenv("BMNAS_UNATTENDED", "1")

    def left_behind(widget) -> list:
        shown = []
        monkeypatch.setattr("IPython.display.display", shown.append)
        display(widget)
        return shown

    return left_behind


def svgs(shown) -> list[str]:
    return [one.svg for one in shown if hasattr(one, "svg")]


@pytest.mark.slow
def test_an_unattended_stepper_makes_steps_by_itself_and_leaves_pictures(left_behind):
    stepper = stepper_of(epochs=30)
    shown = left_behind(stepper)
    assert stepper.search.step == UNATTENDED_STEPS == 60
    state, before = stepper.history[-1], stepper.history[-2].genotype
    assert svgs(shown) == [
        draw(state).svg,
        draw_heatmaps(state).svg,
        draw(state.genotype, against=before).svg,
        draw_curves(stepper.history, at=60).svg,
    ]
    assert "step 60 ·" in shown[0].data
    stepper.demonstrate()
    assert stepper.search.step == 60


@pytest.mark.slow
def test_the_other_widgets_leave_pictures_too(left_behind):
    editor = GenotypeEditor(tiny_task(), one_step("attention"))
    editor.train()
    assert svgs(left_behind(editor)) == [drawn(one_step("attention")).svg]
    assert "edited 1" in left_behind(editor.scoreboard)[0].data
    sliders = interactive(lambda a: draw(one_step()), a=(0, 1, 0.5))
    assert "<svg" in left_behind(sliders)[0].data
    steppers = stepper_of(epochs=1), stepper_of(1, epochs=1)
    shown = left_behind(side_by_side(*steppers))
    states = [stepper.state for stepper in steppers]
    assert svgs(shown) == [d(state).svg for state in states for d in (draw, draw_heatmaps)]
    assert [state.step for state in states] == [3, 3]


def test_a_widget_that_somebody_can_use_shows_itself(monkeypatch):
    monkeypatch.setattr("bmnas_core.widgets.base.is_interactive", lambda: True)
    stepper = stepper_of()
    sliders = interactive(lambda a: draw(one_step()), a=(0, 1, 0))
    for widget in (
        stepper, stepper.scoreboard, GenotypeEditor(TASK), sliders, side_by_side(stepper)
    ):  # fmt: skip
        with pytest.raises(NotImplementedError):
            display(widget)
    assert stepper.search.step == 0


def test_widgets_beside_each_other_are_the_widgets_themselves():
    steppers = [stepper_of(), stepper_of(1)]
    _, row, *_ = side_by_side(*steppers).children
    assert list(row.children) == steppers


def test_above_searches_beside_each_other_stands_what_differs():
    one, other = steppers = [stepper_of(), stepper_of(1)]
    both = side_by_side(*steppers)

    def titles():
        return [plain(stepper.children[0].value) for stepper in steppers]

    assert titles() == ["seed 0", "seed 1"]
    other.reset(relaxation="paper", seed=0)
    assert titles() == ["relaxation pair", "relaxation paper"]
    other.reset(relaxation="pair", seed=0)
    assert titles() == ["relaxation pair, seed 0"] * 2
    assert both.children[1].children == (one, other)


# --- Scoreboard


def test_the_best_is_listed_first_and_names_are_text():
    board = Scoreboard(tiny_task())
    assert "nothing trained yet" in text(board)
    names, scores = HOSTILE[:4], (0.5, 0.875, 0.25, 0.875)
    for op, name, score in zip(list(OPERATIONS)[:4], names, scores, strict=True):
        board.entries.append(Entry(name, one_step(op), score, 1234, 56789, 0.25))
    board.clear_message()
    _, *rows = re.findall(r"<tr>(.*?)</tr>", markup(board))
    cells = [[plain(cell) for cell in row.split("</td>")] for row in rows]
    assert [c[1] for c in cells] == [names[1], names[3], names[0], names[2]]
    assert [c[3] for c in cells] == ["0.875", "0.875", "0.500", "0.250"]
    assert [c[0] for c in cells] == ["1", "2", "3", "4"]
    assert cells[0][4:7] == ["1,234", "56,789", "0.2"]
    assert "<script" not in markup(board) and "<b>_1" not in markup(board)
    assert "nothing trained yet" not in text(board)
    assert "validation accuracy" in text(board) and "test is not read" in text(board)


def test_features_named_like_markup_stay_text_in_the_table():
    task = tiny_task(tuple(HOSTILE[:2]))
    board = Scoreboard(task)
    genotype = Genotype(task.features, (cell(task.features[:2], ("sum", ("X", "Y"))),))
    board.add(genotype, "<i>x")
    assert "<script" not in markup(board) and "<i>" not in markup(board)
    assert task.features[0] in text(board)


def test_a_scoreboard_trains_on_train_alone_whatever_its_config_says():
    task = tiny_task()
    bank, read = recording_bank(task)
    board = Scoreboard(task, TrainConfig(data="train+validation", epochs=3), seed=4, bank=bank)
    made = board.add(one_step(), "a")
    assert board.entries == [made]
    assert {split for split, _ in read} == {"train", "validation"}
    config = TrainConfig(data="train", epochs=3)
    _, history = train(one_step(), tiny_task(), config, seed=4, progress=False)
    assert made.score == history[-1]["validation_score"]
    assert "3 epochs on train" in text(board)


def test_one_architecture_has_one_entry_however_it_is_listed():
    board = Scoreboard(tiny_task(), TrainConfig(epochs=1))
    first = board.add(one_step("concat_fc"), "a")
    assert board.add(one_step("concat_fc", of=("Y", "X")), "b") is first
    assert board.find(one_step("concat_fc", of=("Y", "X"))) is first
    assert board.find(one_step("sum")) is None
    board.add(one_step("attention"), "c")
    board.add(one_step("attention", of=("Y", "X")), "d")
    assert [e.name for e in board.entries] == ["a", "c", "d"]


def test_widgets_of_a_task_share_a_scoreboard():
    task = tiny_task()
    stepper, editor = SearchStepper(task), GenotypeEditor(task)
    assert stepper.scoreboard is editor.scoreboard is Scoreboard.shared(task)
    assert Scoreboard.shared(tiny_task()) is not stepper.scoreboard
    own = Scoreboard(task)
    assert SearchStepper(task, scoreboard=own).scoreboard is own
    assert GenotypeEditor(task, scoreboard=own).scoreboard is own


def test_a_genotype_of_another_task_is_not_trained():
    board = Scoreboard(tiny_task(("Image", "Text")))
    with pytest.raises(TrainError, match="genotype: found features .*; allowed: those of task"):
        board.add(one_step(), "a")
    assert board.entries == []


@pytest.mark.slow
def test_a_training_stops_with_its_own_widget_and_not_with_another():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=20))
        mine, other = (SearchStepper(search_of(task=task), scoreboard=board) for _ in range(2))
        other.step(3)
        buttons = [button(stepper, "Train this one") for stepper in (mine, other)]
        for training in buttons:
            training.click()
        await until(lambda: "epoch" in buttons[0].description)
        assert not any(map(is_on, buttons))
        close_view(other)  # its training is still waiting for the first one
        await until(lambda: all(map(is_on, buttons)))
        assert [entry.name for entry in board.entries] == ["step 0, pair, seed 0"]
        assert buttons[0].description == "Train this one"
        assert "training of step 3, pair, seed 0 stopped before its first epoch" in text(board)
        press(other, "Train this one")
        await until(lambda: len(board.entries) == 2)

    asyncio.run(main())


def test_no_two_entries_of_a_scoreboard_share_a_name():
    board = Scoreboard(tiny_task(), TrainConfig(epochs=1))
    for op in ("sum", "attention", "concat_fc"):
        board.add(one_step(op), "edited 1")
    assert [entry.name for entry in board.entries] == ["edited 1", "edited 1 (2)", "edited 1 (3)"]


# --- GenotypeEditor


def in_menus(editor) -> Genotype:
    """The genotype that the menus show."""
    cells = []
    for row in cell_rows(editor):
        steps = [(op.value, (a.value, b.value)) for op, a, b in row.steps]
        cells.append(cell(tuple(menu.value for menu in row.inputs), *steps))
    return Genotype(editor.task.features, tuple(cells))


def drawn(genotype):
    """An editor's picture of a genotype: its edges are the user's own."""
    return graph(genotype, decided="your own").picture()


def is_consistent(editor) -> bool:
    """Whether everything that an editor shows is of its genotype."""
    genotype, task = editor.genotype, editor.task
    net = FusionNetwork(genotype, task.channels, task.classes, C=task.config.C, L=task.config.L)
    rows = cell_rows(editor)
    return (
        in_menus(editor) == genotype
        and [row.motif.value for row in rows] == [c.motif or CUSTOM for c in genotype.cells]
        and status(editor).startswith(f"{count_parameters(net):,} parameters")
        and drawn(genotype).svg in markup(editor)
        and is_enabled(editor, "− Cell") == (len(genotype.cells) > 1)
        and [is_enabled(row.box, "− step") for row in rows]
        == [len(c.steps) > 1 for c in genotype.cells]
    )


def test_an_editor_starts_with_a_genotype_of_the_task():
    editor = GenotypeEditor(tiny_task(("Image", "Audio", "Text")))
    assert editor.genotype.features == editor.task.features
    assert {c.motif for c in editor.genotype.cells} == {"ConcatFC"}
    assert is_consistent(editor)
    given = one_step("attention")
    assert GenotypeEditor(TASK, given).genotype == given


@pytest.mark.slow
@settings(max_examples=12)
@given(st.data())
def test_every_entry_of_a_menu_leads_to_a_legal_genotype_that_shows_it(data):
    editor = GenotypeEditor(TASK, data.draw(genotypes(TASK.features, max_cells=3, max_steps=3)))
    assert is_consistent(editor)
    for _ in range(6):
        before = editor.genotype
        i = data.draw(st.integers(0, len(before.cells) - 1))
        row = cell_rows(editor)[i]
        action = data.draw(st.sampled_from(["menu", "menu", "menu", "step", "cell"]))
        if action == "menu":
            where = data.draw(st.integers(0, 2 + 3 * len(row.steps)))

            def menus(row):
                return [*row.inputs, row.motif, *(menu for step in row.steps for menu in step)]

            menu = menus(row)[where]
            value = data.draw(st.sampled_from(options(menu)))
            menu.value = value
            shown = menus(cell_rows(editor)[i])[where].value
            assert shown == value if value != CUSTOM else editor.genotype == before
        else:
            box, name = (row.box, "step") if action == "step" else (editor, "Cell")
            names = [f"{sign} {name}" for sign in "+−" if is_enabled(box, f"{sign} {name}")]
            pressed = data.draw(st.sampled_from(names))
            press(box, pressed)
            old, new = (
                len(g.cells[i].steps if action == "step" else g.cells)
                for g in (before, editor.genotype)
            )
            assert new - old == (1 if pressed[0] == "+" else -1)
        assert not error(editor)
        assert is_consistent(editor)


def reach(editor, target):
    """Turn the genotype shown into another one, with buttons and menus alone."""
    while (n := len(editor.genotype.cells)) != len(target.cells):
        press(editor, "+ Cell" if n < len(target.cells) else "− Cell")
    for i, wanted in enumerate(target.cells):
        while (n := len(cell_rows(editor)[i].steps)) != len(wanted.steps):
            press(cell_rows(editor)[i].box, "+ step" if n < len(wanted.steps) else "− step")
        row = cell_rows(editor)[i]
        for menu, name in zip(row.inputs, wanted.inputs, strict=True):
            menu.value = name
        for menus, step in zip(row.steps, wanted.steps, strict=True):
            for menu, value in zip(menus, (step.op, *step.inputs), strict=True):
                menu.value = value


@pytest.mark.slow
@settings(max_examples=8)
@given(genotypes(TASK.features, max_cells=3, max_steps=3), st.booleans())
def test_every_genotype_of_a_task_can_be_reached_and_left_again(target, back):
    editor = GenotypeEditor(TASK)
    start = editor.genotype
    reach(editor, target)
    assert editor.genotype == target and is_consistent(editor)
    if back:
        reach(editor, start)
        assert editor.genotype == start and is_consistent(editor)
    press(editor, "Reset")
    assert editor.genotype == start and is_consistent(editor)
    assert not error(editor)


def test_choosing_what_the_other_input_has_swaps_the_two():
    editor = GenotypeEditor(TASK, one_step("attention", ("Image_1", "Audio_2")))
    (row,) = cell_rows(editor)
    row.inputs[0].value = "Audio_2"
    assert editor.genotype.cells[0].inputs == ("Audio_2", "Image_1")
    row.steps[0][2].value = "X"
    assert editor.genotype.cells[0].steps[0].inputs == ("Y", "X")
    row.inputs[1].value = "Image_2"
    assert editor.genotype.cells[0].inputs == ("Audio_2", "Image_2")
    assert is_consistent(editor)


def test_menus_offer_what_comes_before_and_are_rebuilt_only_with_the_structure():
    editor = GenotypeEditor(TASK, one_step())
    (before,) = cell_rows(editor)
    before.steps[0][0].value = "attention"
    before.inputs[0].value = "Image_2"
    assert cell_rows(editor)[0].box is before.box
    press(editor, "+ Cell")
    assert cell_rows(editor)[0].box is not before.box
    for _ in range(2):
        press(cell_rows(editor)[1].box, "+ step")
    first, second = cell_rows(editor)
    features = list(TASK.features)
    assert [options(menu) for menu in first.inputs] == [features] * 2
    assert [options(menu) for menu in second.inputs] == [[*features, "C1"]] * 2
    inner = ["X", "Y", "S1", "S2"]
    for j, (op, *inputs) in enumerate(second.steps):
        assert options(op) == list(OPERATIONS)
        assert [options(menu) for menu in inputs] == [inner[: j + 2]] * 2
    assert options(first.motif) == [CUSTOM, *MOTIFS]
    second.motif.value = "attention on attention"
    assert len(cell_rows(editor)[1].steps) == 2
    assert editor.genotype.cells[1].motif == "attention on attention"
    assert is_consistent(editor)


def test_an_operation_of_the_user_is_offered():
    with OPERATIONS.restored():

        @register_operation("widget_test", label="<x>")
        class Gate(torch.nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return x * y.sigmoid()

        editor = GenotypeEditor(TASK)
        cell_rows(editor)[0].steps[0][0].value = "widget_test"
        assert editor.genotype.cells[0].steps[0].op == "widget_test" and is_consistent(editor)


def test_nothing_is_removed_or_added_beyond_what_is_legal():
    editor = GenotypeEditor(TASK, one_step())
    press(editor, "− Cell")
    assert "cells: found []; allowed: at least one Cell" in error(editor)
    press(cell_rows(editor)[0].box, "− step")
    assert "cells[0].steps: found []; allowed: at least one step" in error(editor)
    assert editor.genotype == one_step() and is_consistent(editor)
    first = CellGenotype(("Image_1", "Audio_1"), (StepGenotype("sum", ("X", "Y")),) * LARGEST)
    large = Genotype(TASK.features, (first, replace(first, steps=first.steps[:1])))
    editor.genotype = large
    assert [is_enabled(row.box, "+ step") for row in cell_rows(editor)] == [False, True]
    with pytest.raises(GenotypeError, match="found '65 steps'; allowed: at most 64"):
        editor.add_step(0)
    assert editor.genotype == large


@pytest.mark.slow
def test_sixty_four_cells_are_the_most():
    step = StepGenotype("sum", ("X", "Y"))
    cells = (CellGenotype(("Image_1", "Audio_1"), (step,)),) * LARGEST
    editor = GenotypeEditor(TASK, Genotype(TASK.features, cells))
    assert not is_enabled(editor, "+ Cell") and len(cell_rows(editor)) == LARGEST
    press(editor, "+ Cell")
    assert "cells: found '65 Cells'; allowed: at most 64" in error(editor)
    press(editor, "− Cell")
    assert len(editor.genotype.cells) == LARGEST - 1 and is_enabled(editor, "+ Cell")


def test_changes_can_be_taken_back_and_made_again():
    editor = GenotypeEditor(TASK, one_step())
    assert not is_enabled(editor, "Undo") and not is_enabled(editor, "Redo")
    seen = [editor.genotype]
    for change in (editor.add_cell, lambda: editor.choose_operation("attention", 0, 0)):
        change()
        seen.append(editor.genotype)
    for genotype in (seen[1], seen[0]):
        press(editor, "Undo")
        assert editor.genotype == genotype and is_consistent(editor)
    press(editor, "Undo")
    assert editor.genotype == seen[0] and not is_enabled(editor, "Undo")
    press(editor, "Redo")
    assert editor.genotype == seen[1] and is_enabled(editor, "Redo")
    editor.add_step(0)
    assert not is_enabled(editor, "Redo")
    press(editor, "Undo")
    assert editor.genotype == seen[1] and is_consistent(editor)


def test_an_edge_is_moved_by_clicks_on_it_and_on_the_node_it_shall_come_from():
    steps = ("sum", ("X", "Y")), ("attention", ("X", "S1"))
    first = cell(("Image_1", "Audio_1"), *steps)
    editor = GenotypeEditor(
        TASK, Genotype(TASK.features, (first, replace(first, inputs=("C1", "Audio_2"))))
    )
    clicks = [
        (("f0-c1_x", "f1"), lambda g: g.cells[0].inputs == ("Image_2", "Audio_1")),
        (("f2-c1_y", "f1"), lambda g: g.cells[0].inputs == ("Audio_1", "Image_2")),
        (("f3-c2_y", "f0"), lambda g: g.cells[1].inputs == ("C1", "Image_1")),
        (("f0-c2_y", "c1_z"), lambda g: g.cells[1].inputs == ("Image_1", "C1")),
        (("c1_s1-c1_s2", "c1_y"), lambda g: g.cells[0].steps[1].inputs == ("X", "Y")),
    ]
    for (edge, node), holds in clicks:
        click(editor, edge)
        assert "click its new source" in text(editor)
        click(editor, node)
        assert holds(editor.genotype) and is_consistent(editor) and not error(editor)
    before = editor.genotype
    click(editor, "f1-c1_y")
    click(editor, "c2_z")
    assert "GenotypeError" in error(editor) and editor.genotype == before
    click(editor, "c1_s1")  # leads to the menu
    assert editor.genotype == before and not error(editor)


def test_an_editor_compares_with_the_first_genotype_and_with_entries_of_the_scoreboard():
    task = tiny_task()
    editor = GenotypeEditor(task, one_step("concat_fc"))
    editor.scoreboard.config = TrainConfig(epochs=1, data="train")
    editor.train()
    editor.choose_operation("sum", 0, 0)
    assert "differs" not in text(editor)
    for name in ("the starting genotype", "edited 1"):
        fill(editor, "compare with", name)
        assert f"differs from {name}: Cell 1 S1 operation: ConcatFC → Sum" in text(editor)
        assert graph(
            editor.genotype, one_step("concat_fc"), decided="your own"
        ).picture().svg in markup(editor)
    click_row(editor, "compare", "edited 1")
    assert "differs" not in text(editor)
    click_row(editor, "compare", "edited 1")
    assert "differs from edited 1" in text(editor)
    click_row(editor, "load", "edited 1")
    assert editor.genotype == one_step("concat_fc") and "the same as edited 1" in text(editor)
    press(editor, "Undo")
    assert editor.genotype == one_step("sum")


def test_every_menu_of_an_editor_has_a_name():
    steps = ("sum", ("X", "Y")), ("attention", ("X", "S1"))
    editor = GenotypeEditor(TASK, Genotype(TASK.features, (cell(("Image_1", "Audio_1"), *steps),)))
    (row,) = cell_rows(editor)
    names = [menu.tooltip for menu in (*row.inputs, row.motif, *row.steps[1])]
    assert names == [
        "Cell 1, input X", "Cell 1, input Y", "Cell 1, steps", "Cell 1 S2, operation",
        "Cell 1 S2, 1st input", "Cell 1 S2, 2nd input",
    ]  # fmt: skip


# --- rows of the scoreboard


def test_a_pinned_entry_is_listed_first_and_keeps_its_place():
    board = Scoreboard(tiny_task())
    for op, score in (("sum", 0.5), ("attention", 0.75)):
        board.entries.append(Entry(op, one_step(op), score, 1, 1, 0.1))
    board.clear_message()
    click_row(board, "pin", "sum")
    rows = re.findall(r"<tr>(.*?)</tr>", markup(board))[1:]
    assert [plain(row.split("</td>")[0] + " " + row.split("</td>")[1]) for row in rows] == [
        "2 sum", "1 attention"
    ]  # fmt: skip
    click_row(board, "pin", "sum")
    assert board.pinned == set()


def test_an_entry_is_shown_where_the_search_derived_it_and_compared_with_any_state():
    stepper = stepper_of(epochs=4)
    press(stepper, "Run")
    stepper.show(2)
    stepper.train()
    stepper.show(9)
    sent = messages(stepper, lambda: click_row(stepper, "compare", "step 2, pair, seed 0"))
    picked = sent[0]["compare"]
    assert (picked["name"], picked["alike"]) == ("step 2, pair, seed 0", True)
    fields = scene_data(stepper)["last"]["scene"]["fields"]
    names = [name for cell in stepper.history[2].genotype.cells for name in taken(cell)]
    assert [fields[k]["name"] for k in picked["picks"]] == names
    again = messages(stepper, lambda: click_row(stepper, "compare", "step 2, pair, seed 0"))
    assert again == [{"compare": None}]
    click_row(stepper, "load", "step 2, pair, seed 0")
    assert stepper.state.genotype == stepper.history[2].genotype and stepper.state.step <= 2
    stepper.scoreboard.add(one_step("attention"), "another")
    sent = messages(stepper, lambda: click_row(stepper, "compare", "another"))
    assert not sent[0]["compare"]["alike"]  # it has one Cell, those of the search two
    click_row(stepper, "load", "another")
    assert "another: this search has not derived it so far" in text(stepper)


# --- a sample on its way through the hypernet


def test_a_sample_is_shown_as_the_hypernet_sees_it_and_changes_nothing():
    stepper = stepper_of(epochs=5)
    press(stepper, "Step ×10")
    rows = [3, 7]  # the image of one sample, the sound of another
    (message,) = look_at(stepper, rows)
    shown, search = message["sample"], stepper.search
    batches = [search.bank.batch("validation", torch.tensor([row]))[0] for row in rows]
    features = {
        name: batches[m][name]
        for m, mod in enumerate(search.task.modalities)
        for name in mod.channels
    }
    with torch.no_grad():
        scores = search.hypernet.eval()(features)[0].softmax(0)
    assert shown["scores"] == scores.tolist() and shown["step"] == 10
    inner = [f"Cell {i} {node}" for i in (1, 2) for node in ("X", "Y", "S1", "S2", "Z")]
    assert [node["name"] for node in shown["nodes"]] == [*TASK.features, *inner]
    assert {(node["rows"], node["columns"]) for node in shown["nodes"]} == {(4, 8)}
    step = search.hypernet.cells[0].steps[1]
    assert list(shown["made"]) == ["c1_s1", "c1_s2", "c2_s1", "c2_s2"]
    assert list(shown["made"]["c1_s2"]) == list(step.operations)
    sent = messages(stepper, lambda: press(stepper, "Step"))
    assert [m["sample"]["step"] for m in sent if "sample" in m] == [11]
    press(stepper, "Run")
    assert stepper.history == looped(epochs=5) and not error(stepper)


@pytest.mark.slow
def test_the_label_of_a_sample_is_known_if_it_is_one_or_by_the_rule():
    stepper = stepper_of()
    labels = stepper.search.task.split("validation").labels
    assert look_at(stepper, [5, 5])[0]["sample"]["label"] == int(labels[5])
    assert look_at(stepper, [5, 6])[0]["sample"]["label"] is None
    task = load_task("digits", rule="sum")
    digits = SearchStepper(Search(task, SearchConfig(selection="argmax"), device="cpu"))
    offered = scene_data(digits)["last"]["scene"]["samples"]
    assert [menu["name"] for menu in offered] == ["Image", "Audio"]
    assert [option["label"][0] for option in offered[0]["options"]] == [
        c for c in "0123456789" for _ in "123"
    ]
    rows = [offered[0]["options"][3 * 4]["row"], offered[1]["options"][3 * 9]["row"]]
    sample = look_at(digits, rows)[0]["sample"]
    assert sample["names"][sample["label"]] == "13"
    image, sound = sample["seen"]
    assert image["image"].startswith("data:image/png;base64,") and "sound" not in image
    assert sound["sound"].startswith("data:audio/wav;base64,")


def test_a_task_without_pictures_can_be_looked_into_too():
    task = tiny_task(metric="weighted_f1")
    stepper = SearchStepper(search_of(task=task))
    (message,) = look_at(stepper, [0, 0])
    scores = message["sample"]["scores"]
    assert len(scores) == 3 and all(0 <= score <= 1 for score in scores)
    assert message["sample"]["seen"] == [{}, {}]


# --- several searches with one bar


@pytest.mark.slow
def test_one_bar_and_one_slider_lead_two_searches():
    kinds = [(0, {"relaxation": "pair"}), (0, {"relaxation": "paper"})]

    async def main():
        task = tiny_task()
        steppers = [
            SearchStepper(search_of(seed, task, epochs=5, **config)) for seed, config in kinds
        ]
        both = side_by_side(*steppers)
        views = [stage(stepper) for stepper in steppers]
        assert views[0].group == views[1].group and [v.lead for v in views] == [True, False]
        assert [len([*parts(both, Scoreboard)])] == [1]
        press(both, "Step")
        await until(lambda: all(not stepper.is_running for stepper in steppers))
        assert [stepper.search.step for stepper in steppers] == [1, 1]
        press(both, "Run")
        await until(lambda: all(stepper.search.step > 4 for stepper in steppers))
        assert is_enabled(both, "Pause") and not is_enabled(both, "Step")
        press(both, "Pause")
        await until(lambda: is_enabled(both, "Step"))
        press(both, "Run")
        for stepper in steppers:
            await stepper.finished()
        assert not is_enabled(both, "Run")
        return [stepper.history for stepper in steppers]

    for history, (seed, config) in zip(asyncio.run(main()), kinds, strict=True):
        assert history == looped(seed, epochs=5, **config)


def test_another_genotype_can_be_set_and_reset_goes_back():
    first = one_step("attention")
    editor = GenotypeEditor(TASK, first)
    added = cell(("Image_2", "Audio_1"), ("sum", ("X", "Y")), ("attention", ("S1", "X")))
    other = Genotype(TASK.features, (added, *first.cells))
    editor.genotype = other
    assert editor.genotype == other and is_consistent(editor)
    press(editor, "Reset")
    assert editor.genotype == first and is_consistent(editor)


def test_a_genotype_with_other_features_is_refused_and_the_old_one_stays():
    other = tiny_task(("Image", "Text"))
    foreign = Genotype(other.features, (cell(("Image_1", "Text_1"), ("sum", ("X", "Y"))),))
    message = "genotype: found features Image_1, .*; allowed: those of task 'tiny'"
    with pytest.raises(BmnasError, match=message):
        GenotypeEditor(TASK, foreign)
    editor = GenotypeEditor(TASK, one_step())
    with pytest.raises(BmnasError, match=message):
        editor.genotype = foreign
    with pytest.raises(BmnasError, match="genotype: found str; allowed: a Genotype"):
        editor.genotype = "sum"
    assert editor.genotype == one_step() and is_consistent(editor)
    for what in (None, "digits", search_of()):
        with pytest.raises(BmnasError, match=r"task: found \w+; allowed: a Task"):
            GenotypeEditor(what)


def test_an_edited_genotype_is_trained_under_a_name_of_its_own():
    editor = GenotypeEditor(tiny_task(), one_step("concat_fc"))
    operation, first_input, _ = cell_rows(editor)[0].steps[0]
    press(editor, "Train this one")
    first_input.value = "Y"
    press(editor, "Train this one")
    operation.value = "sum"
    press(editor, "Train this one")
    assert [(e.name, e.genotype.cells[0].motif) for e in editor.scoreboard.entries] == [
        ("edited 1", "ConcatFC"),
        ("edited 2", "Sum"),
    ]
    parameters = editor.scoreboard.entries[1].parameters
    assert status(editor).startswith(f"{parameters:,} parameters")
    assert not error(editor) and is_enabled(editor, "Train this one")


def test_an_edited_genotype_is_saved(tmp_path):
    path = tmp_path / "<new>" / "genotype.json"
    editor = GenotypeEditor(TASK, one_step("attention"), path=str(path))
    press(editor, "Save")
    assert Genotype.load(path) == one_step("attention")
    assert f"saved in {path}" in text(editor) and "<new>" not in markup(editor)
    assert editor.save(tmp_path / "other.json") == tmp_path / "other.json"
    fill(editor, "file", str(path / "below"))
    press(editor, "Save")
    assert re.search(r"path: found .*below' \(.*\); allowed: the path of a file", error(editor))
    assert json.loads(path.read_text())["features"] == list(TASK.features)


# --- interactive


def test_a_picture_is_drawn_from_the_values_of_the_sliders():
    called = []

    def function(share, size):
        called.append((share, size))
        return draw(one_step("attention" if share > 0.5 else "sum"))

    sliders = interactive(function, share=(0, 1, 0.25), size=(-2.0, 2.0, 1.0))
    assert called == [(0.25, 1.0)] and draw(one_step("sum")).svg in markup(sliders)
    fill(sliders, "share", 0.75)
    assert called[-1] == (0.75, 1.0) and draw(one_step("attention")).svg in markup(sliders)
    fill(sliders, "size", 99)
    assert called[-1] == (0.75, 2.0) and sliders.values == {"share": 0.75, "size": 2.0}
    assert len(called) == 3


@pytest.mark.parametrize("returned", ["figure", "axes"])
def test_a_figure_is_closed_once_it_is_drawn(returned):
    import matplotlib.pyplot as plt

    def function(a):
        figure, axes = plt.subplots()
        axes.plot([0, a])
        return {"figure": figure, "axes": axes}[returned]

    others = plt.get_fignums()
    sliders = interactive(function, a=(0, 1, 0.5))
    before = markup(sliders)
    assert "<svg" in before and "<?xml" not in before
    fill(sliders, "a", 0.75)
    assert markup(sliders) != before and plt.get_fignums() == others


def test_an_error_of_the_drawing_function_is_shown_until_the_next_picture():
    def function(a):
        if a > 0.5:
            raise ValueError("<b>too far</b>")
        return draw(one_step())

    sliders = interactive(function, a=(0, 1, 0))
    fill(sliders, "a", 0.75)
    assert "ValueError: <b>too far</b>" in error(sliders) and "<b>too" not in markup(sliders)
    assert draw(one_step()).svg in markup(sliders)
    fill(sliders, "a", 0.25)
    assert not error(sliders)


def test_a_range_may_have_any_name():
    sliders = interactive(lambda function: draw(one_step()), function=(0, 1, 0.5))
    assert sliders.values == {"function": 0.5}


# --- arguments that do not fit


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Scoreboard(3), "task: found int; allowed: a Task"),
        (lambda: Scoreboard(TASK, 3), "config: found int; allowed: a TrainConfig"),
        (lambda: Scoreboard(TASK, seed="x"), "seed: found 'x'; allowed: an integer"),
        (lambda: Scoreboard(TASK, bank=3), "bank: found int; allowed: a FeatureBank"),
        (lambda: Scoreboard(TASK).find(3), "genotype: found int; allowed: a Genotype"),
        (lambda: Scoreboard(TASK).add(3, "a"), "genotype: found int; allowed: a Genotype"),
        (lambda: Scoreboard(TASK).add(one_step(), 3), "name: found 3; allowed: text"),
        (
            lambda: GenotypeEditor(TASK, scoreboard=Scoreboard(tiny_task())),
            "scoreboard: found Scoreboard; allowed: a Scoreboard of this task",
        ),
        (lambda: GenotypeEditor(TASK, scoreboard=3), "scoreboard: found int; allowed"),
        (lambda: GenotypeEditor(TASK, path=None), "file: found None; allowed: a path"),
        (lambda: GenotypeEditor(TASK).save(""), "path: found no name, ''; allowed"),
        (
            lambda: GenotypeEditor(TASK).choose_motif("sum", 0),
            r"motif: found 'sum' \(did you mean 'Sum'\?\); allowed: Sum, ",
        ),
        (lambda: GenotypeEditor(TASK).choose_input("X", 0, 2), "which: found 2; allowed: 0, 1"),
        (lambda: GenotypeEditor(TASK).add_step(1), "cell: found 1; allowed: 0 to 0"),
        (
            lambda: GenotypeEditor(TASK).choose_operation("sum", 0, 1),
            "step: found 1; allowed: 0 to 0",
        ),
        (lambda: SearchStepper(search_of(), scoreboard=3), "scoreboard: found int; allowed"),
        (lambda: SearchStepper(search_of(), folder=3), "folder: found 3; allowed: a path"),
        (lambda: stepper_of().save(""), "save: found folder ''; allowed: the path of a folder"),
        (lambda: side_by_side(3), "side_by_side: found int; allowed: widgets of this kit"),
        (lambda: interactive(3, a=(0, 1, 0)), "interactive: found int; allowed: a function"),
        (lambda: interactive(lambda a: 0, a=(0, 1, 0)), "found a drawing of type int; allowed"),
        (lambda: interactive(lambda a: 0, a=(0, float("inf"), 1)), "interactive: a: found .*inf"),
        (lambda: interactive(lambda a: 0, b=(0, 1, 0)), "interactive: found ranges b; .*argument"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_once(make, message):
    with pytest.raises(BmnasError, match=message):
        make()


# --- in a real kernel

CELLS = [
    """
import sys, time
sys.path.insert(0, "tests")
import torch
from tiny import tiny_task
from widget_driver import error, is_enabled, press
from bmnas_core import Search, SearchConfig, SearchStepper, SearchHistory
def search_of(seed, epochs):
    return Search(tiny_task(), SearchConfig(epochs=epochs), seed=seed, device="cpu")
stepper = SearchStepper(search_of(0, 40))
press(stepper, "Run")
""",
    """
torch.manual_seed(0)
drawn = []
for _ in range(200):
    drawn.append(torch.rand(1).item())
    time.sleep(0.0005)
torch.manual_seed(0)
assert drawn == [torch.rand(1).item() for _ in range(200)], "disturbed"
assert is_enabled(stepper, "Pause")
""",
    """
search = search_of(1, 4)
other = SearchHistory.from_search(search)
for state in search:
    other.append(state)
""",
    """
waiting = SearchStepper(search_of(2, 4))
waiting.run()
await waiting.finished()
assert not len(waiting.search) and waiting.state.step == waiting.search.total_steps
""",
    """
def looped(seed, epochs):
    search = search_of(seed, epochs)
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    return history
assert not is_enabled(stepper, "Pause") and not error(stepper), error(stepper)
assert stepper.history == looped(0, 40) and other == looped(1, 4)
""",
]


@pytest.mark.slow
def test_in_a_kernel_cells_and_a_run_do_not_disturb_each_other(root):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(root))

    def execute(code, **expressions) -> dict[str, str]:
        """The values of expressions once the code has run."""
        content = client.execute(code, user_expressions=expressions, reply=True, timeout=60)
        content = content["content"]
        assert content["status"] == "ok", "\n".join(content["traceback"])
        return {k: v["data"]["text/plain"] for k, v in content["user_expressions"].items()}

    try:
        *cells, last = CELLS
        for code in cells:
            execute(code)
        for _ in range(200):
            if execute("", running="is_enabled(stepper, 'Pause')") == {"running": "False"}:
                break
            time.sleep(0.1)
        execute(last)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
