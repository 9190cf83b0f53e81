"""Run a workload for images: chunks of prompts, one generator an image, the call observed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.pipelines.isolation import HeldPipeline
from pytest_mxq.pipelines.originals import Original, changed_original
from pytest_mxq.pipelines.outputs import Returned, VideoInfo, join, read_returned
from pytest_mxq.pipelines.work import Work
from pytest_mxq.pipelines.work_counter import WorkCounter

OURS = ("generator", "output_type")
PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt")
_PLANNED = frozenset({"pipe", "prompts", "first_index", "seed", "forced"})
Workload = Callable[["BoundPipeline", str | list[str]], object]


@dataclass(slots=True, kw_only=True)
class BoundPipeline:
    """What a workload gets as ``mxq_pipeline``: the pipeline with the recipe's arguments and our noise bound.

    What decides which noise the images have cannot be set.

    Attributes:
        pipe: the pipeline itself.
        arguments: the recipe's call arguments.
        seeds: seed of the first image of each prompt of this chunk.
        forced: arguments that take the place of the test's own, such as fewer steps; they are not observed.
        calls: what was called, one entry a call, without prompt, generator and output type.
    """

    pipe: Any
    arguments: Mapping[str, Any]
    prompts: tuple[str, ...]
    first_index: int
    seed: int
    forced: Mapping[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    images_per_prompt: int = 1

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute that does not decide the noise.

        Raises:
            CaseFaultError: it does, and was set before.
        """
        if name in _PLANNED and hasattr(self, name):
            raise CaseFaultError(
                f"the test set mxq_pipeline.{name} from {getattr(self, name)!r} to {value!r}: which prompts are "
                "generated from which noise is the plugin's; the seed is set by mxq(seed=...)"
            )
        object.__setattr__(self, name, value)  # super() of a class with slots is the one without

    def __call__(self, prompt: str | Sequence[str] | None = None, **overrides: Any) -> Any:
        """Call the pipeline; any argument may be overridden but ``generator`` and ``output_type``.

        Args:
            prompt: the prompt or prompts; None: the pipeline is given none, but embeddings or an image.
            overrides: arguments of the pipeline's call, over the recipe's.

        Raises:
            CaseFaultError: an argument that is not the workload's to give.
        """
        for name in OURS:
            if name in overrides:
                raise CaseFaultError(
                    f"mxq_pipeline(...): {name}= is the plugin's own (one generator an image, tensors for probes); "
                    f"leave it out; the seed is set by mxq(seed=...)"
                )
        arguments = {**self.arguments, **overrides}
        self.images_per_prompt = int(next((arguments[name] for name in PER_PROMPT if arguments.get(name)), 1))
        self.calls.append(_observe(prompt, self.prompts, arguments))
        passed = _with_prompt(prompt, {**arguments, **self.forced})
        return self.pipe(**passed, generator=self._generators(), output_type="pt")

    def _generators(self) -> list[torch.Generator]:
        first = self.seed + self.first_index * self.images_per_prompt
        count = len(self.prompts) * self.images_per_prompt
        return [torch.Generator("cpu").manual_seed(first + offset) for offset in range(count)]


@dataclass(slots=True, kw_only=True)
class TimedPipeline:
    """What a workload gets while it is timed: the same call, with nothing observed and the generators made before."""

    pipe: Any
    arguments: Mapping[str, Any]
    generators: list[torch.Generator]
    seed: int
    forced: Mapping[str, Any] = field(default_factory=dict)
    given: list[tuple[object, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, prompt: str | Sequence[str] | None = None, **overrides: Any) -> Any:
        """Call the pipeline with the same noise each time."""
        self.given.append((prompt, overrides))  # looked at afterwards, outside the timed region
        for offset, generator in enumerate(self.generators):
            generator.manual_seed(self.seed + offset)
        arguments = _with_prompt(prompt, {**self.arguments, **overrides, **self.forced})
        return self.pipe(**arguments, generator=self.generators, output_type="pt")


def _with_prompt(prompt: str | Sequence[str] | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return call arguments with the prompts, and with one negative prompt for each of several prompts.

    QwenImagePipeline does not do the latter itself, and fails where a prompt gets more than one image.
    """
    if prompt is None:
        return arguments
    if isinstance(prompt, str):
        return {**arguments, "prompt": prompt}
    texts, negative = list(prompt), arguments.get("negative_prompt")
    if isinstance(negative, str):
        arguments = {**arguments, "negative_prompt": [negative] * len(texts)}
    return {**arguments, "prompt": texts}


class RunCounter:
    """Counts timed runs, and the calls of the denoisers in them: integers and shapes, no synchronisation.

    Attributes:
        runs: runs of the workload.
        is_running: whether one is under way; calls beside it do not count.
        shapes: shape of the hidden states of each call, by denoiser.
    """

    def __init__(self, pipe: Any, denoisers: tuple[str, ...]) -> None:
        self.runs = 0
        self.is_running = False
        self._hooks: list[Any] = []
        self.shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in denoisers}
        modules = {name: getattr(pipe, name, None) for name in denoisers}
        for name, module in modules.items():
            if isinstance(module, torch.nn.Module):
                self._hooks.append(module.register_forward_pre_hook(partial(self._count, name), with_kwargs=True))

    def close(self) -> None:
        """Stop counting."""
        for hook in self._hooks:
            hook.remove()

    def _count(self, name: str, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not self.is_running:
            return
        hidden = kwargs.get("hidden_states", kwargs.get("sample", args[0] if args else None))
        self.shapes[name].append(tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCall:
    """One whole call of a workload, to be timed.

    Attributes:
        run: makes the call.
        once: what was generated and observed the first time, before anything was timed.
    """

    run: Callable[[], object]
    once: Generated
    bound: TimedPipeline
    prompts: tuple[str, ...]
    counter: RunCounter

    def check(self) -> None:
        """Compare the timed calls with the first one, which alone was observed.

        Raises:
            CaseFaultError: one did something else; names the first argument that changed.
        """
        self.counter.close()
        expected = self.once.calls
        for index, (prompt, overrides) in enumerate(self.bound.given):
            done = _observe(prompt, self.prompts, {**self.bound.arguments, **overrides})
            first = expected[index % len(expected)]
            changed = [name for name in sorted({*done, *first}) if done.get(name) != first.get(name)]
            if changed:
                name = changed[0]
                raise CaseFaultError(
                    f"the workload did something else while it was timed than before: {name} {first.get(name)!r} -> "
                    f"{done.get(name)!r}; every call must do the same"
                )
        runs = self.counter.runs
        if len(self.bound.given) != runs * len(expected):
            raise CaseFaultError(
                f"the workload called the pipeline {len(expected)} times before it was timed, and "
                f"{len(self.bound.given)} times in {runs} runs while it was; every run must do the same"
            )
        once = next(iter(self.once.works.values()))
        for name, shapes in once.hidden_shapes:
            ran, wanted = self.counter.shapes.get(name, []), list(shapes) * runs
            if ran != wanted:
                raise CaseFaultError(
                    f"the denoiser {name} ran {len(shapes)} times in the call before it was timed, and {len(ran)} "
                    f"times in {runs} timed runs ({len(wanted)} expected, of the same shapes); every run must do the "
                    "same work"
                )


def timed_call(workload: Workload, pipe: Any, arguments: Mapping[str, Any], series: Series) -> TimedCall:
    """Return one whole call of a workload, to be timed: the first prompt, ``batch_size`` times.

    It is run once here, observed, to learn how many generators the call needs.

    Raises:
        CaseFaultError: the workload returned no images.
    """
    prompts = (series.prompts[0],) * series.batch_size
    once = generate(workload, pipe, arguments, replace(series, prompts=prompts))
    generators = [torch.Generator("cpu") for _ in once.seeds]
    bound = TimedPipeline(pipe=pipe, arguments=arguments, generators=generators, seed=series.seed, forced=series.forced)
    handle: Any = bound
    prompt = prompts[0] if series.batch_size == 1 else list(prompts)

    counter = RunCounter(pipe, series.denoisers)

    def run() -> object:
        counter.runs += 1
        counter.is_running = True
        try:
            with torch.no_grad():
                return workload(handle, prompt)
        finally:
            counter.is_running = False

    return TimedCall(run=run, once=once, bound=bound, prompts=prompts, counter=counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The images or videos of a workload.

    Attributes:
        images: float tensor (N, 3, H, W) on the CPU, about 0 to 1, in the order of the prompts; of a video its frames.
        video: what makes videos of the images; None: they are images.
        seeds: seed of each image or video.
        images_per_prompt: images or videos of each prompt.
        calls: what was really called: each distinct call once, in order.
        works: what each chunk ran, by the index of its first prompt.
        originals: what the pipeline generated in the chunks whose outputs the workload changed, by the same index.
    """

    images: torch.Tensor
    video: VideoInfo | None
    seeds: tuple[int, ...]
    images_per_prompt: int
    calls: tuple[dict[str, Any], ...]
    works: Mapping[int, Work]
    originals: Mapping[int, Original]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is generated: prompts in consecutive chunks, the last one short.

    Attributes:
        prompts: all prompts of the case.
        batch_size: prompts of one chunk.
        seed: the image of prompt index i, image j has seed ``seed + i * images_per_prompt + j``.
        chunks: indices of the chunks to generate; None: all of them.
        denoisers: names of the pipeline's denoisers, whose work is counted.
        forced: arguments that take the place of the test's own in every call.
    """

    prompts: tuple[str, ...]
    batch_size: int
    seed: int
    chunks: tuple[int, ...] | None = None
    denoisers: tuple[str, ...] = ("transformer",)
    forced: Mapping[str, Any] = field(default_factory=dict)

    @property
    def starts(self) -> list[int]:
        """Return the index of the first prompt of each chunk to generate."""
        starts = range(0, len(self.prompts), self.batch_size)
        return list(starts) if self.chunks is None else [starts[index] for index in self.chunks]


def generate(
    workload: Workload,
    pipe: Any,
    arguments: Mapping[str, Any],
    series: Series,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    held: HeldPipeline | None = None,
) -> Generated:
    """Generate images with a workload.

    Args:
        workload: called once a chunk with a BoundPipeline and its prompt (a list where batch_size is above 1).
        pipe: the pipeline.
        arguments: the recipe's call arguments.
        series: what is generated.
        progress: told (chunks done, chunks in all).
        held: the pipeline as it is, where that is known already.

    Raises:
        CaseFaultError: the workload returned no images or videos, a wrong number of them, or those of something else
            than the pipeline that it was handed.
    """
    parts: list[Returned] = []
    bounds: list[BoundPipeline] = []
    works: dict[int, Work] = {}
    originals: dict[int, Original] = {}
    for done, start in enumerate(series.starts):
        progress(done, len(series.starts))
        texts = series.prompts[start : start + series.batch_size]
        bound = BoundPipeline(
            pipe=pipe,
            arguments=arguments,
            prompts=texts,
            first_index=start,
            seed=series.seed,
            forced=series.forced,
        )
        with torch.no_grad(), WorkCounter(pipe, series.denoisers, held) as counter:
            result = workload(bound, texts[0] if series.batch_size == 1 else list(texts))
        held = counter.held
        parts.append(_returned(result, bound))
        if not counter.came_from(result):
            raise CaseFaultError(
                "the test returned something else than what mxq_pipeline(...) generated in this call (outputs of "
                "another pipeline, or kept from an earlier call): what is judged must come from the pipeline that it "
                "was handed"
            )
        bounds.append(bound)
        original = changed_original(counter.originals, parts[-1])
        works[start] = replace(counter.work, has_changed_outputs=original is not None)
        originals |= {} if original is None else {start: original}
    progress(len(series.starts), len(series.starts))
    return replace(_generated(join(parts), bounds, series.seed, works), originals=originals)


def _generated(returned: Returned, bounds: list[BoundPipeline], seed: int, works: Mapping[int, Work]) -> Generated:
    per_prompt = bounds[0].images_per_prompt
    seeds = [
        seed + (bound.first_index + offset) * per_prompt + image
        for bound in bounds
        for offset in range(len(bound.prompts))
        for image in range(per_prompt)
    ]
    distinct = {json.dumps(bound.calls, sort_keys=True): bound.calls for bound in bounds}
    return Generated(
        images=returned.images,
        video=returned.video,
        seeds=tuple(seeds),
        images_per_prompt=per_prompt,
        calls=tuple(call for calls in distinct.values() for call in calls),
        works=works,
        originals={},
    )


def _returned(result: object, bound: BoundPipeline) -> Returned:
    """Read what a workload returned: one image or video for each that was asked for."""
    returned = read_returned(result, bound.pipe, bound.calls[-1] if bound.calls else {})
    expected = len(bound.prompts) * bound.images_per_prompt
    noun = "images" if returned.video is None else "videos"
    if returned.count != expected:
        raise CaseFaultError(f"the test returned {returned.count} {noun} for {expected} (prompts x {noun} per prompt)")
    if not bound.calls:
        raise CaseFaultError(f"the test returned {noun} without calling mxq_pipeline(...); nothing would be gated")
    return returned


def _observe(prompt: object, planned: tuple[str, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    passed = (prompt,) if isinstance(prompt, str) else tuple(prompt) if isinstance(prompt, Sequence) else prompt
    observed = {name: _canonical(value) for name, value in sorted(arguments.items()) if name != "return_dict"}
    return observed if passed == planned else {**observed, "prompt": _canonical(passed)}


def _canonical(value: object) -> Any:
    """Return a call argument as JSON that is equal for equal arguments in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"tensor {tuple(value.shape)} {value.dtype} sha256:{hashlib.sha256(data).hexdigest()}"
    if callable(getattr(value, "tobytes", None)):  # PIL images and NumPy arrays
        return f"{type(value).__name__} sha256:{hashlib.sha256(value.tobytes()).hexdigest()}"  # type: ignore[attr-defined]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', type(value).__module__)}.{name}"
