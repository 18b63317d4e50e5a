"""`sparc-bench data check NAME`: checks of layout, checksums, counts of every split that a task reads, ten images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import BoundTask, bind
from sparc_bench.cards.card import canonical_hash
from sparc_bench.catalogue.count_diagnosis import in_words, same_split
from sparc_bench.catalogue.data_card import DataCard, cards_of_task, load_all
from sparc_bench.catalogue.data_report import ABSENT, DataReport
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.catalogue.presence import Presence, presence
from sparc_bench.dataset import Examples
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.verify.finding import Finding, left_out

DECODED = 10
"""Number of decoded images, evenly spread over all images of the splits."""


def check_data(card: DataCard, root: Path | None, begin: Callable[[str], None] = lambda _: None) -> DataReport:
    """The report of all checks on one data set; `begin` is called with the name of each step before it starts.

    Raises:
        UserError: no data root was given, or no part of the data set is under the data root.
    """
    found = presence(card, root)
    if found.status == "unknown":
        raise UserError(
            f"'{card.name}' lies on disk and no data root was given: pass --data-root FOLDER or set SPARC_BENCH_DATA."
        )
    if found.status == "no":
        raise UserError(
            f"{found.home} is not there or holds nothing of '{card.name}': get it from {card.home} and lay it out as "
            "shown, or mend --data-root."
        )
    findings = [*_layout(card, found), *_checksums(card, found, begin)]
    items: list[ImageItem] = []
    reads = _reads(card)
    counted: list[tuple[str, Finding]] = []
    for label, tasks in reads:
        begin(f"reading {label}")
        counted += _counted(card, found, root, label, tasks, items)
    if reads and all(finding.status == "left out" for _, finding in counted):
        advice = f"Get what is absent from {card.home}."
        counted.append(("tasks", Finding("fail", "none can be run", "at least one", advice)))
    findings += dict.fromkeys(counted)  # two tasks that read one split find the same note
    begin("decoding images")
    findings += _decoded(items)
    return DataReport(card, found.home, tuple(findings))


def _layout(card: DataCard, found: Presence) -> Iterable[tuple[str, Finding]]:
    """One finding on the parts that are present, and one for each absent part."""
    if not card.folder:
        yield "layout", left_out("nothing lies on disk")
        return
    if found.there:
        yield "layout", Finding("ok", f"{len(found.there)} of {len(card.parts)} parts", "files and folders as listed")
    for path in found.absent:
        yield path, left_out(ABSENT)


def _checksums(card: DataCard, found: Presence, begin: Callable[[str], None]) -> Iterable[tuple[str, Finding]]:
    if found.home is None:
        return
    for name, expected in card.files.items():
        if name not in found.there:
            continue
        begin(f"sha256 of {name}")
        digest = _sha256(found.home / name)
        if not expected:
            yield name, Finding("note", f"sha256 {digest[:12]}...", "none is known", f"sha256 {digest}.")
        elif digest == expected:
            yield name, Finding("ok", f"sha256 {digest[:12]}...", "the same")
        else:
            advice = (
                f"{found.home / name} has sha256 {digest}, not {expected}: copy it again from {card.home}; numbers on "
                "another edition are not comparable."
            )
            yield name, Finding("fail", f"sha256 {digest[:12]}...", f"{expected[:12]}...", advice)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reads(card: DataCard) -> list[tuple[str, list[BoundTask]]]:
    """(Label, tasks that read the same split with the same options) for each split that tasks of a card read."""
    cards = load_all()
    grouped: dict[str, list[BoundTask]] = {}
    for name in discovery.names("tasks"):
        task = discovery.task(name)
        if [each.name for each in cards_of_task(task, cards)] == [card.name]:
            bound = bind(task)
            key = canonical_hash([task.dataset, task.split, bound.data_options.model_dump(mode="json")])
            grouped.setdefault(key, []).append(bound)
    return [(_label([bound.card.name for bound in bounds]), bounds) for bounds in grouped.values()]


def _label(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (+{len(names) - 1})"


def _counted(
    card: DataCard, found: Presence, root: Path | None, label: str, reads: Sequence[BoundTask], items: list[ImageItem]
) -> Iterable[tuple[str, Finding]]:
    """Findings on the counts of one split, read as tasks read it; appends its images to `items`."""
    task = reads[0]
    try:
        data: Examples = task.dataset.read(root, task.card.split, task.data_options)
    except UserError as error:
        absent = _absent_part(str(error), card, found, root)
        if absent:
            yield label, left_out(f"{absent}: {ABSENT}")
        else:
            yield label, Finding("fail", "cannot be read", "", str(error))
        return
    items.extend(example.image for example in data)
    counts = data.counts()
    for bound in reads:
        try:
            check_counts(bound.card, counts)
        except UserError as error:
            yield label, Finding("fail", in_words(counts), in_words(bound.card.expect), str(error))
            break
    else:
        same = same_split(counts, card.splits)
        whose = "the part's own" if card.part_of else "as published"
        yield (
            label,
            Finding("ok", in_words(counts), f"{whose} ({' or '.join(same)})" if same else "as the task says"),
        )
    for note in data.notes:
        yield f"{task.card.dataset}:{task.card.split}", Finding("note", "a remark, below", "", note)


def _absent_part(sentence: str, card: DataCard, found: Presence, root: Path | None) -> str:
    """The absent part (of this card or of another data set) that a reader's error names; empty where it names none.

    An absent part is no failure, since a user may need only the other parts.
    """
    inside = [(path, str(found.home / path)) for path in found.absent if found.home is not None]
    others = [other for other in load_all() if other.folder and other.name != card.name]
    beside = [
        (f"{other.name} ({path})", place)
        for other in others
        for path in presence(other, root).absent
        for place in (f"{root}/{other.folder}/{path}", f"{other.folder}/{path}")
    ]
    for part, place in (*inside, *beside):
        if re.search(rf"(?<![\w.-]){re.escape(place)}(?![\w.-])", sentence):
            return part
    return ""


def _decoded(items: Sequence[ImageItem]) -> Iterable[tuple[str, Finding]]:
    distinct = list({(item.id, _path(item)): item for item in items}.values())
    if not distinct:
        return
    count = min(DECODED, len(distinct))
    chosen = [distinct[round(number * (len(distinct) - 1) / max(1, count - 1))] for number in range(count)]
    sizes: list[tuple[int, int]] = []
    modes: list[str] = []
    for item in chosen:
        try:
            image = item.opener()
        except UserError as error:
            if "sparc-bench score" in str(error):  # a data set of annotations alone
                yield "images", left_out("no photos belong to it")
                return
            yield f"image {item.id}", Finding("fail", "cannot be decoded", "an image", str(error))
            continue
        sizes.append(image.size)
        modes.append(_mode(item, image))
    if sizes:
        each = f"{len(sizes)} of {len(distinct):,} decoded: {_range(sizes)}, {', '.join(sorted(set(modes)))}"
        yield "images", Finding("ok", each, f"{count}, spread evenly")


def _path(item: ImageItem) -> Path | None:
    opener = item.opener
    is_file = isinstance(opener, partial) and opener.func is open_image_file
    return Path(opener.args[0]) if is_file else None  # type: ignore[attr-defined]  # mypy does not follow is_file


def _mode(item: ImageItem, image: Image.Image) -> str:
    """The PIL mode of the image's file, before its conversion to RGB."""
    path = _path(item)
    if path is None:
        return image.mode
    with Image.open(path) as raw:
        return raw.mode


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    """The range of sizes in pixels, width x height.

    >>> _range([(640, 480), (640, 480)]), _range([(640, 480), (500, 375)])
    ('640 x 480', '500 to 640 x 375 to 480')
    """
    if len(set(sizes)) == 1:
        return f"{sizes[0][0]} x {sizes[0][1]}"
    widths, heights = zip(*sizes, strict=True)
    return f"{min(widths)} to {max(widths)} x {min(heights)} to {max(heights)}"
