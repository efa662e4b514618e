from __future__ import annotations

import pytest

from xybridd.core.timeline import Timeline

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NOW_MS = 1_790_000_000_000
IN_2099_MS = 4_080_000_000_000


def line(newest_ms: int = 0) -> Timeline:
    return Timeline("boot", newest_ms=newest_ms)


def seen(timeline: Timeline, *looks: tuple[int, int]) -> Timeline:
    for wall_ms, up_ms in looks:
        timeline.look(wall_ms, up_ms)
    return timeline


def test_what_a_boot_in_1970_wrote_moves_by_the_difference() -> None:
    timeline = line()
    assert timeline.look(20_000, 20_000)
    assert not timeline.look(80_000, 80_000)
    assert timeline.corrected(50_000) == 50_000
    assert timeline.look(NOW_MS, 90_000)
    assert timeline.corrected(0) == NOW_MS - 90_000
    assert timeline.corrected(50_000) == NOW_MS - 40_000


def test_what_the_right_clock_wrote_stays() -> None:
    timeline = seen(line(), (20_000, 20_000), (NOW_MS, 90_000), (NOW_MS + DAY_MS, 90_000 + DAY_MS))
    assert timeline.corrected(NOW_MS + 5) == NOW_MS + 5
    # A time in 1970 that this boot's clock never showed is somebody's own.
    assert timeline.corrected(10 * MINUTE_MS) == 10 * MINUTE_MS


def test_correcting_twice_changes_nothing() -> None:
    timeline = seen(line(), (20_000, 20_000), (NOW_MS, 90_000))
    once = timeline.corrected(50_000)
    assert timeline.corrected(once) == once


@pytest.mark.parametrize("step_ms", [DAY_MS, -DAY_MS, HOUR_MS, -HOUR_MS, 10_000])
def test_a_clock_that_could_be_right_rewrites_nothing_when_it_is_set(step_ms: int) -> None:
    timeline = line(NOW_MS - 30 * DAY_MS)
    assert not timeline.look(NOW_MS, MINUTE_MS)
    assert not timeline.look(NOW_MS + MINUTE_MS + step_ms, 2 * MINUTE_MS)
    assert not timeline.look(NOW_MS + 2 * MINUTE_MS, 3 * MINUTE_MS)  # and back
    assert timeline.corrections == []


def test_a_boot_that_begins_before_the_last_one_ended_is_corrected() -> None:
    """A board that goes on where it was switched off (fake-hwclock), or earlier."""
    timeline = line(newest_ms=NOW_MS - HOUR_MS)
    assert timeline.look(NOW_MS - 2 * HOUR_MS, MINUTE_MS)
    assert timeline.look(NOW_MS, 2 * MINUTE_MS)
    assert timeline.corrected(NOW_MS - 2 * HOUR_MS) == NOW_MS - MINUTE_MS


def test_a_clock_in_2099_is_never_taken_for_right() -> None:
    timeline = seen(line(), (20_000, 20_000))
    assert timeline.look(IN_2099_MS, 60_000)
    assert timeline.corrections == []
    timeline.look(NOW_MS, 90_000)
    assert timeline.corrected(20_000) == NOW_MS - 70_000
    assert timeline.corrected(IN_2099_MS + 5_000) == NOW_MS - 25_000


def test_slewing_is_no_jump() -> None:
    timeline = line()
    for number in range(1000):
        assert not timeline.look(NOW_MS + number * (MINUTE_MS + 30), number * MINUTE_MS)
    assert len(timeline.stretches) == 1


def test_a_restart_in_the_midst_finds_the_same_jump() -> None:
    before = seen(line(), (20_000, 20_000))
    again = Timeline("boot", before.stretches)
    assert again.look(NOW_MS, 90_000)
    assert again.corrected(50_000) == NOW_MS - 40_000
    third = Timeline("boot", again.stretches)
    assert not third.look(NOW_MS + 1000, 91_000)
    assert third.corrected(50_000) == NOW_MS - 40_000


def test_a_clock_set_again_and_again_takes_no_memory() -> None:
    timeline = line()
    for number in range(500):
        timeline.look(number % 2 * 10**9 + number * MINUTE_MS, number * MINUTE_MS)
    assert len(timeline.stretches) <= 51


def test_ages_are_not_reckoned_by_a_clock_that_leapt_until_it_has_held() -> None:
    timeline = seen(line(), (NOW_MS, MINUTE_MS))
    leap_ms = NOW_MS + 3650 * DAY_MS
    timeline.look(leap_ms, 2 * MINUTE_MS)
    assert timeline.age_now_ms(leap_ms, 2 * MINUTE_MS) == NOW_MS + MINUTE_MS
    assert timeline.age_now_ms(leap_ms + 2 * HOUR_MS, 2 * MINUTE_MS + 2 * HOUR_MS) == leap_ms + 2 * HOUR_MS


def test_nothing_is_old_while_nobody_knows_the_time() -> None:
    timeline = seen(line(), (20_000, 20_000))
    assert timeline.age_now_ms(20_000, 20_000) == 0
    assert timeline.age_now_ms(IN_2099_MS, 30_000) == 0


def test_after_a_long_time_off_ages_are_reckoned_from_where_it_stood() -> None:
    newest_ms = NOW_MS - 400 * DAY_MS
    timeline = seen(line(newest_ms), (NOW_MS, MINUTE_MS))
    assert timeline.age_now_ms(NOW_MS, MINUTE_MS) == newest_ms + DAY_MS
    assert timeline.age_now_ms(NOW_MS + HOUR_MS, MINUTE_MS + HOUR_MS) == NOW_MS + HOUR_MS
