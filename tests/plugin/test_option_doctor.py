"""``--mxq-doctor``: one screen that says what this machine can gate, and an exit code."""

from dataclasses import replace
from pathlib import Path

import pytest
from gate_project import GateDirectory

from pytest_mxq.doctor import command
from pytest_mxq.doctor.checks import examine_lpips_weights
from pytest_mxq.doctor.packages import Installed
from pytest_mxq.doctor.screen import WIDTH
from pytest_mxq.environment.device import Device

TOKEN = "hf_FakeTokenThatMustNotBeSeen"
DECLARED = (
    "torch>=2.11",
    "torchao>=0.18,<0.19",
    "diffusers>=0.42.1,<0.43",
    "transformers>=5.17,<6",
    "lpips>=0.1.4",
    "av>=15; extra=='video'",
)
SOFTWARE = {
    "pytest-mxq": "0.1.0",
    "torch": "2.12.0+cu130",
    "torchvision": "0.27.0+cu130",
    "torchao": "0.18.0",
    "diffusers": "0.42.1",
    "transformers": "5.20.0",
    "lpips": "0.1.4",
    "mslk-cuda": "1.1.0",
    "av": "17.0.0",
}
B200 = Device(
    kind="cuda",
    name="NVIDIA B200",
    capability=(10, 0),
    slug="nvidia-b200-sm100",
    total_memory_gib=178.4,
    facts={"driver": "580.65.06"},
)
H100 = Device(
    kind="cuda",
    name="NVIDIA H100 80GB HBM3",
    capability=(9, 0),
    slug="nvidia-h100-80gb-hbm3-sm90",
    total_memory_gib=50.0,
    facts={"driver": "580.65.06"},
)


class Doctor:
    """A machine that is what a test says."""

    def __init__(self, gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gates = gates
        self.software: dict[str, str] = dict(SOFTWARE)
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(command, "find_installed", self.find)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", str(gates.path / "hub"))
        self.on(B200)

    def find(self, name: str) -> Installed | None:
        if name not in self.software:
            return None
        requires = {"pytest-mxq": DECLARED, "torchvision": ("torch>=2.12.0",)}.get(name, ())
        return Installed(name=name, version=self.software[name], requires=requires)

    def on(self, device: Device) -> None:
        self.monkeypatch.setattr(command, "find_device", lambda: device)

    def ask(self, *options: str) -> tuple[int, str]:
        result = self.gates.run("--mxq-doctor", *options)
        text = result.stdout.str()
        assert "test session starts" not in text
        assert result.stderr.str().strip() == ""
        return int(result.ret), text


@pytest.fixture
def doctor(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(gates, monkeypatch)


def answers(text: str) -> dict[str, str]:
    """format -> native, emulated only, not at all, with its reason."""
    lines = text.partition("\nformats\n")[2].splitlines()
    found = [line.split(maxsplit=2)[1:] for line in lines if line.startswith("  ") and line[2:7].strip()]
    return {parts[0]: parts[1] for parts in found}


def test_a_b200_with_everything_gates_every_format_natively_on_one_screen(doctor: Doctor) -> None:
    code, text = doctor.ask()
    assert code == 0
    assert {found.split("  ")[0] for found in answers(text).values()} == {"native"}
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= WIDTH
    assert "NVIDIA B200, compute capability 10.0, 178 GiB" in text
    assert "driver         580.65.06" in text
    assert "flux.1-dev       47 GiB fits   53 GiB fits   61 GiB fits" in text
    assert "published with 2.12.0.dev20260315+cu130" in text
    assert lines[-1] == "natively gated on this machine: mxfp8, nvfp4, mxfp4, float8"


def test_an_h100_gates_float8_alone_and_the_exit_code_follows_the_formats_asked_for(doctor: Doctor) -> None:
    doctor.on(H100)
    code, text = doctor.ask()
    assert code == 1
    assert answers(text)["nvfp4"] == "emulated only  needs compute capability 10.0, this GPU has 9.0"
    assert answers(text)["float8"].startswith("native")
    assert text.splitlines()[-1].endswith("mxfp8, nvfp4, mxfp4; accuracy alone with --mxq-emulate")
    code, text = doctor.ask("--mxq-formats=float8")
    assert (code, list(answers(text))) == (0, ["float8"])
    assert doctor.ask("--mxq-formats=float8,mxfp8")[0] == 1


def test_compute_capability_12_gates_natively_and_with_a_note_on_its_kernels(doctor: Doctor) -> None:
    doctor.on(replace(B200, name="NVIDIA GeForce RTX 5090", capability=(12, 0)))
    code, text = doctor.ask("--mxq-formats=mxfp8,nvfp4,float8", "--mxq-models=demo")
    assert code == 0
    assert answers(text) == {
        "mxfp8": "native         compute capability 10.0 or above is there; its kernels differ",
        "nvfp4": "native         compute capability 10.0 or above is there; its kernels differ",
        "float8": "native         compute capability 8.9 or above is there",
    }
    assert "note   GPU            NVIDIA GeForce RTX 5090, compute capability 12.0" in text
    assert "-> mxfp8, nvfp4 on compute capability 12.0 " in " ".join(text.split())
    doctor.on(replace(B200, name="NVIDIA B300", capability=(10, 3)))
    assert "kernels" not in doctor.ask()[1].partition("formats")[2]
    assert "ok     GPU            NVIDIA B300" in doctor.ask()[1]


def test_what_does_not_fit_into_memory_is_shown_with_what_would(doctor: Doctor) -> None:
    doctor.on(H100)
    _, text = doctor.ask("--mxq-models=flux.1-dev")
    assert "note   flux.1-dev       47 GiB fits   53 GiB no     61 GiB no" in text
    assert "-> of 50 GiB: a smaller batch, or a device of 61 GiB for all" in text
    assert "demo" not in text
    assert "fits   44 GiB fits   52 GiB no" in doctor.ask("--mxq-weights=random")[1]


def test_images_alone_are_judged_by_what_images_need(doctor: Doctor) -> None:
    doctor.on(replace(H100, total_memory_gib=79.6))
    options = ("--mxq-formats=float8", "--mxq-models=ltx-2")
    code, text = doctor.ask(*options)
    assert code == 1
    assert "memory of both arms at batch sizes 1, 4, 8" in text
    assert text.splitlines()[-1].endswith("speed and memory gates of ltx-2")
    assert doctor.ask(*options, "--mxq-gates=lpips,memory")[0] == 1
    code, text = doctor.ask(*options, "--mxq-gates=lpips,flicker")
    assert code == 0
    assert "memory of the images at batch sizes 1, 4, 8" in text
    assert "ltx-2            63 GiB fits   77 GiB fits   96 GiB no" in text
    _, text = doctor.ask("--mxq-formats=mxfp8", "--mxq-models=ltx-2", "--mxq-gates=lpips", "--mxq-emulate")
    assert "memory of the emulated images at batch sizes 1, 4, 8" in text
    assert "ltx-2            80 GiB no     94 GiB no    112 GiB no" in text
    doctor.on(replace(H100, total_memory_gib=60.0))
    code, text = doctor.ask(*options, "--mxq-gates=lpips")
    assert code == 1
    assert text.splitlines()[-1].endswith("image gates of ltx-2")


def test_without_a_gpu_every_format_is_emulated_only_and_nothing_is_imported_or_collected(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        "import sys\n"
        "for name in ('torch', 'numpy', 'PIL', 'diffusers', 'torchao', 'transformers', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "def pytest_collection():\n    raise AssertionError('collected')\n"
    )
    result = gates.run_apart("--mxq-doctor", "-W", "error")
    assert result.ret == 1
    memory = result.stdout.str().partition("memory of both arms")[2].partition("\nweights")[0]
    assert "flux.1-dev" in memory
    assert "ok" not in memory.split()
    result.stdout.fnmatch_lines(["*note   no GPU *", "*CPU *", "formats", "*nvfp4 *emulated only *there is no GPU"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not (gates.path / "mxq-report").exists()


def test_without_torch_nothing_can_be_gated_and_its_range_is_named(doctor: Doctor) -> None:
    del doctor.software["torch"]
    code, text = doctor.ask()
    assert code == 1
    assert set(answers(text).values()) == {"not at all     torch is not installed"}
    assert "fault  torch          not installed  needs >=2.11" in text
    assert "-> pip install 'torch>=2.11'" in text


def test_without_the_plugins_own_metadata_nothing_is_claimed(doctor: Doctor) -> None:
    del doctor.software["pytest-mxq"]
    code, text = doctor.ask()
    assert code == 1
    assert set(answers(text).values()) == {"not at all     pytest-mxq is not installed: its ranges are not known"}


@pytest.mark.parametrize(
    ("changes", "answer", "shown"),
    [
        ({"torchao": "0.19.1"}, "not at all     torchao 0.19.1 is not >=0.18,<0.19", "-> pip install 'torchao>=0.18,<"),
        (
            {"torch": "2.12.0+cpu", "torchvision": "0.27.0+cpu"},
            "not at all     torch 2.12.0+cpu is built without",
            "->",
        ),
        ({"mslk-cuda": None}, "not at all     mslk-cuda is not installed", "-> pip install 'pytest-mxq[blackwell]'"),
        (
            {"mslk-cuda": None, "mslk": "0.0.0"},
            "not at all     mslk 0.0.0 is an empty placeholder",
            "-> pip uninstall mslk, then pip install 'pytest-mxq[blackwell]'",
        ),
        ({"mslk-cuda": None, "mslk": "2026.3.15+cu130"}, "native", "ok     mslk-cuda      2026.3.15+cu130"),
        (
            {"torchvision": "0.27.0+cpu"},
            "native         speed and memory alone: torchvision is not of this torch: build cpu, torch's cu130",
            "-> pip install --force-reinstall torchvision torch==2.12.0, from one index",
        ),
        (
            {"torch": "2.11.0+cu130"},
            "native         speed and memory alone: torchvision is not of this torch: torch 2.11.0+cu130 is not >=2.12.0",
            "fault  torchvision",
        ),
        ({"lpips": None}, "native         speed and memory alone: lpips is not installed", "fault  lpips"),
    ],
)
def test_broken_software_is_a_finding_with_its_fix(
    doctor: Doctor, changes: dict[str, str | None], answer: str, shown: str
) -> None:
    kept = {**doctor.software, **changes}
    doctor.software = {name: version for name, version in kept.items() if version is not None}
    code, text = doctor.ask("--mxq-formats=nvfp4")
    assert code == (0 if answer == "native" else 1)
    assert " ".join(answer.split()) in " ".join(text.split())
    assert shown in text


@pytest.mark.parametrize("version", [None, "14.4.0"])
def test_what_stores_videos_is_named_with_what_cannot_be_done_without_it(doctor: Doctor, version: str | None) -> None:
    assert "ok     av             17.0.0         needs >=15" in doctor.ask()[1]
    del doctor.software["av"]
    doctor.software |= {"av": version} if version else {}
    code, text = doctor.ask()
    assert code == 0  # videos are gated without it, against BF16 of the same run
    assert f"note   av             {version or 'not installed':<14} needs >=15" in text
    words = " ".join(text.split())
    assert "-> pip install 'pytest-mxq[video]'; without it no --mxq-refresh and no stored baseline of ltx-2" in words
    assert " av  " not in doctor.ask("--mxq-models=flux.1-dev")[1]  # generates no videos


def test_images_that_cannot_be_measured_do_not_matter_to_a_run_without_image_gates(doctor: Doctor) -> None:
    del doctor.software["lpips"]
    assert doctor.ask("--mxq-formats=mxfp8")[0] == 1
    assert doctor.ask("--mxq-formats=mxfp8", "--mxq-gates=speedup,memory")[0] == 0


def test_a_driver_that_is_too_old_for_torch_is_a_fault(doctor: Doctor) -> None:
    doctor.on(Device(**{**{name: getattr(B200, name) for name in B200.__slots__}, "facts": {"driver": "550.54"}}))
    code, text = doctor.ask()
    assert code == 1
    assert "fault  driver         torch 2.12.0+cu130 needs driver 580 or newer, found 550.54" in text


def test_a_torch_without_kernels_for_the_gpu_is_a_fault(doctor: Doctor) -> None:
    doctor.software |= {"torch": "2.12.0+cu126", "torchvision": "0.27.0+cu126"}
    code, text = doctor.ask("--mxq-formats=mxfp8")
    assert code == 1
    words = " ".join(text.split())
    assert (
        "fault driver torch 2.12.0+cu126 is built for CUDA 12.6; compute capability 10.0 needs 12.8 -> install" in words
    )
    assert "-> install torch's build for CUDA 12.8 or newer" in text
    doctor.on(replace(H100, total_memory_gib=79.6))
    assert doctor.ask("--mxq-formats=float8")[0] == 0


def test_a_torch_older_than_the_published_one_is_a_note(doctor: Doctor) -> None:
    doctor.software |= {"torch": "2.11.0+cu130"}
    del doctor.software["torchvision"]
    assert "note   torch          2.11.0+cu130" in doctor.ask()[1]


@pytest.mark.parametrize("place", ["environment", "file", "both"])
def test_a_token_is_said_to_be_there_and_never_shown(doctor: Doctor, place: str) -> None:
    assert "note   Hub token      none" in doctor.ask()[1]
    if place != "file":
        doctor.monkeypatch.setenv("HF_TOKEN", TOKEN)
    if place != "environment":
        (doctor.gates.path / "hub").mkdir()
        (doctor.gates.path / "hub" / "token").write_text(TOKEN)
    _, text = doctor.ask()
    expected = "the Hub client's token file" if place == "file" else "HF_TOKEN"
    assert f"ok     Hub token      present ({expected})" in text
    assert TOKEN not in text
    assert TOKEN[3:] not in text


def test_a_token_file_that_cannot_be_read_is_a_finding(doctor: Doctor) -> None:
    (doctor.gates.path / "hub" / "token").mkdir(parents=True)
    assert "token file cannot be read (IsADirectoryError)" in doctor.ask()[1]


def test_offline_is_named(doctor: Doctor) -> None:
    doctor.monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set: models come from the Hub's cache" in doctor.ask()[1]


def test_baselines_are_counted_by_model_and_a_broken_one_is_a_fault_with_its_fix(
    gates: GateDirectory, doctor: Doctor
) -> None:
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    (folder,) = (gates.path / "baselines").glob("*/demo")
    device = Device(
        kind="cpu", name="a CPU", capability=None, slug=folder.parent.name, total_memory_gib=None, facts={"isa": "avx2"}
    )
    doctor.on(device)
    text = doctor.ask()[1]
    assert "demo           1 case, 0 days old, 0 timing sessions each" in text
    (folder / "broken.json").write_text("{")
    (folder / "directory.json").mkdir()
    code, text = doctor.ask()
    assert code == 1
    assert "fault  demo           broken.json: " in text
    assert "directory.json: cannot be read" in text
    assert "-> restore it from git, or pytest --mxq-refresh" in text
    assert "1 case, " in text


def test_an_examination_that_breaks_is_a_finding_and_quotes_nothing(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_environment: object) -> None:
        raise RuntimeError(TOKEN)

    monkeypatch.setattr(command, "examine_hub", broken)
    _, text = doctor.ask()
    assert "fault  Hub            could not be examined (RuntimeError)" in text
    assert TOKEN not in text


def test_altered_lpips_weights_are_a_fault_of_image_gates_alone(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    altered = tmp_path / "weights.safetensors"
    altered.write_bytes(b"x")
    monkeypatch.setattr(command, "examine_lpips_weights", lambda: examine_lpips_weights(altered))
    code, text = doctor.ask("--mxq-formats=mxfp8")
    assert code == 1
    assert "fault  LPIPS weights" in text
    assert doctor.ask("--mxq-formats=mxfp8", "--mxq-gates=memory")[0] == 0


def test_the_compile_cache_is_named_with_its_size(doctor: Doctor) -> None:
    cache = doctor.gates.path / "compiled"
    cache.mkdir()
    (cache / "kernel").write_bytes(bytes(3 * 2**20))
    assert "ok     compile cache  compiled: 1 files, 3.0 MiB" in doctor.ask("--mxq-compile-cache=compiled")[1]
    doctor.monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    assert "note   compile cache  compiled: 1 files, 3.0 MiB" in doctor.ask()[1]


def test_an_unknown_format_is_a_usage_error_here_too(doctor: Doctor) -> None:
    result = doctor.gates.run("--mxq-doctor", "--mxq-formats=nvfp5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown format 'nvfp5'*"])


def test_a_format_of_ones_own_is_examined_as_the_others(doctor: Doctor) -> None:
    conftest = doctor.gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + "\nfrom pytest_mxq.formats import Format\n"
        + "def pytest_mxq_formats():\n    return [Format(name='int4', summary='x', capability=(11, 0), in_multiple=16,"
        + " out_multiple=16, native=lambda: None, emulation=None, packages=('fast-int4>=2',))]\n"
    )
    code, text = doctor.ask("--mxq-formats=int4")
    assert code == 1
    assert answers(text)["int4"].startswith("not at all     needs compute capability 11.0, this GPU has 10.0, and it")
    assert "note   fast-int4      not installed  needs >=2" in text


def test_the_exit_code_is_all_there_is_without_a_terminal(doctor: Doctor) -> None:
    result = doctor.gates.run("--mxq-doctor", "-p", "no:terminal")
    assert result.ret == 0


def test_the_doctor_answers_also_where_xdist_is_asked_for(doctor: Doctor) -> None:
    pytest.importorskip("xdist")
    assert doctor.ask("-n2")[0] == 0
