"""The one door by which passes, backends, engines and device files enter.

Everything is a name and a ``module:attribute`` string, loaded on use, so that asking what
exists imports nothing. The built-in set is a plug-in like any other.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from edgevit.errors import UsageError

__all__ = [
    "BUILTIN",
    "GROUP",
    "Kind",
    "Plugin",
    "load",
    "load_attribute",
    "merge",
    "names",
    "nearest",
    "plugins",
    "reference",
]

GROUP = "edgevit.plugins"
Kind = Literal["passes", "backends", "engines", "targets"]


@dataclass(frozen=True)
class Plugin:
    """What one distribution adds.

    Attributes:
        name: Owner shown in listings and in errors.
        passes: Spec name -> ``module:Class`` of a ``edgevit.pipeline.Pass``.
        backends: Backend name -> ``module:Class`` of a ``edgevit.backend.Backend``.
        engines: Engine name -> ``module:Class`` of a ``edgevit.runtimes.engine.Engine``.
        targets: Target name -> ``package:file.toml`` of a device file.
    """

    name: str
    passes: Mapping[str, str] = field(default_factory=dict)
    backends: Mapping[str, str] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)


_DEVICES = "edgevit.targets.devices"

BUILTIN = Plugin(
    name="edgevit",
    passes={
        "binary-attention": "edgevit.passes.binary_attention:BinaryAttention",
        "bridge-quant": "edgevit.passes.bridge_quant:BridgeQuant",
        "compensate": "edgevit.passes.compensate:Compensate",
        "correct-bias": "edgevit.passes.compensate:CorrectBias",
        "convshare": "edgevit.passes.convshare:ConvShare",
        "decompose-col2im": "edgevit.passes.decompose_col2im:DecomposeCol2Im",
        "decompose-norms": "edgevit.passes.decompose_norms:DecomposeNorms",
        "drop-unit-axes": "edgevit.passes.drop_unit_axes:DropUnitAxes",
        "einsum-to-matmul": "edgevit.passes.einsum_to_matmul:EinsumToMatMul",
        "equalize": "edgevit.passes.equalize:Equalize",
        "fold-affine": "edgevit.passes.fold_affine:FoldAffine",
        "fold-affine-ahead": "edgevit.passes.fold_affine_ahead:FoldAffineAhead",
        "fold-batchnorm": "edgevit.passes.fold_batchnorm:FoldBatchNorm",
        "fold-constants": "edgevit.passes.fold_constants:FoldConstants",
        "fold-norm-scales": "edgevit.passes.fold_norm_scales:FoldNormScales",
        "fold-pad": "edgevit.passes.fold_pad:FoldPad",
        "gemm-to-matmul": "edgevit.passes.gemm_to_matmul:GemmToMatMul",
        "hoist-affine": "edgevit.passes.hoist_affine:HoistAffine",
        "hoist-selections": "edgevit.passes.hoist_selections:HoistSelections",
        "inline-functions": "edgevit.passes.inline_functions:InlineFunctions",
        "infer-shapes": "edgevit.passes.infer_shapes:InferShapes",
        "join-transposes": "edgevit.passes.join_transposes:JoinTransposes",
        "log-quantize": "edgevit.passes.log_quantize:LogQuantize",
        "mark-optical": "edgevit.passes.mark_optical:MarkOptical",
        "merge-branches": "edgevit.passes.merge_branches:MergeBranches",
        "merge-duplicates": "edgevit.passes.merge_duplicates:MergeDuplicates",
        "merge-projections": "edgevit.passes.merge_projections:MergeProjections",
        "merge-transpose": "edgevit.passes.merge_transpose:MergeTranspose",
        "moe": "edgevit.passes.moe:Moe",
        "move-stored": "edgevit.passes.move_stored:MoveStored",
        "mixed-precision": "edgevit.passes.mixed_precision:MixedPrecision",
        "narrow-pointwise": "edgevit.passes.narrow_pointwise:NarrowPointwise",
        "narrow-reduce": "edgevit.passes.narrow_reduce:NarrowReduce",
        "narrow-transpose": "edgevit.passes.narrow_transpose:NarrowTranspose",
        "normalize-attention": "edgevit.passes.normalize_attention:NormalizeAttention",
        "normalize-attributes": "edgevit.passes.normalize_attributes:NormalizeAttributes",
        "normalize-cast": "edgevit.passes.normalize_cast:NormalizeCast",
        "normalize-clip": "edgevit.passes.normalize_clip:NormalizeClip",
        "normalize-conv": "edgevit.passes.normalize_conv:NormalizeConv",
        "normalize-expand": "edgevit.passes.normalize_expand:NormalizeExpand",
        "normalize-gather": "edgevit.passes.normalize_gather:NormalizeGather",
        "normalize-layer-norm": "edgevit.passes.normalize_layer_norm:NormalizeLayerNorm",
        "normalize-pad": "edgevit.passes.normalize_pad:NormalizePad",
        "normalize-pool": "edgevit.passes.normalize_pool:NormalizePool",
        "normalize-power": "edgevit.passes.normalize_power:NormalizePower",
        "normalize-reduce": "edgevit.passes.normalize_reduce:NormalizeReduce",
        "normalize-reshape": "edgevit.passes.normalize_reshape:NormalizeReshape",
        "normalize-resize": "edgevit.passes.normalize_resize:NormalizeResize",
        "normalize-slice": "edgevit.passes.normalize_slice:NormalizeSlice",
        "normalize-split": "edgevit.passes.normalize_split:NormalizeSplit",
        "normalize-transpose": "edgevit.passes.normalize_transpose:NormalizeTranspose",
        "order-operands": "edgevit.passes.order_operands:OrderOperands",
        "quantize": "edgevit.passes.quantize:Quantize",
        "quantize-selectively": "edgevit.passes.quantize_selectively:QuantizeSelectively",
        "project-convshare": "edgevit.passes.project_convshare:ProjectConvShare",
        "recover-activations": "edgevit.passes.recover_activations:RecoverActivations",
        "recover-attention": "edgevit.passes.recover_attention:RecoverAttention",
        "recover-gelu": "edgevit.passes.recover_gelu:RecoverGelu",
        "recover-group-norm": "edgevit.passes.recover_group_norm:RecoverGroupNorm",
        "recover-layer-norm": "edgevit.passes.recover_layer_norm:RecoverLayerNorm",
        "recover-shifts": "edgevit.passes.recover_shifts:RecoverShifts",
        "remove-dead": "edgevit.passes.remove_dead:RemoveDead",
        "remove-expand": "edgevit.passes.remove_expand:RemoveExpand",
        "remove-noops": "edgevit.passes.remove_noops:RemoveNoops",
        "shift-round": "edgevit.passes.shiftadd:ShiftRound",
        "shiftadd": "edgevit.passes.shiftadd:ShiftAdd",
        "sign-quantizers": "edgevit.passes.sign_quantizers:SignQuantizers",
        "sink-quantizers": "edgevit.passes.sink_quantizers:SinkQuantizers",
        "slices-to-split": "edgevit.passes.slices_to_split:SlicesToSplit",
        "smooth-quant": "edgevit.passes.smooth_quant:SmoothQuant",
        "split-variadic": "edgevit.passes.split_variadic:SplitVariadic",
        "trained-convshare": "edgevit.passes.trained_convshare:TrainedConvShare",
        "store-shifts": "edgevit.passes.store_shifts:StoreShifts",
        "unpack-shifts": "edgevit.passes.unpack_shifts:UnpackShifts",
        "widen-conv": "edgevit.passes.widen_conv:WidenConv",
    },
    backends={
        "coreml": "edgevit.targets.coreml.lower:CoreMLBackend",
        "litert": "edgevit.targets.litert.lower:LiteRTBackend",
        "onnx": "edgevit.targets.onnx.lower:OnnxBackend",
        "optical": "edgevit.targets.optical.lower:OpticalBackend",
        "tvm": "edgevit.targets.tvm.lower:TVMBackend",
    },
    engines={
        "coreml": "edgevit.runtimes.coreml:CoreMLEngine",
        "coreml-fp16-accumulate": "edgevit.runtimes.coreml:PessimisticEngine",
        "cuda": "edgevit.runtimes.cuda:CudaEngine",
        "litert": "edgevit.runtimes.litert:LiteRTEngine",
        "optical": "edgevit.runtimes.optical:OpticalEngine",
        "optical-wave": "edgevit.runtimes.optical:WaveEngine",
        "openvino": "edgevit.runtimes.openvino:OpenVINOEngine",
        "ort": "edgevit.runtimes.ort:OrtEngine",
        "tvm": "edgevit.runtimes.tvm:TVMEngine",
    },
    targets={
        "android-cpu": f"{_DEVICES}:android-cpu.toml",
        "iphone-npu": f"{_DEVICES}:iphone-npu.toml",
        "linux-x86": f"{_DEVICES}:linux-x86.toml",
        "linux-x86-openvino": f"{_DEVICES}:linux-x86-openvino.toml",
        "linux-x86-tvm": f"{_DEVICES}:linux-x86-tvm.toml",
        "nvidia-gpu": f"{_DEVICES}:nvidia-gpu.toml",
        "onnx": f"{_DEVICES}:onnx.toml",
        "optical-4f": f"{_DEVICES}:optical-4f.toml",
        "raspberry-pi-5": f"{_DEVICES}:raspberry-pi-5.toml",
        "raspberry-pi-5-tvm": f"{_DEVICES}:raspberry-pi-5-tvm.toml",
    },
)


@cache
def plugins() -> tuple[Plugin, ...]:
    """All installed plug-ins, the built-in one first, then by entry-point name.

    Raises:
        UsageError: An entry point cannot be loaded, or does not name a ``Plugin``.
    """
    found = [BUILTIN]
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.name):
        try:
            plugin = point.load()
        except (ImportError, AttributeError) as e:
            raise UsageError(
                f"the plug-in {point.name!r} ({point.value}) cannot be loaded: {e}",
                hint="install what it needs, or uninstall it",
            ) from e
        if not isinstance(plugin, Plugin):
            raise UsageError(
                f"entry point {point.name!r} in group {GROUP!r} is a "
                f"{type(plugin).__name__}, expected an edgevit.registry.Plugin"
            )
        if plugin is not BUILTIN:
            found.append(plugin)
    return tuple(found)


def merge(found: tuple[Plugin, ...], kind: Kind) -> dict[str, tuple[str, str]]:
    """Merge one kind of entry over plug-ins into name -> (reference, owner).

    Raises:
        UsageError: Two plug-ins own the same name; both are named.
    """
    merged: dict[str, tuple[str, str]] = {}
    for plugin in found:
        entries: Mapping[str, str] = getattr(plugin, kind)
        for name, reference in entries.items():
            if name in merged:
                raise UsageError(
                    f"{kind[:-1]} {name!r} is provided by both {merged[name][1]!r} "
                    f"and {plugin.name!r}",
                    hint="uninstall one of the two plug-ins",
                )
            merged[name] = (reference, plugin.name)
    return merged


def names(kind: Kind) -> dict[str, str]:
    """Name -> owner of everything of a kind, sorted by name."""
    return {name: owner for name, (_, owner) in sorted(merge(plugins(), kind).items())}


def nearest(name: str, known: list[str]) -> str:
    """A hint that suggests the nearest known name, or lists them all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(sorted(known))


def reference(kind: Kind, name: str) -> str:
    """The ``module:attribute`` string behind a name.

    Raises:
        UsageError: No such name; the hint suggests the nearest.
    """
    merged = merge(plugins(), kind)
    if name not in merged:
        raise UsageError(
            f"unknown {kind[:-1].replace('passe', 'pass')} {name!r}",
            hint=nearest(name, list(merged)),
        )
    return merged[name][0]


def load(kind: Kind, name: str) -> Any:
    """Import and return the object behind a name (passes, backends, engines)."""
    return load_attribute(reference(kind, name))


def load_attribute(target: str) -> Any:
    """Import and return the object behind a ``module:attribute`` string."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
