"""Counts the tokens of one HTTP request over everything it makes the engine do."""

from collections.abc import Callable
from contextvars import ContextVar

from tokenyard.core.usage import MeterClaims, TokenUsage


class AttemptOver(Exception):
    """The request has ended: nothing may begin for it any more."""


class AttemptTokens:
    """The count of one attempt. A prompt counts once, also where `n` answers were asked of it."""

    def __init__(self, claims: MeterClaims) -> None:
        self.claims = claims
        self.aborted = False
        self._closed = False
        self._open: dict[str, Callable[[], int] | None] = {}
        self._begun = False
        self._prompts: dict[str, tuple[int, int]] = {}
        self._completion_tokens = 0
        self._pooled_tokens = 0

    def close(self) -> None:
        """Let nothing begin any more."""
        self._closed = True

    def check_open(self) -> None:
        """Raise `AttemptOver` where the request has ended."""
        if self._closed:
            raise AttemptOver(self.claims.attempt)

    def started(self, sequence: str, made: Callable[[], int] | None) -> None:
        """Note that the engine took `sequence` (its own id); `made` tells how many tokens it has made of it so far.

        Without `made` it is a prompt to be embedded, which is answered whole.
        """
        self._open[sequence] = made

    def ended(self, sequence: str, prompt: str, usage: TokenUsage, *, aborted: bool) -> None:
        """Take the final count of `sequence`, one of the answers to `prompt`.

        Of several answers the last one whose prompt was computed says what the cache gave it.
        """
        if sequence not in self._open:
            return
        if self._open.pop(sequence) is None:
            self._pooled_tokens += usage.prompt_tokens
        if usage.prompt_tokens:
            self._begun = True
            self._prompts[prompt] = (usage.prompt_tokens, usage.cached_tokens)
        self._completion_tokens += usage.completion_tokens
        self.aborted = self.aborted or aborted

    @property
    def open_sequences(self) -> tuple[str, ...]:
        """What the engine still works on."""
        return tuple(self._open)

    @property
    def made(self) -> int:
        """Tokens so far, also of what has not ended."""
        generated = self._completion_tokens + sum(made() for made in self._open.values() if made is not None)
        return generated + self._pooled_tokens

    @property
    def running(self) -> int:
        """Sequences that have begun and not ended; of prompts to be embedded all that have not ended."""
        return sum(1 for made in self._open.values() if made is None or made())

    @property
    def begun(self) -> bool:
        """Whether the engine has given anything for this request."""
        return self._begun or any(made() for made in self._open.values() if made is not None)

    @property
    def usage(self) -> TokenUsage:
        """The count of what has ended; it is exact when nothing is open."""
        return TokenUsage(
            prompt_tokens=sum(tokens for tokens, _ in self._prompts.values()),
            completion_tokens=self._completion_tokens,
            cached_tokens=sum(cached for _, cached in self._prompts.values()),
        )


CURRENT_ATTEMPT: ContextVar[AttemptTokens | None] = ContextVar("tokenyard_attempt", default=None)
"""The count of the HTTP request that this task works for; the engine's tasks inherit it."""
