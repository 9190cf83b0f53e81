"""Rewrite stored baselines in the current schema version: keys are renamed and a digest covers every section.

Images and videos stay as they are, and so does every value; a file that is current already is not touched.

    python tools/convert_baselines.py baselines
"""

import sys
from pathlib import Path

from pytest_mxq.baselines.manifest import SCHEMA_VERSION, decode, encode
from pytest_mxq.baselines.storage import MAX_MANIFEST_BYTES, read_capped, write_atomically
from pytest_mxq.errors import BaselineInvalidError


def main(root: Path) -> int:
    faults = 0
    for path in sorted(root.glob("*/*/*.json")):
        try:
            manifest = decode(read_capped(path, MAX_MANIFEST_BYTES), where=str(path))
        except (BaselineInvalidError, OSError) as error:
            print(f"{path}: left as it is: {error}")
            faults += 1
            continue
        if manifest.schema_version < SCHEMA_VERSION:
            write_atomically(path, encode(manifest))
            print(f"{path}: schema_version {manifest.schema_version} -> {SCHEMA_VERSION}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
