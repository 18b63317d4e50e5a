"""Weights of others: read without running their code, local files first."""
