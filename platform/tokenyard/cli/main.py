"""The command `tokenyard`."""

import typer

from tokenyard.cli.cluster_secrets import secrets_command
from tokenyard.cli.evals.commands import eval_command
from tokenyard.cli.jobs import jobs
from tokenyard.cli.keys import keys
from tokenyard.cli.models import models
from tokenyard.cli.money.books import invoices
from tokenyard.cli.money.commands import credit, money_commands
from tokenyard.cli.money.corrections import corrections, credit_notes
from tokenyard.cli.money.documents import document_commands
from tokenyard.cli.money.payments import dunning, payments
from tokenyard.cli.money.prices import prices
from tokenyard.cli.money.seals import seals
from tokenyard.cli.money.taxes import tax
from tokenyard.cli.organizations import organizations, plans, projects
from tokenyard.cli.quickstart import quickstart_command
from tokenyard.cli.recipes.commands import recipes
from tokenyard.cli.running import running_commands
from tokenyard.cli.webhooks import webhooks

app = typer.Typer(
    name="tokenyard",
    help="Run your own LLM API business: OpenAI-compatible, fine-tunes for each tenant, exact bills.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
running_commands(app)
quickstart_command(app)
secrets_command(app)
app.add_typer(organizations, name="org")
app.add_typer(projects, name="project")
app.add_typer(plans, name="plan")
app.add_typer(keys, name="key")
app.add_typer(models, name="models")
app.add_typer(prices, name="prices")
app.add_typer(jobs, name="jobs")
app.add_typer(recipes, name="recipe")
app.add_typer(credit, name="credit")
app.add_typer(invoices, name="invoices")
app.add_typer(corrections, name="corrections")
app.add_typer(credit_notes, name="credit-notes")
app.add_typer(tax, name="tax")
app.add_typer(payments, name="payments")
app.add_typer(dunning, name="dunning")
app.add_typer(seals, name="seals")
app.add_typer(webhooks, name="webhooks")
money_commands(app)
document_commands(app, organizations, invoices, credit_notes)
eval_command(app)


def main() -> None:
    app()
