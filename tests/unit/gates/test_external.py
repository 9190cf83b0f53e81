"""Scores by a command: what it is told, what it may answer, and what each failure says."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mxq.baselines.manifest import Identity
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.external import score_by_command
from pytest_mxq.testing import FakeOutputs
from pytest_mxq.testing.fakes import fake_image

IDENTITY = Identity(
    model="demo",
    weights="folder:0",
    prompts=("a red ring", 'a "quoted" star\nin two lines, é'),
    seed=0,
    batch_size=1,
    images_per_prompt=2,
    width=16,
    height=16,
    execution="eager",
    calls=(),
)


def outputs(*positions: int) -> FakeOutputs:
    images = tuple(fake_image(str(position), position) for position in positions)
    return FakeOutputs(images=images, positions=positions, faults=(), identity=IDENTITY)


def python(source: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import json, os, sys\nrequests = list(map(json.loads, sys.stdin))\n{source}"]


def test_one_command_scores_all_outputs_in_their_order(tmp_path: Path) -> None:
    asked = tmp_path / "asked.json"
    command = python(
        f"json.dump([(r['prompt'], open(r['image'], 'rb').read(4).hex()) for r in requests], open({str(asked)!r}, 'w'))\n"
        "for number, _ in enumerate(requests): print(json.dumps({'score': number}))"
    )
    assert score_by_command(command, outputs(0, 3), outputs(1)) == [[0.0, 1.0], [2.0]]
    png = b"\x89PNG".hex()
    first, second = IDENTITY.prompts
    assert json.loads(asked.read_text()) == [[first, png], [second, png], [first, png]]


def test_the_images_are_removed_and_the_environment_s_packages_are_not_the_command_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("OWN_VARIABLE", "1")
    command = python(
        "sys.stderr.write(f\"{requests[0]['image']} {os.environ.get('PYTHONPATH')} {os.environ['OWN_VARIABLE']}\"); sys.exit(3)"
    )
    with pytest.raises(MxqError, match=r"exit code 3: (\S+)\.png None 1$") as caught:
        score_by_command(command, outputs(0))
    path = Path(str(caught.value).split()[-3])
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise SystemExit('no weights')", "ended with exit code 1: no weights"),
        ("sys.exit(7)", "ended with exit code 7: nothing on standard error"),
        ("os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("print('Loading model')", "printed 'Loading model', not a line like"),
        ("print('0.5')", "printed '0.5', not a line like"),
        ("print(json.dumps({'score': True}))", "not a line like"),
        ("print(json.dumps({'score': '0.5'}))", "not a line like"),
        ("print(json.dumps({'score': 10 ** 400}))", "not a line like"),
        ("sys.stdout.buffer.write(b'\\xff\\n')", "not a line like"),
        ("print('{\"score\": 1}\\n' * 3, end='')", "printed 3 scores for 2 images"),
        ("pass", "printed 0 scores for 2 images"),
    ],
)
def test_a_command_that_fails_or_prints_anything_else_is_an_error_that_names_it(source: str, said: str) -> None:
    with pytest.raises(MxqError) as caught:
        score_by_command(python(source), outputs(0, 1))
    assert said in str(caught.value)
    assert sys.executable in str(caught.value)


def test_a_score_that_is_not_a_number_is_passed_on_and_no_gate_passes_it() -> None:
    ((score,),) = score_by_command(python("print('{\"score\": NaN}')"), outputs(0))
    assert score != score  # noqa: PLR0124  NaN


def test_a_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(MxqError, match=r"\['/no/such/python'\] cannot be started: No such file or directory"):
        score_by_command(["/no/such/python"], outputs(0))


def test_a_timeout_ends_the_command_and_what_it_started() -> None:
    # The child holds the pipes open: had it survived, reading to their end would take its minute.
    command = ["sh", "-c", "sleep 60 & sleep 60"]
    started = time.monotonic()
    with pytest.raises(MxqError, match=r"took longer than 0\.2 s"):
        score_by_command(command, outputs(0), timeout=0.2)
    assert time.monotonic() - started < 30


def test_videos_are_refused() -> None:
    with pytest.raises(MxqError, match="a command scores images, and demo generates videos"):
        score_by_command(["unused"], replace(outputs(0), noun="video"))
