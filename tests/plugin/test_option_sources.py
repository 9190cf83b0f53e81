"""--mxq-sources: a registered model's weights from a local folder."""

from gate_project import GateDirectory


def test_a_folder_takes_the_place_of_a_models_weights(gates: GateDirectory) -> None:
    folder = gates.path / "elsewhere"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text() + "\nfrom pytest_mxq.cases import Case\n"
        "def pytest_unconfigure(config):\n"
        "    session = config.pluginmanager.get_plugin('mxq-session')\n"
        "    plans = [plan for plan in (session.cases if session else {}).values()]\n"
        "    print('sources', {plan.case.recipe.source for plan in plans})\n"
    )
    result = gates.emulated("--mxq-sources=demo=elsewhere")
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
