"""Photograph a report page in headless Chromium: ``python -m benchmarks.screenshot``.

Compiles the Fashion-MNIST hybrid for ``iphone-npu``, writes its page, and keeps the picture::

    python -m benchmarks.screenshot docs/report.png
    python -m benchmarks.screenshot out.png --page report.html --dark
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.corpus.store import FIXTURES

__all__ = ["chromium", "main", "photograph"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
TIMEOUT_S = 120


def chromium() -> str | None:
    """The browser's path; ``None`` if none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def photograph(
    page: Path, picture: Path, *, width: int, height: int, dark: bool = False
) -> None:
    """Render a page to a PNG.

    Args:
        page: HTML file.
        picture: Where the PNG goes.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        dark: Whether the page is asked for its dark colors.

    Raises:
        FileNotFoundError: No browser is installed.
        RuntimeError: The browser failed.
    """
    browser = chromium()
    if browser is None:
        raise FileNotFoundError("chromium is not installed")
    with tempfile.TemporaryDirectory(prefix="edgevit-chromium-") as profile:
        command = [
            browser,
            *FLAGS,
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            f"--user-data-dir={profile}",
            f"--screenshot={picture.resolve()}",
            f"--window-size={width},{height}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    if done.returncode or not picture.is_file():
        raise RuntimeError(f"chromium ended with {done.returncode}: {done.stderr[-500:]}")


def _make_page(folder: Path) -> Path:
    bundle, page = folder / "fashion-hybrid.edgevit", folder / "report.html"
    model = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
    compile_command = [
        "compile",
        str(model),
        "--target",
        "iphone-npu",
        "-q",
        "-o",
        str(bundle),
    ]
    for arguments in (compile_command, ["report", str(bundle), "--html", str(page), "-q"]):
        subprocess.run([sys.executable, "-m", "edgevit", *arguments], check=True)
    return page


def main() -> int:
    """Take the picture; says ``skipped: needs chromium`` without a browser."""
    parser = argparse.ArgumentParser(description="A picture of a report page")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--page", type=Path, help="default: the Fashion-MNIST hybrid's")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=3280)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    if chromium() is None:
        print("skipped: needs chromium")
        return 0
    with tempfile.TemporaryDirectory(prefix="edgevit-page-") as name:
        page = options.page or _make_page(Path(name))
        size = {"width": options.width, "height": options.height}
        photograph(page, options.picture, **size, dark=options.dark)
    print(f"{options.picture} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
