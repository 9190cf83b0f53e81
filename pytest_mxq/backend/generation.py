"""The backend of a session: arms that generate. Imported only when a gate runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pytest_mxq.backend.output_set import GeneratedOutputs
from pytest_mxq.baselines.manifest import Identity, Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.verdict import OutputFault
from pytest_mxq.metrics.audio import find_silent
from pytest_mxq.metrics.degenerate import find_degenerate
from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.pipelines.cache import Arm, ArmStore, How
from pytest_mxq.pipelines.compile import CompileMode, compiling_faithfully
from pytest_mxq.pipelines.execution import Execution as RunRecord
from pytest_mxq.pipelines.generate import Generated, Series, generate
from pytest_mxq.pipelines.isolation import HeldPipeline, restore, snapshot
from pytest_mxq.pipelines.observe import observe_execution, observe_one_call, record_first_call
from pytest_mxq.pipelines.quantize import run_evidence
from pytest_mxq.planning.settings import Execution

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.evidence import Evidence
    from pytest_mxq.planning.arms import ArmSpec
    from pytest_mxq.planning.case import Case

    # Told (label, chunks done, chunks in all) while outputs are generated.
    Progress = Callable[[str, int, int], None]
    Workload = Callable[..., object]


class TorchBackend:
    """Arms by torchao and diffusers.

    Attributes:
        arms: the arms of the session.
    """

    def __init__(self, device: str, progress: Progress) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise MxqError(
                f"the driver shows a GPU, but torch {torch.__version__} cannot use it: install a CUDA build of torch "
                "that suits the driver, or hide the GPU with CUDA_VISIBLE_DEVICES= to gate on the CPU"
            )
        self.device = device
        self.arms = ArmStore(device)
        self.progress = progress
        self._announced: object = None  # the quantized arm that is there, or about to be

    def check_device(self, device: Device) -> None:
        """Make sure that torch's first GPU is the one that NVML was asked about.

        Of unlike GPUs CUDA numbers the fastest first, unless it is told otherwise, and NVML knows no speeds.

        Raises:
            MxqError: it is another one.
        """
        if device.kind != "cuda" or not device.facts.get("order", "pci").startswith("pci assumed"):
            return
        used = torch.cuda.get_device_name(0)
        if used != device.name and device.facts.get("mig") != "on":
            raise MxqError(
                f"torch's first GPU is {used!r}, the first on the PCI bus {device.name!r}: skips, baselines and "
                "what is watched would be another GPU's; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )

    def free_gib(self, case: Case) -> float | None:
        """Return what the device has free for a case's arms, what this process holds for others' included, GiB.

        None where its model is loaded already, and on a CPU.
        """
        if self.device != "cuda" or self.arms.holds(case.source):
            return None
        free, _ = torch.cuda.mem_get_info()
        return float(free + torch.cuda.memory_reserved()) / 2**30

    def generate(
        self, case: Case, workload: Workload, arm: ArmSpec, *, label: str, chunks: Sequence[int] | None = None
    ) -> GeneratedOutputs:
        """Generate a case, or some chunks of its prompts, with an arm."""
        return self._generate(case, workload, self._arm(case, arm), label, chunks)

    def evidence(self, case: Case, arm: ArmSpec) -> Evidence:
        """Build a quantized arm and return the proof that it is quantized.

        Raises:
            MxqError: the arm is BF16's.
        """
        evidence = self._arm(case, arm).evidence
        if evidence is None:
            raise MxqError(f"the arm of format {arm.name!r} carries no evidence")
        return evidence

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        """Return the layers that a format would quantize; None if there are none."""
        chosen = self.arms.choose(case.source, number_format, case.rule)
        share = chosen.weights / chosen.all_weights if chosen.all_weights else 0.0
        return Selection.of(chosen.names, total=chosen.total, weight_share=share) if chosen.names else None

    def load(self, media: Sequence[Any], identity: Identity) -> GeneratedOutputs:
        """Return the outputs that a store kept."""
        return GeneratedOutputs.from_media(media, identity)

    def release(self) -> None:
        """Free every arm."""
        self.arms.release()

    def _arm(self, case: Case, arm: ArmSpec) -> Arm:
        compiled = None if arm.execution is Execution.EAGER else compile_mode(case, self.device)
        how = How(compiled=compiled)
        self.announce(case, arm.number_format)
        return self.arms.arm(case.source, arm.number_format, emulated=arm.emulated, rule=case.rule, how=how)

    def announce(self, case: Case, number_format: Format | None) -> None:
        """Show that an arm is about to be loaded or quantized, which takes minutes where it is not there yet."""
        name = case.recipe.name
        if not self.arms.holds(case.source):
            self.progress(f"{name}: loading", 0, 0)
        arm = case.source, number_format
        if number_format is not None and arm != self._announced:
            self.progress(f"{name} {number_format.name}: quantizing", 0, 0)
            self._announced = arm

    def _generate(
        self, case: Case, workload: Workload, arm: Arm, label: str, chunks: Sequence[int] | None
    ) -> GeneratedOutputs:
        series = Series(
            prompts=case.prompts,
            batch_size=case.settings.batch_size,
            seed=case.settings.seed,
            chunks=None if chunks is None else tuple(chunks),
            denoisers=arm.denoisers,
        )
        unit = "image" if case.settings.batch_size == 1 and not case.recipe.generates_video else "call"
        # An eager arm needs no Inductor, whose import alone takes a second.
        compiling = nullcontext() if arm.how.compiled is None else compiling_faithfully()
        with (
            compiling,
            self.arms.embedding(arm, _chunks(case)),
            self._isolated(arm, label) as (changes, lost, held),
            observing(arm) as observed,
        ):
            generated = generate(
                workload,
                arm.pipe,
                case.recipe.call,
                series,
                lambda done, total: self.progress(f"{case.recipe.name} {label}: {unit}", done, total),
                held,
            )
        outputs = _outputs(case, arm, generated, observed())
        during = dict.fromkeys(what for work in generated.works.values() for what in work.changes)
        known = " ".join(changes)
        changes += [f"{label}: {what}, during a call" for what in during if what not in known]
        return replace(outputs, changes=tuple(changes), evidence=_with_lost(outputs.evidence, lost))

    @contextmanager
    def _isolated(self, arm: Arm, label: str) -> Iterator[tuple[list[str], list[str], HeldPipeline]]:
        """Leave the pipeline as a workload found it; give what the workload had changed once the block has ended.

        And the pipeline as it is before. What cannot be put back, such as weights that were written over, is given
        apart and frees every arm: the next one is loaded again.
        """
        changes: list[str] = []
        lost: list[str] = []
        state = snapshot(arm.pipe)
        try:
            yield changes, lost, state.held
        finally:
            restored = restore(arm.pipe, state)
            lost += restored.not_restored
            changes += [f"{label}: {what}, and put back" for what in restored.changed]
            changes += [f"{label}: {what}" for what in _shortened(restored.not_restored)]
            if restored.rebuild:
                self.arms.release()


def _shortened(lost: Sequence[str]) -> list[str]:
    """Return what could not be put back in one phrase, of many the first."""
    if not lost:
        return []
    return [f"{lost[0]}{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}; the model is loaded again"]


def _with_lost(evidence: Evidence | None, lost: Sequence[str]) -> Evidence | None:
    """Return a quantized arm's evidence with the weights that the workload itself changed beyond repair."""
    if evidence is None or evidence.run is None or not lost:
        return evidence
    return replace(evidence, run=replace(evidence.run, faults=(*evidence.run.faults, *lost)))


def _chunks(case: Case) -> tuple[tuple[str, ...], ...]:
    size = case.settings.batch_size
    return tuple(case.prompts[start : start + size] for start in range(0, len(case.prompts), size))


def compile_mode(case: Case, device: str) -> CompileMode:
    """How a case's blocks are compiled: with CUDA Graphs at the batch sizes where launches dominate."""
    graphs = device == "cuda" and case.settings.batch_size <= case.recipe.graphs_up_to
    return CompileMode.REDUCE_OVERHEAD if graphs else CompileMode.DEFAULT


@contextmanager
def observing(arm: Arm) -> Iterator[Callable[[], RunRecord | None]]:
    """Observe what a quantized arm multiplies with; give what returns the record once the block has ended.

    Of a compiled arm the first call of its denoiser is repeated in eager execution: compiled code cannot be observed.
    """
    if arm.evidence is None:
        yield lambda: None
        return
    if arm.how.compiled is None:
        with observe_execution(arm.pipe, arm.denoisers) as recorder:
            yield lambda: recorder.execution
        return
    denoiser = getattr(arm.pipe, arm.denoisers[0])
    with record_first_call(denoiser) as first:
        yield lambda: None if first.args is None else observe_one_call(denoiser, first.args, first.kwargs)


def _outputs(case: Case, arm: Arm, generated: Generated, execution: RunRecord | None) -> GeneratedOutputs:
    asked = generated.calls[0].get("height"), generated.calls[0].get("width")
    size = (asked[0], asked[1]) if isinstance(asked[0], int) and isinstance(asked[1], int) else None
    audio = generated.video.audio if generated.video is not None else None
    found = find_degenerate(generated.images, size=size, frames=generated.video.frames if generated.video else 1)
    found += find_silent(audio.waves) if audio is not None else []
    outputs = GeneratedOutputs(
        images=to_uint8(generated.images),
        video=generated.video,
        positions=tuple(seed - case.settings.seed for seed in generated.seeds),
        faults=tuple(OutputFault(fault.index, f"{fault.kind.value}: {fault.detail}") for fault in found),
        identity=observed_identity(case, arm.weights, generated, execution=case.settings.execution.value),
        evidence=executed_evidence(arm, execution),
        works=generated.works,
    )
    return outputs.with_originals(generated.originals)


def executed_evidence(arm: Arm, execution: RunRecord | None) -> Evidence | None:
    """Return an arm's evidence with what it ran; None of BF16's."""
    if arm.evidence is None or arm.chosen is None or execution is None:
        return None
    # A record of several denoisers names each layer's before it; that of one call has one alone.
    several = len(execution.denoiser_calls) > 1
    return run_evidence(arm.evidence, arm.chosen, execution, f"{arm.denoisers[0]}." if several else "")


def observed_identity(case: Case, weights: str, generated: Generated, *, execution: str) -> Identity:
    """Return what was observed while a case was generated."""
    height, width = generated.images.shape[-2:]
    calls: tuple[dict[str, Any], ...] = generated.calls
    return Identity(
        model=case.recipe.name,
        weights=weights,
        prompts=case.prompts,
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        images_per_prompt=generated.images_per_prompt,
        width=width,
        height=height,
        execution=execution,
        calls=calls,
    )
