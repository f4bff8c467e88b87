"""Published latencies on Apple's neural engine of architectures that timm has.

All are batch 1, float16, Core ML, measured by the authors named. Nothing here was measured
for this repository: there is no phone.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published"]

EFFICIENTFORMER = "https://github.com/snap-research/EfficientFormer (README)"
FASTVIT = "https://github.com/apple/ml-fastvit (README)"
REPVIT = "arXiv 2307.09283, table of iPhone 12 latencies"
COREML = "https://apple.github.io/coremltools (opt-quantization-perf)"


@dataclass(frozen=True)
class Published:
    """One row of a table.

    Attributes:
        family: Models of one family are calibrated on or reported on together.
        model: Name in timm.
        chip: The phone's chip.
        milliseconds: Latency.
        source: Who says so.
    """

    family: str
    model: str
    chip: str
    milliseconds: float
    source: str


def _rows(family: str, chip: str, source: str, **figures: float) -> tuple[Published, ...]:
    return tuple(Published(family, m, chip, ms, source) for m, ms in figures.items())


PUBLISHED = (
    *_rows(
        "EfficientFormer",
        "A14",
        EFFICIENTFORMER,
        efficientformer_l1=1.6,
        efficientformer_l3=3.0,
        efficientformer_l7=7.0,
    ),
    *_rows(
        "EfficientFormerV2",
        "A14",
        EFFICIENTFORMER,
        efficientformerv2_s0=0.9,
        efficientformerv2_s1=1.1,
        efficientformerv2_s2=1.6,
        efficientformerv2_l=2.7,
    ),
    *_rows(
        "FastViT",
        "A14",
        FASTVIT,
        fastvit_t8=0.8,
        fastvit_t12=1.2,
        fastvit_sa12=1.6,
        fastvit_sa24=2.6,
        fastvit_ma36=4.6,
    ),
    *_rows("MobileViTv2", "A16", COREML, mobilevitv2_100=1.38),
    *_rows("MobileViTv2", "A17", COREML, mobilevitv2_100=1.36),
    *_rows(
        "RepViT",
        "A14",
        REPVIT,
        repvit_m0_9=0.9,
        repvit_m1_0=1.0,
        repvit_m1_1=1.1,
        repvit_m1_5=1.5,
        repvit_m2_3=2.3,
    ),
    *_rows("ResNet", "A17", COREML, resnet50=1.38),
    *_rows(
        "SwiftFormer",
        "A14",
        REPVIT,
        swiftformer_xs=1.0,
        swiftformer_s=1.2,
        swiftformer_l1=1.6,
        swiftformer_l3=2.9,
    ),
)
