"""Recipes: a compile request as a TOML file, schema-checked, saved from any run.

Named recipes ship with the package (``edgevit/recipes/*.toml``). What the command line says
wins over the recipe.
"""

from __future__ import annotations

import importlib.resources
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgevit.errors import InputError, UsageError
from edgevit.registry import nearest

__all__ = ["Recipe", "load_recipe", "named_recipes", "save_recipe"]


class Recipe(BaseModel):
    """Everything that decides what a bundle holds.

    Attributes:
        schema_version: Version of this layout; written as ``schema``.
        target: Target name with overrides.
        precision: Precision name; the target's default if absent.
        passes: Pass specs run after canonicalization.
        preprocess: Preprocessing in its short form.
        shapes: Input name -> shape; binds symbolic dimensions.
        more_shapes: Further ones, each of which makes another entry of the bundle.
        io: Boundary layout, ``source`` or ``native``.
        seed: Seed of synthetic data.
        bundle_version: Version number recorded in the manifest.
        allow_fallback: Whether ONNX parts may take what the target cannot run.
        head: Output head, e.g. ``topk`` or ``ctc``.
        budget: Whole-network limits, metric -> limit; over the device file's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    target: str | None = None
    precision: str | None = None
    passes: tuple[str, ...] = ()
    preprocess: str | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    more_shapes: tuple[dict[str, tuple[int, ...]], ...] = ()
    io: Literal["source", "native"] = "source"
    seed: int = Field(default=0, ge=0)
    bundle_version: int = Field(default=1, ge=1)
    allow_fallback: bool = False
    head: str | None = None
    budget: dict[
        Literal["max_rel", "psnr_db", "sqnr_db", "top1_agreement"],
        Annotated[float, Field(allow_inf_nan=False)],
    ] = {}

    @property
    def limits(self) -> dict[str, float]:
        """The budget by metric name."""
        return {str(metric): limit for metric, limit in self.budget.items()}

    @property
    def variants(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """The shapes of every entry, in order."""
        return (self.shapes, *self.more_shapes)

    def merged(self, given: dict[str, Any]) -> Recipe:
        """This recipe with everything that was given explicitly put over it."""
        try:
            return Recipe.model_validate({**self.model_dump(by_alias=True), **given})
        except ValidationError as e:
            raise _explain(e, "compile options") from e


def _explain(error: ValidationError, where: str) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        known = [f.alias or n for n, f in Recipe.model_fields.items()]
        return UsageError(f"{where}: unknown key {key!r}", hint=nearest(key, known))
    return UsageError(f"{where}: {key}: {first['msg']}")


def named_recipes() -> dict[str, str]:
    """Name -> first line (a comment) of every recipe that ships with the package."""
    found = {}
    for entry in importlib.resources.files("edgevit.recipes").iterdir():
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").splitlines()[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ")
    return dict(sorted(found.items()))


def load_recipe(name_or_file: str) -> Recipe:
    """Load a recipe file, or one of the named ones.

    Raises:
        InputError: The file cannot be read or is not TOML.
        UsageError: Unknown name, or the content does not fit the schema.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as e:
            raise InputError(f"recipe {path} cannot be read: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise InputError(f"recipe {path} is not UTF-8 text: {e}") from e
    else:
        known = named_recipes()
        if name_or_file not in known:
            raise UsageError(
                f"unknown recipe {name_or_file!r}", hint=nearest(name_or_file, list(known))
            )
        entry = importlib.resources.files("edgevit.recipes").joinpath(f"{name_or_file}.toml")
        text = entry.read_text(encoding="utf-8")
    return parse_recipe(text, name_or_file)


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse TOML text; ``where`` is named in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise InputError(f"recipe {where} is not valid TOML: {e}") from e
    try:
        return Recipe.model_validate(data)
    except ValidationError as e:
        raise _explain(e, f"recipe {where}") from e


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; ``parse_recipe`` reads it back equal. Defaults are left out.

    JSON strings, integers, booleans and arrays of these are TOML as they stand.
    """
    data = recipe.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude_none=True
    )
    data.pop("schema", None)
    shapes, more = data.pop("shapes", {}), data.pop("more_shapes", ())
    budget = data.pop("budget", {})
    lines = [f"schema = {recipe.schema_version}"]
    lines += [f"{key} = {_toml(value)}" for key, value in sorted(data.items())]
    tables = [("[budget]", budget)] if budget else []
    tables += [("[shapes]", shapes)] if shapes else []
    tables += [("[[more_shapes]]", table) for table in more]
    for head, table in tables:
        lines += ["", head]
        lines += [f"{_toml(k)} = {_toml(v)}" for k, v in sorted(table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # TOML has no surrogate pairs, which JSON escapes would be, and wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe beside its place, then rename, so that it is whole or absent."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(to_toml(recipe), encoding="utf-8")
        beside.replace(path)
    except OSError as e:
        raise InputError(f"recipe {path} cannot be written: {e.strerror}") from e
