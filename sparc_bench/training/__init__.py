"""The trainer: inputs, loading, loop, log, initial models, export."""
