"""Sliders above a picture that is drawn from their values."""

import inspect
import io
import math
from collections.abc import Callable

from IPython.display import SVG

from ..errors import BmnasError, check_type, quoted
from .base import BaseWidget, ipw, svg_in_box


class Interactive(BaseWidget):
    """Sliders for the arguments of a function that draws.

    Args:
        function: called with a number for each name; returns a matplotlib figure or Axes, or a
            :class:`~bmnas_core.Picture`. Else, as for a range that is not one, BmnasError.
        ranges: (minimum, maximum, start) for each name.
    """

    def __init__(self, function: Callable, /, **ranges: tuple[float, float, float]):
        super().__init__()
        self._function = check_type(function, Callable, "interactive", BmnasError, "a function")
        self._sliders: dict[str, ipw.FloatSlider] = {}
        for name, limits in ranges.items():
            try:
                low, high, start = map(float, limits)
                fits = low < high and low <= start <= high and math.isfinite(high - low)
            except (TypeError, ValueError):
                fits = False
            if not fits:
                allowed = "finite (minimum, maximum, start), the start in between"
                raise BmnasError(f"interactive: {name}", quoted(limits), allowed)
            self._sliders[name] = ipw.FloatSlider(
                start, min=low, max=high, step=10 ** math.floor(math.log10((high - low) / 40)),
                description=name, readout_format=".2f", layout=ipw.Layout(width="420px"),
            )  # fmt: skip
            self._sliders[name].observe(lambda _: self._soon(self._draw), "value")
        try:
            inspect.signature(function).bind(**ranges)
        except TypeError as error:
            raise BmnasError(f"interactive: found ranges {', '.join(ranges)}; {error}") from None
        except ValueError:
            pass  # a function without a signature, such as some builtins
        self.children = [*self._sliders.values(), self._error, self._bridge]
        self._draw()

    @property
    def values(self) -> dict[str, float]:
        """The sliders' values by name."""
        return {name: slider.value for name, slider in self._sliders.items()}

    def pictures(self) -> list:
        return [SVG(self._svg())]

    def _svg(self) -> str:
        drawn = self._function(**self.values)
        if hasattr(drawn, "svg"):
            return drawn.svg
        figure = getattr(drawn, "figure", None)  # of Axes; a figure is its own
        if not hasattr(figure, "savefig"):
            found = f"a drawing of type {type(drawn).__name__}"
            raise BmnasError("interactive", found, "a figure, Axes or Picture")
        import matplotlib.pyplot as plt

        text = io.StringIO()
        figure.savefig(text, format="svg")
        plt.close(figure)
        return text.getvalue()[text.getvalue().index("<svg") :]

    def _draw(self) -> None:
        self._error.value = ""
        self._bridge.picture = svg_in_box(self._svg())
        self._keep_stills()


interactive = Interactive
