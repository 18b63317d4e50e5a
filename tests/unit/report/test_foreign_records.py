"""Records of strangers: no text in them forges a row, runs in a page or a spreadsheet, or acts on the screen."""

import csv
import io

import pytest

from sparc_bench.cli.app import main
from sparc_bench.records.record import read_record, write_record

pytestmark = pytest.mark.usefixtures("toy_plugins")

HOSTILE = (
    '=HYPERLINK("http://x")\n| 1 | **forged** | 99.9 | | |\n<script>x</script><img src=x onerror=y>'
    "\x1b[2J\x1b]0;t\x07\u202e$\\frac{$"
)
SIGNS = ("\x1b", "\x07", "\u202e", "\r")


@pytest.fixture
def hostile(evaluated):
    """The records of two models whose every text that is printed is hostile."""
    results = evaluated("mine")
    evaluated("other", skill=0.5)
    for path in results.glob("*/*.json"):
        record = read_record(path)
        renamed = {HOSTILE if name == record.headline else name: value for name, value in record.metrics.items()}
        changes = {
            "title": HOSTILE,
            "model_title": HOSTILE,
            "dataset": HOSTILE,
            "task_family": HOSTILE,
            "headline": HOSTILE,
            "protocol_hash": "`<script>|\x1b",
            "data_hash": "`<script>|\x1b",
            "recipe_hash": "=1\x1b",
            "metrics": renamed,
            "paths": {},
            "reference_rows": {HOSTILE: {HOSTILE: 0.2}},
            "notes": (HOSTILE,),
        }
        write_record(path, record.model_copy(update=changes))
    return results


def safe_markdown(text):
    """No marks of HTML and no rows but the program's; what stands in backticks is no mark."""
    lines = text.splitlines()
    plain = ["".join(line.split("`")[::2]) for line in lines]
    return (
        not any(sign in text for sign in SIGNS)
        and not any("<" in line.replace("\\<", "") for line in plain)
        and not any(line.startswith("| 1 | **forged") for line in lines)
        and len({line.replace("\\|", "").count("|") for line in lines if line.startswith("|") and "mine" in line}) <= 2
    )


def test_leaderboard(hostile, capsys):
    assert main(["leaderboard", str(hostile)]) == 0
    screen = capsys.readouterr().out
    assert not any(sign in screen for sign in SIGNS)
    assert not any(line.startswith("| 1 |") for line in screen.splitlines())
    page = (hostile / "README.md").read_text()
    assert safe_markdown(page)
    assert "forged" in page, "what the record says is shown, as it is"
    rows = list(csv.reader(io.StringIO((hostile / "leaderboard.csv").read_text())))
    cells = [cell for row in rows for cell in row]
    assert not any(cell.startswith(("=", "+", "@")) and cell != "@sample" for cell in cells)
    assert not any(sign in cell for cell in cells for sign in SIGNS)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert (hostile / "leaderboard.png").stat().st_size > 1000


def test_compare(hostile, capsys):
    for file in hostile.glob("*/*.json"):
        record = read_record(file)
        write_record(file, record.model_copy(update={"protocol_hash": "a", "data_hash": "a"}))
    assert main(["compare", "mine", "other", "--results", str(hostile), "--ids"]) == 0
    screen = capsys.readouterr().out
    assert not any(sign in screen for sign in SIGNS)
    assert not any(line.startswith("| 1 |") for line in screen.splitlines())


def test_an_error_about_a_record_is_one_line(hostile, capsys):
    file = next(hostile.glob("mine/*.json"))
    file.write_text(file.read_text().replace('"n": ', '"\\u001b[2J\\n": 1, "n": ', 1))
    assert main(["leaderboard", str(hostile)]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1
