"""What a test may state of the fake backend and benchmark, in ``behaviour.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_mxq.baselines.work import WorkRecord
from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.registry import check_name

BEHAVIOUR = Path("behaviour.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the fake backend and benchmark behave; every field has a default.

    Attributes:
        shift: by format, by how much each image's red differs from BF16's; a thousandth of it is the distance that
            gates score. A list is taken prompt by prompt.
        units: by gate, what a distance of 1 is on its scale; without an entry 1 where lower is better, as for LPIPS,
            and the gate's largest bound where higher is.
        faults: by label of what is generated, sentences of degenerate outputs.
        quantized: how many of five layers are quantized.
        ran: how many of them ran quantized; None: all.
        multiplied: what multiplied them: "native", "emulated", "dequantized".
        work: by format and "bf16", how often the denoiser ran, 8 times by default.
        skipped: layers that some calls of the denoiser left out.
        nan: whether every score is NaN.
        weights: name of the weights.
        unavailable: why the model's weights cannot be loaded, or None.
        free: GiB that are free on the device, or None.
        seconds: by format and "bf16", seconds a call.
        predicted: seconds of BF16's call as short calls predict it, or None.
        short: seconds of BF16's short calls, or None: its calls cannot be short.
        scatter: relative scatter of these.
        peak: by format and "bf16", peak memory, GiB.
        alone: formats that cannot be timed in one session with others.
        short_peak: the same in calls of few steps, where it is another one.
        fixed_steps: whether the workload takes its own number of steps whatever it is asked for.
        environment: why the machine is not fit to be timed on, or None.
        execution: how the timed arms run.
        inductor: name of Inductor's configuration.
        others: processes that the driver lists beside this one.
    """

    shift: dict[str, int | list[int]] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    quantized: int = 4
    ran: int | None = None
    multiplied: str = "emulated"
    work: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    nan: bool = False
    weights: str = "folder:0"
    unavailable: str | None = None
    free: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    predicted: float | None = None
    short: float | None = None
    scatter: float = 0.001
    peak: dict[str, float] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    short_peak: dict[str, float] = field(default_factory=dict)
    fixed_steps: bool = False
    environment: str | None = None
    execution: str = "compiled blocks, default"
    inductor: str = "0123"
    others: tuple[str, ...] = ()

    def peak_of(self, name: str, *, is_short: bool) -> float:
        """Return the peak memory of a format or "bf16", GiB."""
        full = self.peak.get(name, 20.0 if name == "bf16" else 12.0)
        return self.short_peak.get(name, full) if is_short else full

    def work_of(self, name: str, *, steps: int = 8) -> WorkRecord:
        """Return the work of a format or "bf16": five layers in each call of the denoiser, but for what is skipped.

        Args:
            name: the format, or "bf16".
            steps: of the eight that a full call takes.
        """
        calls = self.work.get(name, 8) * steps // 8
        return WorkRecord(
            denoiser_calls={"transformer": calls},
            layer_calls=5 * calls - len(self.skipped),
            layers_sha256="0" * 64,
            other_module_calls=0,
            rest_sha256="0" * 64,
        )

    @classmethod
    def read(cls) -> Behaviour:
        """Return what ``behaviour.json`` in the working directory says, the default without one.

        Raises:
            MxqError: it says something else.
        """
        if not BEHAVIOUR.exists():
            return cls()
        try:
            stated = msgspec.json.decode(BEHAVIOUR.read_bytes(), type=dict[str, object])
            for name in stated:
                check_name("field", name, cls.__dataclass_fields__)
            return msgspec.convert(stated, cls)
        except (msgspec.MsgspecError, UnknownNameError) as error:
            raise MxqError(f"{BEHAVIOUR}: {error}") from None
