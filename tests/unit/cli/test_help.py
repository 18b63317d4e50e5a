"""The command line is small, frozen and quick."""

import subprocess
import sys
import time

import pytest
import typer.main

from sparc_bench import __version__
from sparc_bench.cli.app import app, main
from sparc_bench.cli.overview import GROUPS, STARTS

SURFACE = {
    "train": ["recipe", "--data-root", "--seed", "--device", "--tensorboard", "--runs", "--plugin"],
    "eval": [
        *("models", "--suite", "--task", "--data-root", "--seed", "--run", "--device", "--precision", "--batch-size"),
        *("--workers", "--cache", "--limit", "--results", "--force", "--plugin"),
    ],
    "verify": ["model", "--run", "--seed", "--device", "--precision", "--plugin"],
    "export": ["run", "--to", "--out", "--plugin"],
    "score": [
        *("task", "file", "--name", "--title", "--trained-on", "--data-root", "--results", "--force", "--plugin"),
    ],
    "compare": ["a", "b", "--ids", "--results", "--plugin"],
    "leaderboard": ["results"],
    "study": ["name", "--data-root", "--device", "--jobs", "--runs", "--results", "--plugin"],
    "cost": ["--objectives", "--batch", "--model", "--device", "--repeats", "--results", "--force", "--plugin"],
    "align": ["words", "--out", "--seed", "--device", "--runs", "--plugin"],
    "cache": ["action"],
    "list": ["kind", "--family", "--suite", "--data", "--plugin"],
    "show": ["name", "--out", "--data-root", "--plugin"],
    "check": ["--published", "--results"],
    "quickstart": ["--data-root", "--results", "--runs"],
    "data list": ["--data-root"],
    "data check": ["name", "--data-root"],
}
"""Every command with its arguments and options, in the order of its help; a change here is a change for users."""


def all_commands(group=None, prefix=""):
    """Name -> command; one of a group has the group's name before its own."""
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        inside = hasattr(command, "commands")
        found |= all_commands(command, f"{name} ") if inside else {prefix + name: command}
    return found


def surface():
    return {name: [parameter.opts[0] for parameter in command.params] for name, command in all_commands().items()}


def test_commands_and_options_are_frozen():
    assert surface() == SURFACE


def test_every_command_and_option_has_help():
    for name, command in all_commands().items():
        assert command.help, name
        assert all(parameter.help for parameter in command.params), name


@pytest.mark.parametrize("command", [[], ["data"], *(name.split() for name in SURFACE)])
def test_help_of_every_command(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "Usage: sparc-bench" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sparc-bench {__version__}\n"


def test_no_arguments_list_the_commands_in_groups(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("Usage: sparc-bench ")
    for group, commands in GROUPS.items():
        place = lines.index(f"{group}:")
        listed = [line.split(maxsplit=1) for line in lines[place + 1 : place + 1 + len(commands)]]
        assert listed == [[name, what] for name, what in commands.items()]
    starts = lines[lines.index("Start with:") + 1 :][:2]
    assert [" ".join(line.split()) for line in starts] == [f"{command} {what}" for command, what in STARTS]
    assert max(map(len, lines)) <= 80
    main(["--help"])
    assert capsys.readouterr().out.strip() == captured.out.strip()


def test_every_command_stands_in_one_group():
    listed = [name for commands in GROUPS.values() for name in commands]
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)


def test_the_lines_of_how_to_start_can_be_typed():
    kinds = all_commands()
    assert all(command.removeprefix("sparc-bench ").split()[0] in kinds for command, _ in STARTS)


@pytest.mark.slow
def test_help_is_quick_and_imports_nothing_heavy():
    heavy = ("torch", "pandas", "matplotlib", "numpy", "pydantic", "timm", "open_clip")
    code = (
        "import sys; from sparc_bench.cli.app import main; code = main(['--help']); "
        f"print('HEAVY', [name for name in {heavy} if name in sys.modules]); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert "HEAVY []" in done.stdout
    # about 0.2 s on an idle machine; the factor is for a busy one
    assert min(seconds) < 1.5
