from gate_project import GATE_TEST, GateDirectory


def ran(gates: GateDirectory) -> list[str]:
    return [f"{v['cell']['case']} {v['cell']['format']}-{v['cell']['gate']}" for v in gates.report()["verdicts"]]


def test_gates_run_in_the_order_of_the_options_and_every_arm_is_built_once(gates: GateDirectory) -> None:
    gates.write(GATE_TEST.replace("test_gate", "test_z") + GATE_TEST.replace("test_gate", "test_a"))
    gates.run("--mxq-formats=nvfp4,mxfp8", "--mxq-gates=ssim,lpips", "--mxq-emulate").assert_outcomes(passed=8)
    cases = ("test_z", "test_a")
    asked = [f"{case} {name}-{gate}" for name in ("nvfp4", "mxfp8") for case in cases for gate in ("ssim", "lpips")]
    assert ran(gates) == asked


def test_gates_run_in_the_same_order_whoever_shuffles_the_items(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\ndef pytest_collection_modifyitems(items):\n    items.reverse()\n")
    gates.emulated()
    assert ran(gates) == [f"test_gate {name}" for name in ("mxfp8-lpips", "mxfp8-ssim", "nvfp4-lpips", "nvfp4-ssim")]
