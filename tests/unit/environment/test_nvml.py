"""NVML whose answers are not what its documentation says: a fact is missing then, and no run ends."""

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pytest_mxq.environment.device import find_device
from pytest_mxq.environment.fingerprint import take_fingerprint
from pytest_mxq.environment.nvml import NvmlUnavailableError, as_number, as_text, open_nvml

GOOD: dict[str, Any] = {
    "Init": None,
    "Shutdown": None,
    "SystemGetDriverVersion": "580.65.06",
    "DeviceGetCount": 1,
    "DeviceGetHandleByIndex": "handle",
    "DeviceGetUUID": "GPU-1",
    "DeviceGetName": "NVIDIA B200",
    "DeviceGetPciInfo": SimpleNamespace(busId="00000000:01:00.0"),
    "DeviceGetCudaComputeCapability": (10, 0),
    "DeviceGetMemoryInfo": SimpleNamespace(total=180 * 2**30),
    "DeviceGetPowerManagementLimit": 1_000_000,
    "DeviceGetPowerManagementDefaultLimit": 1_000_000,
    "DeviceGetPersistenceMode": 1,
    "DeviceGetMaxClockInfo": 1965,
    "DeviceGetEccMode": [1, 1],
    "DeviceGetMigMode": [1, 1],
    "DeviceGetMaxMigDeviceCount": 7,
    "DeviceGetMigDeviceHandleByIndex": "slice",
}


class Unfriendly:
    """An answer of which nothing can be read."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def _raise(error: BaseException) -> Callable[..., Any]:
    def function(*_: object) -> None:
        raise error

    return function


BAD: dict[str, object] = {
    "None": None,
    "empty text": "",
    "text": "\ud800\x00" * 4000,
    "bytes": b"\xff\x00" * 4000,
    "negative": -1,
    "huge": 10**30,
    "float": float("nan"),
    "boolean": True,
    "empty list": [],
    "long list": [3, None, "x"],
    "pair of texts": ("a", "b"),
    "pair of huge": (10**30, -1),
    "object": object(),
    "unfriendly": Unfriendly(),
    "fields of other types": SimpleNamespace(total="many", busId=7),
    "TypeError": _raise(TypeError("takes 2 arguments")),
    "OSError": _raise(OSError(5, "Input/output error")),
    "SystemError": _raise(SystemError("returned NULL")),
    "MemoryError": _raise(MemoryError()),
}


class FakeNvml:
    """Answers as a good driver does but for some questions; what it does not hold is a missing function."""

    NVMLError: type[Exception] = RuntimeError

    def __init__(self, **changes: Any) -> None:
        self.answers = {name: answer for name, answer in (GOOD | changes).items() if answer is not ...}

    def __getattr__(self, function: str) -> Callable[..., Any]:
        if function.removeprefix("nvml") not in self.answers:
            raise AttributeError(function)
        answer = self.answers[function.removeprefix("nvml")]
        return answer if callable(answer) else lambda *_: answer


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
@pytest.mark.parametrize("question", [name for name in GOOD if name != "Init"])
def test_an_answer_of_an_unexpected_type_is_a_missing_fact(question: str, answer: object) -> None:
    found = find_device(FakeNvml(**{question: answer}))
    assert found.kind in {"cuda", "cpu"}
    assert all(isinstance(value, str) for value in found.facts.values())
    assert 0 < len(found.slug) <= 110
    json.loads(msgspec.json.encode(take_fingerprint(found)))


@pytest.mark.parametrize("question", [name for name in GOOD if name != "Init"])
def test_a_missing_function_is_a_missing_fact(question: str) -> None:
    found = find_device(FakeNvml(**{question: ...}))
    assert found.kind in {"cuda", "cpu"}
    assert take_fingerprint(found).hard


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_nothing_but_bad_answers_is_still_a_device(answer: object) -> None:
    found = find_device(FakeNvml(**(dict.fromkeys(GOOD, answer) | {"Init": None})))
    assert found.kind in {"cuda", "cpu"}
    assert take_fingerprint(found).hard


@pytest.mark.parametrize(
    "error", [OSError("no library"), TypeError("x"), RuntimeError("Driver Not Loaded"), SystemError()]
)
def test_an_nvml_that_cannot_be_opened_leaves_the_cpu_and_says_why(error: Exception) -> None:
    found = find_device(FakeNvml(Init=_raise(error)))
    assert found.kind == "cpu"
    assert found.facts["no_gpu"] == (str(error) or "SystemError")


def test_a_shutdown_that_fails_does_not_end_the_run() -> None:
    with open_nvml(FakeNvml(Shutdown=_raise(RuntimeError("Uninitialized")))) as session:
        assert session.text("DeviceGetName", "handle") == "NVIDIA B200"


def test_a_pynvml_that_breaks_on_import_leaves_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "pynvml.py").write_text("raise OSError('broken install')")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NvmlUnavailableError, match="OSError"), open_nvml():
        pass
    assert find_device().kind == "cpu"


def test_texts_are_printable_and_short_and_numbers_are_integers_from_0_on() -> None:
    assert as_text(b"NVIDIA B200") == "NVIDIA B200"
    assert as_text("a\x1b[31m\n" + "b" * 500) == "a [31m " + "b" * 89
    assert (as_text("\n"), as_text(3)) == (None, None)
    assert [as_number(value) for value in (0, 7, -1, True, 1.0, "1", 2**64)] == [0, 7, None, None, None, None, None]
