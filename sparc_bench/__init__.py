"""Train and measure fine-grained vision-language representations under named protocols."""

__version__ = "0.1.0"
