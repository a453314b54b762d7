"""The loop of kept answers that a worker process runs; any number of workers may run it."""

from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.web.loops import Loop

ANSWERS_AT_ONCE = 500
ROUNDS = 20
DELETE_INTERVAL_S = 60.0


def retention_loop(answers: AnswerOperatorStore) -> Loop:
    """Return the loop that deletes answers whose time is over, in small transactions."""

    async def delete_expired() -> None:
        for _ in range(ROUNDS):
            if await answers.delete_expired(limit=ANSWERS_AT_ONCE) < ANSWERS_AT_ONCE:
                return

    return Loop("delete expired answers", delete_expired, DELETE_INTERVAL_S)
