"""A page as a headless Chromium shows it: its width, its smallest text, and its console."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (CHROMIUM names its path)")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--enable-logging=stderr", "--virtual-time-budget=3000"),
)
#: Opens what is folded, then finds the smallest text as drawn, what reaches beyond the page, and the colours.
MEASURE = """
const frame = document.querySelector("iframe");
const page = frame.contentDocument, view = frame.contentWindow;
for (const folded of page.querySelectorAll("details")) folded.open = true;
const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
let smallest = 1e9, smallestText = "", beyond = [], contrast = 1e9, faintest = "";
const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
const light = (text) => { const [r, g, b] = rgb(text).map((v) => v / 255).map(
  (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (element) => { for (let e = element; e; e = e.parentElement) {
  const found = view.getComputedStyle(e).backgroundColor; if (rgb(found)[3] !== 0) return found; }
  return "rgb(255,255,255)"; };
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  if (!node.textContent.trim() || ["STYLE", "TITLE"].includes(node.parentElement.tagName)) continue;
  const style = view.getComputedStyle(node.parentElement), svg = node.parentElement.closest("svg");
  const scale = svg && svg.getScreenCTM() ? svg.getScreenCTM().a : 1;
  const size = parseFloat(style.fontSize) * scale;
  if (size < smallest) { smallest = size; smallestText = node.textContent.trim(); }
  const [a, b] = [light(svg ? style.fill : style.color), light(behind(node.parentElement))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < contrast) { contrast = ratio; faintest = node.textContent.trim(); }
  const range = page.createRange(); range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  const outside = box.right > view.innerWidth + 0.5 || box.left < -0.5;
  if (box.width && outside && !node.parentElement.closest(".wide")) beyond.push(node.textContent.trim());
}
const result = {width: page.documentElement.scrollWidth, viewport: view.innerWidth, smallest, smallestText, beyond,
  contrast, faintest, background: view.getComputedStyle(page.body).backgroundColor};
document.body.innerHTML = "";
document.body.textContent = "RESULT" + JSON.stringify(result) + "END";
"""


@dataclass(frozen=True)
class Rendered:
    """What a browser shows of a page.

    Attributes:
        width: Width that the page needs, in pixels.
        viewport: Width that it has.
        smallest: Size of the smallest text, as drawn.
        smallest_text: That text.
        beyond: Texts that reach beyond the page.
        contrast: Least contrast of a text with what is behind it, by WCAG's formula.
        faintest: That text.
        background: Colour of the page.
        console: What the console shows.
    """

    width: float
    viewport: float
    smallest: float
    smallest_text: str
    beyond: list[str]
    contrast: float
    faintest: str
    background: str
    console: list[str]


def render(page: str, folder: Path, width: int, *, dark: bool = False) -> Rendered:
    """Show a page in a frame of a width, as no window is narrower than 500 pixels, and measure it."""
    assert CHROMIUM is not None
    wrapper = folder / f"wrapper-{width}-{dark}.html"
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
    script = f'<script>addEventListener("load", () => {{{MEASURE}}});</script>'
    wrapper.write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}{script}</body>', encoding="utf-8")
    command = [
        *(CHROMIUM, *FLAGS, f"--user-data-dir={folder / f'profile-{width}-{dark}'}", "--window-size=1400,1000"),
        *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", wrapper.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"RESULT(.*)END", done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-500:] + done.stderr[-500:]
    values = json.loads(html.unescape(found[1]))
    values["smallest_text"] = values.pop("smallestText")
    return Rendered(**values, console=[line for line in done.stderr.splitlines() if "CONSOLE" in line])
