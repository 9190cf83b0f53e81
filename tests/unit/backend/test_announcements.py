from types import SimpleNamespace
from typing import Any

from pytest_mxq.backend.generation import TorchBackend


def case_of(model: str) -> Any:
    return SimpleNamespace(recipe=SimpleNamespace(name=model), source=model)


def test_loading_is_told_until_the_model_is_there_and_quantizing_once_an_arm() -> None:
    told: list[str] = []
    backend = TorchBackend("cpu", lambda label, _done, total: told.append(f"{label} {total}"))
    nvfp4: Any = SimpleNamespace(name="nvfp4")
    for number_format in (None, nvfp4, nvfp4):
        backend.announce(case_of("demo"), number_format)
    assert told == ["demo: loading 0", "demo: loading 0", "demo nvfp4: quantizing 0", "demo: loading 0"]
