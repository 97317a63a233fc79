"""Backbones: networks from raw inputs to a list of features; ``paper`` is imported on demand."""

from .backbone import Backbone, ConvBackbone
