"""What this process has let in by itself while Redis was away: never more than a share of each limit (ADR 25).

Pure: nothing here waits. Windows follow the clock that they are given; times are milliseconds.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.budgets import Budget, wallet
from tokenyard.core.ids import OrganizationId, RequestId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import LocalShare
from tokenyard.limits.holds import CountedScope, key_of, limits_of

MAX_SCOPES = 10_000
MAX_ORGANIZATIONS = 10_000
PARTS = 12
# Of the four windows, by number of the limit as the scripts know it.
_PART_MS = (5_000, 5_000, 7_200_000, 7_200_000)


class LocalWindow:
    """Counts the current part and the twelve before, as `lua/windows.lua` does, so that no real window is ever over."""

    def __init__(self, part_ms: int) -> None:
        self._part_ms = part_ms
        self._counts: dict[int, int] = {}

    def used(self, now_ms: int) -> int:
        oldest = now_ms // self._part_ms - PARTS
        for part in [part for part in self._counts if part < oldest]:
            del self._counts[part]
        return sum(self._counts.values())

    def count(self, at_ms: int, change: int) -> None:
        """Count `change` more for the part of `at_ms`."""
        part = at_ms // self._part_ms
        self._counts[part] = self._counts.get(part, 0) + change


class ScopeUse:
    """What a key, a project or an organization, or a model there, has of its share; slots come after the windows."""

    def __init__(self) -> None:
        self._windows = tuple(LocalWindow(part_ms) for part_ms in _PART_MS)
        self._slots = 0

    def used(self, now_ms: int) -> tuple[int, ...]:
        """Return what is in use, by number of the limit."""
        return (*(window.used(now_ms) for window in self._windows), self._slots)

    def count(self, at_ms: int, *, requests: int, tokens: int, slots: int) -> None:
        for window, change in zip(self._windows, (requests, tokens, requests, tokens), strict=True):
            window.count(at_ms, change)
        self._slots += slots


class LocalSpending:
    """What an organization's granted requests may cost, by budget; Redis may not know of it. `open` have not ended."""

    def __init__(self) -> None:
        self.granted = 0
        self.open = 0
        self.amounts: dict[str, int] = {}

    def add(self, budgets: Sequence[str], amount: int) -> None:
        for name in budgets:
            self.amounts[name] = self.amounts.get(name, 0) + amount


class _Granted(msgspec.Struct, frozen=True):
    """One request that has not ended, and what it took."""

    organization: OrganizationId
    at_ms: int
    tokens: int
    amount: NanoDollars
    scopes: tuple[str, ...]
    budgets: tuple[str, ...]


class LocalGrants:
    """Of one process. A request takes its worst case, and gives back what it did not use when it ends."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` counts seconds and never falls back."""
        self._now = now
        self._open: dict[RequestId, _Granted] = {}
        self._scopes: dict[str, ScopeUse] = {}
        self._spending: dict[OrganizationId, LocalSpending] = {}

    def grant(self, request: AdmissionRequest, share: LocalShare) -> bool:
        """Take what `request` may use, where all of it is within the share; else take nothing."""
        now_ms = int(self._now() * 1000)
        limits, organization = limits_of(request), request.claims.organization
        if not (self._has_room(limits, organization) and self._fits(request, limits, share, now_ms)):
            return False
        granted = _Granted(
            organization=organization,
            at_ms=now_ms,
            tokens=request.tokens,
            amount=request.amount,
            scopes=tuple(scope.id for scope in limits),
            budgets=tuple(budget.name for budget in request.budgets),
        )
        for scope in granted.scopes:
            self._scopes.setdefault(scope, ScopeUse()).count(now_ms, requests=1, tokens=request.tokens, slots=1)
        spending = self._spending.setdefault(organization, LocalSpending())
        spending.granted += 1
        spending.open += 1
        spending.add(granted.budgets, request.amount)
        self._open[key_of(request.claims)] = granted
        return True

    def end(self, request: RequestId, *, tokens: int | None, cost: int | None) -> None:
        """Give back what `request` did not use; None: nobody knows what it used, so it keeps all of it."""
        granted = self._open.pop(request, None)
        if granted is None:
            return
        unused = 0 if tokens is None else granted.tokens - tokens
        for scope in granted.scopes:
            self._scopes[scope].count(granted.at_ms, requests=0, tokens=-unused, slots=-1)
        spending = self._spending[granted.organization]
        spending.open -= 1
        if cost is not None:
            spending.add(granted.budgets, cost - granted.amount)

    def __contains__(self, request: RequestId) -> bool:
        """Tell whether `request` was granted and has not ended."""
        return request in self._open

    def ended(self, organization: OrganizationId) -> int | None:
        """Return how many requests were granted to the organization; None where not all have ended, or none was."""
        spending = self._spending.get(organization)
        return None if spending is None or spending.open else spending.granted

    def renew(self, organization: OrganizationId, ended: int) -> None:
        """Let the organization spend its share anew, unless more than `ended` were granted; windows only roll."""
        if self.ended(organization) == ended:
            del self._spending[organization]

    def forget(self) -> None:
        """Keep nothing of scopes that have nothing in use."""
        now_ms = int(self._now() * 1000)
        in_use = {scope for granted in self._open.values() for scope in granted.scopes}
        self._scopes = {scope: use for scope, use in self._scopes.items() if scope in in_use or any(use.used(now_ms))}

    def _has_room(self, limits: Sequence[CountedScope], organization: OrganizationId) -> bool:
        new = sum(scope.id not in self._scopes for scope in limits)
        known = organization in self._spending
        return len(self._scopes) + new <= MAX_SCOPES and (known or len(self._spending) < MAX_ORGANIZATIONS)

    def _fits(self, request: AdmissionRequest, limits: Sequence[CountedScope], share: LocalShare, now_ms: int) -> bool:
        wanted = (1, request.tokens, 1, request.tokens, 1)
        for scope in limits:
            used = self._scopes[scope.id].used(now_ms) if scope.id in self._scopes else (0,) * len(wanted)
            for limit, so_far, more in zip(scope.amounts, used, wanted, strict=True):
                if limit is not None and so_far + more > limit * share.percent // 100:
                    return False
        spending = self._spending.get(request.claims.organization)
        amounts = {} if spending is None else spending.amounts
        return all(
            amounts.get(budget.name, 0) + request.amount <= _most(budget, request, share) for budget in request.budgets
        )


def _most(budget: Budget, request: AdmissionRequest, share: LocalShare) -> int:
    """Return what may be spent of a budget: of a month's no more than its limit, whatever was spent before."""
    if budget.name == wallet(request.claims.organization):
        return share.spend
    return min(share.spend, budget.limit)
