"""Converts a GGUF file into what vLLM, PEFT and the gateway's tokenizer read: safetensors, config and tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


class ConversionFailed(Exception):
    """The GGUF file cannot be read as a language model."""


def convert_gguf(file: Path, into: Path) -> None:
    """Write `file` into the folder `into` as bfloat16 safetensors with config, tokenizer and chat template.

    Raises:
        ConversionFailed: not a GGUF file, or of an architecture that transformers cannot read.
    """
    # Heavy: imported only when a conversion really runs.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    try:
        with _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.bfloat16,
                # Without it transformers keeps the weights quantized and refuses to save them.
                quantization_config=GgufConfig(gguf_file=file.name, dequantize=True),
            )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ConversionFailed(f"{file.name} cannot be converted: {error}") from error
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    tokenizer.save_pretrained(str(into))
    model.save_pretrained(str(into))


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Keep what transformers asks of `gguf` again: the file three times, the names of an architecture for each module.

    That is half of the time of a small model.
    """
    import gguf  # noqa: PLC0415

    asked = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in asked.items():
        setattr(gguf, name, cache(function))
    try:
        yield
    finally:
        for name, function in asked.items():
            setattr(gguf, name, function)
