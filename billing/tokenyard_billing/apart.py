"""Keeps one organization's trouble from the others."""

import logging
from typing import Self

from tokenyard.core.ids import OrganizationId
from tokenyard_billing.bucket_leases import LeaseLost

_LOG = logging.getLogger(__name__)


class Apart:
    """Keeps a failure of one organization from stopping the others; that another worker has the bucket is none."""

    def __init__(self, organization: OrganizationId, work: str) -> None:
        self._words = f"{work} of {organization}"
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, LeaseLost):
            _LOG.info("%s are another worker's: %s", self._words, error)
            return True
        if isinstance(error, Exception):  # of any kind
            _LOG.error("failed: %s", self._words, exc_info=error)
            self.error = error
            return True
        return False
