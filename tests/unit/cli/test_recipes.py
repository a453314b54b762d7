"""Recipes: what a folder must hold, how answers are judged, and that held-out rows are held out."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.source_tree import ROOT
from tokenyard.cli.command import CommandFailed
from tokenyard.cli.main import app
from tokenyard.cli.recipes.judging import JudgeName, ModelAnswer, right_answers, wanted_answer
from tokenyard.cli.recipes.recipe import (
    MEASURED_FILE,
    Recipe,
    held_out_rows,
    read_recipe,
    recipe_called,
    shipped_recipes,
)
from tokenyard.cli.recipes.running import read_measured

RECIPES = [recipe for recipe in shipped_recipes() if recipe.test is not None]
MAX_SHARED = 0.5  # of the held-out question's runs of three words
CONTENT = """
name: mine
description: d
base_model: small
suffix: mine
training_file: train.jsonl
hyperparameters: {n_epochs: 1}
test: {file: train.jsonl, judge: exact, max_tokens: 8}
"""


def questions(recipe: Recipe, name: str) -> Iterator[str]:
    """Yield what the user says last in each row of a file, chat or preference."""
    for line in (recipe.folder / name).read_text().splitlines():
        row = json.loads(line)
        messages = row.get("input", row)["messages"]
        yield next(message["content"] for message in reversed(messages) if message["role"] == "user")


def instructions(recipe: Recipe, name: str) -> Iterator[str]:
    for line in (recipe.folder / name).read_text().splitlines():
        row = json.loads(line)
        first = row.get("input", row)["messages"][0]
        yield first["content"] if first["role"] == "system" else ""


def runs_of_three(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))}


def learnt_files(recipe: Recipe) -> list[str]:
    return [recipe.training_file, *([recipe.validation_file] if recipe.validation_file else ())]


def of_recipe(recipe: Recipe) -> str:
    return recipe.name


def test_the_promised_recipes_ship() -> None:
    assert {
        *("sentiment", "extraction", "support-bot", "house-style", "summarization", "translation", "grading"),
        *("tool-calling", "plain-tone", "colour-names"),
    } <= {recipe.name for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=of_recipe)
def test_held_out_rows_are_not_near_any_learnt_row(recipe: Recipe) -> None:
    assert recipe.test
    learnt = [runs_of_three(question) for name in learnt_files(recipe) for question in questions(recipe, name)]
    for question in questions(recipe, recipe.test.file):
        own = runs_of_three(question)
        nearest = max(len(own & other) / len(own) for other in learnt)
        assert nearest <= MAX_SHARED, question


@pytest.mark.parametrize("recipe", RECIPES, ids=of_recipe)
def test_no_row_stands_twice_and_every_row_gives_the_same_instruction(recipe: Recipe) -> None:
    assert recipe.test
    names = [*learnt_files(recipe), recipe.test.file]
    asked = [question for name in names for question in questions(recipe, name)]
    assert len(set(asked)) == len(asked)
    assert len({instruction for name in names for instruction in instructions(recipe, name)}) == 1
    assert recipe.name == recipe.folder.name


@pytest.mark.parametrize("recipe", RECIPES, ids=of_recipe)
def test_the_wanted_answers_are_right_and_an_empty_one_is_not(recipe: Recipe) -> None:
    assert recipe.test
    wanted = [wanted_answer(row.messages[-1]) for row in held_out_rows(recipe.folder / recipe.test.file)]
    assert all(right_answers(recipe.test.judge, wanted, wanted))
    assert not any(right_answers(recipe.test.judge, wanted, [ModelAnswer("") for _ in wanted]))


@pytest.mark.parametrize("recipe", RECIPES, ids=of_recipe)
def test_a_measured_gain_is_of_the_rows_that_are_there(recipe: Recipe) -> None:
    file = recipe.folder / MEASURED_FILE
    if not file.is_file():
        pytest.skip("not measured")
    assert recipe.test
    found = read_measured(file)
    assert (found.recipe, found.judge) == (recipe.name, recipe.test.judge)
    assert found.held_out_rows == len(held_out_rows(recipe.folder / recipe.test.file))
    assert found.tuned > found.base


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        ("extraction", ("names", "products", "dated", "undated")),
        ("house-style", ("products", "colours", "in_stock", "from_month")),
        ("summarization", ("items", "troubles", "greetings", "stories", "asides", "wishes")),
        ("tool-calling", ("cities", "artists", "rooms")),
        ("grading", ("questions", "answers", "excuses")),
        ("plain-tone", ("tasks", "phrasings")),
        ("colour-names", ("things", "phrasings")),
        ("translation", ()),
    ],
)
def test_built_rows_are_what_their_script_makes_of_parts_that_no_two_files_share(
    recipe: str, fields: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    script = runpy.run_module(f"scripts.recipes.{recipe.replace('-', '_')}")
    for name, text in script["built"]().items():
        assert (ROOT / "deployments" / "recipes" / recipe / name).read_text() == text
    for field in fields:
        parts = [
            {one.strip() if isinstance(one, str) else one for one in getattr(part, field)} for part in script["PARTS"]
        ]
        assert sum(map(len, parts)) == len(set.union(*parts)), field


def test_the_page_of_recipes_has_the_table_of_what_was_measured() -> None:
    page = (ROOT / "deployments" / "recipes" / "README.md").read_text()
    assert runpy.run_path(str(ROOT / "scripts" / "recipes" / "table.py"))["with_table"](page) == page


@pytest.mark.parametrize(
    ("judge", "wanted", "given", "right"),
    [
        ("exact", "We take cards.", " we take  cards\n", True),
        ("exact", "We take cards.", "We take cards and cash.", False),
        ("label", "negative", "The review is negative.", True),
        ("label", "negative", "Negative, not positive.", False),
        ("label", "negative", "Seronegative", False),
        ("label", "negative", "I cannot say.", False),
        ("brief", "Wipe it dry.", "Use a cloth and a drop of oil!", False),
        ("brief", "Wipe it dry.", "Use a soft cloth.", True),
        ("brief", "Wipe it dry.", "Use it. Wipe it.", False),
        ("brief", "Wipe it dry.", "Here:\n1. Wipe", False),
        ("json", '{"a": 1, "b": null}', '{"b": null,\n "a": 1}', True),
        ("json", '{"a": 1}', 'Here it is: {"a": 1}', False),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', False),
        ("json", '{"a": 1}', "[" * 100_000, False),
    ],
)
def test_texts_are_judged(judge: JudgeName, wanted: str, given: str, *, right: bool) -> None:
    all_wanted = [ModelAnswer(wanted), ModelAnswer("positive")]
    assert right_answers(judge, all_wanted, [ModelAnswer(given), ModelAnswer("")])[0] is right


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ([("find", '{"b": 2, "a": "x"}')], True),
        ([("find", '{"a": "y", "b": 2}')], False),
        ([("look", '{"a": "x", "b": 2}')], False),
        ([("find", "not JSON")], False),
        ([], False),
    ],
)
def test_calls_are_judged(given: list[tuple[str, str]], *, right: bool) -> None:
    wanted = ModelAnswer("", [("find", '{"a": "x", "b": 2}')])
    assert right_answers("tool_calls", [wanted], [ModelAnswer("text", given)]) == [right]
    assert right_answers("tool_calls", [ModelAnswer("", [("now", "")])], [ModelAnswer("", [("now", "{}")])]) == [True]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a list", "is not a recipe"),
        (CONTENT.replace("exact", "taste"), "test.judge"),
        (CONTENT.replace("train.jsonl", "../train.jsonl"), "in the recipe's own folder"),
        (CONTENT.replace("train.jsonl", "gone.jsonl"), "gone.jsonl, which is not there"),
        (f"{CONTENT}more: 1", "more: Extra inputs"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "train.jsonl").write_text("{}")
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(CommandFailed, match=said):
        read_recipe(tmp_path)


def test_a_folder_of_ones_own_is_a_recipe_and_its_bad_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(CONTENT)
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n')
    assert recipe_called(str(tmp_path)).name == "mine"
    with pytest.raises(CommandFailed, match="line 1: "):
        held_out_rows(tmp_path / "train.jsonl")
    with pytest.raises(CommandFailed, match=r"no recipe 'nothing'.*sentiment"):
        recipe_called("nothing")


def test_recipes_are_listed() -> None:
    answer = CliRunner().invoke(app, ["recipe", "list", "--json"])
    assert {"sentiment", "support-bot"} <= {recipe["name"] for recipe in json.loads(answer.output)}
    assert "sentiment" in CliRunner().invoke(app, ["recipe", "list"]).output
