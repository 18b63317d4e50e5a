"""The ranking of a study's recipes: groups of methods that see the same kinds of captions, cells, remarks and lists.

No winner is named where intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparc_bench.foreign_text import markdown
from sparc_bench.metrics.seeds import SeedsEstimate
from sparc_bench.metrics.sign_flips import LEVEL, holm
from sparc_bench.metrics.unit import SIGNS, Unit, in_unit
from sparc_bench.report import overview
from sparc_bench.report.ranking import Row, ranked
from sparc_bench.study.study_result import KINDS, RecipeResult, StudyResult

NOT_CLEAR_OF_ZERO = "‡"


@dataclass(frozen=True)
class RankedGroup:
    """Recipes that are ranked together: best first, those without a value last.

    Attributes:
        kind: kind of captions that the methods see (of `KINDS`).
        entries: results of the recipes, in order of rank.
        rows: recipe -> row of the first task's headline, ranked within the group.
    """

    kind: str
    entries: tuple[RecipeResult, ...]
    rows: dict[str, Row]

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes, in order of rank."""
        return [entry.recipe for entry in self.entries]

    def verdict(self) -> str:
        """One sentence that names the winner or the overlapping intervals; empty for fewer than two recipes."""
        if len(self.rows) < 2:
            return ""
        first, *others = self.rows.values()
        near = [other.model for other in others if first.low <= other.high]
        if near:
            return f"{self._named}: no winner, the intervals of {', '.join([first.model, *near])} overlap."
        but = "" if first.clear else ", yet not clear of its reference rows"
        return f"{self._named}: {first.model} is ahead, its interval lies above those of the others{but}."

    @property
    def _named(self) -> str:
        return self.kind[0].upper() + self.kind[1:]


def ranked_groups(result: StudyResult) -> list[RankedGroup]:
    """The groups of recipes that are ranked apart, one for each kind that occurs."""
    by_name = {row.model: row for row in result.main.rows} if result.main else {}
    found = []
    for kind in KINDS:
        entries = {entry.recipe: entry for entry in result.entries if entry.kind == kind}
        rows = {row.model: row for row in ranked([by_name[name] for name in entries if name in by_name])}
        order = [*rows, *(name for name in entries if name not in rows)]
        if order:
            found.append(RankedGroup(kind, tuple(entries[name] for name in order), rows))
    return found


COLUMNS = ("rank", "recipe", "images", "captions", "negatives", "trials", "chosen", "seeds")


def columns(result: StudyResult) -> list[str]:
    """The names of all columns."""
    timed = ["steps", "CPU seconds"] * (result.study.cpu_seconds is not None)
    return [*COLUMNS, *timed, *headline(result)]


def headline(result: StudyResult) -> list[str]:
    """The names of the columns of the first task; none without any record of it."""
    if result.main is None:
        return []
    (name,) = overview.Group("", (result.main,), (result.main,)).columns()
    sign = SIGNS[result.main.unit]
    return [f"{name}, {sign}" if sign else name, f"minus {result.study.compared_with}"]


def _count(number: int, wanted: int, diverged: int) -> str:
    return f"{number}" + f" of {wanted}" * (number < wanted) + f", {diverged} diverged" * bool(diverged)


def cells(result: StudyResult, group: RankedGroup, entry: RecipeResult) -> list[str]:
    """The cells of a recipe's line."""
    row = group.rows.get(entry.recipe)
    found = [
        str(row.rank) if row else "",
        entry.recipe,
        *(str(number) for number in (entry.sees.images, entry.sees.captions, entry.sees.negatives)),
        _count(len(entry.trials), result.study.trials, len(entry.failed)),
        ", ".join(markdown(f"{key.rpartition('.')[2]} {value}") for key, value in (entry.chosen or {}).items()),
        _count(len(entry.evaluated), entry.wanted, len(entry.stopped)),
    ]
    if result.study.cpu_seconds is not None:
        found += [str(entry.steps or ""), "" if entry.cpu_seconds is None else f"{entry.cpu_seconds:.1f}"]
    if result.main is None:
        return found
    clear = clear_of_zero(result).get(entry.recipe, False)
    minus = difference(entry.difference, result.main.unit, clear=clear)
    return [*found, overview.cell(row) if row else absent(entry), minus]


def clear_of_zero(result: StudyResult) -> dict[str, bool]:
    """Recipe -> whether its difference is clear of zero: p under .05, corrected for all differences of the table."""
    return clear_differences({entry.recipe: each for entry in result.entries if (each := entry.difference)})


def clear_differences(found: Mapping[str, SeedsEstimate]) -> dict[str, bool]:
    """Recipe -> whether its difference is clear of zero: p under .05, corrected for all that are given (Holm)."""
    corrected = holm([each.p for each in found.values()])
    return {name: p < LEVEL for name, p in zip(found, corrected, strict=True)}


def absent(entry: RecipeResult) -> str:
    """What stands in place of a value."""
    return "diverged" if entry.state == "diverged" else "missing"


def difference(found: SeedsEstimate | None, unit: Unit, *, clear: bool) -> str:
    """A difference with its mark and interval; empty without one."""
    if found is None:
        return ""
    mark = "" if clear else NOT_CLEAR_OF_ZERO
    value, low, high = (in_unit(each, unit, signed=True) for each in (found.value, found.low, found.high))
    return f"{value}{mark} [{low}, {high}]"


def remarks(result: StudyResult) -> list[str]:
    """Sentences under the ranking."""
    found = [verdict for group in ranked_groups(result) if (verdict := group.verdict())]
    one = [e.recipe for e in result.entries if e.difference and e.difference.one_seed]
    again = [entry.recipe for entry in result.entries if entry.repeats]
    if again:
        found.append(f"The trial of the first choice again, whose runs these are: {', '.join(again)}.")
    if not all(clear_of_zero(result).values()):
        found.append(f"{NOT_CLEAR_OF_ZERO} the difference is not clear of zero.")
    if one:
        found.append(f"Differences with one seed on a side lack the spread between its trainings: {', '.join(one)}.")
    some = [entry.recipe for entry in result.entries if entry.stopped and entry.evaluated]
    if some:
        found.append(f"Means over the seeds that did not diverge, and so better than the method is: {', '.join(some)}.")
    return found


def lists(result: StudyResult) -> list[tuple[str, list[str]]]:
    """(Title, sentences) of the lists: diverged trials and runs, missing parts, records left out."""
    lists = [
        ("Diverged", [sentence for entry in result.entries for sentence in entry.diverged()]),
        ("Missing", [sentence for entry in result.entries for sentence in entry.missing]),
        ("Left out", list(result.left_out)),
    ]
    return [(title, sentences) for title, sentences in lists if sentences]
