"""Build arms once and reuse them: one base model at a time, one quantized arm beside it, or one of each format."""

from __future__ import annotations

import gc
import inspect
from collections import Counter
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from pytest_mxq.errors import WeightsUnavailableError
from pytest_mxq.formats import Format
from pytest_mxq.gates.evidence import Evidence
from pytest_mxq.models import ModelSource, Recipe, SelectionRule
from pytest_mxq.pipelines.compile import CompileMode, compile_blocks
from pytest_mxq.pipelines.load import LoadedPipeline, load_pipeline
from pytest_mxq.pipelines.prompt_embeddings import Chunk, PromptEmbeddings
from pytest_mxq.pipelines.quantize import (
    Chosen,
    choose_layers,
    collect_evidence,
    denoisers_of,
    quantize_layers,
    share_copy,
)
from pytest_mxq.pipelines.random_weights import load_random


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How an arm runs.

    Attributes:
        compiled: the compilation mode of its repeated blocks; None: eager.
        for_time: whether it is compiled for speed, or with the roundings of eager execution for its images. Two arms
            that differ in this are not the same: what is compiled first stays.
    """

    compiled: CompileMode | None = None
    for_time: bool = False

    @property
    def text(self) -> str:
        """Return the execution mode as a baseline records it."""
        return "eager" if self.compiled is None else f"compiled blocks, {self.compiled.value}"


EAGER = How()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One pipeline in one format.

    Attributes:
        pipe: the pipeline.
        weights: name of its weights, for a case's identity.
        evidence: proof of quantization; None for BF16.
        chosen: what the rule chose; None for BF16.
        how: how it runs.
        denoisers: names of the pipeline's denoisers, the quantized one first.
    """

    pipe: Any
    weights: str
    evidence: Evidence | None = None
    chosen: Chosen | None = None
    how: How = EAGER
    denoisers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resident:
    """A loaded model: the pipeline that arms are copied from and that never generates, and its eager BF16 arm."""

    source: ModelSource
    loaded: LoadedPipeline
    base: Arm


class ArmStore:
    """The arms of a session.

    What is resident: the loaded pipeline in BF16 and, beside it, the quantized parameters of one arm, which shares
    every other tensor with it (the BF16 arms share all). Asking for another model frees them first.

    The loaded pipeline itself never generates: every arm, BF16 too, is a pipeline of its own around a copy of the
    loaded denoiser's module tree, and a recipe's ``prepare`` acts on that one, after it was quantized. A hook on a
    module that is copied afterwards closes over the original's ``forward``, and would run the original's BF16 layers in
    the quantized arm.

    - Images: one arm at a time generates, and the text encoders wait on the CPU. Resident: the base without them, the
      quantized weights of one arm, a call. Once a case, before that, the encoders come back to embed its prompts; where
      the device is too full for them, the quantized arm leaves and is built again afterwards.
    - Speed: both arms, or those of all formats that one session times, and the encoders, which every timed call runs,
      as the published calls did, and a call.
    - Memory: the same; the weights that an arm does not use itself are subtracted from its peak, the encoders' are not.

    Need at batch size 1 in GiB, and in brackets the largest batch size for which a device of 80, 141 and 180 GB (79.6,
    140.4 and 179 GiB) has enough memory:

    ==========  =================  =================  ==================
    model       images           emulated images  speed and memory
    ==========  =================  =================  ==================
    FLUX.1-dev  38.1 (21, 52, 71)  48.8 (16, 46, 66)  47.2 (17, 47, 66)
    Qwen-Image  53.7 (8, 23, 33)   55.4 (7, 22, 31)   64.6 (4, 19, 29)
    LTX-2       63.4 (4, 17, 26)   80.2 (0, 14, 22)   86.1 (0, 12, 21)
    ==========  =================  =================  ==================

    From the weights (FLUX.1-dev 31.4: denoiser 22.2, encoders 9.1; Qwen-Image 53.7: 38.1, 15.5, and its rule quantizes
    a third; LTX-2 63.0: 35.2, 22.7), 0.52 of BF16's bytes for a quantized weight and 1.0 for an emulated one, and a
    call and an image (video) from the published peaks: 2.3 + 2.0, 0.2 + 4.0, 0.2 + 4.6. `MemoryNeed` does the sums.

    Attributes:
        builds: how often each arm was built, by (model, format).
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._resident: _Resident | None = None
        self._embeddings: PromptEmbeddings | None = None  # of the base; None where no text encoder is
        self._arms: dict[str, tuple[tuple[object, ...], Arm]] = {}  # "bf16" compiled, and quantized ones by format
        self._unavailable: dict[tuple[str, str | None], str] = {}  # why a model is not available
        self._compiled_for_time: bool | None = None  # what the compiled code in this process is for
        self.builds: Counter[tuple[str, str]] = Counter()

    def base(self, source: ModelSource) -> Arm:
        """Return the BF16 arm of a model in eager execution, loading it at the first request.

        Raises:
            MxqError: its weights are not available.
        """
        return self._load_once(source).base

    def _load_once(self, source: ModelSource) -> _Resident:
        if self._resident is None or self._resident.source != source:
            self.release()
            loaded = self._load(source)
            base = _build(source.recipe, loaded, None, emulated=False, how=EAGER)
            self._resident = _Resident(source=source, loaded=loaded, base=base)
            if not source.random and hasattr(loaded.pipe, "encode_prompt"):  # random weights have small tables instead
                free_memory = partial(self.drop, "quantized")  # it is built again when it is asked for
                self._embeddings = PromptEmbeddings(loaded.pipe, device=self._device, free_memory=free_memory)
            self.builds[source.recipe.name, "bf16"] += 1
        return self._resident

    def holds(self, source: ModelSource) -> bool:
        """Return whether a model is loaded."""
        return self._resident is not None and self._resident.source == source

    def _load(self, source: ModelSource) -> LoadedPipeline:
        """Load a model, or repeat why it is not available: an unreachable Hub costs its timeout once a session."""
        if source.random:
            return load_random(source.recipe, device=self._device)
        key = source.recipe.name, source.revision
        if key in self._unavailable:
            raise WeightsUnavailableError(self._unavailable[key])
        try:
            return load_pipeline(source.recipe, revision=source.revision, device=self._device)
        except WeightsUnavailableError as error:
            self._unavailable[key] = str(error)
            raise

    def arm(
        self,
        source: ModelSource,
        number_format: Format | None,
        *,
        emulated: bool,
        rule: SelectionRule | None = None,
        how: How = EAGER,
        beside: Collection[Format] = (),
    ) -> Arm:
        """Return the arm of a model in a format (None: BF16), quantizing and compiling it at the first request.

        Args:
            source: the model.
            number_format: the format.
            emulated: whether its numerics are emulated.
            rule: which layers are quantized; None: the recipe's published rule.
            how: how it runs.
            beside: formats whose arms may stay beside it; those of all others are freed.
        """
        resident = self._load_once(source)
        self._place_encoders(how)
        if number_format is None and how.compiled is None:
            return resident.base
        self._separate(how)
        slot = number_format.name if number_format else "bf16"
        key = (number_format, emulated, rule, how)
        self._free_others(slot, beside)
        if slot not in self._arms or self._arms[slot][0] != key:
            self._free({slot})
            recipe = source.recipe if rule is None else replace(source.recipe, rule=rule)
            self._arms[slot] = key, _build(recipe, resident.loaded, number_format, emulated=emulated, how=how)
            self.builds[source.recipe.name, number_format.name if number_format else "bf16-compiled"] += 1
        return self._arms[slot][1]

    def embedding(self, arm: Arm, chunks: tuple[Chunk, ...]) -> AbstractContextManager[None]:
        """Let an arm generate images with prompt embeddings that are computed once for all arms of the model.

        Args:
            arm: an arm of the model that is resident.
            chunks: the chunks of prompts of its whole case.
        """
        return nullcontext() if self._embeddings is None else self._embeddings.serving(arm.pipe, chunks)

    def _place_encoders(self, how: How) -> None:
        """Put the text encoders where an arm needs them: on the device for speed and memory, on the CPU for images."""
        if self._embeddings is None:
            return
        if how.for_time:
            self._embeddings.bring_encoders()
        else:
            self._embeddings.put_encoders_away()

    def _separate(self, how: How) -> None:
        """Drop compiled arms whose code was compiled for the other purpose.

        Dynamo keeps one cache for all blocks of a class and does not guard Inductor's configuration, so an arm that is
        compiled for time would run the graphs that were compiled for faithful images before it.
        """
        if how.compiled is None or self._compiled_for_time is how.for_time:
            return
        if self._compiled_for_time is not None:
            self._arms.clear()
            torch._dynamo.reset()  # noqa: SLF001
            _collect()
        self._compiled_for_time = how.for_time

    def choose(self, source: ModelSource, number_format: Format, rule: SelectionRule) -> Chosen:
        """Return the layers that would be quantized."""
        loaded = self._load_once(source).loaded
        return choose_layers(getattr(loaded.pipe, source.recipe.denoiser), rule, number_format)

    def drop(self, slot: str) -> None:
        """Free the compiled "bf16" or every "quantized" arm."""
        self._free({"bf16"} if slot == "bf16" else self._arms.keys() - {"bf16"})

    def _free_others(self, slot: str, beside: Collection[Format]) -> None:
        """Free the quantized arms that are not to stay beside the one that is asked for; BF16 stays."""
        stay = {"bf16", slot, *(number_format.name for number_format in beside)}
        if slot != "bf16" and not self._arms.keys() <= stay:
            self._free(self._arms.keys() - stay)

    def _free(self, slots: Collection[str]) -> None:
        for slot in slots:
            self._arms.pop(slot, None)
        _collect()

    def release(self) -> None:
        """Free every arm."""
        self._arms.clear()
        self._resident = self._embeddings = None
        _collect()


def _build(recipe: Recipe, loaded: LoadedPipeline, number_format: Format | None, *, emulated: bool, how: How) -> Arm:
    """Build an arm around a copy of the loaded denoiser: quantize, prepare, collect the evidence, compile."""
    denoiser = share_copy(getattr(loaded.pipe, recipe.denoiser))
    chosen = None
    if number_format is not None:
        chosen = choose_layers(denoiser, recipe.rule, number_format)
        quantize_layers(denoiser, chosen, number_format, emulated=emulated)
    pipe = _pipeline_around(denoiser, loaded.pipe, recipe)
    denoiser = getattr(pipe, recipe.denoiser)  # `prepare` may have put another one there
    evidence = None
    if chosen is not None and number_format is not None:
        evidence = collect_evidence(denoiser, chosen, number_format.weight_ratio, recipe.rule.min_features)
    if how.compiled is not None:
        compile_blocks(denoiser, mode=how.compiled)
    denoisers = denoisers_of(pipe, recipe.denoiser)
    return Arm(pipe=pipe, weights=loaded.weights, evidence=evidence, chosen=chosen, how=how, denoisers=denoisers)


def _pipeline_around(denoiser: torch.nn.Module, loaded: Any, recipe: Recipe) -> Any:
    """Return a pipeline with this denoiser and the loaded one's other components, prepared as the recipe says."""
    # What a pipeline is given beside its components (such as Wan's boundary_ratio) is in its configuration alone.
    settings = inspect.signature(type(loaded).__init__).parameters.keys() - loaded.components.keys()
    given = {name: loaded.config[name] for name in settings if name in loaded.config}
    pipe = type(loaded)(**given, **{**loaded.components, recipe.denoiser: denoiser})
    pipe.set_progress_bar_config(disable=True)
    if recipe.prepare is not None:
        recipe.prepare(pipe)
    return pipe


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
