"""The page in a real browser, where there is one: what is drawn, light and dark, on a desktop and on a phone."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from bct_onnx.page import render

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Writes what it finds into the title of the window: the page's width, words that leave their box or lie on others.
LOOK = """
const boxes = (parent, what) => [...parent.querySelectorAll(what)].map(each => [each.textContent.trim(),
  each.getBoundingClientRect()]).filter(([text, box]) => text && box.width);
const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
const wrong = [];
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect(), texts = boxes(svg, "text");
  texts.forEach(([text, box], at) => {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1) wrong.push("cut " + text);
    for (const [other, place] of texts.slice(at + 1)) if (meet(box, place)) wrong.push(text + " on " + other);
  });
}
for (const row of document.querySelectorAll("tr, .tile")) {
  const cells = boxes(row, ":scope > *");
  cells.forEach(([text, box], at) => {
    for (const [other, place] of cells.slice(at + 1)) if (meet(box, place)) wrong.push(text + " on " + other);
  });
}
for (const each of document.querySelectorAll(".tile dd, h1, h2, h3, th, td"))
  if (each.clientWidth && each.scrollWidth > each.clientWidth + 1) wrong.push("wide " + each.textContent.trim());
parent.document.title = JSON.stringify({width: document.documentElement.scrollWidth, wrong,
  first: document.querySelector(".value").innerText,
  plots: [...document.querySelectorAll(".plot")].filter(each => each.getBoundingClientRect().height > 100).length});
"""  # noqa: E501 (JavaScript)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
    return found


def run(browser: str, folder: Path, *arguments: str) -> str:
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
        *("--disable-dev-shm-usage", f"--user-data-dir={folder / 'browser'}", *arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_cut_or_lies_on_something_else(browser, report, tmp_path, width):
    report["tensors"][0]["name"] = "a/very/long/name." * 30
    page = tmp_path / "page.html"
    # A window is not made as narrow as a phone; a frame in it is.
    content = escape(render(report).replace("</body>", f"<script>{LOOK}</script></body>"))
    frame = f'<iframe srcdoc="{content}" style="width:{width}px; height:2000px; border:0"></iframe>'
    page.write_text(f"<!doctype html><meta charset=utf-8><title></title>{frame}", encoding="utf-8")
    document = run(browser, tmp_path, "--window-size=1400,2200", "--dump-dom", page.as_uri())
    title = re.search("<title>(.*?)</title>", document, re.DOTALL)
    assert title is not None
    assert json.loads(unescape(title[1])) == {
        "width": width,
        "wrong": [],
        "plots": 1,
        "first": f"{report['ratio']:.2f}\u00d7",
    }


def test_light_and_dark_are_drawn(browser, report, tmp_path):
    image = pytest.importorskip("PIL.Image")
    page = tmp_path / "page.html"
    page.write_text(render(report), encoding="utf-8")
    pixels = {}
    for name, scheme in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{name}.png"
        run(
            browser,
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=1200,1600",
            f"--screenshot={shot}",
            page.as_uri(),
        )
        with image.open(shot) as picture:
            pixels[name] = np.asarray(picture.convert("RGB"), np.float64)
    assert pixels["dark"].mean() < 64
    assert pixels["light"].mean() > 192
    for each in pixels.values():
        # Words, bars, a table of colours and a curve: far from one colour, top to bottom.
        assert (np.abs(each - each[0, 0]).max(axis=2) > 32).mean() > 0.02
        assert all(part.std() > 3 for part in np.array_split(each, 8))
