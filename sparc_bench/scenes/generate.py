"""Scenes drawn from a random stream, and the split of a scene."""

from __future__ import annotations

from sparc_bench.scenes.random_stream import RandomStream, mix
from sparc_bench.scenes.render import visible_shares
from sparc_bench.scenes.scene import Object, Scene
from sparc_bench.scenes.world import COLOURS, EXTENTS, MAX_OBJECTS, PATTERNS, SHAPES, SIDE

MIN_VISIBLE = 0.8
"""Least visible share of an object's pixels."""

_TRIES = 16
"""Number of positions tried for an object before all objects of the scene are placed again."""

_BY_QUARTER = ("train", "train", "val", "test")

_NUMBER = ((1, 25), (2, 30), (3, 25), (4, 20))
_NUMBER_OF_MANY = tuple((number, weight) for number, weight in _NUMBER if number > 1)


def split_of(scene: Scene) -> str:
    """The only split of scenes with these objects at these positions, for any background.

    A hash of the scene decides: half of all scenes belong to train, a quarter each to val and test. Therefore no scene
    is in two splits, within one kind of data or across kinds.
    """
    return _BY_QUARTER[scene.fingerprint >> 62]


def draw_scene(
    stream: RandomStream, split: str, number: int | None = None, first: tuple[str, str] | None = None
) -> Scene:
    """A random scene of a split with `number` objects (default: 1 to 4); `first`: shape and colour of one object."""
    kinds = _draw_kinds(stream, number or stream.weighted(_NUMBER), first)
    while True:
        objects = _place(stream, kinds, split)
        if objects is not None:
            scene = Scene(tuple(stream.shuffled(objects)), stream.word())
            if min(visible_shares(scene)) >= MIN_VISIBLE:
                return scene


def draw_many(stream: RandomStream, split: str, most: int = MAX_OBJECTS) -> Scene:
    """A random scene of a split with two to `most` objects."""
    return draw_scene(stream, split, min(most, stream.weighted(_NUMBER_OF_MANY)))


def _draw_kinds(stream: RandomStream, count: int, first: tuple[str, str] | None) -> list[tuple[str, str, str]]:
    """(Shape, colour, pattern) of each object.

    Half of the objects after the first copy shape or colour of an earlier one, so that counts above one are common; two
    objects agree in both only by a draw of 1 in 12, so that most descriptions fit one object.
    """
    shape, colour = first or (stream.choice(SHAPES), stream.choice(COLOURS))
    kinds = [(shape, colour, stream.choice(PATTERNS))]
    while len(kinds) < count:
        model, same, *at = stream.several(len(kinds), 12, len(SHAPES), len(COLOURS), len(PATTERNS))
        shape = kinds[model][0] if same < 4 else SHAPES[at[0]]
        colour = kinds[model][1] if 3 <= same < 6 else COLOURS[at[1]]
        if same == 3 or (shape, colour) not in [kind[:2] for kind in kinds]:
            kinds.append((shape, colour, PATTERNS[at[2]]))
    return kinds


def _place(stream: RandomStream, kinds: list[tuple[str, str, str]], split: str) -> list[Object] | None:
    """Objects with sizes and positions, or None where the image has no room for them.

    The last object is moved until the scene belongs to the split.
    """
    placed: list[Object] = []
    for at, (shape, colour, pattern) in enumerate(kinds):
        size = "large" if stream.chance(1, 2 if len(kinds) <= 2 else 3) else "small"
        extent = stream.choice(EXTENTS[size])
        before = sum(other.fingerprint for other in placed)
        for _ in range(_TRIES):
            left, top = stream.several(SIDE - 1 - extent, SIDE - 1 - extent)
            candidate = Object(shape, colour, pattern, size, left + 1, top + 1, extent)
            if not all(roomy(candidate, other) for other in placed):
                continue
            # the fingerprint of the scene, computed without building the scene
            if at < len(kinds) - 1 or _BY_QUARTER[mix((before + candidate.fingerprint) % (1 << 64)) >> 62] == split:
                placed.append(candidate)
                break
        else:
            return None
    return placed


def roomy(a: Object, b: Object) -> bool:
    """Whether two objects overlap little enough: by a sixth of the smaller square, or not at all for equal colours."""
    right = min(a.left + a.extent, b.left + b.extent) - max(a.left, b.left)
    down = min(a.top + a.extent, b.top + b.extent) - max(a.top, b.top)
    if a.colour == b.colour:
        return right <= -1 or down <= -1
    return right <= 0 or down <= 0 or 6 * right * down <= min(a.extent, b.extent) ** 2


def acceptable(scene: Scene) -> bool:
    """Whether all objects are inside the image, overlap little enough and are visible enough."""
    objects = scene.objects
    return (
        all(1 <= o.left < SIDE - o.extent and 1 <= o.top < SIDE - o.extent for o in objects)
        and all(roomy(a, b) for i, a in enumerate(objects) for b in objects[:i])
        and min(visible_shares(scene)) >= MIN_VISIBLE
    )
