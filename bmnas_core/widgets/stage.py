"""StageView: the pictures of a search in the browser, which draws them from numbers."""

from itertools import compress

import anywidget
import traitlets

from ..draw.scene import SCRIPT, STYLE, SceneData
from ..genotype import Genotype
from ..history import SearchHistory
from ..search_state import SearchState

#: Frames that are kept, and that a view is sent at once when it opens, at most.
MOST_KEPT, MOST_FRAMES = 10_000, 2000


class StageView(anywidget.AnyWidget):
    """What a :class:`~bmnas_core.draw.scene.SceneData` shows, and its slider.

    The browser keeps the frames: it shows any of them, lights up what is pointed at and draws its
    history without the kernel.
    """

    _esm, _css = SCRIPT, STYLE
    #: ``last`` and ``ghost``: the search shown and the one before it, as they were when it began.
    data = traitlets.Dict().tag(sync=True)
    #: What only the kernel knows: steps left, whether they are being made, a note.
    said = traitlets.Dict().tag(sync=True)
    #: Stages of one group move together; the slider is the one of its first.
    group = traitlets.Unicode().tag(sync=True)
    lead = traitlets.Bool(True).tag(sync=True)

    def __init__(self):
        super().__init__()
        self._data: SceneData | None = None
        self._frames: list[dict] = []
        self._ghost: dict | None = None
        self._sent = 0  # frames that have been sent
        self._drawn = 0  # genotypes that have been sent
        self.sent = self.painted = 0  # messages with frames, and those that are on the page

    def begin(self, data: SceneData, history: SearchHistory, samples: list[dict]) -> None:
        """Show a search from its beginning; the one before stays as its ghost.

        ``samples`` are those that may be looked at, as :func:`~bmnas_core.widgets.sample.menus`
        lists them.
        """
        data.scene["samples"] = samples
        if self._frames:
            self._ghost = self._last()
        self._data, self._frames = data, list(map(data.frame, history))
        self._sent, self._drawn = len(self._frames), len(data.genotypes)
        self.data = {"last": self._last(), "ghost": self._ghost}
        self.load(None)

    def load(self, step: int | None) -> None:
        """Send all frames; the one of ``step`` is shown, by default the last."""
        self.send({"load": {"last": self._last(), "ghost": self._ghost, "step": step}})

    def add(self, state: SearchState) -> None:
        """Keep a state until :meth:`flush`."""
        if self._sent == len(self._frames) > MOST_KEPT:
            self._frames = thinned(self._frames, MOST_KEPT // 2)
            self._sent = len(self._frames)
        self._frames.append(self._data.frame(state))

    def flush(self, since: int, show: bool) -> None:
        """Send what was added; changes are those since step ``since``.

        With ``show`` the browser goes there, and follows from then on.
        """
        frames, genotypes = self._frames[self._sent :], self._data.genotypes[self._drawn :]
        added = {"frames": frames, "genotypes": genotypes, "start": self._drawn}
        self._sent, self._drawn = len(self._frames), len(self._data.genotypes)
        self.sent += 1
        self.send({"add": {**added, "since": since, "show": show}, "frame": self.sent})

    def compare(self, genotype: Genotype | None, name: str) -> None:
        """Mark what differs from a genotype, whatever frame is shown; None ends that."""
        if genotype is None:
            self.send({"compare": None})
            return
        sizes = [len(cell.steps) for cell in genotype.cells]
        alike = sizes == self._data.scene["sizes"]
        picked = {"picks": self._data.picks(genotype), "name": name, "alike": alike}
        self.send({"compare": picked})

    def _last(self) -> dict:
        frames = thinned(self._frames, MOST_FRAMES)
        return {"scene": self._data.scene, "frames": frames, "genotypes": self._data.genotypes}


def thinned(frames: list[dict], most: int) -> list[dict]:
    """About ``most`` frames, evenly spaced: the first, the last and all with a score stay."""
    every, last = -(-len(frames) // most), len(frames) - 1
    kept = (k % every == 0 or k == last or f["score"] is not None for k, f in enumerate(frames))
    return list(compress(frames, kept))
