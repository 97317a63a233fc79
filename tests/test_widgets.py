"""Widgets: their buttons do what a plain loop does, show errors, and never block the kernel."""

import asyncio
import html
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ipywidgets as ipw
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HOSTILE, genotypes
from tiny import recording_bank, tiny_task

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
    TrainConfig,
    TrainError,
    choices,
    count_parameters,
    draw,
    draw_curves,
    draw_heatmaps,
    evaluate,
    interactive,
    register_operation,
    side_by_side,
    train,
)
from bmnas_core.genotype import LARGEST, MOTIFS, OPERATIONS
from bmnas_core.widgets.base import _KernelLock
from bmnas_core.widgets.editor import OWN
from bmnas_core.widgets.scoreboard import Entry
from bmnas_core.widgets.stepper import UNATTENDED_STEPS

TASK = tiny_task()


def search_of(seed=0, task=None, bank=None, **config):
    return Search(task or tiny_task(), SearchConfig(**config), seed=seed, device="cpu", bank=bank)


def stepper_of(seed=0, **config):
    return SearchStepper(search_of(seed, **config))


def looped(seed=0, **config) -> SearchHistory:
    """The history of a plain loop."""
    search = search_of(seed, **config)
    history = SearchHistory.from_search(search)
    for state in search:
        history.append(state)
    return history


def plain(widget) -> str:
    """The text that an HTML widget shows."""
    return html.unescape(re.sub("<[^>]*>", "", widget.value))


def slide(widget, frame):
    """What the browser sends when the slider is moved."""
    widget._told(None, {"show": frame}, None)


def leave(widget):
    """What the browser sends when the last view of a widget is closed."""
    widget._told(None, {"page": "one", "views": -1}, None)


async def until(condition, seconds=30):
    for _ in range(seconds * 200):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def cell(inputs, *steps):
    return CellGenotype(inputs, tuple(StepGenotype(op, pair) for op, pair in steps))


def one_step(op="sum", inputs=("Image_1", "Audio_1"), of=("X", "Y")):
    return Genotype(TASK.features, (cell(inputs, (op, of)),))


# --- SearchStepper: the buttons


def test_the_buttons_make_the_steps_of_a_plain_loop_to_the_bit():
    loop = looped(epochs=5)
    stepper = stepper_of(epochs=5)
    assert stepper.history.steps.tolist() == [0]
    stepper._step.click()
    assert stepper.history.steps.tolist() == [0, 1]
    stepper._step_10.click()
    assert len(stepper.history) == 12 and stepper.state.step == 11
    stepper.step()
    assert stepper.search.step == stepper.state.step == 12
    stepper._run.click()
    assert stepper.history == loop
    assert stepper.search.best_genotype == loop.best.genotype
    assert not stepper._error.value


def test_at_the_end_there_is_nothing_left_to_press():
    stepper = stepper_of()
    assert [b.disabled for b in (stepper._step, stepper._run, stepper._pause)] == [0, 0, 1]
    stepper._step_10.click()
    assert len(stepper.history) == 7
    for press in (stepper._step, stepper._step_10, stepper._run):
        assert press.disabled
        press.click()
    stepper.step(5)
    assert len(stepper.history) == 7 and not stepper._error.value
    assert not stepper._reset.disabled


def test_everything_that_is_seen_is_of_the_state_shown():
    stepper = stepper_of()
    stepper._step_10.click()
    for frame in (6, 3, 0):
        slide(stepper, frame)
        state = stepper.history[frame]
        before = stepper.history[max(frame - 1, 0)].genotype
        changes = state.genotype.changes_from(before)
        assert draw(state).svg in stepper._hypernet.value
        assert draw_heatmaps(state).svg in stepper._heatmaps.value
        assert draw_curves(stepper.history, at=state.step).svg in stepper._curves.value
        drawn = draw(state.genotype, against=before if changes else None)
        assert drawn.svg in stepper._genotype.value
        assert stepper._changes.value.count("<li>") == len(changes)
        assert all(str(change) in plain(stepper._changes) for change in changes)
        assert plain(stepper._status).startswith(f"step {frame} · ")
        assert (stepper._page.shown, stepper._page.last) == (frame, 6)
        best = stepper.history.best
        assert f"best validation score {best.val_score:.3f} at step {best.step}" in plain(
            stepper._status
        )


def test_the_slider_travels_back_and_the_search_goes_on_from_the_present():
    loop = looped(epochs=4)
    stepper = stepper_of(epochs=4)
    stepper.step(8)
    slide(stepper, 3)
    assert (stepper.state.step, stepper.search.step) == (3, 8)
    assert "looking back, the search stands at step 8" in plain(stepper._status)
    stepper._step.click()
    assert (stepper.state.step, stepper.search.step) == (9, 9)
    assert "looking back" not in plain(stepper._status)
    stepper.show(5)
    assert stepper.state.step == 5
    stepper._run.click()
    assert stepper.history == loop and stepper.state.step == 12


@pytest.mark.parametrize("frame, shown", [(-3, 0), (99, 4)])
def test_a_slider_beyond_its_ends_shows_them(frame, shown):
    stepper = stepper_of()
    stepper.step(4)
    slide(stepper, frame)
    assert stepper.state.step == shown


def test_settings_take_effect_at_reset():
    stepper = stepper_of()
    stepper.step(2)
    before = stepper.search
    stepper._controls["relaxation"].value = "paper"
    stepper._controls["schedule"].value = "epoch"
    stepper._controls["arch_lr"].value = 0.5
    stepper._controls["seed"].value = 7
    assert "press Reset" in plain(stepper._note)
    assert stepper.search is before and len(stepper.history) == 3
    stepper._reset.click()
    assert not stepper._note.value and not stepper._error.value
    config = stepper.search.config
    assert (config.relaxation, config.schedule, config.arch_lr) == ("paper", "epoch", 0.5)
    assert (stepper.search.seed, stepper.state.step, len(stepper.history)) == (7, 0, 1)
    stepper._run.click()
    assert stepper.history == looped(7, relaxation="paper", schedule="epoch", arch_lr=0.5)


def test_reset_takes_settings_by_name_and_keeps_the_others():
    stepper = stepper_of(arch_weight_decay=0.25, N=1)
    bank, scoreboard = stepper.search.bank, stepper.scoreboard
    stepper.step(3)
    stepper.reset(seed=np.int64(2), relaxation="paper", M=3)
    config = stepper.search.config
    assert (config.M, config.N, config.arch_weight_decay) == (3, 1, 0.25)
    assert (stepper._controls["seed"].value, stepper._controls["relaxation"].value) == (2, "paper")
    assert stepper.search.bank is bank and stepper.scoreboard is scoreboard
    stepper.reset()
    assert (stepper.search.seed, stepper.search.config.M) == (2, 3)
    with pytest.raises(ConfigError, match="SearchConfig.max_lr: found -1.0; allowed: above 0.0"):
        stepper.reset(max_lr=-1.0)
    assert stepper.search.config == config


def test_a_setting_that_is_not_allowed_is_told_and_the_search_stays():
    stepper = stepper_of()
    stepper.step(2)
    before = stepper.search
    stepper._controls["max_lr"].value = -1
    stepper._reset.click()
    assert "ConfigError: SearchConfig.max_lr: found -1.0; allowed: above 0.0" in plain(
        stepper._error
    )
    assert 'role="alert"' in stepper._error.value
    assert stepper.search is before and not stepper._reset.disabled
    stepper._step.click()
    assert stepper.state.step == 3 and not stepper._error.value
    stepper._controls["max_lr"].value = 0.02
    stepper._reset.click()
    assert (stepper.search.config.max_lr, stepper.state.step) == (0.02, 0)


def test_a_loss_that_is_not_finite_is_told_and_reset_begins_anew():
    stepper = stepper_of()
    stepper._controls["max_lr"].value = 1e30
    stepper._reset.click()
    stepper._run.click()
    assert re.search(
        r"SearchError: .* loss at step \d: found nan; not finite", plain(stepper._error)
    )
    assert "Traceback" not in plain(stepper._error)
    assert not stepper._running and stepper._pause.disabled and not stepper._run.disabled
    stepper._controls["max_lr"].value = 1e-2
    stepper._reset.click()
    assert not stepper._error.value
    stepper._run.click()
    assert stepper.history == looped()


def test_an_error_inside_the_search_is_shown_as_text_with_where_it_came_from(monkeypatch):
    stepper = stepper_of()
    stepper.step(1)

    def broken(*_):
        raise RuntimeError("<img src=x onerror=alert(1)>")

    with monkeypatch.context() as patched:
        patched.setattr(Search, "_update", broken)
        stepper._run.click()
    assert "RuntimeError: <img src=x onerror=alert(1)>" in plain(stepper._error)
    assert "<img" not in stepper._error.value
    assert "Traceback" in plain(stepper._error)
    assert len(stepper.history) == 2 and not stepper._running
    stepper._reset.click()
    assert not stepper._error.value
    stepper._run.click()
    assert stepper.history == looped()


def test_a_search_under_way_is_gone_on_with():
    search = search_of()
    next(search), next(search)
    stepper = SearchStepper(search)
    assert (stepper.state.step, len(stepper.history)) == (2, 1)
    stepper._run.click()
    assert stepper.history.steps.tolist() == [2, 3, 4, 5, 6]
    assert np.array_equal(stepper.state.alpha, looped()[-1].alpha)


def test_a_task_is_searched_with_its_own_settings():
    task = tiny_task()
    stepper = SearchStepper(task)
    assert stepper.search.task is task and stepper.search.config == Search(task).config
    assert stepper.scoreboard is Scoreboard.shared(task)


def test_a_search_that_ends_early_ends_the_steps(monkeypatch):
    monkeypatch.setattr(choices, "MAX_NOISE_RATIO", 0.0)
    stepper = stepper_of(selection="successive_halving", rungs=((2, 1), (1, 2)))
    most = len(stepper.search)
    stepper.step(2 * most)
    assert stepper.search.step == most - 1 and not len(stepper.search)
    assert "0 of" in plain(stepper._status)


@pytest.mark.parametrize("what", [None, "digits", 3, one_step()])
def test_only_searches_and_tasks_are_stepped_through(what):
    with pytest.raises(BmnasError, match=r"SearchStepper: found \w+; allowed: a Search or a Task"):
        SearchStepper(what)


def test_save_writes_the_genotype_shown_and_the_whole_history(tmp_path):
    stepper = stepper_of()
    stepper.step(5)
    stepper.show(2)
    genotype = stepper.state.genotype
    assert genotype != stepper.history[-1].genotype
    stepper._folder.value = str(tmp_path / "new")
    stepper._save.click()
    assert "saved genotype of step 2" in plain(stepper._news)
    assert Genotype.load(tmp_path / "new" / "genotype.json") == genotype
    assert (tmp_path / "new" / "genotype.svg").read_text("utf-8") == draw(genotype).svg
    assert SearchHistory.load(tmp_path / "new" / "history.safetensors") == stepper.history
    assert stepper.save(tmp_path / "other") == tmp_path / "other"
    assert len(list((tmp_path / "other").iterdir())) == 3


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    stepper = stepper_of()
    (tmp_path / "<b>").write_text("a file")
    stepper._folder.value = str(tmp_path / "<b>")
    stepper._save.click()
    message = r"path: found .*<b>\S* \(.*\); allowed: the path of a file"
    assert re.search(message, plain(stepper._error))
    assert "<b>" not in stepper._error.value and not stepper._news.value
    with pytest.raises(BmnasError, match=message):
        stepper.save(tmp_path / "<b>" / "c")


# --- training from the stepper


def test_the_genotype_shown_is_trained_once_on_train_and_scored_on_validation():
    task = tiny_task()
    bank, read = recording_bank(task)
    stepper = SearchStepper(search_of(task=task, bank=bank))
    stepper.step(4)
    stepper.show(1)
    stepper._train.click()
    (entry,) = stepper.scoreboard.entries
    genotype = stepper.history[1].genotype
    assert (entry.name, entry.genotype) == ("step 1, pair, seed 0", genotype)
    net, history = train(genotype, tiny_task(), TrainConfig(data="train"), progress=False)
    assert entry.score == history[-1]["validation_score"] == evaluate(net, task, "validation")
    assert entry.parameters == count_parameters(net) and entry.operations > entry.parameters
    count = len(read)
    stepper._train.click()
    assert "in the table already: step 1, pair, seed 0" in plain(stepper.scoreboard._table)
    stepper.train()
    assert len(stepper.scoreboard.entries) == 1 and len(read) == count
    stepper.show(4)
    stepper.train()
    assert [e.name for e in stepper.scoreboard.entries][1] == "step 4, pair, seed 0"
    stepper._run.click()
    stepper._train.click()
    assert {split for split, _ in read} == {"train", "validation"}
    assert not stepper._error.value and not stepper._train.disabled


def test_a_training_that_fails_is_told_and_leaves_no_entry(monkeypatch):
    stepper = stepper_of()

    def broken(*_, **__):
        raise TrainError("training loss: found <nan>")

    monkeypatch.setattr("bmnas_core.widgets.scoreboard.train", broken)
    stepper._train.click()
    assert "TrainError: training loss: found <nan>" in plain(stepper._error)
    assert stepper.scoreboard.entries == [] and not stepper._train.disabled
    assert "training step 0" not in plain(stepper.scoreboard._table)


# --- in the kernel's event loop


def test_a_run_is_paused_from_elsewhere_and_goes_on_later():
    async def main():
        stepper = stepper_of(epochs=200)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 4)
        assert stepper._running and stepper._step.disabled and not stepper._pause.disabled
        stepper._pause.click()
        reached = stepper.search.step
        await until(
            lambda: not stepper._step.disabled and stepper._state.step == stepper.search.step
        )
        await asyncio.sleep(0.1)
        assert reached <= stepper.search.step <= reached + 1 < stepper.search.total_steps
        here = stepper.search.step
        assert stepper.state.step == here
        stepper._step.click()
        await until(lambda: stepper.state.step == here + 1)
        stepper.run()
        await until(lambda: stepper.search.step > here + 3)
        stepper.pause()
        await until(lambda: stepper._state.step == stepper.search.step)
        return stepper.history

    history = asyncio.run(main())
    search = search_of(epochs=200)
    loop = SearchHistory.from_search(search)
    while search.step < history.steps[-1]:
        loop.append(next(search))
    assert history == loop


def test_the_loop_is_free_while_a_step_is_made(monkeypatch):
    async def main():
        stepper = stepper_of()
        free, update = threading.Event(), Search._update

        def waits(*arguments):
            assert free.wait(20)
            return update(*arguments)

        monkeypatch.setattr(Search, "_update", waits)
        stepper._run.click()
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert stepper._running and len(stepper.history) == 1
        slide(stepper, 0)
        free.set()
        await until(lambda: not stepper._running)
        return stepper.history

    assert asyncio.run(main()) == looped()


def test_a_run_ends_when_the_last_view_is_closed():
    async def main():
        stepper = stepper_of(epochs=200)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 2)
        stepper._told(None, {"page": "one", "views": 1}, None)
        assert stepper._running
        leave(stepper)
        await until(lambda: not stepper._running)
        here = stepper.search.step
        await asyncio.sleep(0.1)
        assert stepper.search.step <= here + 1 < stepper.search.total_steps

    asyncio.run(main())


def test_a_run_ends_when_the_widget_is_closed():
    async def main():
        stepper = stepper_of(epochs=200)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 2)
        stepper.close()
        here = stepper.search.step
        await asyncio.sleep(0.1)
        assert stepper.search.step <= here + 1 < stepper.search.total_steps

    asyncio.run(main())


def test_two_steppers_at_once_give_the_same_as_each_alone():
    kinds = [(0, {"relaxation": "pair"}), (1, {"relaxation": "paper", "schedule": "epoch"})]

    async def main():
        steppers = [stepper_of(seed, epochs=5, **config) for seed, config in kinds]
        for stepper in steppers:
            stepper._run.click()
        await until(lambda: all(stepper.search.step > 0 for stepper in steppers))
        assert all(stepper._running for stepper in steppers)
        await until(lambda: not any(stepper._running for stepper in steppers))
        return [stepper.history for stepper in steppers]

    for history, (seed, config) in zip(asyncio.run(main()), kinds, strict=True):
        assert history == looped(seed, epochs=5, **config)


def test_a_plain_search_in_between_disturbs_no_run_and_is_not_disturbed():
    async def main():
        stepper, search = stepper_of(epochs=6), search_of(3, epochs=4)
        stepper._run.click()
        history = SearchHistory.from_search(search)
        for state in search:
            history.append(state)
            await asyncio.sleep(0)
        await until(lambda: not stepper._running)
        return stepper.history, history

    assert asyncio.run(main()) == (looped(epochs=6), looped(3, epochs=4))


def test_buttons_pressed_one_after_the_other_do_not_mix_up_the_steps():
    async def main():
        stepper = stepper_of(epochs=6)
        for _ in range(4):
            stepper._run.click()
            stepper._step.click()
            await asyncio.sleep(0.02)
            stepper._pause.click()
            stepper._step_10.click()
            stepper._pause.click()
            stepper._step.click()
            await asyncio.sleep(0)
        await until(lambda: stepper._stepping is None)
        stepper._run.click()
        await until(lambda: not stepper._running and not len(stepper.search))
        return stepper.history

    assert asyncio.run(main()) == looped(epochs=6)


def test_looking_back_during_a_run_keeps_what_is_looked_at():
    async def main():
        stepper = stepper_of(epochs=20)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 3)
        slide(stepper, 1)
        assert stepper.state.step == 1 and "looking back" in plain(stepper._status)
        drawn = stepper._hypernet.value
        here = len(stepper.history)
        await until(lambda: len(stepper.history) > here + 3)
        assert stepper.state.step == 1 and stepper._hypernet.value == drawn
        assert stepper._page.last == len(stepper.history) - 1
        slide(stepper, stepper._page.last)
        await until(lambda: not stepper._running)
        assert stepper.state.step == stepper.search.step == 60

    asyncio.run(main())


def test_reset_during_a_run_ends_it_and_the_new_search_is_as_alone():
    async def main():
        stepper = stepper_of(epochs=200)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 3)
        stepper._controls["seed"].value = 5
        stepper._reset.click()
        await until(lambda: stepper.search.seed == 5)
        await asyncio.sleep(0.1)
        assert not stepper._running and stepper.history.steps.tolist() == [0]
        for k in range(3):
            stepper._step.click()
            await until(lambda k=k: stepper.state.step == k + 1 and not stepper._running)
        return stepper.history

    history = asyncio.run(main())
    search = search_of(5, epochs=200)
    assert np.array_equal([next(search) for _ in range(3)][-1].alpha, history[-1].alpha)


def test_run_pressed_while_a_reset_is_under_way_runs_when_it_is_done():
    async def main():
        stepper = stepper_of(epochs=200)
        make = stepper._new_search
        stepper._new_search = lambda settings: time.sleep(0.3) or make(settings)
        stepper._controls["seed"].value = 5
        stepper._reset.click()
        await until(lambda: stepper._resetting)
        stepper._run.click()
        await until(lambda: stepper.search.seed == 5 and stepper.search.step > 3)
        stepper.pause()
        await until(lambda: not stepper._step.disabled)
        step = stepper.search.step
        stepper._reset.click()
        await until(lambda: stepper.search.step == 0 and not stepper._resetting)
        await asyncio.sleep(0.1)
        assert stepper.search.step == 0 < step  # what was wanted once is not wanted again

    asyncio.run(main())


def test_a_step_that_ends_after_a_reset_is_of_no_account():
    async def main():
        stepper = stepper_of(epochs=200)
        for seed in range(3):
            stepper._run.click()
            await until(lambda: len(stepper.history) > 3)
            stepper.reset(seed=seed)
            await asyncio.sleep(0.05)
            assert stepper.search.seed == seed and not stepper._running
            assert stepper.history.steps.tolist() == [0] and not stepper._error.value

    asyncio.run(main())


def test_a_button_pressed_in_another_thread_works_in_the_loop():
    async def main():
        stepper = stepper_of()
        await asyncio.to_thread(stepper._step_10.click)
        await until(lambda: len(stepper.history) == 7)
        await asyncio.to_thread(slide, stepper, 2)
        await until(lambda: stepper.state.step == 2)
        return stepper.history

    assert asyncio.run(main()) == looped()


def test_an_error_in_a_run_is_shown_and_the_loop_goes_on(monkeypatch):
    async def main():
        stepper = stepper_of(epochs=5)
        update = Search._update

        def breaks(search, *arguments):
            if search.step == 4:
                raise ValueError("<oh> no")
            return update(search, *arguments)

        monkeypatch.setattr(Search, "_update", breaks)
        stepper._run.click()
        await until(lambda: stepper._error.value)
        assert "ValueError: <oh> no" in plain(stepper._error)
        assert stepper.state.step == 4 and not stepper._running and not stepper._step.disabled
        monkeypatch.setattr(Search, "_update", update)
        stepper._step.click()
        await until(lambda: stepper.state.step == 5)
        assert not stepper._error.value

    asyncio.run(main())


def test_a_training_is_told_epoch_by_epoch_and_ends_when_nobody_looks():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=5000))
        stepper = SearchStepper(search_of(task=task), scoreboard=board)
        stepper._train.click()
        await until(lambda: "training step 0, pair, seed 0: epoch" in plain(board._table))
        assert stepper._train.disabled and board.entries == []
        leave(stepper)
        await until(lambda: not stepper._train.disabled)
        assert "training of step 0, pair, seed 0: broken off in epoch" in plain(board._table)
        assert board.entries == [] and "nothing trained yet" in plain(board._table)
        board.config = TrainConfig(epochs=2, data="train")
        stepper._train.click()
        await until(lambda: board.entries and not stepper._train.disabled)
        assert not stepper._error.value

    asyncio.run(main())


def test_pause_and_leaving_right_after_run_are_not_lost():
    async def main():
        for end in (lambda s: s._pause.click(), leave):
            stepper = stepper_of(epochs=20)
            stepper._run.click()
            end(stepper)
            await until(lambda s=stepper: not s._step.disabled)
            assert stepper.search.step <= 1

    asyncio.run(main())


def test_one_of_two_views_closed_stops_nothing_and_a_page_loaded_anew_counts_anew():
    async def main():
        stepper = stepper_of(epochs=200)
        for page, views in (("one", 1), ("one", 1), ("one", -1), ("two", 1)):
            stepper._told(None, {"page": page, "views": views}, None)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 5)
        assert stepper._running
        stepper._told(None, {"page": "two", "views": -1}, None)
        await until(lambda: not stepper._step.disabled)
        assert len(stepper.search)

    asyncio.run(main())


def test_a_reset_in_code_during_a_run_can_be_run_at_once():
    async def main():
        stepper = stepper_of(epochs=20)
        stepper._run.click()
        await until(lambda: len(stepper.history) > 3)
        stepper.reset(seed=6)
        stepper.run()
        await until(lambda: stepper.search.step > 3)
        assert stepper.search.seed == 6
        stepper.pause()
        await until(lambda: not stepper._step.disabled)

    asyncio.run(main())


def test_threads_that_a_cell_starts_do_not_wait_for_it():
    gate = _KernelLock()
    gate.enter_cell()
    searches = [search_of(seed=seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        steps = [state.step for state in pool.map(next, searches, timeout=20)]
    assert steps == [1, 1]
    gate.leave_cell()


def test_jobs_wait_for_cells_and_cells_for_the_job_under_way():
    gate, order = _KernelLock(), []

    def job():
        with gate.job():
            order.append("job")

    gate.enter_cell()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(job)
        time.sleep(0.05)
        order.append("cell")
        gate.leave_cell()
        done.result(10)
    assert order == ["cell", "job"]

    with ThreadPoolExecutor(1) as pool:
        with gate.job():
            cell = pool.submit(lambda: (gate.enter_cell(), order.append("next"), gate.leave_cell()))
            time.sleep(0.05)
            order.append("job ends")
        cell.result(10)
    assert order[2:] == ["job ends", "next"]


# --- with nobody in front of it


def test_where_nobody_watches_a_stepper_steps_by_itself_and_leaves_pictures(monkeypatch):
    shown = []
    monkeypatch.setenv("BMNAS_UNATTENDED", "1")
    monkeypatch.setattr("IPython.display.display", shown.append)
    stepper = stepper_of(epochs=30)
    stepper._ipython_display_()
    assert stepper.search.step == UNATTENDED_STEPS == 60
    svgs = [picture.svg for picture in shown if hasattr(picture, "svg")]
    state, before = stepper.history[-1], stepper.history[-2].genotype
    assert svgs == [
        draw(state).svg,
        draw_heatmaps(state).svg,
        draw(state.genotype, against=before).svg,
        draw_curves(stepper.history, at=60).svg,
    ]
    assert any("step 60" in picture.data for picture in shown if hasattr(picture, "data"))
    stepper.demonstrate()
    assert stepper.search.step == 60


def test_where_nobody_watches_the_other_widgets_leave_pictures_too(monkeypatch):
    shown = []
    monkeypatch.setenv("BMNAS_UNATTENDED", "1")
    monkeypatch.setattr("IPython.display.display", shown.append)
    task = tiny_task()
    editor = GenotypeEditor(task, one_step("attention"))
    editor.train()
    editor._ipython_display_()
    assert [picture.svg for picture in shown if hasattr(picture, "svg")] == [
        draw(one_step("attention")).svg
    ]
    shown.clear()
    editor.scoreboard._ipython_display_()
    assert "edited 1" in shown[0].data
    shown.clear()
    interactive(lambda a: draw(one_step()), a=(0, 1, 0.5))._ipython_display_()
    assert "<svg" in shown[0].data
    shown.clear()
    pair = side_by_side(stepper_of(epochs=1), stepper_of(1, epochs=1))
    pair._ipython_display_()
    assert len([picture for picture in shown if hasattr(picture, "svg")]) >= 2


def test_where_somebody_watches_the_widget_shows_itself(monkeypatch):
    monkeypatch.setattr("bmnas_core.widgets.work.is_interactive", lambda: True)
    stepper = stepper_of()
    hand = interactive(lambda a: draw(one_step()), a=(0, 1, 0))
    for widget in (stepper, stepper.scoreboard, GenotypeEditor(TASK), hand, side_by_side(stepper)):
        with pytest.raises(NotImplementedError):
            widget._ipython_display_()
    assert stepper.search.step == 0


def test_widgets_beside_each_other_are_the_widgets_themselves():
    steppers = [stepper_of(), stepper_of(1)]
    row, *_ = side_by_side(*steppers).children
    assert list(row.children) == steppers


# --- Scoreboard


def entry(name, score, genotype=None):
    return Entry(name, genotype or one_step(), score, 1234, 56789, 0.25)


def test_the_best_stands_first_and_names_are_text():
    board = Scoreboard(tiny_task())
    assert "nothing trained yet" in plain(board._table)
    names = HOSTILE[:4]
    for k, (name, score) in enumerate(zip(names, (0.5, 0.875, 0.25, 0.875), strict=True)):
        board.entries.append(entry(name, score, one_step(list(OPERATIONS)[k])))
    board._show()
    rows = re.findall(r"<tr>(.*?)</tr>", board._table.value)[1:]
    cells = [[html.unescape(re.sub("<[^>]*>", "", c)) for c in r.split("</td>")] for r in rows]
    assert [c[1] for c in cells] == [names[1], names[3], names[0], names[2]]
    assert [c[3] for c in cells] == ["0.875", "0.875", "0.500", "0.250"]
    assert [c[0] for c in cells] == ["1", "2", "3", "4"]
    assert cells[0][4:7] == ["1,234", "56,789", "0.2"]
    assert "<script" not in board._table.value and "<b>_1" not in board._table.value
    assert "nothing trained yet" not in plain(board._table)
    assert "validation accuracy" in plain(board._table) and "test stays closed" in plain(
        board._table
    )


def test_features_named_like_markup_stay_text_in_the_table():
    task = tiny_task(tuple(HOSTILE[:2]))
    board = Scoreboard(task)
    genotype = Genotype(task.features, (cell(task.features[:2], ("sum", ("X", "Y"))),))
    board.add(genotype, "<i>x")
    assert "<script" not in board._table.value and "<i>" not in board._table.value
    assert task.features[0] in plain(board._table)


def test_a_scoreboard_trains_on_train_whatever_the_settings_say():
    task = tiny_task()
    bank, read = recording_bank(task)
    board = Scoreboard(task, TrainConfig(data="train+validation", epochs=3), seed=4, bank=bank)
    made = board.add(one_step(), "a")
    assert board.entries == [made]
    assert {split for split, _ in read} == {"train", "validation"}
    config = TrainConfig(data="train", epochs=3)
    _, history = train(one_step(), tiny_task(), config, seed=4, progress=False)
    assert made.score == history[-1]["validation_score"]
    assert "3 epochs on train" in plain(board._table)


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


def test_a_training_ends_with_its_own_widget_and_not_with_another():
    async def main():
        task = tiny_task()
        board = Scoreboard(task, TrainConfig(epochs=20))
        mine, other = (SearchStepper(search_of(task=task), scoreboard=board) for _ in range(2))
        other.step(3)
        mine._train.click()
        other._train.click()
        await until(lambda: "epoch" in mine._train.description)
        assert mine._train.disabled and other._train.disabled
        leave(other)  # its training is still waiting for the first one
        await until(lambda: not mine._train.disabled and not other._train.disabled)
        assert [entry.name for entry in board.entries] == ["step 0, pair, seed 0"]
        assert mine._train.description == "Train this one"
        assert "broken off" in plain(board._table)
        other._train.click()
        await until(lambda: len(board.entries) == 2)

    asyncio.run(main())


# --- GenotypeEditor


class Row:
    """The menus and buttons of a Cell."""

    def __init__(self, box):
        head, *lines = box.children
        *self.inputs, self.motif = [w for w in head.children if isinstance(w, ipw.Dropdown)]
        self.more, self.fewer = [w for w in head.children if isinstance(w, ipw.Button)]
        self.steps = [[w for w in li.children if isinstance(w, ipw.Dropdown)] for li in lines]


def rows(editor):
    return [Row(box) for box in editor._menus.children]


def options(menu):
    return [o[1] if isinstance(o, tuple) else o for o in menu.options]


def in_menus(editor) -> Genotype:
    """The genotype that the menus show."""
    cells = []
    for row in rows(editor):
        steps = [(op.value, (a.value, b.value)) for op, a, b in row.steps]
        cells.append(cell(tuple(menu.value for menu in row.inputs), *steps))
    return Genotype(editor.task.features, tuple(cells))


def consistent(editor):
    """Whether all that an editor shows is of its genotype."""
    genotype, task = editor.genotype, editor.task
    net = FusionNetwork(genotype, task.channels, task.classes, C=task.config.C, L=task.config.L)
    motifs = [row.motif.value for row in rows(editor)]
    return (
        in_menus(editor) == genotype
        and motifs == [c.motif or OWN for c in genotype.cells]
        and plain(editor._cost).startswith(f"{count_parameters(net):,} parameters")
        and draw(genotype).svg in editor._picture.value
        and editor._fewer.disabled == (len(genotype.cells) == 1)
        and [r.fewer.disabled for r in rows(editor)] == [len(c.steps) == 1 for c in genotype.cells]
    )


def test_an_editor_starts_with_a_genotype_of_the_task():
    editor = GenotypeEditor(tiny_task(("Image", "Audio", "Text")))
    assert editor.genotype.features == editor.task.features
    assert {c.motif for c in editor.genotype.cells} == {"ConcatFC"}
    assert consistent(editor)
    given = one_step("attention")
    assert GenotypeEditor(TASK, given).genotype == given


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data())
def test_every_choice_offered_leads_to_a_legal_genotype_that_shows_it(data):
    editor = GenotypeEditor(TASK, data.draw(genotypes(TASK.features, max_cells=3, max_steps=3)))
    assert consistent(editor)
    for _ in range(6):
        before = editor.genotype
        i = data.draw(st.integers(0, len(before.cells) - 1))
        row = rows(editor)[i]
        action = data.draw(st.sampled_from(["menu", "menu", "menu", "step", "cell"]))
        if action == "menu":
            where = data.draw(st.integers(0, 2 + 3 * len(row.steps)))

            def menus(row):
                return [*row.inputs, row.motif, *(menu for step in row.steps for menu in step)]

            menu = menus(row)[where]
            value = data.draw(st.sampled_from(options(menu)))
            menu.value = value
            shown = menus(rows(editor)[i])[where].value
            assert shown == value if value != OWN else editor.genotype == before
        else:
            step = action == "step"
            more, fewer = (row.more, row.fewer) if step else (editor._more, editor._fewer)
            press = data.draw(st.sampled_from([b for b in (more, fewer) if not b.disabled]))
            press.click()
            old, new = (
                len(g.cells[i].steps if step else g.cells) for g in (before, editor.genotype)
            )
            assert new - old == (1 if press is more else -1)
        assert not editor._error.value
        assert consistent(editor)


def reach(editor, target):
    """Make a genotype of the one shown, by pressing buttons and choosing from menus alone."""
    while len(editor.genotype.cells) != len(target.cells):
        more = len(editor.genotype.cells) < len(target.cells)
        (editor._more if more else editor._fewer).click()
    for i, wanted in enumerate(target.cells):
        while (n := len(rows(editor)[i].steps)) != len(wanted.steps):
            row = rows(editor)[i]
            (row.more if n < len(wanted.steps) else row.fewer).click()
        row = rows(editor)[i]
        for menu, name in zip(row.inputs, wanted.inputs, strict=True):
            menu.value = name
        for menus, step in zip(row.steps, wanted.steps, strict=True):
            for menu, value in zip(menus, (step.op, *step.inputs), strict=True):
                menu.value = value


@pytest.mark.slow
@settings(max_examples=12)
@given(genotypes(TASK.features, max_cells=3, max_steps=3), st.booleans())
def test_every_genotype_of_a_task_can_be_reached_and_left_again(target, back):
    editor = GenotypeEditor(TASK)
    start = editor.genotype
    reach(editor, target)
    assert editor.genotype == target and consistent(editor)
    if back:
        reach(editor, start)
        assert editor.genotype == start and consistent(editor)
    editor._again.click()
    assert editor.genotype == start and consistent(editor)
    assert not editor._error.value


def test_choosing_what_the_other_input_takes_swaps_the_two():
    editor = GenotypeEditor(TASK, one_step("attention", ("Image_1", "Audio_2")))
    rows(editor)[0].inputs[0].value = "Audio_2"
    assert editor.genotype.cells[0].inputs == ("Audio_2", "Image_1")
    rows(editor)[0].steps[0][2].value = "X"
    assert editor.genotype.cells[0].steps[0].inputs == ("Y", "X")
    rows(editor)[0].inputs[1].value = "Image_2"
    assert editor.genotype.cells[0].inputs == ("Audio_2", "Image_2")
    assert consistent(editor)


def test_menus_offer_what_comes_before_and_are_built_anew_with_the_structure():
    editor = GenotypeEditor(TASK, one_step())
    before = editor._menus.children
    rows(editor)[0].steps[0][0].value = "attention"
    rows(editor)[0].inputs[0].value = "Image_2"
    assert editor._menus.children is before
    editor._more.click()
    assert editor._menus.children is not before
    rows(editor)[1].more.click()
    rows(editor)[1].more.click()
    first, second = rows(editor)
    features = list(TASK.features)
    assert [options(menu) for menu in first.inputs] == [features] * 2
    assert [options(menu) for menu in second.inputs] == [[*features, "C1"]] * 2
    inner = ["X", "Y", "S1", "S2"]
    for j, (op, *inputs) in enumerate(second.steps):
        assert options(op) == list(OPERATIONS)
        assert [options(menu) for menu in inputs] == [inner[: j + 2]] * 2
    assert options(first.motif) == [OWN, *MOTIFS]
    second.motif.value = "attention on attention"
    assert len(rows(editor)[1].steps) == 2 and editor.genotype.cells[1].motif
    assert consistent(editor)


def test_an_operation_of_the_user_is_offered():
    try:

        @register_operation("widget_test", label="<x>")
        class Gate(torch.nn.Module):
            def __init__(self, C, L, dropout):
                super().__init__()

            def forward(self, x, y):
                return x * y.sigmoid()

        editor = GenotypeEditor(TASK)
        rows(editor)[0].steps[0][0].value = "widget_test"
        assert editor.genotype.cells[0].steps[0].op == "widget_test" and consistent(editor)
    finally:
        OPERATIONS.pop("widget_test", None)


def test_nothing_is_taken_away_or_added_beyond_what_is_legal():
    editor = GenotypeEditor(TASK, one_step())
    editor._fewer.click()
    assert "cells: found []; allowed: at least one Cell" in plain(editor._error)
    rows(editor)[0].fewer.click()
    assert "cells[0].steps: found []; allowed: at least one step" in plain(editor._error)
    assert editor.genotype == one_step() and consistent(editor)
    first = CellGenotype(("Image_1", "Audio_1"), (StepGenotype("sum", ("X", "Y")),) * LARGEST)
    large = Genotype(TASK.features, (first, replace(first, steps=first.steps[:1])))
    editor.genotype = large
    assert [row.more.disabled for row in rows(editor)] == [True, False]
    with pytest.raises(GenotypeError, match="found '65 steps'; allowed: at most 64"):
        editor.add_step(0)
    assert editor.genotype == large


@pytest.mark.slow
def test_sixty_four_cells_are_the_most():
    step = StepGenotype("sum", ("X", "Y"))
    cells = (CellGenotype(("Image_1", "Audio_1"), (step,)),) * LARGEST
    editor = GenotypeEditor(TASK, Genotype(TASK.features, cells))
    assert editor._more.disabled and len(rows(editor)) == LARGEST
    editor._more.click()
    assert "cells: found '65 Cells'; allowed: at most 64" in plain(editor._error)
    editor._fewer.click()
    assert len(editor.genotype.cells) == LARGEST - 1 and not editor._more.disabled


def test_another_genotype_is_set_and_reset_goes_back():
    first = one_step("attention")
    editor = GenotypeEditor(TASK, first)
    other = Genotype(
        TASK.features,
        (
            cell(("Image_2", "Audio_1"), ("sum", ("X", "Y")), ("attention", ("S1", "X"))),
            *first.cells,
        ),
    )
    editor.genotype = other
    assert editor.genotype == other and consistent(editor)
    editor._again.click()
    assert editor.genotype == first and consistent(editor)


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
    assert editor.genotype == one_step() and consistent(editor)
    for what in (None, "digits", search_of()):
        with pytest.raises(BmnasError, match=r"task: found \w+; allowed: a Task"):
            GenotypeEditor(what)


def test_an_edited_genotype_is_trained_under_a_name_of_its_own():
    editor = GenotypeEditor(tiny_task(), one_step("concat_fc"))
    editor._train.click()
    rows(editor)[0].steps[0][1].value = "Y"
    editor._train.click()
    rows(editor)[0].steps[0][0].value = "sum"
    editor._train.click()
    assert [(e.name, e.genotype.cells[0].motif) for e in editor.scoreboard.entries] == [
        ("edited 1", "ConcatFC"),
        ("edited 2", "Sum"),
    ]
    parameters = editor.scoreboard.entries[1].parameters
    assert plain(editor._cost).startswith(f"{parameters:,} parameters")
    assert not editor._error.value and not editor._train.disabled


def test_an_edited_genotype_is_saved(tmp_path):
    path = tmp_path / "<new>" / "genotype.json"
    editor = GenotypeEditor(TASK, one_step("attention"), path=str(path))
    editor._save.click()
    assert Genotype.load(path) == one_step("attention")
    assert str(path) in plain(editor._news) and "<new>" not in editor._news.value
    assert editor.save(tmp_path / "other.json") == tmp_path / "other.json"
    editor._path.value = str(path / "below")
    editor._save.click()
    assert re.search(
        r"path: found .*below' \(.*\); allowed: the path of a file", plain(editor._error)
    )
    assert json.loads(path.read_text())["features"] == list(TASK.features)


# --- interactive


def test_a_picture_interactive_is_drawn_with_where_the_sliders_stand():
    called = []

    def function(share, size):
        called.append((share, size))
        return draw(one_step("attention" if share > 0.5 else "sum"))

    hand = interactive(function, share=(0, 1, 0.25), size=(-2.0, 2.0, 1.0))
    assert called == [(0.25, 1.0)] and draw(one_step("sum")).svg in hand._box.value
    hand._sliders["share"].value = 0.75
    assert called[-1] == (0.75, 1.0) and draw(one_step("attention")).svg in hand._box.value
    hand._sliders["size"].value = 99
    assert called[-1] == (0.75, 2.0) and hand.values == {"share": 0.75, "size": 2.0}
    assert len(called) == 3


def test_a_figure_interactive_is_closed_once_it_is_drawn():
    import matplotlib.pyplot as plt

    def function(a):
        figure, axes = plt.subplots()
        axes.plot([0, a])
        return figure

    hand = interactive(function, a=(0, 1, 0.5))
    assert "<svg" in hand._box.value and "<?xml" not in hand._box.value
    before = hand._box.value
    hand._sliders["a"].value = 0.75
    assert hand._box.value != before and plt.get_fignums() == []


def test_an_error_interactive_is_shown_and_gone_with_the_next_picture():
    def function(a):
        if a > 0.5:
            raise ValueError("<b>too far</b>")
        return draw(one_step())

    hand = interactive(function, a=(0, 1, 0))
    hand._sliders["a"].value = 0.75
    assert "ValueError: <b>too far</b>" in plain(hand._error) and "<b>" not in hand._error.value
    assert draw(one_step()).svg in hand._box.value
    hand._sliders["a"].value = 0.25
    assert not hand._error.value


# --- what does not fit


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Scoreboard(3), "task: found int; allowed: a Task"),
        (lambda: Scoreboard(TASK, 3), "config: found int; allowed: a TrainConfig"),
        (lambda: Scoreboard(TASK, seed="x"), "seed: found 'x'; allowed: an int"),
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
        (lambda: SearchStepper(search_of(), scoreboard=3), "scoreboard: found int; allowed"),
        (lambda: SearchStepper(search_of(), folder=3), "folder: found 3; allowed: a path"),
        (lambda: stepper_of().save(""), "save: found folder ''; allowed: the path of a folder"),
        (lambda: interactive(lambda a: 0, a=(0, float("inf"), 1)), "interactive: a: found .*inf"),
        (lambda: interactive(lambda a: 0, b=(0, 1, 0)), "interactive: found ranges b; .*argument"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_door(make, message):
    with pytest.raises(BmnasError, match=message):
        make()


def test_a_range_may_be_named_as_anything():
    hand = interactive(lambda function: draw(one_step()), function=(0, 1, 0.5))
    assert hand.values == {"function": 0.5}


def test_no_two_entries_of_a_scoreboard_share_a_name():
    board = Scoreboard(tiny_task(), TrainConfig(epochs=1))
    for op in ("sum", "attention", "concat_fc"):
        board.add(one_step(op), "edited 1")
    assert [entry.name for entry in board.entries] == ["edited 1", "edited 1 (2)", "edited 1 (3)"]


# --- in a real kernel

CELLS = [
    """
import sys, time
sys.path.insert(0, "tests")
import torch
from tiny import tiny_task
from bmnas_core import Search, SearchConfig, SearchStepper, SearchHistory
def search_of(seed, epochs):
    return Search(tiny_task(), SearchConfig(epochs=epochs), seed=seed, device="cpu")
stepper = SearchStepper(search_of(0, 40))
stepper._run.click()
""",
    """
torch.manual_seed(0)
drawn = []
for _ in range(200):
    drawn.append(torch.rand(1).item())
    time.sleep(0.0005)
torch.manual_seed(0)
assert drawn == [torch.rand(1).item() for _ in range(200)], "disturbed"
assert stepper._running
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
assert not stepper._running and not stepper._error.value, stepper._error.value
assert stepper.history == looped(0, 40) and other == looped(1, 4)
""",
]


@pytest.mark.slow
def test_in_a_kernel_cells_and_a_run_do_not_disturb_each_other(root):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(root))

    def told(code, **expressions):
        """The values of expressions once the code has run."""
        content = client.execute(code, user_expressions=expressions, reply=True, timeout=60)
        content = content["content"]
        assert content["status"] == "ok", "\n".join(content["traceback"])
        return {k: v["data"]["text/plain"] for k, v in content["user_expressions"].items()}

    try:
        *cells, last = CELLS
        for code in cells:
            told(code)
        for _ in range(200):
            if told("", running="stepper._running") == {"running": "False"}:
                break
            time.sleep(0.1)
        told(last)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
