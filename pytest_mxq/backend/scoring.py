"""What gates see of outputs: scores and previews, by the gates' own functions. Imported only when a gate runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mxq.metrics.lpips_map import map_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from pytest_mxq.backend.output_set import GeneratedOutputs
    from pytest_mxq.gates.base import AccuracyGate


class TorchScorer:
    """Hands outputs to gates in copies: the next gates judge what was generated, whatever one writes into them."""

    def score(self, gate: AccuracyGate, reference: GeneratedOutputs, other: GeneratedOutputs) -> list[float]:
        """Return a gate's values: image by image, frame by frame, or video by video.

        Raises:
            MxqError: the gate cannot score such outputs.
        """
        return [float(value) for value in gate.score(reference.copied(), other.copied())]

    def preview(self, gate: AccuracyGate, outputs: GeneratedOutputs, index: int, frame: int | None) -> Any:
        """Return the PIL image of what a gate looked at: an image, a frame, a spectrogram."""
        return gate.preview(outputs.copied(), index, frame)

    def lpips_map(self, reference: Image, quantized: Image) -> tuple[Image, float] | None:
        """Return where two images differ, and the value that is white; None where LPIPS has no value."""
        return map_image(reference, quantized)
