from pathlib import Path

from rich.console import Console

from sparc_bench.evaluate import Result
from sparc_bench.screen import evaluated
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
