"""How much faster the batched LPIPS is than calling ``lpips`` pair by pair on PNG files.

The baseline does what the published script does (sayakpaul/diffusers-blackwell-quants, compute_lpips.py) for one folder
of quantized images: open both PNGs with PIL, ToTensor, Normalize to [-1, 1], one forward a pair, ``.item()``. Both
sides use the same LPIPS weights, float32 and the same number of threads. Rounds are interleaved: every variant runs
once a round, in a new random order, so that a busy moment of the machine hits all of them alike.

    python benchmarks/lpips_batch.py --out lpips_batch.json
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from pytest_mxq.metrics.lpips import WEIGHTS_PATH, Lpips, read_lpips_weights

PAIRS, SIDE = 24, 128
TO_TENSOR = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One timed way to the distances; ``prepare`` runs before each round, outside the timed region."""

    name: str
    run: Callable[[], list[float]]
    against: str
    prepare: Callable[[], object] = lambda: None


def generate_images() -> tuple[Tensor, Tensor]:
    """Generate smooth random images, and the same with noise of 2 to 20 levels, as uint8 (24, 3, 128, 128)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((PAIRS, 3, 8, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1) * 255
    noise = torch.randn(smooth.shape, generator=generator) * torch.linspace(2, 20, PAIRS)[:, None, None, None]
    return smooth.round().to(torch.uint8), (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def save(images: Tensor, folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"prompt_{index:04d}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return paths


def decode(paths: list[Path]) -> Tensor:
    """Decode images that lie on disk, as a gate would have to: PNGs to uint8 (N, 3, H, W)."""
    arrays = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


def script_network() -> Any:
    """Return ``lpips.LPIPS(net="alex")`` without its download; unpickling the downloaded 233 MB would come on top."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    parameters = {name.split(".", 1)[1]: value for name, value in network.net.named_parameters()}
    with torch.no_grad():
        for name, tensor in read_lpips_weights(WEIGHTS_PATH).items():
            parameters[name.removeprefix("features.")].copy_(tensor)
    return network


def load_as_script(path: Path) -> Tensor:
    image: Tensor = TO_TENSOR(Image.open(path).convert("RGB"))
    return image.unsqueeze(0)


def pair_by_pair(network: Any, pairs: list[tuple[Path, Path]]) -> list[float]:
    distances = []
    for one, another in pairs:
        reference, other = load_as_script(one), load_as_script(another)
        with torch.no_grad():
            distances.append(network(reference, other).item())
    return distances


def forwards_only(network: Any, pairs: list[tuple[Tensor, Tensor]]) -> list[float]:
    with torch.no_grad():
        return [network(reference, other).item() for reference, other in pairs]


def variants(folder: Path) -> list[Variant]:
    reference, other = generate_images()
    references, others = save(reference, folder / "bf16"), save(other, folder / "quantized")
    files = list(zip(references, others, strict=True))
    tensors = [(load_as_script(one), load_as_script(another)) for one, another in files]
    network, metric = script_network(), Lpips()
    another_set = generate_images()[1][:1]
    forget = lambda: metric.distances(another_set, another_set)  # noqa: E731
    encode_reference = lambda: metric.distances(reference, reference)  # noqa: E731
    script, script_built = "script: PNGs, pair by pair", "script, LPIPS built first"
    return [
        Variant(name=script, run=lambda: pair_by_pair(network, files), against=script),
        Variant(name="script without decoding", run=lambda: forwards_only(network, tensors), against=script),
        Variant(
            name="(a) new reference", run=lambda: metric.distances(reference, other), against=script, prepare=forget
        ),
        Variant(
            name="(b) reference cached",
            run=lambda: metric.distances(reference, other),
            against=script,
            prepare=encode_reference,
        ),
        Variant(
            name="(a) + decoding both sets",
            run=lambda: metric.distances(decode(references), decode(others)),
            against=script,
            prepare=forget,
        ),
        Variant(
            name="(b) + decoding both sets",
            run=lambda: metric.distances(decode(references), decode(others)),
            against=script,
            prepare=encode_reference,
        ),
        Variant(name=script_built, run=lambda: pair_by_pair(script_network(), files), against=script_built),
        Variant(
            name="(c) Lpips built, decoding, (a)",
            run=lambda: Lpips().distances(decode(references), decode(others)),
            against=script_built,
        ),
    ]


def measure(cases: list[Variant], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the milliseconds of every variant in every round, and its distances; a first round is not counted."""
    distances = {case.name: case.run() for case in cases}
    milliseconds: dict[str, list[float]] = {case.name: [] for case in cases}
    order = random.Random(0)
    for _ in range(rounds):
        for case in order.sample(cases, len(cases)):
            case.prepare()
            start = time.perf_counter()
            case.run()
            milliseconds[case.name].append((time.perf_counter() - start) * 1e3)
    return milliseconds, distances


def floor_ms() -> float:
    """Return the time of the convolutions of 2 x 24 images at this machine's best rate of a float32 product."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        script_network().net(torch.zeros(2 * PAIRS, 3, SIDE, SIDE))
    matrix = torch.rand(2048, 2048)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    products: float = counter.get_total_flops() / (2 * 2048**3)
    return products * min(seconds) * 1e3


def table(cases: list[Variant], milliseconds: dict[str, list[float]], distances: dict[str, list[float]]) -> list[Any]:
    rows = []
    for case in cases:
        mine, base = milliseconds[case.name], milliseconds[case.against]
        pairs = zip(distances[case.name], distances[case.against], strict=True)
        rows.append(
            {
                "variant": case.name,
                "against": case.against,
                "median_ms": statistics.median(mine),
                "min_ms": min(mine),
                "times_faster": statistics.median(b / m for b, m in zip(base, mine, strict=True)),
                "max_abs_difference": max(abs(one - another) for one, another in pairs),
                "milliseconds": mine,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write every number as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        cases = variants(Path(folder))
        rows = table(cases, *measure(cases, options.rounds))
    floor = floor_ms()
    print(f"{PAIRS} pairs of {SIDE}x{SIDE}, {options.threads} threads, {options.rounds} interleaved rounds\n")
    print(f"{'variant':32} {'median ms':>10} {'min ms':>8} {'faster':>8}  {'max |diff|':>10}")
    for row in rows:
        print(
            f"{row['variant']:32} {row['median_ms']:10.1f} {row['min_ms']:8.1f} "
            f"{row['times_faster']:7.2f}x  {row['max_abs_difference']:10.1e}"
        )
    print(f"\nfloor of (a): {floor:.1f} ms, its convolutions at the rate of a 2048^3 matrix product in float32")
    if options.out:
        facts = {"torch": torch.__version__, "lpips": version("lpips"), "machine": platform.machine()}
        facts |= {"threads": str(options.threads), "load_before": str(load_before)}
        options.out.write_text(json.dumps({"facts": facts, "floor_ms": floor, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
