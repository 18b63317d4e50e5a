"""Check that cards, records and generated tables are well formed and current: a list of sentences, one a problem."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from sparc_bench.cards import discovery, photo_lists, prompts
from sparc_bench.cards.binding import bind, bind_split, bind_validation
from sparc_bench.cards.card import parse, read_toml
from sparc_bench.cards.model_card import UNKNOWN, ModelCard, is_photo_list, refuse_without_split
from sparc_bench.cards.recipe import Recipe, read_model
from sparc_bench.cards.study_card import read_study
from sparc_bench.cards.task_card import TaskCard, read_task
from sparc_bench.catalogue.problems import catalogue_problems
from sparc_bench.errors import UserError
from sparc_bench.metrics import average_precision, presence  # noqa: F401 - their kinds of statistics are to be known
from sparc_bench.metrics.estimate import METHOD
from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.records import outcome_file
from sparc_bench.records.record import OUTPUTS, SINGLE_PRECISION, Record, read_record, record_files
from sparc_bench.records.renew_intervals import COMMAND
from sparc_bench.report import leaderboard, published
from sparc_bench.study import study_table
from sparc_bench.study.compared_recipes import recipes_of
from sparc_bench.study.run_sets import RunSet
from sparc_bench.study.study_rows import folder_of
from sparc_bench.weights import hub
from sparc_bench.weights.pinned import checked_weights


def check(checkout: Path | None = None) -> list[str]:
    """All problems, one sentence each.

    Args:
        checkout: folder with `tasks`, `reference_models` and `results`; None for the one that this package runs from.
            An installed wheel has cards only.
    """
    tasks = discovery.cards_folder("tasks") if checkout is None else checkout / "tasks"
    models = discovery.cards_folder("reference_models") if checkout is None else checkout / "reference_models"
    root = tasks.parent
    return [
        *task_problems(tasks),
        *family_problems(tasks),
        *word_list_problems(tasks),
        *catalogue_problems(tasks),
        *model_problems(models),
        *_sentences(photo_lists.from_file, (models / "photo_lists").glob("*/*.toml")),
        *study_problems(models / "studies"),
        *name_problems(),
        *(result_problems(root / "results", tasks, models) if (root / "results").is_dir() else []),
        *study_table_problems(models / "studies", root / "results"),
        *study_record_problems(models / "studies", root / "results", tasks),
    ]


def _sentences(step: Callable[[Path], object], paths: Iterable[Path]) -> list[str]:
    """The sentence of every path that a step refuses."""
    found = []
    for path in sorted(paths):
        try:
            step(path)
        except UserError as error:
            found.append(str(error))
    return found


def task_problems(folder: Path) -> list[str]:
    """Task cards that do not parse, or name what does not exist."""
    return _sentences(lambda path: check_task(read_task(path)), folder.glob("*.toml"))


def family_problems(folder: Path) -> list[str]:
    """Families that one task card alone names, nearly as others spell theirs: a misspelt one would stand apart."""
    cards = []
    for path in sorted(folder.glob("*.toml")):
        with suppress(UserError):  # task_problems says what is wrong with it
            cards.append(read_task(path))
    count = Counter(card.family for card in cards)
    found = []
    for card in cards:
        others = [family for family in count if family != card.family]
        near = difflib.get_close_matches(card.family, others, n=1, cutoff=0.8)
        if near and count[card.family] == 1:
            found.append(f"Task {card.name} alone is of the family '{card.family}': did you mean '{near[0]}'?")
    return found


def check_task(card: TaskCard) -> None:
    """Raise UserError where a task card names what does not exist, or a number that no metric can have."""
    where = f"Task {card.name}"
    task = bind(card, discovery.declared)
    options = task.options.model_dump()
    if isinstance(options.get("prompts"), str):
        prompts.templates(options["prompts"])
    if isinstance(options.get("classes"), str):
        prompts.class_words(options["classes"], ())
    if not card.headline or card.headline != card.headline.strip():
        raise UserError(f"{where}: the headline {card.headline!r} is no metric's name: name the metric to print.")
    odd = [name for name, value in card.chance.items() if not 0 <= value <= 1]
    if odd:
        raise UserError(f"{where}: [chance] {odd[0]} is no fraction: write it between 0 and 1.")
    if card.sample and not card.expect:
        raise UserError(f"{where}: a sample without [expect]: state its counts, so that everybody has the same part.")


def word_list_problems(folder: Path) -> list[str]:
    """Class lists and prompt sets that do not parse."""

    def prompt_set(path: Path) -> None:
        prompts.expanded(parse(prompts.Prompts, read_toml(path), str(path)), path)

    def class_list(path: Path) -> None:
        parse(prompts.ClassNames, read_toml(path), str(path))

    return [
        *_sentences(prompt_set, (folder / "prompts").glob("*.toml")),
        *_sentences(class_list, (folder / "classes").glob("*.toml")),
    ]


def model_problems(folder: Path) -> list[str]:
    """Model cards and recipes that do not parse, name what does not exist, or whose weights are not theirs."""
    return _sentences(lambda path: check_model(read_model(path), folder), folder.glob("*.toml"))


def check_model(card: ModelCard | Recipe, folder: Path) -> None:
    """Raise UserError where a model card or recipe names what does not exist; `folder` holds its weights."""
    weights = card.weights
    if weights is not None and (weights.hub is None or hub.find(weights.hub, weights.file, weights.revision)):
        checked_weights(weights, folder, card.name)
    if isinstance(card, Recipe):
        _check_recipe(card)
        return
    discovery.declared("encoders", card.family)
    for entry, here in zip(card.trained_on, card.trained_on_here, strict=True):
        if is_photo_list(entry):
            photo_lists.from_file(Path(here))
        elif entry != UNKNOWN:
            refuse_without_split(entry, f"Model {card.name}: trained_on")
    published.refuse_odd(card)


def _check_recipe(recipe: Recipe) -> None:
    where = f"Recipe {recipe.name}"
    objective = discovery.declared("objectives", recipe.objective).Objective
    parse(objective.Options, recipe.objective_options, f"{where}, table [objective_options]")
    for val in (False, True):
        bind_split(recipe, discovery.declared, val=val)
    bind_validation(recipe, discovery.declared)
    if recipe.data.photo_list:
        photo_lists.by_name(recipe.data.photo_list)


def study_problems(folder: Path) -> list[str]:
    """Studies that do not parse, whose recipes differ in more than their objective, or whose box does not fit."""

    def step(path: Path) -> None:
        card = read_study(path)
        recipes_of(card)
        for task in card.tasks:
            discovery.task(task)

    return _sentences(step, folder.glob("*.toml"))


def study_table_problems(folder: Path, results: Path) -> list[str]:
    """Tables of studies that are not what their trials, runs and records give."""
    found: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            found += study_table.stale(read_study(path), results)
        except UserError as error:
            found.append(str(error))
    return found


def study_record_problems(folder: Path, results: Path, tasks: Path) -> list[str]:
    """Records in the folders of studies that are damaged, or not what their task's card would give now."""
    found: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        places = [folder_of(path.stem, results) / of for of in RunSet]
        for file in (file for place in places for file in record_files(place)):
            try:
                record = read_record(file)
            except UserError as error:
                found.append(str(error))
                continue
            sentence = _misplaced(file, record) or _outdated(file, record, tasks)
            if sentence is not None:
                found.append(f"{file} is stale: {sentence}; run sparc-bench study {path.stem}.")
    return found


def name_problems() -> list[str]:
    """Names that two things have: `sparc-bench show NAME` could not tell them apart."""
    owner: dict[str, str] = {}
    found = []
    for kind in ("tasks", "models", "studies", *discovery.KINDS):
        for name in discovery.names(kind):
            if name in owner:
                found.append(f"'{name}' names something of {owner[name]} and of {kind}: rename one.")
            owner.setdefault(name, kind)
    return found


def result_problems(results: Path, tasks: Path, models: Path) -> list[str]:
    """Records that are damaged or stale, and leaderboard files that their records would not give."""
    found = []
    readable, older = True, 0
    for path in record_files(results):
        try:
            record = read_record(path)
        except UserError as error:
            found.append(str(error))
            readable = False
            continue
        older += record.interval_version != METHOD
        sentence = stale(path, record, tasks, models)
        if sentence is not None:
            found.append(f"{path} is stale: {sentence}; run {_command(record)}.")
    if older:
        found.append(f"{older} records under {results} have intervals of an older method: run {COMMAND} {results}.")
    if readable and record_files(results):
        try:
            sections = leaderboard.build(results)
        except UserError as error:
            return [*found, str(error)]
        expected = {
            "leaderboard.csv": leaderboard.csv_text(sections),
            leaderboard.PAGE: leaderboard.markdown_text(sections),
        }
        found += [
            f"{results / name} is not what the records give: run sparc-bench leaderboard {results}."
            for name, text in expected.items()
            if not (results / name).is_file() or (results / name).read_text(encoding="utf-8") != text
        ]
    return found


def _command(record: Record) -> str:
    if record.model_family == OUTPUTS:
        return f"sparc-bench score {record.task} FILE --name {record.model}"
    return f"sparc-bench eval {record.model} --task {record.task}"


def stale(path: Path, record: Record, tasks: Path, models: Path) -> str | None:
    """Why a record is not what its cards would give now; None where it is."""
    model_path = models / f"{record.model}.toml"
    if (sentence := _misplaced(path, record)) is not None:
        return sentence
    if record.model_family == OUTPUTS:  # which has no card: its file is not kept
        if model_path.is_file():
            return f"a model card has the name {record.model} too: outputs need another"
    elif not model_path.is_file():
        return f"there is no model {record.model}"
    try:
        model = read_model(model_path) if model_path.is_file() else None
    except UserError as error:
        return f"its card is broken ({error})"
    pinned = model.weights.sha256 if model is not None and model.weights is not None else None
    if pinned is not None and record.seed == 0 and record.weights_hash != pinned:
        return "it does not come from the kept weights"
    return _outdated(path, record, tasks)


def _misplaced(path: Path, record: Record) -> str | None:
    if (path.stem, path.parent.name.partition(".seed")[0]) != (record.task, record.model):
        return f"it says that it is of {record.model} on {record.task}"
    return None


def _outdated(path: Path, record: Record, tasks: Path) -> str | None:
    """Why a record is not what its task's card and the outcomes beside it give; None where it is."""
    card_path = tasks / f"{record.task}.toml"
    if not card_path.is_file():
        return f"there is no task {record.task}"
    try:
        card = read_task(card_path)
        current = bind(card, discovery.declared).protocol_hash(record.limit)
    except UserError as error:
        return f"its card is broken ({error})"
    outcomes = path.with_suffix(".npz")
    if current != record.protocol_hash:
        return "its protocol has changed"
    if (card.headline, card.title, card.sample) != (record.headline, record.title, record.sample):
        return "its task card has another title or headline"
    if not outcomes.is_file() or outcome_file.sha256(outcomes.read_bytes()) != record.outcome_hash:
        return f"{outcomes.name} beside it is missing or another one"
    return _edited(outcomes, record)


def _edited(outcomes: Path, record: Record) -> str | None:
    """The first metric that is not what the outcomes of every example give; None where all are."""
    kinds = {metric.kind for metric in record.metrics.values()}
    try:
        if kinds - outcome_file.known_kinds().keys():  # a protocol may import torch
            discovery.load("protocols", record.protocol)  # brings its kinds of statistics with it
        statistics = outcome_file.read_metrics(outcomes, record.metrics)
    except UserError as error:
        return str(error).rstrip(".")
    for name, statistic in statistics.items():
        metric = record.metrics[MetricName(name)]
        for what in ("kind", "unit", "less_is_better"):
            if getattr(metric, what) != getattr(statistic, what):
                return f"{name} has the {what} {getattr(metric, what)}, its outcomes {getattr(statistic, what)}"
        value = statistic.value if statistic.clusters else float("nan")
        same = math.isnan(value) if metric.value is None else abs(metric.value - value) <= SINGLE_PRECISION
        if not same:
            return f"{name} is {metric.value}, and its outcomes give {value:.6f}"
    return None
