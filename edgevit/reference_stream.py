"""The reference as a stream: one sample in, the values asked for out, nothing kept.

Like ``edgevit.reference`` it runs ONNX Runtime in a child process; arrays go through pipes, so
that neither memory nor disk grows with the number of samples. This module is also the child's
program: ``python -m edgevit.reference_stream MODEL``.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgevit import registry
from edgevit.errors import InputError

__all__ = ["Pieces", "run_stream"]

Arrays = dict[str, "np.ndarray[Any, Any]"]
_MODULE = "edgevit.runtimes.ort:onnxruntime"  # imports it with telemetry off
_LENGTH = struct.Struct("<Q")
_MODEL = ""  # no input is called that: what follows is computed by this model


def run_stream(
    model: bytes, samples: Iterable[Mapping[str, np.ndarray[Any, Any]]], threads: int = 0
) -> Iterator[Arrays]:
    """Run a serialized ONNX model on each sample; yields its outputs, one sample at a time.

    Args:
        model: ONNX model whose outputs are what is wanted.
        samples: Input name -> array; consumed as fast as results are.
        threads: Of ONNX Runtime; 0: its own choice.

    Raises:
        InputError: ONNX Runtime refuses the model, fails on a sample, or crashes.
    """
    with tempfile.TemporaryDirectory(prefix="edgevit-stream-") as name:
        path = Path(name) / "model.onnx"
        path.write_bytes(model)
        del model
        with (Path(name) / "stderr").open("w+b") as said:
            child = _start(path, threads, said)
            try:
                yield from _exchange(child, samples, said)
            finally:
                child.kill()
                child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        _close(pipe)


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # what was buffered has no reader any more


def _start(path: Path | None, threads: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P and PYTHONPATH: the child imports what the parent does, never the working directory.
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "edgevit.reference_stream",
            str(path or ""),
            str(threads),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
    )


def _exchange(
    child: subprocess.Popen[bytes],
    samples: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    said: IO[bytes],
) -> Iterator[Arrays]:
    """Feed from a thread, so that the child computes while the caller works."""
    assert child.stdin is not None
    assert child.stdout is not None
    failed: list[BaseException] = []
    stdin = child.stdin

    def feed() -> None:
        try:
            for sample in samples:
                _write(stdin, sample)
            stdin.close()
        except BrokenPipeError:
            return  # the child has ended; its own message says why
        except Exception as e:  # noqa: BLE001 - raised again by the caller below
            failed.append(e)
            child.kill()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    while (found := _read(child.stdout)) is not None:
        yield found
    feeder.join()
    if failed:
        raise failed[0]
    if child.wait() != 0:
        raise _failure(child, said)


def _failure(child: subprocess.Popen[bytes], said: IO[bytes]) -> InputError:
    """What a child that has ended said last."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    why = lines[-1] if lines else f"it ended with status {child.returncode}"
    return InputError(
        f"ONNX Runtime cannot run the model on the calibration samples: {why}",
        hint="check that the samples have the model's shapes and dtypes",
    )


class Pieces:
    """One child for many models in turn: to start it takes longer than a small piece runs.

    A context; the child ends with it.
    """

    def __enter__(self) -> Pieces:
        self._folder = tempfile.TemporaryDirectory(prefix="edgevit-pieces-")
        self._said = (Path(self._folder.name) / "stderr").open("w+b")
        self._child = _start(None, 0, self._said)
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._said):
            if pipe is not None:
                _close(pipe)
        self._folder.cleanup()

    def run(
        self, model: bytes, samples: Iterable[Mapping[str, np.ndarray[Any, Any]]]
    ) -> Iterator[Arrays]:
        """Outputs of a serialized model, sample by sample.

        Raises:
            InputError: ONNX Runtime refuses the model, fails on a sample, or crashes.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            _write(self._child.stdin, {_MODEL: np.frombuffer(model, np.uint8)})
            for sample in samples:
                _write(self._child.stdin, sample)
                found = _read(self._child.stdout)
                if found is None:
                    self._child.wait()
                    raise _failure(self._child, self._said)
                yield found
        except BrokenPipeError as e:
            self._child.wait()
            raise _failure(self._child, self._said) from e


def _write(pipe: IO[bytes], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Length of a JSON header, the header, then the raw bytes of each array."""
    whole = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    listed = [[name, a.dtype.str, list(a.shape)] for name, a in whole.items()]
    header = json.dumps(listed).encode()
    pipe.write(_LENGTH.pack(len(header)))
    pipe.write(header)
    for array in whole.values():
        pipe.write(array.reshape(-1).view(np.uint8).data)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Arrays | None:
    """The next arrays; ``None`` at the end of the stream."""
    start = pipe.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    header = pipe.read(_LENGTH.unpack(start)[0])
    found: Arrays = {}
    for name, code, shape in json.loads(header):
        dtype = np.dtype(code)
        content = pipe.read(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        found[name] = np.frombuffer(content, dtype).reshape(shape)
    return found


def _session(model: str | bytes, threads: int) -> Any:
    ort = registry.load_attribute(_MODULE)()
    options = ort.SessionOptions()
    # Values asked for are outputs, so that no fusion hides them; layouts may be the engine's.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    # One sample's activations are all that lives; an arena would keep the largest of each.
    options.enable_cpu_mem_arena = False
    if threads:
        options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _main(arguments: Sequence[str]) -> None:
    path, threads = arguments[0], int(arguments[1])
    session = _session(path, threads) if path else None
    # Not sys.stdout.buffer: with PYTHONUNBUFFERED it is the bare file, whose write may be
    # short when a signal (a stopped job that goes on) comes in between: bytes were lost.
    with open(0, "rb", closefd=False) as stdin, open(1, "wb", closefd=False) as stdout:
        while (sample := _read(stdin)) is not None:
            if _MODEL in sample:
                session = _session(sample[_MODEL].tobytes(), threads)
                continue
            assert session is not None
            _write(stdout, _answer(session, sample))


def _answer(session: Any, sample: Arrays) -> Arrays:
    inputs = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    feeds = {n: a for n, a in sample.items() if n in inputs}
    return dict(zip(names, session.run(None, feeds), strict=True))


if __name__ == "__main__":
    _main(sys.argv[1:])
