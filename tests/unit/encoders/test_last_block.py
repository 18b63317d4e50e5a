import torch
from torch import Tensor, nn

from sparc_bench.encoders._last_block import WAYS, LastBlock, clearclip, heads_of, last, sclip, value

BATCH, TOKENS, HEADS, HEAD_WIDTH = 2, 5, 3, 4
WIDTH = HEADS * HEAD_WIDTH
SCALE = 0.37


class Parts:
    """A block's layers, and the block of them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        for layer in (self.q, self.k):  # far from uniform attention
            nn.init.normal_(layer.weight)
        self.block = LastBlock(
            qkv=lambda x: tuple(heads_of(layer(self.norm1(x)), HEADS) for layer in (self.q, self.k, self.v)),
            out=self.out,
            feed_forward=lambda x: self.feed_forward(self.norm2(x)),
            scale=SCALE,
        )
        self.x_BTW = torch.randn(BATCH, TOKENS, WIDTH)

    def attended(self, weight: object) -> Tensor:
        """Heads put together, token by token, head by head; `weight(q, k)` are a head's weights over tokens."""
        x_BTW = self.norm1(self.x_BTW)
        rows = torch.zeros_like(x_BTW)
        for image in range(BATCH):
            q, k, v = (layer(x_BTW[image]) for layer in (self.q, self.k, self.v))
            for head in range(HEADS):
                part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
                weights_TT = weight(q[:, part], k[:, part])
                for token in range(TOKENS):
                    for other in range(TOKENS):
                        rows[image, token, part] += weights_TT[token, other] * v[other, part]
        return rows

    def whole(self, rows: Tensor) -> Tensor:
        y = self.x_BTW + self.out(rows)
        return y + self.feed_forward(self.norm2(y))


def softmax(a: Tensor, b: Tensor) -> Tensor:
    exponent = torch.stack([torch.stack([SCALE * (x * y).sum() for y in b]) for x in a]).exp()
    return exponent / exponent.sum(1, keepdim=True)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_last_is_the_block_as_trained():
    parts = Parts()
    close(last(parts.x_BTW, parts.block), parts.whole(parts.attended(softmax)))


@torch.no_grad()
def test_value_is_maskclip():
    parts = Parts()
    rows = parts.v(parts.norm1(parts.x_BTW))
    close(value(parts.x_BTW, parts.block), parts.whole(rows))


@torch.no_grad()
def test_sclip_adds_attention_of_queries_and_of_keys():
    parts = Parts()
    rows = parts.attended(lambda q, k: softmax(q, q) + softmax(k, k))
    close(sclip(parts.x_BTW, parts.block), parts.whole(rows))


@torch.no_grad()
def test_clearclip_has_neither_residual_nor_feed_forward():
    parts = Parts()
    close(clearclip(parts.x_BTW, parts.block), parts.out(parts.attended(lambda q, _: softmax(q, q))))


@torch.no_grad()
def test_ways_differ_from_each_other():
    parts = Parts()
    found = [way(parts.x_BTW, parts.block) for way in WAYS.values()]
    assert all((a - b).abs().max() > 0.01 for i, a in enumerate(found) for b in found[:i])


@torch.no_grad()
def test_value_of_a_token_sees_no_other():
    parts = Parts()
    moved = parts.x_BTW.clone()
    moved[:, 1] += 1
    before, after = value(parts.x_BTW, parts.block), value(moved, parts.block)
    others = [0, 2, 3, 4]
    close(after[:, others], before[:, others])
    assert (after[:, 1] - before[:, 1]).abs().max() > 0.01
