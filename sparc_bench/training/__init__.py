"""The reference trainer: towers, objective seam, loop, loading, checkpoints."""
