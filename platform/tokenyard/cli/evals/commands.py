"""`tokenyard eval`: grades a file of rows, as it is or as a model answers it, as a tenant."""

import asyncio
import json as json_codec
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenyard.cli.command import REFUSED, CommandFailed, JsonOption, UrlOption, end, guarded
from tokenyard.cli.credentials import acting_tenant
from tokenyard.cli.evals.running import AskedEval, MeasuredEval, run_eval
from tokenyard.cli.output import as_json, table, write
from tokenyard.settings import Settings
from tokenyard.stack.installation import load_settings

MISTAKES_SHOWN = 10


def eval_command(app: typer.Typer) -> None:
    """Add it to `app`."""
    app.command("eval")(_eval)


def _eval(
    *,
    rows: Annotated[Path, typer.Argument(help='A JSONL file: {"item": {...}} a line, with "sample" where answered.')],
    grader: Annotated[list[Path], typer.Option(help="A JSON file with a grader; several: all must pass.")],
    model: Annotated[
        str | None, typer.Option(help="Who answers; without it, the rows' own samples are graded.")
    ] = None,
    ask: Annotated[str | None, typer.Option(help="What the model is asked, such as '{{ item.question }}'.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of an answer.")] = None,
    at_least: Annotated[float, typer.Option(help="Fail where a smaller part of the rows passes.", min=0, max=1)] = 0.0,
    organization: Annotated[str | None, typer.Option(help="Id or slug; the operator says who runs it.")] = None,
    project: Annotated[str | None, typer.Option(help="The operator says which; default: the default project.")] = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Grade answers. The key is TOKENYARD_API_KEY, and pays for what models answer."""

    def work() -> None:
        if (model is None) != (ask is None):
            raise CommandFailed("Give --model and --ask together: who answers, and what is asked.")
        graders = [_grader(path) for path in grader]
        if not rows.is_file():
            raise CommandFailed(f"There is no file {rows}.")
        asked = AskedEval(rows, graders, model, ask, max_tokens)
        settings = load_settings()
        address = (url or settings.effective_api_url).rstrip("/").removesuffix("/v1")
        measured = asyncio.run(_as_tenant(asked, settings, address, organization, project, quiet=json))
        write(as_json(measured) if json else _verdict(measured))
        if measured.share < at_least:
            end(f"{measured.share:.2f} of the rows passed, {at_least:.2f} were asked.", REFUSED)

    guarded(work)


def _grader(path: Path) -> dict[str, Any]:
    try:
        found = json_codec.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{path} is not a grader as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{path} is not a grader: it must be a JSON object.")
    return found


async def _as_tenant(
    asked: AskedEval, settings: Settings, url: str, organization: str | None, project: str | None, *, quiet: bool
) -> MeasuredEval:
    async with acting_tenant(url, settings, organization=organization, project=project) as tenant:
        return await run_eval(asked, tenant, (lambda _line: None) if quiet else write)


def _verdict(measured: MeasuredEval) -> str:
    shown = measured.not_passed[:MISTAKES_SHOWN]
    lines = [f"row {one.row}: {one.status} ({', '.join(one.failed) or 'no answer'}): {one.answer!r}" for one in shown]
    if len(measured.not_passed) > MISTAKES_SHOWN:
        lines.append(f"and {len(measured.not_passed) - MISTAKES_SHOWN} more, in the output items of {measured.run}")
    rows = [(name, passed, f"{passed / max(1, measured.total):.2f}") for name, passed in measured.criteria.items()]
    every = ("all of them", measured.passed, f"{measured.share:.2f}")
    return "\n".join([*lines, table(("CRITERION", f"PASSED OF {measured.total}", "SHARE"), [*rows, every])])
