"""From the word that a user types for a model to its card, its weights and its encoder."""
