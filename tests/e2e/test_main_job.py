"""The README's main job and the refresh that made the committed baseline, as a user runs them, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "baselines" / "cpu-x86-64" / "demo" / "test_demo.json"


# The bits of BF16 depend on the number of threads. Waiting threads leave the cores to whatever else runs meanwhile.
THREADS = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with as many threads as the committed baseline was generated with, whatever this process has."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env={**kept, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", **THREADS},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_main_job_ends_in_a_verdict_for_every_format_and_gate(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"\.venv/bin/pytest (tests/gates .*)", text)
    assert found
    done = run(*found.group(1).split(), f"--mxq-report={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    demo = [record for record in report["verdicts"] if record["cell"]["model"] == "demo"]
    outcomes = {f"{record['cell']['format']}-{record['cell']['gate']}": record["outcome"] for record in demo}
    assert outcomes == {f"{name}-{gate}": "pass" for name in ("mxfp8", "nvfp4") for gate in ("lpips", "ssim", "psnr")}
    assert {record["outcome"] for record in report["verdicts"] if record not in demo} == {
        "skipped"
    }  # too large for a CPU
    for record in demo:
        assert len(record["scores"]["values"]) >= 8
        assert record["evidence"]["weight_share"] > 0.5
        assert (tmp_path / record["comparisons"][0]).is_file()
    assert "Captured" not in done.stdout


def test_the_committed_baseline_is_what_a_refresh_makes(tmp_path: Path) -> None:
    done = run("tests/gates", "--mxq-refresh", f"--mxq-baselines={tmp_path}", f"--mxq-report={tmp_path / 'out'}")
    assert done.returncode == 0, done.stdout + done.stderr
    fresh = json.loads((tmp_path / "cpu-x86-64" / "demo" / "test_demo.json").read_text())
    committed = json.loads(COMMITTED.read_text())
    for name in ("identity", "identity_sha256", "selections", "lpips", "case", "model"):
        assert fresh[name] == committed[name], name
    same_machine = fresh["fingerprint"]["hard"] == committed["fingerprint"]["hard"]
    if same_machine:  # on other hardware or software BF16 generates other bits; that case is judged live
        assert [p["sha256"] for p in fresh["outputs"]] == [p["sha256"] for p in committed["outputs"]]
    assert fresh["noise_floor"]["repeat"] == 0.0
    compiled = fresh["noise_floor"]["eager_vs_compiled"]
    assert compiled is None or compiled < 0.005
