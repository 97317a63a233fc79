"""The page of many runs: what is on it, and that nothing in it runs or is fetched."""

import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from saved_runs import GENOTYPE, genotype_of, write_run

import bmnas_core as bm
from bmnas_core.draw import DrawError, draw_differences
from bmnas_core.draw.charts import signed
from bmnas_core.errors import BmnasError
from bmnas_core.experiments import Collection
from bmnas_core.experiments.results import LEARNED

EVIL = "</script><img src=x onerror=\"document.title='ran'\"><b>"


class ParsedPage(HTMLParser):
    """The tags of a page, their attributes, and its text outside scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.inside, self.words = [], [], []
        self.size = len(text)
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def written(found: Collection, folder) -> ParsedPage:
    """The page of a report, which leaves no figure open."""
    open_before = plt.get_fignums()
    bm.write_report(found, folder / "report.html")
    assert plt.get_fignums() == open_before
    return ParsedPage((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two relaxations, two seeds; three runs found one architecture, in two ways of writing it."""
    tmp_path = tmp_path_factory.mktemp("runs")
    other = genotype_of("Image_2", "Audio_2")
    learned = [GENOTYPE, GENOTYPE, genotype_of("Image_1", "Audio_1", order=("Y", "X")), other]
    for k, genotype in enumerate(learned):
        relaxation, seed = ("pair", "paper")[k // 2], k % 2
        write_run(
            tmp_path / "s" / str(k),
            parameters={"relaxation": relaxation},
            seed=seed,
            test=0.9 + k / 100,
            genotype=json.loads(genotype.to_json()),
            versions={"torch": f"2.{seed}"},
        )
    why = f"cell 3: {EVIL}"
    write_run(tmp_path / "s" / "bad", parameters={"a": 1}, status="failed", error=why)
    return bm.collect(tmp_path / "s")


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    """The report of them; no figure of it is left open."""
    before = plt.get_fignums()
    page = written(found, tmp_path_factory.mktemp("page"))
    assert plt.get_fignums() == before
    return page


def test_a_report_shows_all_that_was_found_and_what_failed(page):
    for words in (
        "digits: 4 runs",
        "relaxation pair, paper",
        "1 run has no result",
        "cell 3: </script><img src=x",
        "0.9050 ± 0.0071 0.8415 … 0.9685 12,345 30.0",  # 12.706 standard errors of two seeds
        f"late fusion − {LEARNED}",
        "relaxation paper − pair",
        "Settings, compared seed by seed",
        "Architecture 1 digits, rule sum, relaxation pair, accuracy: seed 0 (0.9000), 1 (0.9100)",
        "Architecture 2",
        "The runs differ in torch.",
        "torch 2.0 2",
    ):
        assert words in page.text, words
    assert "Architecture 3" not in page.text
    assert [svg["aria-label"] for svg in page.named("svg")] == [
        "Paired differences between values of relaxation",
        "Scores of networks: digits, rule sum, relaxation pair, accuracy",
        "Scores of networks: digits, rule sum, relaxation paper, accuracy",
        "Architecture 1",
        "Architecture 2",
    ]


def test_a_report_needs_no_network_and_its_ids_are_its_own(page):
    (policy,) = [meta["content"] for meta in page.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert not any(
        "src" in attrs for tag in ("script", "img", "iframe") for attrs in page.named(tag)
    )
    assert not page.named("link")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 100
    used = {value[1:] for _, attrs in page.tags for name, value in attrs.items()
            if name in ("href", "xlink:href") and value.startswith("#")}  # fmt: skip
    used |= {name for _, attrs in page.tags for value in attrs.values()
             for name in re.findall(r"url\(#([^)]+)\)", value or "")}  # fmt: skip
    assert len(used) > 10 and used <= set(ids)
    assert not [tag for tag, _ in page.tags if tag == "metadata"]
    assert page.size < 1_500_000


@pytest.mark.slow
def test_nothing_from_files_becomes_a_tag(tmp_path):
    features = (f"{EVIL}_1", "a & b_1")
    genotype = genotype_of(*features, features=features)
    for k in range(2):
        write_run(
            tmp_path / "s" / str(k),
            parameters={"how": f"{EVIL}{k}"},
            status="done",
            task=EVIL,
            rule=EVIL,
            device=EVIL,
            metric=EVIL,
            baselines={EVIL: {"test": 0.1, "params": 1, "seconds": 1}},
            genotype=json.loads(genotype.to_json()),
            versions={EVIL: EVIL},
            provenance={EVIL: {EVIL: EVIL}, "git": {EVIL: {"commit": EVIL}}},
        )
    write_run(tmp_path / "s" / "bad", parameters={"x": EVIL}, status="failed", error=EVIL)
    found = bm.collect(tmp_path / "s")
    page = written(found, tmp_path)
    usual = written(bm.collect(tmp_path / "s" / "0"), tmp_path)
    for tag in ("img", "b"):
        assert not page.named(tag)
    assert len(page.named("script")) == len(usual.named("script"))
    assert page.text.count(EVIL) > 10


def test_results_that_cannot_be_drawn_are_still_in_the_report(tmp_path):
    strange = json.loads(GENOTYPE.to_json())
    strange["cells"][0]["steps"][0]["op"] = "not registered here"
    write_run(tmp_path / "s" / "a", genotype=strange, seed=0)
    write_run(tmp_path / "s" / "b", seed=1)  # an older one, without a genotype
    write_run(tmp_path / "s" / "c", metric="own", direction="min", test=12.5, seed=2)
    page = written(bm.collect(tmp_path / "s"), tmp_path)
    assert "Not drawn: " in page.text and "not registered here" in page.text
    assert "12.5000" in page.text


def test_a_report_of_failures_alone_and_of_one_run_alone(tmp_path):
    write_run(tmp_path / "s" / "bad", parameters={}, status="out of time", error="out of time")
    page = written(bm.collect(tmp_path / "s"), tmp_path)
    assert "no results: 0 runs" in page.text and "1 run has no result" in page.text
    write_run(tmp_path / "t" / "good")
    page = written(bm.collect(tmp_path / "t"), tmp_path)
    assert "digits: 1 runs" not in page.text and "digits: 1 run" in page.text


def test_a_report_is_an_html_file_and_whole_or_not_there(found, tmp_path, monkeypatch):
    with pytest.raises(BmnasError, match="report.txt: found suffix '.txt'; allowed: '.html'"):
        bm.write_report(found, tmp_path / "report.txt")

    def broken(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(BmnasError, match="report.html: not written: No space left"):
        bm.write_report(found, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_many_groups_have_tables_and_the_first_of_them_charts(tmp_path, monkeypatch):
    monkeypatch.setattr("bmnas_core.experiments.report.MAX_CHARTS", 2)
    for k in range(4):
        write_run(tmp_path / "s" / str(k), rule=f"rule{k}", baselines={})
    page = written(bm.collect(tmp_path / "s"), tmp_path)
    assert "Charts of the first 2 groups of runs; 2 more are in the tables." in page.text
    assert len(page.named("svg")) == 2 and "rule3" in page.text


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((-0.59, -0.844, -0.336), "−0.590 [−0.844, −0.336]"),
        ((-0.0044, -0.00949, 0.000054), "−0.0044 [−0.0095, +0.0001]"),
        ((-0.7, -4.44, 3.04), "−0.7 [−4.4, +3.0]"),
        ((-12345.6, -20000, -3000.2), "−12,346 [−20,000, −3,000]"),
        ((2e-7, 1e-7, 3e-7), "+0.00000020 [+0.00000010, +0.00000030]"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        ((0.01, float("nan"), float("nan")), "+0.010"),
    ],
)
def test_a_difference_and_its_interval_have_the_digits_that_the_interval_gives(numbers, text):
    assert signed(*numbers) == text


def test_differences_are_drawn_with_their_intervals_and_refused_without_rows():
    rows = {"panel": "p", "name": ["a $x$", "b"], "difference": [-0.02, 0.01]}
    table = pd.DataFrame(rows | {"low": [-0.03, None], "high": [-0.01, None]})
    axes = draw_differences(table)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a $x$", "b"]
    assert [text.get_text() for text in axes.texts] == ["−0.020 [−0.030, −0.010]", "+0.010"]
    colours = [tuple(colour) for colour in axes.collections[1].get_facecolors()]
    assert colours[0] != colours[1]  # the first one's interval leaves out zero
    plt.close(axes.figure)
    for wrong in (table[:0], table.drop(columns="low"), None):
        with pytest.raises(DrawError, match="allowed: a table of differences"):
            draw_differences(wrong)
