"""A contact sheet: a picture of scenes with their boxes and captions, and of minimal pairs."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sparc_bench.dataset import Example, Region
from sparc_bench.images.item import ImageItem
from sparc_bench.scenes.world import SIDE

_ZOOM = 4
_PICTURE = SIDE * _ZOOM
_GAP, _EDGE = 24, 40
_COLUMNS = 6
_PAPER, _INK, _FAINT, _CARD = (247, 246, 242), (34, 34, 38), (128, 126, 120), (255, 255, 255)
_LINE, _MARK = (226, 223, 214), (255, 224, 130)
_OUTLINE = ((255, 255, 255), (20, 20, 20))

_TEXT, _LEAD, _CAPTION_LINES = 14, 19, 17
_CARD_WIDTH = _PICTURE + 2 * 14


def draw_sheet(path: Path, title: str, scenes: Sequence[Example], pairs: Sequence[Example]) -> None:
    """Write a PNG: scenes with their boxes and all captions, then minimal pairs side by side.

    Images are enlarged four times; words that differ between the captions of a pair are marked.
    """
    width = 2 * _EDGE + _COLUMNS * _CARD_WIDTH + (_COLUMNS - 1) * _GAP
    blocks = [
        _heading(width, title, "every image with the boxes of what is seen and five captions that are true of it")
    ]
    blocks += _rows([_scene_card(example) for example in scenes], _COLUMNS, width)
    by_group: dict[str, list[Example]] = {}
    for example in pairs:
        by_group.setdefault(example.group or example.id, []).append(example)
    blocks.append(_heading(width, "minimal pairs", "two images and two captions that differ in one fact"))
    blocks += _rows([_pair_card(group) for group in by_group.values()], _COLUMNS // 2, width)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks) + _EDGE), _PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    sheet.save(path)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _heading(width: int, title: str, below: str) -> Image.Image:
    block = Image.new("RGB", (width, 104), _PAPER)
    pen = ImageDraw.Draw(block)
    pen.text((_EDGE, 34), title, _INK, _font(26))
    pen.text((_EDGE, 68), below, _FAINT, _font(15))
    return block


def _rows(cards: Sequence[Image.Image], columns: int, width: int) -> list[Image.Image]:
    """Rows of cards, each as high as its highest card."""
    rows = []
    for at in range(0, len(cards), columns):
        members = cards[at : at + columns]
        height = max(card.height for card in members)
        row = Image.new("RGB", (width, height + _GAP), _PAPER)
        left = _EDGE
        for card in members:
            framed = Image.new("RGB", (card.width, height), _CARD)
            framed.paste(card, (0, 0))
            ImageDraw.Draw(framed).rectangle((0, 0, card.width - 1, height - 1), outline=_LINE)
            row.paste(framed, (left, 0))
            left += card.width + _GAP
        rows.append(row)
    return rows


def _picture(item: ImageItem, regions: Sequence[Region]) -> Image.Image:
    """The enlarged image with a thin dashed outline around every object."""
    picture = item.open().resize((_PICTURE, _PICTURE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for region in regions:
        left, top, right, bottom = (round(edge * _ZOOM) for edge in region.box)
        edges = [(x, y) for x in range(left - 2, right + 2) for y in (top - 2, bottom + 1)]
        edges += [(x, y) for y in range(top - 2, bottom + 2) for x in (left - 2, right + 1)]
        for x, y in edges:
            pen.point((x, y), _OUTLINE[(x + y) // 4 % 2])
    return picture


def _scene_card(example: Example) -> Image.Image:
    lines: list[tuple[str, str]] = []
    for kind, caption in zip(example.caption_tags, example.captions, strict=True):
        wrapped = _wrapped(caption.split(), _CARD_WIDTH - 28)
        lines += [(kind, "")] + [("", " ".join(words)) for words in wrapped]
    height = 14 + _PICTURE + 12 + sum(16 if kind else _LEAD for kind, _ in lines) + 5 * 6 + 22
    card = Image.new("RGB", (_CARD_WIDTH, height), _CARD)
    card.paste(_picture(example.image, example.regions), (14, 14))
    pen = ImageDraw.Draw(card)
    top = 14 + _PICTURE + 8
    for kind, text in lines:
        if kind:
            top += 6
            pen.text((14, top), kind, _FAINT, _font(11))
            top += 16
        else:
            pen.text((14, top), text, _INK, _font(_TEXT))
            top += _LEAD
    pen.text((14, height - 20), example.id, _FAINT, _font(10))
    return card


def _pair_card(group: Sequence[Example]) -> Image.Image:
    width = 2 * _CARD_WIDTH + _GAP
    tags = group[0].tags
    words = [example.captions[0].split() for example in group]
    marked = _differing(*words)
    wrapped = [_wrapped(each, _PICTURE) for each in words]
    height = 42 + _PICTURE + 14 + _LEAD * max(len(lines) for lines in wrapped) + 14
    card = Image.new("RGB", (width, height), _CARD)
    pen = ImageDraw.Draw(card)
    pen.text((14, 14), f"{tags.get('edit', '')} {tags.get('of', '')}", _FAINT, _font(_TEXT))
    inset = (width - 2 * _PICTURE) // 3
    for at, example in enumerate(group):
        left = inset + at * (_PICTURE + inset)
        card.paste(_picture(example.image, ()), (left, 42))
        number = 0
        for row, line in enumerate(wrapped[at]):
            x, y = float(left), 42 + _PICTURE + 12 + row * _LEAD
            for word in line:
                end = x + _font(_TEXT).getlength(word)
                if number in marked[at]:
                    pen.rounded_rectangle((x - 2, y - 1, end + 2, y + _LEAD - 3), 3, fill=_MARK)
                pen.text((x, y), word, _INK, _font(_TEXT))
                x = end + _font(_TEXT).getlength(" ")
                number += 1
    return card


def _differing(first: Sequence[str], second: Sequence[str]) -> tuple[set[int], set[int]]:
    """Positions of the words that differ between two captions, without articles."""
    if len(first) == len(second):
        differ = {at for at, (a, b) in enumerate(zip(first, second, strict=True)) if a != b and a not in ("a", "an")}
        return differ, differ
    found: tuple[set[int], set[int]] = (set(), set())
    for kind, start, end, start2, end2 in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind != "equal":
            found[0].update(at for at in range(start, end) if first[at] not in ("a", "an"))
            found[1].update(at for at in range(start2, end2) if second[at] not in ("a", "an"))
    return found


def _wrapped(words: Sequence[str], width: int) -> list[list[str]]:
    """Lines of words, no wider than `width` pixels."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and _font(_TEXT).getlength(" ".join([*lines[-1], word])) > width:
            lines.append([])
        lines[-1].append(word)
    return lines
