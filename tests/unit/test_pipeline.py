"""Pass specifications, options, rounds, observers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.edits import Edit, Remark
from edgevit.errors import ArtifactError, UsageError
from edgevit.optimize import optimize, plans
from edgevit.pipeline import (
    NO_CONTEXT,
    CalibratedPass,
    Change,
    Context,
    Effect,
    Outcome,
    Pass,
    PassRecord,
    Pipeline,
    parse_spec,
    split_specs,
)
from tests.support.graphs import GraphBuilder


@dataclass(frozen=True)
class Paint(Pass):
    """Renames the graph to a color; the other options are only read and printed."""

    name: ClassVar[str] = "paint"
    effect: ClassVar[Effect] = Effect.EXACT

    color: str = "red"
    per_channel: bool = False
    terms: int = 2
    share: float = 0.5

    def call(self, model: ir.Model) -> Outcome:
        changed = model.graph.name != self.color
        model.graph.name = self.color
        changes = (Change("paint", "graph"),) if changed else ()
        return Outcome(model, changed, changes)


@dataclass(frozen=True)
class Restless(Pass):
    """Claims a change each time."""

    name: ClassVar[str] = "restless"
    effect: ClassVar[Effect] = Effect.BOUNDED

    def call(self, model: ir.Model) -> Outcome:
        return Outcome(model, True)


@dataclass(frozen=True)
class Liar(Pass):
    """Returns the wrong type of result."""

    name: ClassVar[str] = "liar"
    effect: ClassVar[Effect] = Effect.EXACT

    def call(self, model: ir.Model) -> Outcome:
        return ir.passes.PassResult(model, False)  # type: ignore[return-value]


KNOWN: dict[str, type[Pass]] = {"paint": Paint, "restless": Restless, "liar": Liar}


def _parse(*specs: str, rounds: int = 1) -> Pipeline:
    return Pipeline.parse(specs, KNOWN.__getitem__, rounds)


def _model() -> ir.Model:
    g = GraphBuilder("blank")
    return g.model(g.op("Relu", g.input("x", (2,))))


paints = st.builds(
    Paint,
    color=st.text("abcxyz019-_", min_size=1),
    per_channel=st.booleans(),
    terms=st.integers(),
    share=st.floats(allow_nan=False),
)


@given(paints)
def test_a_printed_pass_parses_back(paint: Paint) -> None:
    assert _parse(str(paint)).passes == (paint,)


@given(st.lists(paints | st.just(Restless()), max_size=5))
def test_a_printed_pipeline_splits_back(passes: list[Pass]) -> None:
    text = ",".join(str(p) for p in passes)
    assert _parse(*split_specs(text)).passes == tuple(passes)


def test_defaults_are_not_printed_and_names_are_kebab_case() -> None:
    assert str(Paint()) == "paint"
    assert str(Paint(per_channel=True)) == "paint{per-channel=true}"
    assert str(Paint(terms=3, color="blue")) == "paint{color=blue,terms=3}"


def test_both_spellings_of_an_option_are_read() -> None:
    for key in ("per-channel", "per_channel"):
        assert _parse(f"paint{{ {key} = true }}").passes == (Paint(per_channel=True),)
    assert parse_spec("paint{}") == ("paint", {})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("paint{terms=1", "expected a closing '}'"),
        ("paint{terms=1}x", "expected a closing '}'"),
        ("paint{terms}", "expected key=value, found 'terms'"),
        ("paint{=1}", "expected key=value"),
        ("paint{terms=1,terms=2}", "'terms' is given twice"),
        ("paint{per-channel=true,per_channel=true}", "given twice"),
        ("paint{terms=many}", "terms expects int, found 'many'"),
        ("paint{terms=1.5}", "terms expects int, found '1.5'"),
        ("paint{share=half}", "share expects float, found 'half'"),
        ("paint{per-channel=yes}", "expects true or false, found 'yes'"),
        ("paint{per-channel=True}", "expects true or false, found 'True'"),
        ("paint{flavor=sweet}", "'paint' has no option 'flavor'"),
        ("restless{x=1}", "'restless' has no option 'x'"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        _parse(spec)


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        _parse("paint{flavor=sweet}")
    assert caught.value.hint == "it has: color, per_channel, share, terms"
    with pytest.raises(UsageError) as caught:
        _parse("restless{x=1}")
    assert caught.value.hint == "it has: none"


def test_commas_split_outside_braces_only() -> None:
    text = " a , b{x=1,y=2},, c{} "
    assert split_specs(text) == ("a", "b{x=1,y=2}", "c{}")
    assert split_specs("") == ()


@dataclass
class Watcher:
    """Notes every pass, and the graph's name as it is then."""

    seen: list[tuple[str, str | None]] = field(default_factory=list)

    def after(self, record: PassRecord, model: ir.Model) -> None:
        self.seen.append((record.spec, model.graph.name))


def test_observers_see_each_pass_with_the_model_it_left() -> None:
    watcher = Watcher()
    records = _parse("paint{color=a}", "paint{color=b}").run(_model(), (watcher,))
    assert watcher.seen == [("paint{color=a}", "a"), ("paint{color=b}", "b")]
    assert [(r.spec, len(r.changes), r.effect) for r in records] == [
        ("paint{color=a}", 1, Effect.EXACT),
        ("paint{color=b}", 1, Effect.EXACT),
    ]
    assert {(r.nodes_before, r.nodes_after) for r in records} == {(1, 1)}


def test_an_observer_that_raises_stops_the_pipeline() -> None:
    class Stop:
        def after(self, record: PassRecord, model: ir.Model) -> None:
            raise LookupError(record.spec)

    model = _model()
    with pytest.raises(LookupError, match="color=a"):
        _parse("paint{color=a}", "paint{color=b}").run(model, (Stop(),))
    assert model.graph.name == "a"


@pytest.mark.parametrize(
    ("specs", "rounds", "executed"),
    [
        (("paint",), 5, 2),  # one that changes, one that finds nothing
        (("restless",), 4, 4),
        (("paint", "restless"), 3, 6),
        (("paint",), 1, 1),
        ((), 3, 0),
    ],
)
def test_rounds_end_when_nothing_changes(
    specs: tuple[str, ...], rounds: int, executed: int
) -> None:
    assert len(_parse(*specs, rounds=rounds).run(_model())) == executed


def test_a_pass_must_return_an_outcome() -> None:
    with pytest.raises(TypeError, match=r"'liar' returned PassResult, expected Outcome"):
        _parse("liar").run(_model())


def test_a_pass_without_a_call_says_so() -> None:
    @dataclass(frozen=True)
    class Empty(Pass):
        name: ClassVar[str] = "empty"
        effect: ClassVar[Effect] = Effect.EXACT

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty().call(_model())


@dataclass(frozen=True)
class Planner(CalibratedPass):
    """Plans a remark of how many plans there were before."""

    name: ClassVar[str] = "planner"

    made: ClassVar[list[int]] = []

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        self.made.append(len(self.made))
        return (Remark(str(self.made[-1])),)

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        return Outcome(model, False)


def test_two_uses_of_a_pass_have_two_plans() -> None:
    """Sealed plans are performed in order of use, and none is made up when they run out."""
    model = GraphBuilder().model()
    twice = Pipeline((Planner(), Planner()))
    first = optimize(model, twice, NO_CONTEXT).records
    again = optimize(model, twice, replace(NO_CONTEXT, reload=plans(first))).records
    assert [r.edits for r in again] == [(Remark("0"),), (Remark("1"),)]
    with pytest.raises(ArtifactError, match="no edits of the pass 'planner'"):
        optimize(model, twice, replace(NO_CONTEXT, reload=plans(first)[:1]))
