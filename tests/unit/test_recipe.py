"""Recipes: written and read back, unknown keys refused, the command line on top."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit import registry
from edgevit.errors import InputError, UsageError
from edgevit.preprocess import Preprocess
from edgevit.recipe import (
    Recipe,
    load_recipe,
    named_recipes,
    parse_recipe,
    save_recipe,
    to_toml,
)
from edgevit.runtimes.heads import head_for
from edgevit.target import load_target

texts = st.text(max_size=8)
recipes = st.builds(
    Recipe,
    target=st.none() | texts,
    precision=st.none() | texts,
    passes=st.lists(texts, max_size=3).map(tuple),
    preprocess=st.none() | texts,
    shapes=st.dictionaries(texts, st.lists(st.integers(1, 1 << 40), max_size=4).map(tuple)),
    io=st.sampled_from(["source", "native"]),
    seed=st.integers(0, 1 << 40),
    bundle_version=st.integers(1, 1 << 40),
    allow_fallback=st.booleans(),
    head=st.none() | texts,
)


@given(recipes)
def test_a_written_recipe_reads_back_equal(recipe: Recipe) -> None:
    assert parse_recipe(to_toml(recipe), "test") == recipe


@pytest.mark.parametrize("text", ["\x7f", "\U0001f600", '"\\\n\t\0', "größe", "\ud7ff\ue000"])
def test_characters_that_json_and_toml_write_differently(text: str) -> None:
    recipe = Recipe(head=text, shapes={text: (1, 2)})
    assert parse_recipe(to_toml(recipe), "test") == recipe


def test_defaults_are_left_out_and_the_schema_is_not() -> None:
    assert tomllib.loads(to_toml(Recipe())) == {"schema": 1}
    assert tomllib.loads(to_toml(Recipe(seed=3))) == {"schema": 1, "seed": 3}


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("taget = 'onnx'", "unknown key 'taget'", "did you mean 'target'?"),
        ("schema_versoin = 1", "unknown key 'schema_versoin'", "did you mean 'schema'?"),
        ("schema = 2", "schema", ""),
        ("seed = 'one'", "seed", ""),
        ("io = 'sideways'", "io", ""),
        ("bundle_version = 0", "bundle_version", ""),
        ("[shapes]\nx = ['a']", "shapes.x.0", ""),
    ],
)
def test_what_does_not_fit_the_schema(text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=rf"recipe mine: .*{said}") as caught:
        parse_recipe(text, "mine")
    assert hint in caught.value.hint


def test_text_that_is_not_toml() -> None:
    with pytest.raises(InputError, match="recipe mine is not valid TOML"):
        parse_recipe("target = ", "mine")


def test_what_is_given_wins_over_the_recipe() -> None:
    recipe = parse_recipe("target = 'onnx'\nseed = 7\npasses = ['a']", "mine")
    merged = recipe.merged({"seed": 0, "passes": ("b",), "precision": "fp32"})
    expected = Recipe(target="onnx", seed=0, passes=("b",), precision="fp32")
    assert merged == expected
    assert recipe.merged({}) == recipe
    with pytest.raises(UsageError, match="compile options: seed"):
        recipe.merged({"seed": "x"})


@pytest.mark.parametrize("name", named_recipes())
def test_named_recipes_are_sound(name: str) -> None:
    recipe = load_recipe(name)
    assert len(named_recipes()[name]) > 10, "the first line says what it is for"
    if recipe.target is not None:
        target = load_target(recipe.target)
        assert recipe.precision is None or recipe.precision in target.precisions
    for one in recipe.passes:
        assert one.partition("{")[0] in registry.names("passes")
    if recipe.preprocess is not None:
        spec = Preprocess.parse(recipe.preprocess)
        assert Preprocess.from_json(spec.to_json()) == spec
    if recipe.head is not None:
        assert head_for(recipe.head, {"character": "a\nb"})["kind"] == recipe.head


def test_there_are_named_recipes() -> None:
    assert {"imagenet-224", "pp-ocr-phone", "pp-ocr-board"} <= set(named_recipes())


def test_names_and_files_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'imagenet'") as caught:
        load_recipe("imagenet")
    assert "imagenet-224" in caught.value.hint
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b'head = "\xff"\n')
    with pytest.raises(InputError, match=r"bad\.toml is not UTF-8"):
        load_recipe(str(bad))


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    recipe = Recipe(target="onnx", shapes={"x": (1, 2)})
    save_recipe(recipe, tmp_path / "r.toml")
    assert load_recipe(str(tmp_path / "r.toml")) == recipe
    assert [p.name for p in tmp_path.iterdir()] == ["r.toml"]
    with pytest.raises(InputError, match="cannot be written"):
        save_recipe(recipe, tmp_path / "none" / "r.toml")
