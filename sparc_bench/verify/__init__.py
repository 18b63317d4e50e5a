"""Pre-flight: a small fixed probe that finds in seconds what is wrong with a model as it is set up."""
