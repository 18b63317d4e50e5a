"""From a model and a task to a record."""
