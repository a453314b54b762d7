"""Reads a file of rows as a check and as training do, and prints the most memory that it took, in bytes, as JSON.

`python data_memory.py <base model> <rows> <scratch folder>`. `anonymous` memory is what the process alone has; pages of
files that it has mapped can be taken back at any time.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoTokenizer

from tokenyard.core.datasets.checking import CheckLimits, CheckSpec
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard_deployments.training.data.check import check_files
from tokenyard_deployments.training.data.shards import store
from tokenyard_deployments.training.examples import encoded, read_rows

T = TypeVar("T")
CONTEXT = 8192
LOOK_EVERY = 50


def resident() -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "anonymous": int(fields["RssAnon"].split()[0]) * 1024,
        "all": (int(fields["RssAnon"].split()[0]) + int(fields["RssFile"].split()[0])) * 1024,
    }


class Peak:
    def __init__(self) -> None:
        self.found = resident()

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        for number, item in enumerate(items):
            if number % LOOK_EVERY == 0:
                self.found = {name: max(value, self.found[name]) for name, value in resident().items()}
            yield item


def main(base_model: str, rows: str, scratch: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    url = f"file://{rows}"
    spec = CheckSpec(
        job=JobId("ftjob-memory"),
        run=1,
        organization=OrganizationId("org_test"),
        method="supervised",
        base_model_path=base_model,
        max_seq_length=CONTEXT,
        files={"training_file": url},
        output_url=f"file://{scratch}",
        limits=CheckLimits(timeout_s=1.0),
    )
    begun = time.monotonic()
    before = resident()
    report = check_files(spec, tokenizer)
    peak = Peak()
    examples = store(peak.watched(encoded(read_rows(url), tokenizer, CONTEXT)), Path(scratch))
    seen = 0
    for row in peak.watched(examples.dataset.with_format("torch")):
        seen += int(torch.numel(row["input_ids"]))
    assert seen == examples.tokens == report.files["training_file"].tokens
    sizes = {"rows": len(examples), "tokens": seen, "seconds": round(time.monotonic() - begun, 1)}
    sys.stdout.write(json.dumps({"before": before, "peak": peak.found, **sizes}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
