"""Which cells are measured, what their rows say, and what the command does with mistakes."""

import csv

import pytest

from sparc_bench.cli.app import main
from sparc_bench.cost import measure_costs as costs
from sparc_bench.cost.cell import StepCost, measure_own, measure_step
from sparc_bench.cost.cost_rows import CostRow, published, read_rows, write_rows
from sparc_bench.cost.flops import Flops
from sparc_bench.cost.fresh_process import CellFailedError, DoesNotFitError

MB = 1_000_000


@pytest.fixture
def machine(monkeypatch):
    """A machine that only pretends: a step takes 1 s (clip) or 2 s for 8 pairs, and 10 MB a pair over 100 MB."""

    class Machine:
        def __init__(self):
            self.calls = []
            self.available_mb = 10_000.0
            self.trouble = {}

        def reading(self, measure, cell, _):
            self.calls.append((measure, cell.objective, cell.batch))
            error = self.trouble.get((cell.objective, cell.batch))
            if error is not None and measure is measure_step:
                raise error
            if measure is measure_own:
                return StepCost(0.25, 7 * MB, 4 * MB, 10)
            slow = 1 if cell.objective == "clip" else 2
            return StepCost(slow * cell.batch / 8, (100 + 10 * slow * cell.batch) * MB, 90 * MB, 1000)

        def run(self, file, objectives="clip,sparc", batches="8,16", repeats=2, force=False):
            plan = costs.make_plan(objectives, batches, None, "cpu", repeats, ())
            self.calls.clear()
            rows = costs.run(plan, file, force, lambda _: None, lambda: None)
            return {(row.objective, row.batch): row for row in rows}

    made = Machine()
    monkeypatch.setattr(costs, "_step_cost", made.reading)
    monkeypatch.setattr(costs, "memory_available", lambda _: made.available_mb)
    monkeypatch.setattr(costs, "count", lambda cell: Flops(cell.batch * 10**9, cell.batch * 10**6))
    return made


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cost.csv"


def test_clip_and_objective_alternate_and_are_compared(machine, file):
    rows = machine.run(file, batches="8", repeats=3)
    of_sparc = [(measure_step, "clip", 8), (measure_step, "sparc", 8), (measure_own, "sparc", 8)]
    assert machine.calls[9:] == 3 * of_sparc
    sparc, clip = rows["sparc", 8], rows["clip", 8]
    assert (sparc.step_seconds, sparc.clip_step_seconds, sparc.step_seconds_over_clip, sparc.step_ratio) == (2, 1, 1, 2)
    assert (sparc.peak_mb, sparc.clip_peak_mb, sparc.peak_mb_over_clip) == (260, 180, 80)
    assert sparc.peak_ratio == pytest.approx(260 / 180, abs=1e-6)
    assert (sparc.own_seconds, sparc.own_mb, sparc.before_mb) == (0.25, 3, 90)
    assert (sparc.flops, sparc.own_flops, sparc.flop_ratio) == (8 * 1_001_000_000, 8_000_000, 1)
    assert (clip.step_ratio, clip.peak_ratio) == (1, 1)


def test_medians_are_of_pairs(monkeypatch, machine, file):
    """Ratios 1, 3 and 2: their median is 2, though the ratio of the medians (4 and 3) is not."""
    seconds = {"clip": iter([4.0, 1.0, 3.0]), "siglip": iter([4.0, 3.0, 6.0])}

    def reading(measure, cell, _):
        return StepCost(0.0 if measure is measure_own else next(seconds[cell.objective]), 2, 1, 1)

    monkeypatch.setattr(costs, "_step_cost", reading)
    row = machine.run(file, objectives="siglip", batches="8", repeats=3)["siglip", 8]
    assert (row.step_ratio, row.step_ratio_low, row.step_ratio_high) == (2, 1, 3)
    assert (row.step_seconds, row.clip_step_seconds, row.step_seconds_over_clip) == (4, 3, 2)


def test_measured_cells_are_kept_until_a_setting_changes(machine, file):
    first = machine.run(file)
    assert machine.run(file) == first
    assert machine.calls == []
    machine.run(file, force=True)
    assert len(machine.calls) == 4 * 2 * 3
    machine.run(file, batches="8,16,24")
    assert {batch for _, _, batch in machine.calls} == {24}
    machine.run(file, batches="8", repeats=1)
    assert len(machine.calls) == 2 * 3
    # only what was asked for comes back, and the file keeps the rest
    assert len(read_rows(file)) == 6


def test_an_objective_that_counts_other_flops_is_measured_again(machine, file, monkeypatch):
    machine.run(file, batches="8")
    monkeypatch.setattr(
        costs,
        "count",
        lambda cell: Flops(cell.batch * 10**9, cell.batch * (2 if cell.objective == "sparc" else 1) * 10**6),
    )
    machine.run(file, batches="8")
    assert {name for measure, name, _ in machine.calls if measure is measure_own} == {"sparc"}


def test_an_interrupted_table_goes_on_where_it_was(machine, file):
    machine.trouble["sparc", 16] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        machine.run(file)
    machine.trouble.clear()
    machine.run(file)
    assert {batch for _, name, batch in machine.calls if name == "sparc"} == {16}


def test_a_cell_that_fails_says_why_and_the_others_go_on(machine, file):
    machine.trouble["sparc", 8] = CellFailedError("ValueError: five is not six")
    rows = machine.run(file)
    assert rows["sparc", 8].status == "failed"
    assert rows["sparc", 8].reason == "ValueError: five is not six"
    assert rows["sparc", 16].status == "measured"
    machine.trouble.clear()
    assert machine.run(file)["sparc", 8].status == "measured"
    assert {(name, batch) for measure, name, batch in machine.calls if measure is measure_own} == {("sparc", 8)}


def test_an_objective_whose_flops_cannot_be_counted_is_no_blank(machine, file, monkeypatch):
    def count(cell):
        if cell.objective == "sparc":
            raise RuntimeError("cannot be faked")
        return Flops(10**9, 10**6)

    monkeypatch.setattr(costs, "count", count)
    row = machine.run(file, batches="8")["sparc", 8]
    assert (row.status, row.reason) == ("failed", "FLOPs: RuntimeError: cannot be faked")


def test_running_out_of_memory_does_not_fit_nor_does_a_larger_batch(machine, file):
    machine.trouble["sparc", 8] = DoesNotFitError("memory: the system killed the process")
    rows = machine.run(file)
    assert (rows["sparc", 8].status, rows["sparc", 8].reason) == (
        "does not fit",
        "memory: the system killed the process",
    )
    assert rows["sparc", 16].reason == "sparc at batch 8 does not (memory: the system killed the process)"
    assert rows["sparc", 16].flops is not None
    assert rows["clip", 16].status == "measured"


def test_a_clip_that_does_not_fit_stops_its_partners(machine, file):
    machine.trouble["clip", 16] = DoesNotFitError("memory: the system killed the process")
    rows = machine.run(file)
    assert rows["sparc", 8].status == "measured"
    assert rows["sparc", 16].reason.startswith("clip at batch 16 does not")


def test_time_is_predicted_from_the_smallest_batch(machine, file):
    """2 s at batch 8, so 32 s at 128: with clip and the objective alone, two steps and two runs some 4 minutes."""
    fits = machine.run(file, batches="8,128")
    assert fits["sparc", 128].status == "measured"
    rows = machine.run(file, batches="8,512")
    assert rows["clip", 512].status == "measured"
    assert rows["sparc", 512].status == "does not fit"
    assert rows["sparc", 512].reason == "time: 17 minutes expected, at 128 s a step"


def test_a_first_cell_that_is_too_slow_stops_after_one_reading(machine, file):
    rows = machine.run(file, batches="4096")
    assert machine.calls == [(measure_step, "clip", 4096)]
    assert rows["clip", 4096].reason == "time: 68 minutes expected, at 512 s a step"
    assert rows["sparc", 4096].reason == "clip at batch 4096 does not (time: 68 minutes expected, at 512 s a step)"
    rows = machine.run(file, objectives="siglip", batches="4096")
    assert rows["siglip", 4096].reason == "clip at this batch: time: 68 minutes expected, at 512 s a step"


@pytest.mark.parametrize(
    ("batches", "available_mb", "fits"),
    [
        # through batch 8 (260 MB) and what does not grow with it (90 MB and 8 bytes for each of 1,000 weights)
        ("8,16", 431.0, True),
        ("8,16", 429.0, False),
        # along the line through 8 (260 MB) and 16 (420 MB)
        ("8,16,24", 581.0, True),
        ("8,16,24", 579.0, False),
    ],
)
def test_memory_is_predicted_along_a_line(machine, file, batches, available_mb, fits):
    machine.available_mb = available_mb
    row = machine.run(file, batches=batches)["sparc", int(batches.rpartition(",")[2])]
    assert (row.status == "measured") == fits
    assert row.reason == "" if fits else row.reason.startswith("memory: 0.")


def test_the_file_holds_the_published_table_beside_the_measured_one(machine, file):
    machine.run(file)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    paper = {(row["objective"], row["batch"]): row for row in rows if row["status"] == "published"}
    assert len(paper) == 22  # gloria has two batches, the five others four
    filip = paper["filip", "16384"]
    assert float(filip["flop_ratio"]) == pytest.approx(27.25 / 9.14, abs=1e-4)
    assert float(filip["peak_ratio"]) == pytest.approx(15463 / 8578, abs=1e-4)
    assert "Table 11" in filip["source"]
    assert "256 TPUs" in filip["source"]
    assert ("gloria", "8192") not in paper
    measured = next(row for row in rows if row["status"] == "measured")
    for column in ("device_name", "precision", "torch", "threads", "commit", "model", "text_width", "vocabulary"):
        assert measured[column], column


def test_rows_come_back_from_the_file_as_they_were(tmp_path):
    row = CostRow(objective="a", batch=2, model="m", status="measured", step_ratio=1 / 3, dirty=False, threads=None)
    write_rows(tmp_path / "cost.csv", [row])
    assert read_rows(tmp_path / "cost.csv") == [row]


def test_published_tables_name_objectives_of_the_folder():
    from sparc_bench.cards import discovery

    for costs_of_paper in published():
        assert set(costs_of_paper.tflops) <= set(discovery.names("objectives"))
        assert costs_of_paper.tflops.keys() == costs_of_paper.memory_mb.keys()


@pytest.mark.slow
def test_command_prints_the_table_and_draws_it(machine, tmp_path, capsys):
    arguments = ["cost", "--objectives", "sparc,clip", "--batch", "8", "--repeats", "1", "--results", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for words in ("text tower 12 layers, 192 wide, 3 heads, vocabulary 32000", "float32", "2 (2.000)", "256 TPUs"):
        assert words in printed
    assert (tmp_path / "cost" / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "cost" / "cost.csv").is_file()


def test_command_ends_with_1_where_a_cell_failed(machine, tmp_path, capsys):
    machine.trouble["sparc", 8] = CellFailedError("ValueError: five is not six")
    assert main(["cost", "--objectives", "clip,sparc", "--batch", "8", "--results", str(tmp_path)]) == 1
    assert "sparc at batch 8 failed: ValueError: five is not six" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objectives", "spark"], "did you mean 'sparc'?"),
        (["--batch", "8,sixteen"], "'sixteen' is no batch size"),
        (["--batch", "1"], "'1' is no batch size"),
        (["--objectives", ","], "nothing to measure"),
        (["--model", "vit_tiny_patch16_225"], "did you mean 'vit_tiny_patch16_224'?"),
        (["--model", "resnet18"], "name a vision transformer"),
        (["--device", "meta"], "leave --device out for the CPU"),
    ],
)
def test_mistakes_end_in_the_fix(machine, tmp_path, capsys, arguments, words):
    assert main(["cost", *arguments, "--results", str(tmp_path)]) == 2
    [sentence] = capsys.readouterr().err.strip().splitlines()
    assert words in sentence
    assert sentence[-1] in ".?"
    assert machine.calls == []


def test_another_file_in_its_place_is_not_overwritten(machine, tmp_path, capsys):
    file = tmp_path / "cost" / "cost.csv"
    file.parent.mkdir()
    file.write_text("a,b\n1,2\n")
    assert main(["cost", "--objectives", "clip", "--batch", "8", "--results", str(tmp_path)]) == 2
    assert "is no cost table" in capsys.readouterr().err
    assert file.read_text() == "a,b\n1,2\n"
