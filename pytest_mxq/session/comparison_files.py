"""The files that show a verdict's outputs, below the report's folder: MODEL/CASE/FORMAT/."""

from __future__ import annotations

from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from pytest_mxq.baselines.paths import case_file_name, model_folder_name
from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.comparisons import ComparisonFiles, Shown

if TYPE_CHECKING:
    from pytest_mxq.planning.plans import GatePlan

_SUFFIXES = {".png", ".jpg", ".webm", ".wav"}


class ComparisonWriter:
    """Writes the comparison sheets, images, videos and audio of a session's verdicts.

    Args:
        report: the report's folder.
        cautions: gets what could not be written; a full or read-only disk says nothing of the model.
    """

    def __init__(self, report: Path, cautions: list[str]) -> None:
        self._report = report
        self._cautions = cautions
        self._started = time()
        self._texts: dict[Path, list[str]] = {}

    def forget_earlier(self, plan: GatePlan) -> None:
        """Remove the files of earlier runs; those of this run's other gates and processes stay."""
        try:
            for path in self._folder(plan).glob("*"):
                if path.suffix in _SUFFIXES and path.stat().st_mtime < self._started:
                    path.unlink()
        except OSError as error:
            self._cautions.append(f"comparison images of an earlier run could not be removed: {error}")

    def write(self, plan: GatePlan, shown: Shown) -> ComparisonFiles | None:
        """Write a sheet for people without the page, and what the page compares; beyond the worst outputs two JPEGs."""
        whole = self._folder(plan) / shown.name
        try:
            if shown.text is None:
                return self._write_copies(whole, shown)
            sheet = Path(f"{whole}-sheet.png")
            self._save_sheet(sheet, plan, shown)
            paths = {**_save_images(whole, shown), **self._write_media(self._folder(plan), shown)}
        except OSError as error:
            self._cautions.append(f"the comparison images {self._shown(whole)}-* could not be written: {error}")
            return None
        return ComparisonFiles(sheet=self._shown(sheet), **{name: self._shown(path) for name, path in paths.items()})

    def _write_copies(self, whole: Path, shown: Shown) -> ComparisonFiles:
        from pytest_mxq.reports.comparison_images import save_jpeg

        paths = {name: Path(f"{whole}-{name}.jpg") for name in ("reference", "quantized")}
        save_jpeg(shown.reference, paths["reference"])
        save_jpeg(shown.quantized, paths["quantized"])
        return ComparisonFiles(**{name: self._shown(path) for name, path in paths.items()})

    def _save_sheet(self, path: Path, plan: GatePlan, shown: Shown) -> None:
        """Write the sheet; the text of each gate that shows the same output stands below it."""
        from pytest_mxq.reports.comparison_images import save_png, write_comparison

        if shown.reference.size != shown.quantized.size:  # nothing can be laid side by side; the odd one is shown alone
            save_png(shown.quantized, path)
            return
        texts = self._texts.setdefault(path, [])
        texts += [shown.text] if shown.text and shown.text not in texts else []
        label = f"{plan.cell.format} (emulated)" if plan.emulated else plan.cell.format
        images = {"reference": shown.reference, "quantized": shown.quantized}
        write_comparison(path, **images, label=label, prompt=shown.prompt, text="   ".join(texts))

    def _write_media(self, folder: Path, shown: Shown) -> dict[str, Path]:
        """Write what the page plays; no video where PyAV or its encoders are missing: the images remain."""
        from pytest_mxq.reports.media_copies import write_wav, write_webm

        paths: dict[str, Path] = {}
        for arm, video in zip(("reference", "quantized"), shown.audio or (), strict=False):
            paths[f"{arm}_audio"] = folder / f"{shown.output:02d}-{arm}.wav"
            write_wav(paths[f"{arm}_audio"], video)
        videos: dict[str, Path] = {}
        for arm, video in zip(("reference", "quantized"), shown.videos or (), strict=False):
            path = folder / f"{shown.output:02d}-{arm}.webm"
            try:
                write_webm(path, video)
            except (MxqError, OSError, ValueError) as error:  # PyAV's errors are the latter two
                self._cautions.append(f"the video {self._shown(path)} could not be written: {error}")
                return paths
            videos[f"{arm}_video"] = path
        return paths | videos

    def _folder(self, plan: GatePlan) -> Path:
        cell = plan.cell
        return self._report / model_folder_name(cell.model) / case_file_name(cell.case) / cell.format

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._report).as_posix()


def _save_images(whole: Path, shown: Shown) -> dict[str, Path]:
    from pytest_mxq.reports.comparison_images import save_png

    images = {"reference": shown.reference, "quantized": shown.quantized}
    if shown.lpips_map is not None:
        images["lpips_map"] = shown.lpips_map[0]
    paths = {name: Path(f"{whole}-{name.replace('_', '-')}.png") for name in images}
    for name, image in images.items():
        save_png(image, paths[name])
    return paths
