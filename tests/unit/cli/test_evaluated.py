import json
from pathlib import Path

from rich.console import Console

from sparc_bench.cli.evaluated import complain, evaluated, said
from sparc_bench.evaluation.pipeline import Result
from tests.unit.cli.test_commands import record


def shown(*ties):
    of = [record(f"model{index}", "task").model_copy(update={"ties": count}) for index, count in enumerate(ties)]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(evaluated([Result(each.model, "task", each, Path("x.json")) for each in of]))
    return capture.get().splitlines()


def test_ties_stand_beside_the_headline_of_their_model():
    lines = [line for line in shown(0, 825) if "top1" in line]
    assert [line.split()[-4:] for line in lines if "model1" in line and "local" in line] == [["3", "s,", "825", "ties"]]
    assert not any("ties" in line for line in lines if "model0" in line)


def test_an_error_is_clear_of_a_reference_row_where_it_is_below_it():
    of = record("model", "task")
    error = of.metrics["local/top1"].model_copy(
        update={"kind": "corruption_error", "less_is_better": True, "value": 0.5, "low": 0.4, "high": 0.6}
    )
    of = of.model_copy(
        update={
            "metrics": {**of.metrics, "mce": error},
            "reference_rows": {"constant": {"mce": 0.9}, "random": {"mce": 0.7}},
        }
    )
    console = Console(width=200)
    with console.capture() as capture:
        console.print(evaluated([Result("model", "task", of, Path("x.json"))]))
    (line,) = [line.split() for line in capture.get().splitlines() if "mce" in line]
    assert line[-5:] == ["random", "70.0", "yes", "3", "s"]


def test_notes_of_a_record_that_stands_alone_are_printed_without_escapes():
    of = record("model", "task").model_copy(update={"notes": ["first", "a file named \x1b[2J"]})
    one = Result("model", "task", of, Path("x.json"))
    assert said([one]) == "Note: first\nNote: a file named \\x1b[2J\n"
    assert said([one, one]) == said([Result("model", "task", error="none")]) == ""


def test_the_report_of_torchrun_ends_in_what_failed(tmp_path, monkeypatch, capsys):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    failed = [Result("model", task, error=f"No {task}: put it there.") for task in ("one", "two")]
    for results, sentence in ((failed[:1], "No one: put it there."), (failed, "model on one: No one: put it there.\n")):
        assert complain(results) == 2
        assert capsys.readouterr().err.startswith(sentence)
        assert json.loads(file.read_text())["message"]["message"].startswith(sentence)
