"""When a delivery that failed is tried again: the schedule of the Standard Webhooks specification. Pure."""

_MINUTE_S, _HOUR_S = 60, 3600
DELAYS_S = (
    *(5, 5 * _MINUTE_S, 30 * _MINUTE_S),
    *(2 * _HOUR_S, 5 * _HOUR_S, 10 * _HOUR_S, 14 * _HOUR_S, 20 * _HOUR_S, 24 * _HOUR_S),
)
_JITTER = 0.2


def retry_delay_ms(attempts: int, chance: float) -> int | None:
    """Return how long to wait after so many attempts, up to a fifth longer by `chance` (0 to 1); None is for ever."""
    if attempts > len(DELAYS_S):
        return None
    return round(DELAYS_S[attempts - 1] * 1000 * (1 + _JITTER * chance))
