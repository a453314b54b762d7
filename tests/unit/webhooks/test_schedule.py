"""When a delivery is tried again."""

from tokenyard.webhooks.delivery.schedule import DELAYS_S, retry_delay_ms


def test_the_delays_are_those_of_the_specification() -> None:
    hours = (2, 5, 10, 14, 20, 24)
    assert DELAYS_S == (5, 300, 1800, *(3600 * one for one in hours))


def test_each_delay_is_up_to_a_fifth_longer_and_after_the_last_there_is_none() -> None:
    for attempts, delay_s in enumerate(DELAYS_S, 1):
        assert retry_delay_ms(attempts, 0.0) == delay_s * 1000
        assert retry_delay_ms(attempts, 1.0) == delay_s * 1200
    assert retry_delay_ms(len(DELAYS_S) + 1, 0.5) is None
