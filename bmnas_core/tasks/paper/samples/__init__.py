"""Samples: small synthetic data sets in the formats of the real ones."""
