"""What other systems put out, one file per kind: `TITLE`, `FORMAT`, and `parse(file)` -> the outputs or None.

A protocol's `OUTPUTS` names the kinds that it takes: similarities go through an encoder that looks them up
(`ScoresEncoder`), every other kind through the protocol's own `score(outputs, data, options)`.
"""
