"""Checks of views other than whole images at the model's own size: windows, and other input sizes."""

from __future__ import annotations

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.images.view import View
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, Status
from sparc_bench.verify.probed_model import ProbedModel, picture

_IMAGE = next(view.item for view in probe.IMAGES if view.id == "large")

WINDOW = (600, 120, 920, 360)
"""Rectangle of the probe's large image: left, top, right, bottom in pixels."""

_MOST = 1.0
"""Largest distance of a reported edge from the right one, in pixels of the original image."""


def window(model: ProbedModel) -> Finding:
    """Finding on a window of an image: it shows what an image of these pixels alone shows, moved to its place."""
    expected = "a window shows its own pixels and knows where they lie"
    view = View(_IMAGE, WINDOW)
    pixels, area = model.encoder.preprocess(view)
    alone, area_alone = model.encoder.preprocess(View(ImageItem("window", view.open)))
    whole, _ = model.encoder.preprocess(View(_IMAGE))
    status: Status = "fail" if "patches" in model.gives else "warning"  # only patches are looked up by place
    shows_whole = pixels.shape == alone.shape == whole.shape and bool(
        (pixels.double() - alone.double()).abs().mean() > (pixels.double() - whole.double()).abs().mean()
    )
    if pixels.shape != alone.shape or shows_whole:
        measured = "the whole image" if shows_whole else f"{tuple(pixels.shape)}, alone {tuple(alone.shape)}"
        advice = "preprocess does not show the window of a view: open it with view.open(), which cuts it out."
        return Finding(status, measured, expected, advice)
    right = (area_alone[0] + WINDOW[0], area_alone[1] + WINDOW[1], area_alone[2] + WINDOW[0], area_alone[3] + WINDOW[1])
    claims: dict[str, Box] = {"preprocess": area}
    features = model.encoder.images([view], model.image_need)
    if features.area_N4 is not None:
        left, top, edge, bottom = features.area_N4[0].tolist()
        claims["area_N4 of the features"] = (left, top, edge, bottom)
    for who, claimed in claims.items():
        off = max(abs(a - b) for a, b in zip(claimed, right, strict=True))
        if not off <= _MOST:
            advice = (
                f"{who} says {_edges(claimed)} of a window whose pixels are {_edges(right)} of the original image "
                "(left, top, right, bottom): return view.in_original(area), or boxes and masks are looked up in the "
                "wrong place wherever windows slide."
            )
            return Finding(status, f"{off:.0f} pixels off", expected, advice)
    return Finding("ok", "moved with the window", expected)


def input_size(model: ProbedModel) -> Finding:
    """Finding on a view of another input size, not square: pixels of that size, or a sentence that refuses it."""
    rows, columns = model.input_size
    view = View(_IMAGE, None, 2 * rows, columns + columns // 2)
    expected = "pixels of the size that a view names, or a refusal"
    try:
        pixels, _ = model.encoder.preprocess(view)
        model.encoder.images([view], model.image_need)
    except UserError:
        return Finding("ok", "refuses another size", expected)
    found = picture(pixels)
    if found is None or found.shape[:2] == view.size:
        return Finding("ok", "takes any size" if found is not None else "no picture", expected)
    shape = f"{found.shape[0]} x {found.shape[1]}"
    advice = (
        f"preprocess gives {shape} pixels where a view asks for {view.rows} x {view.columns}: resize to view.rows and "
        "view.columns, or raise UserError where view.size is not None, or a record names a size that was never seen."
    )
    return Finding("fail", shape, expected, advice)


def _edges(box: Box) -> str:
    return "(" + ", ".join(f"{edge:.0f}" for edge in box) + ")"
