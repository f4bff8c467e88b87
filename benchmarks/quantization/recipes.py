"""What is measured: the source, our precisions, and the public quantizers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMS", "SOURCE", "Form", "Ours", "Peer"]

_ENGINES = {
    "onnx": "ONNX Runtime",
    "linux-x86": "LiteRT",
    "linux-x86:engine=openvino": "OpenVINO",
    "iphone-npu": "Core ML evaluator",
    "iphone-npu:os=18": "Core ML evaluator",
}


@dataclass(frozen=True)
class Source:
    """The model as it is, in float32.

    Attributes:
        label: Row of the table, unique among the forms.
        family: Forms of one family compete: ``fp32``, ``W8A8``, ``W4``, ...
        engine: What executes it.
    """

    label: str = "fp32"
    family: str = "fp32"
    engine: str = "ONNX Runtime"


@dataclass(frozen=True)
class Ours:
    """A compile of ours.

    Attributes:
        name: Ends the row's label.
        target: Target name.
        precision: Precision name.
        passes: Pass specs; empty: the precision's own pipeline.
        extra: Measured only when named: it explains a default instead of being one.
    """

    name: str
    target: str
    precision: str
    passes: str = ""
    extra: bool = False

    @property
    def label(self) -> str:
        """As ``Source.label``."""
        return f"{self.target} {self.name}"

    @property
    def family(self) -> str:
        """As ``Source.family``."""
        return self.precision.removesuffix("-dyn").upper()

    @property
    def engine(self) -> str:
        """As ``Source.engine``."""
        plain = self.target.replace(",cpu=vnni", "").removesuffix(":cpu=vnni")
        return _ENGINES[plain]


@dataclass(frozen=True)
class Peer:
    """A public quantizer.

    Attributes:
        label: As ``Source.label``.
        family: As ``Source.family``.
        engine: As ``Source.engine``.
        tool: Key of ``quantizers.TOOLS``.
        suffix: Ending of the file it writes.
    """

    label: str
    family: str
    engine: str
    tool: str
    suffix: str

    @property
    def reads_tflite(self) -> bool:
        """Whether it quantizes a ``.tflite`` (our float32 one) instead of the ONNX file."""
        return self.suffix == ".tflite"


Form = Source | Ours | Peer
SOURCE = Source()


def _ort(label: str, family: str, tool: str) -> Peer:
    return Peer(f"ONNX Runtime {label}", family, "ONNX Runtime", f"ort-{tool}", ".onnx")


def _nncf(label: str, family: str, tool: str) -> Peer:
    return Peer(f"NNCF {label}", family, "OpenVINO", f"nncf-{tool}", ".xml")


def _litert(label: str, family: str, tool: str) -> Peer:
    return Peer(f"litert-quantizer {label}", family, "LiteRT", f"litert-{tool}", ".tflite")


_PEERS = (
    _ort("static, min-max", "W8A8", "static-minmax"),
    _ort("static, percentile", "W8A8", "static-percentile"),
    _ort("static, all operators", "W8A8", "static-all"),
    _ort("dynamic", "W8A8", "dynamic"),
    _nncf("transformer", "W8A8", "w8a8-transformer"),
    _nncf("default", "W8A8", "w8a8"),
    _litert("static", "W8A8", "static"),
    _litert("dynamic", "W8A8", "dynamic"),
    _ort("MatMulNBits, blocks of 32", "W4", "w4"),
    _nncf("int4, groups of 64", "W4", "w4"),
    _litert("int4", "W4", "w4"),
)

_NAIVE = "quantize{observer=minmax,weight-observer=minmax},sink-quantizers"
_QUANTIZE = "quantize,sink-quantizers"
_BRIDGE = "bridge-quant,sink-quantizers"
# Granularity, scheme and scales of inputs from one pass, codes of weights from the other.
_BOTH = "bridge-quant{weights=-1},compensate,sink-quantizers"
# Channel granularity for every tensor, by multiplications of their own where nothing folds.
_SMOOTH = "smooth-quant{explicit=true},quantize{weights=-1},compensate,sink-quantizers"
# Weights are the bottleneck: less is moved to them, and the worst layers get 8 bits.
_WIDE = (
    "smooth-quant{explicit=true,alpha=0.4,least=0},quantize{weights=-1},"
    "compensate{widen=0.75},sink-quantizers"
)
_EVERY = "quantize{rules=false},sink-quantizers"
_OPENVINO = "linux-x86:engine=openvino,cpu=vnni"
_OURS = (
    Ours("w8a8", "onnx:cpu=vnni", "w8a8"),
    Ours("w8a8-dyn", "onnx:cpu=vnni", "w8a8-dyn"),
    Ours("w8a8", "onnx", "w8a8"),
    Ours("w8a8 bridge", "onnx", "w8a8", _BRIDGE, extra=True),
    Ours("w8a8 outputs", "onnx", "w8a8", "quantize{outputs=Conv},sink-quantizers", extra=True),
    Ours("w8a8", _OPENVINO, "w8a8"),
    Ours("w8a8 every layer", _OPENVINO, "w8a8", _EVERY, extra=True),
    Ours("w8a8", "linux-x86", "w8a8"),
    Ours("w8a8-dyn", "linux-x86", "w8a8-dyn"),
    Ours("w8a8", "iphone-npu", "w8a8"),
    Ours("w6a6 naive", "onnx", "w6a6", _NAIVE),
    Ours("w6a6", "onnx", "w6a6"),
    Ours("w6a6 quantize", "onnx", "w6a6", _QUANTIZE, extra=True),
    Ours("w6a6 both", "onnx", "w6a6", _BOTH, extra=True),
    Ours("w6a6 smooth", "onnx", "w6a6", _SMOOTH, extra=True),
    Ours("w4a8 naive", "onnx", "w4a8", _NAIVE),
    Ours("w4a8", "onnx", "w4a8"),
    Ours("w4a8 quantize", "onnx", "w4a8", _QUANTIZE, extra=True),
    Ours("w4a8 both", "onnx", "w4a8", _BOTH, extra=True),
    Ours("w4a8 smooth", "onnx", "w4a8", _SMOOTH, extra=True),
    Ours("w4a8 wide", "onnx", "w4a8", _WIDE, extra=True),
    Ours("w4a4 naive", "onnx", "w4a4", _NAIVE),
    Ours("w4a4", "onnx", "w4a4"),
    Ours("w4a4 quantize", "onnx", "w4a4", _QUANTIZE, extra=True),
    Ours("w4a4 both", "onnx", "w4a4", _BOTH, extra=True),
    Ours("w4a4 smooth", "onnx", "w4a4", _SMOOTH, extra=True),
    Ours("w8", "onnx", "w8"),
    Ours("w4", "onnx", "w4"),
    Ours("w4", "linux-x86", "w4"),
    Ours("w4", "iphone-npu:os=18", "w4"),
)
# fp32 first: every difference is to it.
FORMS: tuple[Form, ...] = (SOURCE, *_PEERS, *_OURS)
