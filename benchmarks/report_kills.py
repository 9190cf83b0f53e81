"""Runs of gates ended by SIGKILL and SIGTERM at many points: does the report say the truth about each of them?

python benchmarks/report_kills.py [--points 200] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
TRUE = {"running", "interrupted", "finished"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    from killed_runs import measure

    with tempfile.TemporaryDirectory() as name:
        counts = measure(Path(name), arguments.points)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "pytest": pytest.__version__}
    text = json.dumps(machine | counts, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    sys.exit(bool((set(counts["SIGKILL"]) | set(counts["SIGTERM"])) - TRUE))


if __name__ == "__main__":
    main()
