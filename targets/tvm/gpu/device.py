"""What the code generator needs to know of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgevit.targets.tvm.machine import Machine

__all__ = ["GPUS", "PANEL", "Gpu"]

# Columns of a packed panel of weights: the widest tile of a block.
PANEL = 64


@dataclass(frozen=True)
class Gpu(Machine):
    """A GPU as schedules see it: ``lanes`` are the columns of a packed panel.

    Attributes:
        units: Blocks that keep all multiprocessors busy; smaller tiles are taken below.
        memory: Bytes of shared memory that a block may have.
    """

    units: int = 108
    memory: int = 48 << 10

    @property
    def tile_vectors(self) -> int:
        """Panels side by side in a tile."""
        return 1

    @property
    def integers(self) -> bool:
        """Codes are computed as the numbers that they mean."""
        return False

    def target(self) -> Any:
        """The ``tvm.target.Target``."""
        import tvm

        return tvm.target.Target({"kind": "cuda", "arch": self.name})


def _gpu(name: str) -> Gpu:
    return Gpu(name, "nvptx64-nvidia-cuda", PANEL, 32, "", (name,))


# By the oldest architecture that runs the code; the driver compiles it for newer ones.
GPUS = {name: _gpu(name) for name in ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100")}
