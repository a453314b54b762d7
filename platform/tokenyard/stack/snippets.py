"""What `tokenyard up` prints at the end: where things are, the keys, and two calls to paste."""

import sys

from tokenyard.core.models import ModelTask
from tokenyard.settings import Settings
from tokenyard.stack.base_models import task_of
from tokenyard.stack.installation import local_url

# Small models answer this right from any machine: short, one sure answer, and a form that ends it.
PROMPT = "What is the capital of France? Answer in one sentence."
MAX_TOKENS = 64


def addresses(settings: Settings) -> str:
    """Return where the platform listens."""
    return (
        f"Base URL:      {local_url(settings, settings.gateway_port)}/v1\n"
        f"Dashboard:     {local_url(settings, settings.dashboard_port)}\n"
        f"Logs:          {settings.data_dir.absolute() / 'logs'}"
    )


def keys(admin_key: str, api_key: str) -> str:
    """Return the two first keys, for the only time."""
    return (
        f"Admin key:     {admin_key}\n"
        f"API key:       {api_key}\n"
        "These keys are shown once; only their hashes are stored. Keep them."
    )


def curl(settings: Settings, model: str, key: str) -> str:
    """Return a streamed chat with curl."""
    message = f'{{"role": "user", "content": "{PROMPT}"}}'
    return (
        f"curl -N {local_url(settings, settings.gateway_port)}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"model": "{model}", "stream": true, "max_tokens": {MAX_TOKENS}, "messages": [{message}]}}\''
    )


def python(settings: Settings, model: str, key: str) -> str:
    """Return a streamed chat with the `openai` package."""
    return (
        "from openai import OpenAI\n"
        f'client = OpenAI(base_url="{local_url(settings, settings.gateway_port)}/v1", api_key="{key}")\n'
        "stream = client.chat.completions.create(\n"
        f'    model="{model}", stream=True, max_tokens={MAX_TOKENS},\n'
        f'    messages=[{{"role": "user", "content": "{PROMPT}"}}],\n'
        ")\n"
        "for chunk in stream:\n"
        '    print(chunk.choices[0].delta.content or "", end="", flush=True)'
    )


def welcome(settings: Settings, admin_key: str | None, api_key: str | None) -> str:
    """Return all of it."""
    blocks = [addresses(settings)]
    if admin_key and api_key:
        blocks.append(keys(admin_key, api_key))
    else:
        blocks.append("Keys were shown at the first start; new ones: `tokenyard key create`, `... --operator`.")
    chats = (one for one in settings.models if task_of(settings, one) is ModelTask.CHAT)
    model = next(chats, settings.models[0])
    shown = api_key or "YOUR_API_KEY"
    blocks.append(f"Try it in a shell:\n\n{curl(settings, model, shown)}")
    blocks.append(f"Or in Python ({sys.executable} has what it needs):\n\n{python(settings, model, shown)}")
    return "\n\n".join(blocks) + "\n"
