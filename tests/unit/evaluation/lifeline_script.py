"""One of four processes with a lifeline and a store of files: `lifeline_script.py FOLDER RANKS_THAT_DIE RANK`."""

import os
import signal
import sys
import time
from pathlib import Path

from sparc_bench.evaluation import lifeline

WORLD = 4


class Files:
    """What a lifeline uses of torchrun's store."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def set(self, key, value):
        part = self.folder / "part"
        part.write_text(value)
        part.rename(self.folder / key.replace("/", "_"))

    def get(self, key):
        file = self.folder / key.replace("/", "_")
        while not file.exists():
            time.sleep(0.01)
        return file.read_bytes()

    def add(self, key, _):
        for count in range(1, WORLD + 1):
            try:
                (self.folder / f"{key.replace('/', '_')}.{count}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return count


def main(folder, die, rank):
    line = lifeline.connect(rank, WORLD, "localhost", Files(folder), "k")
    assert line.gather(rank * 10) == [0, 10, 20, 30]
    if rank in die:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if die:
        line.gather(None)
    line.leave(lifeline.Farewell())


if __name__ == "__main__":
    main(sys.argv[1], [int(rank) for rank in sys.argv[2].split(",") if rank], int(sys.argv[3]))
