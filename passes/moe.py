"""Perceptrons become mixtures of a multiplication and a shift expert, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, KeepFloat, MixExperts
from edgevit.errors import InternalError, UsageError
from edgevit.passes.facts import Array
from edgevit.passes.fit_router import captured, fit
from edgevit.passes.mixture_experts import Shifted, errors, int8_layer, shifted
from edgevit.passes.mixture_parts import attention_ahead, put
from edgevit.passes.mixture_sites import Site, sites
from edgevit.passes.remove_dead import RemoveDead
from edgevit.pipeline import CalibratedPass, Change, Context, Outcome, Refusal
from edgevit.statistics import stream

__all__ = ["ROUTERS", "Moe", "tokens_of"]

ROUTERS = ("fitted", "norm", "class-attention", "random")
# Tokens of a site that experts and routers are fitted on; of each sample the same number.
TOKENS = 8192


@dataclass(frozen=True)
class Moe(CalibratedPass):
    """Two experts of the same weights: some tokens are multiplied, the others shifted.

    ``y = W2 act(W1 x + b1) + b2``
    ->  ``ai.edgevit.MixtureOfPrimitives..(x, score(x), W1, b1, W2, b2, codes1, ...)``

    The ``capacity`` tokens with the largest scores keep the layers' own weights, all others
    get sums of ``terms`` powers of two. ShiftAddViT (arXiv 2306.06446) trains such mixtures;
    here nothing is trained, the router least of all: it is a regression of the shift expert's
    error on calibration tokens. Shapes are static, so that any backend can run it:
    ``capacity = round(T share)``, and with latencies ``share = shift / (multiply + shift)``,
    when both experts take equally long.

    1. Two linear layers with Gelu, Silu or Relu between (``sites=mlp``), found wherever they
       are repeated, or single linear layers (``sites=linear``), over two tokens at least.
    2. A capacity of none or of all tokens is refused: it would be no mixture.
    3. ``class-attention`` reads the attention in front: what its first token looks at.

    Attributes:
        sites: ``mlp`` or ``linear``.
        share: Of tokens that are multiplied; the released code's balance is 0.4.
        latencies: ``multiply:shift`` in any unit, as measured; decides instead of ``share``.
        router: ``fitted``, ``norm``, ``class-attention`` or, to compare with, ``random``.
        expert: ``float``, or ``int8`` for stored weights of 8 bits.
        terms: Shift terms of a weight, 1 to 3.
        samples: Calibration samples that are looked at.
    """

    name: ClassVar[str] = "moe"

    sites: str = "mlp"
    share: float = 0.4
    latencies: str = ""
    router: str = "fitted"
    expert: str = "float"
    terms: int = 1
    samples: int = 64

    def __post_init__(self) -> None:
        choices = {
            "sites": ("mlp", "linear"),
            "router": ROUTERS,
            "expert": ("float", "int8"),
            "terms": (1, 2, 3),
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise UsageError(
                    f"pass {self.name!r}: no {key} {getattr(self, key)!r}",
                    hint=f"{key} can be: {', '.join(map(str, known))}",
                )
        if self.samples < 1:
            raise UsageError(
                f"pass {self.name!r}: expected samples >= 1, found {self.samples}"
            )
        self.part()

    def part(self) -> float:
        """The share of tokens that are multiplied.

        Raises:
            UsageError: It is not between 0 and 1, or latencies are no two positive numbers.
        """
        if not self.latencies:
            if not 0 <= self.share <= 1:
                raise UsageError(
                    f"pass {self.name!r}: expected a share within 0 and 1, found {self.share}"
                )
            return self.share
        try:
            multiply, shift = (float(n) for n in self.latencies.split(":"))
        except ValueError:
            multiply = shift = 0.0
        if not (0 < multiply < np.inf and 0 < shift < np.inf):
            raise UsageError(
                f"pass {self.name!r}: no two latencies in {self.latencies!r}",
                hint="multiply:shift in any unit, as latencies=6:4",
            )
        return shift / (multiply + shift)

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Experts and a router for every site, or why it stays."""
        found = sites(model, self.sites)
        refused = {site.name: self._refusal(model, site) for site in found}
        kept = [site for site in found if refused[site.name] is None]
        edits: list[Edit] = [KeepFloat(n, why) for n, why in refused.items() if why]
        if not kept:
            return tuple(edits)
        seen = tokens_of(model, kept, context, str(self), self.samples)
        rng = np.random.default_rng(context.seed)
        for site, (x, of) in zip(kept, seen, strict=True):
            edits.append(self.mixed(site, x, of, rng, least_scale(context)))
        return tuple(edits)

    def _refusal(self, model: ir.Model, site: Site) -> str | None:
        if site.tokens < 2:
            return "one token: there is nothing to route"  # case 1
        capacity = round(site.tokens * self.part())
        if capacity in (0, site.tokens):  # case 2
            which = "none: every token shifts, which shiftadd does" if not capacity else "all"
            return f"the capacity for multiplication is {which} of {site.tokens} tokens"
        if any(not np.isfinite(layer.weight).all() for layer in site.layers):
            return "a weight is not finite"
        if self.router == "class-attention" and attention_ahead(model, site) is None:
            return (
                f"no attention of {site.tokens} tokens in front, whose class token could say"
            )
        return None

    def mixed(
        self, site: Site, x: Array, of: Array, rng: np.random.Generator, least: float = 0.0
    ) -> MixExperts:
        """The edit of one site.

        Args:
            site: The layers.
            x: Its calibration tokens ``[n, d]``.
            of: Which sample each is of.
            rng: Of a random router.
            least: Smallest scale of codes.
        """
        made = shifted(site, x, self.terms, least)
        dense = tuple(layer.dense() for layer in made)
        error = errors(site, dense, x)
        if self.expert == "int8":
            own = tuple(int8_layer(layer, least) for layer in site.layers)
            error = error - errors(site, own, x)
        linear: Array | None = None
        square: Array | None = None
        said = ""
        if self.router == "fitted":
            router = fit(x, error, of, self.part())
            linear, square = router.linear, router.square
            said = f"; held out, those have {router.held_out:.0%} of the shift expert's error"
        elif self.router == "norm":
            part = captured(np.square(x).sum(1), error, self.part())
            said = f"; those have {part:.0%} of the shift expert's error"
        elif self.router == "random":
            linear = rng.permutation(site.tokens).astype(np.float32)
        capacity = round(site.tokens * self.part())
        alike = f", one of {site.alike} alike" if site.alike > 1 else ""
        detail = (
            f"{capacity} of {site.tokens} tokens multiply{alike}{said}; {self._size(site)}"
        )
        edit = _edit(site, self, made, capacity, linear, square, detail)
        return replace(edit, least=least)

    def _size(self, site: Site) -> str:
        """Terms and bytes of the weights: both experts are kept."""
        count = sum(layer.weight.size for layer in site.layers)
        own = count * (1 if self.expert == "int8" else 4)
        codes = sum(
            self.terms * -(-layer.weight.shape[0] // 2) * layer.weight.shape[1]
            for layer in site.layers
        )
        terms = f"{self.terms} term{'s' if self.terms > 1 else ''}"
        return f"the others shift by {terms}; weights {4 * count} -> {own + codes} bytes"

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Put the mixtures in.

        Raises:
            InternalError: The plan was made for another model.
        """
        found = {site.name: site for site in sites(model, self.sites)}
        changes: list[Change] = []
        refusals: list[Refusal] = []
        for edit in edits:
            if isinstance(edit, KeepFloat):
                refusals.append(Refusal(self.name, edit.node, edit.reason))
            elif isinstance(edit, MixExperts) and edit.value in found:
                put(model, found[edit.value], edit, self.name)
                changes.append(Change(self.name, edit.value, edit.detail))
            else:
                raise InternalError(f"{self.name}: the plan names {edit!r}, not in the model")
        if changes:
            RemoveDead().call(model)
        return Outcome(model, bool(changes), tuple(changes), tuple(refusals))


def _edit(
    site: Site,
    options: Moe,
    made: tuple[Shifted, ...],
    capacity: int,
    linear: Array | None,
    square: Array | None,
    detail: str,
) -> MixExperts:
    first, *rest = made
    second = rest[0] if rest else None
    return MixExperts(
        value=site.name,
        capacity=capacity,
        router=options.router,
        terms=options.terms,
        q=first.q,
        scale=first.scale,
        bias=first.bias,
        q2=None if second is None else second.q,
        scale2=None if second is None else second.scale,
        bias2=None if second is None else second.bias,
        linear=linear,
        square=square,
        narrow=options.expert == "int8",
        detail=detail,
    )


def least_scale(context: Context) -> float:
    """Of codes that the artifact can hold: see ``QuantScheme.least_scale``."""
    target, precision = context.target, context.precision
    if target is None or precision == "fp32":
        return 0.0
    schemes = target.quantization
    held = [schemes[precision]] if precision in schemes else schemes.values()
    return max((scheme.least_scale for scheme in held), default=0.0)


def tokens_of(
    model: ir.Model, kept: Sequence[Site], context: Context, spec: str, count: int
) -> list[tuple[Array, Array]]:
    """Calibration tokens ``[n, d]`` of each site, and which sample each is of.

    Args:
        model: Canonical model.
        kept: The sites.
        context: Has the samples and the seed of what is picked of them.
        spec: Named where there are no samples.
        count: Samples looked at.
    """
    names = list(dict.fromkeys(str(site.x.name) for site in kept))
    rng = np.random.default_rng(context.seed)
    source = context.data(spec)
    each = max(TOKENS // max(min(len(source), count), 1), 1)
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for sample in islice(stream(model, source, names), count):
        for name, kept_rows in _picked(sample, names, each, rng):
            rows[name].append(kept_rows)
    found = []
    for site in kept:
        parts = rows[str(site.x.name)]
        of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        found.append((np.concatenate(parts), of))
    return found


def _picked(
    sample: dict[str, Array], names: Sequence[str], each: int, rng: np.random.Generator
) -> Iterator[tuple[str, Array]]:
    for name in names:
        tokens = sample[name].reshape(-1, sample[name].shape[-1])
        if len(tokens) > each:
            tokens = tokens[np.sort(rng.choice(len(tokens), each, replace=False))]
        yield name, tokens
