"""What the catalog tells the others about a model."""

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.model_spec import SamplingDefaults
from tokenyard.core.price import Price


class BaseModel(msgspec.Struct, frozen=True):
    """One served base model, from `deployments/models/<id>.yaml`.

    `path` is the local folder with config, weights and tokenizer. `template_tokens` bounds what the chat template
    adds to the text of the messages, for the first message and `template_tokens_per_message` for each one.
    """

    id: str
    path: str
    context_length: int
    default_max_tokens: int
    template_tokens: int
    template_tokens_per_message: int
    max_lora_rank: int
    created: int
    sampling: SamplingDefaults = SamplingDefaults()
    calls_tools: bool = False


class ResolvedModel(msgspec.Struct, frozen=True):
    """A public model name, resolved for one organization. `name` is what vLLM is asked for and what replies say."""

    name: str
    base: BaseModel
    price: Price
    adapter: AdapterRef | None = None
