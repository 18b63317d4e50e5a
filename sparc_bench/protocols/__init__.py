"""Scoring rules, one file each: `Options`, `VERSION`, `NEEDS`, `DATA`, `run(encoder, data, options)`.

A rule that other systems' outputs can be scored by has `OUTPUTS`: kind of `sparc_bench.outputs` -> a function
`(outputs, data, options)` that returns the same `Outcome`.
"""
