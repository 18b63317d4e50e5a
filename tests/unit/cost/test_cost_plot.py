from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from sparc_bench.cost.cost_plot import draw
from sparc_bench.cost.cost_rows import read_rows

ROWS = [row for row in read_rows(Path(__file__).parents[3] / "results/cost/cost.csv") if row.status == "measured"]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [(8,), (64, 128, 256), tuple(2**k for k in range(1, 9))])
def test_no_text_is_clipped(batches):
    rows = [row.model_copy(update={"batch": batch}) for batch in batches for row in ROWS]
    rows += [ROWS[-1].model_copy(update={"batch": 4096, "status": "does not fit", "step_ratio": None})]
    figure = draw(rows)
    FigureCanvasAgg(figure).draw()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0, text
            assert box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0, text
            assert box.y1 <= figure.bbox.y1, text
