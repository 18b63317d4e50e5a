"""Several processes at one cache, one of them killed."""

import multiprocessing
import time
import warnings

import torch

from tests.toys.cached import ALL, TinyEncoder, closed, fill, opened, split_of

IMAGES, ROWS = 24, 4


def started(log, seconds):
    process = multiprocessing.get_context("fork").Process(target=fill, args=(log, IMAGES, seconds, ROWS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, of which it uses none
        process.start()
    return process


def check_whole(new_cache, tmp_path):
    """Everything is there, nothing has to be opened, and it is what an encoder says without a cache."""
    photos = split_of(IMAGES, tmp_path / "other log")
    plain = TinyEncoder().images(photos.views, ALL)
    found = new_cache().around(TinyEncoder(), photos).images(closed(photos), ALL)
    assert torch.equal(found.global_ND, plain.global_ND)
    assert all(torch.equal(found.patches[path], plain.patches[path]) for path in plain.patches)


def test_two_processes_fill_it_at_once(tmp_path, new_cache):
    logs = [tmp_path / "one", tmp_path / "two"]
    running = [started(log, 0.03) for log in logs]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    # each began before the other had finished: both computed
    assert all(opened(log) for log in logs)
    check_whole(new_cache, tmp_path)


def test_a_killed_process_keeps_its_finished_shards(tmp_path, new_cache, cache_root):
    log = tmp_path / "killed"
    running = started(log, 0.2)
    while not list(cache_root.rglob("[!.]*.safetensors")):
        assert running.is_alive()
        time.sleep(0.01)
    running.kill()
    running.join()
    kept = len(list(cache_root.rglob("[!.]*.safetensors"))) * ROWS
    assert ROWS <= kept < IMAGES
    again = tmp_path / "again"
    rest = started(again, 0)
    rest.join()
    assert rest.exitcode == 0
    assert opened(again) == [f"photo{number}.jpg" for number in range(kept, IMAGES)]
    check_whole(new_cache, tmp_path)
