"""The examples of README.md and CONTRIBUTING.md are run."""

import re
from pathlib import Path

from gate_project import GateDirectory

ROOT = Path(__file__).parents[2]


def blocks(name: str) -> list[str]:
    text = (ROOT / name).read_text()
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_the_readme_shows_a_test_that_runs(gates: GateDirectory) -> None:
    shown = blocks("README.md")[0]
    assert (ROOT / "tests/gates/test_demo.py").read_text().endswith(shown)
    gates.write(shown.replace('"mxfp8": 0.0005', '"mxfp8": 0.001'))  # the least that the fake's images can differ by
    gates.behave(shift={"mxfp8": 1, "nvfp4": 4})
    gates.emulated().assert_outcomes(passed=6)
    assert {record["cell"]["case"] for record in gates.report()["verdicts"]} == {"test_demo"}


def test_the_readme_is_short_and_names_every_option() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    for name in (
        "formats",
        "models",
        "gates",
        "baselines",
        "media",
        "reference",
        "refresh",
        "emulate",
        "strict",
        "report",
        "weights",
        "alpha",
        "compile-cache",
        "refresh-sessions",
        "refresh-in-ci",
        "doctor",
        "report-embed",
        "history",
        "sources",
    ):
        assert f"--mxq-{name}" in text


def test_the_steps_to_add_a_format_and_a_model_work(gates: GateDirectory) -> None:
    new_format, new_model = blocks("CONTRIBUTING.md")
    conftest = gates.path / "conftest.py"
    conftest.write_text("\n".join([conftest.read_text(), new_format, new_model]))
    gates.write(
        'import pytest\n@pytest.mark.mxq("ours", prompts=2)\n@pytest.mark.mxq_lpips(max={"int8": 0.02})\n'
        "def test_ours(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    gates.run("--mxq-formats=int8", "--mxq-emulate").assert_outcomes(passed=1)
    assert gates.report()["verdicts"][0]["cell"]["model"] == "ours"
