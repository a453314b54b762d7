"""Runs of Weights & Biases, written by its own library without asking its servers."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from tokenyard.core.errors import Unavailable
from tokenyard.finetune.job import WandbSettings
from tokenyard.finetune.results.wandb_run import LoggedStep, WandbRun, wandb_file

STEPS = [LoggedStep(1, 1_700_000_001, {"train/loss": 1.5}), LoggedStep(2, 1_700_000_009, {"train/loss": 0.5})]


def run_of(job: str = "ftjob-1") -> WandbRun:
    settings = WandbSettings(project="bots", entity="acme", tags=("shop",))
    return WandbRun(job=job, base_model="small-model", settings=settings, config={"n_epochs": 2}, steps=STEPS)


def records(file: bytes) -> Iterator[Record]:
    """Yield what stands in a file: 7 bytes of their own, then LevelDB's log format, here of one block."""
    assert file[:4] == b":W&B"
    place = 7
    while place < len(file):
        _, length, kind = struct.unpack_from("<IHB", file, place)
        assert kind == 1, "a record that is whole"
        record = Record()
        record.ParseFromString(file[place + 7 : place + 7 + length])
        yield record
        place += 7 + length


@pytest.fixture(scope="module")
def file() -> bytes:
    return asyncio.run(wandb_file(run_of()))


def test_a_run_says_whose_it_is_and_what_each_step_measured(file: bytes) -> None:
    found = list(records(file))
    (run,) = (one.run for one in found if one.HasField("run"))
    assert (run.run_id, run.project, run.entity, run.display_name) == ("ftjob-1", "bots", "acme", "ftjob-1")
    assert list(run.tags) == ["shop", "tokenyard/finetune", "tokenyard/small-model", "tokenyard/ftjob-1"]
    settings = {one.key: one.value_json for one in run.config.update}
    assert settings["n_epochs"] == "2"
    logged = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.history.item}
        for one in found
        if one.HasField("history")
    ]
    assert [(one["_step"], one["train/loss"], one["_timestamp"]) for one in logged] == [
        (1, 1.5, 1_700_000_001),
        (2, 0.5, 1_700_000_009),
    ]


def test_a_run_tells_nothing_of_the_machine(file: bytes) -> None:
    assert socket.gethostname().encode() not in file
    assert not any(one.HasField("stats") or one.HasField("files") for one in records(file))


async def test_a_run_that_cannot_be_written_is_told() -> None:
    with pytest.raises(Unavailable, match=r"was not written: (.|\n)*Run ID cannot contain"):
        await wandb_file(run_of("a/b"))
