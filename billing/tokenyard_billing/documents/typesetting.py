"""Sets documents by Typst: `python -m tokenyard_billing.documents.typesetting`, from its input to its output.

It takes the text as data, never as markup, and reads no network, and no file but the template and fonts. It is a
process of its own, because Typst keeps what it worked out, some 200 MB of a long document: no gateway is to keep that.
"""

import sys
from pathlib import Path

import msgspec

_TEMPLATE = Path(__file__).parent / "templates" / "invoice.typ"
MEMORY_BYTES = 2 * 1024 * 1024 * 1024


class TypesettingOrder(msgspec.Struct, frozen=True):
    """`document` is the JSON that the template reads, `fonts_dir` a folder of further fonts or empty."""

    document: msgspec.Raw
    dated_s: int
    fonts_dir: str = ""


def _bound_memory() -> None:
    if sys.platform == "linux":  # others do not keep to it
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _pdf(order: TypesettingOrder) -> bytes:
    # Heavy, and of this process alone.
    import typst  # noqa: PLC0415

    # The machine's own fonts are left alone: a document is the same wherever it is made.
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[order.fonts_dir] if order.fonts_dir else [])
    return typst.compile(
        _TEMPLATE.read_bytes(),
        font_paths=fonts,
        ignore_system_fonts=True,
        format="pdf",
        sys_inputs={"document": bytes(order.document).decode()},
        timestamp=order.dated_s,
    )


if __name__ == "__main__":
    _bound_memory()
    sys.stdout.buffer.write(_pdf(msgspec.json.decode(sys.stdin.buffer.read(), type=TypesettingOrder)))
