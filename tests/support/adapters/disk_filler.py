"""A replica's process that fills one entry of a node's disk: `disk_filler.py <folder> <key>`.

It says `half` where half is written and waits for a line; then it says `filled` where it filled the entry, and `found`
where it is another's, and holds it until its input ends.
"""

import sys
from pathlib import Path

from tokenyard_deployments.serving.adapters.disk_cache import DiskCache

SIZE = 100_000


def main() -> None:
    folder, key = sys.argv[1:]
    filled = False

    def write(into: Path) -> None:
        nonlocal filled
        filled = True
        with (into / "weights").open("wb") as file:
            file.write(b"x" * (SIZE // 2))
            file.flush()
            _say("half")
            sys.stdin.readline()
            file.write(b"x" * (SIZE // 2))

    DiskCache(Path(folder), 3 * SIZE).fill(key, SIZE, write, lambda: None)
    _say("filled" if filled else "found")
    sys.stdin.read()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
