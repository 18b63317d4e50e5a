"""Predictions block by block: on disk or in memory, shared by processes, gone on with after a kill."""
