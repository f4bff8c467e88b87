"""Child process: runs an ``.onnx`` file in OpenVINO; says which precision each layer has.

argv: the model, an ``.npz`` of feeds, an ``.npz`` to write the outputs to. Writes JSON:
``[[layer type, run-time precision], ...]``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgevit.bundle import Part
from edgevit.runtimes.openvino import OpenVINOEngine


def main() -> None:
    """Run once."""
    part = Part(engine="openvino", artifact=sys.argv[1], inputs=(), outputs=())
    with np.load(sys.argv[2]) as data:
        feeds = {name: data[name] for name in data.files}
    with OpenVINOEngine().open(Path(sys.argv[1]), part, threads=1) as executor:
        np.savez(sys.argv[3], **executor.run(feeds))  # type: ignore[arg-type]
        runtime = executor._compiled.get_runtime_model()
        said = [op.get_rt_info() for op in runtime.get_ops()]
    keys = ("layerType", "runtimePrecision")
    sys.stdout.write(json.dumps([[i[key].astype(str) for key in keys] for i in said]))


if __name__ == "__main__":
    main()
