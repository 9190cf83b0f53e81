"""What a model is: its pipeline, its published call, which layers are quantized, its prompts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_mxq.baselines.paths import check_model_name
from pytest_mxq.errors import MxqError
from pytest_mxq.models.prompts import GATE_PROMPTS
from pytest_mxq.models.published import PublishedRun
from pytest_mxq.registry import Registry, check_name

PUBLISHED = "published"  # the selection rule that a recipe's published numbers were made with


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipPattern:
    """One pattern of a selective-quantization rule: a layer whose name it matches stays in BF16.

    Attributes:
        pattern: the text.
        exact: whether the whole name must equal the pattern; otherwise it may stand anywhere in it.
        reason: why such a layer stays in BF16; shown in reports.
    """

    pattern: str
    reason: str
    exact: bool = False

    def matches(self, name: str) -> bool:
        """Return whether the layer of this name stays in BF16."""
        return name == self.pattern if self.exact else self.pattern in name


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRule:
    """Which Linear layers of the denoiser are quantized: all but the skipped and the small ones.

    Attributes:
        min_features: a layer with fewer in_features or out_features stays in BF16 (the published rule's size clause).
        skip: patterns of the names of layers that stay in BF16 (Hugging Face: ``modules_to_not_convert``).
    """

    min_features: int
    skip: tuple[SkipPattern, ...] = ()

    def skips(self, name: str, in_features: int, out_features: int) -> bool:
        """Return whether this layer stays in BF16."""
        small = min(in_features, out_features) < self.min_features
        return small or any(clause.matches(name) for clause in self.skip)


# Bytes of a quantized weight over those of BF16.
_NATIVE = 0.52  # MXFP8, with a scale for each 32 values; the smaller formats need less
_EMULATED = 1.0  # the values of the format in BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What a model occupies on a device in BF16, GiB.

    Attributes:
        weights: all weights.
        encoders: those of the text encoders, which random weights do without.
        denoiser: those of the denoiser.
        call: what a call adds, whatever its batch.
        image: what each image of the batch adds.
        selected: largest share of the denoiser's weights that a rule of the model quantizes.
    """

    weights: float
    encoders: float
    denoiser: float
    call: float
    image: float
    selected: float = 1.0

    def images(self, batch_size: int, *, emulated: bool) -> float:
        """Return the peak of an image gate: BF16 with its encoders, or quantized weights and a call without them.

        The encoders embed the prompts first and then leave the device.
        """
        generation = self.weights - self.encoders + self._of_copy(_EMULATED if emulated else _NATIVE)
        return max(self.weights, generation + self._of_call(batch_size))

    def both_arms(self, batch_size: int, *, random: bool, formats: int = 1) -> float:
        """Return the peak of a speed or memory gate: the base and one quantized arm beside it, encoders included.

        Where one session times several formats, one arm of each.
        """
        return self.one_arm(batch_size, random=random) + formats * self._of_copy(_NATIVE)

    def one_arm(self, batch_size: int, *, random: bool) -> float:
        """Return the peak of BF16 alone, encoders included: a refresh."""
        weights = self.weights - (self.encoders if random else 0.0)
        return weights + self._of_call(batch_size)

    def _of_copy(self, share: float) -> float:
        return share * self.selected * self.denoiser

    def _of_call(self, batch_size: int) -> float:
        return self.call + batch_size * self.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything known of a model, in one place.

    Attributes:
        name: what ``mxq(...)`` and ``--mxq-models`` call it.
        source: a Hub id or a local folder in the layout of ``save_pretrained``.
        revision: pinned revision on the Hub.
        call: arguments of the pipeline's call; a workload may override each.
        rule: selective quantization, as published.
        alternatives: further rules by name, for ``mxq(selection=)``; "published" is `rule`.
        prompts: its own prompt set.
        denoiser: name of the pipeline's component that is quantized.
        pipeline_class: class of diffusers that the source must hold, or a subclass of it; None: any.
        min_share: smallest share of the denoiser's Linear weights that must be quantized.
        cpu_float32_vae: whether the VAE decodes in float32 on a CPU (bfloat16 convolutions
            are many times slower there).
        random: builds the pipeline from its configuration, wherever parameters are made (`pipelines/random_weights`
            makes none and fills them afterwards); parameters in place of the text encoders hold the embeddings that
            every prompt gets. None: the model is not available with random weights.
        memory: what it occupies; None: not known, and not checked before loading.
        steps: name of the call's argument that sets how many alike steps the denoiser takes, by which memory gates
            shorten their calls; None: it cannot be set.
        published: published latencies, by which the cost of a run is estimated.
        generates_video: whether it makes video, which a baseline keeps with PyAV.
        graphs_up_to: largest batch size at which the arms of speed and memory gates run with CUDA Graphs; 0: none.
        prepare: called with each arm's own pipeline once its denoiser is quantized, such as for VAE tiling or a cache
            of attention. The denoiser is the arm's own; the arms share every other component, so what it does to those
            must be the same when it is done again.
        save_tiny: saves the same architecture, small enough for a CPU, into a folder, in the layout of
            ``save_pretrained`` and with text encoders and tokenizers; for tests. None: the model has no tiny version.
    """

    name: str
    source: str
    rule: SelectionRule
    alternatives: Mapping[str, SelectionRule] = field(default_factory=lambda: MappingProxyType({}))
    call: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    revision: str | None = None
    prompts: tuple[str, ...] = GATE_PROMPTS
    denoiser: str = "transformer"
    pipeline_class: str | None = None
    min_share: float = 0.5
    cpu_float32_vae: bool = True
    random: Callable[[], Any] | None = None
    memory: MemoryNeed | None = None
    steps: str | None = None
    published: tuple[PublishedRun, ...] = ()
    generates_video: bool = False
    graphs_up_to: int = 1
    prepare: Callable[[Any], None] | None = None
    save_tiny: Callable[[Path], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise MxqError(f"model name {self.name!r} is not allowed: it must be a text")
        check_model_name(self.name)
        rules = self.alternatives.values() if isinstance(self.alternatives, Mapping) else [None]
        wanted = {
            "source": (isinstance(self.source, str) and self.source, "a Hub id or a folder"),
            "rule": (isinstance(self.rule, SelectionRule), "a SelectionRule"),
            "alternatives": (all(isinstance(rule, SelectionRule) for rule in rules), "SelectionRules by name"),
            "call": (isinstance(self.call, Mapping), "arguments by name"),
            "prompts": (_are_prompts(self.prompts), "a tuple of texts"),
            "min_share": (isinstance(self.min_share, int | float) and 0 < self.min_share <= 1, "in (0, 1]"),
            "memory": (self.memory is None or isinstance(self.memory, MemoryNeed), "a MemoryNeed or None"),
        }
        for field_name, (is_good, what) in wanted.items():
            if not is_good:
                value = getattr(self, field_name)
                raise MxqError(f"model {self.name!r}: {field_name} must be {what}, got {value!r}")

    def selection(self, name: str) -> SelectionRule:
        """Return the rule of a name.

        Raises:
            UnknownNameError: the model has no such rule; lists the model's rules.
        """
        rules = {PUBLISHED: self.rule, **self.alternatives}
        check_name("selection", name, rules)
        return rules[name]


def _are_prompts(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(text, str) and text for text in value)


# For a model that is not registered: the published size clause, and the layers that every published rule skips.
GENERIC_RULE = SelectionRule(
    min_features=1024,
    skip=(
        SkipPattern(pattern="embed", reason="conditioning and patch embeddings: few rows, large effect"),
        SkipPattern(pattern="norm_out", reason="last modulation: one row, acts on every pixel"),
        SkipPattern(pattern="proj_out", exact=True, reason="last projection to latents: acts on every pixel"),
    ),
)


class ModelRegistry(Registry[Recipe]):
    """The registered models; anything else is a Hub id or a folder."""

    def __init__(self, recipes: Iterable[Recipe] = ()) -> None:
        super().__init__("model", recipes)

    def point(self, name: str, folder: Path) -> None:
        """Take a registered model's weights from a local folder, with all else that its recipe says.

        Raises:
            MxqError: no such model, or no pipeline in the folder.
        """
        recipe = self.get(name)
        if not (folder / "model_index.json").is_file():
            raise MxqError(
                f"--mxq-sources: {folder} holds no model_index.json; {name}= must name a folder that save_pretrained "
                "wrote, or a snapshot of the Hub"
            )
        self.replace(replace(recipe, source=str(folder), revision=None))

    def find(self, name: str, *, beside: Path) -> Recipe:
        """Return the recipe of a registered name, a local folder (also relative to ``beside``), or a Hub id.

        Raises:
            UnknownNameError: none of these; lists the registered models.
        """
        if name in self:
            return self.get(name)
        known = next((recipe for recipe in self if recipe.source == name), None)
        if known is not None:
            return known
        folder = beside / name
        if (folder / "model_index.json").is_file():
            return Recipe(name=_folder_name(folder), source=str(folder), rule=GENERIC_RULE)
        if name.count("/") == 1 and not name.startswith((".", "/")) and not name.endswith("/"):
            return Recipe(name=name, source=name, rule=GENERIC_RULE)
        try:
            check_name("model", name, self.names())
        except MxqError as error:
            raise type(error)(f"{error}; or a Hub id 'owner/name', or a folder with a model_index.json") from None
        raise AssertionError(name)


def _folder_name(folder: Path) -> str:
    """Return the last part of a path without "..", and without following links: the name that the test wrote."""
    return Path(os.path.normpath(folder)).name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """One set of weights of a model: what an arm is built from.

    Attributes:
        recipe: the model.
        revision: revision on the Hub, over the recipe's own.
        random: whether the weights are random, for speed and memory where the trained ones are not available.
    """

    recipe: Recipe
    revision: str | None = None
    random: bool = False
