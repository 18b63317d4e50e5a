"""Training losses, one file each: an `Objective` and the pure functions of its paper."""
