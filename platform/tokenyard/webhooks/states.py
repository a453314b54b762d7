"""What may become of a delivery."""

from enum import StrEnum


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
