"""Testing criteria: graders, each with what an answer must be worth to pass."""

from collections.abc import Mapping, Sequence

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.shapes import (
    Grader,
    GraderProblem,
    MultiGrader,
    ScoreModelGrader,
    TextSimilarityGrader,
    parsed_grader,
    reads_sample,
    single_graders,
)
from tokenyard.evals.parsing import refused
from tokenyard.evals.ports import Json

MAX_CRITERIA = 16
MAX_GRADERS = 32
"""With those of each `multi`: all of them grade each row."""
_THRESHOLD = "pass_threshold"


class Criterion(msgspec.Struct, frozen=True):
    """An answer passes that is worth at least `passes_at`."""

    grader: Grader
    passes_at: float

    @property
    def name(self) -> str:
        return self.grader.name

    @property
    def type(self) -> str:
        return str(type(self.grader).__struct_config__.tag)

    def passes(self, reward: float) -> bool:
        return reward >= self.passes_at


def criteria_of(values: Sequence[Json], *, with_samples: bool = True) -> list[Criterion]:
    """Return what a client sent, or raise `InvalidRequest`, which names the field.

    Without samples none may refer to an answer.
    """
    if not 0 < len(values) <= MAX_CRITERIA:
        raise InvalidRequest(f"There must be 1 to {MAX_CRITERIA} testing criteria.", param="testing_criteria")
    found = [_criterion(value, f"testing_criteria.{place}") for place, value in enumerate(values)]
    if sum(len(single_graders(one.grader)) for one in found) > MAX_GRADERS:
        raise InvalidRequest(f"There are more than {MAX_GRADERS} graders in all.", param="testing_criteria")
    names = set[str]()
    for place, one in enumerate(found):
        if one.name in names:
            raise InvalidRequest("Each needs a name of its own.", param=f"testing_criteria.{place}.name")
        names.add(one.name)
        if reads_sample(one.grader) and not with_samples:
            raise InvalidRequest(
                "It refers to 'sample', which this eval has not: set 'data_source_config.include_sample_schema'.",
                param=f"testing_criteria.{place}",
            )
    return found


def _criterion(value: Json, where: str) -> Criterion:
    without = {name: one for name, one in value.items() if name != _THRESHOLD}
    try:
        grader = parsed_grader(without)
    except GraderProblem as problem:
        param = f"{where}.{problem.param}" if problem.param else where
        raise InvalidRequest(problem.message, code=problem.code, param=param) from problem
    return Criterion(grader, _threshold(grader, value, f"{where}.{_THRESHOLD}"))


def _threshold(grader: Grader, value: Mapping[str, object], where: str) -> float:
    given = value.get(_THRESHOLD)
    if not isinstance(grader, TextSimilarityGrader | ScoreModelGrader | MultiGrader):
        if given is not None:
            raise refused(where, "an answer is right or wrong to this grader.")
        return 1.0
    if given is None and isinstance(grader, ScoreModelGrader):
        return sum(grader.range) / 2
    if given is None:
        raise InvalidRequest(f"Missing required parameter: '{where}'.", param=where, code="missing_required_parameter")
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise InvalidRequest("It must be a number.", param=where, code="invalid_type")
    return float(given)
