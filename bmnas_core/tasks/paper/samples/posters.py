"""A small MM-IMDB of drawn posters and made-up plots, in the format of the real one.

Nothing in it comes from a real film. Each film has one to four of sixteen genres, common ones more
often than rare ones. Some genres show mainly in the poster, as a heart or a planet, some mainly in
the words of the plot, and two in either. Sometimes a genre does not show where it should, or shows
where it should not.
"""

import io
import json
import re
from math import cos, pi, sin
from pathlib import Path

import numpy as np

from ... import files

SIZES = {"train": 700, "dev": 200, "test": 200}
WIDTH, HEIGHT, VECTOR = 160, 256, 300
#: Standard deviation of the numbers of a word's vector.
SPREAD = 0.16
#: Row at which the band with the title begins.
FLOOR = 228

#: Genre → how many of the real data's 25,959 films have it.
COUNTS = {
    "Drama": 13967, "Comedy": 8592, "Romance": 5364, "Thriller": 5192, "Crime": 3838,
    "Action": 3550, "Adventure": 2710, "Horror": 2703, "Documentary": 2082, "Mystery": 2057,
    "Sci-Fi": 1991, "Fantasy": 1933, "Family": 1668, "Biography": 1343, "War": 1335,
    "History": 1143, "Music": 1045, "Animation": 997, "Musical": 841, "Western": 705,
    "Sport": 634, "Short": 471, "Film-Noir": 338,
}  # fmt: skip
GENRES = tuple(COUNTS)
#: Data set of the HDF5 file → names of its axes.
AXES = {
    "images": ("batch", "channel", "height", "width"), "features": ("batch", "features"),
    "genres": ("batch", "classes"), "imdb_ids": ("batch",),
}  # fmt: skip
#: Share of films with 1, 2, 3 and 4 genres.
HOW_MANY = (0.18, 0.36, 0.30, 0.16)

#: Genre → words of its plots. The sample has no films of other genres, so that each has enough.
WORDS = {
    "Drama": "mother father divorce illness grief funeral debt alcohol regret marriage",
    "Comedy": "prank wedding mishap roommate neighbour blunder joke party disguise quarrel",
    "Romance": "love kiss affair sweetheart engagement longing passion proposal",
    "Thriller": "hostage assassin conspiracy deadline fugitive blackmail stalker bomb",
    "Crime": "gangster robbery heist detective cartel mob prison drug police murder",
    "Action": "explosion commando mercenary pursuit fight weapon shootout rescue",
    "Adventure": "expedition treasure jungle map island voyage explorer shipwreck",
    "Horror": "ghost demon curse cemetery monster blood nightmare scream",
    "Documentary": "interview footage archive filmmaker climate activist industry witness",
    "Mystery": "clue disappearance secret riddle alibi suspect mansion investigation",
    "Sci-Fi": "spaceship robot alien planet experiment android galaxy clone",
    "History": "emperor revolution century throne rebellion treaty colony crusade",
    "Animation": "toon hedgehog squirrel candy penguin castle bear pirate",
    "Musical": "stage dance chorus ballet rehearsal broadway song orchestra",
    "Western": "sheriff outlaw saloon cattle ranch cowboy canyon duel",
    "Film-Noir": "cigarette femme shadow nightclub informer widow trenchcoat raincoat",
}
#: Kind → other words of plots. Titles are made of the nouns.
OTHERS = {
    "N": "town city house road night morning man woman friend stranger boy girl doctor teacher job "
    "summer winter train street letter phone door window dog river village group company boss "
    "cousin promise plan mistake story journey past future life world family truth chance day year",
    "A": "young old small lonely new strange quiet poor rich famous tired brave angry",
    "V": "finds meets leaves follows helps loses wants remembers protects sees hides needs",
    "L": "when after because while before until although",
}
#: Sentences as kinds of words. A genre's word may take the place of a noun.
PATTERNS = (
    "a A N V the N L a N V the N", "the N and the N must face a A N", "in a A N the N V a N",
    "L the N V a A N nothing is as it was for the N", "with the N of a N the A N V the N",
)  # fmt: skip

#: Genres that show mainly in posters, and those that show in posters and plots. The others show
#: mainly in plots.
SEEN = ("Romance", "Action", "Horror", "Sci-Fi", "Animation", "Musical", "Western", "Film-Noir")
EITHER = ("Comedy", "Adventure")
#: How often a genre shows where it mainly shows, where it may show, and where it hardly shows.
MAINLY, MAYBE, HARDLY = 0.92, 0.7, 0.12
#: How often a poster or a plot shows a genre that the film does not have.
STRAY_SIGN, STRAY_WORD = 0.10, 0.25


def make(folder: Path) -> None:
    """Write ``multimodal_imdb.hdf5``, ``split.json`` and ``plots.json`` (id → text) to a folder.

    The HDF5 file has ``images``, ``features``, ``genres``, ``imdb_ids`` and ``split`` as the real
    one: posters of 256×160, red, green and blue in 0 … 255, and plots as means of word vectors. The
    real file has no text; ``plots.json`` is an addition for people to read. Every call writes the
    same films. Raises DataError without the packages h5py and Pillow.
    """
    h5py = files.package("h5py")
    random = np.random.default_rng(0)
    n = sum(SIZES.values())
    genres = np.stack([_draw_genres(random) for _ in range(n)])
    ids = [f"{i:07d}" for i in random.choice(1_000_000, n, replace=False)]
    vectors = _word_vectors()
    plots = [_plot(film, np.random.default_rng([1, i])) for i, film in enumerate(genres)]
    content = io.BytesIO()  # HDF5 itself crashes where a disk is full
    with h5py.File(content, "w") as file:
        storage = {"chunks": (1, 3, HEIGHT, WIDTH), "compression": "gzip"}
        posters = file.create_dataset("images", (n, 3, HEIGHT, WIDTH), "int32", **storage)
        for i, film in enumerate(genres):
            posters[i] = _poster(film, np.random.default_rng([2, i])).transpose(2, 0, 1)
        words = [plot.lower().replace(".", "").split() for plot in plots]
        means = [np.mean([vectors[word] for word in plot], axis=0) for plot in words]
        file["features"] = np.stack(means).astype("float32")
        file["genres"] = genres.astype("int32")
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        file["imdb_ids"] = np.array(ids, "S7")
        for source, labels in AXES.items():
            for axis, label in enumerate(labels):
                file[source].dims[axis].label = label
        kinds = [
            ("split", "S5"), ("source", "S8"), ("start", "i8"), ("stop", "i8"),
            ("indices", h5py.special_dtype(ref=h5py.Reference)), ("available", "?"),
            ("comment", "S1"),
        ]  # fmt: skip
        stops = np.cumsum([*SIZES.values()]).tolist()
        places = {s: (stop - SIZES[s], stop) for s, stop in zip(SIZES, stops, strict=True)}
        rows = [
            (split.encode(), source.encode(), *place, h5py.Reference(), True, b".")
            for split, place in places.items()
            for source in sorted(AXES)
        ]
        file.attrs["split"] = np.array(rows, kinds)  # as Fuel stores it
    (folder / "multimodal_imdb.hdf5").write_bytes(content.getvalue())
    split = {split: ids[start:stop] for split, (start, stop) in places.items()}
    (folder / "split.json").write_text(json.dumps(split), "utf-8")
    (folder / "plots.json").write_text(
        json.dumps(dict(zip(ids, plots, strict=True)), indent=1), "utf-8"
    )


def _draw_genres(random: np.random.Generator) -> np.ndarray:
    """Which genres a film has: (23,)."""
    share = np.array([COUNTS[g] if g in WORDS else 0 for g in GENRES]) ** 0.7
    k = 1 + random.choice(len(HOW_MANY), p=HOW_MANY)
    film = np.zeros(len(GENRES), bool)
    film[random.choice(len(GENRES), k, replace=False, p=share / share.sum())] = True
    return film


def _shown(film: np.ndarray, seen: float, told: float, stray: float, random) -> list[str]:
    """Genres that a poster or a plot shows of a film with these: (23,).

    ``seen`` and ``told`` are how often those show that are mainly in posters and in plots,
    ``stray`` how often another one does.
    """
    often = {g: seen if g in SEEN else MAYBE if g in EITHER else told for g in GENRES}
    shown = [g for g, has in zip(GENRES, film, strict=True) if has and random.random() < often[g]]
    if random.random() < stray:
        shown.append(str(random.choice(list(WORDS))))
    return shown


# --- plots


def _plot(film: np.ndarray, random: np.random.Generator) -> str:
    """Four sentences, in which words of each genre that shows replace one to three nouns."""
    kinds = [PATTERNS[i].split() for i in random.integers(len(PATTERNS), size=4)]
    text = [[str(random.choice(OTHERS.get(kind, kind).split())) for kind in line] for line in kinds]
    places = [(i, k) for i, line in enumerate(kinds) for k, kind in enumerate(line) if kind == "N"]
    random.shuffle(places)
    for genre in _shown(film, HARDLY, MAINLY, STRAY_WORD, random):
        for _ in range(random.integers(1, 4)):
            if places:
                i, k = places.pop()
                text[i][k] = str(random.choice(WORDS[genre].split()))
    plot = " ".join(" ".join(line).capitalize() + "." for line in text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", plot)


def _word_vectors() -> dict[str, np.ndarray]:
    """A vector (300,) for each word; the vectors of a genre are spread around a common one."""
    random = np.random.default_rng(3)
    plain = {word for pattern in PATTERNS for word in pattern.split()} - set(OTHERS) | {"an"}
    vocabulary = sorted(plain.union(*(words.split() for words in OTHERS.values())))
    vectors = {word: random.normal(0, SPREAD, VECTOR) for word in vocabulary}
    for words in WORDS.values():
        centre = random.normal(0, SPREAD, VECTOR)
        for word in words.split():
            vectors[word] = 0.7 * centre + 0.7 * random.normal(0, SPREAD, VECTOR)
    return vectors


# --- posters


def _poster(film: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A poster of a film with these genres: (256, 160, 3), 0 … 255."""
    names = ("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont")
    Image, ImageDraw, ImageFont = map(files.package, names)
    shown = _shown(film, MAINLY, HARDLY, STRAY_SIGN, random)
    image = Image.new("RGB", (WIDTH, HEIGHT), _colour(random, 90, 180))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(3, 8)):
        x, y, r = random.integers(WIDTH), random.integers(HEIGHT), random.integers(6, 22)
        shape = (draw.rectangle, draw.ellipse)[random.integers(2)]
        shape((x - r, y - r, x + r, y + r * random.uniform(0.3, 1)), _colour(random, 70, 200))
    random.shuffle(shown)
    for genre in shown:
        if genre in SEEN + EITHER:
            r = random.integers(34, 50)
            x, y = random.integers(r, WIDTH - r), random.integers(r, FLOOR - r)
            _draw_sign(draw, genre, x, y, r, random)
    draw.rectangle((0, FLOOR, WIDTH, HEIGHT), _colour(random, 0, 60))
    title = " ".join(random.choice(OTHERS["N"].split(), 2, replace=False)).upper()
    draw.text((10, FLOOR + 8), title, _colour(random, 180, 256), ImageFont.load_default())
    if "Film-Noir" in shown:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def _colour(random: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(random.integers(low, high, 3).tolist())


def _draw_sign(draw, genre: str, x: int, y: int, r: int, random: np.random.Generator) -> None:
    """Draw what a genre's posters show; some of it is at (x, y) and of size r."""
    white, black = (255, 255, 255), (0, 0, 0)

    def near(*colour: int) -> tuple[int, ...]:
        return tuple(np.clip(colour + random.integers(-20, 21, 3), 0, 255).tolist())

    match genre:
        case "Romance":  # a heart
            red = near(235, 50, 110)
            for side in (-1, 1):
                draw.ellipse((x + side * r / 2 - r / 2, y - r, x + side * r / 2 + r / 2, y), red)
            draw.polygon([(x - r, y - r * 0.4), (x + r, y - r * 0.4), (x, y + r)], red)
        case "Action":  # an explosion
            for size, colour in ((1.4, (250, 120, 20)), (0.8, (250, 230, 80))):
                turns = [(r * size * (1 if k % 2 else 0.5), k * pi / 10) for k in range(20)]
                points = [(x + reach * cos(turn), y + reach * sin(turn)) for reach, turn in turns]
                draw.polygon(points, near(*colour))
        case "Horror":  # drops of blood
            red, x = near(150, 10, 15), 0
            while x < WIDTH:
                width, length = random.integers(8, 20), random.integers(20, 100)
                draw.rectangle((x, 0, x + width, length), red)
                draw.ellipse((x, length - width / 2, x + width, length + width / 2), red)
                x += width + random.integers(0, 10)
        case "Sci-Fi":  # a planet among stars
            depth = random.integers(110, 170)
            draw.rectangle((0, 0, WIDTH, depth), near(20, 20, 60))
            for _ in range(40):
                a, b = random.integers(WIDTH), random.integers(depth)
                draw.rectangle((a, b, a + 2, b + 2), white)
            y, r, ring = depth / 2, r * 0.8, (240, 240, 250)
            draw.ellipse((x - r, y - r, x + r, y + r), near(50, 150, 230))
            draw.arc((x - r * 1.6, y - r * 0.4, x + r * 1.6, y + r * 0.4), -30, 210, ring, 5)
        case "Animation":  # two eyes
            look = random.uniform(-0.2, 0.2) * r
            for side in (-0.6, 0.6):
                a = x + side * r
                draw.ellipse((a - r * 0.6, y - r * 0.9, a + r * 0.6, y + r * 0.9), white)
                draw.ellipse((a + look - 11, y - 11, a + look + 11, y + 11), black)
        case "Musical":  # a curtain
            for k in range(5):
                shade = near(*((170, 20, 40) if k % 2 else (220, 170, 50)))
                for left in (k * 7, WIDTH - 7 - k * 7):
                    draw.rectangle((left, 0, left + 7, FLOOR), shade)
        case "Western":  # a cactus in the desert
            ground, green = FLOOR - random.integers(50, 90), near(40, 130, 60)
            draw.rectangle((0, ground, WIDTH, FLOOR), near(225, 160, 80))
            foot, top = ground + 20, ground - r * 1.2
            draw.rounded_rectangle((x - 7, top, x + 7, foot), 7, green)
            for side, high in ((-1, 0.5), (1, 0.3)):
                tip, arm = x + side * r * 0.6, top + high * (foot - top)
                draw.rounded_rectangle((min(x, tip) - 6, arm, max(x, tip) + 6, arm + 12), 6, green)
                draw.rounded_rectangle((tip - 6, arm - r * 0.5, tip + 6, arm + 12), 6, green)
        case "Film-Noir":  # blinds
            for top in range(random.integers(0, 8), FLOOR, 16):
                draw.rectangle((0, top, WIDTH, top + 6), (10, 10, 10))
        case "Comedy":  # a smile
            draw.ellipse((x - r, y - r, x + r, y + r), near(245, 215, 50))
            for eye in (x - 0.4 * r, x + 0.4 * r):
                draw.ellipse((eye - 5, y - r * 0.4 - 7, eye + 5, y - r * 0.4 + 7), black)
            draw.arc((x - r * 0.6, y - r * 0.6, x + r * 0.6, y + r * 0.6), 20, 160, black, 5)
        case "Adventure":  # mountains
            for k in range(3):
                peak, high = 20 + k * 60 + random.integers(-15, 15), random.integers(70, 120)
                slope = [(peak - 55, FLOOR), (peak, FLOOR - high), (peak + 55, FLOOR)]
                draw.polygon(slope, near(70, 100, 95))
                snow = [(peak + k * 17, FLOOR - high * (0.7 if k else 1)) for k in (-1, 0, 1)]
                draw.polygon(snow, (245, 245, 250))
