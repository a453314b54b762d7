"""What a recipe is: a folder with `recipe.yaml` and the rows that it names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tokenyard.cli.command import CommandFailed
from tokenyard.cli.recipes.judging import JudgeName
from tokenyard.clients.platform_api.shapes import Json
from tokenyard.core.chat_rows import ChatRow, RowProblem, check_chat_row
from tokenyard.core.datasets.lines import Line, LineProblem, LineReader
from tokenyard.settings import shipped

RECIPE_FILE = "recipe.yaml"
MEASURED_FILE = "measured.json"
_RECIPES = "deployments/recipes"


def _beside_the_recipe(name: str) -> str:
    if Path(name).name != name:
        raise ValueError("must be a file in the recipe's own folder")
    return name


FileName = Annotated[str, AfterValidator(_beside_the_recipe)]


class RecipeTest(BaseModel):
    """Held-out rows, and how an answer to one is judged. `max_tokens` bounds an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: FileName
    judge: JudgeName
    max_tokens: int = Field(ge=1)


class RecipeCheck(BaseModel):
    """A question that is not in the training file, and what the taught answer, but not the base's, contains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    contains: str


class Recipe(BaseModel):
    """A ready fine-tune. Without a `test` its gain cannot be measured; without a `check` it cannot be toured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    name: str
    description: str
    base_model: str
    method: str = "supervised"
    suffix: str
    seed: int | None = None
    training_file: FileName
    validation_file: FileName | None = None
    hyperparameters: Json
    grader: Json | None = None
    test: RecipeTest | None = None
    check: RecipeCheck | None = None

    def job(self, *, model: str, training_file: str, validation_file: str | None) -> Json:
        """Return the request for its fine-tuning job; the files are ids."""
        settings = {"hyperparameters": self.hyperparameters, "grader": self.grader}
        asked = {
            "model": model,
            "training_file": training_file,
            "validation_file": validation_file,
            "suffix": self.suffix,
            "seed": self.seed,
            "method": {"type": self.method, self.method: {name: it for name, it in settings.items() if it is not None}},
        }
        return {name: value for name, value in asked.items() if value is not None}


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe; a folder without a whole one raises `CommandFailed`."""
    file = folder / RECIPE_FILE
    try:
        content = yaml.safe_load(file.read_text())
        recipe = Recipe.model_validate({**content, "folder": folder})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise CommandFailed(f"{file} is not a recipe ({type(error).__name__}: {error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandFailed(f"{file} is not a recipe ({'.'.join(map(str, first['loc']))}: {first['msg']}).") from error
    names = (recipe.training_file, recipe.validation_file, recipe.test.file if recipe.test else None)
    for name in names:
        if name is not None and not (folder / name).is_file():
            raise CommandFailed(f"{file} names {name}, which is not there.")
    return recipe


def shipped_recipes() -> list[Recipe]:
    """Return those that come with Tokenyard, by name."""
    return [read_recipe(file.parent) for file in sorted(shipped(_RECIPES).glob(f"*/{RECIPE_FILE}"))]


def recipe_called(name: str) -> Recipe:
    """Return a shipped recipe, or the one in the folder `name`; where there is none, `CommandFailed` says which are."""
    folder = shipped(_RECIPES) / name
    if "/" not in name and (folder / RECIPE_FILE).is_file():
        return read_recipe(folder)
    if Path(name).is_dir():
        return read_recipe(Path(name))
    known = ", ".join(recipe.name for recipe in shipped_recipes())
    raise CommandFailed(f"There is no recipe {name!r}, nor a folder of that name. There are: {known}.")


def held_out_rows(file: Path) -> Sequence[ChatRow]:
    """Return the chats of a file; the last message of each is the answer that is wanted.

    Raises:
        CommandFailed: a line breaks a rule of training files.
    """
    reader, rows = LineReader(), []
    for line in (*reader.feed(file.read_bytes()), *reader.finish()):
        try:
            rows.append(_chat(line))
        except RowProblem as problem:
            raise CommandFailed(f"{file}: {problem}") from problem
    return rows


def _chat(line: Line | LineProblem) -> ChatRow:
    if isinstance(line, LineProblem):
        raise RowProblem(str(line))
    try:
        return check_chat_row(line.row)
    except RowProblem as problem:
        raise RowProblem(f"line {line.number}: {problem}") from None
