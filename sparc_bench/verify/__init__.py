"""`sparc-bench verify`: checks of a model's set-up on a small fixed probe, in seconds, before hours of evaluation."""
