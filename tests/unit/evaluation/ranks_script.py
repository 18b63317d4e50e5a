"""What the processes of `test_ranks` do: `python -m torch.distributed.run ... ranks_script.py WHAT [RANK]`."""

import os
import signal
import sys
import time

from sparc_bench import stop_signals
from sparc_bench.cli.mistakes import fail
from sparc_bench.errors import ElsewhereError, StoppedError, UserError
from sparc_bench.evaluation.ranks import evaluation_ranks


def say(text):
    os.write(1, f"{text}\n".encode())  # whole, however many write


def gather(ranks, _):
    for turn in range(3):
        assert ranks.gather((ranks.rank, turn, "x" * 10**6 * ranks.rank)) == [
            (rank, turn, "x" * 10**6 * rank) for rank in range(ranks.world)
        ]
    say(f"{ranks.rank} of {ranks.world} on {ranks.device}")


def die_while_others_wait(ranks, victim):
    if ranks.rank == victim:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gather(None)


def die_while_others_compute(ranks, victim):
    ranks.gather(None)
    if ranks.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        sum(range(10**6))


def die_with_a_child_that_decodes(ranks, victim):
    ranks.gather(None)
    if os.fork() == 0:  # as a worker of a loader, which outlives its parent for seconds
        time.sleep(8)
        os._exit(0)
    die_while_others_compute(ranks, victim)


def crash(ranks, victim):
    if ranks.rank == victim:
        raise ZeroDivisionError("a bug")
    ranks.gather(None)


def uneven_ends(ranks, _):
    ranks.gather(None)
    time.sleep(1.5 * ((ranks.rank + 1) % ranks.world))  # the last rank ends first, then rank 0
    say(f"{ranks.rank} done")


def refused_on_one(ranks, victim):
    if ranks.rank == victim:
        raise UserError("This rank has no image 7: copy it there.")
    ranks.gather(None)


def refused_on_all(ranks, _):
    raise UserError(f"No rank has an image 7, nor has {ranks.rank}: copy it there.")


def failed_together(ranks, victim):
    """A task that fails on one rank, which the others hear between two blocks, and one that does not."""

    def work():
        if ranks.rank == victim:
            raise UserError("The third photo is damaged: copy it again.")
        while True:
            ranks.heed()
            time.sleep(0.01)

    try:
        ranks.together(work)
    except ElsewhereError:
        say(f"{ranks.rank} hears nothing")
    except UserError as error:
        say(f"{ranks.rank} hears: {error}")
    ranks.heed()
    say(f"{ranks.rank} has {ranks.together(lambda: ranks.rank)}")
    ranks.together(work)


def stopped(ranks, victim):
    ranks.gather(None)
    if ranks.rank == victim:
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)


def main(what, victim="-1"):
    try:
        with stop_signals.raised(), evaluation_ranks("cpu") as ranks:
            globals()[what](ranks, int(victim))
    except StoppedError as error:
        if os.environ["RANK"] == "0":
            os.write(2, f"{error}\n".encode())
        return error.code
    except ElsewhereError:
        return 2
    except UserError as error:
        return fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
