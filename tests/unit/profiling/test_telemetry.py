import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mxq.environment.device import Device
from pytest_mxq.profiling.telemetry import SLOWDOWNS, ClockEvent, Telemetry, open_telemetry


class NvmlError(Exception):
    pass


def process(pid: int, held: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=held)


@dataclass
class FakeNvml:
    """One GPU whose answers a test may change or take away; what it does not hold is NotSupported."""

    NVMLError: type[Exception] = NvmlError
    init_error: bool = False
    open: int = 0
    violations: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    answers: dict[str, Any] = field(
        default_factory=lambda: {
            "CurrentClocksEventReasons": 0,
            "Temperature": 60,
            "ClockInfo": 1900,
            "TotalEnergyConsumption": 5_000,
            "PowerManagementLimit": 700_000,
            "EccMode": [1, 1],
            "MigMode": [0, 0],
            "ComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
        }
    )

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return lambda *arguments: self.answer(function.removeprefix("nvml"), *arguments)

    def answer(self, question: str, *arguments: Any) -> Any:
        if question in ("Init", "Shutdown"):
            if self.init_error:
                raise NvmlError("Driver Not Loaded")
            self.open += 1 if question == "Init" else -1
            return None
        if question == "DeviceGetHandleByUUID" and arguments == ("GPU-1",):
            return "gpu"
        key = question.removeprefix("DeviceGet")
        if key == "ViolationStatus" and arguments[1] in self.violations:
            return SimpleNamespace(violationTime=self.violations[arguments[1]])
        if key not in self.answers or arguments[0] != "gpu":
            raise NvmlError("Not Supported")
        return self.answers[key]


GPU = Device(kind="cuda", name="X", capability=(9, 0), slug="x", total_memory_gib=80.0, facts={"uuid": "GPU-1"})
CPU = Device(kind="cpu", name="X", capability=None, slug="x", total_memory_gib=None, facts={})


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml()


@pytest.fixture
def telemetry(nvml: FakeNvml) -> Any:
    with open_telemetry(GPU, nvml) as opened:
        assert opened.before_start() is None
        yield opened


def test_a_quiet_round_is_fine_and_summed_up(nvml: FakeNvml, telemetry: Telemetry) -> None:
    for temperature, clock in ((61, 1890), (65, 1905)):
        nvml.answers |= {"Temperature": temperature, "ClockInfo": clock}
        nvml.answers["TotalEnergyConsumption"] += 700_000
        assert telemetry.inspect() is None
    summary = telemetry.summary()
    assert (summary.rounds, summary.throttle_share, summary.sw_power_cap_share) == (2, 0.0, 0.0)
    assert (summary.temperature_max_c, summary.sm_clock_mhz, summary.energy_joules) == (65, (1890, 1905), 1400.0)
    assert summary.power_capped_seconds == 0.0


@pytest.mark.parametrize("event", list(SLOWDOWNS))
def test_every_slowdown_voids_the_round_by_name(nvml: FakeNvml, telemetry: Telemetry, event: ClockEvent) -> None:
    nvml.answers["CurrentClocksEventReasons"] = int(event) | 0x200  # and a bit that this module does not know
    assert telemetry.inspect() == f"clock event {event.name}"
    nvml.answers["CurrentClocksEventReasons"] = 0
    assert telemetry.inspect() is None
    assert telemetry.summary().throttle_share == 0.5


def test_the_slowdowns_are_those_of_nvml_h() -> None:
    import pynvml

    names = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    assert sum(getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names) == SLOWDOWNS
    assert pynvml.nvmlClocksEventReasonSwPowerCap == ClockEvent.SW_POWER_CAP


@pytest.mark.parametrize("event", [0x0, 0x1, 0x2, ClockEvent.SW_POWER_CAP, 0x10, 0x100])
def test_other_clock_events_void_nothing(nvml: FakeNvml, telemetry: Telemetry, event: int) -> None:
    nvml.answers["CurrentClocksEventReasons"] = event
    assert telemetry.inspect() is None


def test_the_software_power_cap_is_recorded(nvml: FakeNvml, telemetry: Telemetry) -> None:
    nvml.answers["CurrentClocksEventReasons"] = 0x4
    nvml.violations[0] = 2_500_000_000
    assert telemetry.inspect() is None
    summary = telemetry.summary()
    assert (summary.sw_power_cap_share, summary.power_capped_seconds, summary.throttle_share) == (1.0, 2.5, 0.0)


def test_thermal_violation_time_within_a_round_voids_that_round_alone(nvml: FakeNvml, telemetry: Telemetry) -> None:
    nvml.violations[1] = 30_000_000
    assert telemetry.inspect() == "thermal violation time rose by 30 ms"
    assert telemetry.inspect() is None
    assert telemetry.summary().throttle_share == 0.5


def test_what_happened_before_the_start_voids_nothing(nvml: FakeNvml, telemetry: Telemetry) -> None:
    nvml.violations[1] = 30_000_000
    assert telemetry.inspect() is not None
    nvml.violations[1] = 60_000_000
    assert telemetry.before_start() is None
    assert telemetry.inspect() is None
    assert (telemetry.summary().rounds, telemetry.summary().throttle_share) == (1, 0.0)


@pytest.mark.parametrize(
    ("question", "value", "reason"),
    [
        ("PowerManagementLimit", 500_000, "the GPU's power limit changed from 700000 to 500000"),
        ("EccMode", [0, 0], "the GPU's ECC mode changed from [1, 1] to [0, 0]"),
        ("MigMode", [1, 1], "the GPU's MIG mode changed from [0, 0] to [1, 1]"),
    ],
)
def test_a_changed_mode_is_told_before_the_start_and_in_a_round(
    nvml: FakeNvml, telemetry: Telemetry, question: str, value: object, reason: str
) -> None:
    nvml.answers[question] = value
    assert telemetry.inspect() == reason
    assert telemetry.before_start() == reason


@pytest.mark.parametrize(
    ("pids", "reason"),
    [
        ([], None),
        ([os.getpid()], None),
        ([os.getpid(), 7], "another process computes on the GPU: 7"),
        ([7], None),  # this process, under its number outside of a container
        ([7, 8], "another process computes on the GPU: 7, 8"),
    ],
)
def test_another_process_on_the_gpu_is_told_before_the_start_and_in_a_round(
    nvml: FakeNvml, pids: list[int], reason: str | None
) -> None:
    nvml.answers["ComputeRunningProcesses"] = [SimpleNamespace(pid=pid) for pid in pids]
    with open_telemetry(GPU, nvml) as opened:
        assert opened.before_start() == reason
        assert opened.inspect() == reason


@pytest.mark.parametrize("question", list(FakeNvml().answers))
def test_every_question_may_stay_unanswered(nvml: FakeNvml, question: str) -> None:
    del nvml.answers[question]
    with open_telemetry(GPU, nvml) as opened:
        assert (opened.before_start(), opened.inspect()) == (None, None)
        assert opened.summary().rounds == 1


def test_a_gpu_that_answers_nothing_says_nothing(nvml: FakeNvml) -> None:
    nvml.answers.clear()
    nvml.violations.clear()
    with open_telemetry(GPU, nvml) as opened:
        assert (opened.before_start(), opened.inspect()) == (None, None)
        summary = opened.summary()
    assert (summary.throttle_share, summary.sw_power_cap_share, summary.power_capped_seconds) == (None, None, None)
    assert (summary.temperature_max_c, summary.sm_clock_mhz, summary.energy_joules) == (None, None, None)


def test_violation_times_alone_tell_the_throttle_share(nvml: FakeNvml) -> None:
    nvml.answers.clear()
    with open_telemetry(GPU, nvml) as opened:
        opened.before_start()
        nvml.violations[1] = 1
        opened.inspect()
        assert opened.summary().throttle_share == 1.0


def test_a_lost_gpu_is_told(nvml: FakeNvml, telemetry: Telemetry) -> None:
    nvml.answers.clear()
    assert "the GPU's ECC mode changed from [1, 1] to None" in str(telemetry.inspect())


def test_a_slice_asks_its_board_where_it_has_no_answer_itself(nvml: FakeNvml) -> None:
    asked = nvml.answer

    def answer(question: str, *arguments: Any) -> Any:
        if question == "DeviceGetHandleByUUID":
            return "slice"
        if question == "DeviceGetDeviceHandleFromMigDeviceHandle":
            return "gpu"
        if question == "DeviceGetComputeRunningProcesses" and arguments == ("gpu",):
            return [SimpleNamespace(pid=7), SimpleNamespace(pid=8)]
        if question == "DeviceGetComputeRunningProcesses":
            return [SimpleNamespace(pid=os.getpid())]
        return asked(question, *arguments)

    nvml.answer = answer  # type: ignore[method-assign]
    with open_telemetry(GPU, nvml) as opened:
        assert opened.before_start() is None
        nvml.answers["CurrentClocksEventReasons"] = 0x40
        assert opened.inspect() == "clock event HW_THERMAL_SLOWDOWN"


@pytest.mark.parametrize("broken", ["cpu", "no driver", "unknown uuid"])
def test_without_nvml_there_is_nothing_to_say(nvml: FakeNvml, broken: str) -> None:
    nvml.init_error = broken == "no driver"
    nvml.answers["CurrentClocksEventReasons"] = 0x40
    found = {"cpu": CPU, "no driver": GPU}.get(broken) or Device(
        kind="cuda", name="X", capability=None, slug="x", total_memory_gib=None, facts={"uuid": "unknown"}
    )
    with open_telemetry(found, nvml) as opened:
        assert (opened.before_start(), opened.inspect()) == (None, None)
        assert opened.summary().throttle_share is None


@pytest.mark.parametrize(
    "answer", ["text", b"bytes", -1, 1.5, [], [1], {"pid": 1}, object(), [SimpleNamespace()], True]
)
@pytest.mark.parametrize(
    "question",
    ["CurrentClocksEventReasons", "Temperature", "ClockInfo", "TotalEnergyConsumption", "ComputeRunningProcesses"],
)
def test_an_answer_of_another_type_is_no_answer(nvml: FakeNvml, question: str, answer: object) -> None:
    nvml.answers[question] = answer
    nvml.violations = {}
    with open_telemetry(GPU, nvml) as opened:
        assert (opened.before_start(), opened.inspect(), opened.others()) == (None, None, [])
        assert opened.summary().rounds == 1


def test_a_pynvml_without_the_functions_says_nothing() -> None:
    bare = SimpleNamespace(NVMLError=NvmlError, nvmlInit=lambda: None, nvmlShutdown=lambda: None)
    bare.nvmlDeviceGetHandleByUUID = lambda _uuid: "gpu"
    with open_telemetry(GPU, bare) as opened:  # type: ignore[arg-type]
        assert (opened.before_start(), opened.inspect(), opened.others(), opened.own_number()) == (None, None, [], None)


def test_nvml_is_shut_down_also_after_an_error(nvml: FakeNvml) -> None:
    opened = []

    def time_something() -> None:
        with open_telemetry(GPU, nvml):
            opened.append(nvml.open)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_something()
    assert opened == [1]
    assert nvml.open == 0


def test_pynvml_is_asked_where_no_stand_in_is_given(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with open_telemetry(GPU) as opened:
        nvml.answers["CurrentClocksEventReasons"] = 0x8
        assert opened.inspect() == "clock event HW_SLOWDOWN"


def test_a_summary_without_rounds_is_empty(nvml: FakeNvml) -> None:
    with open_telemetry(GPU, nvml) as opened:
        assert (opened.summary().rounds, opened.summary().throttle_share) == (0, None)


def test_a_parent_that_waits_is_expected_and_any_other_process_is_not(nvml: FakeNvml) -> None:
    nvml.answers["ComputeRunningProcesses"] = [SimpleNamespace(pid=7), SimpleNamespace(pid=os.getpid())]
    with open_telemetry(GPU, nvml) as telemetry:
        assert telemetry.before_start() == "another process computes on the GPU: 7"
    with open_telemetry(GPU, nvml, known=(7,)) as telemetry:
        assert telemetry.before_start() is None
        assert telemetry.own_number() == os.getpid()
    nvml.answers["ComputeRunningProcesses"] = [SimpleNamespace(pid=7), SimpleNamespace(pid=8), SimpleNamespace(pid=9)]
    with open_telemetry(GPU, nvml, known=(7,)) as telemetry:  # one of 8 and 9 is this process, under another number
        assert telemetry.before_start() == "another process computes on the GPU: 8, 9"
        assert telemetry.own_number() is None
    nvml.answers["ComputeRunningProcesses"] = [SimpleNamespace(pid=9)]
    with open_telemetry(GPU, nvml) as telemetry:
        assert telemetry.own_number() == 9


def test_other_processes_are_named_with_what_they_hold_where_the_driver_tells(nvml: FakeNvml) -> None:
    nvml.answers["ComputeRunningProcesses"] = [
        process(os.getpid(), 2**30),
        process(7, 48 * 2**30),
        process(8),
        process(9),
    ]
    with open_telemetry(GPU, nvml, known=[9]) as telemetry:
        assert telemetry.others() == ["process 7 with 48.0 GiB", "process 8"]
    del nvml.answers["ComputeRunningProcesses"]
    with open_telemetry(GPU, nvml) as telemetry:
        assert telemetry.others() == []
    with open_telemetry(CPU, nvml) as telemetry:
        assert telemetry.others() == []
