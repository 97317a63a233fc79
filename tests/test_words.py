"""Words that readers would not know, each with the standard word that replaces it."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

#: Files that people read, and file names.
SUFFIXES = {".py", ".md", ".ipynb", ".yml", ".toml", ".cff", ".html", ".csv", ".svg", ".mplstyle"}
NAMES = {"Makefile", "run"}


def word(pattern: str) -> str:
    """The pattern as a word, also within snake_case, in small or capital letters."""
    return rf"(?<![A-Za-z])(?i:{pattern})(?![A-Za-z])"


def exact(pattern: str) -> str:
    """The pattern as a whole identifier, with letters as written."""
    return rf"(?<!\w)(?:{pattern})(?!\w)"


#: Pattern → the word to use. In a pattern a space stands for any white space.
WORDS = {
    # selection
    r"(?<!random\.)" + word("choice") + r"|CHOICES|\bchoices\.(?=py|[A-Z])": "selection",
    word("derivations?"): "selection",
    r"\b(?:by|[Tt]he|then|or) looks\b|\b[Ll]ooks[,:] |\b_looks?\b": "perturbation",
    r"[\"'*]looks[\"'*]": "perturbation",
    word("glances?"): "SCREENING_SAMPLES",
    exact("BEHIND"): "SCREENING_MARGIN",
    word("trials?"): "successive halving; Candidate",
    word("doubts?"): "noise_ratio",
    exact("TOO_ALIKE"): "MAX_NOISE_RATIO",
    r"\bmargin=[\d.m]|\.margin\b|\"margin\":": "tie_margin",
    word("beliefs?"): "genotype_probability",
    word("likeliest"): "most_probable",
    exact("Searched"): "SearchView",
    # the hypernet and its configuration
    exact("KeptPairs"): "FixedInputs",
    exact("with_pairs"): "with_inputs",
    exact(r"passes(?==)") + r"|[\"']passes[\"']|[\"']paths[\"']": "sampling, 'single_path'",
    exact(r"draws(?=[=:])") + r"|\.draws\b": "path_samples",
    r"\.only\(|def only\(": "single_path",
    r"(?<!ast)(?<!os)\.walk\(|def walk\(": "forward_path",
    exact("Sharpening") + r"|\bsharpen(?:ing)?[=.(]": "temperature",
    r"net\.draw\(": "sample_path",
    r"\bfilled\(": "with_defaults",
    r"\b(?:least|most|above)=": "ge, le, gt",
    r"\.of\(|def of\(": "from_…; FeatureBank.shared",
    exact(r"ahead(?= = )|ahead(?=\[)"): "unrolled",
    # features
    exact("made_of"): "source_hash",
    r"class Table\b|features\.Table\b|features import .*\bTable\b": "MemmapFeatures",
    exact("call_for"): "prefetch",
    r"\bthen=": "next_rows",
    exact("AHEAD"): "MAX_PREFETCH",
    exact("AT_ONCE"): "MAX_VALUES_PER_FORWARD",
    exact("MANY"): "MAX_UNREADABLE_RUN",
    exact("SHARD"): "FLUSH_EVERY",
    exact("chunk(?==)") + r"|[\"']chunk[\"']": "eval_batch_size",
    r"(?<!errstate\()\bover=|\bmodality\.over\b": "pooling",
    # benchmark and baselines
    exact("Stack") + r"|\bstacked(?=\.py| import)|(?<!\.)\bunstack\b": "ensemble, ModelEnsemble",
    word("judg(?:e|es|ed|ing|ement)"): "run_benchmark; compare, rate",
    word("verdicts?"): "summarize",
    exact("Found"): "StrategyResult",
    word("played"): "simulated",
    word("ground ?truths?|GroundTruth|truths?|TruthError"): "tabular benchmark",
    r"(?<!ar)(?i:rival)": "baseline",
    word("contests?"): "BaselineContext",
    exact("streams") + r"(?=\.py| import)": "fusion_models",
    word("traces?|TraceError"): "history, SearchHistory",
    r"rule=[\"'](?:cross|subject|official)": "protocol",
    # widgets, files, threads
    exact("Live"): "BaseWidget",
    exact("Page"): "BrowserBridge",
    exact("GATE"): "kernel_lock",
    exact("Sheet"): "Canvas",
    exact("by_hand|ByHand"): "interactive",
    r"\bwriting\(": "atomic_write",
    exact("made_once"): "cached_folder",
    exact("RANDOM"): "RNG_LOCK",
    exact("watched"): "is_interactive",
}

#: Sentences that had to be read twice → the same in plain English. Notebooks are not searched.
PHRASES = {
    r"\bone up\b|, \d+ up\b": "at least one; an integer of 3 or more",
    r"\bown where None\b|\bwhere None\b": "defaults to …",
    r"\bin their light\b": "by those scores",
    r"\bin a race\b": "by successive halving",
    r"\bnothing, as it comes\b": "identity by default",
    r"\bone in so many\b": "1/partial of the channels",
    r"\b(?:no|be) bad luck\b": "give up after this many in a row",
    r"\bbe it \w+\b": "even if …",
    r"\bis nothing to its\b": "if the operation is symmetric",
    r"\bare not minded\b": "are not synchronised",
    r"\brounds otherwise\b": "rounds differently",
    r"\bbefore MFAS\b|\beven before it\b": "ahead of MFAS",
    r"\bare of a day\b": "were measured on a day …",
    r"\bOnly watching\b": "Optional layers; the core does not import them",
    r"\bh(?:old|eld)s?\b[^.\n]{0,40} against\b": "compare with",
    r"\bspeak of\b": "rate, describe",
    r"\bat heart\b": "essentially",
    r"\b[Ww]ho has\b": "if you have",
    r"\band no end\b": "is where … starts",
    r"\bwe had asked\b": "leave it out",
    r"\bdoes a few\b": "combines … in a few steps",
}

#: (word, pattern of paths, regular expression of lines, why it stays)
EXCEPTIONS = [
    (".", "tests/test_words.py", ".", "the table itself"),
    ("truth", "*/samples/posters.py", "cousin promise plan", "a word of made-up plots"),
    ("rival", "tests/test_baselines.py", "^OLD_COLUMNS", "the file that is refused"),
    ("truth", "tests/test_tabular.py", "bmnas-truth/1", "the format that is refused"),
    ("glance", "bmnas_core/selection.py", r'generator\(.*"glance"', "the name of a random stream"),
]


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """What people read in a file: (place, text). Notebooks: sources, and outputs less pictures."""
    if path.suffix != ".ipynb":
        text = path.read_text()
        if path.suffix == ".html":  # other people's scripts
            text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
        yield "", text.replace(r"\n", "  ")  # "\ntrials" in code
        return
    for k, cell in enumerate(json.loads(path.read_text())["cells"]):
        yield f"cell {k}, ", "".join(cell["source"])
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            kept = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
            text = "\n".join("".join(part) for part in kept)
            yield f"output of cell {k}, ", re.sub(r"data:[^\"')]+", "", text)


def excused(name: str, line: str, match: str) -> bool:
    return any(
        re.search(word, match, re.IGNORECASE) and fnmatch(name, paths) and re.search(lines, line)
        for word, paths, lines, _ in EXCEPTIONS
    )


def hits(root: Path, path: Path, table: dict[str, str]) -> Iterator[str]:
    name = str(path.relative_to(root))
    for place, text in [("name of the file, ", name), *texts(path)]:
        lines = text.splitlines()
        for pattern, use in table.items():
            for match in re.finditer(pattern.replace(" ", r"\s+"), text):
                row = text.count("\n", 0, match.start())
                line = lines[row] if row < len(lines) else ""
                if not excused(name, line, match.group()):
                    where = f"{name}: {place}line {row + 1}"
                    yield f"{where}: {match.group()!r}: use {use}: {line.strip()[:100]}"


@pytest.fixture(scope="module")
def read_by_people(committed_files) -> list[Path]:
    return [path for path in committed_files if path.suffix in SUFFIXES or path.name in NAMES]


@pytest.mark.slow
def test_old_words_are_gone(root, read_by_people):
    found = [hit for path in read_by_people for hit in hits(root, path, WORDS)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
def test_old_phrases_are_gone(root, read_by_people):
    files = (path for path in read_by_people if path.suffix != ".ipynb")
    found = [hit for path in files for hit in hits(root, path, PHRASES)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda exception: exception[0])
def test_an_exception_is_still_needed(root, read_by_people, exception):
    word, paths, lines, _ = exception
    assert any(
        re.search(word, line, re.IGNORECASE) and re.search(lines, line)
        for path in read_by_people
        if fnmatch(str(path.relative_to(root)), paths)
        for _, text in texts(path)
        for line in text.splitlines()
    )
