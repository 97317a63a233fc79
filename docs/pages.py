"""What the site has besides pages that somebody wrote: replays, the benchmark's table, formulas."""

import html
from pathlib import Path

import pandas as pd
from docutils import nodes
from latex2mathml.converter import convert

import bmnas_core as bm
from bmnas_core.baselines import read_baselines, summarize
from bmnas_core.experiments.report import sortable_table

HERE = Path(__file__).resolve().parent
REPLAYS = sorted((HERE / "replays").glob("*.safetensors"))
HOME = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={0}">'
HOME += '<title>BM-NAS kit</title><a href="{0}">BM-NAS kit</a>\n'


def make(folder: Path) -> None:
    """Write the pages that are made of committed data."""
    extra = folder / "extra"
    extra.mkdir(parents=True, exist_ok=True)
    for path in REPLAYS:
        bm.SearchHistory.load(path).to_html(extra / f"replay_{path.stem}.html")
    (extra / "index.html").write_text(HOME.format("docs/index.html"), encoding="utf-8")
    for name, frame in {"benchmark": benchmark(), "baselines": baselines()}.items():
        table = sortable_table(frame, f"{name}-table", f"Table: {name}")
        (folder / f"{name}.html").write_text(table, encoding="utf-8")


def benchmark() -> pd.DataFrame:
    """Every architecture of one Cell: its steps, its inputs, ranks and scores under both rules."""
    parts = []
    for rule in ("sum", "same"):
        table = bm.TabularBenchmark("digits", rule).table.set_index("genotype")
        ranks = table["test"].rank(ascending=False, method="min").astype(int)
        own = {"rank": ranks, "test": table["test"].round(4)}
        parts.append(pd.DataFrame(own).add_prefix(f"{rule}: "))
    both = pd.concat(parts, axis=1).reset_index()
    cells = [genotype.cells[0] for genotype in both.pop("genotype")]
    about = {"X": [cell.inputs[0] for cell in cells], "Y": [cell.inputs[1] for cell in cells]}
    for j in range(2):
        steps = [cell.steps[j] for cell in cells]
        labels = [f"{bm.OPERATIONS[s.op].label}({', '.join(s.inputs)})" for s in steps]
        about[f"step {j + 1}"] = labels
    return pd.concat([pd.DataFrame(about), both], axis=1)


def baselines() -> pd.DataFrame:
    """All networks on AV-MNIST and on digits under voice: means over five seeds."""
    parts = []
    for name in ("digits_voice", "avmnist"):
        path = HERE.parent / "assets" / "results" / f"{name}_baselines.csv"
        found = summarize(read_baselines(path))
        found["seconds"] = (found["search_seconds"] + found["train_seconds"]).round(1)
        parts.append(found)
    found = pd.concat(parts).rename(columns={"params": "parameters", "std": "± test"})
    found = found.round({"validation": 4, "test": 4, "± test": 4})
    columns = ["task", "rule", "network", "validation", "test", "± test", "parameters", "seconds"]
    return found[columns]


def _mathml(latex: str, display: str) -> str:
    try:
        return convert(latex, display=display)
    except Exception:  # whatever it fails at, the reader still has the source
        return f"<code>{html.escape(latex)}</code>"


def inline_math(translator, node) -> None:
    """A formula in a line, as MathML."""
    translator.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def display_math(translator, node) -> None:
    """A formula on its own, as MathML."""
    translator.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode
