"""`tokenyard recipe`: list the ready fine-tunes, and run one as a tenant."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tokenyard.cli.command import JsonOption, UrlOption, guarded
from tokenyard.cli.credentials import acting_tenant
from tokenyard.cli.output import as_json, table, write
from tokenyard.cli.recipes.recipe import Recipe, recipe_called, shipped_recipes
from tokenyard.cli.recipes.running import MeasuredRecipe, run_recipe
from tokenyard.settings import Settings
from tokenyard.stack.installation import load_settings

recipes = typer.Typer(help="Ready fine-tunes, measured on held-out rows.", no_args_is_help=True)

_HEADINGS = ("RECIPE", "BASE", "METHOD", "TEACHES")


@recipes.command("list")
def _listing(*, json: JsonOption = False) -> None:
    """List the recipes that come with Tokenyard."""

    def work() -> None:
        found = [recipe for recipe in shipped_recipes() if recipe.test is not None]
        rows = [(recipe.name, recipe.base_model, recipe.method, recipe.description) for recipe in found]
        write(as_json([_described(recipe) for recipe in found]) if json else table(_HEADINGS, rows))

    guarded(work)


@recipes.command("run")
def _run(
    *,
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a folder with recipe.yaml.")],
    model: Annotated[str | None, typer.Option(help="Base model; default: the recipe's.")] = None,
    organization: Annotated[str | None, typer.Option(help="Id or slug; the operator says who runs it.")] = None,
    project: Annotated[str | None, typer.Option(help="The operator says which; default: the default project.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this file, too.")] = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Fine-tune by a recipe, and ask base and tuned model its held-out rows. The key is TOKENYARD_API_KEY."""

    def work() -> None:
        found = recipe_called(recipe)
        settings = load_settings()
        measured = asyncio.run(
            _measured(
                found,
                settings,
                url=(url or settings.effective_api_url).rstrip("/").removesuffix("/v1"),
                model=model or found.base_model,
                organization=organization,
                project=project,
                say=_silence if json else write,
            )
        )
        if out is not None:
            out.write_text(f"{as_json(measured)}\n")
        write(as_json(measured) if json else _verdict(measured))

    guarded(work)


async def _measured(
    recipe: Recipe,
    settings: Settings,
    *,
    url: str,
    model: str,
    organization: str | None,
    project: str | None,
    say: Callable[[str], None],
) -> MeasuredRecipe:
    async with acting_tenant(url, settings, organization=organization, project=project) as tenant:
        return await run_recipe(recipe, tenant, model, say)


def _silence(_line: str) -> None:
    """With `--json` only the end is printed."""


def _described(recipe: Recipe) -> dict[str, object]:
    return recipe.model_dump(mode="json", exclude={"folder"})


def _verdict(measured: MeasuredRecipe) -> str:
    lines = [
        f"wrong: {mistake.question!r}: {mistake.answer!r} instead of {mistake.wanted!r}"
        for mistake in measured.mistakes
    ]
    rows = [
        (measured.base_model, f"{measured.base:.2f}"),
        (measured.tuned_model, f"{measured.tuned:.2f}"),
    ]
    right = f"RIGHT OF {measured.held_out_rows} ({measured.judge})"
    return "\n".join([*lines, table(("MODEL", right), rows)])
