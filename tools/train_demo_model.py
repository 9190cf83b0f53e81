"""Train the packaged demo model: a real, very small text-to-image FLUX that generates scenes from a fixed grammar.

A renderer renders captions such as "a large striped red circle at the left on a gradient blue background" at 128x128,
displaced by up to 2.5 pixels for training. The autoencoder learns from such images; then a bank of scenes is encoded
once, and the transformer and both text encoders learn flow matching on it. The pipeline is saved in bfloat16, loaded
again, and measured against the renderer:
    python tools/train_demo_model.py --out demo_model
    python tools/train_demo_model.py --evaluate pytest_mxq/assets/demo_model --grid packaged.png
All randomness is seeded; two runs may still differ, because some CUDA kernels add in no fixed order.
"""

from __future__ import annotations

import argparse
import math
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import lpips
import tokenizers
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
import transformers
from diffusers import AutoencoderKL, FluxPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Generator, Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

STARTED = time.perf_counter()
LPIPS_WEIGHTS = Path(__file__).parent.parent / "pytest_mxq/assets/lpips/alexnet_features.safetensors"

CAPTION = "a {} {} {} {} at the {} on a {} {} background"
RADII = {"small": 0.22, "large": 0.42}
FILLS = ("plain", "striped", "checkered")
# fmt: off
COLORS = {
    "red": (0.86, 0.16, 0.16), "green": (0.18, 0.62, 0.26), "blue": (0.16, 0.30, 0.85), "yellow": (0.95, 0.82, 0.20),
    "orange": (0.95, 0.50, 0.12), "purple": (0.50, 0.20, 0.65), "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07), "pink": (0.95, 0.55, 0.70), "cyan": (0.20, 0.78, 0.85),
}
# fmt: on
SHAPES = ("circle", "square", "triangle", "ring", "cross", "star")
POSITIONS = {"left": (-0.45, 0), "right": (0.45, 0), "top": (0, -0.45), "bottom": (0, 0.45), "center": (0, 0)}
BACKGROUNDS = ("plain", "gradient")
FREE_WORDS = [list(words) for words in (RADII, FILLS, COLORS, SHAPES, POSITIONS, BACKGROUNDS, COLORS)]
# "and" and "with" are in no caption; they stay so that token ids equal those of earlier models.
FIXED_WORDS = ("<pad>", "</s>", "<unk>", "a", "on", "the", "background", "and", "with", "at")
VOCABULARY = (*FIXED_WORDS, *COLORS, *SHAPES, *FILLS, *RADII, *POSITIONS, "gradient")

PIXELS = 128  # side of an image; the canvas spans -1 to 1, y pointing down
JITTER = 0.04  # largest displacement of a shape, in canvas units
TOKENS = 16  # length of a caption: 13 words, </s>, padding
GUIDANCE = 3.5
GENERATION_STEPS = 20
CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the device


def random_scenes(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Generate scenes uniformly, the shape's colour differing from the background's, and displacements within +-JITTER.

    Returns indices into FREE_WORDS, int64, ``(count, 7)``, and displacements in canvas units, float32, ``(count, 2)``.
    """
    device = generator.device
    columns = [torch.randint(len(words), (count,), device=device, generator=generator) for words in FREE_WORDS]
    columns[2] = torch.randint(1, len(COLORS), (count,), device=device, generator=generator)
    columns[2] = (columns[2] + columns[6]) % len(COLORS)
    jitter = (torch.rand(count, 2, device=device, generator=generator) * 2 - 1) * JITTER
    return torch.stack(columns, dim=1), jitter


def captions_of(scenes: Tensor) -> list[str]:
    """Return the captions of scenes."""
    return [CAPTION.format(*(words[i] for words, i in zip(FREE_WORDS, row, strict=True))) for row in scenes.tolist()]


def _triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Return the signed distance of an equilateral triangle (Inigo Quilez, "2D distance functions")."""
    k = math.sqrt(3.0)
    x, y = x.abs() - r, -y + r / k
    folded = x + k * y > 0
    x, y = torch.where(folded, (x - k * y) / 2, x), torch.where(folded, (-k * x - y) / 2, y)
    x = x - torch.minimum(torch.maximum(x, -2 * r), torch.zeros_like(x))
    return -torch.hypot(x, y) * torch.sign(y)


def _outline(shape: Tensor, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Return each shape's signed distance in canvas units, negative inside (the star's is only a rough one)."""
    radius, fifth = torch.hypot(x, y), math.pi / 5
    square = torch.maximum(x.abs(), y.abs()) - r * 0.85
    ring = (radius - r * 0.8).abs() - r * 0.25
    flat, upright = torch.maximum(x.abs() - r, y.abs() - r * 0.3), torch.maximum(x.abs() - r * 0.3, y.abs() - r)
    angle = (torch.remainder(torch.atan2(x, -y) + fifth, 2 * fifth) - fifth).abs()
    star = radius * torch.cos(angle) - r * (0.45 + 0.55 * (1 - angle / fifth))
    every = torch.stack([radius - r, square, _triangle(x, y, r), ring, torch.minimum(flat, upright), star])
    return every[shape, torch.arange(len(shape), device=shape.device)]


def _texture(fill: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the brightness of each scene's shape, 0.55 or 1."""
    stripes = torch.sin((x + y) * 28) > 0
    checks = (torch.sin(x * 22) > 0) ^ (torch.sin(y * 22) > 0)
    every = torch.stack([torch.ones_like(x), stripes * 0.45 + 0.55, checks * 0.45 + 0.55])
    return every[fill, torch.arange(len(fill), device=fill.device)]


def render(scenes: Tensor, jitter: Tensor) -> Tensor:
    """Generate scenes, displaced by ``jitter``, as float32 images in -1 to 1, shape ``(count, 3, PIXELS, PIXELS)``."""
    size, fill, color, shape, position, background, background_color = scenes.unbind(1)
    axis = torch.linspace(-1, 1, PIXELS, device=scenes.device)
    palette = torch.tensor(list(COLORS.values()), device=scenes.device)[..., None, None]
    centers = torch.tensor(list(POSITIONS.values()), device=scenes.device)[position] + jitter
    radii = torch.tensor(list(RADII.values()), device=scenes.device)[size][:, None, None]
    x = (axis - centers[:, 0, None, None]).expand(-1, PIXELS, -1)
    y = (axis[:, None] - centers[:, 1, None, None]).expand(-1, -1, PIXELS)
    behind = palette[background_color] * (1 - background[:, None, None, None] * 0.35 * (axis[:, None] + 1) / 2)
    front = palette[color] * _texture(fill, x, y)[:, None]
    cover = torch.sigmoid(-_outline(shape, x, y, radii) * PIXELS * 0.8)[:, None]
    return (behind * (1 - cover) + front * cover) * 2 - 1


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Build the word-level tokenizer that both text encoders use."""
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    words = tokenizers.Tokenizer(model)
    words.normalizer = tokenizers.normalizers.Lowercase()
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=TOKENS, **special)


def build_pipeline() -> FluxPipeline:
    """Build it untrained: autoencoder 3.3 M parameters (16 channels, /8), transformer 5.2 M, T5 0.34 M, CLIP 0.28 M."""
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    widths = {"block_out_channels": [32, 64, 96, 128], "latent_channels": 16, "norm_num_groups": 16}
    absent = {"use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False}
    depth = {"num_layers": 2, "num_single_layers": 4, "num_attention_heads": 3, "attention_head_dim": 64}
    inputs = {"in_channels": 64, "joint_attention_dim": 128, "pooled_projection_dim": 128, "guidance_embeds": True}
    text = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1}
    t5 = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    t5_config = transformers.T5Config(**text, **t5, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    video = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    clip_config = transformers.CLIPTextConfig(**text, **video, max_position_embeddings=TOKENS, bos_token_id=3)
    return FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKL(**blocks, **widths, **absent, sample_size=PIXELS),
        text_encoder=transformers.CLIPTextModel(clip_config),
        tokenizer=build_tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(t5_config),
        tokenizer_2=build_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(**depth, **inputs, axes_dims_rope=[8, 28, 28]),
    )


def build_lpips(device: torch.device) -> lpips.LPIPS:
    """Build LPIPS (alex) on the packaged LPIPS weights; ``pnet_rand`` keeps ``lpips`` from downloading one."""
    loss = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    slices = {"0": "slice1.0", "3": "slice2.3", "6": "slice3.6", "8": "slice4.8", "10": "slice5.10"}
    named = ((name.split("."), tensor) for name, tensor in load_file(LPIPS_WEIGHTS).items())
    loss.net.load_state_dict({f"{slices[layer]}.{kind}": tensor for (_, layer, kind), tensor in named})
    return loss.to(device).eval().requires_grad_(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One training phase: ``steps`` or ``seconds`` end it, whichever is first, and the learning rate follows that."""

    steps: int
    seconds: float
    started: float = field(default_factory=time.perf_counter)

    def progress(self, step: int) -> float:
        """Return how much of the phase is over, 1 or more at its end."""
        return max(step / self.steps, (time.perf_counter() - self.started) / self.seconds)

    def learning_rate(self, step: int) -> float:
        """Return 1e-3 times a linear warm-up times a cosine that falls to one percent."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step))))
        return 1e-3 * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * cosine)


def log(message: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.perf_counter() - STARTED:6.1f} s] {message}", flush=True)


def check_loss(phase: str, schedule: Schedule, step: int, loss: float) -> None:
    """Raise FloatingPointError if the loss is NaN or infinite; log it now and then."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"{phase}: the loss is {loss} at step {step}; no model was saved. Try another --seed.")
    if step % (10 * CHECK_EVERY) == 0 or schedule.progress(step) >= 1:
        pace = (time.perf_counter() - schedule.started) / step * 1000
        log(f"{phase}: step {step}, {schedule.progress(step):.0%}, loss {loss:.4f}, {pace:.1f} ms a step")


def training_steps(
    phase: str, schedule: Schedule, parameters: list[torch.nn.Parameter], loss_of_batch: Callable[[], Tensor]
) -> Iterator[int]:
    """Train until the schedule ends (one step at least), yielding the number of steps done after each."""
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=1e-2, fused=True)
    step = 0
    while step == 0 or schedule.progress(step) < 1:
        optimizer.param_groups[0]["lr"] = schedule.learning_rate(step)
        optimizer.zero_grad()
        loss = loss_of_batch()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        yield step
        if step % CHECK_EVERY == 0:
            check_loss(phase, schedule, step, loss.item())
    check_loss(phase, schedule, step, loss.item())


def train_vae(vae: AutoencoderKL, schedule: Schedule, generator: Generator, batch: int) -> None:
    """Train the autoencoder on rendered scenes: L1, LPIPS and a weak pull to a standard normal latent."""
    perceptual = build_lpips(generator.device)

    def loss_of_batch() -> Tensor:
        images = render(*random_scenes(batch, generator))
        with torch.autocast("cuda", torch.bfloat16):  # nothing on a CPU, whose bfloat16 convolutions are slow
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        divergence: Tensor = posterior.kl().float().mean() / posterior.mean[0].numel()
        distance: Tensor = perceptual(decoded, images).mean()
        return F.l1_loss(decoded, images) + 0.5 * distance + 1e-4 * divergence

    for _ in training_steps("vae", schedule, list(vae.parameters()), loss_of_batch):
        pass
    vae.eval().requires_grad_(False)


@torch.no_grad()
def encode_bank(pipeline: FluxPipeline, generator: Generator, size: int) -> tuple[Tensor, Tensor]:
    """Encode random scenes once, so that no step has to, and set the autoencoder's shift and scale by them.

    Returns normalised float16 latents in tokens of 2x2 patches, ``(size, 64, 64)``, and token ids, ``(size, TOKENS)``.
    """
    latents, ids, tokenizer = [], [], build_tokenizer()  # the pipeline's own would be saved with this padding
    for first in range(0, size, 256):
        scenes, jitter = random_scenes(min(256, size - first), generator)
        with torch.autocast("cuda", torch.bfloat16):
            mode = pipeline.vae.encode(render(scenes, jitter)).latent_dist.mode()
        latents.append(mode.half().reshape(-1, 16, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 64, 64))
        ids.append(tokenizer(captions_of(scenes), padding="max_length", return_tensors="pt").input_ids)
    bank = torch.cat(latents)
    shift, deviation = bank.float().mean().item(), bank.float().std().item()
    pipeline.vae.register_to_config(shift_factor=shift, scaling_factor=1 / deviation)
    log(f"bank: {size} scenes, shift {shift:.4f}, scale {1 / deviation:.4f}")
    return bank.sub_(shift).div_(deviation), torch.cat(ids).to(bank.device)


def train_flow(
    pipeline: FluxPipeline, bank: tuple[Tensor, Tensor], schedule: Schedule, generator: Generator, batch: int
) -> None:
    """Train transformer and text encoders by flow matching at logit-normal times; keep the weights' moving average."""
    latents, ids = bank
    device = latents.device
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(8.0), torch.arange(8.0)).to(device)
    fixed = {"txt_ids": torch.zeros(TOKENS, 3, device=device), "img_ids": places, "return_dict": False}

    def loss_of_batch() -> Tensor:
        rows = torch.randint(len(ids), (batch,), device=device, generator=generator)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, device=device, generator=generator)
        sigma = torch.randn(batch, device=device, generator=generator).sigmoid()
        with torch.autocast("cuda", torch.bfloat16):
            (velocity,) = pipeline.transformer(
                hidden_states=clean.lerp(noise, sigma[:, None, None]),
                timestep=sigma,
                guidance=torch.full_like(sigma, GUIDANCE),
                pooled_projections=pipeline.text_encoder(input_ids=ids[rows]).pooler_output,
                encoder_hidden_states=pipeline.text_encoder_2(input_ids=ids[rows]).last_hidden_state,
                **fixed,
            )
        return F.mse_loss(velocity.float(), noise - clean)

    trained = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    parameters = [parameter for network in trained for parameter in network.parameters()]
    average = [parameter.detach().clone() for parameter in parameters]
    for step in training_steps("flow", schedule, parameters, loss_of_batch):
        keep_average = get_ema_multi_avg_fn(min(0.999, step / (step + 9)))  # type: ignore[no-untyped-call]
        keep_average(average, parameters, None)
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)


def train(options: argparse.Namespace, device: torch.device) -> None:
    """Train and save a model."""
    torch.manual_seed(options.seed)
    generator = Generator(device).manual_seed(options.seed)
    pipeline = build_pipeline().to(device)
    limit = options.max_minutes * 60
    schedule = Schedule(steps=options.vae_steps, seconds=limit * 0.2)
    train_vae(pipeline.vae, schedule, generator, options.vae_batch)
    bank = encode_bank(pipeline, generator, options.bank)
    if options.compile:
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    schedule = Schedule(steps=options.transformer_steps, seconds=max(1.0, limit - (time.perf_counter() - STARTED)))
    train_flow(pipeline, bank, schedule, generator, options.transformer_batch)
    pipeline.to(torch.bfloat16).save_pretrained(options.out)
    log(f"saved: {options.out}")


def generate(pipeline: FluxPipeline, captions: list[str]) -> Tensor:
    """Generate captions, the i-th from noise of seed i, as images in -1 to 1."""
    noise = [Generator("cpu").manual_seed(i) for i in range(len(captions))]
    call = {"height": PIXELS, "width": PIXELS, "guidance_scale": GUIDANCE, "max_sequence_length": TOKENS}
    output = pipeline(captions, **call, num_inference_steps=GENERATION_STEPS, generator=noise, output_type="pt")
    return torch.as_tensor(output.images) * 2 - 1


@torch.no_grad()
def found_jitter(images: Tensor, scenes: Tensor) -> Tensor:
    """Return the displacements, shape ``(count, 2)``, whose rendered scenes are nearest to the images."""
    best = torch.zeros(len(scenes), 2, device=scenes.device)
    for spacing in (0.016, 0.008, 0.004, 0.002, 0.001):
        axis = torch.arange(-2, 3, device=scenes.device) * spacing
        moves = torch.cartesian_prod(axis, axis)
        errors = [(render(scenes, best + move) - images).square().mean(dim=(1, 2, 3)) for move in moves]
        best = best + moves[torch.stack(errors).argmin(dim=0)]
    return best


@torch.no_grad()
def report(name: str, images: Tensor, truth: Tensor) -> None:
    """Print mean LPIPS (alex, lower is better) and mean PSNR (dB, higher is better)."""
    distance = build_lpips(truth.device)(images, truth).mean().item()
    psnr = -10 * ((images - truth) / 2).square().mean(dim=(1, 2, 3)).log10().mean().item()
    log(f"{name}: mean LPIPS {distance:.4f}, mean PSNR {psnr:.2f} dB over {len(truth)} captions")


def save_grid(path: Path, generated: Tensor, truth: Tensor, captions: list[str]) -> None:
    """Save the first images as a grid: captions, the model's images, the renderer's images."""
    rows = torch.stack([generated, truth])[:, :12]
    pixels = rows.permute(0, 3, 1, 4, 2).reshape(2 * PIXELS, -1, 3).add(1).mul(127.5).round().byte()
    grid = Image.new("RGB", (pixels.shape[1], 2 * PIXELS + 70), "white")
    grid.paste(Image.fromarray(pixels.cpu().numpy()), (0, 70))
    for column, caption in enumerate(captions[:12]):
        ImageDraw.Draw(grid).multiline_text((column * PIXELS + 4, 2), textwrap.fill(caption, 20), "black", spacing=2)
    grid.save(path)
    log(f"saved: {path}")


@torch.no_grad()
def evaluate(directory: Path, device: torch.device, count: int, grid: Path | None) -> None:
    """Measure a saved model against the renderer, on captions generated by a seed of their own.

    Compare models by the line "displacement found"; the autoencoder alone is its ceiling. Against scenes without
    displacement even true ones, displaced as in training, have LPIPS 0.018 and PSNR 30 dB.
    """
    pipeline = diffusers.DiffusionPipeline.from_pretrained(directory, dtype=torch.bfloat16).to(device, torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = random_scenes(count, Generator("cpu").manual_seed(20_000))[0].to(device)
    truth = render(scenes, torch.zeros(count, 2, device=device))
    generated = generate(pipeline, captions_of(scenes))
    report("autoencoder alone", pipeline.vae(truth).sample.clamp(-1, 1), truth)
    report(f"model, {GENERATION_STEPS} steps, no displacement", generated, truth)
    report(
        f"model, {GENERATION_STEPS} steps, displacement found",
        generated,
        render(scenes, found_jitter(generated, scenes)),
    )
    if grid:
        save_grid(grid, generated, truth, captions_of(scenes))


def main() -> None:
    """Train unless told not to, then measure; with the defaults the time limit ends a run on one H100."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="train, and save the model in this directory")
    target.add_argument("--evaluate", type=Path, help="measure the model in this directory; train nothing")
    parser.add_argument("--grid", type=Path, help="image grid to write (PNG)")
    parser.add_argument("--captions", type=int, default=64, help="captions to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-minutes", type=float, default=8.0, help="training ends then at the latest (or inf)")
    parser.add_argument("--vae-steps", type=int, default=8000)
    parser.add_argument("--vae-batch", type=int, default=64)
    parser.add_argument("--bank", type=int, default=262_144, help="scenes to encode for the transformer")
    parser.add_argument("--transformer-steps", type=int, default=24_000)
    parser.add_argument("--transformer-batch", type=int, default=512)
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks (needs a C compiler)")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.enable_cudnn_sdp(False)  # was turned off in the run that worked
    torch.set_float32_matmul_precision("high")
    if options.out:
        train(options, device)
    evaluate(options.out or options.evaluate, device, options.captions, options.grid)


if __name__ == "__main__":
    main()
