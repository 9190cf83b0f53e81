"""A machine whose times and peaks are stated, without torch; what a gate decides of them is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec.structs import replace as replace_struct

from pytest_mxq.baselines.work import ObservedRun
from pytest_mxq.environment.device import Device
from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.protocols import Machine
from pytest_mxq.formats import Format
from pytest_mxq.gates.evidence import Evidence
from pytest_mxq.gates.extrapolation import Extrapolation
from pytest_mxq.gates.measured import Measured, TimedBf16, TimingConditions
from pytest_mxq.gates.memory import PeakMemory
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.speed_statistics import SpeedMode
from pytest_mxq.gates.speedup import SpeedSamples

if TYPE_CHECKING:
    from pytest_mxq.evaluation.protocols import Workload
    from pytest_mxq.gates.sampling import Sampling
    from pytest_mxq.planning.case import Case
from pytest_mxq.testing.behaviour import Behaviour
from pytest_mxq.testing.devices import CPU
from pytest_mxq.testing.fakes import FakeBackend, FakeScorer, RecordingPipeline, identity_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeProcesses:
    """The processes that the behaviour states; this one is not listed."""

    behaviour: Behaviour

    def own_number(self) -> str | None:
        """Return None: no driver lists this process."""
        return None

    def others(self) -> Sequence[str]:
        """Return the processes that the behaviour states."""
        return self.behaviour.others


class FakeBenchmark:
    """Times as the behaviour says: seconds of BF16 and of each format, with a little scatter."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.behaviour = backend.behaviour

    def evidence(self, case: Case, number_format: Format, _beside: Sequence[Format] = ()) -> Evidence:
        """Return the evidence that the behaviour states."""
        from pytest_mxq.planning.arms import ArmSpec

        arm = ArmSpec(number_format=number_format, emulated=False, execution=case.settings.execution)
        return self.backend.evidence(case, arm)

    def run_evidence(self, _case: Case, _number_format: Format) -> Evidence:
        """Return the evidence of what ran that the behaviour states."""
        return self.backend._run_evidence()  # noqa: SLF001  they are one fake machine

    def time_live(
        self, case: Case, workload: Workload, formats: Sequence[Format], *, sampling: Sampling, seed: int
    ) -> dict[str, SpeedSamples]:
        """Return eight rounds of BF16 and of the arm of each format.

        Raises:
            MxqError: the behaviour states that a format cannot be timed beside another.
        """
        names = [kind.name for kind in formats]
        self.backend.log(f"live {' '.join(names)}{'' if sampling.lengths is None else ' in short calls'}")
        self.backend.log(f"limits {sampling.max_rounds} {sampling.max_seconds}")
        if len(names) > 1 and set(names) & set(self.behaviour.alone):
            raise MxqError("these arms do not go together")
        for name in names:
            self._observed(case, workload, name)
        line = None
        if sampling.lengths is not None:
            line = Extrapolation(lengths=sampling.lengths, steps=28, model_error=sampling.model_error)
        return {name: replace(self._samples(name, names, seed), extrapolation=line) for name in names}

    def _samples(self, name: str, names: Sequence[str], seed: int) -> SpeedSamples:
        return SpeedSamples(
            mode=SpeedMode.LIVE,
            bf16=self._times("bf16"),
            quantized=self._times(name),
            environment=self.behaviour.environment,
            start_seed=seed,
            execution=self.behaviour.execution,
            first_call=(20.0, 11.0),
            throttle_share=0.0,
            power_cap_share=0.5,
            beside=tuple(other for other in names if other != name),
        )

    def time_quantized(
        self,
        case: Case,
        workload: Workload,
        number_format: Format,
        sessions: tuple[tuple[float, ...], ...],
        *,
        with_short: bool,
    ) -> tuple[SpeedSamples, ObservedRun]:
        """Return eight rounds of the quantized arm."""
        self.backend.log(f"stored {number_format.name}{' and short calls of bf16' if with_short else ''}")
        samples = SpeedSamples(
            mode=SpeedMode.STORED,
            bf16=(),
            quantized=self._times(number_format.name),
            sessions=sessions,
            short_bf16=self._short() if with_short else (),
        )
        return samples, self._observed(case, workload, number_format.name)

    def _short(self) -> tuple[float, ...]:
        return () if self.behaviour.short is None else (self.behaviour.short,) * 4

    def time_bf16(self, case: Case, workload: Workload) -> TimedBf16:
        """Return a session of BF16.

        Raises:
            Stop: the behaviour states an unfit machine.
        """
        self.backend.log("session")
        if self.behaviour.environment is not None:
            raise Stop(Outcome.ENVIRONMENT, f"nothing was stored: {self.behaviour.environment}")
        return TimedBf16(
            seconds=self._times("bf16"),
            peak_gib=20.0,
            conditions=self.conditions(case),
            observed=self._observed(case, workload, "bf16"),
            short=self._measured(case, workload, "bf16", steps=case.short_steps) if case.short_steps else None,
            predicted=self.behaviour.predicted,
            short_seconds=self._short(),
        )

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format, *, steps: int | None = None
    ) -> Measured:
        """Return the peak that the behaviour states."""
        self.backend.log(f"memory {number_format.name}{'' if steps is None else f' in {steps} steps'}")
        return self._measured(case, workload, number_format.name, steps=steps)

    def measure_bf16(self, case: Case, workload: Workload, *, steps: int | None) -> tuple[Measured | None, Measured]:
        """Return the peaks that the behaviour states."""
        self.backend.log("memory bf16")
        short = None if steps is None else self._measured(case, workload, "bf16", steps=steps)
        return short, self._measured(case, workload, "bf16", steps=None)

    def _measured(self, case: Case, workload: Workload, name: str, *, steps: int | None) -> Measured:
        peak = self.behaviour.peak_of(name, is_short=steps is not None)
        observed = self._observed(case, workload, name)
        taken = 8 if steps is None or self.behaviour.fixed_steps else steps
        return PeakMemory(allocated_gib=peak, reserved_gib=peak + 1), replace_struct(
            observed, work=self.behaviour.work_of(name, steps=taken)
        )

    def conditions(self, _case: Case) -> TimingConditions:
        """Return what the behaviour states."""
        return TimingConditions(execution=self.behaviour.execution, inductor=self.behaviour.inductor)

    def _times(self, name: str, count: int = 8) -> tuple[float, ...]:
        base, scatter = self.behaviour.seconds.get(name, 1.0), self.behaviour.scatter
        wave = (0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.3, 0.2)
        return tuple(base * (1 + scatter * wave[(i + len(name)) % len(wave)]) for i in range(count))

    def _observed(self, case: Case, workload: Workload, name: str) -> ObservedRun:
        pipeline = RecordingPipeline(case)
        workload(pipeline, case.prompts[0])
        identity = identity_of(case, pipeline.calls, self.behaviour.weights)
        return ObservedRun(identity=identity, work=self.behaviour.work_of(name))


def fake_machine(device: Device = CPU) -> Machine:
    """Return a machine whose backend and benchmark need no torch.

    Raises:
        MxqError: ``behaviour.json`` states no behaviour.
    """
    behaviour = Behaviour.read()
    return Machine(
        device=device,
        backend=lambda _progress: FakeBackend(),
        scorer=FakeScorer,
        benchmark=lambda backend, _cache: FakeBenchmark(backend),
        processes=FakeProcesses(behaviour=behaviour),
        weights=lambda _source: Behaviour.read().weights,
    )
