"""Whether the trained tables of architectures are still what training gives.

    python tests/benchmarks/retrain.py --out assets/results/digits_retrained.csv

Trains fifty random architectures of each table again, with two seeds that the table does not have.
A row is one network: its test score, and the mean of its architecture in the table. Prints, in
points of test score, the mean difference with its 95 % interval, and how far differences scatter
beside how far they would by the seeds alone.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

import bmnas_core as bm
from bmnas_core.benchmark import tabulate

SEEDS = (1000, 1001)


def retrained(rule: str, count: int) -> pd.DataFrame:
    """Test scores of so many architectures of a table, now and then, with two seeds each."""
    benchmark = bm.TabularBenchmark("digits", rule)
    before = benchmark.table.sample(count, random_state=0).set_index("genotype")
    with tempfile.TemporaryDirectory() as folder:
        task, out = bm.load_task("digits", rule=rule), Path(folder) / "t.parquet"
        runs = tabulate(task, out, SEEDS, genotypes=before.index, device="cpu")
    of_table = before.set_index(before.index.map(bm.Genotype.to_json))[["test", "runs"]]
    found = runs[["genotype", "seed", "test"]].join(of_table.add_suffix("_in_table"), "genotype")
    in_one_line = [json.dumps(json.loads(text)) for text in found["genotype"]]
    return found.assign(genotype=in_one_line, rule=rule, noise=benchmark.noise())


def agreement(found: pd.DataFrame) -> pd.DataFrame:
    """By rule: mean difference and half its interval, scatter, and the scatter by seeds alone."""
    rows = {}
    for rule, own in found.groupby("rule", sort=False):
        each = own.groupby("genotype").mean(numeric_only=True)
        apart = 100 * (each["test"] - each["test_in_table"])
        half = apart.sem() * t.ppf(0.975, len(apart) - 1)
        shares = 1 / own.groupby("genotype").size() + 1 / each["runs_in_table"]
        by_seeds = (each["noise"] ** 2 * shares).mean() ** 0.5
        rows[rule] = apart.mean(), half, np.sqrt((apart**2).mean()), by_seeds
    columns = ["difference", "half of interval", "scatter", "by seeds alone"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", nargs="+", default=["sum", "same", "voice"])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = pd.concat([retrained(rule, args.count) for rule in args.rules])
    found.to_csv(args.out, index=False, float_format="%.6g")
    print(agreement(found).round(2).to_string())
