"""What tests in a browser share: Chromium, and a folder for pictures."""

from pathlib import Path

import pytest
from lab import open_browser


@pytest.fixture(scope="module")
def browser(chromium):
    with open_browser(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def shots(request, notebook_runs) -> Path:
    """Where a module of tests leaves its pictures."""
    folder = notebook_runs / request.module.__name__.rpartition("test_")[2]
    folder.mkdir(exist_ok=True)
    return folder
