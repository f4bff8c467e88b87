"""The command line: arguments in, one command called, one exit code out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from edgevit import __version__
from edgevit.errors import (
    BackendMissingError,
    EdgevitError,
    GateError,
    InternalError,
    UsageError,
)

__all__ = ["build_parser", "main"]

EXIT_CODES = """exit codes: 0 done; 1 a gate failed (coverage, parity, budget); 2 bad usage or
bad input; 3 a backend is not installed; 4 the artifact is corrupt or not trusted; 5 our bug"""
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see '{self.prog} --help'")


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=EXIT_CODES
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="no progress, no report")
    loud.add_argument("-v", "--verbose", action="store_true", help="every node and refusal")
    return parser


def _shape_option(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="name=1,3,224,224",
        help="binds symbolic dimensions; the k-th shape of every input makes entry k of the "
        "bundle, an input with one shape has it in every entry",
    )


def _compile_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", help="ONNX file")
    p.add_argument("--target", help="see 'edgevit targets'; overrides after a colon")
    p.add_argument("--target-file", metavar="FILE", help="a device file of your own")
    p.add_argument(
        "-o", "--output", metavar="OUT.edgevit", help="default: MODEL-TARGET.edgevit"
    )
    p.add_argument("--precision", help="fp32, fp16, ...; default: the target's")
    p.add_argument("--passes", help='"a,b{opt=1,flag=true}", run after canonicalization')
    p.add_argument("--recipe", metavar="FILE|NAME", help="options from a TOML recipe")
    p.add_argument("--calib", metavar="DIR|FILE.npz|synthetic", help="calibration samples")
    p.add_argument("--inputs", metavar="DIR|FILE.npz", help="verification samples")
    p.add_argument("--preprocess", metavar="SPEC", help="e.g. resize=224x224,mean=...,std=...")
    _shape_option(p)
    p.add_argument("--head", choices=("topk", "ctc", "mask"), help="what the output means")
    p.add_argument("--io", choices=("source", "native"), help="layout at the boundary")
    p.add_argument("--allow-fallback", action="store_true", help="ONNX parts for the rest")
    p.add_argument("--verify-each", action="store_true", help="verify after every pass")
    p.add_argument("--no-verify", action="store_true", help="ship unverified, and say so")
    p.add_argument("--selfcheck-input", metavar="FILE.npz", help="instead of synthetic data")
    p.add_argument("--keep-failed", action="store_true", help="keep OUT.failed.edgevit")
    p.add_argument("--dry-run", action="store_true", help="everything but writing the bundle")
    p.add_argument("--save-recipe", metavar="FILE", help="write the options as a recipe")
    p.add_argument("--tune", type=int, metavar="N", help="time N choices of each kernel here")
    p.add_argument(
        "--tuning", metavar="FILE", help="choices measured before; with --tune kept"
    )
    p.add_argument("--bundle-version", type=int, metavar="N")
    p.add_argument("--seed", type=int, metavar="N")
    p.add_argument("--overwrite", action="store_true", help="replace an existing bundle")


def _model_commands(commands: Any) -> None:
    _compile_options(_add(commands, "compile", "compile a model into a verified bundle"))
    p = _add(commands, "inspect", "what a model holds and what a target would do with it")
    p.add_argument("model", help="ONNX file")
    p.add_argument("--target", help="adds coverage and placement")
    p.add_argument(
        "--primitives",
        action="store_true",
        help="time multiplications, shifts and additions here; model their energy",
    )
    _shape_option(p)
    p = _add(commands, "verify", "check a bundle, alone or against its source model")
    p.add_argument("bundle")
    p.add_argument("--against", metavar="MODEL.onnx", help="the source model")
    p.add_argument("--inputs", metavar="DIR|FILE.npz", help="samples; default: synthetic")
    p.add_argument(
        "--target-file", metavar="FILE", help="the device file it was compiled with"
    )
    p.add_argument("--trust", action="store_true", help="load artifacts that are code")


def _device_commands(commands: Any) -> None:
    p = _add(commands, "run", "run a bundle on arrays or images")
    p.add_argument("bundle")
    p.add_argument("--input", nargs="+", required=True, metavar="X.npz|X.npy|IMAGE")
    p.add_argument("--output", metavar="Y.npz", help="write the raw outputs")
    p.add_argument("--threads", type=int, metavar="N")
    p.add_argument("--trust", action="store_true", help="load artifacts that are code")
    p = _add(commands, "bench", "latency and memory, interleaved, with intervals")
    p.add_argument("subjects", nargs="+", metavar="BUNDLE|MODEL.onnx")
    p.add_argument("--threads", type=int, default=1, metavar="N")
    p.add_argument("--runs", type=int, default=30, metavar="N", help="timed rounds")
    p.add_argument("--against", metavar="ENGINES", help="ort,litert: run each model on these")
    p.add_argument("--trust", action="store_true", help="load artifacts that are code")
    _shape_option(p)
    p = _add(commands, "report", "what a bundle says about itself")
    p.add_argument("bundle")
    p.add_argument("--html", metavar="FILE", help="write it as one self-contained page")
    p.add_argument("--overwrite", action="store_true", help="replace an existing page")
    _study_commands(commands)
    p = _add(commands, "targets", "all targets")
    p = _add(commands, "passes", "all passes, with their options")
    p = _add(commands, "doctor", "what this machine can lower and run")


def _study_commands(commands: Any) -> None:
    p = _add(commands, "simulate", "an optical bundle on a device that is not ideal")
    p.add_argument("bundle")
    p.add_argument("--data", metavar="FILE.npz", help="samples (or images), and labels")
    p.add_argument("--samples", type=int, metavar="N", help="how many of them")
    device = (
        "photons, adc-bits, read-noise, full-well, mask-bits, display-bits, shift, defocus, "
        "background, speckle, laser-noise, nonuniformity, fill-factor, crosstalk, rotation, "
        "magnification"
    )
    p.add_argument(
        "--device", action="append", default=[], metavar="KEY=VALUE", help=f"of {device}"
    )
    p.add_argument(
        "--curve", action="append", default=[], metavar="KEY=V1,V2", help="vary one of them"
    )
    p.add_argument("--path", choices=("fast", "wave"), default="fast")
    p.add_argument(
        "--setup", metavar="NAME|FILE.toml", help="cost the frames on these components"
    )
    p.add_argument(
        "--against", metavar="MODEL.onnx", help="measure its digital latency, to compare"
    )
    p.add_argument("--reference-ms", type=float, metavar="MS", help="or give that latency")
    p.add_argument("--layer", metavar="NAME", help="show a frame of this layer")
    p.add_argument("--frame", type=int, default=0, metavar="N", help="which; default 0")
    p.add_argument("--pictures", metavar="DIR", help="where its planes are written")
    p.add_argument("--seed", type=int, default=0, metavar="N")
    p = _add(commands, "sweep", "every combination of parameters, on a Dask cluster")
    p.add_argument("subject", metavar="BUNDLE|MODEL.onnx")
    p.add_argument(
        "--grid", action="append", default=[], required=True, metavar="KEY=V1,V2",
        help=f"of a bundle: {device}; of a model: target, precision, passes",
    )  # fmt: skip
    p.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="resumed from")
    p.add_argument("--data", metavar="FILE.npz", help="samples (or images), and labels")
    p.add_argument("--samples", type=int, metavar="N", help="how many of them")
    p.add_argument(
        "--setup",
        metavar="NAME|FILE.toml,...",
        help="cost a bundle's points; the front they leave",
    )
    p.add_argument("--workers", type=int, default=2, metavar="N", help="local processes")
    p.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="a running Dask scheduler")
    p.add_argument("--seed", type=int, default=0, metavar="N")


def build_parser() -> argparse.ArgumentParser:
    """The whole parser; imports nothing heavy."""
    parser = _Parser(
        prog="edgevit",
        description="Compile vision transformers for the edge, and prove what ships.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"edgevit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _model_commands(commands)
    _device_commands(commands)
    return parser


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        argv: Arguments without the program name; ``sys.argv`` if ``None``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    command = next((a for a in arguments if not a.startswith("-")), "")
    # A terminated compile must leave nothing half-written: unwind as on Ctrl-C.
    signal.signal(signal.SIGTERM, _stop)
    try:
        options = build_parser().parse_args(arguments)
        return _dispatch(options)
    except KeyboardInterrupt:
        return _interrupted(command, as_json)
    except EdgevitError as e:
        return _fail(e, command, as_json)
    except ModuleNotFoundError as e:
        return _fail(_missing(e), command, as_json)
    except Exception as e:  # noqa: BLE001  (the last resort: any other exception is our bug)
        return _bug(e, command, as_json, "-v" in arguments or "--verbose" in arguments)


def _dispatch(options: argparse.Namespace) -> int:
    from edgevit import commands

    run = getattr(commands, f"{options.command}_command")
    answer: commands.Answer = run(options)
    if options.json:
        _print_json(options.command, "ok" if answer.ok else "failed", answer.result, None)
    elif not options.quiet and answer.text:
        sys.stdout.write(answer.text.rstrip("\n") + "\n")
    return 0 if answer.ok else GateError.exit_code


def _missing(error: ModuleNotFoundError) -> EdgevitError:
    """A package of an extra that is not installed; of ours, it is a bug."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "edgevit"):
        return InternalError(f"{error}", hint="please report this")
    return BackendMissingError(
        f"this command needs the package {name!r}, which is not installed",
        hint="pip install 'edgevit[compile]'",
    )


def _interrupted(command: str, as_json: bool) -> int:
    if as_json:
        described = {"code": "interrupted", "message": "interrupted", "hint": ""}
        _print_json(command, "error", {}, described)
    else:
        sys.stderr.write("interrupted; nothing was left half-written\n")
    # Python remembers an interrupt that met code run from a string (dataclasses are made so
    # while modules load) and would end `python -m` by the signal; new such code forgets it.
    exec("")
    return INTERRUPTED


def _fail(error: EdgevitError, command: str, as_json: bool) -> int:
    status = "failed" if isinstance(error, GateError) else "error"
    if as_json:
        described = {"code": error.code, "message": error.message, "hint": error.hint}
        _print_json(command, status, getattr(error, "result", None) or {}, described)
    else:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
    return error.exit_code


def _bug(error: Exception, command: str, as_json: bool, verbose: bool) -> int:
    message = f"{type(error).__name__}: {error}"
    if as_json:
        described = {"code": "internal", "message": message, "hint": "please report this"}
        _print_json(command, "error", {}, described)
    else:
        sys.stderr.write(f"error: this is a bug in edgevit: {message}\n")
        sys.stderr.write("hint: please report it\n")
    if verbose:
        import traceback

        traceback.print_exception(error)
    return EdgevitError.exit_code


def _print_json(
    command: str, status: str, result: dict[str, Any], error: dict[str, str] | None
) -> None:
    envelope: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "status": status,
        "result": result,
    }
    if error is not None:
        envelope["error"] = error
    sys.stdout.write(json.dumps(envelope, allow_nan=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
