"""The command that draws which patches of an image each word of a caption finds: `sparc-bench align`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparc_bench.cli.options import Device, Plugins, Runs, Seed, prepare
from sparc_bench.errors import UserError
from sparc_bench.first_checks import refuse_unwritable

if TYPE_CHECKING:
    from sparc_bench.images.view import View

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_MOST_DIGITS = 12

OWN_CAPTION = "inventory"
"""Kind of the scenes' captions that name every object: what is drawn where no caption is given."""


@app.command()
def align(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... IMAGE [CAPTION]",
            help="Models as for eval; an image file, or DATASET:SPLIT:NUMBER of a data set without files, such as "
            "scenes1:test:0; a caption in quotes, by default the data set's own.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("align.png"),
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Draw which patches of an image each word of a caption finds: models and patch paths one under the other."""
    if out.suffix.lower() != ".png":
        raise UserError(f"{out} is no PNG file: let --out end in .png.")
    prepare(None, device, plugin)
    refuse_unwritable(out.parent)
    models, image, text = told_apart(words)
    view, own = opened(image)
    if text is None and own is None:
        raise UserError(f"{image} has no caption of its own: write one in quotes after it.")
    picture = view.item.open()
    from sparc_bench.models.resolve import load_encoder, resolve

    found = [resolve(model, None, seed, runs) for model in models]
    from sparc_bench.encoder import Runtime
    from sparc_bench.report import alignment
    from sparc_bench.report.word_maps import Caption, word_maps

    caption = Caption.of(text if text is not None else own or "")
    names = [model.card.name for model in found]
    rows = []
    for typed, model, name in zip(models, found, names, strict=True):
        encoder = load_encoder(model, Runtime(device, batch_size=1))
        rows += word_maps(encoder, name if names.count(name) == 1 else typed, view, caption)
    alignment.save(picture, caption, rows, out)
    typer.echo(f"Wrote {out}: {', '.join(caption.words)}; {len(rows)} rows of maps.")


def told_apart(words: list[str]) -> tuple[list[str], str, str | None]:
    """Models, image and caption (None where none was typed) among the arguments.

    Raises:
        UserError: no image at the end or before the caption, or no model before the image.
    """
    for back, caption in ((1, None), (2, words[-1])):
        if len(words) >= back and is_image(words[-back]):
            models = words[:-back]
            if not models:
                raise UserError("No model was named: write models, an image and a caption, in this order.")
            return models, words[-back], caption
    raise UserError(
        f"There is no image among the last two words, '{' '.join(words[-2:])}': write models, then an image file or "
        "DATASET:SPLIT:NUMBER (scenes1:test:0), then a caption in quotes."
    )


def is_image(word: str) -> bool:
    """Whether a word names an image: by its ending, or as DATASET:SPLIT:NUMBER."""
    from PIL import Image

    from sparc_bench.cards import discovery

    dataset, colon, _ = word.partition(":")
    if colon and dataset in discovery.names("datasets"):
        return True
    return Path(word).suffix.lower() in Image.registered_extensions()


def opened(word: str) -> tuple[View, str | None]:
    """The image that a word names, not yet decoded, and its own caption where it has one.

    Raises:
        UserError: no such file, a data set that is read from files, no such split or number.
    """
    from sparc_bench.cards import discovery
    from sparc_bench.cards.card import parse
    from sparc_bench.images.item import ImageItem
    from sparc_bench.images.view import View

    dataset, colon, rest = word.partition(":")
    if not colon or dataset not in discovery.names("datasets"):
        if not Path(word).is_file():
            raise UserError(f"There is no image file {word}: check the path.")
        return View(ImageItem.file(Path(word).name, Path(word))), None
    if discovery.needs_on_disk(dataset):
        raise UserError(f"{dataset} lies in files: name an image file of it instead of {word}.")
    split, _, number = rest.partition(":")
    if not number.isdecimal():
        raise UserError(f"{word} names no image: write {dataset}:SPLIT:NUMBER, such as {dataset}:test:0.")
    module = discovery.load("datasets", dataset)
    data = module.read(None, split, parse(module.Options, {}, f"{word} without options"))
    if len(number) > _MOST_DIGITS or int(number) >= len(data):
        raise UserError(f"{dataset}:{split} has {len(data)} images: number {number[:_MOST_DIGITS]} is beyond them.")
    example = data[int(number)]
    captions = dict(zip(example.caption_tags, example.captions, strict=False))
    return example.view, captions.get(OWN_CAPTION, next(iter(example.captions), None))
