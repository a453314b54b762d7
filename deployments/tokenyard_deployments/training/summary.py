"""What a worker leaves for the driver before training starts."""

import msgspec

SUMMARY_FILE = "summary.json"


class Summary(msgspec.Struct, frozen=True):
    """Figures that only the worker knows, because it read the data."""

    tokens_per_epoch: int
    base_valid_loss: float | None = None
