"""Encoder families, one file each: `load(card, weights, runtime)` returns an `Encoder`."""
