"""Writes the table of recipes, from the figures that `tokenyard recipe run NAME --out .../measured.json` left.

It stands between two marks in `deployments/recipes/README.md`, and in the repository's README where that has them.
"""

import sys
from pathlib import Path

from tokenyard.cli.recipes.recipe import MEASURED_FILE, shipped_recipes
from tokenyard.cli.recipes.running import read_measured

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "deployments" / "recipes" / "README.md", ROOT / "README.md")
BEGIN, END = "<!-- recipes: scripts/recipes/table.py -->", "<!-- /recipes -->"
_HEADING = (
    "| recipe | teaches | judged by | held-out rows | base | tuned | trained tokens | training |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    for page in PAGES:
        text = page.read_text()
        if BEGIN in text:
            page.write_text(with_table(text))
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


def with_table(text: str) -> str:
    """Return a page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{recipe_table()}\n{END}{rest.partition(END)[2]}"


def recipe_table() -> str:
    lines = [_HEADING]
    for recipe in shipped_recipes():
        file = recipe.folder / MEASURED_FILE
        if file.is_file():
            found = read_measured(file)
            lines.append(
                f"| `{recipe.name}` | {recipe.description} | {found.judge} | {found.held_out_rows} | {found.base:.2f}"
                f" | **{found.tuned:.2f}** | {found.trained_tokens:,} | {found.training_s} s |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
