"""Sentences about mistakes in the arguments, and about a file system that refuses."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, cast

import typer

from sparc_bench.errors import nearest
from sparc_bench.files.refusal import remedy

UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of every mistake in the arguments; typer exports only its subclasses."""


def usage(error: Exception) -> str:
    """One sentence about a mistake in the arguments, ending in the nearest name or in where to look."""
    context: Any = getattr(error, "ctx", None)
    option: str | None = getattr(error, "option_name", None)
    if context is not None and option is not None and hasattr(error, "possibilities"):
        known = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        command = context.command_path
        return f"{command} has no option '{option}': {nearest(option, [*known, '--help'], f'{command} --help')}"
    message = " ".join(cast("Any", error).format_message().split()).rstrip(".")
    return (
        message
        if message.endswith("?")
        else f"{message}: see {context.command_path if context else 'sparc-bench'} --help."
    )


def disk(error: OSError) -> str | None:
    """One sentence about a file system that refuses, or None where the error is of another kind."""
    mend = remedy(error)
    return None if mend is None else f"{error.filename or 'A file'} cannot be used ({error.strerror}): {mend}."


def fail(sentence: str) -> int:
    """Print a sentence on stderr, leave it for torchrun, and return exit code 2."""
    print(sentence, file=sys.stderr)
    _tell_torchrun(sentence)
    return 2


def _tell_torchrun(sentence: str) -> None:
    """Leave the sentence for torchrun's report, which ends in it; the report calls the earliest failure the cause."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        earlier = int(time.time()) - 1  # whole seconds: before those that end because of this one
        about = {"py_callstack": sentence, "timestamp": str(earlier)}
        Path(file).write_text(json.dumps({"message": {"message": sentence, "extraInfo": about}}), encoding="utf-8")
