"""A like-for-like comparison of recipes: the card, trials, runs, the table."""
