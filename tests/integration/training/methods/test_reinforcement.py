"""Answers are made, graded and learnt, by a tiny model; their tokens are counted, and training goes on exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

pytest.importorskip("trl")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from support.ray_cluster.small_model import pulled
from tokenyard.core.evaluation.questions import Answered
from tokenyard.core.graders.grading import ModelQuestion
from tokenyard.core.graders.questions import QuestionReply
from tokenyard.core.graders.shapes import (
    GraderMessage,
    MultiGrader,
    ScoreModelGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)
from tokenyard.core.training import (
    ADAPTER_WEIGHTS,
    ANSWERS_FOLDER,
    QUESTIONS_FOLDER,
    TrainingEvent,
    TrainingResources,
    step_folder,
)
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.evaluation.grading import Grading
from tokenyard_deployments.training.evaluation.rewards import evaluate_rewards
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import TrainingWorker, training_method
from tokenyard_deployments.training.prompts import EncodedPrompt

pytestmark = pytest.mark.usefixtures("one_thread")
LETTER = StringCheckGrader(
    name="letter", operation="like", input="{{ sample.output_text }}", reference="{{ item.letter }}"
)
NEAR = TextSimilarityGrader(
    name="near",
    evaluation_metric="fuzzy_match",
    input="{{ sample.output_text }}",
    reference="the quick brown fox jumps over a lazy dog",
)
JUDGE = ScoreModelGrader(
    name="judge", model="a-model", input=[GraderMessage(role="user", content="{{ sample.output_text }}")]
)
NEVER_SAVES = TrainingResources(threads=1, resume_interval_s=3600)
SAVES_EACH_STEP = TrainingResources(threads=1, resume_interval_s=0.0, resume_share=1.0)
PROMPT = len("|user\nSay 1|\n|assistant\n")  # a mark is one token


def question(number: int, letter: str = "e") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Say {number}"}], "letter": letter}


ROWS = [question(number) for number in range(7)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def spec(base: Path, folder: Path, rows: list[dict[str, Any]] = ROWS, **changed: Any) -> Any:
    folder.mkdir(exist_ok=True)
    training = write_rows(folder / "rows.jsonl", rows)
    validation = write_rows(folder / "held_out.jsonl", [question(8), question(9)])
    plain: dict[str, Any] = {
        "n_epochs": 2,
        "batch_size": 2,
        "learning_rate_multiplier": 20.0,
        "num_generations": 4,
        "max_completion_length": 8,
        "temperature": 1.0,
        "beta": 0.0,
        "grader": NEAR,
        "resources": NEVER_SAVES,
    }
    return spec_of(
        base, folder, training, method="reinforcement", validation_url=f"file://{validation}", **plain | changed
    )


def events_of(folder: AttemptFolder) -> list[TrainingEvent]:
    root = Path(folder.root)
    return [msgspec.json.decode(file.read_bytes(), type=TrainingEvent) for file in sorted(root.glob("events/*.json"))]


def steps_of(folder: AttemptFolder) -> list[dict[str, int | float]]:
    return [event.data for event in events_of(folder) if "total_steps" in event.data]


def test_every_step_tells_what_its_answers_were_worth(base: Path, tmp_path: Path) -> None:
    folder = train(spec(base, tmp_path))
    steps = steps_of(folder)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6], "of seven rows, one waits for the next epoch"
    for step in steps:
        assert 0 <= step["train_reward"] <= 1
        assert step["train_reward_std"] >= 0
        assert 1 <= step["train_completion_length"] <= 8
    counts, checkpoints = folder.counts(), folder.checkpoints()
    assert counts is not None
    assert set(counts.base) == {"reward"}
    assert [checkpoint.epoch for checkpoint in checkpoints] == [1, 2]
    last = checkpoints[-1].metrics
    assert last["valid_reward"] == last["full_valid_reward"]
    assert any(event.message.startswith("Epoch 2: validation reward=") for event in events_of(folder))


def test_prompt_and_answer_of_each_generation_are_paid(base: Path, tmp_path: Path) -> None:
    folder = train(spec(base, tmp_path))
    point = folder.resume_point()
    assert point is not None
    made = sum(2 * 4 * (PROMPT + step["train_completion_length"]) for step in steps_of(folder))
    assert point.trained_tokens == pytest.approx(made, abs=1e-3)
    assert point.trained_tokens <= spec(base, tmp_path).hyperparameters.most_tokens(rows=7, tokens=7 * PROMPT)


class Killed(Exception):
    """What stands here for a death of the process."""


class Dies(TrainerCallback):  # type: ignore[misc]
    def __init__(self, after: int) -> None:
        self._after = after

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._after:
            raise Killed


def train_until(wanted: Any, step: int) -> None:
    def prepare(trainer: Any) -> Any:
        trainer.add_callback(Dies(step))
        return trainer

    with pytest.raises(Killed):
        training_method(wanted.method)(wanted, TrainingWorker(0, 1, on_epoch=lambda _: None, prepare=prepare))


@pytest.mark.parametrize(("step", "settings"), [(2, {}), (3, {"beta": 0.1, "temperature": 0.7}), (5, {})])
def test_it_goes_on_after_any_step_to_the_same_bytes(
    base: Path, tmp_path: Path, step: int, settings: dict[str, Any]
) -> None:
    settings = {**settings, "resources": SAVES_EACH_STEP}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = train(spec(base, whole, **settings))
    train_until(spec(base, cut, **settings), step)
    folder = train(spec(base, cut, attempt=2, resume_url=f"file://{cut}/1", **settings))
    assert any(event.message == f"Going on after step {step} of 6" for event in events_of(folder))
    ours, theirs = folder.resume_point(), expected.resume_point()
    assert ours is not None
    assert theirs is not None
    assert ours.trained_tokens == theirs.trained_tokens
    made = steps_of(folder)
    assert all(told["train_reward_std"] > 0 for told in made), "something is learnt at each step"
    assert made == steps_of(expected)[-len(made) :]
    name = f"{step_folder('resume', 6)}/{ADAPTER_WEIGHTS}"
    assert (Path(folder.root) / name).read_bytes() == (Path(expected.root) / name).read_bytes()


def text_of(asked: ModelQuestion) -> str:
    messages: Any = asked.question.asked["messages"]
    text: str = messages[0]["content"]
    return text


@contextmanager
def answering(folder: Path) -> Iterator[list[str]]:
    """Answer what graders ask as the worker does: an answer is worth its letters `e`. Yields what was asked."""
    asked: list[str] = []
    over = Event()

    def answer() -> None:
        while not over.wait(0.01):
            for file in folder.glob(f"*/{QUESTIONS_FOLDER}/*.json"):
                questions = msgspec.json.decode(file.read_bytes(), type=dict[str, ModelQuestion])
                texts = {one: text_of(question) for one, question in questions.items()}
                asked.extend(texts.values())
                said = {
                    one: QuestionReply(Answered(f'{{"result": {min(1, text.count("e") / 8)}}}'))
                    for one, text in texts.items()
                }
                AttemptFolder(f"file://{file.parents[1]}").write(
                    f"{ANSWERS_FOLDER}/{file.name}", msgspec.json.encode(said)
                )
                file.unlink()

    thread = Thread(target=answer)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def test_a_model_says_what_answers_are_worth_also_after_training_went_on(base: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings: dict[str, Any] = {"grader": JUDGE, "resources": SAVES_EACH_STEP}
    with answering(whole) as asked:
        expected = train(spec(base, whole, **settings))
    assert len(asked) > 6 * 2, "answers of each step are asked about"
    assert any(told["train_reward"] > 0 for told in steps_of(expected))
    with answering(cut):
        train_until(spec(base, cut, **settings), 3)
        folder = train(spec(base, cut, attempt=2, resume_url=f"file://{cut}/1", **settings))
    made = steps_of(folder)
    assert made == steps_of(expected)[-len(made) :]
    name = f"{step_folder('resume', 6)}/{ADAPTER_WEIGHTS}"
    assert (Path(folder.root) / name).read_bytes() == (Path(expected.root) / name).read_bytes()


def test_a_row_after_which_no_answer_fits_is_left_out(base: Path, tmp_path: Path) -> None:
    long = question(1, "x")
    long["messages"][0]["content"] = "x" * 110
    folder = train(spec(base, tmp_path, [*ROWS[:2], long], n_epochs=1))
    assert [event.message for event in events_of(folder) if event.level == "warn"] == [
        "1 rows are left out, because no answer of full length fits behind them"
    ]
    with pytest.raises(TrainingFailed, match="After no row is there room for an answer"):
        train(spec(base, tmp_path, [long], attempt=2))


def test_the_likeliest_answer_is_measured_without_dice(base: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    ids = tokenizer("Say 1")["input_ids"]
    made = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0, len(ids) :]
    text = tokenizer.decode(made, skip_special_tokens=True)
    prompts = [EncodedPrompt(ids, {"letter": text}), EncodedPrompt(ids, {"letter": f"{text}?"})]
    before = torch.get_rng_state()
    model.train()
    grading = Grading(LETTER, AttemptFolder(f"file://{tmp_path}"))
    found = evaluate_rewards(model, prompts=prompts, tokenizer=tokenizer, grading=grading, max_tokens=4)
    assert (found.reward, model.training) == (0.5, True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.timeout(1200)
@pytest.mark.long
def test_a_real_model_learns_what_is_rewarded_and_does_it_on_held_out_rows(tmp_path: Path) -> None:
    """It stops to speak of itself, with which the base begins every likeliest answer, and a third of the others."""
    things = ("dog", "tree", "river", "spoon", "cloud", "horse", "book", "lamp", "window", "apple", "shoe", "clock")
    rows = [{"messages": [{"role": "user", "content": f"Do you like a {thing}?"}], "letter": "I"} for thing in things]
    training = write_rows(tmp_path / "rows.jsonl", rows[:8])
    held_out = write_rows(tmp_path / "held_out.jsonl", rows[8:])
    wanted = spec_of(
        pulled(),
        tmp_path,
        training,
        method="reinforcement",
        validation_url=f"file://{held_out}",
        n_epochs=3,
        batch_size=2,
        learning_rate_multiplier=10.0,
        num_generations=8,
        max_completion_length=3,
        temperature=1.0,
        beta=0.0,
        grader=MultiGrader(name="silent", graders={"says": LETTER}, calculate_output="1 - says"),
        resources=NEVER_SAVES,
    )
    folder = train(wanted)
    counts, steps, point = folder.counts(), steps_of(folder), folder.resume_point()
    assert counts is not None
    assert point is not None
    assert counts.base["reward"] == 0
    assert folder.checkpoints()[-1].metrics["valid_reward"] >= 0.5, [step["train_reward"] for step in steps]
    assert sum(step["train_reward"] for step in steps[-3:]) > sum(step["train_reward"] for step in steps[:3])
    assert point.trained_tokens <= wanted.hyperparameters.most_tokens(rows=8, tokens=counts.tokens_per_epoch)
