"""Backbones: networks from raw inputs to a list of features, one file each.

Those of the paper's tasks are in :mod:`~bmnas_core.backbones.paper`, imported on demand.
"""

from .backbone import Backbone
from .conv import ConvBackbone
