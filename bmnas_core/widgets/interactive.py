"""A picture whose numbers are moved by hand."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable

from ..errors import BmnasError
from .base import BaseWidget, ipw, picture_box, svg_in_box


class Interactive(BaseWidget):
    """Sliders above the picture that a function draws of their values."""

    def __init__(self, function: Callable, ranges: dict[str, tuple[float, float, float]]):
        super().__init__()
        self._function, self._box = function, picture_box("100%")
        self._sliders = {}
        for name, (low, high, start) in ranges.items():
            step = 10 ** math.floor(math.log10((high - low) / 40))
            self._sliders[name] = ipw.FloatSlider(
                start, min=low, max=high, step=step, description=name, readout_format=".2f",
                layout=ipw.Layout(width="420px"),
            )  # fmt: skip
            self._sliders[name].observe(lambda _: self._soon(self._draw), "value")
        self.children = [*self._sliders.values(), self._error, self._box, self._page]
        self._draw()

    @property
    def values(self) -> dict[str, float]:
        """Where the sliders stand."""
        return {name: slider.value for name, slider in self._sliders.items()}

    def pictures(self) -> list:
        from IPython.display import SVG

        return [SVG(self._svg())]

    def _svg(self) -> str:
        drawn = self._function(**self.values)
        if not hasattr(drawn, "savefig") and not hasattr(drawn, "svg"):
            found = type(drawn).__name__
            raise BmnasError(
                f"interactive: found a drawing of type {found}; allowed: a figure or Picture"
            )
        if hasattr(drawn, "savefig"):
            import matplotlib.pyplot as plt

            text = io.StringIO()
            drawn.savefig(text, format="svg")
            plt.close(drawn)
            return text.getvalue()[text.getvalue().index("<svg") :]
        return drawn.svg

    def _draw(self) -> None:
        self._clear_error()
        self._box.value = svg_in_box("", self._svg())


def interactive(function: Callable, /, **ranges: tuple[float, float, float]) -> Interactive:
    """Sliders for the arguments of a function that draws.

    Args:
        function: called with a number for each name; returns a matplotlib figure or a
            :class:`~bmnas_core.Picture`.
        ranges: for each name the least value, the most, and where to start.

    Raises:
        BmnasError: for a function that is none or draws nothing, and ranges that are none.
    """
    if not callable(function):
        raise BmnasError(f"interactive: found {type(function).__name__}; allowed: a function")
    for name, limits in ranges.items():
        try:
            low, high, start = map(float, limits)
            fits = low < high and low <= start <= high and math.isfinite(high - low)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise BmnasError(
                f"interactive: {name}: found {limits!r}; allowed: (least, most, start) in order"
            )
    try:
        inspect.signature(function).bind(**ranges)
    except TypeError as error:
        raise BmnasError(f"interactive: found ranges {', '.join(ranges)}; {error}") from None
    except ValueError:
        pass  # a function that does not tell its arguments
    return Interactive(function, ranges)
