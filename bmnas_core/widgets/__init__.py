"""The interactive search: step through it, edit genotypes, try by hand."""

from .by_hand import by_hand
from .editor import GenotypeEditor
from .scoreboard import Scoreboard
from .stepper import SearchStepper
from .work import side_by_side

__all__ = ["GenotypeEditor", "Scoreboard", "SearchStepper", "by_hand", "side_by_side"]
