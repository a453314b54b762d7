"""A chat template gives what transformers, and so the engine, makes of it; where that is not certain, nothing."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from support.fakes.tiny_model import save_tiny_model
from tokenyard.gateway.counting.chat_template import ChatTemplate, NotRendered

CHAT = [("system", "a <b> & 'c'"), ("user", " x\n"), ("assistant", "y"), ("user", "\u00e9 {{ z }}")]
TEMPLATES = {
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "white space": "{% for m in messages %}\n  {% if true %}\n  {{ m['role'] }}: {{ m['content'] | trim }}\n"
    "  {% endif %}\n{% endfor %}",
    "json": "{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "no tools": "{% if tools %}x{% endif %}{% if documents is none %}none{% endif %}"
    "{% for t in tools or [] %}{% endfor %}{{ messages[-1].content }}",
    "parts or text": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}",
    "prompt": "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": "<|im_start|>"}))
    return folder


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_it_is_what_transformers_makes_of_it(model: Path, name: str, generation: bool) -> None:
    (model / "chat_template.jinja").write_text(TEMPLATES[name])
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    messages = [{"role": role, "content": content} for role, content in CHAT]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=generation, tokenize=False)
    assert ChatTemplate.of_model(model).render(CHAT, add_generation_prompt=generation) == wanted


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}", "in which form"),
        ("{% for m in messages %}{% for c in m.content %}{{ loop.index }}{% endfor %}{% endfor %}", "in which form"),
        (
            "{% macro show(c) %}{% for p in c %}{{ loop.index }}{% endfor %}{% endmacro %}"
            "{{ show(messages[0].content) }}",
            "in which form",
        ),
        (
            "{% set c = messages[0]['content'] %}{% for p in c %}{{ loop.index }}{% endfor %}",
            "in which form",
        ),
        ("{{ raise_exception('no system') }}", "no system"),
        ("{{ messages[9].content.text }}", "refuses"),
        ("{{ messages.clear() }}", "refuses"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses"),
    ],
)
def test_what_is_not_certain_is_refused(template: str, why: str) -> None:
    with pytest.raises(NotRendered, match=why):
        ChatTemplate(template, {}).render(CHAT, add_generation_prompt=True)


def test_a_special_token_may_be_described_at_length(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}x", "bos_token": {"content": "<s>", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.of_model(tmp_path).render(CHAT, add_generation_prompt=True) == "<s>x"


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotRendered, match="not known here"):
        ChatTemplate("{% generation %}x{% endgeneration %}", {})
    with pytest.raises(NotRendered, match="no chat template"):
        ChatTemplate.of_model(tmp_path)
