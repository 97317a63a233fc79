"""What notebooks 10 to 12 say of their results is what their stored outputs show."""

import re

import pytest
from stored import cells, prose, shown_table


def shown(notebook: str, cell: str, column: int = 0) -> dict[str, float]:
    """A column of the table that a cell of a notebook shows, by the names of its rows."""
    rows = shown_table(notebook, cell)
    return {name: float(row[column].strip("%").replace(",", "")) for name, row in rows.items()}


def printed(notebook: str, cell: str) -> list[float]:
    """The numbers that a cell of a notebook prints, in order."""
    (own,) = (one for one in cells(notebook) if one.id == cell)
    texts = (output.text for output in own.outputs if output.output_type == "stream")
    return [float(x.replace(",", "")) for x in re.findall(r"-?\d[\d,]*\.?\d*", " ".join(texts))]


def of_both(notebook: str, cell: str) -> list[float]:
    """Scores of the networks that see both modalities, worst first."""
    table = shown(notebook, cell)
    return sorted(x for name, x in table.items() if not re.search("alone|itself", name))


def after_tuning(notebook: str, cells: tuple[str, str]) -> list[float]:
    """Score after fine-tuning and before, of the cells that print and show them."""
    return [printed(notebook, cells[0])[-1], shown(notebook, cells[1])["learned by BM-NAS"]]


def sizes(notebook: str, cell: str) -> list[float]:
    """Millions of parameters at the paper's sizes: as described, the least, the most."""
    table = shown(notebook, cell, 3)
    rows = "as the paper describes it", "the smallest there is", "the largest there is"
    return [table[name] / 1e6 for name in rows]


MMIMDB, NTU, EGOGESTURE = "10", "11", "12"
#: A sentence with gaps, the notebook that it stands in, and what fills the gaps.
SENTENCES = {
    "MM-IMDB: both modalities": (
        MMIMDB,
        "the weakest of those is {:.0f} points ahead of plots alone. Among the networks that see "
        "both, the table decides little. They lie within {:.0f} points",
        lambda: [
            100 * (of_both("10", "mmimdb-22")[0] - shown("10", "mmimdb-22")["Text alone"]),
            100 * (of_both("10", "mmimdb-22")[-1] - of_both("10", "mmimdb-22")[0]),
        ],
    ),
    "MM-IMDB: interval": (
        MMIMDB,
        "The 95 % interval is ± {:.1f} points",
        lambda: [100 * printed("10", "mmimdb-23s")[1]],
    ),
    "MM-IMDB: thresholds": (
        MMIMDB,
        "Image's falls from {:.2f} to {:.2f} and Text's from {:.2f} to {:.2f}. The learned network "
        "stays, {:.2f} and {:.2f}",
        lambda: [
            shown("10", "mmimdb-t1", column)[name]
            for name in ("Image's backbone", "Text's backbone", "learned network")
            for column in (0, 1)
        ],
    ),
    "MM-IMDB: fine-tuning": (
        MMIMDB,
        "on the sample: {:.3f} after {:.3f}",
        lambda: after_tuning("10", ("mmimdb-26", "mmimdb-22")),
    ),
    "MM-IMDB: sizes": (
        MMIMDB,
        "comes to {:.2f} M here, against the 0.65 M that it reports. It does not say what it "
        "counts. The space reaches from {:.2f} M to {:.2f} M",
        lambda: sizes("10", "mmimdb-29"),
    ),
    "NTU RGB+D: turned": (
        NTU,
        "At a right angle accuracy falls from {:.2f} to {:.2f} on one side and to {:.2f} on the "
        "other",
        lambda: [printed("11", "ntu-v1")[i] for i in (7, 1, 13)],
    ),
    "NTU RGB+D: fixed Sum": (
        NTU,
        "A fixed Sum has a single step, hence no layer that reduces, and is {:.0f} points behind",
        lambda: [
            100 * (shown("11", "ntu-20")[name] - shown("11", "ntu-20")["fixed Sum"])
            for name in ("learned by BM-NAS",)
        ],
    ),
    "NTU RGB+D: interval": (
        NTU,
        "With one seed and {:.0f} clips the interval is ± {:.1f} points",
        lambda: [printed("11", "ntu-22")[2], 100 * printed("11", "ntu-22")[1]],
    ),
    "NTU RGB+D: parts": (
        NTU,
        "Video's backbone has the object right in {:.0f} % of the test clips, but the motion in "
        "{:.0f} %; Skeleton's has the motion right in {:.0f} %, the object in {:.0f} %. If you "
        "know only the motion, you still guess the object right half of the time. The learned "
        "network has both, in {:.0f} % and {:.0f} %",
        lambda: [
            shown("11", "ntu-k1", column)[name]
            for name, columns in (
                ("Video's backbone", (1, 0)),
                ("Skeleton's backbone", (0, 1)),
                ("learned network", (0, 1)),
            )
            for column in columns
        ],
    ),
    "NTU RGB+D: fine-tuning": (
        NTU,
        "on the sample: {:.3f} after {:.3f}, two clips of 108",
        lambda: after_tuning("11", ("ntu-25", "ntu-20")),
    ),
    "NTU RGB+D: sizes": (
        NTU,
        "it comes to {:.2f} M, five or six per cent below the 0.98 M reported. More than half of "
        "it are the reshape layers of the two wide video features. The space reaches from {:.2f} M "
        "to {:.2f} M",
        lambda: sizes("11", "ntu-28"),
    ),
    "EgoGesture: interval": (
        EGOGESTURE,
        "with one seed and {:.0f} gestures the interval is ± {:.1f} points. Averaging the logits "
        "of two separate classifiers is {:.0f} points behind",
        lambda: [
            printed("12", "egogesture-21")[2],
            100 * printed("12", "egogesture-21")[1],
            100
            * (
                shown("12", "egogesture-19")["learned by BM-NAS"]
                - shown("12", "egogesture-19")["late fusion, averaged"]
            ),
        ],
    ),
    "EgoGesture: parts": (
        EGOGESTURE,
        "so {:.0f} % of RGB's answers and {:.0f} % of Depth's are wrong. "
        "RGB's backbone has push or pull right in {:.0f} % of the test gestures, Depth's has the "
        "shape right in {:.0f} %. The learned network has {:.0f} % of the shapes and {:.0f} % of "
        "push or pull. What it still gets wrong is mostly push or pull, of which Depth's backbone "
        "alone knows more: {:.0f} %",
        lambda: [
            *(
                100 - shown("12", "egogesture-k1", 3)[f"{name}'s backbone"]
                for name in ("RGB", "Depth")
            ),
            *(
                shown("12", "egogesture-k1", column)[name]
                for name, column in (
                    ("RGB's backbone", 0),
                    ("Depth's backbone", 1),
                    ("learned network", 1),
                    ("learned network", 0),
                    ("Depth's backbone", 0),
                )
            ),
        ],
    ),
    "EgoGesture: early and late": (
        EGOGESTURE,
        "The last pairs are {:.1f} points ahead of the earliest",
        lambda: [printed("12", "egogesture-e1")[7]],
    ),
    "EgoGesture: fine-tuning": (
        EGOGESTURE,
        "on the sample: {:.3f} after {:.3f}, five gestures of a hundred",
        lambda: after_tuning("12", ("egogesture-24", "egogesture-19")),
    ),
    "EgoGesture: sizes": (
        EGOGESTURE,
        "{:.2f} M is what the paper reports, too. Its description leaves nothing open that has "
        "parameters: it names the three features, and Sums have none. The network found above, on "
        "the sample, is of course another one. The space reaches from {:.2f} M to {:.2f} M",
        lambda: sizes("12", "egogesture-27"),
    ),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_a_sentence_has_the_numbers_of_the_output(what):
    name, sentence, numbers = SENTENCES[what]
    assert sentence.format(*numbers()) in prose(name)


def test_the_networks_that_are_described_are_those_that_are_shown():
    found = {
        ("10", "mmimdb-19d"): ["Image_2 Text_2", "Image_4 Text_2"],
        ("11", "ntu-18d"): ["Skeleton_4 Video_3", "Video_4 Skeleton_1"],
        ("12", "egogesture-17d"): ["RGB_3 Depth_3", "Depth_2 RGB_4"],
    }
    for place, pairs in found.items():
        rows = shown_table(*place)
        assert [" ".join(row[:2]) for row in rows.values()] == pairs
        for row in rows.values():
            assert f"joins {row[0]} with {row[1]}" in prose(place[0])
