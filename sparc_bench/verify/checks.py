"""All checks of `sparc-bench verify` in order; a check is not judged where one that has to pass first failed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from sparc_bench import __version__
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.verify import grid, pixels, probe_values, scores, texts, vectors, windows
from sparc_bench.verify.finding import Check, Finding, left_out
from sparc_bench.verify.model_report import ModelReport
from sparc_bench.verify.probed_model import ProbedModel

_IMAGE, _TEXT = frozenset({"image"}), frozenset({"text"})
_BOTH = _IMAGE | _TEXT
_PATCHES = _IMAGE | {"patches"}

CHECKS: tuple[Check, ...] = (
    Check("pixels", pixels.same_pixels, _IMAGE),
    Check("normalisation", pixels.contrast, _IMAGE, after=("pixels",)),
    Check("colour order", pixels.colours, _IMAGE, after=("normalisation",)),
    Check("area seen", pixels.area, _IMAGE, after=("normalisation",)),
    Check("resampling", pixels.resampling, _IMAGE, after=("area seen",)),
    Check("shapes", vectors.shapes, stored=True, after=("pixels",)),
    Check("finite", vectors.finite, stored=True, after=("shapes",)),
    Check("images differ", vectors.distinct_images, _IMAGE, stored=True, after=("finite",)),
    Check("texts differ", vectors.distinct_texts, _TEXT, stored=True, after=("finite",)),
    Check("windows", windows.window, _IMAGE, after=("finite", "area seen")),
    Check("input size", windows.input_size, _IMAGE, after=("finite", "pixels")),
    Check("determinism", vectors.determinism, after=("finite",)),
    Check("asked for", vectors.only_what_is_needed, _PATCHES | {"global"}, after=("determinism",)),
    Check("image batches", vectors.image_batches, _IMAGE, after=("determinism",)),
    Check("text batches", texts.text_batches, _TEXT, after=("determinism",)),
    Check("case", texts.case, _TEXT, after=("texts differ", "text batches")),
    Check("white space", texts.spaces, _TEXT, after=("texts differ", "text batches")),
    Check("punctuation", texts.punctuation, _TEXT, after=("texts differ", "text batches")),
    Check("long texts", texts.length, _TEXT, after=("texts differ", "text batches")),
    Check("padding", texts.padding, _TEXT, after=("long texts",)),
    Check("odd texts", texts.odd_texts, _TEXT, after=("finite",)),
    Check("patch order", grid.order, _PATCHES, after=("images differ", "image batches", "area seen")),
    Check("patches agree", grid.agreement, _PATCHES | _TEXT, stored=True, after=("images differ", "texts differ")),
    Check("logit scale", scores.logit_scale, _BOTH),
    Check("ties", scores.ties, _BOTH, stored=True, after=("images differ", "texts differ")),
    Check("probe values", probe_values.compare_with_card, _BOTH, after=("image batches", "text batches")),
)
"""All checks in the order of the table; a check comes after those that have to pass first."""

_UNSETTLED = ("fail", "not judged")


def run_checks(encoder: Encoder, begin: Callable[[str], None] = lambda _: None) -> ModelReport:
    """The report of all checks on a loaded model; `begin` is called with the name of each check before it starts."""
    start = time.perf_counter()
    model = ProbedModel(encoder)
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        begin(check.name)
        findings[check.name] = _judged(check, model, findings)
    failed = any(finding.status == "fail" for finding in findings.values())
    probe_table = ""
    if not failed and probe_values.publishable(model):
        probe_table = probe_values.as_toml(probe_values.measure(model), _set_up(encoder))
    return ModelReport(encoder, findings, probe_table, time.perf_counter() - start)


def _set_up(encoder: Encoder) -> str:
    """The `source` of a [probe] table: versions, precision and device."""
    return f"sparc-bench {__version__}, torch {torch.__version__}, {encoder.precision} on {encoder.device.type}"


def _judged(check: Check, model: ProbedModel, findings: Mapping[str, Finding]) -> Finding:
    blocking = next((name for name in check.after if findings[name].status in _UNSETTLED), None)
    if blocking is not None:
        return Finding("not judged", f"'{blocking}' comes first")
    if model.stored and not check.stored:
        return left_out("vectors are stored, nothing is encoded")
    if not model.gives & _BOTH:
        return left_out("the model gives no vectors")
    missing = check.gives - model.gives
    if missing:
        return left_out(f"the model gives no {', '.join(sorted(missing))}")
    try:
        return check.measure(model)
    except UserError as error:
        return Finding("fail", "the encoder stopped", "an answer to the probe", str(error))
    except Exception as error:  # any error of the tested model is a finding
        where = _where(error)
        advice = f"Mend {where}, which raised {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}."
        return Finding("fail", f"{type(error).__name__} in {where}", "an answer to the probe", advice)


def _where(error: Exception) -> str:
    """File and line of the deepest frame of the traceback that is neither a library's nor ours, judged by its path."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    own = [f for f in frames if "site-packages" not in f.filename and not Path(f.filename).is_relative_to(package)]
    frame = [*frames[-1:], *own][-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
