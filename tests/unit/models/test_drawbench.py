"""DrawBench is read from the Hub's one file, or it is said why not."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.errors import MxqError, PromptsUnavailableError
from pytest_mxq.models import drawbench
from pytest_mxq.models.drawbench import fetch_file, read_drawbench

PROMPTS = tuple(f'A prompt, number {number}, that says "{number}" to Schönhausen' for number in range(200))


def csv_of(prompts: tuple[str, ...], header: str = "Prompts,Category") -> str:
    rows = ['"{}",Colors'.format(prompt.replace('"', '""')) for prompt in prompts]
    return "\r\n".join([header, *rows]) + "\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a secret place" / "prompts.csv"
    path.parent.mkdir()
    path.write_bytes(csv_of(PROMPTS).encode())
    return path


def test_the_200_prompts_come_in_the_order_of_the_file(file: Path) -> None:
    assert read_drawbench(lambda: file) == PROMPTS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (csv_of(PROMPTS[:199]), "holds 199 prompts, 199 of them different; DrawBench has 200"),
        (csv_of((*PROMPTS, "one more")), "holds 201 prompts, 201 of them different"),
        (csv_of((*PROMPTS[:199], PROMPTS[0])), "holds 200 prompts, 199 of them different"),
        (csv_of((*PROMPTS[:199], " ")), "holds 200 prompts, 199 of them different"),
        (csv_of(PROMPTS, header="prompt,Category"), "has no row with a column 'Prompts'"),
        ("", "has no row with a column 'Prompts'"),
        ("Prompts\n\0\xff", "cannot be read (UnicodeDecodeError)"),
    ],
)
def test_anything_but_200_different_prompts_is_an_error_that_names_no_path(file: Path, text: str, said: str) -> None:
    file.write_bytes(text.encode("latin-1" if "\xff" in text else "utf-8"))
    with pytest.raises(MxqError) as caught:
        read_drawbench(lambda: file)
    assert said in str(caught.value)
    assert not isinstance(caught.value, PromptsUnavailableError)
    assert "secret" not in str(caught.value)


def test_the_hub_is_asked_for_the_pinned_file_without_a_token(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(*args: object, **options: object) -> str:
        asked.append((args, options))
        return str(file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_with(download))
    assert fetch_file() == file
    ((args, options),) = asked
    assert args == ("sayakpaul/drawbench", "DrawBench Prompts - Sheet1.csv")
    assert options == {"repo_type": "dataset", "revision": drawbench.REVISION, "token": False}


def hub_with(download: object) -> types.ModuleType:
    module = types.ModuleType("huggingface_hub")
    vars(module)["hf_hub_download"] = download
    return module


def test_a_hub_that_cannot_be_reached_is_said_without_a_path_or_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise ConnectionError("hf_secret of /home/secret")

    monkeypatch.setitem(sys.modules, "huggingface_hub", hub_with(download))
    with pytest.raises(
        PromptsUnavailableError, match=r"could not be fetched: ConnectionError\. Fetch it once"
    ) as caught:
        read_drawbench()
    assert "secret" not in str(caught.value)


def test_a_machine_without_the_hubs_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PromptsUnavailableError, match="ModuleNotFoundError"):
        read_drawbench()


def test_offline_is_respected_by_the_real_client_and_takes_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PromptsUnavailableError, match="not in the Hub's cache"):
        read_drawbench()


def test_the_real_client_finds_the_file_in_its_cache_offline(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "datasets--sayakpaul--drawbench" / "snapshots" / drawbench.REVISION
    snapshot.mkdir(parents=True)
    file.rename(snapshot / drawbench.FILE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert read_drawbench() == PROMPTS
