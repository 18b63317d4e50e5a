"""A small world of coloured shapes whose every fact is known.

`generate` draws a scene from a counter-based hash, `render` turns it into pixels and masks by integer arithmetic,
`captions` says things about it, `forms` and `truth` decide whether such a saying is true of any scene, `pairs` makes
two scenes and two captions that differ in one fact, `sheet` shows all of it to a person. Data sets such as `scenes1`
fix a name (part of every hash key) and what is drawn from the engine.
"""
