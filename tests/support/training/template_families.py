"""Small chat templates with the traits of well-known families, each with the mark that ends its answers."""

from typing import NamedTuple


class Family(NamedTuple):
    """`end` ends every answer; of one that shows no tools, rows with tools cannot be learnt."""

    template: str
    end: str
    shows_tools: bool = True


_CHATML_OPENED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

# Marks around every role, a date, text that is trimmed, tools in the first user's message, one call as JSON.
_LLAMA_HEAD = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{% endif %}{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}"
    "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{{ '<|head|>system<|/head|>\n\nToday: ' + date_string + '\n\n' + said + '<|eot|>' }}"
    "{% for message in rest %}{{ '<|head|>' + ('ipython' if message.role == 'tool' else message.role) }}"
    "{{ '<|/head|>\n\n' }}{% if tools and loop.first %}{% for tool in tools %}{{ tool | tojson(indent=4) }}\n"
    "{% endfor %}{% endif %}"
)
_LLAMA_TAIL = (
    "{{ '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
_LLAMA = (
    _LLAMA_HEAD + "{% if message.tool_calls %}{% if message.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}{% set call = message.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + call.name + '\", \"parameters\": ' }}{{ call.arguments | tojson }}{{ '}' }}"
    "{% else %}{{ message.content | trim }}{% endif %}" + _LLAMA_TAIL
)
_PYTHONIC = (
    _LLAMA_HEAD + "{% if message.tool_calls %}{{ '[' }}{% for call in message.tool_calls %}"
    "{{ call.function.name + '(' }}{% for name, value in call.function.arguments.items() %}"
    "{{ name ~ '=' ~ (value | tojson) }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ')' }}"
    "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']' }}{% else %}{{ message.content | trim }}{% endif %}"
    + _LLAMA_TAIL
)
# A system's message of its own where there is none; results of tools are a user's.
_QWEN_HEAD = (
    "{{ '<|im_start|>system\n' + (messages[0].content if messages[0].role == 'system' else 'You are kind.') }}"
    "{% if tools %}{{ '\n<tools>' }}{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}"
    "{{ '\n</tools>' }}{% endif %}{{ '<|im_end|>\n' }}"
)
_QWEN_CALLS = (
    "{% for call in message.tool_calls or [] %}{% set call = call.function or call %}"
    '{{ \'\n<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' }}{{ call.arguments | tojson }}'
    "{{ '}\n</tool_call>' }}{% endfor %}"
)
_QWEN_RESULTS = (
    "{% elif message.role == 'tool' %}{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}"
    "{{ '<|im_start|>user' }}{% endif %}{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
)
_QWEN2 = (
    _QWEN_HEAD + "{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ '<|im_start|>assistant' }}{% if message.content %}{{ '\n' + message.content }}{% endif %}"
    + _QWEN_CALLS
    + "{{ '<|im_end|>\n' }}"
    + _QWEN_RESULTS
    + "{% elif not (loop.first and message.role == 'system') %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    + _CHATML_OPENED
)
# Thoughts stand before the answers to the last question only, so an answer changes as the talk goes on.
_QWEN3 = (
    _QWEN_HEAD + "{% set ns = namespace(last=-1) %}{% for message in messages %}{% if message.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% if loop.index0 > ns.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ message.content.split('</think>')[-1].lstrip('\n') }}"
    + _QWEN_CALLS
    + "{{ '<|im_end|>\n' }}"
    + _QWEN_RESULTS
    + "{% elif not (loop.first and message.role == 'system') %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    + _CHATML_OPENED
)
# Users and assistants take turns or it raises; the system's text stands in the last question; ids of nine letters.
_MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set said = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{% set questions = rest | selectattr('role', 'equalto', 'user') | list %}{% set ns = namespace(turn=0, asked=0) %}"
    "{% for message in rest %}"
    "{% if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}"
    "{% if (message.role == 'user') != (ns.turn % 2 == 0) %}{{ raise_exception('roles must take turns') }}{% endif %}"
    "{% set ns.turn = ns.turn + 1 %}{% endif %}{% endfor %}"
    "{% for message in rest %}{% if message.role == 'user' %}{% set ns.asked = ns.asked + 1 %}"
    "{% set last = ns.asked == questions | length %}"
    "{% if tools and last %}{{ '[AVAILABLE_TOOLS] [' }}{% for tool in tools %}{{ tool.function | tojson }}"
    "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ '][/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' + (said + '\n\n' if said and last else '') + message.content + '[/INST]' }}"
    "{% elif message.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for call in message.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{{ \'{"name": "\' + call.function.name + \'", "arguments": \' }}{{ call.function.arguments | tojson }}'
    "{{ ', \"id\": \"' + call.id + '\"}' }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}"
    "{{ ']' + eos_token }}{% elif message.role == 'tool' %}"
    "{{ '[TOOL_RESULTS] {\"content\": ' ~ (message.content | tojson) ~ '}[/TOOL_RESULTS]' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content | trim + eos_token }}"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)
# The system's text begins the first question; the assistant has another name; nothing of tools is shown.
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set said = messages[0].content if messages[0].content is string else messages[0].content[0].text %}"
    "{% set said = said + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must take turns') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}"
    "{% if loop.first %}{{ said }}{% endif %}{% if message.content is string %}{{ message.content | trim }}"
    "{% else %}{% for part in message.content %}{{ part.text | trim }}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# What the model says is marked for trainers that ask for a mask.
_SMOLLM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{% if tools %}{{ '<|im_start|>system\nTools: ' }}{{ tools | tojson }}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}{% for call in message.tool_calls or [] %}{{ '<tool_call>' }}"
    "{{ call.function | tojson }}{{ '</tool_call>' }}{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}" + _CHATML_OPENED
)

FAMILIES = {
    "llama": Family(_LLAMA, "<|eot|>"),
    "llama-pythonic": Family(_PYTHONIC, "<|eot|>"),
    "qwen2": Family(_QWEN2, "<|im_end|>"),
    "qwen3": Family(_QWEN3, "<|im_end|>"),
    "mistral": Family(_MISTRAL, "</s>"),
    "gemma": Family(_GEMMA, "<end_of_turn>", shows_tools=False),
    "smollm": Family(_SMOLLM, "<|im_end|>"),
}
MARKS = sorted(
    {family.end for family in FAMILIES.values()} | {"<|im_start|>", "<|head|>", "<|/head|>", "[INST]", "<s>"}
)
