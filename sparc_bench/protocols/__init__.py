"""Protocols (scoring rules), one file each: `Options`, `VERSION`, `NEEDS`, `DATA`, `run(encoder, data, options)`.

A protocol that also scores outputs of other systems has `OUTPUTS`: kind of output (`sparc_bench.outputs`) -> a function
`(outputs, data, options)` that returns the same `Outcome`.
"""
