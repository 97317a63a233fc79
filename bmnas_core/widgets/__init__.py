"""Widgets: step through a search, edit a genotype, move the numbers behind a picture."""

from .beside import side_by_side
from .editor import GenotypeEditor
from .interactive import interactive
from .scoreboard import Scoreboard
from .stepper import SearchStepper
