"""Progress bars: shown to who watches, and full when what they follow has ended."""

import pytest

from bmnas_core import progress, progress_bar


@pytest.mark.parametrize("is_interactive", [True, False])
@pytest.mark.parametrize("total", [None, 3, 10])
def test_a_bar_gives_what_it_follows_and_ends_with_it(is_interactive, total, monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_interactive", lambda: is_interactive)
    bar = progress_bar((n for n in range(3)), "counting", total)
    assert list(bar) == [0, 1, 2] and bar.total is None
    assert ("counting" in capsys.readouterr().err) == is_interactive


def test_a_bar_knows_how_much_there_is(monkeypatch):
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    assert progress_bar(range(7), "counting").total == 7
