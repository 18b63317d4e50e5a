"""Scoring rules, one file each: `Options`, `VERSION`, `NEEDS`, `run(encoder, data, options)`."""
