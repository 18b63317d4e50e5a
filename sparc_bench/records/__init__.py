"""The result record, the file of outcomes beside it, and the environment that it names."""
