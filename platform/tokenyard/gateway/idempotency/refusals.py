"""The errors of idempotency keys."""

from tokenyard.core.errors import (
    Conflict,
    Gone,
    IdempotencyKeyReused,
    NotFound,
    RateLimited,
    TokenyardError,
    Unavailable,
)

LONGEST_WAIT_S = 30.0


def still_running(for_s: float) -> Conflict:
    """What has run for long may run for as long again."""
    wait_s = round(min(LONGEST_WAIT_S, max(1.0, for_s)))
    return Conflict(
        "The request with this Idempotency-Key is still running. Its reply can be had under the key when it has ended.",
        code="idempotency_key_in_use",
        param="Idempotency-Key",
        headers={"retry-after": str(wait_s)},
    )


def other_body() -> IdempotencyKeyReused:
    return IdempotencyKeyReused(
        "This Idempotency-Key was used for another request: another endpoint, or another body.", param="Idempotency-Key"
    )


def gone() -> Gone:
    return Gone(
        "The request with this Idempotency-Key has run and was charged, but its reply is not kept: it was over 1 MiB, "
        "was cut, or there was no room for it. To run it again, and be charged again, use another key.",
        code="idempotent_reply_gone",
    )


def nothing_to_resume() -> NotFound:
    return NotFound(
        "There is no reply with this Idempotency-Key to be resumed: it is kept for 24 hours. Without 'Last-Event-ID' "
        "the request runs anew, and is charged.",
        code="idempotent_reply_not_found",
        param="Last-Event-ID",
    )


def too_much_kept(wait_s: float) -> RateLimited:
    return RateLimited(
        "Too many bytes of replies are kept under your organization's idempotency keys. Each is kept for 24 hours; "
        "requests without a key are not affected.",
        code="idempotency_storage_full",
        retry_after_s=wait_s,
    )


def no_memory() -> TokenyardError:
    return Unavailable(
        "There is no memory for more replies under idempotency keys right now; requests without a key are not "
        "affected.",
        code="idempotency_storage_full",
        retry_after_s=30,
    )
