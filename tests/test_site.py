"""The course as a site: it builds without a warning, and its links lead somewhere."""

import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import bmnas_core as bm

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow


class SitePage(HTMLParser):
    """What a page links to, loads, and can be linked at."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.ids, self.titles = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("href"):
            self.loads.append(given["href"])
        elif tag in ("script", "img", "iframe", "audio", "source") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "iframe":
            self.titles.append(given.get("title"))


@pytest.fixture(scope="module")
def site(built_site) -> Path:
    return built_site


@cache
def page(path: Path) -> SitePage:
    return SitePage(path)


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def test_every_link_leads_to_a_page_a_place_on_it_or_a_file(site):
    broken = []
    for path in pages(site):
        for address in [*page(path).links, *page(path).loads]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            place = unquote(parts.fragment)
            there = target.is_file() and target.is_relative_to(site.resolve())
            if there and place and target.suffix == ".html" and "replay" not in target.name:
                there = place in page(target).ids
            if not there:
                broken.append(f"{path.relative_to(site)}: {address}")
    assert not broken, broken[:20]


def test_no_page_loads_anything_from_elsewhere(site):
    for path in pages(site):
        far = [x for x in page(path).loads if re.match(r"(https?:)?//", x)]
        assert not far, (path.name, far)
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script[^>]*>\s*window\.MathJax", text), path.name


def test_the_site_has_every_notebook_and_shows_its_outputs(site):
    for notebook in NOTEBOOKS:
        text = (site / "notebooks" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert "execution" not in text or "Traceback" not in text
        if notebook.stem[:2].isdigit():
            assert text.count("cell_output") >= 3 and 'id="references"' in text
            assert f"{notebook.stem[:2]}.1: no answer yet." in text
    text = (site / "notebooks" / "02_primitive_operations.html").read_text(encoding="utf-8")
    assert "<math" in text and "\\mathrm" not in re.sub(r"<annotation.*?</annotation>", "", text)


def test_the_site_documents_every_name_of_the_kit(site):
    ids = page(site / "docs" / "api.html").ids
    lacking = [name for name in bm.__all__ if f"bmnas_core.{name}" not in ids]
    assert lacking == ["__version__"]


def test_the_site_has_replays_that_need_nothing_and_tables_of_all_results(site):
    for rule in ("sum", "voice"):
        text = (site / f"replay_{rule}.html").read_text(encoding="utf-8")
        assert "Play" in text and not re.search(r"(src|href)=\"https?:", text)
    assert all(page(site / "docs" / f"{name}.html").titles for name in ("index", "replays"))
    table = (site / "docs" / "benchmark.html").read_text(encoding="utf-8")
    assert "benchmark-table" in table and "Attention(X, Y)" in table
    assert "docs/index.html" in (site / "index.html").read_text(encoding="utf-8")


def test_the_sites_launch_links_follow_from_one_setting():
    script = (
        "import sys; sys.path.insert(0, 'docs'); import conf, json;"
        "print(json.dumps([conf.launch_options(x) for x in ('', 'https://github.com/a/b')]))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    without, with_one = __import__("json").loads(done.stdout)
    assert without == {}
    assert with_one["repository_url"] == "https://github.com/a/b"
    assert set(with_one["launch_buttons"]) >= {"binderhub_url", "colab_url"}
