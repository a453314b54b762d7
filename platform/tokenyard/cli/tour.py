"""`tokenyard quickstart`: a tour with real calls, which ends with three facts and fails where one does not hold."""

from pathlib import Path
from typing import Annotated

import typer

from tokenyard.cli.call import Call
from tokenyard.cli.command import platform_command
from tokenyard.cli.output import Shown
from tokenyard.settings import shipped


def tour_commands(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @platform_command(app, "quickstart")
    async def _quickstart(
        call: Call,
        model: Annotated[str | None, typer.Option(help="Base model; default: the first one served.")] = None,
        recipe: Annotated[Path | None, typer.Option(help="Folder with recipe.yaml; default: the support bot.")] = None,
    ) -> Shown | None:
        """Tour the platform: organization, chat, fine-tune, taught answer, usage, invoice. At most 5 minutes."""
        # The tenant's SDK takes half a second to load, which no other command needs.
        from tokenyard.cli.quickstart import quickstart  # noqa: PLC0415

        folder = recipe or shipped("deployments/recipes/support-bot")
        return await quickstart(call, model or call.settings.models[0], folder)
