"""Synthetic scenes of coloured shapes, with known objects, attributes, relations, boxes and masks.

`generate` draws a scene from a counter-based random stream, `render` computes pixels and masks by integer arithmetic,
`captions` writes true captions and `negatives` false ones, `logical_forms` and `truth` decide whether a caption is true
of a scene, `minimal_pairs` makes two scenes and captions that differ in one fact, `contact_sheet` draws an overview.
A data set such as `scenes1` fixes a name (part of every random key) and the number and kind of draws.
"""
