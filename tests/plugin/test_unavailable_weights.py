"""A model that cannot be had here is skipped with the reason, and fails where nothing may be skipped."""

from gate_project import GATE_TEST, GateDirectory

REASON = "the weights of 'owner/model' (revision main) cannot be had: it is gated and no token is set"


def test_its_gates_are_skipped_with_the_reason(gates: GateDirectory) -> None:
    gates.write(GATE_TEST)
    gates.behave(unavailable=REASON)
    result = gates.emulated()
    result.assert_outcomes(skipped=4)
    assert {record["outcome"] for record in gates.report()["verdicts"]} == {"skipped"}
    result.stdout.fnmatch_lines([f"*4 skipped: {REASON.replace('[', '[[]')}*"])


def test_under_strict_they_fail(gates: GateDirectory) -> None:
    gates.write(GATE_TEST)
    gates.behave(unavailable=REASON)
    gates.emulated("--mxq-strict").assert_outcomes(failed=4)


def test_a_refresh_stores_nothing_and_says_why(gates: GateDirectory) -> None:
    gates.write(GATE_TEST)
    gates.behave(unavailable=REASON)
    gates.run("--mxq-refresh").assert_outcomes(skipped=1)
    assert gates.report()["verdicts"][0]["sentence"] == REASON
    assert not list(gates.path.glob("baselines/**/*.json"))
