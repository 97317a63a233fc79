"""Write the references of notebooks and glossary, and bibliography.md, from references.bib.

python docs/references.py        # needs the extra dev
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pybtex.database import Entry, Person, parse_file

from bmnas_core.storage import atomic_write

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
GLOSSARY = HERE.parent / "notebooks" / "glossary.md"
MOST = 5  # authors that are all named
HEADING = "## References"
ALWAYS = ("yin2022",)  # the work that the kit is about


def works() -> dict[str, Entry]:
    """All works by their keys."""
    return dict(parse_file(HERE / "references.bib", encoding="utf-8").entries)


def citation(work: Entry) -> str:
    """How a text cites a work: ``"Liu et al. 2019"``."""
    first, *others = (" ".join(person.last_names) for person in work.persons["author"])
    if len(others) > 1:
        first += " et al."
    elif others:
        first += f" and {others[0]}"
    return f"{first} {work.fields['year']}"


def cited_in(text: str, work: Entry) -> bool:
    """Whether a text cites a work, with or without a comma or parentheses about the year."""
    name, _, year = citation(work).rpartition(" ")
    return re.search(rf"\b{re.escape(name)},? \(?{year}\b", text) is not None


def reference(work: Entry) -> str:
    """A work in full, in Markdown."""
    names = [_short(person) for person in work.persons["author"]]
    if len(names) > MOST:
        names = [*names[:3], "others"]
    authors = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    fields = work.fields
    where = fields.get("journal") or fields["booktitle"]
    if "volume" in fields:
        where += f" {fields['volume']}" + (f"({fields['number']})" if "number" in fields else "")
        where += f", {fields['pages'].replace('--', '–')}"
    elif "number" in fields:
        where += f" {fields['number']}"
    title = re.sub(r"[{}]", "", fields["title"]).replace("`", "‘").replace("'", "’")
    return f"{authors} ({fields['year']}). *{title}*. {where}."


def _short(person: Person) -> str:
    initials = "".join(f"{name[0]}." for name in person.first_names + person.middle_names)
    surname = " ".join(person.prelast_names + person.last_names)
    return ", ".join(filter(None, [surname, initials]))


def section(prose: str) -> str:
    """The references of a text, less those that it has."""
    text = " ".join(prose.split())
    found = {key: one for key, one in works().items() if key in ALWAYS or cited_in(text, one)}
    lines = sorted(f"* {reference(work)}" for work in found.values())
    return "\n".join([HEADING, "", *lines])


def prose(cells: list[dict]) -> str:
    """The sources of a notebook's cells, less its references."""
    return "\n".join("".join(cell["source"]) for cell in cells if cell["id"] != "references")


def bibliography() -> str:
    """The page with all works."""
    lines = sorted(f"* {reference(work)}" for work in works().values())
    return "\n".join(["# Bibliography", "", "The works that the course cites.", "", *lines, ""])


def glossary() -> str:
    """The glossary with its references."""
    entries, _, _ = GLOSSARY.read_text(encoding="utf-8").partition(HEADING)
    return f"{entries}{section(entries)}\n"


def main() -> None:
    _write(HERE / "bibliography.md", bibliography())
    _write(GLOSSARY, glossary())
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["id"] != "references"]
        source = section(prose(cells)).splitlines(keepends=True)
        last = {"cell_type": "markdown", "id": "references", "metadata": {}, "source": source}
        notebook["cells"] = [*cells, last]
        _write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    if text != path.read_text(encoding="utf-8"):
        with atomic_write(path) as beside:
            beside.write_text(text, encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
