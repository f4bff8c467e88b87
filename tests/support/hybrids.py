"""Small hybrid networks built block by block, every stream value named."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tests.support.graphs import GraphBuilder

__all__ = ["Hybrid"]

WIDTH = 4
HEADS = 2


@dataclass
class Hybrid:
    """Builds networks of width 4; a stream is a map (1, 4, S, S) or tokens (1, S * S, 4).

    The weights are random, so that no two layers are duplicates of each other.
    """

    size: int = 4
    g: GraphBuilder = field(default_factory=GraphBuilder)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def weight(self, *shape: int) -> str:
        """Normal numbers."""
        return self.g.const(self.rng.standard_normal(shape).astype(np.float32))

    def image(self) -> str:
        """The input, a map."""
        return self.g.input("x", (1, WIDTH, self.size, self.size))

    def conv(
        self, x: str, kernel: int, out: str = "", groups: int = 1, stride: int = 1
    ) -> str:
        """A convolution that keeps the size, or halves it."""
        weight = self.weight(WIDTH, WIDTH // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        return self.g.op(
            "Conv",
            x,
            weight,
            out=out,
            kernel_shape=[kernel] * 2,
            pads=pads,
            group=groups,
            strides=[stride] * 2,
        )

    def linear(self, x: str, out: str = "") -> str:
        """A product with a constant."""
        return self.g.op("MatMul", x, self.weight(WIDTH, WIDTH), out=out)

    def norm(self, x: str) -> str:
        """A layer normalization."""
        return self.g.op("LayerNormalization", x, self.weight(WIDTH), self.weight(WIDTH))

    def conv_unit(self, x: str, out: str) -> str:
        """A residual inverted bottleneck: point, depthwise, point."""
        a = self.g.op("Gelu", self.conv(x, 1))
        b = self.g.op("Gelu", self.conv(a, 3, groups=WIDTH))
        return self.g.op("Add", x, self.conv(b, 1), out=out)

    def tokens(self, x: str, out: str = "", side: int = 0) -> str:
        """Map to tokens."""
        side = side or self.size
        flat = self.g.op("Reshape", x, self.g.ints((1, WIDTH, side * side)))
        return self.g.op("Transpose", flat, perm=[0, 2, 1], out=out)

    def map(self, x: str, out: str = "", side: int = 0) -> str:
        """Tokens to map."""
        side = side or self.size
        turned = self.g.op("Transpose", x, perm=[0, 2, 1])
        return self.g.op("Reshape", turned, self.g.ints((1, WIDTH, side, side)), out=out)

    def _heads(self, x: str) -> str:
        split = self.g.op("Reshape", x, self.g.ints((1, -1, HEADS, WIDTH // HEADS)))
        return self.g.op("Transpose", split, perm=[0, 2, 1, 3])

    def attend(self, query: str, memory: str, out: str = "") -> str:
        """Attention of one stream to another, without a skip."""
        q, k, v = (self._heads(self.linear(s)) for s in (query, memory, memory))
        mixed = self.g.op("Attention", q, k, v)
        back = self.g.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.g.op("Reshape", back, self.g.ints((1, -1, WIDTH)))
        return self.linear(joined, out)

    def attention(self, x: str, out: str = "") -> str:
        """A residual self-attention on tokens."""
        normed = self.norm(x)
        return self.g.op("Add", x, self.attend(normed, normed), out=out)

    def mlp(self, x: str, out: str = "") -> str:
        """A residual feed-forward on tokens."""
        hidden = self.g.op("Gelu", self.linear(self.norm(x)))
        return self.g.op("Add", x, self.linear(hidden), out=out)

    def block(self, x: str, out: str = "") -> str:
        """Attention and feed-forward."""
        return self.mlp(self.attention(x), out)

    def map_attention(self, x: str, out: str = "", talking: bool = False) -> str:
        """A residual attention on a map, its projections convolutions, left in pieces."""
        scale = (1, HEADS, WIDTH // HEADS, self.size**2)
        q, k, v = (self.g.op("Reshape", self.conv(x, 1), self.g.ints(scale)) for _ in range(3))
        scores = self.g.op("MatMul", self.g.op("Transpose", q, perm=[0, 1, 3, 2]), k)
        if talking:
            weight = self.weight(HEADS, HEADS, 1, 1)
            scores = self.g.op("Conv", scores, weight, kernel_shape=[1, 1])
        weights = self.g.op("Softmax", scores, axis=-1)
        mixed = self.g.op("MatMul", v, self.g.op("Transpose", weights, perm=[0, 1, 3, 2]))
        shape = self.g.ints((1, WIDTH, self.size, self.size))
        back = self.conv(self.g.op("Gelu", self.g.op("Reshape", mixed, shape)), 1)
        return self.g.op("Add", x, back, out=out)

    def separable_attention(self, x: str, out: str = "") -> str:
        """MobileViTv2's attention on a map: a softmax over one channel weighs the keys."""
        weight = self.weight(2 * WIDTH + 1, WIDTH, 1, 1)
        qkv = self.g.op("Conv", x, weight, kernel_shape=[1, 1])
        names = [f"{qkv}_{part}" for part in "qkv"]
        sizes = self.g.ints((1, WIDTH, WIDTH))
        self.g.op("Split", qkv, sizes, out=names, axis=1)
        scores = self.g.op("Softmax", names[0], axis=-1)
        weighed = self.g.op("Mul", names[1], scores)
        context = self.g.op("ReduceSum", weighed, self.g.ints((3,)), keepdims=1)
        mixed = self.g.op("Mul", self.g.op("Relu", names[2]), context)
        return self.g.op("Add", x, self.conv(mixed, 1), out=out)
