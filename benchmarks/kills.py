"""Work that is ended by signals at many points, and what it leaves: saves of a baseline, and runs of gates.

python benchmarks/kills.py saves|runs [--points 200] [--out FILE.json]

A save that SIGKILL ends at any line must leave the old or the new baseline whole, and the next save nothing else; the
report of a run that SIGKILL or SIGTERM ended must say the truth about it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
TRUE = {"running", "interrupted", "finished"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["saves", "runs"])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    import killed_runs
    import killed_saves

    measure, is_bad = (killed_saves.measure, bad_save) if arguments.what == "saves" else (killed_runs.measure, untrue)
    with tempfile.TemporaryDirectory() as name:
        counts = measure(Path(name), arguments.points)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    versions = {name: version(name) for name in ("pytest", "filelock")}
    text = json.dumps(machine | versions | counts, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    sys.exit(is_bad(counts))


def bad_save(counts: dict[str, Any]) -> bool:
    return bool(counts["broken"] or counts["left_over"] or counts["killed"] != counts["points"])


def untrue(counts: dict[str, Any]) -> bool:
    return bool((set(counts["SIGKILL"]) | set(counts["SIGTERM"])) - TRUE)


if __name__ == "__main__":
    main()
