"""What the three folding passes share: visiting the sites, and performing a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, FoldChannels, Remark
from edgevit.errors import InternalError
from edgevit.passes.channel_folds import FoldSite, apply_fold, find_site
from edgevit.passes.channel_layers import ChannelLayer, channel_layers, layer_of
from edgevit.passes.facts import Array
from edgevit.pipeline import CalibratedPass, Change, Effect, Note, Outcome, Refusal
from edgevit.rewrite import Refused

__all__ = ["FoldPass", "Place", "fold_all", "gain_db", "notes_of", "places", "weight_power"]


@dataclass(frozen=True)
class Place:
    """A site with the layer at which it was found; each activation occurs once."""

    layer: ChannelLayer
    site: FoldSite


def places(model: ir.Model, explicit: bool) -> Iterator[Place | Refusal]:
    """Every activation that layers read: the site, or why there is none."""
    seen: set[ir.Value] = set()
    for layer in channel_layers(model):
        if layer.x in seen:
            continue
        seen.add(layer.x)
        site = find_site(layer, explicit)
        if isinstance(site, Refused):
            yield Refusal("fold-channels", layer.name, site.reason)
            continue
        seen.update(site.path)
        yield Place(layer, site)


@dataclass(frozen=True)
class FoldPass(CalibratedPass):
    """Base of passes whose plan is changes of channels; performing them is exact."""

    effect: ClassVar[Effect] = Effect.EXACT

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Apply every change.

        Raises:
            InternalError: The plan was made for another model, or holds other edits.
        """
        folds = [edit for edit in edits if isinstance(edit, FoldChannels)]
        said = tuple(Note("", edit.text) for edit in edits if isinstance(edit, Remark))
        if len(folds) + len(said) != len(edits):
            raise InternalError(f"{self.name}: the plan holds other edits than folds")
        changes = fold_all(model, folds, self.name)
        notes = (*said, *notes_of(folds))
        return Outcome(model, bool(changes), changes, self.refusals(model), notes)

    def refusals(self, model: ir.Model) -> tuple[Refusal, ...]:
        """What the pass leaves alone, and why. Default: nothing to say."""
        return ()


def fold_all(model: ir.Model, folds: Sequence[FoldChannels], rule: str) -> tuple[Change, ...]:
    """Apply changes in place; layers are found before the first edit renames anything.

    Raises:
        InternalError: The model does not have a layer of the plan, or no place for a change.
    """
    nodes = {layer.name: layer.node for layer in channel_layers(model)}
    missing = sorted({f.layer for f in folds} - set(nodes))
    if missing:
        raise InternalError(f"{rule}: the model has no layer {missing[0]!r}")
    for node, fold in [(nodes[f.layer], f) for f in folds]:
        layer = layer_of(node)
        site = find_site(layer, fold.explicit) if layer is not None else None
        if not isinstance(site, FoldSite):
            raise InternalError(f"{rule}: layer {fold.layer!r} has no place for a fold")
        apply_fold(model.graph, site, fold, rule)
    return tuple(Change(rule, f.layer, f.detail) for f in folds)


def notes_of(folds: Sequence[FoldChannels]) -> tuple[Note, ...]:
    """For the report: what each layer that reads a changed activation gains."""
    return tuple(
        Note(reader, fold.detail, gain)
        for fold in folds
        for reader, gain in zip(fold.readers, fold.gains_db, strict=True)
    )


def weight_power(site: FoldSite) -> Array:
    """Sum of squared weights over everything that reads each channel, ``[C]``."""
    total = np.zeros(site.channels)
    for reader in site.readers:
        square = reader.weight.astype(np.float64) ** 2
        if not reader.is_conv:
            total += square.sum(axis=1)
            continue
        parts = square.reshape(reader.group, -1, *reader.weight.shape[1:])
        total += parts.sum(axis=(1, 3, 4)).reshape(-1)
    return total


def gain_db(site: FoldSite, before: Array, after: Array) -> float:
    """What a change of quantization steps does to the noise at the readers' outputs.

    Rounding noise is ``step^2 / 12`` in every channel, and independent from channel to channel
    (Widrow's model); a reader weighs it by its squared weights.

    Args:
        site: Where.
        before: Step of every channel, ``[C]``.
        after: The same in the units of the activation before the change.
    """
    power = weight_power(site)
    noise = [float((power * step**2).sum()) for step in (before, after)]
    if min(noise) <= 0:
        return 0.0
    return 10.0 * float(np.log10(noise[0] / noise[1]))
