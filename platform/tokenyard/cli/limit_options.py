"""The options that set limits, shared by organizations, projects and keys."""

from typing import Annotated, Any

import typer

from tokenyard.cli.call import CommandFailed

_NONE = "none"

RequestsPerMinute = Annotated[str | None, typer.Option("--requests-per-minute", "--rpm", help="A number or `none`.")]
TokensPerMinute = Annotated[str | None, typer.Option("--tokens-per-minute", "--tpm", help="A number or `none`.")]
RequestsPerDay = Annotated[str | None, typer.Option("--requests-per-day", "--rpd", help="A number or `none`.")]
TokensPerDay = Annotated[str | None, typer.Option("--tokens-per-day", "--tpd", help="A number or `none`.")]
Concurrency = Annotated[str | None, typer.Option("--concurrency", help="Requests at the same time, or `none`.")]
MonthlySpend = Annotated[str | None, typer.Option("--monthly-spend", help="Dollars such as 25.00, or `none`.")]


def limits_body(*, monthly_spend: str | None, **counts: str | None) -> dict[str, Any]:
    """Return the API's `limits` with what was given; `none` takes a limit away.

    Raises:
        CommandFailed: a limit is not a whole number.
    """
    body: dict[str, Any] = {}
    for name, text in counts.items():
        if text is None:
            continue
        if text != _NONE and not text.isdecimal():
            raise CommandFailed(f"--{name.replace('_', '-')} is {text!r}; it must be a whole number or `none`.")
        body[name] = None if text == _NONE else int(text)
    if monthly_spend is not None:
        body["monthly_spend_dollars"] = None if monthly_spend == _NONE else monthly_spend
    return body
