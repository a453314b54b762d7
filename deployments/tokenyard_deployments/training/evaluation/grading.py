"""Grades the answers of the model in training. What a grader asks of other models goes through the attempt's folder:
training holds no key, and reaches nothing else.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec

from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import grade, model_questions
from tokenyard.core.graders.questions import QuestionReply, Questions, question_id, questions_name
from tokenyard.core.graders.shapes import Grader
from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.training import ANSWERS_FOLDER, QUESTIONS_FOLDER
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed

PATIENCE_S = 900.0
"""For so long nobody may take up the questions: the control plane may be starting anew."""
LOOK_S = 0.2
_ANSWERS = msgspec.json.Decoder(dict[str, QuestionReply])


class Grading:
    """Says what answers are worth to a grader."""

    def __init__(self, grader: Grader, folder: AttemptFolder, *, patience_s: float = PATIENCE_S) -> None:
        self._grader = grader
        self._folder = folder
        self._patience_s = patience_s

    def rewards(self, answers: Sequence[GradedAnswer]) -> list[float]:
        """Return what each answer is worth; `TrainingFailed` where models were to be asked and none answered."""
        asked = [
            {name: (question_id(question), question) for name, question in model_questions(self._grader, one).items()}
            for one in answers
        ]
        said = self._said(dict(pair for questions in asked for pair in questions.values()))
        return [
            grade(self._grader, one, {name: said[identity] for name, (identity, _) in questions.items()}).reward
            for one, questions in zip(answers, asked, strict=True)
        ]

    def _said(self, questions: Questions) -> Mapping[str, Answered | NotAnswered]:
        """Return what was answered, by the ids of the questions."""
        if not questions:
            return {}
        name = questions_name(questions)
        if (content := self._folder.read(f"{ANSWERS_FOLDER}/{name}")) is None:
            self._folder.write(f"{QUESTIONS_FOLDER}/{name}", msgspec.json.encode(questions))
            content = self._awaited(f"{ANSWERS_FOLDER}/{name}")
        said = {identity: answer.said for identity, answer in _ANSWERS.decode(content).items()}
        refusals = [one for one in said.values() if isinstance(one, NotAnswered)]
        if len(refusals) == len(questions):
            raise TrainingFailed("grader_not_answered", f"No question of the grader was answered: {refusals[0]}")
        return said

    def _awaited(self, path: str) -> bytes:
        until = time.monotonic() + self._patience_s
        while (content := self._folder.read(path)) is None:
            if time.monotonic() > until:
                raise TrainingFailed("grader_not_answered", "The grader's questions were not taken up.", retryable=True)
            time.sleep(LOOK_S)
        return content
