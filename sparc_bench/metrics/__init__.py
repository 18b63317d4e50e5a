"""Pure functions on arrays; a name ends in `_score` (up is better) or `_loss` (down is better)."""
