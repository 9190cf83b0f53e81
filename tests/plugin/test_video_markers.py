"""The markers of videos and audio, as a user writes them."""

from gate_project import GateDirectory

TEST = """
import pytest

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_lpips(max=0.10)
@pytest.mark.mxq_flicker(max={"mxfp8": 0.05, "nvfp4": 0.2})
@pytest.mark.mxq_audio(max=12.0, worst=15.0)
def test_video(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


def test_each_marker_is_a_gate_of_its_own(gates: GateDirectory) -> None:
    gates.write(TEST)
    gates.behave(shift={"mxfp8": 10, "nvfp4": 14}, units={"audio": 1000})
    result = gates.emulated()
    assert gates.outcomes() == {
        "mxfp8-lpips": "pass",
        "mxfp8-flicker": "pass",
        "mxfp8-audio": "pass",
        "nvfp4-lpips": "pass",
        "nvfp4-flicker": "pass",
        "nvfp4-audio": "regression",
    }
    result.stdout.fnmatch_lines(["*nvfp4 (emulated) audio*mean 14.00 dB > 12.00 dB*"])


def test_they_can_be_chosen_and_are_listed(gates: GateDirectory) -> None:
    gates.write(TEST)
    gates.emulated("--mxq-gates=audio,flicker")
    assert {key.split("-")[1] for key in gates.outcomes()} == {"audio", "flicker"}
    listed = gates.run("--markers").stdout.str()
    assert "@pytest.mark.mxq_flicker(max=, worst=)" in listed
    assert "@pytest.mark.mxq_audio(max=, worst=)" in listed


def test_a_bound_that_could_not_fail_is_an_error_of_the_test(gates: GateDirectory) -> None:
    gates.write(TEST.replace("max=12.0, worst=15.0", "max=100"))
    gates.emulated("--mxq-gates=audio").stdout.fnmatch_lines(
        ["*mxq_audio(max=) must be above 0 and at most 60, got 100*"]
    )
