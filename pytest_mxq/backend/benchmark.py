"""Time arms and measure their memory: compiled under one configuration, warm, nothing else in the timed region."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import torch

from pytest_mxq.backend.generation import compile_mode, executed_evidence, observed_identity, observing
from pytest_mxq.backend.rounds import Inspect, showing_rounds
from pytest_mxq.backend.short_timing import has_short_calls, predict, time_short, timed_arms
from pytest_mxq.backend.warm_arm import (
    WarmArm,
    check_images,
    check_nothing_kept,
    check_same_regions,
    check_same_work,
    check_settled,
    label_of,
    name_of,
    series_of,
    with_steps,
)
from pytest_mxq.baselines.identity import check_same_calls
from pytest_mxq.baselines.work import ObservedRun
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.evidence import Evidence
from pytest_mxq.gates.extrapolation import SHORT_LENGTHS
from pytest_mxq.gates.measured import Measured, TimedBf16, TimingConditions
from pytest_mxq.gates.memory import PeakMemory
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.sampling import Sampling
from pytest_mxq.gates.speed_statistics import MIN_SESSION_ROUNDS, SpeedMode
from pytest_mxq.gates.speedup import SpeedSamples
from pytest_mxq.pipelines.cache import Arm, How
from pytest_mxq.pipelines.compile import compile_cache, compiling_fast, inductor_settings, same_inductor_settings
from pytest_mxq.pipelines.generate import TimedCall, timed_call
from pytest_mxq.profiling.compilation import SilentEagerError, check_compiled, count_compilations
from pytest_mxq.profiling.memory import measure_peak, weight_bytes
from pytest_mxq.profiling.telemetry import Telemetry, open_telemetry
from pytest_mxq.profiling.timing import Clock, cpu_clock, cuda_clock, time_rounds, time_session, warm_up

if TYPE_CHECKING:
    from pytest_mxq.backend.generation import TorchBackend
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.case import Case

Workload = Callable[..., object]
BothLengths: TypeAlias = tuple[Measured | None, Measured]
"""A short call, where there is one, and a full one."""


class TorchBenchmark:
    """Measures time and memory of the arms of a session's backend.

    Args:
        backend: whose arms.
        device: what they run on.
        cache: directory of compiled code; None: torch's own.
        clock: what tells the time; None: the device's.
        known: processes that may hold the GPU meanwhile, as its driver numbers them.
    """

    def __init__(
        self,
        backend: TorchBackend,
        device: Device,
        cache: Path | None,
        clock: Clock | None = None,
        known: Collection[int] = (),
    ) -> None:
        self._backend = backend
        self._clock = clock or (cuda_clock() if device.kind == "cuda" else cpu_clock())
        self._device = device
        self._cache = cache
        self._known = known
        self._bf16_peaks: dict[tuple[str, ...], BothLengths] = {}
        self._run_evidence: dict[tuple[object, str], Evidence | None] = {}
        self._first_calls: dict[tuple[object, str], float] = {}

    def evidence(self, case: Case, number_format: Format, beside: Sequence[Format] = ()) -> Evidence:
        """Build the quantized arm that is timed, beside those of other formats, and prove that it is quantized."""
        with self._watching():  # a format that changes Inductor's configuration is found out here
            evidence = self._arm(case, number_format, beside).evidence
        if evidence is None:
            raise MxqError(f"the arm of format {number_format.name!r} carries no evidence")
        return evidence

    def run_evidence(self, case: Case, number_format: Format) -> Evidence:
        """Return the evidence of the arm with what an eager call of its denoiser multiplied with, once it was timed.

        Raises:
            MxqError: it has not run yet.
        """
        evidence = self._run_evidence.get((case.key, name_of(number_format)))
        if evidence is None:
            raise MxqError(f"the arm of format {number_format.name!r} has not run")
        return evidence

    def time_live(
        self, case: Case, workload: Workload, formats: Sequence[Format], *, sampling: Sampling, seed: int
    ) -> dict[str, SpeedSamples]:
        """BF16 and the arm of each format in turn, until every interval is narrow enough.

        Raises:
            MxqError: an arm is not compiled as it should be, or Inductor's configuration changed between them.
        """
        with self._watching() as (clock, telemetry):
            steps = None if sampling.lengths is None else sampling.lengths[1]
            arms = self._warm_together(case, workload, formats, steps)
            timed = timed_arms(case, workload, arms, sampling)
            environment = telemetry.before_start()
            if environment:
                samples = SpeedSamples(mode=SpeedMode.LIVE, bf16=(), quantized=(), environment=environment)
                return {kind.name: samples for kind in formats}
            label = f"{case.recipe.name} {', '.join(kind.name for kind in formats)}"
            with self._showing(label, telemetry, sampling.max_rounds) as inspect:
                runs = [call.run for call in timed.calls]
                rounds = time_rounds(runs, clock, sampling=sampling, seed=seed, inspect=inspect, arms=timed.seconds)
            seen = telemetry.summary()
            timed.check()
        bf16, *quantized = timed.seconds(rounds)
        shared = SpeedSamples(
            mode=SpeedMode.LIVE,
            bf16=bf16,
            quantized=(),
            voided=rounds.voided,
            environment=f"too many rounds were disturbed: {rounds.voided[0]}" if rounds.disturbed else None,
            execution=self._how(case).text,
            start_seed=seed,
            throttle_share=seen.throttle_share,
            power_cap_share=seen.sw_power_cap_share,
            extrapolation=timed.extrapolation,
        )
        return {
            kind.name: replace(
                shared,
                quantized=seconds,
                first_call=(arms[0].first_call, arm.first_call),
                beside=tuple(other.name for other in formats if other is not kind),
            )
            for kind, arm, seconds in zip(formats, arms[1:], quantized, strict=True)
        }

    def _warm_together(
        self, case: Case, workload: Workload, formats: Sequence[Format], steps: int | None
    ) -> list[WarmArm]:
        """Warm BF16 and an arm of each format up beside each other, and find that all do the same."""
        bf16 = self._warm(case, workload, None, steps=steps)
        arms = [self._warm(case, workload, kind, steps=steps, beside=formats) for kind in formats]
        for arm in arms:
            check_same_regions(bf16, arm)
            check_same_calls(bf16.identity, arm.identity)
            check_same_work(bf16, arm)
        return [bf16, *arms]

    def time_quantized(
        self,
        case: Case,
        workload: Workload,
        number_format: Format,
        sessions: tuple[tuple[float, ...], ...],
        *,
        with_short: bool,
    ) -> tuple[SpeedSamples, ObservedRun]:
        """One session of the quantized arm, to be held against stored sessions of BF16, and short calls of BF16.

        BF16 is warm before the session begins: a GPU that cools while an arm compiles is faster afterwards.
        """
        is_short = with_short and has_short_calls(case)
        with self._watching() as (clock, telemetry):
            bf16 = self._warm(case, workload, None, steps=SHORT_LENGTHS[0]) if is_short else None
            quantized = self._warm(case, workload, number_format)
            environment = telemetry.before_start()
            if environment:
                samples = SpeedSamples(mode=SpeedMode.STORED, bf16=(), quantized=(), environment=environment)
                return samples, quantized.observed
            with self._showing(label_of(case, number_format), telemetry, MIN_SESSION_ROUNDS) as inspect:
                session = time_session(quantized.run, clock, inspect=inspect)
            short_bf16 = () if bf16 is None else time_short(bf16, clock, telemetry.inspect)
            seen = telemetry.summary()
            quantized.check()
        samples = SpeedSamples(
            mode=SpeedMode.STORED,
            bf16=(),
            quantized=session.seconds,
            sessions=sessions,
            voided=session.voided,
            environment=f"too many rounds were disturbed: {session.voided[0]}" if session.disturbed else None,
            execution=self._how(case).text,
            first_call=(quantized.first_call,),
            throttle_share=seen.throttle_share,
            power_cap_share=seen.sw_power_cap_share,
            short_bf16=short_bf16,
        )
        return samples, quantized.observed

    def time_bf16(self, case: Case, workload: Workload) -> TimedBf16:
        """One session of BF16, and its peak memory where the device tells, to be stored."""
        self._backend.arms.drop("quantized")
        with self._watching() as (clock, telemetry):
            bf16 = self._warm(case, workload, None)
            environment = telemetry.before_start()
            if environment:
                raise Stop(Outcome.ENVIRONMENT, f"nothing was stored: {environment}")
            with self._showing(label_of(case, None), telemetry, MIN_SESSION_ROUNDS) as inspect:
                session = time_session(bf16.run, clock, inspect=inspect)
            if session.disturbed:
                raise Stop(
                    Outcome.ENVIRONMENT,
                    f"nothing was stored: too many rounds were disturbed: {session.voided[0]}",
                )
            has_peaks = self._device.kind == "cuda"
            peak = self._peak(case, bf16).allocated_gib if has_peaks else None
            bf16.check()
            steps = case.short_steps if has_peaks else None
            short = None if steps is None else self._measure(case, with_steps(case, workload, bf16, steps))
            predicted, short_seconds = predict(case, workload, bf16, clock, telemetry.inspect)
        return TimedBf16(
            seconds=session.seconds,
            peak_gib=peak,
            conditions=self.conditions(case),
            observed=bf16.observed,
            short=short,
            predicted=predicted,
            short_seconds=short_seconds,
        )

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format, *, steps: int | None = None
    ) -> Measured:
        """Peak memory of one call of a quantized arm, as if it were alone on the device.

        The weights of the other arm stay where they are and are subtracted: they are held from before the call until
        after it, so that the peak of what tensors hold is the arm's own plus theirs, exactly. To move 24 GB off the
        device and back would take longer than the call.

        Args:
            case: the case.
            workload: the test's body.
            number_format: the arm's format.
            steps: how many steps each call takes; None: the workload's own.

        Raises:
            MxqError: the device tells no peak.
        """
        with self._watching():
            self._backend.arms.drop("bf16")  # with its CUDA Graphs' pool
            warm = self._warm(case, workload, number_format, steady=False, steps=steps)
            return self._measure(case, warm, steps=steps)

    def measure_bf16(self, case: Case, workload: Workload, *, steps: int | None) -> BothLengths:
        """Peak memory of BF16, as `measure_memory`: in a call of ``steps`` (None: in none such), and in a full one.

        Measured once a case; where there are short calls, they warm the arm up.
        """
        key = (*case.key, str(steps))
        if key not in self._bf16_peaks:
            with self._watching():
                self._backend.arms.drop("quantized")
                warm = self._warm(case, workload, None, steady=False, steps=steps)
                first = self._measure(case, warm)
                whole = first if steps is None else self._measure(case, with_steps(case, workload, warm, None))
            self._bf16_peaks[key] = None if steps is None else first, whole
        return self._bf16_peaks[key]

    def _measure(self, case: Case, arm: WarmArm, steps: int | None = None) -> Measured:
        measured = self._peak(case, arm, steps), arm.observed
        arm.check()
        return measured

    def conditions(self, case: Case) -> TimingConditions:
        """How the arms of a case run while they are timed, and twelve hex digits that name Inductor's configuration."""
        text = "\n".join(f"{name}={value}" for name, value in sorted(inductor_settings().items()))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return TimingConditions(execution=self._how(case).text, inductor=digest)

    def _peak(self, case: Case, arm: WarmArm, steps: int | None = None) -> PeakMemory:
        """Peak of one call, of ``steps`` where it stands for a full one, without weights that the arm does not use.

        Raises:
            Stop: more was resident before the call than these weights, or a short call leaves memory allocated.
        """
        modules = [component for component in arm.pipe.components.values() if isinstance(component, torch.nn.Module)]
        base = getattr(self._backend.arms.base(case.source).pipe, case.recipe.denoiser)
        own = weight_bytes(torch.nn.ModuleList(modules)).total / 2**30
        idle = weight_bytes(torch.nn.ModuleList([*modules, base])).total / 2**30 - own
        peak = measure_peak(arm.run, torch.device(self._device.kind))
        if peak.resident_gib > 1.1 * own + idle + 0.5:  # beside the weights, workspaces and the pools of CUDA Graphs
            raise Stop(
                Outcome.ENVIRONMENT,
                f"{peak.resident_gib:.1f} GiB are resident where the arms hold {own + idle:.1f}: something else in "
                "this process holds GPU memory (the traceback of an earlier failure keeps its tensors); "
                "run this gate alone",
            )
        if steps is not None:
            check_nothing_kept(peak.kept_gib, peak.allocated_gib - idle, steps, case.usual_steps or steps)
        return PeakMemory(allocated_gib=peak.allocated_gib - idle, reserved_gib=peak.reserved_gib - idle)

    def _how(self, case: Case) -> How:
        return How(compiled=compile_mode(case, self._device.kind), for_time=True)

    def _arm(self, case: Case, number_format: Format | None, beside: Sequence[Format] = ()) -> Arm:
        self._backend.announce(case, number_format)
        how = self._how(case)
        return self._backend.arms.arm(
            case.source, number_format, emulated=False, rule=case.rule, how=how, beside=beside
        )

    def _warm(
        self,
        case: Case,
        workload: Workload,
        number_format: Format | None,
        *,
        steady: bool = True,
        steps: int | None = None,
        beside: Sequence[Format] = (),
    ) -> WarmArm:
        arm = self._arm(case, number_format, beside)
        series = series_of(case, arm.denoisers, steps)
        self._backend.progress(f"{label_of(case, number_format)}: compiling and warming up", 0, 0)
        before, start = count_compilations(), perf_counter()
        with observing(arm) as observed:
            call = timed_call(workload, arm.pipe, case.recipe.call, series)
        self._clock.synchronize()
        # Of the process, not of the gate: a gate that comes second finds the code compiled.
        first_call = self._first_calls.setdefault((case.key, name_of(number_format)), perf_counter() - start)
        self._run_evidence[case.key, name_of(number_format)] = executed_evidence(arm, observed())
        check_images(call.once, number_format)
        warmed = warm_up(call.run, self._clock, steady=steady)
        skipped = count_compilations().skipped_cuda_graphs - before.skipped_cuda_graphs
        if skipped:
            raise MxqError(
                f"Inductor skipped {skipped} CUDA Graphs: the arm does not run as {self._how(case).text!r} says, and "
                "would be compared with one that does; TORCH_LOGS=cudagraphs says why"
            )
        check_settled(warmed, number_format)
        seen = call if steps is not None else self._short_call(case, workload, arm) or call
        try:
            regions = check_compiled(getattr(arm.pipe, case.recipe.denoiser), seen.run)
        except SilentEagerError as error:
            if number_format is None:
                raise  # nothing that a format could be blamed for
            raise Stop(Outcome.REGRESSION, str(error)) from None
        if seen is not call:
            seen.check()
        identity = observed_identity(case, arm.weights, call.once, execution=self._how(case).text)
        return WarmArm(
            call=call,
            pipe=arm.pipe,
            denoisers=arm.denoisers,
            first_call=first_call,
            regions=regions,
            identity=identity,
        )

    def _short_call(self, case: Case, workload: Workload, arm: Arm) -> TimedCall | None:
        """Return a short call of an arm, to look at its first forward pass; None where calls cannot be short."""
        if case.short_steps is None:
            return None
        series = series_of(case, arm.denoisers, case.short_steps)
        return timed_call(workload, arm.pipe, case.recipe.call, series)

    def _showing(self, name: str, telemetry: Telemetry, rounds: int) -> AbstractContextManager[Inspect]:
        return showing_rounds(self._backend.progress, f"{name}: round", telemetry.inspect, rounds)

    @contextmanager
    def _watching(self) -> Iterator[tuple[Clock, Telemetry]]:
        """One Inductor configuration for all that happens inside, the compile cache, and an eye on the GPU."""
        watching = open_telemetry(self._device, known=self._known)
        with _cache(self._cache), compiling_fast(), same_inductor_settings(), watching as telemetry:
            yield self._clock, telemetry


@contextmanager
def _cache(directory: Path | None) -> Iterator[None]:
    if directory is None:
        yield
        return
    with compile_cache(directory):
        yield
