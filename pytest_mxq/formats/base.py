"""What a format is, and the registry of formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_mxq.errors import MxqError

_NAME = re.compile(r"[a-z0-9][a-z0-9._]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCaution:
    """What is known to go wrong with a format from some batch size on.

    Attributes:
        from_size: smallest batch size that it concerns.
        model: name of the model on which it was seen.
        report: where it is written.
    """

    from_size: int
    model: str
    report: str

    def said_of(self, model: str) -> str:
        """Return what is known of a model."""
        if model == self.model:
            return f"fails from batch size {self.from_size} on, {self.report}"
        return f"{self.model} fails from batch size {self.from_size} on ({self.report}); of {model} nothing is known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A number format of the quantized arm.

    An outsider registers one by the hook, in a plugin or in the root ``conftest.py``, with no less rights than the
    built-in ones. The builders are called only when an arm is built, so their imports belong inside them:

        def int8_configuration() -> object:
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig

            return Int8DynamicActivationInt8WeightConfig()

        def pytest_mxq_formats():
            return [
                Format(
                    name="int8",
                    summary="INT8, one scale for a row",
                    capability=(8, 0),
                    in_multiple=16,
                    out_multiple=16,
                    native=int8_configuration,
                    emulation=None,
                )
            ]

    Attributes:
        name: what ``--mxq-formats``, bounds and test ids call it: lower-case letters, digits, dots and underscores.
            No hyphen: an id is ``<format>-<gate>``, a bound's key may be ``<format>-emulated``. Not "bf16".
        summary: one line, for lists of the formats.
        capability: the lowest CUDA compute capability (major, minor) that runs it natively.
        in_multiple: a Linear's in_features must be a multiple of this, otherwise the layer stays in BF16 and is listed.
        out_multiple: the same for out_features.
        native: builds the configuration for torchao's ``quantize_``. What it sets of Inductor's configuration is put
            back: both arms of a comparison compile under one.
        emulation: builds the configuration that has the same numerics on any device; None: cannot be emulated.
        packages: what its kernels need beside pytest-mxq's own dependencies, such as "mslk-cuda>=1.0".
        weight_ratio: bytes of a quantized weight over those of BF16, scales included; an arm that holds more is not
            this format. None: not checked.
        weight_only: whether activations stay in BF16 and are multiplied with dequantized weights; otherwise an arm that
            does so, native or emulated, is not this format.
        batch_caution: what is known of large batches; shown at collection, and hinders nothing.
    """

    name: str
    summary: str
    capability: tuple[int, int]
    in_multiple: int
    out_multiple: int
    native: Callable[[], object]
    emulation: Callable[[], object] | None
    packages: tuple[str, ...] = ()
    weight_ratio: float | None = None
    weight_only: bool = False
    batch_caution: BatchCaution | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise MxqError(
                f"format name {self.name!r} is not allowed: lower-case letters, digits, '.' and '_', a letter or digit"
                " first (no hyphen: test ids are '<format>-<gate>')"
            )
        if self.name == "bf16":
            raise MxqError("format name 'bf16' is not allowed: it is the baseline's; choose another name")
        for field in ("in_multiple", "out_multiple"):
            if getattr(self, field) < 1:
                raise MxqError(f"format {self.name!r}: {field} is {getattr(self, field)}; it must be 1 or more")
        if not _is_capability(self.capability):
            raise MxqError(f"format {self.name!r}: capability must be (major, minor), got {self.capability!r}")
        if not isinstance(self.packages, tuple) or not all(map(_is_requirement, self.packages)):
            raise MxqError(
                f"format {self.name!r}: packages must be a tuple of requirements such as 'mslk-cuda>=1.0', got "
                f"{self.packages!r}"
            )

    def fits(self, in_features: int, out_features: int) -> bool:
        """Return whether a Linear of this shape can be quantized."""
        return self.misfit(in_features, out_features) is None

    def misfit(self, in_features: int, out_features: int) -> str | None:
        """Return why a Linear of this shape cannot be quantized; None if it can."""
        if in_features % self.in_multiple:
            return f"in_features {in_features} is not a multiple of {self.in_multiple}"
        if out_features % self.out_multiple:
            return f"out_features {out_features} is not a multiple of {self.out_multiple}"
        return None


def _is_capability(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, int) for part in value)


def _is_requirement(text: object) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return isinstance(text, str) and bool(Requirement(text))
    except InvalidRequirement:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """Builder of a built-in format's emulation, for `Format.emulation`.

    Attributes:
        number_format: value of the `pytest_mxq.formats.emulation.numerics.NumberFormat` to emulate.
    """

    number_format: str

    def __call__(self) -> object:
        """Build the configuration for torchao's ``quantize_``."""
        from pytest_mxq.formats.emulation.numerics import NumberFormat
        from pytest_mxq.formats.emulation.tensor import EmulationConfig

        return EmulationConfig(number_format=NumberFormat(self.number_format))
