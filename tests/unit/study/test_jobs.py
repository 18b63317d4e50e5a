"""A job of a study: what its row keeps of a training."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.evaluation.evaluate import Settings
from sparc_bench.study import jobs
from sparc_bench.study.jobs import Job, run_job

OF_A_TASK = {"scenes_retrieval/text_to_image_r1": 0.1234567, "scenes_retrieval/text_to_image_medr": 7.0}


@pytest.mark.parametrize(
    ("summary", "kept"),
    [
        ({"val": {"text_to_image_r1": 0.5}}, {"text_to_image_r1": 0.5}),
        ({"val": OF_A_TASK, "val_headlines": [next(iter(OF_A_TASK))]}, {"scenes_retrieval/text_to_image_r1": 0.123457}),
    ],
)
def test_a_trial_keeps_the_scores_on_val_that_can_decide(monkeypatch, tmp_path, summary, kept):
    monkeypatch.setattr(jobs, "_data", lambda _: None)
    monkeypatch.setattr(jobs, "train", lambda *_, **__: {"seconds": 1.0, **summary})
    done = run_job(Job("a", discovery.recipe("scenes_clip"), tmp_path, 0, Settings(), trial=(0, {})))
    assert done.row.val == kept
