"""The loops of kept answers that a worker process runs; any number of workers may run them."""

import logging

from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.web.loops import Loop

ANSWERS_AT_ONCE = 500
ROUNDS = 20
DELETE_INTERVAL_S = 60.0
LOST_INTERVAL_S = 5.0

_LOG = logging.getLogger(__name__)


def answer_loops(answers: AnswerOperatorStore) -> list[Loop]:
    """Return the loops: delete answers whose time is over, in small transactions, and end those that were lost."""

    async def delete_expired() -> None:
        for _ in range(ROUNDS):
            if await answers.delete_expired(limit=ANSWERS_AT_ONCE) < ANSWERS_AT_ONCE:
                return

    async def fail_lost() -> None:
        lost = await answers.fail_lost()
        if lost:
            _LOG.warning("responses were lost with the process that made them: %s", ", ".join(lost))

    return [
        Loop("delete expired answers", delete_expired, DELETE_INTERVAL_S),
        Loop("fail lost responses", fail_lost, LOST_INTERVAL_S),
    ]
