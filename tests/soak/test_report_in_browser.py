"""The report as a browser shows it: drawn without an error, on a wide page and a phone, light and dark."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from etl import pipeline
from etl.engine import Engine
from etl.recipe import Recipe
from etl.report import write_report
from tests.soak.chromium import PROGRAM, Tab, tab

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium; Debian's package chromium has it")

PHONE, WIDE = 360, 1280


@pytest.fixture(scope="module")
def report(soak_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run, in its work folder."""
    folder = tmp_path_factory.mktemp("report") / "work"
    synthesis = dataclasses.replace(soak_recipe.synthesis, num_samples=40)
    job = pipeline.start(dataclasses.replace(soak_recipe, output=str(folder), synthesis=synthesis))
    pipeline.run(job, Engine())
    return write_report(job.work.path)


def looked_at(report: Path, look: Callable[[Tab], Awaitable[Any]], **how: Any) -> Any:
    """What `look` finds in the page, which neither logs an error nor asks for anything."""

    async def opened() -> Any:
        async with tab() as page:
            await page.open(report, **how)
            found = await look(page)
            assert page.messages == []
            assert [each for each in page.requests if not each.startswith(("file:", "data:"))] == []
            return found

    return asyncio.run(opened())


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_all_figures_are_drawn_and_the_page_is_no_wider_than_its_window(
    report: Path, width: int, is_dark: bool
) -> None:
    async def look(page: Tab) -> Any:
        return await page.value("""({
            width: document.documentElement.scrollWidth,
            figures: document.querySelectorAll('.figure').length,
            drawn: document.querySelectorAll('.figure .main-svg:first-child').length,
            outside: [...document.querySelectorAll('main > *, .charts > *, .nextlong-strip *')].filter(
                each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 200)),
            ground: getComputedStyle(document.body).backgroundColor,
            ink: getComputedStyle(document.querySelector('.figure .xtick text, .figure text')).fill,
        })""")

    found = looked_at(report, look, width=width, is_dark=is_dark)
    assert found["width"] == width
    assert found["outside"] == []
    assert found["drawn"] == found["figures"] > 8
    assert (brightness(found["ground"]) < 60) == is_dark
    assert (brightness(found["ink"]) > 120) == is_dark


def test_the_key_figures_are_in_the_page_as_it_is_drawn(report: Path) -> None:
    stages = json.loads((report.parent / "summary.json").read_text())["stages"]

    async def look(page: Tab) -> Any:
        return await page.value(
            "document.querySelector('main').innerText + document.querySelector('.wide').textContent"
        )

    text = looked_at(report, look)
    values = stages["interleave"]["values"]
    for wanted in (
        f"{stages['chunk']['account']['tokens']['kept']:,}",
        f"{stages['interleave']['account']['tokens']['kept']:,}",
        f"{values['meta_ratio']:.1%}",
        f"{values['mean_similarity']:.3f}",
        *(reason.replace("_", " ") for reason in stages["read"]["account"]["documents"]["dropped"]),
    ):
        assert wanted in text


def test_figures_follow_when_the_colours_change(report: Path) -> None:
    ink = "getComputedStyle(document.querySelector('.figure text')).fill"

    async def look(page: Tab) -> Any:
        light = await page.value(ink)
        await page.set_dark(True)
        await page.value("new Promise(done => setTimeout(done, 500))")
        return light, await page.value(ink)

    light, dark = looked_at(report, look)
    assert brightness(light) < 120 < brightness(dark)


def test_a_segment_that_is_clicked_shows_its_text_until_it_is_closed(report: Path) -> None:
    shown = "[...document.querySelectorAll('.nextlong-strip fieldset p[dir]')].filter(each => each.offsetHeight).length"

    async def look(page: Tab) -> Any:
        before = await page.value(shown)
        await page.value("document.querySelectorAll('.nextlong-strip input')[3].click()")
        await page.value("document.querySelectorAll('.nextlong-strip')[1].querySelectorAll('input')[2].click()")
        both = await page.value(shown)
        await page.value("document.querySelector('.nextlong-strip button').click()")
        return before, both, await page.value(shown)

    assert looked_at(report, look) == (0, 2, 1)


def brightness(colour: str) -> float:
    """Of rgb(r, g, b), from 0 to 255."""
    red, green, blue = (float(each) for each in colour.partition("(")[2].rstrip(")").split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
