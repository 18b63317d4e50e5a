"""Several processes of one evaluation: what they tell each other, and how they end, under torchrun."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from sparc_bench.errors import UserError
from sparc_bench.evaluation import lifeline
from sparc_bench.evaluation.ranks import evaluation_ranks

SCRIPT = Path(__file__).with_name("ranks_script.py")
LIFELINES = Path(__file__).with_name("lifeline_script.py")
DIED = "Process {} of {} (counted from 0) died (its own messages, if any, stand above): start the same command again"

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
}


def torchrun(processes, *what):
    """Exit code, standard output, sentences (standard error without torchrun's own) and seconds."""
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    began = time.monotonic()
    done = subprocess.run(
        [*call, str(SCRIPT), *map(str, what)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    seconds = time.monotonic() - began
    own, _, _ = done.stderr.partition("failed (exitcode")
    sentences = [line for line in own.splitlines() if line and "torch/distributed/elastic" not in line]
    return done.returncode, done.stdout, sentences, seconds


def test_one_process_needs_no_group():
    with evaluation_ranks("cuda") as ranks:
        assert (ranks.rank, ranks.world, ranks.device) == (0, 1, "cuda")
        assert ranks.gather("x") == ["x"]
        assert ranks.together(lambda: 5) == 5
        ranks.heed()
        assert not dist.is_initialized()
    with pytest.raises(UserError, match="as it is"), evaluation_ranks("cpu") as ranks:
        ranks.together(fail)


def fail():
    raise UserError("as it is")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_every_rank_has_the_values_of_all(processes):
    code, out, sentences, _ = torchrun(processes, "gather")
    assert (code, sentences) == (0, [])
    assert sorted(out.splitlines()) == [f"{rank} of {processes} on cpu" for rank in range(processes)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "what", "victim"),
    [
        (3, "die_while_others_wait", 1),
        (3, "die_while_others_wait", 0),
        (2, "die_while_others_compute", 1),
        (3, "die_while_others_compute", 0),
        (3, "die_with_a_child_that_decodes", 2),
    ],
)
def test_a_rank_that_dies_ends_the_others_with_one_sentence(processes, what, victim):
    code, _, sentences, seconds = torchrun(processes, what, victim)
    assert code == 1
    [sentence] = sentences
    assert sentence.startswith(DIED.format(victim, processes))
    assert seconds < 30  # with all that is imported before


@pytest.mark.slow
def test_a_bug_on_one_rank_is_told_after_its_traceback():
    code, _, sentences, _ = torchrun(2, "crash", 1)
    assert code == 1
    assert sentences[-2] == "ZeroDivisionError: a bug"
    assert sentences[-1].startswith(DIED.format(1, 2))
    assert sum("Traceback" in line for line in sentences) == 1


@pytest.mark.slow
def test_ranks_that_end_at_different_times_say_nothing():
    code, out, sentences, _ = torchrun(3, "uneven_ends")
    assert (code, sentences) == (0, [])
    assert out.splitlines() == ["2 done", "0 done", "1 done"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_what_one_rank_is_refused_is_said_by_it_alone(victim):
    code, _, sentences, _ = torchrun(3, "refused_on_one", victim)
    assert (code, sentences) == (1, ["This rank has no image 7: copy it there."])


@pytest.mark.slow
def test_what_all_ranks_are_refused_is_said_once():
    code, _, sentences, _ = torchrun(3, "refused_on_all")
    assert code == 1
    [sentence] = sentences
    assert sentence.startswith("No rank has an image 7")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_work_that_fails_on_one_rank_fails_on_all_and_the_next_goes_on(victim):
    code, out, sentences, _ = torchrun(3, "failed_together", victim)
    told = "The third photo is damaged: copy it again."
    heard = [f"0 hears: {told}", "1 hears nothing", "2 hears nothing"]
    assert sorted(out.splitlines()) == sorted([*heard, "0 has 0", "1 has 1", "2 has 2"])
    assert (code, sentences) == (1, [told])


@pytest.mark.slow
def test_a_signal_to_all_is_said_once_and_is_no_death():
    _, _, _, seconds = done = torchrun(2, "stopped", 1)
    assert seconds < 30
    assert done[0] != 0
    assert "died" not in "".join(done[2])


@pytest.mark.slow
@pytest.mark.parametrize("die", [(), (1,), (0,), (0, 1), (1, 2)])
def test_all_end_whoever_dies(die, tmp_path):
    """More ranks, and several deaths at once, without torchrun, which would end them too."""
    call = [sys.executable, str(LIFELINES), str(tmp_path), ",".join(map(str, die))]
    with (tmp_path / "said").open("w") as said:
        started = [subprocess.Popen([*call, str(rank)], stderr=said, env=ENVIRONMENT) for rank in range(4)]
        codes = [process.wait(30) for process in started]
    assert codes == [-9 if rank in die else int(bool(die)) for rank in range(4)]
    lines = (tmp_path / "said").read_text().splitlines()
    assert len(lines) == bool(die)
    assert all(" died " in line for line in lines)


class OwnStore(dict):
    """A store of one process."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]


def test_strangers_are_sent_away_and_who_does_not_come_is_named(monkeypatch):
    class Store(OwnStore):
        def set(self, key, value):
            super().set(key, value)
            port, token = value.split()
            for said in (b"", b"GET / HTTP/1.1\r\n", bytes(36), bytes.fromhex(token)):
                with socket.create_connection(("localhost", int(port))) as stranger:
                    stranger.sendall(said)

    monkeypatch.setattr(lifeline, "JOIN_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"Process 1, 2 of 3 did not come within 0 s"):
        lifeline.connect(0, 3, "localhost", Store(), "k")


def test_a_machine_that_vanishes_is_noticed_within_30_seconds():
    """The probes of the system, which no test can let fail: 10 s of silence, then three, 5 s apart."""
    one, other = connected()
    with other:
        held = lifeline._hold(one)
        with socket.socket(fileno=os.dup(held.fileno())) as probed:
            assert probed.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, every, count = (
                probed.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            )
            assert idle + every * count < 30
            assert probed.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) < 30_000
            assert probed.gettimeout() is None
        held.close()


def connected():
    with socket.create_server(("localhost", 0)) as door:
        one = socket.create_connection(door.getsockname())
        return one, door.accept()[0]


def test_a_store_that_is_gone_lets_the_first_of_each_machine_speak(monkeypatch):
    class Gone:
        def add(self, *_):
            raise RuntimeError("connection refused")

    monkeypatch.setattr(lifeline, "STORE_SECONDS", 0.05)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [lifeline._first(Gone(), "k", rank) for rank in (0, 1, 2)] == [True, True, False]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert lifeline._first(Gone(), "k", 8)
