"""Readers of data sets and on-disk formats, one file each: `read(root, split, options)`, `Options`, `PROVIDES`."""
