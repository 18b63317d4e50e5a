import numpy as np
import pytest

from sparc_bench.scenes import render, shapes
from sparc_bench.scenes.generate import MIN_VISIBLE, draw_scene
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Object, Scene
from sparc_bench.scenes.world import ACCENT, COLOURS, EXTENTS, PATTERNS, RGB, SHAPES, SIDE, SIZES

SCENES = [draw_scene(RandomStream("render", index), "test") for index in range(150)]


def lab(rgb):
    """CIELAB of sRGB bytes, D65 (IEC 61966-2-1 and CIE 15)."""
    value = np.asarray(rgb, dtype=float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = linear @ np.array(matrix).T / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_lab_of_white_and_of_pure_red():
    assert lab([255, 255, 255]) == pytest.approx([100, 0, 0], abs=0.05)
    assert lab([255, 0, 0]) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_colours_are_far_apart_and_patterns_stand_out():
    colours = lab([RGB[name] for name in COLOURS])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert apart[~np.eye(len(COLOURS), dtype=bool)].min() >= 40
    accents = lab([ACCENT[name] for name in COLOURS])
    assert np.linalg.norm(colours - accents, axis=-1).min() >= 50


def test_backgrounds_are_greyish_and_far_from_every_colour():
    colours = lab([RGB[name] for name in COLOURS])
    for scene in SCENES[:60]:
        pixels = render._background(scene.background).reshape(-1, 3)
        low, high = render.BACKGROUND_RANGE
        assert pixels.min() >= low
        assert pixels.max() <= high
        assert np.ptp(pixels, axis=1).max() <= 8
        seen = lab(np.unique(pixels, axis=0))
        assert np.linalg.norm(seen[:, None] - colours[None], axis=-1).min() >= 40


def test_backgrounds_have_texture():
    assert min(render._background(scene.background).std() for scene in SCENES) > 3


@pytest.mark.parametrize("extent", [14, 15, 27])
def test_a_square_by_hand(extent):
    # edges at 6 % and 94 %: points (k + 1/2) / (2 extent) between them are inside
    inside = [6 <= 100 * (k + 0.5) / (2 * extent) <= 94 for k in range(2 * extent)]
    points = np.outer(inside, inside)
    counted = points.reshape(extent, 2, extent, 2).sum((1, 3))
    plain, accent = shapes.stamp("square", "solid", extent)
    assert (plain == counted).all()
    assert accent.sum() == 0


def test_the_area_of_each_shape():
    # pi r^2; squares; half the base times the height; a cross of two bars
    expected = {"circle": np.pi * 0.49**2, "square": 0.88**2, "triangle": 0.47, "cross": 2 * 0.34 * 0.96 - 0.34**2}
    for shape, area in expected.items():
        assert shapes.stamp(shape, "solid", 28)[0].sum() / (4 * 28**2) == pytest.approx(area, rel=0.06)


@pytest.mark.parametrize("extent", [extent for size in SIZES for extent in EXTENTS[size]])
def test_silhouettes_are_symmetric_and_unlike_each_other(extent):
    silhouettes = {shape: shapes.silhouette(shape, extent) for shape in SHAPES}
    for shape, inside in silhouettes.items():
        assert (inside == inside[:, ::-1]).all(), shape
        for other in SHAPES:
            if other != shape:
                assert (inside != silhouettes[other]).mean() > 0.07, (shape, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extent", [14, 17, 24, 28])
def test_every_pattern_shows_on_every_shape(shape, extent):
    whole = shapes.stamp(shape, "solid", extent)[0].sum(dtype=int)
    for pattern in ("striped", "dotted"):
        plain, accent = (part.sum(dtype=int) for part in shapes.stamp(shape, pattern, extent))
        assert plain + accent == whole
        assert 0.12 < accent / whole < 0.5, pattern


def test_a_pixel_is_the_average_of_its_points():
    scene = Scene((Object("circle", "red", "striped", "large", 20, 10, 24),), background=5)
    before = render._background(5).astype(int)
    plain, accent = (part.astype(int) for part in shapes.stamp("circle", "striped", 24))
    image = render.render_array(scene)
    for row, column in [(0, 12), (3, 4), (12, 12), (20, 20), (23, 10)]:
        counts = 4 - plain[row, column] - accent[row, column], plain[row, column], accent[row, column]
        colours = before[10 + row, 20 + column], np.array(RGB["red"]), np.array(ACCENT["red"])
        expected = (sum(count * colour for count, colour in zip(counts, colours, strict=True)) + 2) // 4
        assert (image[10 + row, 20 + column] == expected).all()
    outside = np.ones((SIDE, SIDE), dtype=bool)
    outside[10:34, 20:44] = False
    assert (image[outside] == before[outside]).all()


def test_masks_boxes_and_areas_agree():
    hidden = 0
    for scene in SCENES:
        semantic = render.semantic_map(scene, "colour")
        union = np.zeros((SIDE, SIDE), dtype=bool)
        for index, (box, area) in enumerate(render.boxes(scene)):
            mask = render.instance_mask(scene, index)
            rows, columns = np.nonzero(mask)
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert area == mask.sum()
            assert (semantic[mask] == COLOURS.index(scene.objects[index].colour)).all()
            assert not (union & mask).any()
            union |= mask
        assert ((semantic == -1) == ~union).all()
        shares = render.visible_shares(scene)
        assert min(shares) >= MIN_VISIBLE
        hidden += min(shares) < 1
    assert hidden > 5, "some objects should be partly hidden"


def test_an_object_in_front_hides_one_behind():
    behind, front = (
        Object("square", "red", "solid", "large", 10, 10, 24),
        Object("square", "blue", "solid", "large", 20, 10, 24),
    )
    image = render.render_array(Scene((behind, front), 1))
    assert tuple(image[20, 25]) == RGB["blue"]
    assert tuple(render.render_array(Scene((front, behind), 1))[20, 25]) == RGB["red"]
    whole = shapes.silhouette("square", 24).sum()
    assert (
        render.visible_shares(Scene((behind, front), 1))[0]
        == render.instance_mask(Scene((behind, front), 1), 0).sum() / whole
    )


def test_images_cannot_be_changed_by_accident():
    assert not render.render_array(SCENES[0]).flags.writeable
    opened = render.open_scene(SCENES[0])
    opened.putpixel((0, 0), (1, 2, 3))
    assert render.open_scene(SCENES[0]).getpixel((0, 0)) != (1, 2, 3)


def test_the_world_is_used_up():
    drawn = [object_ for index in range(400) for object_ in draw_scene(RandomStream("many", index), "train").objects]
    for field, values in (("shape", SHAPES), ("colour", COLOURS), ("pattern", PATTERNS)):
        counts = np.array([sum(getattr(object_, field) == value for object_ in drawn) for value in values])
        assert counts.min() > 0.7 * len(drawn) / len(values), field
    assert {(object_.size, object_.extent) for object_ in drawn} == {(s, e) for s in SIZES for e in EXTENTS[s]}
