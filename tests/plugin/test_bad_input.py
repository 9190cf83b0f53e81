"""A fault of one test fails that test alone, in its setup, before any arm is built."""

from fnmatch import fnmatch

import pytest
from gate_project import GATE_TEST, GateDirectory, flat

from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome

TEMPLATE = """
import pytest

{markers}
def test_faulty(mxq_pipeline, mxq_prompt):
    {body}

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_lpips(max=0.02)
def test_audio(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""
MODEL = '@pytest.mark.mxq("demo", prompts=2)\n'
GATE = "@pytest.mark.mxq_lpips(max=0.02)\n"
BODY = "return mxq_pipeline(mxq_prompt)"


@pytest.mark.parametrize(
    ("markers", "said"),
    [
        ('@pytest.mark.mxq("dmeo")\n' + GATE, "unknown model 'dmeo' (did you mean 'demo'?); models: demo"),
        ("@pytest.mark.mxq()\n" + GATE, "mxq takes the model as its one positional argument"),
        (GATE, 'needs the model: @pytest.mark.mxq("demo")'),
        (
            '@pytest.mark.mxq("demo", promts=2)\n' + GATE,
            "mxq(...): unknown setting 'promts' (did you mean 'prompts'?); settings: case",
        ),
        ('@pytest.mark.mxq("demo", num_inference_steps=4)\n' + GATE, "belong into the test's own call"),
        ('@pytest.mark.mxq("demo", prompts=0)\n' + GATE, "mxq(prompts=) must be a list of texts or a count above 0"),
        ('@pytest.mark.mxq("demo", prompts=25)\n' + GATE, "model 'demo' has 24 prompts"),
        ('@pytest.mark.mxq("demo", prompts=["a", "a"])\n' + GATE, "names a prompt twice"),
        ('@pytest.mark.mxq("demo", batch_size=0)\n' + GATE, "mxq(batch_size=) must be a number of prompts above 0"),
        ('@pytest.mark.mxq("demo", batch_size=True)\n' + GATE, "mxq(batch_size=) must be a number of prompts above 0"),
        ('@pytest.mark.mxq("demo", batch_size=[2, 2])\n' + GATE, "names a size twice"),
        ('@pytest.mark.mxq("demo", seed=-1)\n' + GATE, "mxq(seed=) must be a whole number from 0"),
        ('@pytest.mark.mxq("demo", execution="fast")\n' + GATE, "mxq(execution=) must be one of eager, as-speed"),
        ('@pytest.mark.mxq("demo", revision="")\n' + GATE, "mxq(revision=) must be"),
        ('@pytest.mark.mxq("demo", selection="mine")\n' + GATE, "unknown selection 'mine'; selections: published"),
        ('@pytest.mark.mxq("demo", min_share=1.5)\n' + GATE, "mxq(min_share=) must be above 0 and at most 1"),
        ('@pytest.mark.mxq("demo", case="../x")\n' + GATE, "../x"),
        ('@pytest.mark.mxq("demo", case="a/b")\n' + GATE, "a/b"),
        (MODEL + "@pytest.mark.mxq_lpips(max=0)\n", "mxq_lpips(max=) must be above 0 and at most 0.8, got 0"),
        (MODEL + "@pytest.mark.mxq_lpips(max=-1)\n", "must be above 0"),
        (MODEL + "@pytest.mark.mxq_lpips(max=float('nan'))\n", "must be above 0 and at most 0.8, got nan"),
        (MODEL + "@pytest.mark.mxq_lpips(max='0.1')\n", "must be a number, got '0.1' (str)"),
        (MODEL + "@pytest.mark.mxq_lpips(max=True)\n", "must be a number, got True (bool)"),
        (MODEL + "@pytest.mark.mxq_lpips(max=0.9)\n", "at most 0.8"),
        (MODEL + "@pytest.mark.mxq_lpips(maximum=0.1)\n", "mxq_lpips has no argument 'maximum'; it takes max, worst"),
        (MODEL + "@pytest.mark.mxq_lpips()\n", "mxq_lpips needs max="),
        (MODEL + "@pytest.mark.mxq_lpips(0.1)\n", "takes no positional argument"),
        (MODEL + "@pytest.mark.mxq_lpips(max=0.1, worst=0.05)\n", "is stricter than"),
        (MODEL + '@pytest.mark.mxq_lpips(max={"nvfp4": 0.1})\n', "states no bound for format 'mxfp8'"),
        (
            MODEL + '@pytest.mark.mxq_lpips(max={"mxfp8": 0.1, "nvpf4": 0.1})\n',
            "a bound for 'nvpf4', which is no format",
        ),
        (MODEL + GATE + "@pytest.mark.mxq_lpisp(max=0.1)\n", "unknown marker 'mxq_lpisp' (did you mean 'mxq_lpips'?)"),
        (MODEL, "no gate: add one of mxq_audio, mxq_dists, mxq_flicker, "),
    ],
)
def test_a_faulty_marker_fails_its_test_alone_before_anything_is_built(
    gates: GateDirectory, markers: str, said: str
) -> None:
    gates.write(TEMPLATE.format(markers=markers, body=BODY))
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    counts = result.parseoutcomes()
    assert counts.pop("passed") == 1
    assert set(counts) <= {"error", "errors", "warnings"}
    assert said in flat(result)
    assert not [line for line in gates.backend_log() if "test_faulty" in line]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("mxq_pipeline(mxq_prompt)", "NoneType"),
        ("return 3", "int"),
    ],
)
def test_a_workload_that_returns_no_images_is_an_error(gates: GateDirectory, body: str, said: str) -> None:
    gates.write(TEMPLATE.format(markers=MODEL + GATE, body=body))
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["  mxfp8 (emulated)  lpips  error*", f"    the test returned {said}*"])


def test_a_workload_that_raises_shows_its_own_traceback_and_a_verdict(gates: GateDirectory) -> None:
    gates.write(TEMPLATE.format(markers=MODEL + GATE, body="raise ZeroDivisionError('of mine')"))
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError: of mine*"])
    assert "another exception occurred" not in result.stdout.str()
    verdict = next(one for one in gates.typed_report().verdicts if one.outcome is Outcome.ERROR)
    assert verdict.sentence == "ZeroDivisionError: of mine"
    assert verdict.seconds > 0
    assert verdict.scale == LPIPS.scale
    assert verdict.next_command is not None


def test_two_tests_with_one_case_name_both_fail_and_name_each_other(gates: GateDirectory) -> None:
    gates.write(GATE_TEST, "test_other.py")
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(errors=4)
    assert fnmatch(flat(result), "*two tests share the case 'test_gate'*test_it.py*and test_other.py*mxq(case=...)*")
    assert gates.backend_log() == []


def test_a_gate_marker_without_the_pipeline_gates_nothing_and_fails(gates: GateDirectory) -> None:
    gates.write('import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.mxq_lpips(max=0.1)\ndef test_x():\n    pass\n')
    result = gates.emulated()
    result.assert_outcomes(errors=1)
    assert "gates nothing: the test does not use the fixture mxq_pipeline" in flat(result)


@pytest.mark.parametrize("fixture", ["mxq_prompt", "mxq_pipeline"])
def test_gate_fixtures_are_inert_outside_the_workload(gates: GateDirectory, fixture: str) -> None:
    use = {"mxq_prompt": "mxq_prompt + ' in oil'", "mxq_pipeline": "mxq_pipeline('a cat')"}[fixture]
    gates.write(
        f"import pytest\n@pytest.fixture\ndef mine({fixture}):\n    return {use}\n"
        + MODEL
        + GATE
        + "def test_x(mxq_pipeline, mxq_prompt, mine):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{fixture} was used outside the body of the test*"])


def test_torch_missing_does_not_hinder_collection_and_is_said_at_the_run(gates: GateDirectory) -> None:
    (gates.path / "conftest.py").write_text(
        "import sys\nfor name in ('torch', 'numpy', 'PIL'):\n    sys.modules[name] = None\n"
    )
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_gate?mxfp8-lpips?", "2 tests collected*"])
    assert result.ret == 0
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*not installed, and a gate needs it*"])


@pytest.mark.parametrize(
    "source",
    [
        "VALUES = {'a': pytest.param(1, marks=pytest.mark.mxq_psnr(min=99))}\n"
        "def pytest_generate_tests(metafunc):\n    metafunc.parametrize('n', VALUES.values())\n",
        "VALUES = (value for value in [pytest.param(1, marks=pytest.mark.mxq_psnr(min=99))])\n"
        "pytestmark = pytest.mark.parametrize('n', VALUES)\n",
    ],
)
@pytest.mark.parametrize("other", ["", GATE])
def test_a_gate_that_comes_too_late_to_be_parametrized_is_a_fault_and_stores_nothing(
    gates: GateDirectory, source: str, other: str
) -> None:
    gates.write(f"import pytest\n{source}\n{MODEL}{other}def test_x(mxq_pipeline, mxq_prompt, n):\n    {BODY}\n")
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*marker mxq_psnr comes with a parameter that was not seen in time*"])
    assert not (gates.path / "baselines").exists()


def test_a_dictionarys_values_are_seen(gates: GateDirectory) -> None:
    gates.write(
        "import pytest\nVALUES = {'a': pytest.param(1, marks=pytest.mark.mxq_psnr(min=119))}\n"
        f"{MODEL}@pytest.mark.parametrize('n', VALUES.values())\ndef test_x(mxq_pipeline, mxq_prompt, n):\n    {BODY}\n"
    )
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(failed=1)
    assert gates.outcomes() == {"mxfp8-psnr": "regression"}


def test_a_workload_that_does_something_else_on_the_quantized_arm_is_no_pass(gates: GateDirectory) -> None:
    gates.write(
        "import pytest\nCALLS = []\n" + MODEL + GATE + "def test_x(mxq_pipeline, mxq_prompt):\n    CALLS.append(1)\n"
        "    return mxq_pipeline(mxq_prompt, num_inference_steps=8 if len(CALLS) > 2 else 2)\n"
    )
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(failed=1)
    record = gates.report()["verdicts"][0]
    assert record["outcome"] == "error"
    assert "num_inference_steps 2 -> 8; it must do the same on every arm" in record["sentence"]


def test_a_call_that_changed_where_the_drift_check_does_not_look_is_stale(gates: GateDirectory) -> None:
    body = "return mxq_pipeline(mxq_prompt, num_inference_steps={} if 'star' in mxq_prompt else 2)"
    gates.write(TEMPLATE.format(markers=MODEL.replace("2", "3") + GATE, body=body.format(2)))
    gates.run("--mxq-refresh").assert_outcomes(passed=2)
    gates.write(TEMPLATE.format(markers=MODEL.replace("2", "3") + GATE, body=body.format(8)))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(failed=1, passed=1)
    stale, other = gates.report()["verdicts"]
    assert (stale["cell"]["nodeid"], stale["outcome"]) == ("test_it.py::test_faulty[mxfp8-lpips]", "stale")
    assert "num_inference_steps 2 -> 8" in stale["sentence"]
    assert (other["cell"]["nodeid"], other["outcome"]) == ("test_it.py::test_audio[mxfp8-lpips]", "pass")


def test_two_revisions_under_one_case_name_share_a_baseline_and_are_refused(gates: GateDirectory) -> None:
    tests = [
        f'@pytest.mark.mxq("demo", case="same", revision="{name}")\n{GATE}def test_{name}(mxq_pipeline, mxq_prompt):\n    {BODY}\n'
        for name in ("a", "b")
    ]
    gates.write("import pytest\n" + "".join(tests))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(errors=2)
    refused = {record["cell"]["nodeid"]: record for record in gates.report()["verdicts"]}
    assert list(refused) == ["test_it.py::test_a[mxfp8-lpips]", "test_it.py::test_b[mxfp8-lpips]"]
    assert {record["outcome"] for record in refused.values()} == {"error"}
    for record in refused.values():
        assert "two tests share the case 'same' of model 'demo'" in record["sentence"]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("def test_x(mxq_pipeline):\n    return mxq_pipeline('a cat')\n", "does not use the fixture mxq_prompt"),
        ("async def test_x(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n", "async test cannot be"),
    ],
)
def test_a_body_that_cannot_be_a_workload_is_a_fault(gates: GateDirectory, definition: str, said: str) -> None:
    gates.write("import pytest\n" + MODEL + GATE + definition)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()


def test_the_prompt_may_be_given_by_name(gates: GateDirectory) -> None:
    gates.write(TEMPLATE.format(markers=MODEL + GATE, body="return mxq_pipeline(prompt=mxq_prompt)"))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(passed=2)
    assert {record["cell"]["nodeid"]: record["outcome"] for record in gates.report()["verdicts"]} == {
        "test_it.py::test_faulty[mxfp8-lpips]": "pass",
        "test_it.py::test_audio[mxfp8-lpips]": "pass",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mxq-formats=",), "--mxq-formats names no format"),
        (("--mxq-gates=typo",), "unknown gate 'typo'"),
        (("--mxq-models=typo",), "unknown model 'typo'"),
    ],
)
def test_an_option_is_checked_also_where_no_formats_are_given(
    gates: GateDirectory, options: tuple[str, ...], said: str
) -> None:
    result = gates.run(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


@pytest.mark.parametrize("hook", ["formats", "models"])
def test_a_hook_must_return_a_list_of_its_kind(gates: GateDirectory, hook: str) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(conftest.read_text() + f"\ndef pytest_mxq_{hook}():\n    return 3\n")
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*the hook pytest_mxq_{hook} must return a list of *"])


@pytest.mark.parametrize("hook", ["formats", "models", "gates", "machine"])
@pytest.mark.parametrize("body", ["raise SystemExit(3)", "pytest.skip('no board')", "yield 1 / 0"])
def test_a_hook_that_raises_is_a_usage_error_that_names_it(gates: GateDirectory, hook: str, body: str) -> None:
    conftest = f"import pytest\ndef pytest_mxq_{hook}():\n    {body}\n"
    (gates.path / "conftest.py").write_text(conftest)
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"the hook pytest_mxq_{hook} " in result.stderr.str()


@pytest.mark.parametrize("behaviour", ["[]", '{"shift": 3}', '{"shfit": {}}'])
def test_a_malformed_behaviour_of_the_fakes_is_a_usage_error_that_names_it(
    gates: GateDirectory, behaviour: str
) -> None:
    (gates.path / "behaviour.json").write_text(behaviour)
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "behaviour.json" in result.stderr.str()


NAMES = [
    "owner/FLUX.1 dev",
    "my model",
    "x" * 5000,
    "owner/" + "x" * 5000,
    "a/" * 2500 + "b",
    "x" * 250,
    "nul\\0",
    "..",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:8].replace("\\", "") + str(len(name)))
@pytest.mark.parametrize("option", ["--mxq-formats=mxfp8", "--mxq-refresh"])
def test_a_model_name_that_is_not_allowed_is_a_short_fault_of_its_test_alone(
    gates: GateDirectory, name: str, option: str
) -> None:
    folder = gates.path / "my model"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    gates.write(TEMPLATE.format(markers=f'@pytest.mark.mxq("{name}", prompts=2)\n{GATE}', body=BODY))
    result = gates.run(option, "--mxq-emulate")
    result.assert_outcomes(errors=1, passed=1)
    faulty = [record for record in gates.report()["verdicts"] if record["outcome"] == "error"]
    assert len(faulty) == 1
    assert 0 < len(faulty[0]["sentence"]) <= 350
