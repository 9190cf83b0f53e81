"""Saves of a baseline killed (SIGKILL) at many points: is the old or the new baseline whole, and is anything left over?

python benchmarks/refresh_kills.py [--points 200] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    from killed_saves import measure

    with tempfile.TemporaryDirectory() as name:
        counts = measure(Path(name), arguments.points)
    result = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "filelock": version("filelock"),
    } | counts
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(counts["broken"] or counts["left_over"] or counts["killed"] != arguments.points))


if __name__ == "__main__":
    main()
