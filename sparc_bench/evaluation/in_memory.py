"""Evaluation of a model that lies in memory, with the settings of a request."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

from rich.progress import Progress

from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import evaluate_encoder
from sparc_bench.evaluation.pipeline import Result
from sparc_bench.evaluation.request import Request
from sparc_bench.first_checks import refuse_absent_data, refuse_unwritable
from sparc_bench.models.plugin_encoder import missing_parts
from sparc_bench.models.torch_module import UNSEEN, ModuleEncoder
from sparc_bench.records.record import read_record, record_path

SHOWN_DIGITS = 12
"""Digits of a hash in a sentence."""


def evaluate_in_memory(encoder: Encoder, request: Request, progress: Progress | None = None) -> list[Result]:
    """Results of an encoder, whose records are always made anew: code in memory has no hash that would tell a change.

    What `sparc_bench.models.torch_module.wrap` made takes device, precision, batch size and workers from the request;
    another encoder has its own.

    Raises:
        UserError: no task has its data, a setting that is the encoder's own, or records of another model that has its
            name (`force` replaces them).
    """
    if missing := missing_parts(encoder):
        raise UserError(
            f"A {type(encoder).__name__} is no model, for it has no {', '.join(missing)}: give a name, a path, "
            "family:weights or an Encoder, or what sparc_bench.wrap(model, preprocess, tokenizer) makes of a model."
        )
    refuse_unwritable(request.results)
    refuse_absent_data(request.tasks, request.data_root)
    if isinstance(encoder, ModuleEncoder):
        # worker processes that are not forked would import what a notebook defines, in vain
        forked = multiprocessing.get_start_method() == "fork"
        encoder = encoder.at(request.settings(str(encoder.device), None if forked else 0).runtime)
    else:
        _refuse_setting(encoder, request)
    if not request.force:
        _refuse_others(encoder, request)
    settings = replace(request.settings(), force=True)
    return evaluate_encoder(encoder, encoder.card, request.seed, request.tasks, settings, progress)


def _refuse_setting(encoder: Encoder, request: Request) -> None:
    """Raise UserError for a setting that the encoder was made with."""
    for name in ("device", "precision", "batch_size", "workers"):
        if getattr(request, name) is not None:
            raise UserError(
                f"The {type(encoder).__name__} has its own {name}: leave {name} out, and make the encoder with another "
                "sparc_bench.encoder.Runtime."
            )


def _refuse_others(encoder: Encoder, request: Request) -> None:
    """Raise UserError where a record of another model lies where one of this encoder would."""
    for task in request.tasks:
        path = record_path(
            request.results, encoder.card.name, request.seed, task.name, sample=task.sample, limit=request.limit
        )
        if not path.is_file():
            continue
        there = read_record(path)
        mine, other = encoder.weights_hash, there.weights_hash
        if UNSEEN in (mine, other) or mine != other:
            what = "may have other weights" if mine == other else f"has other weights ({other[:SHOWN_DIGITS]}...)"
            raise UserError(
                f"{path} is there, of a model of this name that {what}: name this one otherwise, or pass force=True to "
                "replace the record."
            )
