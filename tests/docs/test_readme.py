"""What the README tells users to type, and what they are to copy, works."""

import re
import shlex
import tomllib
from pathlib import Path

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.objective import Ctx
from sparc_bench.training.data_needs import refuse_missing
from sparc_bench.two_towers.heads import HeadedObjective
from tests.toys.tower_outputs import make, outputs
from tests.unit.cli.test_help import all_commands

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_commands_exist_with_their_options():
    commands = all_commands()
    typed = [
        line for block in blocks("") for line in block.splitlines() if line.startswith(("sparc-bench", "$ sparc-b"))
    ]
    typed += re.findall(r"`(sparc-bench [a-z][^`]*)`", README.replace("\n", " "))
    assert len(typed) > 10
    for line in typed:
        _, name, *words = shlex.split(line.removeprefix("$ "), comments=True)
        name = name if name in commands else f"{name} {words[0]}"
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_make_targets_exist():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def cards(key):
    """The README's cards with a key."""
    found = [tomllib.loads(text) for text in blocks("toml")]
    return [{"name": "my_card", **values} for values in found if key in values]


def test_task_card_of_the_readme_can_be_run():
    [values] = cards("protocol")
    assert bind(parse(TaskCard, values, "README")).options.truth == "own"


def test_recipe_of_the_readme_can_be_trained():
    [values] = cards("init")
    recipe = parse(Recipe, values, "README")
    refuse_missing(recipe)
    assert recipe.freeze == ("image", "text")


def test_checkpoint_card_of_the_readme_is_one():
    [values] = [each for each in cards("family") if "protocol" not in each]
    values["weights"]["sha256"] = "0" * 64
    card = parse(ModelCard, values, "README")
    options = parse(discovery.load("encoders", card.family).Options, card.options, "README")
    assert (options.activation, options.patches) == ("quickgelu", "value")


def test_loss_of_the_readme_is_a_plugin(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "_plugins", {})
    [text] = blocks("python")
    file = tmp_path / "smooth.py"
    file.write_text(text)
    discovery.add_plugin(file)
    assert issubclass(discovery.load("objectives", "smooth").Objective, HeadedObjective)
    objective = make("smooth")
    objective(*outputs(objective), Ctx())["loss"].backward()
    assert all(parameter.grad.any() for parameter in objective.parameters())
