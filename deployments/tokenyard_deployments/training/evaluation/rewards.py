"""What a grader says of a model's answers to held-out rows."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from transformers import GenerationConfig

from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.training import MAX_ANSWERED_ROWS
from tokenyard_deployments.training.evaluation.grading import Grading
from tokenyard_deployments.training.prompts import EncodedPrompt


class RewardEvaluation(msgspec.Struct, frozen=True):
    """The mean over rows of what their likeliest answers are worth."""

    reward: float


def evaluate_rewards(
    model: Any, *, prompts: Sequence[EncodedPrompt], tokenizer: Any, grading: Grading, max_tokens: int
) -> RewardEvaluation:
    """Let `model` answer the first `MAX_ANSWERED_ROWS` rows; its mode is kept, and nothing random is drawn."""
    was_training = model.training
    model.eval()
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    try:
        with torch.no_grad():
            answers = [
                GradedAnswer(prompt.item, _answer(model, prompt, tokenizer, config))
                for prompt in prompts[:MAX_ANSWERED_ROWS]
            ]
    finally:
        model.train(was_training)
    rewards = grading.rewards(answers)
    return RewardEvaluation(math.fsum(rewards) / len(rewards))


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer, as serving takes them."""
    declared = model.generation_config.eos_token_id
    ends = declared if isinstance(declared, list) else [declared]
    return sorted({one for one in (*ends, tokenizer.eos_token_id) if one is not None})


def _answer(model: Any, prompt: EncodedPrompt, tokenizer: Any, config: GenerationConfig) -> str:
    """One row at a time: padded beside others, it would be computed in another order."""
    ids = torch.tensor([prompt.ids], device=model.device)
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    answer: str = tokenizer.decode(made[0, len(prompt.ids) :], skip_special_tokens=True)
    return answer
