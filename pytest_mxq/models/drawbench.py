"""DrawBench (Saharia et al. 2022, arXiv:2205.11487): the 200 prompts of the published LPIPS, from the Hub."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from pytest_mxq.errors import MxqError, PromptsUnavailableError

REPOSITORY = "sayakpaul/drawbench"
FILE = "DrawBench Prompts - Sheet1.csv"
REVISION = "ad794cba698c253ffdb6d18eff3fc87b004c1135"  # pinned: other prompts would be another case
COLUMN = "Prompts"
COUNT = 200


def fetch_file() -> Path:
    """Return the dataset's one file, from the Hub's cache or from the Hub; asks nothing where HF_HUB_OFFLINE is set.

    Raises:
        PromptsUnavailableError: it is not in the cache and cannot be fetched; says what to do.
    """
    try:
        from huggingface_hub import hf_hub_download

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a cache without symlinks does not concern a gate
            # No token: the dataset is public, and an expired token would be refused.
            return Path(hf_hub_download(REPOSITORY, FILE, repo_type="dataset", revision=REVISION, token=False))
    except Exception as error:  # the Hub client raises many kinds, from OSError to its own; each means "not available"
        raise PromptsUnavailableError(
            f"mxq(prompts='drawbench'): the dataset {REPOSITORY} (revision {REVISION[:8]}) is not in the Hub's cache "
            f"and could not be fetched: {type(error).__name__}. Fetch it once where the Hub can be reached: "
            f'hf download {REPOSITORY} "{FILE}" --repo-type dataset --revision {REVISION}'
        ) from error


def read_drawbench(fetch: Callable[[], Path] = fetch_file) -> tuple[str, ...]:
    """Return the 200 prompts, in the dataset's order.

    Args:
        fetch: gives the file.

    Raises:
        PromptsUnavailableError: the file is not available.
        MxqError: it does not hold 200 different prompts.
    """
    try:
        rows = list(csv.DictReader(StringIO(fetch().read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unusable(f"cannot be read ({type(error).__name__})") from error
    if not rows or COLUMN not in rows[0]:
        raise _unusable(f"has no row with a column {COLUMN!r}")
    prompts = tuple(row[COLUMN] or "" for row in rows)
    different = len({prompt for prompt in prompts if prompt.strip()})
    if not len(prompts) == different == COUNT:
        raise _unusable(f"holds {len(prompts)} prompts, {different} of them different; DrawBench has {COUNT}")
    return prompts


def _unusable(problem: str) -> MxqError:
    return MxqError(
        f"mxq(prompts='drawbench'): {FILE!r} of {REPOSITORY} (revision {REVISION[:8]}) {problem}. Remove the dataset "
        "from the Hub's cache and run again"
    )
