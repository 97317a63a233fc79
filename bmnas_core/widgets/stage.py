"""StageView: the pictures of a search in the browser, which draws them from numbers."""

import anywidget
import traitlets

from ..draw.scene import SCRIPT, STYLE, SceneData
from ..genotype import Genotype
from ..history import SearchHistory
from ..search_state import SearchState

#: Frames that a view is sent at once when it opens, at most.
MOST_FRAMES = 2000


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
        self.data = both = {"last": self._last(), "ghost": self._ghost}
        self.send({"load": both})

    def load(self) -> None:
        """Send a view that has opened all frames."""
        self.send({"load": {"last": self._last(), "ghost": self._ghost}})

    def add(self, state: SearchState) -> None:
        """Keep a state until :meth:`flush`."""
        self._frames.append(self._data.frame(state))

    def flush(self, since: int, show: bool = True) -> None:
        """Send what was added; changes are those since step ``since``. Go there if ``show``."""
        frames, genotypes = self._frames[self._sent :], self._data.genotypes[self._drawn :]
        added = {"frames": frames, "genotypes": genotypes, "start": self._drawn}
        self._sent, self._drawn = len(self._frames), len(self._data.genotypes)
        self.sent += 1
        self.send({"add": {**added, "since": since, "show": show}, "frame": self.sent})

    def compare(self, genotype: Genotype | None, name: str) -> None:
        """Mark what differs from a genotype, whatever frame is shown; None ends that."""
        self.send(
            {"compare": None if genotype is None else self._data.drawn(genotype), "name": name}
        )

    def _last(self) -> dict:
        every = -(-len(self._frames) // MOST_FRAMES)
        frames = self._frames[:-1:every] + self._frames[-1:]
        return {"scene": self._data.scene, "frames": frames, "genotypes": self._data.genotypes}
