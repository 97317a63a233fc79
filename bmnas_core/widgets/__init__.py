"""The interactive search: step through it, edit genotypes, try by hand."""

from .base import side_by_side
from .editor import GenotypeEditor
from .interactive import interactive
from .scoreboard import Scoreboard
from .stepper import SearchStepper

__all__ = ["GenotypeEditor", "Scoreboard", "SearchStepper", "interactive", "side_by_side"]
