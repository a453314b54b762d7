"""`tokenyard up`, `deploy`, `down` and `doctor`: the stack on this machine.

Its code is loaded by the commands themselves: it takes a second, which no other command needs.
"""

import asyncio
import os
import sys
from typing import Annotated

import typer

from tokenyard.cli.command import CommandFailed, CommandRun, JsonOption, end, guarded, platform_command
from tokenyard.cli.output import CommandOutput, as_json, write
from tokenyard.stack.installation import load_settings


def running_commands(app: typer.Typer) -> None:
    @app.command("up")
    def _up(
        ignore_checks: Annotated[
            bool, typer.Option("--ignore-checks", help="Go on with less memory or disk than is known to be needed.")
        ] = False,
    ) -> None:
        """Start everything here and stay until Ctrl-C: Valkey, database, Ray, replicas, gateway, worker, dashboard."""
        from tokenyard.stack.progress import Progress  # noqa: PLC0415
        from tokenyard.stack.up import up  # noqa: PLC0415

        guarded(lambda: asyncio.run(up(load_settings(create_secret=True), Progress(), ignore_checks=ignore_checks)))

    @platform_command(app, "deploy")
    async def _deploy(run: CommandRun) -> CommandOutput:
        """Bring replicas, gateways and workers to what the files of the served models say: no request is lost."""
        from tokenyard.catalog.base_models.operator_store import read_files  # noqa: PLC0415
        from tokenyard.core.models import InvalidModelSpec  # noqa: PLC0415
        from tokenyard.stack.installation import child_environment  # noqa: PLC0415
        from tokenyard.stack.progress import Progress  # noqa: PLC0415
        from tokenyard.stack.serving import deploy  # noqa: PLC0415

        settings = run.settings
        try:
            files = read_files(settings.models, settings.models_dir)
        except InvalidModelSpec as error:
            raise CommandFailed(f"Nothing has changed: {error}") from error
        await run.api.check_model_files(files)
        await deploy(
            settings, child_environment(settings, os.environ), Progress(sys.stderr if run.json else sys.stdout)
        )
        # Last, so that gateways send a new model nothing before it can answer.
        found = await run.api.publish_model_files(files)
        return CommandOutput(found, f"Every process serves {', '.join(found.models)} as the files say.")

    @app.command("down")
    def _down(json: JsonOption = False) -> None:
        """Stop what runs here, or what a run that died left behind."""

        from tokenyard.stack.up import down  # noqa: PLC0415

        def stop() -> None:
            done = down(load_settings())
            write(as_json({"done": done}) if json else done)

        guarded(stop)

    @app.command("doctor")
    def _doctor(json: JsonOption = False) -> None:
        """Say what is installed, what runs, and what is wrong; exit with 1 where something is."""

        from tokenyard.stack.doctor import examine, report  # noqa: PLC0415

        def look() -> None:
            findings = asyncio.run(examine(load_settings()))
            write(as_json(findings) if json else report(findings))
            if findings.problems:
                end(f"{len(findings.problems)} problem(s), see above.", 1)

        guarded(look)
