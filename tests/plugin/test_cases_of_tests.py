"""How tests become cases: classes, parameters, markers of parameters, batch sizes."""

import pytest
from gate_project import GateDirectory

MODEL = '@pytest.mark.mxq("demo", prompts=2)\n'
BODY = "    return mxq_pipeline(mxq_prompt)\n"


def cells(gates: GateDirectory, source: str, *options: str) -> dict[str, str]:
    """nodeid -> case, of all verdicts."""
    gates.write("import pytest\n" + source)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", *options)
    assert result.ret == 0, result.stdout.str()
    return {r["cell"]["nodeid"].partition("::")[2]: r["cell"]["case"] for r in gates.report()["verdicts"]}


def test_a_class_gives_its_name_and_its_markers(gates: GateDirectory) -> None:
    source = (
        MODEL
        + "@pytest.mark.mxq_lpips(max=0.02)\nclass TestDemo:\n    def test_a(self, mxq_pipeline, mxq_prompt):\n        return mxq_pipeline(mxq_prompt)\n"
    )
    assert cells(gates, source) == {"TestDemo::test_a[mxfp8-lpips]": "TestDemo.test_a"}


def test_user_parameters_become_part_of_the_case_and_come_first_in_the_id(gates: GateDirectory) -> None:
    source = (
        '@pytest.mark.parametrize("steps", [2, 3])\n'
        + MODEL
        + "@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt, steps):\n"
        + "    return mxq_pipeline(mxq_prompt, num_inference_steps=steps)\n"
    )
    assert cells(gates, source) == {"test_a[2-mxfp8-lpips]": "test_a-2", "test_a[3-mxfp8-lpips]": "test_a-3"}


def test_a_parameter_may_bring_its_own_model_settings_and_gates(gates: GateDirectory) -> None:
    source = (
        '@pytest.mark.parametrize("name", [\n'
        '    pytest.param("one", marks=[pytest.mark.mxq("demo", batch_size=1, prompts=2), pytest.mark.mxq_lpips(max=0.02)]),\n'
        '    pytest.param("two", marks=[pytest.mark.mxq("demo", batch_size=2, prompts=2), pytest.mark.mxq_psnr(min=20)]),\n'
        "])\ndef test_a(mxq_pipeline, mxq_prompt, name):\n    assert isinstance(mxq_prompt, str) is (name == 'one')\n"
        + BODY
    )
    assert cells(gates, source) == {"test_a[one-mxfp8-lpips]": "test_a-one", "test_a[two-mxfp8-psnr]": "test_a-two"}


def test_a_list_of_batch_sizes_becomes_part_of_id_and_case(gates: GateDirectory) -> None:
    source = (
        '@pytest.mark.mxq("demo", prompts=3, batch_size=[1, 2], case="mine")\n@pytest.mark.mxq_lpips(max=0.02)\n'
        "def test_a(mxq_pipeline, mxq_prompt):\n" + BODY
    )
    assert cells(gates, source) == {"test_a[mxfp8-lpips-b1]": "mine-b1", "test_a[mxfp8-lpips-b2]": "mine-b2"}


def test_a_list_of_batch_sizes_in_a_parameters_marker_is_a_fault(gates: GateDirectory) -> None:
    gates.write(
        'import pytest\n@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.mxq("demo", batch_size=[1, 2]))])\n'
        "@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt, x):\n" + BODY
    )
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a list of batch sizes belongs into a marker of the test itself*"])


def test_a_fixture_that_wraps_the_pipeline_works_inside_the_workload(gates: GateDirectory) -> None:
    source = (
        "@pytest.fixture\ndef few_steps(mxq_pipeline):\n    return lambda prompt: mxq_pipeline(prompt, num_inference_steps=2)\n"
        + MODEL
        + "@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt, few_steps):\n"
        + "    assert mxq_pipeline.pipe == 'raw pipeline'\n    return few_steps(mxq_prompt)\n"
    )
    assert cells(gates, source) == {"test_a[mxfp8-lpips]": "test_a"}


def test_the_body_runs_once_for_every_chunk_of_every_arm(gates: GateDirectory) -> None:
    source = (
        MODEL
        + "@pytest.mark.mxq_lpips(max=0.02)\n@pytest.mark.mxq_ssim(min=0.5)\ndef test_a(mxq_pipeline, mxq_prompt):\n"
        "    with open('calls.txt', 'a') as file:\n        file.write(mxq_prompt + '\\n')\n" + BODY
    )
    assert len(cells(gates, source)) == 2
    assert len((gates.path / "calls.txt").read_text().splitlines()) == 4  # two prompts live in BF16, two in mxfp8


REPEATED = """
def pytest_generate_tests(metafunc):
    name = "__pytest_repeat_step_number"
    metafunc.fixturenames.append(name)
    metafunc.parametrize(name, range(3), indirect=True, ids={ids})
"""
STEP = """
import pytest

@pytest.fixture
def __pytest_repeat_step_number(request):
    return request.param
"""


@pytest.mark.parametrize("ids", ["lambda i: f'{i + 1}-3'", "['1-3', '2-3', '3-3']", "None"])
@pytest.mark.parametrize("first", ["", "@pytest.hookimpl(tryfirst=True)", "@pytest.hookimpl(trylast=True)"])
@pytest.mark.parametrize("parameter", ["", "1-3"])
def test_repeats_of_a_test_keep_its_case(gates: GateDirectory, ids: str, first: str, parameter: str) -> None:
    conftest = gates.path / "conftest.py"
    hook = REPEATED.format(ids=ids).replace("def pytest_gen", f"{first}\ndef pytest_gen")
    conftest.write_text(f"{conftest.read_text()}\n{STEP}\n{hook}")
    name, mark = ("x", f'@pytest.mark.parametrize("x", ["{parameter}"])\n') if parameter else ("mxq_prompt", "")
    source = (
        f"{mark}{MODEL}@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt"
        + (f", {name}" if parameter else "")
        + "):\n"
        + BODY
    )
    found = cells(gates, source)
    assert len(found) == 3
    assert set(found.values()) == {f"test_a-{parameter}" if parameter else "test_a"}


def parametrized(values: str) -> str:
    return (
        f'@pytest.mark.parametrize("shift", {values})\n'
        + MODEL
        + "@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt, shift):\n"
        + BODY
    )


def test_a_parameter_and_its_negative_are_two_cases(gates: GateDirectory) -> None:
    found = cells(gates, parametrized("[-1, 1]"))
    assert found == {"test_a[-1-mxfp8-lpips]": "test_a--1", "test_a[1-mxfp8-lpips]": "test_a-1"}


def test_two_parameters_that_a_file_name_cannot_tell_apart_are_two_cases(gates: GateDirectory) -> None:
    found = cells(gates, parametrized("['a:b', 'a*b', 'a_b']"))
    assert len(set(found.values())) == 3
    gates.run("--mxq-refresh").assert_outcomes(passed=3)
    assert len(list((gates.path / "baselines").rglob("*.json"))) == 3


def test_two_tests_of_one_name_and_parameters_that_join_to_one_case_are_a_fault(gates: GateDirectory) -> None:
    params = ", ".join(
        f'pytest.param("{value}", marks=pytest.mark.mxq("demo", prompts=2, case="{case}"))'
        for case, value in (("mine-a", "b"), ("mine", "a-b"))
    )
    gates.write("import pytest\n" + parametrized(f"[{params}]").replace(MODEL, ""))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(errors=2)


def test_a_parameter_of_the_tests_own_is_a_case_whatever_its_name_begins_with(gates: GateDirectory) -> None:
    found = cells(gates, parametrized("[False, True]").replace("shift", "__shift"))
    assert found == {"test_a[False-mxfp8-lpips]": "test_a-False", "test_a[True-mxfp8-lpips]": "test_a-True"}


def test_each_value_of_another_plugins_parameter_generates_its_own_outputs(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n{STEP}\n{REPEATED.format(ids=None)}")
    source = MODEL + "@pytest.mark.mxq_lpips(max=0.02)\ndef test_a(mxq_pipeline, mxq_prompt):\n" + BODY
    assert set(cells(gates, source).values()) == {"test_a"}
    assert sum(line.startswith("generate demo test_a ") for line in gates.backend_log()) == 2 * 3


@pytest.mark.parametrize("options", [("--mxq-formats=mxfp8", "--mxq-emulate"), ("--mxq-refresh",)])
def test_ids_of_two_parameters_that_join_to_one_text_are_a_fault(
    gates: GateDirectory, options: tuple[str, ...]
) -> None:
    source = parametrized("['a-b', 'a']").replace("prompt, shift)", "prompt, shift, y)", 1)
    gates.write(f"import pytest\n@pytest.mark.parametrize('y', ['c', 'b-c'])\n{source}")
    gates.run(*options).assert_outcomes(errors=2, passed=2)
    errors = [verdict for verdict in gates.report()["verdicts"] if verdict["outcome"] == "error"]
    assert all("ids=" in verdict["sentence"] for verdict in errors)
