"""`tokenyard eval` as a process, against the real routes and worker; what a model answers is said beforehand."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import Any

import pytest

from support.evals.fixtures import clients, evals
from support.evals.stand import CHECK, JUDGE, EvalClients, items, rows
from tokenyard.core.evaluation.questions import NotAnswered, Question

__all__ = ["clients", "evals"]
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # a command is the same on either
LIMIT_S = 60.0


class Commands:
    """Starts the command in a folder with rows and graders."""

    def __init__(self, clients: EvalClients, folder: Path) -> None:
        self.clients = clients
        self.folder = folder

    def write(self, name: str, content: Any) -> str:
        lines = content if isinstance(content, list) else [content]
        (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(self.folder / name)

    async def start(self, *arguments: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOKENYARD_")}
        url = str(self.clients.acme.base_url)
        return await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).parent / "tokenyard"), "eval", *arguments, "--url", url),
            env={**clean, "TOKENYARD_API_KEY": "ty-acme"},
            stdout=PIPE,
            stderr=STDOUT,
        )

    async def output_of(self, process: Process) -> str:
        """Return what it prints until it ends, with the worker going round meanwhile."""
        reading = asyncio.create_task(process.communicate())
        async with asyncio.timeout(LIMIT_S):
            while not reading.done():
                await self.clients.stand.round()
                await asyncio.sleep(0.05)
        return (await reading)[0].decode()

    async def run(self, *arguments: str) -> tuple[int | None, str]:
        process = await self.start(*arguments)
        said = await self.output_of(process)
        return process.returncode, said


@pytest.fixture
def commands(clients: EvalClients, tmp_path: Path) -> Commands:
    folder = tmp_path / "mine"
    folder.mkdir()
    return Commands(clients, folder)


async def test_answers_that_are_there_are_graded(commands: Commands) -> None:
    file, grader = commands.write("rows.jsonl", rows(5, right=3)), commands.write("exact.json", CHECK)
    status, said = await commands.run(file, "--grader", grader)
    assert status == 0, said
    assert "row 3: fail (exact): 'wrong'" in said
    assert [line.rsplit(maxsplit=2) for line in said.splitlines()[-2:]] == [
        ["exact", "3", "0.60"],
        ["all of them", "3", "0.60"],
    ]
    assert commands.clients.stand.answers.asked == []
    status, said = await commands.run(file, "--grader", grader, "--at-least", "0.7")
    assert status == 1
    assert "0.60 of the rows passed, 0.70 were asked." in said


async def test_a_model_is_asked_and_graded_by_several(commands: Commands) -> None:
    def says(_model: str, question: Question) -> str:
        messages: Any = question.asked["messages"]
        asked = str(messages[-1]["content"])
        if asked.startswith("Is "):
            return '{"result": 0.9, "steps": []}'
        return asked.removeprefix("What is q").removesuffix("?").join(("a", ""))

    commands.clients.stand.answers.says = says
    graders = ("--grader", commands.write("a.json", CHECK), "--grader", commands.write("b.json", JUDGE))
    asked = ("--model", "small-model", "--ask", "What is {{ item.question }}?", "--max-tokens", "40", "--json")
    status, said = await commands.run(commands.write("rows.jsonl", items(4)), *graders, *asked)
    assert status == 0, said
    found = json.loads(said)
    assert (found["total"], found["passed"], found["criteria"]) == (4, 4, {"exact": 4, "judge": 4})
    assert (found["model"], found["not_passed"]) == ("small-model", [])


async def test_what_is_wrong_is_one_clear_line(commands: Commands) -> None:
    file, grader = commands.write("rows.jsonl", items(2)), commands.write("exact.json", CHECK)
    broken = commands.write("broken.json", {**CHECK, "operation": "is"})
    for arguments, message in (
        ((file, "--grader", grader, "--model", "small-model"), "Give --model and --ask together"),
        ((file, "--grader", "none.json"), "none.json is not a grader as JSON"),
        (("none.jsonl", "--grader", grader), "There is no file none.jsonl"),
        ((file, "--grader", broken), "operation"),
        ((file, "--grader", grader, "--model", "no-model", "--ask", "x"), "The model `no-model` does not exist."),
        ((file, "--grader", grader), "sample"),
    ):
        status, said = await commands.run(*arguments)
        assert (status, message in said) == (1, True), said
        assert "Traceback" not in said


async def test_interrupted_the_run_is_cancelled(commands: Commands) -> None:
    commands.clients.stand.answers.before = _never
    file, grader = commands.write("rows.jsonl", items(2)), commands.write("exact.json", CHECK)
    process = await commands.start(file, "--grader", grader, "--model", "small-model", "--ask", "x")
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        started = (await process.stdout.readline()).decode()
    process.send_signal(signal.SIGINT)
    await commands.output_of(process)
    assert process.returncode == 130
    [run, made] = (word.rstrip(":") for word in started.split()[1:4:2])
    ended = await commands.clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert ended.status == "canceled"


def _never() -> None:
    raise NotAnswered("later", passing=True)
