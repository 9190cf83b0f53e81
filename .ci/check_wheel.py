"""Check a built wheel: its size, what it must hold and what it must not.

python .ci/check_wheel.py WHEEL    exits with 1 and says what is wrong
"""

import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

_MAX_BYTES = 30_000_000
_REQUIRED = (
    "pytest_mxq/py.typed",
    "pytest_mxq/plugin.py",
    "pytest_mxq/reports/page/index.html.j2",
    "pytest_mxq/reports/page/page.css",
    "pytest_mxq/reports/page/page.js",
    "pytest_mxq/assets/demo_model/*.safetensors",
    "pytest_mxq/assets/lpips/*.safetensors",
    "*.dist-info/entry_points.txt",
    "*.dist-info/licenses/LICENSE",
    "*.dist-info/licenses/THIRD_PARTY_NOTICES.md",
)
_ALLOWED = ("pytest_mxq/*", "pytest_mxq-*.dist-info/*")
_REFUSED = ("*.pyc", "*__pycache__*", "*/tests/*", "*/test_*.py", "*/conftest.py")


def find_faults(names: Sequence[str], size: int) -> Iterator[str]:
    """Yield what is wrong with a wheel of `size` bytes that holds the files `names`."""
    if size > _MAX_BYTES:
        yield f"{size / 1e6:.1f} MB, above {_MAX_BYTES / 1e6:.0f} MB"
    for pattern in _REQUIRED:
        if not any(fnmatch(name, pattern) for name in names):
            yield f"holds no {pattern}"
    for name in names:
        if not any(fnmatch(name, pattern) for pattern in _ALLOWED):
            yield f"{name} is outside of the package"
        if any(fnmatch(name, pattern) for pattern in _REFUSED):
            yield f"{name} does not belong into a wheel"


def main() -> int:
    path = Path(sys.argv[1])
    with ZipFile(path) as wheel:
        names = wheel.namelist()
    faults = list(find_faults(names, path.stat().st_size))
    print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB", *faults, sep="\n  ")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
