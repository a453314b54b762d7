"""Print the path of a Chromium for the browser test: an installed one, Playwright's own, or one installed now."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_TIMEOUT_S = 300


def main() -> int:
    """Print a path that exists, or say what to do."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        return report(chosen if Path(chosen).exists() else None, f"CHROMIUM names {chosen}, which does not exist")
    for attempt in (installed, from_playwright, from_apt):
        path = attempt()
        if path:
            return report(path)
    return report(None, "no Chromium found and none could be installed; install one, or set CHROMIUM to its path")


def report(path: str | None, problem: str = "") -> int:
    print(path if path else f"chromium: {problem}", file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


def installed() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None) or playwrights_own()


def playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def from_playwright() -> str | None:
    done = quietly([sys.executable, "-m", "playwright", "install", "chromium"])
    return playwrights_own() if done else None


def from_apt() -> str | None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    if quietly(["apt-get", "update"]) and quietly(["apt-get", "install", "--yes", "chromium"]):
        return shutil.which("chromium")
    return None


def quietly(command: list[str]) -> bool:
    """Run an installer; its words go to standard error, because standard output carries the path."""
    print(f"chromium: trying {' '.join(command[-3:])}", file=sys.stderr)
    try:
        ended = subprocess.run(command, stdout=sys.stderr, check=False, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
