"""Models as a user names them on the command line: their card, weights and encoder."""
