"""Tables of a study hold scores that can be scores: others would decide which setting is chosen."""

import json

import pytest

from sparc_bench.errors import UserError
from sparc_bench.study.study_rows import RUNS, TRIALS, RunRow, TrialRow, merge_rows, read_rows

TRIAL = {"hash": "a", "recipe": "r", "trial": 0, "values": {}, "seconds": 1.0}
RUN = {"recipe": "r", "seed": 0, "state": "done", "step": 3, "train_seconds": 1.0, "recipe_hash": "b"}


@pytest.mark.parametrize("score", [float("nan"), 5.0, -3.0, float("inf")])
def test_impossible_scores_are_refused_with_file_and_row(tmp_path, score):
    good = TrialRow(**TRIAL, criterion=0.5, val={"r1": 0.5})
    merge_rows(tmp_path / TRIALS, [good], TrialRow, ["r"])
    assert read_rows(tmp_path / TRIALS, TrialRow) == [good]
    text = (tmp_path / TRIALS).read_text()
    for cell, key in ((",0.5,", "criterion"), ('""r1"": 0.5', "val.r1")):
        written = f",{score}," if key == "criterion" else f'""r1"": {json.dumps(score)}'
        (tmp_path / TRIALS).write_text(text.replace(cell, written))
        with pytest.raises(UserError, match=rf"trials\.csv, row 1: '{key}' input should be"):
            read_rows(tmp_path / TRIALS, TrialRow)
    run = RunRow(**RUN, val={"r1": 0.5})
    merge_rows(tmp_path / RUNS, [run], RunRow, ["r"])
    (tmp_path / RUNS).write_text((tmp_path / RUNS).read_text().replace('""r1"": 0.5', f'""r1"": {json.dumps(score)}'))
    with pytest.raises(UserError, match=r"runs\.csv, row 1: 'val\.r1' input should be"):
        read_rows(tmp_path / RUNS, RunRow)
