"""What the README tells users to type, and what they are to copy, works."""

import re
import shlex
import tomllib
from pathlib import Path

import typer.main

from sparc_bench import discover
from sparc_bench.binding import bind
from sparc_bench.cards import TaskCard, parse
from sparc_bench.cli import app
from sparc_bench.objective import Ctx
from sparc_bench.training.heads import HeadedObjective
from tests.contract.tower_outputs import make, outputs

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_commands_exist_with_their_options():
    commands = typer.main.get_command(app).commands
    typed = [
        line for block in blocks("") for line in block.splitlines() if line.startswith(("sparc-bench", "$ sparc-b"))
    ]
    typed += re.findall(r"`(sparc-bench [a-z][^`]*)`", README.replace("\n", " "))
    assert len(typed) > 10
    for line in typed:
        _, name, *words = shlex.split(line.removeprefix("$ "), comments=True)
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_make_targets_exist():
    makefile = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_task_card_of_the_readme_can_be_run():
    [text] = blocks("toml")
    bound = bind(parse(TaskCard, {"name": "my_task", **tomllib.loads(text)}, "README"))
    assert bound.options.truth == "own"


def test_loss_of_the_readme_is_a_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(discover, "_plugins", {})
    [text] = blocks("python")
    file = tmp_path / "smooth.py"
    file.write_text(text)
    discover.add_plugin(file)
    assert issubclass(discover.load("objectives", "smooth").Objective, HeadedObjective)
    objective = make("smooth")
    objective(*outputs(objective), Ctx())["loss"].backward()
    assert all(parameter.grad.any() for parameter in objective.parameters())


def test_results_table_has_its_place():
    assert README.index("<!-- results -->") < README.index("<!-- /results -->")
