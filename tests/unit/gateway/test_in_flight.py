"""The arithmetic of what is under way."""

from contextlib import suppress

import pytest

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.gateway.path.in_flight import MIB, InFlight, InFlightBounds, Place

ACME, UMBRA = OrganizationId("org_acme"), OrganizationId("org_umbra")


def _place(in_flight: InFlight, organization: OrganizationId) -> Place:
    in_flight.requests += 1
    return in_flight.place(organization).__enter__()


def test_one_organization_may_have_as_much_as_is_left() -> None:
    in_flight = InFlight(InFlightBounds(bytes=10, bytes_of_one=8))
    acme, umbra = _place(in_flight, ACME), _place(in_flight, UMBRA)
    acme.came(5)
    with pytest.raises(RateLimited):
        acme.came(1)
    umbra.came(2)
    with pytest.raises(RateLimited):
        umbra.came(2)
    with pytest.raises(Unavailable):
        umbra.came(4)
    acme.__exit__()
    umbra.came(2)
    assert in_flight.bytes == 4


def test_the_end_of_a_body_is_no_more_of_it() -> None:
    """It comes as a message of its own, when there may be less left than at the beginning."""
    in_flight = InFlight(InFlightBounds(bytes=10, bytes_of_one=8))
    acme, umbra = _place(in_flight, ACME), _place(in_flight, UMBRA)
    acme.came(5)
    umbra.came(2)
    acme.came(0)


def test_what_comes_after_the_end_counts_no_more() -> None:
    """As the last of a reply that is kept, whose response was made in the background."""
    in_flight = InFlight(InFlightBounds(bytes=10, bytes_of_one=8))
    acme = _place(in_flight, ACME)
    acme.came(5)
    acme.__exit__()
    acme.came(3)
    assert acme.has_room(30)
    assert (in_flight.bytes, in_flight.organizations) == (0, 0)


def test_a_place_that_is_passed_on_ends_once_and_later() -> None:
    in_flight = InFlight(InFlightBounds())
    in_flight.requests += 1
    with in_flight.place(ACME) as acme:
        acme.came(5)
        passed = acme.pass_on()
    assert (in_flight.bytes, in_flight.organizations) == (5, 1)
    passed.__exit__()
    assert (in_flight.bytes, in_flight.organizations) == (0, 0)


def test_a_few_organizations_that_take_what_they_can_leave_some_to_the_next() -> None:
    in_flight = InFlight(InFlightBounds())
    for number in range(5):
        organization = OrganizationId(f"org_{number}")
        with suppress(RateLimited):
            place = _place(in_flight, organization)
            while True:
                place.came(MIB // 4)
        with suppress(RateLimited):
            while True:
                _place(in_flight, organization)
        in_flight.requests -= 1  # the one that was refused
    assert in_flight.bytes == 120 * MIB
    in_flight.check_room()
    _place(in_flight, UMBRA).came(4 * MIB)
    in_flight.check_room()
