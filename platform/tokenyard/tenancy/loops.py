"""Tenancy's loops in a worker."""

from tokenyard.tenancy.organizations import Organizations
from tokenyard.web.loops import Loop

ANNOUNCE_S = 5.0


def tenancy_loops(organizations: Organizations) -> list[Loop]:
    """Return the loop that announces new organizations."""
    return [Loop("new-organizations", organizations.announce_all, ANNOUNCE_S)]
