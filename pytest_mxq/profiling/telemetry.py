"""What the GPU did while it was timed, asked of NVML between the rounds; nothing is ever set."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, TypeAlias

from pytest_mxq.environment.device import Device
from pytest_mxq.environment.nvml import Nvml, NvmlSession, NvmlUnavailableError, as_number, open_nvml

Ask: TypeAlias = Callable[..., Any]
"""Asks `nvmlDeviceGet<question>` about the GPU; None where there is no answer."""


class ClockEvent(IntFlag):
    """Why clocks are below their highest: the bits of `nvmlClocksEventReasons` (nvml.h) that matter here."""

    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SW_THERMAL_SLOWDOWN = 0x20
    HW_THERMAL_SLOWDOWN = 0x40
    HW_POWER_BRAKE = 0x80


SLOWDOWNS = (
    ClockEvent.HW_SLOWDOWN | ClockEvent.SW_THERMAL_SLOWDOWN | ClockEvent.HW_THERMAL_SLOWDOWN | ClockEvent.HW_POWER_BRAKE
)
"""The events that void a round. The software power cap is normal under load."""

# nvmlPerfPolicyType_t, nvmlClockType_t and nvmlTemperatureSensors_t of nvml.h.
_POLICY_POWER, _POLICY_THERMAL, _CLOCK_SM, _SENSOR_GPU = 0, 1, 1, 0

_MODES = {"power limit": "PowerManagementLimit", "ECC mode": "EccMode", "MIG mode": "MigMode"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySummary:
    """The GPU over the rounds that were inspected; None where the driver has no answer, or there is no GPU.

    Attributes:
        rounds: number of inspected rounds.
        throttle_share: share of the rounds with a thermal or hardware slowdown or a power brake, 0 to 1.
        sw_power_cap_share: share of the rounds at whose end the software power cap held the clocks, 0 to 1.
        power_capped_seconds: time under the power cap.
        temperature_max_c: highest temperature at the end of a round.
        sm_clock_mhz: lowest and highest SM clock at the end of a round.
        energy_joules: energy from the start to the last round's end, pauses included.
    """

    rounds: int
    throttle_share: float | None
    sw_power_cap_share: float | None
    power_capped_seconds: float | None
    temperature_max_c: int | None
    sm_clock_mhz: tuple[int, int] | None
    energy_joules: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    events: int | None
    thermal_ns: int | None
    power_ns: int | None
    temperature_c: int | None
    sm_clock_mhz: int | None
    energy_mj: int | None


class Telemetry:
    """Watches one GPU from `before_start` on.

    Args:
        ask: asks about the GPU; always None for no GPU.
        known: processes that may hold the GPU beside this one, as the driver numbers them.
    """

    def __init__(self, ask: Ask, known: Collection[int] = ()) -> None:
        self._ask = ask
        self._known = known
        self._modes = self._read_modes()
        self._start = self._last = self._read()
        self._rounds: list[tuple[_Reading, bool]] = []

    def before_start(self) -> str | None:
        """Start to watch; return why the machine is not fit to be timed on, None if it is.

        Call it when the arms are warm and on the GPU, right before the first round.
        """
        self._start = self._last = self._read()
        self._rounds.clear()
        return "; ".join([*self._changed_modes(), *self._other_processes()]) or None

    def inspect(self) -> str | None:
        """Look at the round that has just ended; return why it must not count, None if it counts.

        A process that comes to the GPU meanwhile slows what is timed then; against stored times that is the quantized
        arm alone.
        """
        before, self._last = self._last, self._read()
        slow = _slowdowns(before, self._last)
        self._rounds.append((self._last, bool(slow)))
        return "; ".join([*slow, *self._changed_modes(), *self._other_processes()]) or None

    def summary(self) -> TelemetrySummary:
        """Summarise what was seen since `before_start`."""
        readings = [reading for reading, _ in self._rounds]
        events = [reading.events for reading in readings if reading.events is not None]
        thermal = [reading.thermal_ns for reading in readings if reading.thermal_ns is not None]
        temperatures = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
        clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
        capped_ns = _increase(self._start.power_ns, self._last.power_ns)
        energy_mj = _increase(self._start.energy_mj, self._last.energy_mj)
        return TelemetrySummary(
            rounds=len(readings),
            throttle_share=_share([slow for _, slow in self._rounds]) if events or thermal else None,
            sw_power_cap_share=_share([bool(event & ClockEvent.SW_POWER_CAP) for event in events]) if events else None,
            power_capped_seconds=None if capped_ns is None else capped_ns / 1e9,
            temperature_max_c=max(temperatures, default=None),
            sm_clock_mhz=(min(clocks), max(clocks)) if clocks else None,
            energy_joules=None if energy_mj is None else energy_mj / 1e3,
        )

    def _read(self) -> _Reading:
        return _Reading(
            events=self._number("CurrentClocksEventReasons"),
            thermal_ns=_field(self._ask("ViolationStatus", _POLICY_THERMAL), "violationTime"),
            power_ns=_field(self._ask("ViolationStatus", _POLICY_POWER), "violationTime"),
            temperature_c=self._number("Temperature", _SENSOR_GPU),
            sm_clock_mhz=self._number("ClockInfo", _CLOCK_SM),
            energy_mj=self._number("TotalEnergyConsumption"),
        )

    def _number(self, question: str, *arguments: object) -> int | None:
        return as_number(self._ask(question, *arguments))

    def _read_modes(self) -> dict[str, Any]:
        return {name: self._ask(question) for name, question in _MODES.items()}

    def _changed_modes(self) -> Iterator[str]:
        for name, value in self._read_modes().items():
            if value != self._modes[name]:
                yield f"the GPU's {name} changed from {self._modes[name]} to {value}"

    def _other_processes(self) -> Iterator[str]:
        """Yield a sentence on other processes that compute on the GPU.

        In a container the driver may list this process under its number outside; then one of those listed is ours.
        """
        pids = self._processes()
        others = [pid for pid in pids if pid != os.getpid() and pid not in self._known]
        if len(others) > (os.getpid() not in pids):
            yield f"another process computes on the GPU: {', '.join(map(str, others))}"

    def others(self) -> list[str]:
        """Return the processes that the driver lists beside this one and the known ones, with the memory they hold.

        In a container this process may be among them, under its number outside.
        """
        others = {pid: held for pid, held in self._processes().items() if pid != os.getpid() and pid not in self._known}
        return [f"process {pid}{_holding(held)}" for pid, held in others.items()]

    def own_number(self) -> int | None:
        """Return this process as the driver numbers it; None if it does not tell, or cannot be told from others."""
        pids = self._processes()
        return os.getpid() if os.getpid() in pids else next(iter(pids)) if len(pids) == 1 else None

    def _processes(self) -> dict[int, int | None]:
        """Return the memory in bytes that each process holds, None where the driver does not tell, by its number."""
        answer = self._ask("ComputeRunningProcesses")
        listed = answer if isinstance(answer, list | tuple) else ()
        numbered = ((_field(process, "pid"), _field(process, "usedGpuMemory")) for process in listed)
        return {pid: held for pid, held in numbered if pid is not None}


@contextmanager
def open_telemetry(device: Device, nvml: Nvml | None = None, known: Collection[int] = ()) -> Iterator[Telemetry]:
    """Watch a device; where it is a CPU, or NVML does not know it, the telemetry has nothing to say.

    Args:
        device: what `find_device` found.
        nvml: a stand-in for the module `pynvml`.
        known: processes that may hold the GPU beside this one, as the driver numbers them.
    """
    if device.kind != "cuda":
        yield Telemetry(_no_answer)
        return
    with ExitStack() as stack:
        try:
            session = stack.enter_context(open_nvml(nvml))
        except NvmlUnavailableError:
            yield Telemetry(_no_answer)
            return
        yield Telemetry(_asking(session, device.facts.get("uuid", "")), known)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcesses:
    """Who uses a device, as the GPU's driver lists it.

    Attributes:
        device: what `find_device` found.
        known: processes that may hold the GPU beside this one, as the driver numbers them.
    """

    device: Device
    known: Collection[int] = ()

    def own_number(self) -> str | None:
        """Return the number of this process there; None: the driver does not tell."""
        with open_telemetry(self.device) as telemetry:
            number = telemetry.own_number()
        return None if number is None else str(number)

    def others(self) -> Sequence[str]:
        """Return the processes beside this one and those that are known."""
        with open_telemetry(self.device, known=self.known) as telemetry:
            return telemetry.others()


def _no_answer(*_: object) -> None:
    return None


def _asking(session: NvmlSession, uuid: str) -> Ask:
    """Return a function that asks about a GPU, or about a MIG slice's board where the slice itself has no answer."""
    unit = session.ask("DeviceGetHandleByUUID", uuid)
    if unit is None:
        return _no_answer
    board = session.ask("DeviceGetDeviceHandleFromMigDeviceHandle", unit)

    def ask(question: str, *arguments: object) -> Any:
        answer = session.ask(f"DeviceGet{question}", unit, *arguments)
        if answer is None and board is not None:
            return session.ask(f"DeviceGet{question}", board, *arguments)
        return answer

    return ask


def _field(structure: object, name: str) -> int | None:
    return as_number(getattr(structure, name, None))


def _slowdowns(before: _Reading, after: _Reading) -> list[str]:
    events = SLOWDOWNS & (after.events or 0)
    found = [f"clock event {event.name}" for event in ClockEvent if event in events]
    rise = _increase(before.thermal_ns, after.thermal_ns)
    return [*found, f"thermal violation time rose by {rise / 1e6:g} ms"] if rise is not None and rise > 0 else found


def _holding(held: int | None) -> str:
    return "" if held is None else f" with {held / 2**30:.1f} GiB"


def _increase(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)
