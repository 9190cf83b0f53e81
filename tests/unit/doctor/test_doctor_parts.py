"""What the doctor reads, and how it lays it out; the whole screen is shown in tests/plugin/test_option_doctor.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from baseline_examples import DEVICE, make_draft
from manifest_examples import in_schema_1
from packaging.requirements import Requirement

from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.doctor.checks import examine_baselines
from pytest_mxq.doctor.diagnosis import _memory
from pytest_mxq.doctor.packages import (
    Installed,
    Lookup,
    Package,
    cuda_fault,
    examine,
    examine_kernels,
    examine_torchvision,
    find_installed,
)
from pytest_mxq.doctor.screen import WIDTH, Finding, Mark, Section, laid_out
from pytest_mxq.environment.device import Device
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.formats import built_in_formats


def software(**versions: str) -> Lookup:
    named = {name.replace("_", "-"): text for name, text in versions.items()}
    return lambda name: Installed(name=name, version=named[name]) if name in named else None


def test_the_installed_torch_is_read_with_its_build_and_without_importing_it() -> None:
    torch = find_installed("torch")
    assert torch is not None
    assert torch.version.partition("+")[0] == version("torch").partition("+")[0]
    assert find_installed("no-such-package") is None


def test_a_format_asks_for_the_kernels_that_the_extra_installs() -> None:
    ours = find_installed("pytest-mxq")
    assert ours is not None
    extra = [Requirement(text) for text in ours.requires if "blackwell" in text]
    asked = [Requirement(text) for number_format in built_in_formats() for text in number_format.packages]
    assert [(r.name, r.specifier) for r in asked] == [(r.name, r.specifier) for r in extra]


@pytest.mark.parametrize(
    ("torch", "driver", "said"),
    [
        ("2.12.0+cu130", "580.65.06", ""),
        ("2.12.0+cu130", "575.57", "needs driver 580 or newer, found 575.57"),
        ("2.12.0+cu129", "575.57", ""),
        ("2.12.0+cu129", "520.1", "needs driver 525 or newer, found 520.1"),
        ("2.12.0+cu130", "", ""),
        ("2.12.0+cpu", "580.65.06", "is built without CUDA"),
        ("2.12.0+rocm7.0", "580.65.06", "is built without CUDA"),
        ("2.12.0", "580.65.06", ""),
        ("2.9.0a0+nv25.10", "580.65.06", ""),
        ("a private one", "580.65.06", ""),
    ],
)
def test_whether_torch_can_use_the_gpu(torch: str, driver: str, said: str) -> None:
    found = cuda_fault(software(torch=torch), driver, (10, 0))
    assert (found.reason if found else None) == (f"torch {torch} {said}" if said else None)
    assert found is None or found.fix


@pytest.mark.parametrize(
    ("torch", "capability", "said"),
    [
        ("2.11.0+cu126", (10, 0), "is built for CUDA 12.6; compute capability 10.0 needs 12.8"),
        ("2.11.0+cu126", (12, 0), "is built for CUDA 12.6; compute capability 12.0 needs 12.8"),
        ("2.5.1+cu118", (10, 3), "is built for CUDA 11.8; compute capability 10.3 needs 12.8"),
        ("2.11.0+cu128", (10, 0), ""),
        ("2.11.0+cu130", (10, 0), ""),
        ("2.11.0+cu126", (9, 0), ""),
        ("2.11.0+cu126", None, ""),
    ],
)
def test_a_build_for_a_cuda_older_than_the_gpu_has_no_kernels_for_it(
    torch: str, capability: tuple[int, int] | None, said: str
) -> None:
    found = cuda_fault(software(torch=torch), "580.65.06", capability)
    assert (found.reason if found else None) == (f"torch {torch} {said}" if said else None)
    assert found is None or "12.8" in found.fix


def test_a_development_version_is_in_a_range_as_pip_reads_it() -> None:
    requirement = Requirement("torch>=2.11")
    assert not examine(requirement, software(torch="2.12.0.dev20260315+cu130"), fix="x").fault
    assert examine(requirement, software(torch="2.11.0.dev20260101"), fix="x").fault
    assert "cannot be read" in str(examine(requirement, software(torch="main"), fix="x").fault)


def test_a_nightly_that_counts_by_date_is_not_compared_with_a_release() -> None:
    def is_older(name: str, found: str) -> bool:
        return Package(name=name, found=Installed(name=name, version=found), needed="").is_older_than_published

    assert is_older("torch", "2.11.0")
    assert not is_older("torch", "2.12.0")
    assert not is_older("mslk-cuda", "1.1.0")
    assert is_older("mslk-cuda", "2026.3.1")
    assert not is_older("diffusers", "0.1")
    assert not is_older("torch", "main")


def test_a_nightly_of_the_kernels_counts_and_the_placeholder_does_not() -> None:
    assert not examine_kernels("mslk-cuda>=1.0", software(mslk_cuda_nightly="2026.4.1")).fault
    assert not examine_kernels("mslk-cuda>=1.0", software(mslk="0.0.0", mslk_cuda="1.0.0")).fault
    assert "placeholder" in str(examine_kernels("mslk-cuda>=1.0", software(mslk="0.0.0")).fault)
    assert examine_kernels("mslk-cuda>=1.0", software(mslk_cuda="0.9.0")).fault == "mslk-cuda 0.9.0 is not >=1.0"


def test_a_torchvision_without_a_requirement_on_torch_is_accepted() -> None:
    assert not examine_torchvision(software(torch="2.12.0", torchvision="0.27.0+cu130")).fault
    assert examine_torchvision(software(torch="2.12.0")).fault
    assert not examine_torchvision(software(torchvision="0.27.0")).fault  # torch's own absence is a finding of its own


def test_every_line_fits_and_every_fix_stands_beneath_its_finding() -> None:
    findings = (
        Finding(mark=Mark.FINE, subject="short", text="columns   stay   apart"),
        Finding(mark=Mark.FAULT, subject="a subject longer than its column is", text="word " * 40, fix="do this " * 20),
    )
    lines = list(laid_out([Section(title="title", findings=findings)]))
    assert lines[0] == ("title", {"bold": True})
    assert lines[1][0].endswith("columns   stay   apart")
    assert max(len(line) for line, _ in lines) <= WIDTH
    assert sum("-> do this" in line for line, _ in lines) == 1
    assert lines[-1][1] == {"red": True}


@pytest.mark.parametrize(
    ("capability", "total", "mark", "said"),
    [
        (None, None, Mark.NOTE, "there is no GPU"),
        ((10, 0), None, Mark.NOTE, "does not tell"),
        ((10, 0), 100.0, Mark.FINE, "fits"),
        ((10, 0), 40.0, Mark.NOTE, "no"),
    ],
)
def test_memory_is_ok_only_where_it_was_compared_with_a_gpus(
    capability: tuple[int, int] | None, total: float | None, mark: Mark, said: str
) -> None:
    kind = "cuda" if capability else "cpu"
    device = Device(kind=kind, name="x", capability=capability, slug="x", total_memory_gib=total, facts={})
    found = _memory("flux.1-dev", (47.0, 53.0, 61.0), device)
    assert found.mark is mark
    assert said in found.text
    assert " 47 GiB" in found.text


def test_memory_of_a_model_that_states_no_need_is_not_ok() -> None:
    device = Device(kind="cuda", name="x", capability=(10, 0), slug="x", total_memory_gib=1.0, facts={})
    assert _memory("demo", (), device).mark is Mark.NOTE


def test_a_baseline_whose_sections_no_digest_covers_is_a_note(tmp_path: Path) -> None:
    store, draft = BaselineStore(tmp_path, media=None, device=DEVICE), make_draft()
    store.save(draft, [])
    path = store.manifests()[0]
    path.write_text(json.dumps(in_schema_1(json.loads(path.read_text()))))
    (found,) = examine_baselines(store, draft.fingerprint)
    assert found.mark is Mark.NOTE
    assert "schema version 1" in found.text
    store.save(draft, [])
    assert [finding.mark for finding in examine_baselines(store, draft.fingerprint)] == [Mark.FINE]


def test_baselines_are_as_old_as_they_say_and_other_software_is_named(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path, media=None, device=DEVICE)
    draft = make_draft()
    store.save(draft, [])
    moment = datetime.fromisoformat(draft.created)
    later = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) + timedelta(days=40, hours=1)
    (same,) = examine_baselines(store, draft.fingerprint, now=later)
    assert (same.mark, same.subject) == (Mark.FINE, draft.model)
    assert same.text == f"1 case, 40 days old, {len(draft.sessions)} timing sessions each"
    hard = {**draft.fingerprint.hard, "torch": "9.9"}
    (other,) = examine_baselines(store, Fingerprint(hard=hard, recorded={}), now=later)
    assert other.mark is Mark.NOTE
    assert "-> 9.9" in other.text
    assert "pytest --mxq-refresh" in (other.fix or "")
    for index in range(5):
        (store.manifests()[0].parent / f"broken{index}.json").write_text("{")
    found = list(examine_baselines(store, draft.fingerprint, now=later))
    assert [finding.mark for finding in found] == [Mark.FINE, *[Mark.FAULT] * 4]
    assert found[-1].text == "and 2 more that cannot be used"
