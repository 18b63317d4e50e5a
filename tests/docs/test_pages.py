"""Whatever README and docs tell readers to type or to copy works; `commands.py` says which commands are only read."""

import doctest
import json
import re
import shutil
import sys
import tomllib

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.card import parse
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.study_card import read_study
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.data_card import DataCard
from sparc_bench.cli.app import main
from sparc_bench.objective import Ctx
from sparc_bench.training.data_needs import refuse_missing
from tests.docs.commands import is_mistake, parsed, refuse_wrong_line, refuse_wrong_words, shown, why_not_run
from tests.docs.pages import PAGES, ROOT
from tests.toys.tower_outputs import make, outputs
from tests.unit.cli.test_help import all_commands

LANGUAGES = {"sh", "console", "python", "pycon", "toml", "json", "text"}
"""Of fenced blocks: text is a tree of folders or a file's content, which nothing runs; the others are tested."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

VARYING = [
    (r"\b\d+(\.\d+)? s\b", "N s"),  # seconds
    (r"\b\d\.\de-\d\d\b", "tiny"),  # how far sums of another order lie apart
    (r"torch [\d.]+(\+\w+)?", "torch N"),
]
"""What differs between machines in what a command prints."""


def of_all_pages():
    return [pytest.param(page, id=str(page)) for page in PAGES]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a reader is: the project's records, cards and tests lie here, and a package of their own (`my_package`)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "_plugins", {})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("tasks", "reference_models", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copy(ROOT / "tests" / "docs" / "my_package.py", tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_files(page, folder):
    """Python and TOML blocks that name their file are there when a command reads it."""
    for block in page.blocks:
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", of_all_pages())
def test_blocks_have_a_language(page):
    for block in page.blocks:
        assert block.language in LANGUAGES, f"{page}, line {block.line}: '{block.language}'"


@pytest.mark.slow
@pytest.mark.parametrize("page", of_all_pages())
def test_commands_exist_with_their_options_and_names(page, folder):
    write_files(page, folder)
    for block in page.blocks:
        for command in shown(block):
            if not command.words:
                refuse_wrong_line(command.line)
            elif not (command.output and is_mistake(command.words, folder)):
                refuse_wrong_words(command.words, folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", of_all_pages())
def test_commands_in_the_text_exist_with_their_options(page):
    commands = {name.split()[0] for name in all_commands()}
    for code in page.inline_code:
        words = code.split()
        if words[:1] != ["sparc-bench"] or len(words) == 1:
            continue
        assert words[1] in commands, code
        name = words[1] if words[1] in all_commands() else " ".join(words[1:3])
        known = {option for parameter in all_commands()[name].params for option in parameter.opts}
        assert {word.partition("|")[0] for word in words if word.startswith("--")} <= known, code


@pytest.mark.parametrize("page", of_all_pages())
def test_cards(page, folder):
    """A TOML block is a card, and its kind is told by its keys."""
    write_files(page, folder)
    for block in page.blocks:
        if block.title.endswith(".py"):
            discovery.add_plugin(folder / block.title)
    for block in page.blocks:
        if block.language == "toml":
            check_card(tomllib.loads(block.text), block.text, f"{page}, line {block.line}", folder)
        if block.language == "json":
            json.loads(block.text)


def check_card(values, text, where, folder):
    named = {"name": "my_card", **values}
    if "protocol" in values:
        bind(parse(TaskCard, named, where))
    elif "objective" in values:
        recipe = parse(Recipe, named, where)
        refuse_missing(recipe)
        objective = discovery.load("objectives", recipe.objective).Objective
        parse(objective.Options, recipe.objective_options, where)
    elif "recipes" in values:
        (folder / "my_study.toml").write_text(text)
        read_study(folder / "my_study.toml")
    elif "family" in values:
        card = parse(ModelCard, named, where)
        parse(discovery.load("encoders", card.family).Options, card.options, where)
    else:
        parse(DataCard, named, where)


@pytest.mark.slow
@pytest.mark.parametrize("page", of_all_pages())
def test_pages_run(page, folder, capsys):
    """Python blocks are executed and commands are run, in order, in one folder; what a page shows is printed."""
    write_files(page, folder)
    variables = {"__name__": "page"}
    with_output = {command.line for block in page.blocks for command in shown(block) if command.output is not None}
    for block in page.blocks:
        if block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), variables)
        if block.language == "pycon":
            assert_session(block.text, variables, f"{page}, line {block.line}")
        for command in shown(block):
            if not command.words or (command.output is None and command.line in with_output):
                continue
            mistake = command.output is not None and is_mistake(command.words, folder)
            if not mistake and why_not_run(command.words, folder):
                continue
            code = main(command.words)
            printed = capsys.readouterr()
            assert code == (2 if mistake else 0), f"{page}, line {block.line}: {command.line}\n{printed.err}"
            if command.output is not None:
                # beside what a command prints, progress stands on standard error where the machine is slow
                out = printed.err if mistake else printed.out
                assert_printed(command.output, out, f"{page}, line {block.line}: {command.line}")


def assert_session(text, variables, where):
    """The lines after `>>>` print what the page shows, with the variables of the blocks before."""
    session = doctest.DocTestParser().get_doctest(text, {}, where, None, 0)
    session.globs = variables
    said = []
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(session, out=said.append, clear_globs=False)
    assert not said, "".join(said)


def assert_printed(shown, printed, where):
    """The same words; `...` in what the page shows stands for whatever is left out."""
    for pattern, name in VARYING:
        shown, printed = re.sub(pattern, name, shown), re.sub(pattern, name, printed)
    assert doctest.OutputChecker().check_output(shown, printed, FLAGS), f"{where} prints\n{printed}"


@pytest.mark.slow
def test_most_kinds_of_commands_are_run(folder):
    """The rule for what is only read lets the cheap ones through."""
    run = set()
    for page in PAGES:
        write_files(page, folder)
        words = [each.words for block in page.blocks for each in shown(block) if each.words]
        correct = [each for each in words if not is_mistake(each, folder)]
        run |= {parsed(each)[0] for each in correct if not why_not_run(each, folder)}
    assert run >= {"eval", "verify", "export", "score", "compare", "leaderboard", "list", "show"}


def test_the_loss_of_the_docs_trains(folder):
    for page in PAGES:
        write_files(page, folder)
    discovery.add_plugin(folder / "smooth.py")
    objective = make("smooth")
    objective(*outputs(objective), Ctx())["loss"].backward()
    assert all(parameter.grad.any() for parameter in objective.parameters())
