"""Outputs of other systems, one file per kind: `TITLE`, `FORMAT`, and `parse(file)`, which returns outputs or None.

A protocol's `OUTPUTS` maps the kinds that it can score to functions: similarity matrices go through an encoder that
looks them up (`ScoresEncoder`), every other kind through the protocol's own `score(outputs, data, options)`.
"""
