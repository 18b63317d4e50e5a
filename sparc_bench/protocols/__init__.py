"""Protocols (scoring rules), one file each: `Options`, `VERSION`, `NEEDS`, `DATA`, `predict` or `kept`, and `score`.

`units(data, options)` names the examples that a block may not part (the two images of a minimal pair), where there are
any. A protocol that also scores outputs of other systems has `OUTPUTS`: kind of output (`sparc_bench.outputs`) -> a
function `(outputs, data, options)` that returns what `score` takes: predictions, or for a protocol with `kept` an
encoder.
"""
