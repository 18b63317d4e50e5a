"""Families of checkpoints, one file each: `load(card, ...)` returns an `Encoder`."""
