"""Build a pipeline at full size with random weights: speed and memory where the trained ones are not available.

Its images mean nothing, so image gates have no use for it.
"""

from __future__ import annotations

import torch
from accelerate import init_empty_weights

from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.errors import MxqError
from pytest_mxq.models import Recipe
from pytest_mxq.pipelines.load import LoadedPipeline

_SCALES = {"weight", "gamma"}  # what norms call their scale


def load_random(recipe: Recipe, *, device: str, seed: int = 0) -> LoadedPipeline:
    """Build a recipe's pipeline in BF16 with random weights, at no time holding them in float32.

    The same seed gives the same weights on the same kind of device.

    Args:
        recipe: the model.
        device: "cuda" or "cpu".
        seed: seed of all weights, prompt embeddings included.

    Raises:
        MxqError: the recipe has no ``random``.
    """
    if recipe.random is None:
        raise MxqError(
            f"model {recipe.name!r} cannot be built with random weights: its recipe has no random=; "
            "add a builder to the recipe, or gate on the model's trained weights"
        )
    with (
        silence_third_party_warnings(),
        init_empty_weights(include_buffers=False),
    ):  # buffers (rotary tables) hold values
        pipe = recipe.random()
    generator = torch.Generator(device).manual_seed(seed)
    for _, component in sorted(pipe.components.items()):
        if isinstance(component, torch.nn.Module):
            materialise(component, generator)
    pipe.set_progress_bar_config(disable=True)
    return LoadedPipeline(pipe=pipe, weights=f"random:{seed}")


def materialise(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Give a module of the meta device random BF16 parameters on the generator's device, and move its buffers there.

    A freshly built module is in training mode; afterwards it is in evaluation mode, without gradients.
    """
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=generator.device)
            _fill(value, name, generator)
            setattr(owner, name, torch.nn.Parameter(value, requires_grad=False))
    module.to(generator.device)
    module.eval()


def _fill(value: torch.Tensor, name: str, generator: torch.Generator) -> None:
    """Fill with ones for the scale of a norm, zeros for a bias, otherwise normal numbers of variance 1 / fan-in.

    At that variance (LeCun et al., "Efficient BackProp", 1998) a layer returns what it was given at about the same
    size, so that 57 blocks stay finite. Constant weights would be simpler, but a GPU uses less power on them and then
    clocks higher than on trained ones.
    """
    if value.numel() == value.shape[0]:  # a vector, perhaps as (channels, 1, 1, 1)
        value.fill_(1.0 if name in _SCALES else 0.0)
    else:
        value.normal_(0.0, value[0].numel() ** -0.5, generator=generator)
