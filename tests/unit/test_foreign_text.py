"""What a stranger wrote is printed as it is, and acts on nothing: screens, pages, spreadsheets."""

import io
import pickle

import pytest
from rich.table import Table
from rich.text import Text

from sparc_bench.errors import UserError
from sparc_bench.foreign_text import code_span, csv_cell, markdown, visible
from sparc_bench.terminal import PlainConsole, ProgressDisplay


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x07", "\r", "\n", "\x9b", "\u2028", "\u202e", "\ufeff", "\udce9"])
def test_signs_that_act_are_shown(sign):
    for write in (visible, markdown, code_span, csv_cell):
        found = write(f"a{sign}b")
        assert sign not in found
        assert "\\" in found
        found.encode()


@pytest.mark.parametrize("text", ["a cat", "Größe", "中文", "x_1 (50 %)", "👩‍🔬", "می‌خواهم", "C:\\data"])
def test_what_people_write_stays(text):
    assert visible(text) == text
    assert csv_cell(text) == text


def test_markdown_has_no_marks():
    found = markdown("a|b`c`[d](e)<f>*g*\\|")
    assert found == r"a\|b\`c\`\[d\](e)&lt;f&gt;\*g\*\\\|"
    assert markdown("scenes_clip, top-1: 50 %") == "scenes_clip, top-1: 50 %"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "-1+1", "=-1"])
def test_formulas_are_texts(cell):
    assert csv_cell(cell).startswith("'")
    assert csv_cell(csv_cell(cell)) == csv_cell(cell)


@pytest.mark.parametrize("cell", ["-0.5", "+3", "1e-5", "-1.5e+3", -1.5, 3, None, True, "a=b", ""])
def test_numbers_stay_numbers(cell):
    assert csv_cell(cell) is cell


def test_errors_hold_no_signs_that_act():
    error = UserError("the key 'a\x1b[31m\nb' is odd: mend it.")
    assert str(error) == r"the key 'a\x1b[31m\nb' is odd: mend it."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_console_escapes_what_stands_in_any_place_of_it():
    file = io.StringIO()
    console = PlainConsole(file=file, width=60)
    table = Table("a\x1b[2J")
    table.add_row("[bold]b[/]\x1b]0;title\x07", Text("c\x9b1m"))
    for each in (table, Text("d\x1bc"), "e\x1b[8m [/nothing] :smile:"):
        console.print(each)
    written = file.getvalue()
    assert not set(written) & {"\x1b", "\x07", "\x9b"}
    assert "[bold]b[/]" in written
    assert r"e\x1b[8m [/nothing] :smile:" in written


def test_a_progress_display_reads_no_marks(capsys):
    with ProgressDisplay() as progress:
        progress.console.print("unreadable: [/x]\x1b[2J")
    assert r"unreadable: [/x]\x1b[2J" in capsys.readouterr().err
