import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from sparc_bench.report import fonts
from sparc_bench.report.alignment import COLUMNS, FURTHEST, draw, save
from sparc_bench.report.word_maps import Caption, WordMaps

LONG = "a man and his dog walk past an old house near the river " * 4


def rows(caption, size=(64, 64), models=("scenes_clip", "scenes_sparc"), area=None, unread=False):
    scores = np.random.default_rng(0).normal(size=(len(caption.words), 8, 8))
    if unread:
        scores[-1] = np.nan
    area = area or (0.0, 0.0, *map(float, size))
    return [
        WordMaps(model, path, path == "global", model == models[-1] and path == "local", scores, area)
        for model in models
        for path in ("local", "global")
    ]


def texts(figure):
    FigureCanvasAgg(figure).draw()
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def maps(figure):
    """The coloured pictures of the panels that show the whole image and a map on it."""
    return [panel.images[1] for panel in figure.axes if len(panel.images) == 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "text", "models"),
    [
        ((64, 64), "only a purple cross, a blue star and a green heart", ("scenes_clip", "scenes_flair")),
        ((640, 427), LONG, ("flickr8k_clip",)),
        ((3000, 4000), "a refrigerator", ("runs/scenes_sparc/seed1", "open_clip_" + "x" * 60)),
        ((1200, 20), "(белый) холодильник, 冰箱 🙂!", ("m",)),
        (
            (30, 900),
            "a very-long-word-of-somebody-who-does-not-know-an-end-and-goes-on $a$ _b_",
            ("a", "b", "c"),
        ),
    ],
    ids=["scene", "forty words", "portrait", "panorama", "column"],
)
@pytest.mark.filterwarnings("error:Glyph")
def test_no_text_is_clipped_or_covers_another(size, text, models):
    caption = Caption.of(text)
    figure = draw(Image.new("RGB", size, "teal"), caption, rows(caption, size, models, unread=True))
    found = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in found:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 3 or high <= 3, f"{one!r} covers {other!r}"


def test_maps_lie_on_the_part_of_the_image_that_patches_cover():
    caption = Caption.of("a red dog")
    figure = draw(Image.new("RGB", (300, 200)), caption, rows(caption, area=(50.0, 0.0, 250.0, 200.0)))
    assert len(maps(figure)) == 2 * 4
    for drawn in maps(figure):
        assert drawn.get_extent() == [50.0, 250.0, 200.0, 0.0]
        assert drawn.axes.get_xlim() == (0.0, 300.0)
        assert drawn.axes.get_ylim() == (200.0, 0.0)
        box = drawn.axes.get_window_extent()
        assert box.width / box.height == pytest.approx(1.5)


@pytest.mark.slow
def test_all_maps_share_the_colours_of_the_bar():
    caption = Caption.of("a red dog")
    found = rows(caption)
    figure = draw(Image.new("RGB", (64, 64)), caption, found)
    assert {drawn.get_clim() for drawn in maps(figure)} == {(-FURTHEST, FURTHEST)}
    shown = [np.asarray(drawn.get_array()) for drawn in maps(figure)]
    expected = [row.deviations_WYX[word] for row in found for word in range(2)]
    assert np.allclose(shown, expected)
    assert any("standard deviations above the mean" in text.get_text() for text in texts(figure))
    assert any(text.get_text() == f"{FURTHEST}" for text in texts(figure))


@pytest.mark.slow
def test_labels_say_path_rule_and_scale():
    caption = Caption.of("a red dog on it")
    seen = [text.get_text() for text in texts(draw(Image.new("RGB", (64, 64)), caption, rows(caption)))]
    assert seen.count("path local, untrained") == 2
    assert seen.count("words in the caption") == 1
    assert seen.count("each word alone") == 3
    assert sum(text.startswith("1 s.d. = ") for text in seen) == 4
    assert "cosine of a patch with the word's own token vectors" in seen[-1].replace("\n", " ")


@pytest.mark.slow
def test_function_words_are_grey_and_have_no_map():
    caption = Caption.of("the dog, in a house")
    drawn = texts(draw(Image.new("RGB", (64, 64)), caption, rows(caption)))
    colour = {text.get_text(): text.get_color() for text in drawn}
    assert colour["the"] == colour["in"] == colour["a"] == "0.55"
    assert colour["dog"] == colour["house"] == "black"


@pytest.mark.slow
def test_many_words_stand_in_several_bands_and_unread_ones_say_so():
    caption = Caption.of(" ".join(f"word{n}" for n in range(2 * COLUMNS + 1)))
    figure = draw(Image.new("RGB", (64, 64)), caption, rows(caption, models=("m",), unread=True))
    assert len(maps(figure)) == 2 * 2 * COLUMNS
    assert len({round(drawn.axes.get_position().x0, 3) for drawn in maps(figure)}) == COLUMNS
    seen = [text.get_text() for text in texts(figure)]
    assert seen.count("not read") == 2
    assert "longer than the model reads" in seen[-1].replace("\n", " ")


@pytest.mark.slow
def test_letters_of_no_font_are_written_as_code_points(monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    assert fonts.families("дом 冰") == (fonts.DEFAULT,)
    assert fonts.drawable("дом 冰", (fonts.DEFAULT,)) == "дом U+51B0"
    caption = Caption.of("дом 冰")
    seen = [text.get_text() for text in texts(draw(Image.new("RGB", (64, 64)), caption, rows(caption)))]
    assert "U+51B0" in seen
    assert "Letters that no font here has" in seen[-1]


def test_letters_of_another_font_are_drawn_with_it(monkeypatch):
    other = fonts._default_file()
    monkeypatch.setattr(fonts, "_default_file", lambda: "none")
    monkeypatch.setattr(fonts, "_installed", lambda: (("Other", other),))
    monkeypatch.setattr(fonts, "_letters", lambda file: frozenset() if file == "none" else frozenset({ord("я")}))
    assert fonts.families("я") == (fonts.DEFAULT, "Other")
    assert fonts.drawable("я", (fonts.DEFAULT, "Other")) == "я"
    assert fonts.drawable("я", (fonts.DEFAULT,)) == "U+044F"


@pytest.mark.slow
def test_a_small_png_of_a_large_image(tmp_path):
    caption = Caption.of("noise")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), dtype=np.uint8))
    save(noise, caption, rows(caption, noise.size), tmp_path / "t.png")
    with Image.open(tmp_path / "t.png") as drawn:
        assert drawn.format == "PNG"
    assert (tmp_path / "t.png").stat().st_size < 1_000_000
