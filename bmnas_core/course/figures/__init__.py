"""Figures that only one notebook needs, a module for each notebook."""
