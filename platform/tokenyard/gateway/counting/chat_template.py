"""A model's chat template, rendered as its engine renders it; what may come out differently there is refused."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from jinja2 import Template, TemplateError, nodes
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class NotRendered(Exception):
    """The chat cannot be rendered here, or its template refuses it; the message says why."""


class ChatTemplate:
    """`source` is the template, `special_tokens` what it may print of the tokenizer's own, such as `bos_token`."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        environment = _environment()
        try:
            self._takes_parts = _may_take_parts(environment.parse(source))
            self._template: Template = environment.from_string(source)
        except TemplateError as error:
            raise NotRendered(f"the model's chat template is not known here: {error}") from error
        self._special_tokens = special_tokens

    @classmethod
    def of_model(cls, folder: Path) -> "ChatTemplate":
        """Read the template of the model in `folder`; one without raises `NotRendered`."""
        file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
        settings: Message = msgspec.json.decode(config.read_bytes()) if config.is_file() else {}
        source = file.read_text() if file.is_file() else settings.get("chat_template")
        if not isinstance(source, str):
            raise NotRendered("the model has no chat template")
        named = {f"{name}_token": settings.get(f"{name}_token") for name in _SPECIAL}
        texts = {name: token["content"] if isinstance(token, dict) else token for name, token in named.items() if token}
        return cls(source, texts)

    def render(self, messages: Sequence[tuple[str, str]], *, add_generation_prompt: bool) -> str:
        """Return the text of a chat of pairs of role and content; `NotRendered` says why it has none."""
        plain = self._rendered([{"role": role, "content": text} for role, text in messages], add_generation_prompt)
        if self._takes_parts:
            # The engine may give such a template each content as a list of parts.
            parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in messages]
            if self._rendered(parts, add_generation_prompt) != plain:
                raise NotRendered("the model's chat template does not say in which form it takes messages")
        return plain

    def _rendered(self, messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise NotRendered(f"the model's chat template refuses these messages: {error}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    """Return what chat templates are written for: Hugging Face's settings, filter and functions."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as the engine's
    return environment


def _to_json(value: Any, **options: Any) -> str:
    # Jinja's own escapes what is special in HTML.
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _may_take_parts(template: nodes.Template) -> bool:
    """Tell whether some loop may be over the content of a message: then the engine may hand it out in parts."""
    named = {"content"}
    for assigned in template.find_all(nodes.Assign):
        if isinstance(assigned.target, nodes.Name) and named & set(_names(assigned.node)):
            named.add(assigned.target.name)
    in_macros = any(any(macro.find_all(nodes.For)) for macro in template.find_all(nodes.Macro))
    return in_macros or any(named & set(_names(loop.iter)) for loop in template.find_all(nodes.For))


def _names(node: nodes.Node) -> Iterator[str]:
    found: list[nodes.Node] = [node, *node.find_all((nodes.Name, nodes.Getattr, nodes.Getitem))]
    for one in found:
        if isinstance(one, nodes.Name):
            yield one.name
        elif isinstance(one, nodes.Getattr):
            yield one.attr
        elif isinstance(one, nodes.Getitem) and isinstance(one.arg, nodes.Const):
            yield str(one.arg.value)
