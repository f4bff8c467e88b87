"""What the code generator needs to know of a processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.errors import UsageError

__all__ = ["MACHINES", "Machine", "features", "machine", "native"]


@dataclass(frozen=True)
class Machine:
    """A processor as schedules see it.

    Attributes:
        name: As in ``mcpu=``: LLVM's name of the processor or level.
        triple: LLVM target triple.
        lanes: float32 elements of one vector register.
        registers: Vector registers.
        dot: Instruction for products of four bytes: ``vnni512`` (u8 x s8 into 16 x int32),
            ``vnni256`` (8 x int32), ``sdot`` (s8 x s8 into 4 x int32), or empty.
        features: Linux's names (``/proc/cpuinfo``) of what the code uses; checked before a
            call, as an illegal instruction is no error message.
    """

    name: str
    triple: str
    lanes: int
    registers: int
    dot: str
    features: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """``x86_64`` or ``aarch64``."""
        return self.triple.partition("-")[0]

    @property
    def integers(self) -> bool:
        """Whether kernels multiply codes here."""
        return True

    @property
    def tile_rows(self) -> int:
        """Rows of a register tile whose other side is ``tile_vectors`` vectors."""
        return 6

    @property
    def tile_vectors(self) -> int:
        """Vectors side by side in a register tile: accumulators and one row of B fit."""
        return (self.registers - 2) // (self.tile_rows + 1)

    @property
    def panel(self) -> int:
        """Columns of a register tile, and of a packed panel of weights."""
        return self.tile_vectors * self.lanes

    def target(self) -> Any:
        """The ``tvm.target.Target``."""
        import tvm

        return tvm.target.Target({"kind": "llvm", "mtriple": self.triple, "mcpu": self.name})


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
# What LLVM may use for this name; ``native`` does not choose it; bits are counted faster.
_ICELAKE = (
    *(*_AVX512, "avx512_vnni", "avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg"),
    *("avx512_vpopcntdq", "gfni", "vaes", "vpclmulqdq", "sha_ni", "rdpid"),
)

MACHINES: dict[str, Machine] = {
    m.name: m
    for m in (
        Machine("x86-64-v3", _X86, 8, 16, "", _AVX2),
        Machine("alderlake", _X86, 8, 16, "vnni256", (*_AVX2, "avx_vnni")),
        Machine("x86-64-v4", _X86, 16, 32, "", _AVX512),
        Machine("cascadelake", _X86, 16, 32, "vnni512", (*_AVX512, "avx512_vnni")),
        Machine("icelake-server", _X86, 16, 32, "vnni512", _ICELAKE),
        Machine("cortex-a76", _ARM, 4, 32, "sdot", ("asimd", "asimddp")),
        Machine("cortex-a72", _ARM, 4, 32, "", ("asimd",)),
    )
}


def machine(name: str) -> Machine:
    """The machine of an ``mcpu=`` name; ``native`` is the one this process runs on.

    Raises:
        UsageError: No schedule knows it.
    """
    if name == "native":
        return native()
    if name.startswith("sm_"):
        from edgevit.targets.tvm.gpu.device import GPUS

        return GPUS[name]
    if name not in MACHINES:
        raise UsageError(
            f"no schedule is written for mcpu={name!r}",
            hint="known: " + ", ".join(MACHINES),
        )
    return MACHINES[name]


def native() -> Machine:
    """The widest machine all of whose features this processor has.

    Raises:
        UsageError: It has none that is known.
    """
    words = features()
    fitting = [m for m in MACHINES.values() if set(m.features) <= words]
    if not fitting:
        raise UsageError(
            "mcpu=native: no schedule is written for this processor",
            hint="name one with mcpu=: " + ", ".join(MACHINES),
        )
    return max(fitting, key=lambda m: (m.lanes, bool(m.dot)))


def features() -> set[str]:
    """The words that Linux says of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    rows = (line.partition(":") for line in lines)
    return {w for k, _, v in rows if k.strip() in ("flags", "Features") for w in v.split()}
