"""Which arm of a case is asked for: BF16 or a format, emulated or not, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pytest_mxq.planning.settings import Execution

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import GatePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """Which arm of a case: BF16 or a format, emulated or not, and how it runs.

    Attributes:
        number_format: None: BF16.
    """

    number_format: Format | None
    emulated: bool
    execution: Execution

    @classmethod
    def bf16(cls, case: Case) -> Self:
        """Return the BF16 arm in the case's execution mode."""
        return cls(number_format=None, emulated=False, execution=case.settings.execution)

    @classmethod
    def bf16_otherwise(cls, case: Case) -> Self:
        """Return the BF16 arm in the other execution mode, for the noise floor."""
        other = Execution.AS_SPEED if case.settings.execution is Execution.EAGER else Execution.EAGER
        return cls(number_format=None, emulated=False, execution=other)

    @classmethod
    def quantized(cls, plan: GatePlan) -> Self:
        """Return the quantized arm that a plan judges."""
        return cls(number_format=plan.number_format, emulated=plan.emulated, execution=plan.case.settings.execution)

    @property
    def name(self) -> str:
        """Name of the format, or "bf16"."""
        return "bf16" if self.number_format is None else self.number_format.name
