"""The catalogue of data sets: source, layout on disk, published counts; `sparc-bench data list` and `data check`."""
