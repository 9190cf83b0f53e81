"""--mxq-sources: a registered model's weights from a local folder."""

from pathlib import Path

import pytest
from gate_project import GateDirectory


def make_folder(gates: GateDirectory, name: str) -> Path:
    """A folder that looks like a model's, and a line of output that says which sources a run used."""
    folder = gates.path / name
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text() + "\nfrom pytest_mxq.planning.case import Case\n"
        "def pytest_unconfigure(config):\n"
        "    session = config.pluginmanager.get_plugin('mxq-session')\n"
        "    plans = [plan for plan in (session.cases if session else {}).values()]\n"
        "    print('sources', {plan.case.recipe.source for plan in plans})\n"
    )
    return folder


@pytest.mark.parametrize(
    "stated",
    [
        "demo=elsewhere",
        "demo=my models/demo one",
        "flux.1-dev=elsewhere, demo=my models/demo one,",
        "flux.1-dev=elsewhere demo=my models/demo one",
    ],
)
def test_a_folder_takes_the_place_of_a_models_weights(gates: GateDirectory, stated: str) -> None:
    (gates.path / "my models").mkdir()
    folders = {name: make_folder(gates, name) for name in ("elsewhere", "my models/demo one")}
    folder = folders[stated.rstrip(",").rpartition("=")[2]]
    result = gates.emulated(f"--mxq-sources={stated}")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"*sources {{'{folder}'}}*"])


@pytest.mark.parametrize(
    "line", ["demo=elsewhere", "'demo=my models/demo one'", "flux.1-dev=elsewhere 'demo=my models/demo one'"]
)
def test_the_ini_file_takes_them_too_in_quotes_where_a_name_has_spaces(gates: GateDirectory, line: str) -> None:
    (gates.path / "my models").mkdir()
    folders = {name: make_folder(gates, name) for name in ("elsewhere", "my models/demo one")}
    folder = folders[line.rstrip("'").rpartition("=")[2]]
    gates.pytester.makeini(f"[pytest]\nmxq_sources = {line}\n")
    result = gates.emulated()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines([f"*sources {{'{folder}'}}*"])


def test_what_is_no_pair_or_no_folder_is_refused(gates: GateDirectory) -> None:
    result = gates.run("--mxq-formats=mxfp8", "--mxq-sources=demo")
    result.stderr.fnmatch_lines(["*--mxq-sources takes NAME=FOLDER, such as flux.1-dev=/models/flux; got 'demo'*"])
    result = gates.run("--mxq-formats=mxfp8", "--mxq-sources=demo=nowhere")
    result.stderr.fnmatch_lines(["*nowhere holds no model_index.json; demo= must name a folder*"])
    result = gates.run("--mxq-formats=mxfp8", "--mxq-sources=dmo=nowhere")
    result.stderr.fnmatch_lines(["*unknown model 'dmo' (did you mean 'demo'?)*"])


def test_the_next_command_finds_the_weights_again(gates: GateDirectory) -> None:
    (gates.path / "elsewhere").mkdir()
    (gates.path / "elsewhere" / "model_index.json").write_text("{}")
    gates.behave(shift={"nvfp4": 100})
    result = gates.emulated("--mxq-sources=demo=elsewhere")
    result.stdout.fnmatch_lines(["  next  *test_gate?nvfp4-lpips?* --mxq-sources=demo=elsewhere*"])
