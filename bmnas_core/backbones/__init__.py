"""Backbones: networks from raw inputs to a list of features, one file each."""
