"""`python -m benchmarks.training.bare_loop <spec.json> <marks.json>`: TRL's trainer on a spec's rows, and nothing else.

It runs as our worker does: the same arguments, threads, priority and number format. Only what we put around it is not
there. Writes the unix seconds at which each step ended.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from tokenyard.core.training import TrainingSpec
from tokenyard_deployments.training.examples import encoded, read_rows
from tokenyard_deployments.training.machine import base_dtype, limit_process
from tokenyard_deployments.training.methods.arguments import trainer_arguments


class _Marks(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.time())


def run(spec: TrainingSpec, scratch: Path) -> list[float]:
    limit_process(spec.resources)
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path)
    rows = [
        {"input_ids": one.input_ids, "labels": one.labels}
        for one in encoded(read_rows(spec.training_url), tokenizer, spec.max_seq_length)
    ]
    longest = max(len(row["input_ids"]) for row in rows)
    base = AutoModelForCausalLM.from_pretrained(spec.base_model_path, dtype=base_dtype(spec.resources))
    set_seed(spec.seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        target_modules=list(spec.lora.target_modules),
    )
    arguments = trainer_arguments(
        spec, str(scratch), rows=len(rows), tokens_of=lambda count: count * longest, workers=1
    )
    marks = _Marks()
    trainer = SFTTrainer(
        model=get_peft_model(base, lora),
        args=SFTConfig(
            **arguments | {"save_strategy": "no"},
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[marks],
    )
    trainer.train()
    return marks.seconds


def main() -> None:
    spec, marks = Path(sys.argv[1]), Path(sys.argv[2])
    found = run(msgspec.json.decode(spec.read_bytes(), type=TrainingSpec), marks.parent)
    marks.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
