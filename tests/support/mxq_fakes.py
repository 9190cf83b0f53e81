"""Backend without torch: small images by PIL, scores that a test writes down. What a gate decides is real."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pytest_mxq.baselines.manifest import Identity, LpipsInfo, Manifest, Selection
from pytest_mxq.errors import CaseFaultError, WeightsUnavailableError
from pytest_mxq.formats import Format
from pytest_mxq.gates.speed_statistics import Sampling, SpeedMode
from pytest_mxq.gates.verdict import Evidence, Outcome, OutputFault, PeakMemory, SpeedSamples, Stop
from pytest_mxq.planning.case import Case


@dataclass(frozen=True, kw_only=True)
class FakeOutputs:
    noun = "image"
    images: tuple[Image.Image, ...]
    positions: tuple[int, ...]
    faults: tuple[OutputFault, ...]
    identity: Identity


class FakeBound:
    """What the workload gets; its result is a colour of the prompt, so that prompts and seeds matter."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.calls: list[dict[str, Any]] = []
        self.pipe = "raw pipeline"

    def __call__(self, prompt: Any, **overrides: Any) -> list[str]:
        self.calls.append({**self.case.recipe.call, **overrides})
        return [prompt] if isinstance(prompt, str) else list(prompt)


class FakeBackend:
    """Reads how to behave from ``behaviour.json`` in the current directory, and logs what it did to ``engine.log``."""

    def __init__(self) -> None:
        self.arms = self  # nothing to release
        path = Path("behaviour.json")
        self.behaviour: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def release(self) -> None:
        """Nothing is held."""

    def free_gib(self, case: Case) -> float | None:
        free: float | None = self.behaviour.get("free")
        return free

    def _log(self, text: str) -> None:
        with Path("engine.log").open("a") as file:
            file.write(text + "\n")

    def _load(self) -> None:
        if "unavailable" in self.behaviour:
            raise WeightsUnavailableError(self.behaviour["unavailable"])

    def generate(
        self,
        case: Case,
        workload: Callable[..., object],
        *,
        label: str,
        chunks: Sequence[int] | None = None,
        shift: Sequence[int] = (0,),
    ) -> FakeOutputs:
        self._load()
        self._log(f"generate {case.recipe.name} {case.name} {label}")
        size = case.settings.batch_size
        starts = list(range(0, len(case.prompts), size))
        images: list[Image.Image] = []
        positions: list[int] = []
        calls: list[dict[str, Any]] = []
        for start in starts if chunks is None else [starts[chunk] for chunk in chunks]:
            texts = case.prompts[start : start + size]
            bound = FakeBound(case)
            result = workload(bound, texts[0] if size == 1 else list(texts))
            if not isinstance(result, list):
                raise CaseFaultError(f"the test returned {type(result).__name__}")
            images += [_image(text, shift[(start + row) % len(shift)]) for row, text in enumerate(result)]
            positions += range(start, start + len(texts))
            calls += [call for call in bound.calls if call not in calls]
        return FakeOutputs(
            images=tuple(images),
            positions=tuple(positions),
            faults=tuple(OutputFault(0, text) for text in self.behaviour.get("faults", {}).get(label, ())),
            identity=_identity(case, calls, self.behaviour.get("weights", "folder:0")),
        )

    def generate_other_execution(
        self, case: Case, workload: Callable[..., object], *, chunks: Sequence[int]
    ) -> FakeOutputs:
        return self.generate(case, workload, label="compiled", chunks=chunks, shift=(1,))

    def generate_quantized(
        self, case: Case, workload: Callable[..., object], number_format: Format, *, emulated: bool
    ) -> FakeOutputs:
        shift = self.behaviour.get("shift", {}).get(number_format.name, 10)
        shifts = shift if isinstance(shift, list) else [shift]
        return self.generate(case, workload, label=number_format.name, shift=shifts)

    def evidence(self, case: Case, number_format: Format, *, emulated: bool) -> Evidence:
        self._load()
        self._log(f"arm {case.recipe.name} {number_format.name}")
        names = [f"blocks.{index}" for index in range(self.behaviour.get("quantized", 4))]
        return Evidence(
            quantized=len(names),
            chosen=len(names),
            total=5,
            weight_share=len(names) / 5,
            weight_bytes=50,
            bf16_bytes=100,
            layers={"blocks.*": len(names)},
            layers_sha256=hashlib.sha256("\n".join(names).encode()).hexdigest(),
        )

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        return Selection.of([f"blocks.{index}" for index in range(4)], total=5, weight_share=0.8)

    def stored(self, manifest: Manifest, media: Sequence[Image.Image]) -> FakeOutputs:
        return FakeOutputs(
            images=tuple(media), positions=tuple(range(len(media))), faults=(), identity=manifest.identity
        )

    def media(self, outputs: FakeOutputs) -> list[Image.Image]:
        return list(outputs.images)

    def subset(self, outputs: FakeOutputs, positions: Sequence[int]) -> FakeOutputs:
        rows = [outputs.positions.index(position) for position in positions]
        return FakeOutputs(
            images=tuple(outputs.images[row] for row in rows),
            positions=tuple(positions),
            faults=outputs.faults,
            identity=outputs.identity,
        )

    def score(self, gate: str, reference: FakeOutputs, other: FakeOutputs) -> list[float]:
        """LPIPS is the difference of the first pixel's red / 1000; the others follow from it."""
        lpips = [abs(_red(one) - _red(two)) / 1000 for one, two in zip(reference.images, other.images, strict=True)]
        if "nan" in self.behaviour:
            return [float("nan")] * len(lpips)
        values = {"lpips": lpips, "ssim": [1 - x for x in lpips], "psnr": [60 - 1000 * x for x in lpips]}
        return {**values, "flicker": lpips, "audio": [1000 * x for x in lpips]}[gate]

    def are_identical(self, reference: FakeOutputs, other: FakeOutputs) -> bool:
        return [image.tobytes() for image in reference.images] == [image.tobytes() for image in other.images]

    def differences(self, reference: FakeOutputs, other: FakeOutputs) -> tuple[str, ...]:
        return ()

    def image(self, gate: str, outputs: FakeOutputs, index: int, frame: int | None) -> Image.Image:
        return outputs.images[index]

    def lpips_info(self) -> LpipsInfo:
        return LpipsInfo(net="alex", version="0", weights_sha256="0" * 64)


def _image(text: str, shift: int) -> Image.Image:
    base = hashlib.sha256(text.encode()).digest()
    return Image.new("RGB", (16, 16), (base[0] // 2 + shift, base[1], base[2]))


def _red(image: Image.Image) -> int:
    pixel = image.getpixel((0, 0))
    if not isinstance(pixel, tuple):
        raise TypeError(pixel)
    return int(pixel[0])


def _identity(case: Case, calls: list[dict[str, Any]], weights: str) -> Identity:
    return Identity(
        model=case.recipe.name,
        weights=weights,
        prompts=case.prompts,
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        images_per_prompt=1,
        width=16,
        height=16,
        execution=case.settings.execution.value,
        calls=tuple(calls),
    )


class FakeBenchmark:
    """Times as ``behaviour.json`` says: seconds of BF16 and of each format, a little scatter on both."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.behaviour = backend.behaviour

    def evidence(self, case: Case, number_format: Format) -> Evidence:
        return self.backend.evidence(case, number_format, emulated=False)

    def _times(self, name: str, count: int) -> tuple[float, ...]:
        base = self.behaviour.get("seconds", {}).get(name, 1.0)
        scatter = self.behaviour.get("scatter", 0.001)
        wave = (0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.3, 0.2)
        return tuple(base * (1 + scatter * wave[(i + len(name)) % len(wave)]) for i in range(count))

    def _observed(self, case: Case, workload: Callable[..., object]) -> Identity:
        bound = FakeBound(case)
        workload(bound, case.prompts[0])
        return _identity(case, bound.calls, self.behaviour.get("weights", "folder:0"))

    def time_live(
        self, case: Case, workload: Callable[..., object], number_format: Format, *, sampling: Sampling, seed: int
    ) -> tuple[SpeedSamples, Identity]:
        self.backend._log(f"live {number_format.name}")
        self.backend._log(f"limits {sampling.max_rounds} {sampling.max_seconds}")
        samples = SpeedSamples(
            mode=SpeedMode.LIVE,
            bf16=self._times("bf16", 8),
            quantized=self._times(number_format.name, 8),
            environment=self.behaviour.get("environment", ""),
            start_seed=seed,
            execution="compiled blocks, default",
            first_call=(20.0, 11.0),
            throttle_share=0.0,
            power_cap_share=0.5,
        )
        return samples, self._observed(case, workload)

    def time_quantized(
        self,
        case: Case,
        workload: Callable[..., object],
        number_format: Format,
        sessions: tuple[tuple[float, ...], ...],
    ) -> tuple[SpeedSamples, Identity]:
        self.backend._log(f"stored {number_format.name}")
        samples = SpeedSamples(
            mode=SpeedMode.STORED, bf16=(), quantized=self._times(number_format.name, 8), sessions=sessions
        )
        return samples, self._observed(case, workload)

    def time_bf16(self, case: Case, workload: Callable[..., object]) -> FakeTimed:
        self.backend._log("session")
        if "environment" in self.behaviour:
            raise Stop(Outcome.ENVIRONMENT, f"nothing was stored: {self.behaviour['environment']}")
        return FakeTimed(
            seconds=self._times("bf16", 8),
            peak_gib=20.0,
            execution=self.execution(case),
            identity=self._observed(case, workload),
        )

    def measure_memory(
        self, case: Case, workload: Callable[..., object], number_format: Format | None
    ) -> tuple[PeakMemory, Identity]:
        name, usual = ("bf16", 20.0) if number_format is None else (number_format.name, 12.0)
        self.backend._log(f"weigh {name}")
        peak = self.behaviour.get("peak", {}).get(name, usual)
        return PeakMemory(allocated_gib=peak, reserved_gib=peak + 1), self._observed(case, workload)

    def process_number(self) -> str:
        return ""

    def execution(self, case: Case) -> str:
        return str(self.behaviour.get("execution", "compiled blocks, default"))

    def inductor_digest(self) -> str:
        return str(self.behaviour.get("inductor", "0123"))


@dataclass(frozen=True, kw_only=True)
class FakeTimed:
    seconds: tuple[float, ...]
    peak_gib: float | None
    execution: str
    identity: Identity
