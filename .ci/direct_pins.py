"""Print the direct dependencies among resolved versions, in one paragraph.

python .ci/direct_pins.py PINS    PINS: a file of NAME==VERSION lines
"""

import re
import sys
import textwrap
import tomllib
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def normalize(requirement: str) -> str:
    """Return the name of a requirement as resolvers write it."""
    match = _NAME.match(requirement)
    return match.group().lower().replace("_", "-") if match else ""


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {normalize(line) for line in project["dependencies"] + extras["video"] + extras["test"]}
    pins = [line for line in Path(sys.argv[1]).read_text().split() if normalize(line) in declared]
    print(textwrap.fill(", ".join(pin.replace("==", " ") for pin in pins), 120))


if __name__ == "__main__":
    main()
