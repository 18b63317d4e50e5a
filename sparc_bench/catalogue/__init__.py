"""The catalogue of data sets: where each comes from, how it lies on disk, which counts its owners published."""
