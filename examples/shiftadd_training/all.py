"""Train all stages of a network over several seeds, some of them at a time.

.venv-torch/bin/python -m examples.shiftadd_training.all --networks hybrid,vit --jobs 2
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MODULE = "examples.shiftadd_training.train"


def chain(network: str, seed: int, out: Path, more: list[str]) -> int:
    """Train one network's stages; its output goes to ``NETWORK-SEED.log``."""
    command = [sys.executable, "-m", MODULE, "--network", network, "--seed", str(seed)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{network}-{seed}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [*command, "--out", str(out), *more], stdout=log, stderr=log, check=False
        )
    print(f"{network}, seed {seed}: {'trained' if done.returncode == 0 else 'failed'}")
    return done.returncode


def main() -> None:
    """Start the chains; further arguments go to each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="hybrid,vit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/shiftadd"))
    options, more = parser.parse_known_args()
    work = [(n, s) for n in options.networks.split(",") for s in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda w: chain(w[0], w[1], options.out, more), work))
    raise SystemExit(1 if any(codes) else 0)


if __name__ == "__main__":
    main()
