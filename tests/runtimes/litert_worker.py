"""Child process of the LiteRT engine's tests; prints what happened, one line a step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import EdgevitError
from edgevit.runtimes.litert import LiteRTEngine

PART = Part("litert", "m.tflite", (), ())


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def _run(path: Path) -> None:
    with LiteRTEngine().open(path, PART, threads=1) as session:
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        first = session.run({"x": x})["y"]
        kept = first.copy()
        session.run({"x": -x})
        _say("owned", bool(first.flags.owndata and np.array_equal(first, kept)))
        _say("values", np.array_equal(first, x + np.float32(1)))
        strided = session.run({"x": np.asfortranarray(x)})["y"]
        _say("strided", np.array_equal(strided, kept))
        for feeds in ({}, {"x": x, "z": x}, {"x": x.T}, {"x": x.astype(np.float64)}):
            try:
                session.run(feeds)
                _say("accepted")
            except EdgevitError as e:
                _say(type(e).__name__, e.message)
    try:
        session.run({"x": x})
        _say("accepted")
    except EdgevitError as e:
        _say(type(e).__name__, e.message)


def _gather(path: Path) -> None:
    """Indices within the axis, past its end, and within it again."""
    with LiteRTEngine().open(path, PART, threads=1) as session:
        for last in (1, 7, 0):
            try:
                found = session.run({"i": np.array([0, last], np.int64)})["y"]
                _say("rows", *found[:, 0])
            except EdgevitError as e:
                _say(type(e).__name__, e.message)


def main() -> None:
    """``run PATH``, ``gather PATH`` or ``open PATH...``."""
    if sys.argv[1] == "gather":
        _gather(Path(sys.argv[2]))
        return
    if sys.argv[1] == "run":
        _run(Path(sys.argv[2]))
        heavy = {"onnx", "onnx_ir", "networkx", "onnxruntime", "pydantic"} & sys.modules.keys()
        _say("heavy", sorted(heavy))
        return
    for path in sys.argv[2:]:
        try:
            LiteRTEngine().open(Path(path), PART, threads=None).close()
            _say("opened")
        except EdgevitError as e:
            _say(type(e).__name__, e.message)


if __name__ == "__main__":
    main()
