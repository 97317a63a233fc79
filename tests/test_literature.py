"""Works cited by notebooks, pages and README are in one bibliography; notebooks end with theirs."""

import importlib.util
import json
import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("references", ROOT / "docs" / "references.py")
references = importlib.util.module_from_spec(spec)
spec.loader.exec_module(references)
WORKS = references.works()
#: What looks like a citation: names and a year.
CITATION = re.compile(
    r"\b([A-ZÁÉŁ][\w-]+(?: and [A-ZÁÉŁ][\w-]+| et al\.))(,? )\(?((?:18|19|20)\d\d)\b"
)


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def prose(path: Path) -> str:
    """A page or a notebook without its references, in one line."""
    if path.suffix == ".ipynb":
        text = references.prose(cells(path))
    else:
        text, _, _ = path.read_text(encoding="utf-8").partition(references.HEADING)
    return " ".join(text.split())


PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "bibliography"]
TEXTS = [*references.NOTEBOOKS, references.GLOSSARY, *PAGES, ROOT / "README.md"]


@pytest.mark.parametrize("path", references.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_the_works_that_it_cites(path):
    *others, last = cells(path)
    prose = references.prose(others)
    assert "".join(last["source"]) == references.section(prose), "run docs/references.py"


def test_the_glossary_ends_with_the_works_that_it_cites():
    text = references.GLOSSARY.read_text(encoding="utf-8")
    assert text == references.glossary(), "run docs/references.py"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_citation_is_of_a_work_in_the_bibliography(path):
    known = {references.citation(work) for work in WORKS.values()}
    found = {f"{names} {year}" for names, _, year in CITATION.findall(prose(path))}
    assert found <= known


def test_the_page_of_the_bibliography_has_all_works():
    page = (ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8")
    assert page == references.bibliography(), "run docs/references.py"
    assert page.count("\n* ") == len(WORKS)


def test_every_work_is_cited():
    text = " ".join(map(prose, TEXTS))
    unused = [key for key, work in WORKS.items() if not references.cited_in(text, work)]
    assert unused == []


@pytest.mark.parametrize("key", WORKS)
def test_a_work_is_complete_and_its_key_is_its_first_author_and_year(key):
    work = WORKS[key]
    assert work.fields["title"] and (work.fields.get("journal") or work.fields.get("booktitle"))
    name = references.citation(work).split(" ")[0].lower()
    plain = unicodedata.normalize("NFKD", name.replace("ł", "l")).encode("ascii", "ignore").decode()
    plain = plain.replace("-", "")
    assert key == plain + work.fields["year"]


def test_references_are_in_the_form_of_the_field():
    liu, student, vaswani = (WORKS[key] for key in ("liu2019", "student1908", "vaswani2017"))
    assert references.citation(liu) == "Liu et al. 2019"
    assert references.reference(liu) == (
        "Liu, H., Simonyan, K. and Yang, Y. (2019). *DARTS: Differentiable architecture search*. "
        "ICLR."
    )
    assert references.reference(student) == (
        "Student (1908). *The probable error of a mean*. Biometrika 6(1), 1–25."
    )
    assert references.reference(vaswani).startswith("Vaswani, A., Shazeer, N., Parmar, N. and oth")
    assert references.cited_in("by DARTS (Liu et al. 2019)", liu)
    assert references.cited_in("Liu et al. (2019) found", liu)
    assert not references.cited_in("Liu et al. (2020) found", liu)
