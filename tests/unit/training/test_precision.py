import json

import pytest
import torch

from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.training.precision import choose


@pytest.mark.parametrize(
    "damaged",
    [b"{", b"[]", b"\xff\xfe", b'{"float32": NaN, "bf16": 1}', b'{"float32": 0.1}', b'{"float32": "a", "bf16": 1}'],
)
def test_damaged_times_are_measured_again_and_said(tiny, capsys, damaged):
    recipe = tiny.model_copy(update={"precision": "auto"})
    steps = []
    choose(recipe, None, torch.device("cpu"), steps.append)
    (file,) = (cache_folder() / "precision").iterdir()
    kept = json.loads(file.read_text())
    steps.clear()
    assert choose(recipe, None, torch.device("cpu"), steps.append)[1] == kept
    assert not steps
    file.write_bytes(damaged)
    found = choose(recipe, None, torch.device("cpu"), steps.append)[1]
    assert steps
    assert json.loads(file.read_text()) == found
    assert capsys.readouterr().err == f"The times of a step in {file} are damaged: they are measured again.\n"
