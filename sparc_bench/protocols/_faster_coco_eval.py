"""Average precisions by faster-coco-eval, a second implementation of COCO's and LVIS's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from sparc_bench.errors import UserError
from sparc_bench.protocols.regions import SIZES

ENGINE = "faster-coco-eval"
AGREEMENT = 1e-6


def average_precisions(
    truth: Mapping[str, Any],
    found: Mapping[str, Any],
    iou: str,
    max_detections: int,
    ranges: Sequence[Sequence[float]],
    *,
    federated: bool,
) -> dict[str, float]:
    """`ap`, `ap50`, `ap75` and the AP of each size; NaN without objects of any class.

    Args:
        truth: rows of all classes in COCO's format (with `federated` LVIS's).
        found: rows of the detections, with annotations as by COCO.loadRes.
        iou: bbox or segm.
        max_detections: largest number of detections of a class in an image.
        ranges: area ranges all, small, medium, large.
        federated: whether LVIS's rules apply.

    Raises:
        UserError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise UserError(
            "This task is scored by faster-coco-eval, which is not installed: pip install 'sparc-bench[lvis]'."
        ) from None

    def silent(*_: object) -> None: ...

    evaluation = COCOeval_faster(COCO(dict(truth)), COCO(dict(found)), iou, print_function=silent, lvis_style=federated)
    evaluation.params.maxDets = [max_detections]
    evaluation.params.areaRng = [list(edges) for edges in ranges]
    evaluation.evaluate()
    evaluation.accumulate()
    precision_TRKA = np.asarray(evaluation.eval["precision"])[..., -1]
    cuts = {"ap": precision_TRKA[..., 0], "ap50": precision_TRKA[0, ..., 0], "ap75": precision_TRKA[5, ..., 0]}
    cuts |= {f"ap_{size}": precision_TRKA[..., area] for area, size in enumerate(SIZES, start=1)}
    # the precision of classes without objects is -1
    return {name: float(cut[cut > -1].mean()) if (cut > -1).any() else float("nan") for name, cut in cuts.items()}


def agreed(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Note that both engines give the same numbers.

    Raises:
        UserError: the numbers differ by more than `AGREEMENT`.
    """
    release = f"{ENGINE} {version(ENGINE)}"
    for name, value in theirs.items():
        if not np.isclose(value, ours[name], rtol=0, atol=AGREEMENT, equal_nan=True):
            raise UserError(
                f"{release} finds {name} = {value:.6f} where pycocotools' matches give {ours[name]:.6f}: install "
                "another release of either."
            )
    return f"pycocotools {version('pycocotools')} and {release} agree on the APs."
