"""Several processes give the parameter gradients of one, for every loss, its weights and options, at uneven ranks."""

import os
from functools import cache
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparc_bench.cards import discovery
from sparc_bench.distributed import mean_over_ranks, rows_per_rank
from sparc_bench.objective import Ctx, ImageOut, TextOut
from tests.toys.tower_outputs import WI, WT, make, outputs, rows

ROWS = 7
FURTHER = {
    "filip": {"token_drop": 0.4},
    "clip_filip": {"token_drop": 0.4},
    "sparc": {"fine_negatives": "captions_and_images", "other_images": 2},
}


@cache
def cases():
    """(objective, its options): the defaults, `FURTHER`, every weight tripled in turn, every choice off its default."""
    found = []
    for name in discovery.names("objectives"):
        fields = discovery.load("objectives", name).Objective.Options.model_fields
        variants = [{}, FURTHER.get(name, {})]
        for key, field in fields.items():
            if key.endswith("_weight"):
                variants.append({key: 3 * field.default})
            choices = getattr(field.annotation, "__args__", ()) if key not in ("image_head", "text_pool") else ()
            variants += [{key: choice} for choice in choices if isinstance(choice, str) and choice != field.default]
        found += [(name, options) for at, options in enumerate(variants) if options or at == 0]
    return found


class Toy(nn.Module):
    """A linear layer as each tower, and the objective, as one module to wrap."""

    def __init__(self, name, options):
        super().__init__()
        self.objective = make(name, **options)
        self.image, self.text = nn.Linear(WI, WI), nn.Linear(WT, WT)

    def forward(self, image, text, ctx):
        words_BKL1 = text.mask_BKL[..., None]
        tokens_BKLW = self.text(text.tokens_BKLW)
        pooled_BKW = (tokens_BKLW * words_BKL1).sum(2) / words_BKL1.sum(2)
        seen = ImageOut(self.image(image.patches_BPW), self.image(image.pooled_BMW), image.grid)
        return self.objective(seen, TextOut(tokens_BKLW, pooled_BKW, text.mask_BKL, text.special_BKL), ctx)


def gradients(name, options, rank=0, world=1):
    """Loss and parameter gradients of this rank's share of one batch, with and without known-true pairs."""
    found = {}
    for with_truth in (False, True):
        model = Toy(name, options).double()
        counts = rows_per_rank(ROWS, world)
        own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        image, text = rows(*outputs(model.objective, dtype=torch.float64, batch=ROWS), own)
        longest = int((text.mask_BKL | text.special_BKL).flatten(0, 1).any(0).nonzero().max()) + 1
        text = TextOut(
            text.tokens_BKLW[:, :, :longest],
            text.pooled_BKW,
            text.mask_BKL[..., :longest],
            text.special_BKL[..., :longest],
        )
        known = torch.zeros(ROWS, ROWS, model.objective.captions_per_image, dtype=torch.bool)
        for a, b in pairwise(range(ROWS)):
            known[a, b, (a * b) % known.shape[2]] = with_truth
        ctx = Ctx(
            rank=rank,
            world=world,
            counts=counts,
            generator=torch.Generator().manual_seed(5),
            extra={"known_true": known},
        )
        wrapped = model if world == 1 else DistributedDataParallel(model)
        figures = wrapped(image, text, ctx)
        figures["loss"].backward()
        found[f"loss {with_truth}"] = mean_over_ranks({"loss": figures["loss"]})["loss"].detach()
        found |= {f"{key} {with_truth}": parameter.grad.clone() for key, parameter in model.named_parameters()}
    return found


def work(rank, world, folder, port):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = [gradients(name, options, rank, world) for name, options in cases()]
    if rank == world - 1:  # gradients are averaged: the last rank, which has the fewest rows, holds what all hold
        torch.save(found, folder / "found.pt")
    dist.barrier()
    os._exit(0)  # gloo may abort a process whose peers close their connections first, and closing is not tested here


@pytest.fixture(scope="session", params=[2, 3])
def spread(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    meeting = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(work, (request.param, folder, meeting.port), nprocs=request.param)
    return torch.load(folder / "found.pt")


@pytest.mark.slow
@pytest.mark.parametrize("at", range(len(cases())), ids=[f"{name}-{options or ''}" for name, options in cases()])
def test_gradients_of_several_processes_are_those_of_one(spread, at):
    ours, plain = spread[at], gradients(*cases()[at])
    assert ours.keys() == plain.keys()
    for key, value in plain.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")
