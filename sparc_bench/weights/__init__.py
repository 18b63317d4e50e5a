"""Third-party weights: read without running code from the file, local files before downloads."""
