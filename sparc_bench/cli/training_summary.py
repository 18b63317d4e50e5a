"""The summary of a training run in words, with units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from sparc_bench.terminal import table

_KINDS = {"true": "its own image", "shuffled": "another image", "grey": "a grey image"}


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Table of a training: the model, its data and its results, one row each."""
    drawn = table(("what", "value"), list(_rows(summary)))
    drawn.show_header = False
    return drawn


def _rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    begun = f", going on after step {summary['resumed_from']}" if summary["resumed_from"] else ""
    yield "trained", f"{summary['recipe']}, seed {summary['seed']}: {summary['steps']:,} steps{begun}"
    yield "model", f"{summary['parameters']:,} parameters, computed in {summary['precision']}"
    yield "time", _time(summary["seconds"])
    if "cpu_seconds" in summary:
        yield "CPU time of the steps", _time(summary["cpu_seconds"])
    yield "unreadable images", f"{summary['unreadable']:,}"
    for part, sha256 in summary.get("data", {}).items():
        yield f"data ({part})", f"sha256 {sha256[:12]}..."
    yield from _val(summary)
    held_out = dict(summary.get("held_out") or {})
    if held_out.keys() >= {"captions", "scale", "verdict", *_KINDS}:
        yield from _fine(held_out)
    else:
        yield from ((f"held out, {key}", text) for key, text in _other(held_out))


def _val(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scores on val: the headlines of tasks, or the hit rates both ways."""
    val = summary["val"]
    if "val_headlines" in summary:
        yield from ((f"val, {name}", f"{val[name]:.3f}") for name in summary["val_headlines"])
        return
    for way in dict.fromkeys(name.rpartition("_")[0] for name in val):
        found = {name: value for name, value in val.items() if name.rpartition("_")[0] == way}
        shown = ", ".join(f"R@{name.rpartition('_r')[2]} {100 * value:.1f} %" for name, value in found.items())
        yield f"val, {_words(way)}", shown


def _fine(held_out: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Figures of the fine loss with and without the image."""
    for kind, words in _KINDS.items():
        found = held_out[kind]
        yield (
            f"fine loss, {words}",
            f"{found['loss']:.4f} nats (standard error {found['standard_error']:.4f}), "
            f"token accuracy {100 * found['token_accuracy']:.1f} %",
        )
    captions, scale = held_out["captions"], held_out["scale"]
    yield "of it", f"{held_out['verdict']} (nats, 95 % intervals; {captions:,} val captions, scale {scale:.4g})"


def _other(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Figures of a loss that this file does not know, their keys as words."""
    for key, value in values.items():
        name = f"{before}{_words(key)}"
        if isinstance(value, Mapping):
            yield from _other(value, f"{name}: ")
        else:
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _words(key: str) -> str:
    return re.sub(r"[_.]+", " ", key)


def _time(seconds: float) -> str:
    """A duration in its unit.

    >>> _time(5.04), _time(600), _time(9000)
    ('5.0 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
