"""Scenes drawn from a stream, and which split a scene belongs to."""

from __future__ import annotations

from sparc_bench.scenes.counter import Stream, mix
from sparc_bench.scenes.render import visible_shares
from sparc_bench.scenes.scene import Object, Scene
from sparc_bench.scenes.world import COLOURS, EXTENTS, MAX_OBJECTS, PATTERNS, SHAPES, SIDE

SPLITS = ("train", "val", "test")

MIN_VISIBLE = 0.8
"""Least share of an object's pixels that must be seen."""

_TRIES = 16
"""Places that are tried for an object before the whole scene is placed anew."""

_BY_QUARTER = ("train", "train", "val", "test")

_NUMBER = ((1, 25), (2, 30), (3, 25), (4, 20))
_NUMBER_OF_MANY = tuple((number, weight) for number, weight in _NUMBER if number > 1)


def split_of(scene: Scene) -> str:
    """The only split that may hold a scene with these objects at these places, whatever its background.

    Decided by the scene's own hash: half of all scenes are train's, a quarter each val's and test's. No scene can
    therefore be in two splits, of one kind of data or of several.
    """
    return _BY_QUARTER[scene.fingerprint >> 62]


def draw_scene(stream: Stream, split: str, number: int | None = None, first: tuple[str, str] | None = None) -> Scene:
    """A scene of a split with `number` objects (default: 1 to 4), the first of the given shape and colour if any."""
    kinds = _draw_kinds(stream, number or stream.weighted(_NUMBER), first)
    while True:
        objects = _place(stream, kinds, split)
        if objects is not None:
            scene = Scene(tuple(stream.shuffled(objects)), stream.word())
            if min(visible_shares(scene)) >= MIN_VISIBLE:
                return scene


def draw_many(stream: Stream, split: str, most: int = MAX_OBJECTS) -> Scene:
    """A scene of two objects at least."""
    return draw_scene(stream, split, min(most, stream.weighted(_NUMBER_OF_MANY)))


def _draw_kinds(stream: Stream, count: int, first: tuple[str, str] | None) -> list[tuple[str, str, str]]:
    """Shape, colour and pattern of each object.

    Half of the later objects take over shape or colour from one before, so that counts above one are common; two
    objects agree in both only where that was drawn (1 in 12), so that most descriptions pick out one object.
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


def _place(stream: Stream, kinds: list[tuple[str, str, str]], split: str) -> list[Object] | None:
    """Sizes and places for objects, or None where they found no room.

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
            # the scene's fingerprint, without building the scene
            if at < len(kinds) - 1 or _BY_QUARTER[mix((before + candidate.fingerprint) % (1 << 64)) >> 62] == split:
                placed.append(candidate)
                break
        else:
            return None
    return placed


def roomy(a: Object, b: Object) -> bool:
    """Whether two objects are apart enough: squares overlap by little, and not at all for objects of one colour."""
    right = min(a.left + a.extent, b.left + b.extent) - max(a.left, b.left)
    down = min(a.top + a.extent, b.top + b.extent) - max(a.top, b.top)
    if a.colour == b.colour:
        return right <= -1 or down <= -1
    return right <= 0 or down <= 0 or 6 * right * down <= min(a.extent, b.extent) ** 2


def acceptable(scene: Scene) -> bool:
    """Whether every object lies inside the image, apart from the others and visible enough."""
    objects = scene.objects
    return (
        all(1 <= o.left < SIDE - o.extent and 1 <= o.top < SIDE - o.extent for o in objects)
        and all(roomy(a, b) for i, a in enumerate(objects) for b in objects[:i])
        and min(visible_shares(scene)) >= MIN_VISIBLE
    )
