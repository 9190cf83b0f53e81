"""The engines of a session: arms and probes, joined behind the workflow's protocol. Imported only when a gate runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from pytest_mxq.arms.compile import CompileMode, compiling_faithfully
from pytest_mxq.arms.drawing import Drawn, Series, draw
from pytest_mxq.arms.store import Arm, ArmStore, How
from pytest_mxq.baselines.schema import Identity, LpipsInfo, Manifest, Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.verdict import PictureFault
from pytest_mxq.probes import degenerate, pixels
from pytest_mxq.settings import Execution

if TYPE_CHECKING:
    from pytest_mxq.cases import Case
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.verdict import Evidence
    from pytest_mxq.probes.lpips import Lpips

# Told (label, chunks done, chunks in all) while pictures are drawn.
Progress = Callable[[str, int, int], None]
Workload = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShot:
    """Pictures as the probes take them: uint8 (N, 3, H, W) on the CPU.

    Attributes:
        positions: position of each picture in the case's full set.
        faults: what is degenerate about them.
        identity: what was observed.
    """

    pictures: torch.Tensor
    positions: tuple[int, ...]
    faults: tuple[PictureFault, ...]
    identity: Identity


class TorchEngines:
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

    def draw(self, case: Case, workload: Workload, *, label: str, chunks: Sequence[int] | None = None) -> PictureShot:
        """Draw a case, or some chunks of it, with the BF16 arm in the case's execution mode."""
        arm = self._arm(case, None, emulated=False, execution=case.settings.execution)
        return self._draw(case, workload, arm, label, chunks)

    def draw_other_execution(self, case: Case, workload: Workload, *, chunks: Sequence[int]) -> PictureShot:
        """Draw some chunks with the BF16 arm in the other execution mode than the case's."""
        other = Execution.AS_SPEED if case.settings.execution is Execution.EAGER else Execution.EAGER
        arm = self._arm(case, None, emulated=False, execution=other)
        return self._draw(case, workload, arm, f"bf16 {other}", chunks)

    def draw_quantized(self, case: Case, workload: Workload, number_format: Format, *, emulated: bool) -> PictureShot:
        """Draw a case with a quantized arm."""
        arm = self._arm(case, number_format, emulated=emulated, execution=case.settings.execution)
        return self._draw(case, workload, arm, number_format.name, None)

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

    def stored(self, manifest: Manifest, images: Sequence[Image.Image]) -> PictureShot:
        """The pictures of a stored baseline."""
        arrays = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images]
        return PictureShot(
            pictures=torch.stack(arrays) if arrays else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
            positions=tuple(range(len(images))),
            faults=(),
            identity=manifest.identity,
        )

    def subset(self, shot: PictureShot, positions: Sequence[int]) -> PictureShot:
        """The pictures at some positions."""
        rows = [shot.positions.index(position) for position in positions]
        return PictureShot(pictures=shot.pictures[rows], positions=tuple(positions), faults=(), identity=shot.identity)

    def score(self, gate: str, reference: PictureShot, other: PictureShot) -> list[float]:
        """A metric's values, picture by picture."""
        if gate == "lpips":
            return self._lpips_probe().distances(reference.pictures, other.pictures)
        return {"ssim": pixels.ssim, "psnr": pixels.psnr}[gate](reference.pictures, other.pictures)

    def are_identical(self, reference: PictureShot, other: PictureShot) -> bool:
        """Whether all pictures are equal to the bit."""
        return degenerate.identical(reference.pictures, other.pictures)

    def images(self, shot: PictureShot) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in shot.pictures]

    def lpips_info(self) -> LpipsInfo:
        """What LPIPS was computed with."""
        described = self._lpips_probe().describe()
        return LpipsInfo(net=described.net, version=described.version, trunk_sha256=described.trunk_sha256)

    def _lpips_probe(self) -> Lpips:
        if self._lpips is None:
            from pytest_mxq.probes.lpips import Lpips

            self._lpips = Lpips()
        return self._lpips

    def _arm(self, case: Case, number_format: Format | None, *, emulated: bool, execution: Execution) -> Arm:
        compiled = None if execution is Execution.EAGER else compile_mode(case, self.device)
        return self.arms.arm(case.source, number_format, emulated=emulated, rule=case.rule, how=How(compiled=compiled))

    def _draw(self, case: Case, workload: Workload, arm: Arm, label: str, chunks: Sequence[int] | None) -> PictureShot:
        series = Series(
            prompts=case.prompts,
            batch_size=case.settings.batch_size,
            seed=case.settings.seed,
            chunks=None if chunks is None else tuple(chunks),
        )
        # An eager arm needs no Inductor, whose import alone takes a second.
        with nullcontext() if arm.how.compiled is None else compiling_faithfully():
            drawn = draw(
                workload, arm.pipe, case.recipe.call, series, lambda done, total: self._progress(label, done, total)
            )
        return _shot(case, arm, drawn)


def compile_mode(case: Case, device: str) -> CompileMode:
    """How a case's blocks are compiled: with CUDA Graphs at the batch sizes where launches dominate."""
    graphs = device == "cuda" and case.settings.batch_size <= case.recipe.graphs_up_to
    return CompileMode.REDUCE_OVERHEAD if graphs else CompileMode.DEFAULT


def _shot(case: Case, arm: Arm, drawn: Drawn) -> PictureShot:
    asked = drawn.calls[0].get("height"), drawn.calls[0].get("width")
    size = (asked[0], asked[1]) if isinstance(asked[0], int) and isinstance(asked[1], int) else None
    found = degenerate.find_degenerate(drawn.images, size=size)
    positions = tuple(seed - case.settings.seed for seed in drawn.seeds)
    return PictureShot(
        pictures=pixels.to_uint8(drawn.images),
        positions=positions,
        faults=tuple(PictureFault(fault.index, f"{fault.kind.value}: {fault.detail}") for fault in found),
        identity=observed_identity(case, arm.weights, drawn, execution=case.settings.execution.value),
    )


def observed_identity(case: Case, weights: str, drawn: Drawn, *, execution: str) -> Identity:
    """What was observed while a case was drawn."""
    height, width = drawn.images.shape[-2:]
    calls: tuple[dict[str, Any], ...] = drawn.calls
    return Identity(
        model=case.recipe.name,
        weights=weights,
        prompts=case.prompts,
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        images_per_prompt=drawn.images_per_prompt,
        width=width,
        height=height,
        execution=execution,
        calls=calls,
    )
