"""Samples: small data sets in the formats of the real ones, drawn by our own scripts."""
