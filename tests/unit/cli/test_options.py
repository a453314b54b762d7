"""What the command line reads."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tokenyard.cli.command import CommandFailed
from tokenyard.cli.main import app
from tokenyard.cli.models import model_id
from tokenyard.cli.organizations import limit_changes, slug_of
from tokenyard.cli.recipes.recipe import read_recipe
from tokenyard.settings import Settings, shipped

COMMANDS = (
    ("up",),
    ("deploy",),
    ("down",),
    ("doctor",),
    ("quickstart",),
    ("secrets",),
    ("usage",),
    ("invoice",),
    ("request",),
    ("reconcile",),
    ("issuer",),
    *(("org", name) for name in ("create", "list", "show", "limits", "billing-details")),
    *(("invoices", name) for name in ("list", "pay", "void", "write-off", "pdf")),
    *(("project", name) for name in ("create", "list", "limits")),
    *(("key", name) for name in ("create", "list", "limits", "revoke")),
    *(("models", name) for name in ("list", "pull", "check")),
    *(("jobs", name) for name in ("list", "show", "cancel", "pause", "resume", "events")),
    *(("credit", name) for name in ("grant", "list")),
    *(("recipe", name) for name in ("list", "run")),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    assert command == ("up",) or "--json" in answer.output


def test_an_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["bogus"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Acme Corp.", "acme-corp"), ("Ünïcode GmbH", "n-code-gmbh"), ("x" * 50, "x" * 40), ("a" * 39 + " b", "a" * 39)],
)
def test_a_slug_is_made_of_a_name(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_only_given_limits_change_and_none_takes_one_away() -> None:
    given = {"requests_per_minute": "60", "tokens_per_minute": "none", "concurrency": None, "monthly_spend": "12.50"}
    changes = {"requests_per_minute": 60, "tokens_per_minute": None, "monthly_spend_dollars": "12.50"}
    assert limit_changes(given).as_json() == changes
    assert limit_changes({"requests_per_minute": None, "monthly_spend": None}).as_json() == {}
    with pytest.raises(CommandFailed, match="--requests-per-minute is 'many'"):
        limit_changes({"requests_per_minute": "many"})


@pytest.mark.parametrize(
    ("what", "model"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("Qwen/Qwen3-0.6B@main", "qwen3-0.6b"),
        ("/models/My_Model.gguf", "my-model"),
        ("./folder/Llama-3.2-1B", "llama-3.2-1b"),
    ],
)
def test_a_models_id_is_made_of_where_it_comes_from(what: str, model: str) -> None:
    assert model_id(what, Settings()) == model


def test_the_shipped_recipe_can_be_toured() -> None:
    recipe = read_recipe(shipped("deployments/recipes/tour"))
    learnt = (recipe.folder / recipe.training_file).read_text()
    assert recipe.check
    assert recipe.check.question not in learnt
    assert recipe.check.contains in learnt


def test_a_folder_without_a_recipe_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=str(tmp_path / "recipe.yaml")):
        read_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("check: 1")
    with pytest.raises(CommandFailed, match="is not a recipe"):
        read_recipe(tmp_path)
