# SPDX-License-Identifier: Apache-2.0
"""The fleet's page in a real browser, without a network: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from wattfleet.status import page
from wattfleet.status.figures import complete

from .fleet_document import NEVER, document, site

EVIL = '</script><script>alert(1)</script><img src="https://example.org/x" onerror="alert(2)">'
PLOTS = 8

# (element, what is drawn in it by its own colour): contrasts by WCAG 2.2, 1.4.3.
CONTRAST = """
    (selector) => {
        const part = (value) => {
            const one = value / 255;
            return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
        };
        const light = (text) => {
            const [red, green, blue] = text.match(/[\\d.]+/g).map(Number);
            return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
        };
        const back = (element) => {
            for (let one = element; one; one = one.parentElement) {
                const colour = getComputedStyle(one).backgroundColor;
                if (!colour.endsWith(", 0)")) return light(colour);
            }
            return 1;
        };
        return [...document.querySelectorAll(selector)].map((element) => {
            const pair = [light(getComputedStyle(element).color), back(element)].sort((one, other) => other - one);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
        });
    }
"""
DRAWN = """
    () => [...document.querySelectorAll("canvas")].map((canvas) =>
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((one) => one !== 0))
"""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: tools/bootstrap.sh tests"
    with sync_playwright() as playwright:
        # Root, whom CI is, has no sandbox; no name leads anywhere.
        options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        one = playwright.chromium.launch(executable_path=program, args=options)
        yield one
        one.close()


@pytest.fixture
def look(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of some sites from a file. What it says on the console, asks for or pops up is wrong, unless it
    has the text `allowed`."""
    contexts = []
    wrong: list[str] = []

    def open_page(sites: dict[str, dict[str, Any]], allowed: str | None = None, **options: Any) -> Page:
        file = tmp_path / "fleet.html"
        file.unlink(missing_ok=True)
        page.write(complete(document(**sites), {}), file)
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        one = context.new_page()

        def said(text: str) -> None:
            if allowed is None or allowed not in text:
                wrong.append(text)

        one.on("console", lambda message: said(f"console: {message.text}"))
        one.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        one.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        one.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
        one.goto(file.as_uri(), wait_until="load")
        return one

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


FLEET = {
    "plant_a": site(label=EVIL),
    "plant_b": site(**NEVER),
    "plant_c": site(
        bus_errors={
            "requests": 8640,
            "crc_errors": 3,
            "timeouts": 0,
            "crc_by_hour": [0] * 24 + [3],
            "timeouts_by_hour": [],
        },
        power_kw={"load": 9.0, "generation": 0.0, "storage": 0.0, "net": 9.0},
    ),
}


def names(one: Page) -> list[str]:
    found = one.eval_on_selector_all(
        "#table tbody tr",
        "rows => rows.filter(row => row.offsetHeight).map(row => row.cells[0].firstChild.textContent.trim())",
    )
    return [str(name) for name in found]


def test_it_opens_without_a_network_and_draws(look: Open) -> None:
    one = look(FLEET)
    assert one.evaluate(DRAWN) == [True] * PLOTS
    assert names(one) == ["plant-b", "plant-c", "plant-a"]
    assert one.inner_text("#table tbody tr:first-child td:nth-child(4)") == "! the hub has never heard of it"
    assert EVIL in one.inner_text("#table")
    assert one.locator("#table img").count() == 0


def test_what_is_not_hashed_does_not_run(look: Open) -> None:
    """The policy itself, as a second wall behind the escaping."""
    one = look(FLEET, allowed="violates the following Content Security Policy")
    script = "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
    with one.expect_console_message() as said:
        one.evaluate(f"() => {{ {script} document.body.append(one); }}")
    assert said.value.type == "error"
    assert one.evaluate("window.ran") is None


def test_sorting_and_filtering(look: Open) -> None:
    one = look(FLEET)
    load = one.get_by_role("button", name="Load")
    load.click()
    assert names(one) == ["plant-c", "plant-a", "plant-b"], "what is not known comes last"
    assert load.evaluate("button => button.parentElement.getAttribute('aria-sort')") == "ascending"
    load.click()
    assert names(one) == ["plant-a", "plant-c", "plant-b"]
    one.get_by_role("button", name="Site").click()
    assert names(one) == ["plant-a", "plant-b", "plant-c"]
    one.get_by_label("Show sites with the text").fill("NEVER SEEN")
    assert names(one) == ["plant-b"]
    assert one.inner_text("#shown") == "1 of 3 sites"


def test_many_sites(look: Open) -> None:
    many = {f"plant_{number:03d}": site() for number in range(300)}
    one = look(many)
    assert len(names(one)) == page.MOST_ROWS
    assert one.inner_text("#shown") == "the first 200 of 300 sites are shown"
    one.get_by_label("Show sites with the text").fill("plant-29")
    assert len(names(one)) == 10, "those that are not shown are found"
    one.get_by_label("Show sites with the text").fill("")
    assert len(names(one)) == 200
    one.get_by_role("button", name="Show all 300").click()
    assert len(names(one)) == 300


def test_without_scripts_everything_is_there_as_tables(look: Open) -> None:
    many = {f"plant_{number:03d}": site() for number in range(300)}
    one = look(many, java_script_enabled=False)
    assert one.locator("#table tbody tr:visible").count() == 300
    assert one.locator("details table").count() == PLOTS
    assert one.locator("canvas").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(look: Open, scheme: str) -> None:
    one = look(FLEET, color_scheme=scheme)
    found = one.evaluate(
        CONTRAST, "h1, p, dt, dd, figcaption, summary, th, td, .small, .u-legend th, caption, button, input"
    )
    assert len(found) > 100
    assert min(found) >= 4.5
    assert one.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)"
    )


def test_on_a_phone(look: Open) -> None:
    one = look(FLEET, viewport={"width": 360, "height": 740}, has_touch=True)
    assert one.evaluate("document.documentElement.scrollWidth") == 360, (
        "only the table itself is pushed sideways"
    )
    assert one.evaluate(DRAWN) == [True] * PLOTS


def test_on_paper(look: Open, tmp_path: Path) -> None:
    many = {f"plant_{number:03d}": site() for number in range(300)}
    one = look(many, color_scheme="dark")
    one.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert one.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    one.emulate_media(media="print")
    assert len(names(one)) == 300, "no site is left out"
    assert not one.get_by_label("Show sites with the text").is_visible()
    assert one.pdf(prefer_css_page_size=True).startswith(b"%PDF")
