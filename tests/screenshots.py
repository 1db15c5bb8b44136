"""README's picture: the summary of `quickstart` in MLflow's UI.

Run it in the repository, with Debian's Chromium: python -m tests.screenshots
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize

from tests.browser import chromium, served, visit
from tests.configs import ROOT
from tests.program import here

FOLDER = ROOT / "sweeps" / "results" / "pictures"
SIZE: ViewportSize = {"width": 1440, "height": 900}


def keep(page: Page, file: Path) -> None:
    """Saves a page in 256 colours, which is enough for it and small enough for a repository."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        here(Path(folder), "run", "-m", "sweeps=quickstart")
        with served(Path(folder)) as link, chromium() as browser:
            summary = visit(browser, link, "lrscale-summary", charts=True, size=SIZE)
            summary.page.wait_for_function("document.querySelector('.rc-image img')?.naturalWidth > 600")
            summary.page.wait_for_timeout(2000)  # the picture is laid out after it is loaded
            keep(summary.page, FOLDER / "summary.png")


if __name__ == "__main__":
    main()
