import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text

from sparc_bench.records.exposure import Exposure
from sparc_bench.report.interval_plot import Block, draw, save
from sparc_bench.report.ranking import ReferenceRow, Row, Section
from sparc_bench.report.reference_style import STYLES, line_style


def row(model, value, half=0.05):
    return Row(
        model=model,
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        seeds=(0,),
        seed_values=(value,),
        seed_intervals=((value - half, value + half),),
        recipe="",
        trained_here=True,
        trained_path=value < 0.5,
        floor=None,
        exposure=Exposure("none"),
    )


def section(references, *rows):
    return Section(
        task="toy",
        title="Toy",
        dataset="toy",
        family="classification",
        metric="top1",
        main=True,
        sample=False,
        n=30,
        protocol_hash="",
        data_hash="",
        exposure="none",
        rows=rows,
        reference_rows=tuple(ReferenceRow(*each) for each in references),
    )


def block(title="toy, %", panels=2, models=("a", "b"), names="top1", references=(("constant", 0.2),)):
    of = section(references, *(row(model, 0.1 + 0.8 * k) for k, model in enumerate(models[:2])))
    return Block(
        title, [(names, of)] * panels, models, notes={models[-1]: "missing"}, headings=frozenset({"one caption"})
    )


def boxes(figure):
    """Text -> what it covers, in pixels, of every text that is seen."""
    FigureCanvasAgg(figure).draw()
    seen = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in seen]


BLOCKS = {
    "plain": [block()],
    "one panel under a long title": [block(title="Samples (`@sample`): " + "a_long_family, " * 9, panels=1)],
    "long names": [
        block(models=("open_clip_" + "m" * 60, "one caption", "scenes_sparc (recipe 12345678)")),
        block(title="another", models=("a", "b"), panels=9, names="faithfulness articles: k_precision_misses, n=404"),
    ],
    "a word wider than its panel": [block(names="x" * 150, panels=7)],
    "signs that could be read as formulas": [block(title="$a$_b", names="$x^2$: _", models=("$m$", "n_$"))],
    "every reference row": [block(panels=1, references=[(kind, 0.03 * k) for k, kind in enumerate(STYLES)])],
}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS)
def test_no_text_is_clipped_or_covers_another(blocks):
    figure = draw(blocks)
    assert figure.get_layout_engine() is None
    found = boxes(figure)
    for text, box in found:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 1 or high <= 1, f"{one!r} covers {other!r}"


def styles(figure, value):
    """Colour and dash of the lines that stand upright at a value."""
    return {
        (line.get_color(), line._unscaled_dash_pattern)
        for line in figure.findobj(Line2D)
        if list(line.get_xdata()) == [value, value]
    }


def test_a_reference_row_looks_the_same_whatever_stands_beside_it():
    alone = draw([block(references=[("random", 0.125)])])
    among = draw([block(references=[("majority", 0.3), ("constant", 0.2), ("random", 0.125, "a"), ("oracle", 0.6)])])
    assert styles(alone, 12.5) == styles(among, 12.5)
    assert len(styles(alone, 12.5)) == 1
    assert styles(among, 12.5) != styles(among, 20.0)


def test_styles_are_told_apart_without_colours_and_those_of_plug_ins_stay():
    known = [style.dash for kind, style in STYLES.items() if kind != "published"]
    assert len(set(known)) == len(known)
    assert line_style("majority") == line_style("majority")
    others = {line_style(name) for name in ("majority", "bag of words", "colour histogram", "one nearest")}
    assert len(others) > 1
    assert not others & set(STYLES.values())


def test_a_marker_at_the_end_of_an_axis_is_whole(tmp_path):
    figure = draw([block(models=("a", "b"))])
    markers = [line for line in figure.findobj(Line2D) if line.get_marker() == "o" and line.axes is not None]
    assert markers
    assert not any(line.get_clip_on() for line in markers)
    save([block()], tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
