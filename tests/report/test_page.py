"""The page in a real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.report.given import facts, week_report
from tests.report.test_forms import hostile_report
from tests.support import until
from xybridd.core.report.make import make_report
from xybridd.report.page import page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.report.browser import Chromium, Page
    from xybridd.core.report.figures import Report

#: A phone, a tablet, a desk.
WIDTHS = (360, 768, 1440)

_FOCUSED = "document.activeElement.id || document.activeElement.textContent.slice(0, 30)"
_GROUND = "getComputedStyle(document.documentElement).backgroundColor"


@pytest.fixture
def show(chromium: Chromium, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Write a report into a file and open it; afterwards nothing was complained about and nothing was asked for."""
    opened: list[tuple[Page, str]] = []

    def open_(report: Report, width: int = 1440, **media: str) -> Page:
        file = tmp_path / f"{len(opened)}.html"
        file.write_text(page(report), "utf-8")
        tab = chromium.page(file.as_uri(), width, 900, **media)
        opened.append((tab, file.as_uri()))
        return tab

    yield open_
    for tab, address in opened:
        assert tab.complaints() == []
        assert set(tab.requests()) == {address}
        tab.close()


def test_charts_are_there_with_names_tables_and_something_drawn(show: Callable[..., Page]) -> None:
    tab = show(week_report())
    charts: list[dict[str, Any]] = tab.run(
        """[...document.querySelectorAll("figure.chart")].map((figure) => ({
            id: figure.id,
            name: figure.querySelector(".plot").getAttribute("aria-label"),
            title: figure.querySelector("svg[role=img] > title").textContent,
            says: figure.querySelector("svg[role=img] > desc").textContent,
            drawn: [...figure.querySelectorAll(".plot path")].reduce((sum, path) => sum + path.getAttribute("d").length, 0),
            wide: figure.querySelector(".plot svg").getBoundingClientRect().width,
            rows: figure.querySelectorAll("tbody tr").length,
        }))"""
    )
    expected = {
        *(f"latency-{number}" for number in range(4)), "calls-0", "calls-1", "tokens-0",
        *(f"device-{name}" for name in ("heat", "power", "load", "watts")),
    }  # fmt: skip
    assert {chart["id"] for chart in charts} == expected
    for chart in charts:
        assert chart["name"]
        assert chart["title"]
        assert chart["says"]
        assert chart["drawn"] > 200
        assert chart["wide"] > 300
        assert chart["rows"] >= 40


def test_the_centrepiece_says_each_state_in_words_beside_its_bar(show: Callable[..., Page]) -> None:
    tab = show(week_report())
    assert tab.run("document.querySelectorAll('.findings li').length") == 3
    rows: list[str] = tab.run(
        "[...document.querySelectorAll('#conditions .model:nth-of-type(2) .states tbody tr')].map((row) => row.innerText)"
    )
    assert [row.split()[0] for row in rows] == ["cool", "warm", "hot", "critical", "mains", "battery", "GPU", "CPU"]
    assert all("× as long" in row or "compared with this" in row for row in rows)
    bars: list[float] = tab.run(
        "[...document.querySelectorAll('#conditions .median')].map((bar) => bar.getBoundingClientRect().width)"
    )
    assert min(bars) > 0
    assert max(bars) > 5 * min(bars)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_screen(show: Callable[..., Page], width: int) -> None:
    for report in (week_report(), hostile_report(), make_report(facts())):
        tab = show(report, width)
        tab.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        assert tab.run("document.documentElement.scrollWidth") <= width
        wider: list[str] = tab.run(
            """[...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, .unseen, .skip, svg")
                && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.tagName + one.className)"""
        )
        assert wider == []


def test_what_is_hostile_does_nothing(show: Callable[..., Page]) -> None:
    tab = show(hostile_report())
    assert tab.run("document.images.length") == 0
    assert tab.run("document.scripts.length") == 1
    assert tab.run("document.querySelectorAll('figure.chart').length") > 2


def test_the_theme_is_that_of_the_system_until_the_switch_is_used_by_keys(show: Callable[..., Page]) -> None:
    tab = show(week_report(), prefers_color_scheme="dark")
    dark = tab.run(_GROUND)
    tab.media(prefers_color_scheme="light")
    light = tab.run(_GROUND)
    assert light != dark
    tab.press("Tab")  # the link past the head
    tab.press("Tab")
    assert tab.run(_FOCUSED) == "theme"
    seen = []
    for key in ("Enter", "Space", "Enter"):
        tab.press(key)
        seen.append((tab.run("document.getElementById('theme').textContent"), tab.run(_GROUND)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: as the system", light)]
    tab.press("Enter")
    tab.press("Enter")
    tab.go(tab.run("location.href"))
    assert tab.run(_GROUND) == dark, "the choice is kept"
    tab.run("localStorage.clear()")


def test_the_order_of_tab_is_that_of_the_page(show: Callable[..., Page]) -> None:
    tab = show(week_report())
    assert tab.run("[...document.querySelectorAll('[tabindex]')].every((one) => one.tabIndex <= 0)")
    stops: int = tab.run(
        """[...document.querySelectorAll("a, button, summary, [tabindex]")]
            .filter((one) => one.checkVisibility() && !one.closest("details:not([open]) > .scroll")).length"""
    )
    places = []
    for _ in range(stops):
        tab.press("Tab")
        places.append(
            tab.run(
                """[...document.querySelectorAll("*")].indexOf(document.activeElement)
                    * (getComputedStyle(document.activeElement).outlineStyle === "none" ? -1 : 1)"""
            )
        )
    assert places == sorted(places), "each comes after the last one, and is seen to be there"
    assert places[0] > 0
    assert len(set(places)) == stops


def test_a_chart_is_read_by_keys_and_by_the_pointer_and_says_what_its_table_says(show: Callable[..., Page]) -> None:
    tab = show(week_report())
    row = "[...document.querySelectorAll('#latency-1 tbody tr')].at({at}).innerText.split('\\t').map((cell) => cell.trim())"
    tab.run("document.querySelector('#latency-1 details').open = true")
    tab.run("document.querySelector('#latency-1 .plot').focus()")
    for keys, at in ((["Home"], 0), (["ArrowRight", "ArrowRight"], 2), (["ArrowLeft"], 1), (["End"], -1)):
        for key in keys:
            tab.press(key)
        time, p50, p90, p99, calls = tab.run(row.format(at=at))
        said = f"{time} · p50 {p50} · p90 {p90} · p99 {p99} · Calls {calls}"
        assert tab.run("document.querySelector('#latency-1 .reading').textContent") == said
        assert tab.run("document.activeElement.getAttribute('aria-valuetext')") == said
    x, y, width = tab.run(
        "(() => { const b = document.querySelector('#latency-1 .plot').getBoundingClientRect();"
        " return [b.x, b.y + b.height / 2, b.width]; })()"
    )
    reading = "document.querySelector('#latency-1 .reading').textContent"
    for place, at in ((x + 1, 0), (x + width - 1, -1)):
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=place, y=y)
        time = tab.run(row.format(at=at))[0]
        until(lambda time=time: tab.run(reading).startswith(f"{time} · "), f"the reading of {time}")  # type: ignore[misc]
    assert tab.run("document.querySelector('#latency-1 .cursor').getAttribute('visibility')") == "visible"


def test_a_screen_reader_is_told_what_everything_is(show: Callable[..., Page]) -> None:
    tab = show(week_report())
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
    for role in ("slider", "button", "region", "table", "navigation", "heading", "link"):
        names = [name for kind, name in named if kind == role]
        assert names, role
        if role != "table":
            assert all(names), (role, names)
    assert any(role == "table" and name.endswith(": Heat") for role, name in named)


def test_words_stand_out_from_their_ground_in_both_themes(show: Callable[..., Page]) -> None:
    """4.5 to 1 for words, 3 to 1 for what is drawn, as WCAG asks."""
    for theme in ("light", "dark"):
        tab = show(week_report(), prefers_color_scheme=theme)
        colours: dict[str, str] = tab.run(
            """Object.fromEntries(["card", "ground", "ink", "dim", "accent", "bad", "p50", "p90", "p99", "warmth", "charge",
                "whisker", "hot", "critical", "battery"].map((name) => [name,
                    getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()]))"""
        )
        for name in ("ink", "dim", "accent", "bad"):
            assert contrast(colours[name], colours["card"]) >= 4.5, (theme, name)
            assert contrast(colours[name], colours["ground"]) >= 4.5, (theme, name)
        for name in ("p50", "p90", "p99", "warmth", "charge", "whisker", "hot", "critical", "battery"):
            assert contrast(colours[name], colours["card"]) >= 3, (theme, name)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_printed_it_is_light_and_has_no_switches(show: Callable[..., Page]) -> None:
    tab = show(week_report(), prefers_color_scheme="dark")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run(_GROUND) == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.getElementById('theme')).display") == "none"
    pdf = tab.call("Page.printToPDF", preferCSSPageSize=True)["data"]
    assert len(pdf) > 20_000
