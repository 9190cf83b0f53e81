"""The comparison image: its tiles hold the right pixels, and the file appears whole."""

from pathlib import Path

import pytest
from PIL import Image

from pytest_mxq.reports import comparison_images
from pytest_mxq.reports.comparison_images import ComparisonError, write_comparison


def gradient(width: int, height: int, shift: int = 0) -> Image.Image:
    image = Image.new("RGB", (width, height))
    pixels = [((x + shift) % 256, (2 * y) % 256, 128) for y in range(height) for x in range(width)]
    image.putdata(pixels)
    return image


def write(path: Path, reference: Image.Image, quantized: Image.Image, caption: str = "a ring\nLPIPS 0") -> Image.Image:
    images = {"reference": reference, "quantized": quantized}
    write_comparison(path, **images, label="nvfp4 (emulated)", prompt=caption, text="0.1")
    with Image.open(path) as sheet:
        return sheet.convert("RGB")


def tiles(sheet: Image.Image, width: int, height: int, caption_lines: int = 2) -> list[Image.Image]:
    """The three tiles, after labels; one margin lies at every edge, above and below each text and between tiles."""
    margin = (sheet.width - 3 * width) // 4
    line = (sheet.height - height - 4 * margin) // (1 + caption_lines)
    top = 2 * margin + line
    lefts = [margin + column * (width + margin) for column in range(3)]
    return [sheet.crop((left, top, left + width, top + height)) for left in lefts]


@pytest.mark.parametrize("side", [256, 512])
def test_images_of_256_and_more_are_shown_pixel_by_pixel(tmp_path: Path, side: int) -> None:
    reference, quantized = gradient(side, side), gradient(side, side, shift=3)
    first, second, _ = tiles(write(tmp_path / "c.png", reference, quantized), side, side)
    assert first.tobytes() == reference.tobytes()
    assert second.tobytes() == quantized.tobytes()


def test_small_images_are_enlarged_by_a_whole_factor_without_smoothing(tmp_path: Path) -> None:
    reference, quantized = gradient(100, 60), gradient(100, 60, shift=3)
    first, second, _ = tiles(write(tmp_path / "c.png", reference, quantized), 300, 180)
    assert first.tobytes() == reference.resize((300, 180), Image.Resampling.NEAREST).tobytes()
    assert second.resize((100, 60), Image.Resampling.NEAREST).tobytes() == quantized.tobytes()


def test_the_third_tile_is_four_times_the_difference_by_channel(tmp_path: Path) -> None:
    reference = Image.new("RGB", (256, 256), (100, 100, 100))
    quantized = Image.new("RGB", (256, 256), (101, 90, 100))
    quantized.paste((0, 163, 164), (0, 0, 128, 256))
    difference = tiles(write(tmp_path / "c.png", reference, quantized), 256, 256)[2]
    assert difference.getpixel((200, 50)) == (4, 40, 0)
    assert difference.getpixel((50, 50)) == (255, 252, 255)


def test_equal_images_differ_by_black(tmp_path: Path) -> None:
    image = gradient(256, 256)
    difference = tiles(write(tmp_path / "c.png", image, image), 256, 256)[2]
    assert difference.getextrema() == ((0, 0), (0, 0), (0, 0))


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of a region are darker than paper."""
    return sum(sheet.crop(box).convert("L").histogram()[:200])


def test_a_label_stands_over_every_tile_and_the_caption_below(tmp_path: Path) -> None:
    sheet = write(tmp_path / "c.png", gradient(256, 256), gradient(256, 256))
    assert all(ink(sheet, (12 + 268 * column, 0, 268 + 268 * column, 40)) > 100 for column in range(3))
    assert ink(sheet, (0, sheet.height - 50, sheet.width, sheet.height)) > 100


def test_the_enlargement_is_said_in_every_label(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.png", gradient(256, 256), gradient(256, 256))
    shown = write(tmp_path / "shown.png", gradient(128, 128), gradient(128, 128))
    assert plain.size == shown.size
    for left in (12, 280, 548):
        header = (left, 0, left + 256, 40)
        assert ink(shown, header) > ink(plain, header) + 50


def test_a_long_caption_is_wrapped_and_stays_inside_the_margins(tmp_path: Path) -> None:
    long = write(tmp_path / "long.png", gradient(256, 256), gradient(256, 256), caption="W" * 300 + " words" * 60)
    short = write(tmp_path / "short.png", gradient(256, 256), gradient(256, 256), caption="words")
    assert long.width == short.width
    assert long.height > short.height + 3 * 18
    assert ink(long, (0, 310, 11, long.height)) == 0
    assert ink(long, (long.width - 11, 310, long.width, long.height)) == 0


def test_images_with_transparency_are_compared_as_rgb(tmp_path: Path) -> None:
    reference = gradient(256, 256)
    first, _, difference = tiles(write(tmp_path / "c.png", reference, reference.convert("RGBA")), 256, 256)
    assert first.tobytes() == reference.tobytes()
    assert difference.getbbox() is None


def test_images_of_two_sizes_are_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="256x256 pixels and the quantized one 256x128"):
        write(tmp_path / "c.png", gradient(256, 256), gradient(256, 128))
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made_and_nothing_but_the_image_remains(tmp_path: Path) -> None:
    path = tmp_path / "report" / "flux" / "prompt 1.png"
    write(path, gradient(64, 64), gradient(64, 64))
    assert [entry.name for entry in path.parent.iterdir()] == ["prompt 1.png"]


def test_a_write_that_fails_leaves_the_older_image_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.png"
    before = write(path, gradient(256, 256), gradient(256, 256)).tobytes()

    def full_disk(self: Image.Image, target: Path, **_: object) -> None:
        target.write_bytes(self.mode.encode())
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(path, gradient(64, 64), gradient(64, 64))
    monkeypatch.undo()
    with Image.open(path) as kept:
        assert kept.convert("RGB").tobytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.png"]


def installed(patch: pytest.MonkeyPatch, *knowing: str) -> None:
    """Pretend fonts of these names: each shows a letter that it knows by its number, and others by one box."""

    class Font:
        def __init__(self, letters: str) -> None:
            self.letters = letters

        def getmask(self, letter: str) -> bytes:
            return str(ord(letter)).encode() if letter in self.letters else b"box"

    def load(name: str, _size: int) -> Font:
        if name and len(knowing) < 2:
            raise OSError(name)
        return Font(knowing[1 if name else 0])

    patch.setattr(comparison_images, "_load", load)


@pytest.mark.parametrize(("knowing", "found"), [(["ab"], ""), (["b", "ab"], "NotoSansCJK-Regular.ttc"), (["b"], None)])
def test_the_font_of_a_sheet_knows_all_letters_or_there_is_none(
    monkeypatch: pytest.MonkeyPatch, knowing: list[str], found: str | None
) -> None:
    installed(monkeypatch, *knowing)
    assert comparison_images._font_for("a b") == found


def test_a_prompt_that_no_font_shows_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = gradient(256, 256)
    known = write(tmp_path / "known.png", image, image, caption="a ring " * 40)
    monkeypatch.setattr(comparison_images, "_font_for", lambda _text: None)
    assert write(tmp_path / "c.png", image, image, caption="a ring " * 40).height < known.height


def test_a_prompt_of_10_000_letters_is_cut(tmp_path: Path) -> None:
    image = gradient(256, 256)
    assert write(tmp_path / "c.png", image, image, caption="word " * 2000).height < 2 * 256
