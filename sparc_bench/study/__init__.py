"""Studies, like-for-like comparisons of recipes: trials of settings, runs with several seeds, the table."""
