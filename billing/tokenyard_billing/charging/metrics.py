"""What the worker tells Prometheus about the ledger. Labels are bounded: 64 buckets, rules, kinds."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from tokenyard_billing.charging.batch import Taken


class LedgerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "tokenyard_ledger_events", "Usage events taken in, dead or delivered again.", ["result"], registry=registry
        )
        self._charges = Counter(
            "tokenyard_ledger_charges", "Charges made, by the rule that decided.", ["rule"], registry=registry
        )
        self._alarms = Counter(
            "tokenyard_ledger_alarms", "Alarms raised that an operator must look at.", ["kind"], registry=registry
        )
        self._lag = Gauge(
            "tokenyard_ledger_lag_events", "Entries of a bucket's stream not yet in SQL.", ["bucket"], registry=registry
        )

    def taken(self, events: int, taken: Taken) -> None:
        self._events.labels("taken").inc(events)
        for rule, count in taken.charges.items():
            self._charges.labels(rule).inc(count)
        for kind, count in taken.alarms.items():
            self._alarms.labels(kind).inc(count)

    def dead(self) -> None:
        """Count an event that was given up."""
        self._events.labels("dead").inc()
        self._alarms.labels("dead_letter").inc()

    def alarm_raised(self, kind: str) -> None:
        self._alarms.labels(kind).inc()

    def put_off(self) -> None:
        """Count an event that failed and will be delivered again."""
        self._events.labels("put_off").inc()

    def waiting(self, events: int) -> None:
        """Count events that were looked at and wait for their price."""
        self._events.labels("waiting").inc(events)

    def lag(self, lengths: Mapping[int, int]) -> None:
        """Show how much of each held bucket is not in SQL yet."""
        for bucket, length in lengths.items():
            self._lag.labels(f"{bucket:02d}").set(length)
