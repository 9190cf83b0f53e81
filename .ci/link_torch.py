"""Link the torch stack of the environment that runs this into another one, in place of gigabytes installed again.

python .ci/link_torch.py SITE_PACKAGES    prints the names of the distributions that were linked, one a line
"""

import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

_STACK = ("torch", "torchvision", "triton")
_PREFIXES = ("nvidia-", "cuda-")
_SMALL = ("nvidia-ml-py",)  # Python alone, a direct dependency with a bound of its own


def find_stack(site: Path) -> Iterator[Distribution]:
    """Yield torch and what it brings that is large: its compiler and CUDA's libraries."""
    for distribution in distributions(path=[str(site)]):
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if name in _STACK or (name.startswith(_PREFIXES) and name not in _SMALL):
            yield distribution


def list_entries(distribution: Distribution) -> set[str]:
    """Return the names in site-packages that a distribution owns or shares."""
    parts = {Path(str(file)).parts[0] for file in distribution.files or ()}
    return parts - {"..", "__pycache__"}


def main() -> None:
    site, target = Path(sysconfig.get_path("purelib")), Path(sys.argv[1])
    for distribution in find_stack(site):
        for entry in list_entries(distribution):
            if not (target / entry).exists():
                (target / entry).symlink_to(site / entry)
        print(distribution.metadata["Name"].lower().replace("_", "-"))


if __name__ == "__main__":
    main()
