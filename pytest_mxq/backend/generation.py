"""The backend of a session: arms and probes, joined behind the workflow's protocol. Imported only when a gate runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from pytest_mxq.backend.output_set import GeneratedOutputs, differences, from_media, preview_of, to_media
from pytest_mxq.baselines.manifest import Identity, LpipsInfo, Manifest, Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.verdict import OutputFault
from pytest_mxq.metrics import audio as audio_metrics
from pytest_mxq.metrics import degenerate
from pytest_mxq.metrics import flicker as video_metrics
from pytest_mxq.metrics import images as pixels
from pytest_mxq.metrics.psnr import psnr
from pytest_mxq.metrics.ssim import ssim
from pytest_mxq.pipelines.cache import Arm, ArmStore, How
from pytest_mxq.pipelines.compile import CompileMode, compiling_faithfully
from pytest_mxq.pipelines.generate import Generated, Series, generate
from pytest_mxq.planning.settings import Execution

if TYPE_CHECKING:
    from PIL.Image import Image

    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.verdict import Evidence
    from pytest_mxq.metrics.lpips import Lpips
    from pytest_mxq.planning.case import Case

# Told (label, chunks done, chunks in all) while images are generated.
Progress = Callable[[str, int, int], None]
Workload = Callable[..., object]


class TorchBackend:
    """Arms by torchao and diffusers, probes by lpips and scikit-image.

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
        self._progress = progress
        self._lpips: Lpips | None = None

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
        """What the device has for a case's arms, what this process holds for others' included, GiB.

        None where its model is loaded already, and on a CPU.
        """
        if self.device != "cuda" or self.arms.holds(case.source):
            return None
        free, _ = torch.cuda.mem_get_info()
        return float(free + torch.cuda.memory_reserved()) / 2**30

    def generate(
        self, case: Case, workload: Workload, *, label: str, chunks: Sequence[int] | None = None
    ) -> GeneratedOutputs:
        """Generate a case, or some chunks of it, with the BF16 arm in the case's execution mode."""
        arm = self._arm(case, None, emulated=False, execution=case.settings.execution)
        return self._generate(case, workload, arm, label, chunks)

    def generate_other_execution(self, case: Case, workload: Workload, *, chunks: Sequence[int]) -> GeneratedOutputs:
        """Generate some chunks with the BF16 arm in the other execution mode than the case's."""
        other = Execution.AS_SPEED if case.settings.execution is Execution.EAGER else Execution.EAGER
        arm = self._arm(case, None, emulated=False, execution=other)
        return self._generate(case, workload, arm, f"bf16 {other}", chunks)

    def generate_quantized(
        self, case: Case, workload: Workload, number_format: Format, *, emulated: bool
    ) -> GeneratedOutputs:
        """Generate a case with a quantized arm."""
        arm = self._arm(case, number_format, emulated=emulated, execution=case.settings.execution)
        return self._generate(case, workload, arm, number_format.name, None)

    def evidence(self, case: Case, number_format: Format, *, emulated: bool) -> Evidence:
        """Build a quantized arm and prove that it is quantized."""
        arm = self._arm(case, number_format, emulated=emulated, execution=case.settings.execution)
        if arm.evidence is None:
            raise MxqError(f"the arm of format {number_format.name!r} carries no evidence")
        return arm.evidence

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        """The layers that a format would quantize; None if there are none."""
        chosen = self.arms.choose(case.source, number_format, case.rule)
        share = chosen.weights / chosen.all_weights if chosen.all_weights else 0.0
        return Selection.of(chosen.names, total=chosen.total, weight_share=share) if chosen.names else None

    def stored(self, manifest: Manifest, media: Sequence[Any]) -> GeneratedOutputs:
        """The images or videos of a stored baseline."""
        return from_media(media, manifest.identity)

    def media(self, outputs: GeneratedOutputs) -> list[Any]:
        """What a store keeps: PIL images, or Videos."""
        return to_media(outputs)

    def subset(self, outputs: GeneratedOutputs, positions: Sequence[int]) -> GeneratedOutputs:
        """The images or videos at some positions."""
        return outputs.subset(positions)

    def differences(self, reference: GeneratedOutputs, other: GeneratedOutputs) -> tuple[str, ...]:
        """In what the videos of two outputs cannot be compared, such as ``frame count 121 -> 97``."""
        return differences(reference, other)

    def score(self, gate: str, reference: GeneratedOutputs, other: GeneratedOutputs) -> list[float]:
        """A metric's values: image by image, frame by frame, or (flicker, audio) video by video.

        Raises:
            MxqError: the gate is of videos or audio, and the model generates none.
        """
        if gate == "lpips":
            return self._lpips_probe().distances(reference.images, other.images)
        if gate == "audio":
            return audio_metrics.log_spectral_distance(_waves(reference), _waves(other))
        if gate == "flicker":
            _need_videos(reference)
            return video_metrics.flicker(reference.images, other.images, frames=reference.frames)
        return {"ssim": ssim, "psnr": psnr}[gate](reference.images, other.images)

    def are_identical(self, reference: GeneratedOutputs, other: GeneratedOutputs) -> bool:
        """Whether all images, and all audio, are bit-identical."""
        return reference.equals(other)

    def image(self, gate: str, outputs: GeneratedOutputs, index: int, frame: int | None) -> Image:
        """What a gate looked at, as PIL image: an image, a frame, a spectrogram."""
        return preview_of(gate, outputs, index, frame)

    def lpips_info(self) -> LpipsInfo:
        """What LPIPS was computed with."""
        described = self._lpips_probe().describe()
        return LpipsInfo(net=described.net, version=described.version, weights_sha256=described.weights_sha256)

    def _lpips_probe(self) -> Lpips:
        if self._lpips is None:
            from pytest_mxq.metrics.lpips import Lpips

            self._lpips = Lpips()
        return self._lpips

    def _arm(self, case: Case, number_format: Format | None, *, emulated: bool, execution: Execution) -> Arm:
        compiled = None if execution is Execution.EAGER else compile_mode(case, self.device)
        return self.arms.arm(case.source, number_format, emulated=emulated, rule=case.rule, how=How(compiled=compiled))

    def _generate(
        self, case: Case, workload: Workload, arm: Arm, label: str, chunks: Sequence[int] | None
    ) -> GeneratedOutputs:
        series = Series(
            prompts=case.prompts,
            batch_size=case.settings.batch_size,
            seed=case.settings.seed,
            chunks=None if chunks is None else tuple(chunks),
        )
        # An eager arm needs no Inductor, whose import alone takes a second.
        compiling = nullcontext() if arm.how.compiled is None else compiling_faithfully()
        with compiling, self.arms.embedding(arm, _chunks(case)):
            generated = generate(
                workload, arm.pipe, case.recipe.call, series, lambda done, total: self._progress(label, done, total)
            )
        return _outputs(case, arm, generated)


def _chunks(case: Case) -> tuple[tuple[str, ...], ...]:
    size = case.settings.batch_size
    return tuple(case.prompts[start : start + size] for start in range(0, len(case.prompts), size))


def compile_mode(case: Case, device: str) -> CompileMode:
    """How a case's blocks are compiled: with CUDA Graphs at the batch sizes where launches dominate."""
    graphs = device == "cuda" and case.settings.batch_size <= case.recipe.graphs_up_to
    return CompileMode.REDUCE_OVERHEAD if graphs else CompileMode.DEFAULT


def _outputs(case: Case, arm: Arm, generated: Generated) -> GeneratedOutputs:
    asked = generated.calls[0].get("height"), generated.calls[0].get("width")
    size = (asked[0], asked[1]) if isinstance(asked[0], int) and isinstance(asked[1], int) else None
    audio = generated.video.audio if generated.video is not None else None
    found = degenerate.find_degenerate(
        generated.images, size=size, frames=generated.video.frames if generated.video else 1
    )
    found += audio_metrics.find_silent(audio.waves) if audio is not None else []
    return GeneratedOutputs(
        images=pixels.to_uint8(generated.images),
        video=generated.video,
        positions=tuple(seed - case.settings.seed for seed in generated.seeds),
        faults=tuple(OutputFault(fault.index, f"{fault.kind.value}: {fault.detail}") for fault in found),
        identity=observed_identity(case, arm.weights, generated, execution=case.settings.execution.value),
    )


def _need_videos(outputs: GeneratedOutputs) -> None:
    if outputs.video is None:
        raise MxqError(f"mxq_flicker needs videos, and {outputs.identity.model} generates images: take the marker off")


def _waves(outputs: GeneratedOutputs) -> torch.Tensor:
    if outputs.audio is None:
        way = "take the marker off"
        if outputs.video is not None:
            way = f"return the pipeline's whole output, or {way}"
        raise MxqError(f"mxq_audio needs audio, and the test returned none from {outputs.identity.model}: {way}")
    return outputs.audio.waves


def observed_identity(case: Case, weights: str, generated: Generated, *, execution: str) -> Identity:
    """What was observed while a case was generated."""
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
