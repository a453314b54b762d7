"""Documents as HTML: one page without anything beside it, for the screen and for printing."""

from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tokenyard_billing.documents.document import BillDocument

_TEMPLATES = Path(__file__).parent / "templates"


class HtmlWriter:
    def write(self, document: BillDocument) -> bytes:
        """Return the page; whatever anyone wrote is escaped."""
        return self._template.render(document=document).encode()

    @cached_property
    def _template(self) -> Template:
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("invoice.html")
