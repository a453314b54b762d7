"""Rows to train on, always the same, of lengths as those of chats: most are short, a few long."""

import json
import math
from pathlib import Path
from random import Random
from statistics import NormalDist

from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.training import Hyperparameters, TrainingSpec

WORDS = "the order will be sent today and if it does not come please write to us with its number again".split()
MEDIAN_WORDS, SPREAD = 24, 0.7  # log-normal, as instruction data is; a chat's marks come on top


def write_rows(file: Path, count: int) -> Path:
    random = Random(1)
    lengths = [
        max(1, round(MEDIAN_WORDS * math.exp(SPREAD * NormalDist().inv_cdf((n + 0.5) / count)))) for n in range(count)
    ]
    random.shuffle(lengths)
    with file.open("w") as opened:
        for length in lengths:
            words = random.choices(WORDS, k=length)
            asked, answered = words[: length // 3], words[length // 3 :]
            turns = [("user", " ".join(asked)), ("assistant", " ".join(answered))]
            opened.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    return file


def spec_of(
    base_model: Path,
    folder: Path,
    rows: Path,
    *,
    batch_size: int,
    packing: bool | None = None,
    resumed: Path | None = None,
) -> TrainingSpec:
    """Return a spec of one epoch whose attempt stands in `folder`."""
    return TrainingSpec(
        job=JobId(f"ftjob-{folder.name}"),
        attempt=1,
        organization=OrganizationId("org_bench"),
        base_model="small",
        method="supervised",
        base_model_path=str(base_model),
        training_url=f"file://{rows}",
        output_url=f"file://{folder}",
        resume_url=None if resumed is None else f"file://{resumed}",
        hyperparameters=Hyperparameters(
            n_epochs=1, batch_size=batch_size, learning_rate_multiplier=1.0, packing=packing
        ),
        seed=3,
        max_seq_length=1024,
        max_lora_rank=16,
    )
