"""Progress bars: shown if somebody is looking, and full when their iterable ends."""

import pytest

from bmnas_core import progress, progress_bar


@pytest.mark.parametrize("is_interactive", [True, False])
@pytest.mark.parametrize("total", [None, 3, 10])
def test_a_bar_yields_its_items_and_is_full_at_their_end(
    is_interactive, total, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "is_interactive", lambda: is_interactive)
    bar = progress_bar((n for n in range(3)), "counting", total)
    assert list(bar) == [0, 1, 2] and bar.total is None
    assert ("counting" in capsys.readouterr().err) == is_interactive


def test_a_bar_knows_the_length_of_its_iterable(monkeypatch):
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    assert progress_bar(range(7), "counting").total == 7
