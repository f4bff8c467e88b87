"""Passes, their specifications, and the pipeline that runs them.

A pass is a frozen dataclass; its fields are its options; ``"name{key=value,flag=true}"``
parses to it and prints back from it.
"""

from __future__ import annotations

import dataclasses
import enum
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import onnx_ir as ir

from edgevit.errors import ArtifactError, UsageError

if typing.TYPE_CHECKING:
    from edgevit.calibration import DataSource
    from edgevit.edits import Edit
    from edgevit.target import Target

__all__ = [
    "CalibratedPass",
    "Change",
    "Context",
    "Effect",
    "Note",
    "Observer",
    "Outcome",
    "Pass",
    "PassRecord",
    "Pipeline",
    "Refusal",
    "parse_spec",
]


class Effect(enum.Enum):
    """What a pass may do to the function; decides the gate of verification."""

    EXACT = "exact"
    BOUNDED = "bounded"
    CALIBRATED = "calibrated"
    TRAINED = "trained"


@dataclass(frozen=True)
class Change:
    """One edit: the rule that made it and the value (by name) it produced."""

    rule: str
    node: str
    detail: str = ""


@dataclass(frozen=True)
class Refusal:
    """A place where a rule nearly applied, and why it did not."""

    rule: str
    node: str
    reason: str


@dataclass(frozen=True)
class Note:
    """A line about a layer for the report.

    Attributes:
        node: Name of the layer's result; empty: about the pass as a whole.
        text: What was done or measured.
        gain_db: How much better the layer's output is for it, as a signal-to-noise ratio;
            ``None`` where that is not what it is about.
    """

    node: str
    text: str
    gain_db: float | None = None


@dataclass
class Outcome(ir.passes.PassResult):
    """A pass result that also says what changed, what was refused, and what it is good for."""

    changes: tuple[Change, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """Base of all passes.

    Attributes:
        name: Spec name, kebab-case.
        effect: See ``Effect``.
    """

    name: ClassVar[str]
    effect: ClassVar[Effect]

    def call(self, model: ir.Model) -> Outcome:
        """Apply the pass in place; ``modified`` is exact."""
        raise NotImplementedError(f"{type(self).__name__} does not define call()")

    def __str__(self) -> str:
        parts = [
            f"{f.name.replace('_', '-')}={_format(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{','.join(parts)}}}" if parts else self.name


@dataclass(frozen=True)
class Context:
    """What a calibrated pass may ask for besides the model.

    Attributes:
        samples: Calibration samples; ``None`` if none were given.
        target: Whose scheme decides dtypes and operators.
        precision: Name of the precision that is made.
        seed: Of everything random.
        reload: Plans by pass spec, in order of use: performed instead of planning again.
        turn: Which use of its spec this is, from 0: its plan in ``reload``.
    """

    samples: DataSource | None
    target: Target | None
    precision: str
    seed: int = 0
    reload: tuple[tuple[str, tuple[Edit, ...]], ...] = ()
    turn: int = 0

    def data(self, spec: str) -> DataSource:
        """The calibration samples.

        Raises:
            UsageError: There are none.
        """
        if self.samples is None:
            raise UsageError(
                f"{spec} needs calibration data",
                hint="give --calib DIR or --calib FILE.npz; "
                "--calib synthetic tries it on made-up samples",
            )
        return self.samples


NO_CONTEXT = Context(None, None, "fp32")


@dataclass(frozen=True)
class CalibratedPass(Pass):
    """Base of passes that decide on data: a plan of edits, then a performance without choice.

    Attributes:
        quantizes: A recipe that names it replaces the precision's pipeline.
        needs_samples: Planning runs the model on calibration samples.
    """

    effect: ClassVar[Effect] = Effect.CALIBRATED
    quantizes: ClassVar[bool] = False
    needs_samples: ClassVar[bool] = True

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Decide; changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} does not define plan()")

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Apply a plan in place; ``modified`` is exact."""
        raise NotImplementedError(f"{type(self).__name__} does not define perform()")

    def call(self, model: ir.Model) -> Outcome:
        """Plan without data and perform; ``Pipeline.run`` gives data."""
        return self.perform(model, self.plan(model, NO_CONTEXT))


def _format(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``"name{key=value,...}"`` into the name and its raw options.

    Raises:
        UsageError: Unbalanced braces, a missing ``=``, or a repeated key.
    """
    name, brace, rest = spec.strip().partition("{")
    if not brace:
        return name, {}
    if not rest.endswith("}"):
        raise UsageError(f"pass {spec!r}: expected a closing '}}' at the end")
    options: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest[:-1].split(","))):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise UsageError(f"pass {spec!r}: expected key=value, found {item!r}")
        if key in options:
            raise UsageError(f"pass {spec!r}: option {key!r} is given twice")
        options[key] = value.strip()
    return name, options


def _convert(pass_name: str, key: str, raw: str, kind: Any) -> object:
    if kind is bool:
        if raw not in ("true", "false"):
            raise UsageError(f"pass {pass_name!r}: {key} expects true or false, found {raw!r}")
        return raw == "true"
    try:
        return kind(raw)
    except ValueError as e:
        raise UsageError(
            f"pass {pass_name!r}: {key} expects {kind.__name__}, found {raw!r}"
        ) from e


def build(cls: type[Pass], options: dict[str, str]) -> Pass:
    """Make a pass from its class and raw options, converting each to its field's type.

    Raises:
        UsageError: An option that the pass does not have, or a value of the wrong type.
    """
    kinds = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(options) - fields)
    if unknown:
        have = ", ".join(sorted(fields)) or "none"
        raise UsageError(
            f"pass {cls.name!r} has no option {unknown[0]!r}", hint=f"it has: {have}"
        )
    values = {key: _convert(cls.name, key, raw, kinds[key]) for key, raw in options.items()}
    return cls(**values)


def split_specs(text: str) -> tuple[str, ...]:
    """Split ``"a,b{x=1,y=2}"`` at the commas outside braces."""
    specs, depth, current = [], 0, ""
    for char in text:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            specs.append(current.strip())
            current = ""
        else:
            current += char
    return tuple(filter(None, [*specs, current.strip()]))


@dataclass(frozen=True)
class PassRecord:
    """What one pass did; ``seconds`` is for the terminal and never enters a bundle.

    ``planned``: it decides by a plan, of which ``edits`` may be empty.
    """

    spec: str
    effect: Effect
    nodes_before: int
    nodes_after: int
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]
    seconds: float = field(compare=False)
    edits: tuple[Edit, ...] = field(default=(), compare=False)
    notes: tuple[Note, ...] = ()
    planned: bool = field(default=False, compare=False)


class Observer(Protocol):
    """The only hook into a pipeline: called after each pass."""

    def after(self, record: PassRecord, model: ir.Model) -> None:
        """See what a pass did; raise to stop the pipeline."""


@dataclass(frozen=True)
class Pipeline:
    """Passes in order, repeated until none modifies the model or ``rounds`` is reached."""

    passes: tuple[Pass, ...]
    rounds: int = 1

    @classmethod
    def parse(
        cls, specs: Sequence[str], find: Callable[[str], type[Pass]], rounds: int = 1
    ) -> Pipeline:
        """Build a pipeline from specs; ``find`` maps a spec name to its class."""
        built = []
        for spec in specs:
            name, options = parse_spec(spec)
            built.append(build(find(name), options))
        return cls(tuple(built), rounds)

    def run(
        self,
        model: ir.Model,
        observers: Sequence[Observer] = (),
        context: Context = NO_CONTEXT,
    ) -> tuple[PassRecord, ...]:
        """Run in place; one record per executed pass, in order."""
        records: list[PassRecord] = []
        for _ in range(self.rounds):
            modified = False
            for p in self.passes:
                record, changed = _run_one(p, model, context)
                modified |= changed
                records.append(record)
                for observer in observers:
                    observer.after(record, model)
            if not modified:
                break
        return tuple(records)


def _run_one(p: Pass, model: ir.Model, context: Context) -> tuple[PassRecord, bool]:
    before, start = len(model.graph), time.perf_counter()
    edits: tuple[Edit, ...] = ()
    if isinstance(p, CalibratedPass):
        edits = _planned(p, model, context)
        outcome: ir.passes.PassResult = p.perform(model, edits)
    else:
        outcome = p(model)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"pass {p.name!r} returned {type(outcome).__name__}, expected Outcome")
    seconds = time.perf_counter() - start
    changes, refusals = outcome.changes, outcome.refusals
    after, notes = len(model.graph), outcome.notes
    record = PassRecord(
        *(str(p), p.effect, before, after, changes, refusals, seconds, edits, notes),
        planned=isinstance(p, CalibratedPass),
    )
    return record, outcome.modified


def _planned(p: CalibratedPass, model: ir.Model, context: Context) -> tuple[Edit, ...]:
    """The edits: those of a sealed bundle, else planned now."""
    if not context.reload:
        return p.plan(model, context)
    mine = [edits for spec, edits in context.reload if spec == str(p)]
    if context.turn < len(mine):
        return mine[context.turn]
    raise ArtifactError(f"the bundle has no edits of the pass {str(p)!r}")
