"""The list of commands that `sparc-bench` and `sparc-bench --help` print: in groups, as a user meets them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

STARTS = (
    ("sparc-bench quickstart", "train two small models and compare them, in minutes"),
    ("sparc-bench list tasks", "what can be evaluated; sparc-bench show TASK: how"),
)
"""Commands to start with, and what they do."""

GROUPS = {
    "Train and evaluate": {
        "quickstart": "Train SPARC and CLIP on drawn scenes, and compare them.",
        "train": "Train a recipe, or go on with its unfinished run.",
        "eval": "Evaluate models on a suite or on tasks: one record for each.",
        "verify": "Check in seconds that a model is read as it was trained.",
        "score": "Score another system's outputs on a task.",
        "export": "Write a trained model for others to read.",
    },
    "Compare": {
        "compare": "Compare two models image by image, with intervals.",
        "leaderboard": "Print and write the table of all records.",
        "study": "Compare recipes like for like: trials, seeds, a table.",
        "cost": "Measure what a training step of each objective costs.",
    },
    "Look": {
        "list": "List tasks, models, data sets, objectives and other kinds.",
        "align": "Draw which patches of an image each word finds.",
        "show": "Show what a card or module is, and what it needs.",
        "data": "List data sets and how to get them; check one on disk.",
        "check": "Check cards, records and tables, or published numbers.",
        "cache": "Show or clear what is kept for later commands.",
    },
}
"""Group -> command -> what it does, in a line."""


_WIDTH = max(len(name) for group in GROUPS.values() for name in group)


class Commands(TyperGroup):
    """All commands of `sparc-bench`, whose help lists them in groups."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer keeps its types to itself
        """Names in the order of the help."""
        return [name for group in GROUPS.values() for name in group]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - likewise
        """A section for how to start, and one for each group; no line is cut."""
        sections = {"Start with": dict(STARTS), **GROUPS}
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(_WIDTH), what) for name, what in lines.items()])
