"""The report of a conversion: every stream before and after, its gaps and ages, and the voxels, on one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from robocache import __version__
from robocache.cli import page, svg
from robocache.cli.clocks import offsets_text
from robocache.cli.console import milliseconds, number
from robocache.cli.svg import Band, Series

if TYPE_CHECKING:
    from robocache.align import AlignedEpisode
    from robocache.cli.conversion import Conversion, ConvertedEpisode
    from robocache.cli.voxels import VoxelScans
    from robocache.readers import StreamStatistics
    from robocache.records import RecordedStream

Floats = npt.NDArray[np.float64]
MAX_COLUMNS = 3
MAX_STREAMS = 24
ZOOM_PERIODS = 16
MAX_MARKS = 400


def report(conversion: Conversion, *, title: str = "", extra_sections: Sequence[str] = (), intro: str = "") -> str:
    """The whole page.

    Args:
        conversion: What was done; its first episode is drawn.
        title: Instead of one made from the source.
        extra_sections: HTML that goes before the streams.
        intro: A sentence more, plain text.
    """
    converted = conversion.first
    assert converted is not None  # a conversion without episodes has failed before
    rate = f"{float(conversion.settings.rate.hz):g} Hz"
    name = title or f"{conversion.source.rstrip('/').rsplit('/', 1)[-1]} at {rate}"
    about = (
        f"{conversion.source} ({conversion.format}), aligned to {rate} and written as a LeRobot v3.0 dataset. {intro}"
    )
    # A window has no single value a frame that could be drawn.
    drawable = [measured for measured in converted.statistics if converted.aligned.valid[measured.name].dim() == 1]
    shown = drawable[:MAX_STREAMS]
    sections = [
        page.section("What was recorded", _recorded_text(conversion), _recorded_table(converted)),
        page.section("What became of it", "", _aligned_table(conversion)),
        *extra_sections,
        page.section(
            "Streams before and after",
            f"Episode {converted.episode.name}. Left: the whole episode on the new clock, pale and dashed where it is"
            " not valid; below it the validity of every frame, and the age of the sample behind it. Right: a closer"
            " look, recorded samples as dots, aligned frames as rings. Gaps are shaded.",
            *(_stream_card(converted, measured) for measured in shown),
        ),
        *(_voxel_section(name, voxels) for name, voxels in converted.voxels.items()),
    ]
    if len(shown) < len(converted.statistics):
        sections.append(f'<p class="soft">{len(converted.statistics) - len(shown)} more streams are not drawn.</p>')
    return page.page(name, about.strip(), _tiles(conversion), sections, f"Made by RoboCache {__version__}.")


def _tiles(conversion: Conversion) -> list[tuple[str, str]]:
    seconds = sum(episode["end_ns"] - episode["start_ns"] for episode in conversion.episodes) / 1e9
    weights = [(episode["frames"], stream) for episode in conversion.episodes for stream in episode["streams"].values()]
    valid = sum(frames * stream["valid_fraction"] for frames, stream in weights) / sum(frames for frames, _ in weights)
    tiles = [
        (f"{conversion.frames:,}", "frames"),
        (f"{seconds:,.1f} s", "on the new clock"),
        (str(len(conversion.episodes[0]["streams"])), "streams"),
        (f"{conversion.samples:,}", "recorded samples"),
        (f"{valid:.1%}", "of all values valid"),
    ]
    speed = conversion.samples_per_second
    if speed is not None:
        tiles.append((f"{speed / 1e6:.2f} M/s", f"samples aligned, {conversion.settings.device.upper()}"))
    return tiles


def _recorded_text(conversion: Conversion) -> str:
    if len(conversion.episodes) == 1:
        return ""
    return f"The first of {len(conversion.episodes)} episodes; the numbers above are of all of them."


def _recorded_table(converted: ConvertedEpisode) -> str:
    rows = []
    for measured in converted.statistics:
        stream = converted.episode.streams[measured.name]
        offsets = offsets_text(stream)
        rows.append(
            (
                measured.name,
                f"{stream.kind} {stream.values.dtype}[{stream.values.shape[1]}]",
                measured.clock + (f" ({offsets})" if offsets else ""),
                f"{measured.count:,}",
                f"{number(measured.rate_hz, 4)} Hz",
                milliseconds(measured.jitter_ns),
                str(len(measured.gaps)),
                f"{measured.nan_fraction:.1%}",
            )
        )
    header = ("Stream", "Holds", "Clock used (other clocks)", "Samples", "Rate", "Jitter", "Gaps", "NaN")
    return page.table(
        "Jitter: standard deviation of the period. Gap: more than three median periods.", header, rows, left=3
    )


def _aligned_table(conversion: Conversion) -> str:
    rows = []
    for name, stream in conversion.episodes[0]["streams"].items():
        gap = milliseconds(stream["max_gap"]) if stream["max_gap"] is not None else "any"
        valid, oldest = f"{stream['valid_fraction']:.2%}", milliseconds(stream["max_age_ns"])
        rows.append((name, stream["feature"], stream["policy"], gap, valid, oldest))
    header = ("Stream", "Feature", "Between samples", "Largest gap", "Valid frames", "Oldest sample")
    return page.table("A frame is valid when samples near enough stand behind it.", header, rows, left=3)


def _stream_card(converted: ConvertedEpisode, measured: StreamStatistics) -> str:
    aligned, stream = converted.aligned, converted.episode.streams[measured.name]
    start_ns = int(aligned.times_ns[0])
    times = (aligned.times_ns - start_ns) / 1e9
    span = (float(times[0]), float(times[-1]))
    bands = [
        Band((first - start_ns) / 1e9, (last - start_ns) / 1e9, f"gap of {(last - first) / 1e6:.0f} ms")
        for first, last in measured.gaps
    ]
    valid = aligned.valid[measured.name].cpu().numpy()
    left = []
    if measured.name in aligned.data:
        overview = svg.chart(
            f"{measured.name} on the new clock",
            _overview(aligned, measured.name, times, valid),
            x_range=span,
            bands=bands,
        )
        left.append(page.figure("aligned value over seconds", overview))
    left.append(page.figure("valid frames", svg.strip(f"Where {measured.name} is valid", times, valid, x_range=span)))
    age = Series(times, aligned.age_ns[measured.name] / 1e6, 1)
    chart = svg.chart(
        f"Age of the samples of {measured.name} in ms", [age], x_range=span, bands=bands, size=(720, 96), y_zero=True
    )
    left.append(page.figure("age of the sample used, ms", chart))
    right = _zoom(converted, measured, bands)
    heading = f"<h3>{escape(measured.name)}{_key(stream)}</h3>"
    return f'<div class="card">{heading}<div class="pair"><div>{"".join(left)}</div><div>{right}</div></div></div>'


def _key(stream: RecordedStream) -> str:
    names = stream.columns or tuple(f"column {column}" for column in range(stream.values.shape[1]))
    if stream.kind in ("points", "image"):
        return ""
    shown = "".join(
        f'<span class="key" style="background:var(--s{index})"></span><span class="soft">{escape(name)}</span>'
        for index, name in enumerate(names[:MAX_COLUMNS])
    )
    rest = len(names) - MAX_COLUMNS
    return shown + (f' <span class="soft">and {rest} more</span>' if rest > 0 else "")


def _overview(aligned: AlignedEpisode, name: str, times: Floats, valid: npt.NDArray[np.bool_]) -> list[Series]:
    values = _columns(aligned.data[name].cpu().numpy())
    # A line joins two frames: it stays pale as long as one of them is not valid.
    faded = ~valid | ~np.roll(valid, 1) | ~np.roll(valid, -1)
    series = []
    for column in range(values.shape[1]):
        if not valid.all():
            series.append(Series(times, np.where(faded, values[:, column], np.nan), column, "faded"))
        series.append(Series(times, np.where(valid, values[:, column], np.nan), column, "line"))
    return series


def _zoom(converted: ConvertedEpisode, measured: StreamStatistics, bands: Sequence[Band]) -> str:
    aligned, stream = converted.aligned, converted.episode.streams[measured.name]
    if measured.name not in aligned.data or len(stream.times_ns) < 2:
        return _scan_steps(aligned, measured) if measured.name in aligned.scans else ""
    start_ns = int(aligned.times_ns[0])
    longest = max(measured.gaps, key=lambda gap: gap[1] - gap[0], default=None)
    window = _window(aligned, measured, longest)
    recorded = (stream.times_ns - start_ns) / 1e9
    times = (aligned.times_ns - start_ns) / 1e9
    before = _columns(stream.values)
    after = _columns(aligned.data[measured.name].cpu().numpy())
    near, inside = ((stamps >= window[0]) & (stamps <= window[1]) for stamps in (recorded, times))
    style: Literal["dots", "line"] = "dots" if np.count_nonzero(near) <= MAX_MARKS else "line"
    series = [Series(recorded[near], before[near, column], column, style) for column in range(before.shape[1])]
    series += [Series(times[inside], after[inside, column], column, "rings") for column in range(after.shape[1])]
    title = f"{measured.name} before and after, close up"
    picture = svg.chart(title, series, x_range=window, bands=bands, size=(430, 250))
    width_s, where = window[1] - window[0], "the longest gap" if longest is not None else "the middle"
    return page.figure(f"{width_s:.3g} s around {where}", picture)


def _window(
    aligned: AlignedEpisode, measured: StreamStatistics, longest: tuple[int, int] | None
) -> tuple[float, float]:
    """The seconds to look at closely: the longest gap, or its start if it is long, or the middle."""
    times_ns = aligned.times_ns
    frame_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else measured.period_ns
    half_ns = ZOOM_PERIODS / 2 * max(frame_ns, measured.period_ns)
    middle_ns = (int(times_ns[0]) + int(times_ns[-1])) / 2
    if longest is not None:
        gap_ns = longest[1] - longest[0]
        is_long = 1.4 * gap_ns > MAX_MARKS * frame_ns
        middle_ns = longest[0] if is_long else (longest[0] + longest[1]) / 2
        half_ns = max(half_ns, MAX_MARKS / 2 * frame_ns if is_long else 0.7 * gap_ns)
    return (middle_ns - half_ns - int(times_ns[0])) / 1e9, (middle_ns + half_ns - int(times_ns[0])) / 1e9


def _scan_steps(aligned: AlignedEpisode, measured: StreamStatistics) -> str:
    times = (aligned.times_ns - aligned.times_ns[0]) / 1e9
    middle = float(times[-1]) / 2
    half = min(middle, 0.5 * ZOOM_PERIODS * measured.period_ns / 1e9) or 0.5
    steps = Series(times, aligned.scans[measured.name].scan.astype(np.float64), 0, "rings")
    picture = svg.chart(
        f"Scan of {measured.name} that each frame uses",
        [steps],
        x_range=(middle - half, middle + half),
        size=(430, 190),
    )
    return page.figure("number of the scan that each frame uses", picture)


def _voxel_section(name: str, voxels: VoxelScans) -> str:
    box = voxels.box
    x, y, z = ((low, low + cells * box.voxel_size) for low, cells in zip(box.grid_min, box.grid_size, strict=True))
    middle = len(voxels.scans) // 2
    one, which = voxels.only(middle), f"scan {int(voxels.scans[middle])}"
    size = " x ".join(str(cells) for cells in box.grid_size)
    text = (
        f"{voxels.points:,} points of {len(voxels.scans)} scans in {size} voxels of {box.voxel_size:g} m;"
        f" {len(voxels.counts):,} are occupied, {voxels.points - int(voxels.counts.sum()):,} points lie outside."
        " Metres in the sensor's own frame; the stronger the colour, the more points."
    )
    views = (
        (
            "x to the right, y up",
            f"{which} from above",
            svg.heat_map(f"{name}, {which} from above", one.top_view, x_range=x, y_range=y),
        ),
        (
            "x to the right, z up",
            f"{which} from the side",
            svg.heat_map(f"{name}, {which} from the side", one.side_view, x_range=x, y_range=z),
        ),
        (
            "x to the right, y up",
            "all scans from above",
            svg.heat_map(f"{name}, all scans from above", voxels.top_view, x_range=x, y_range=y),
        ),
    )
    figures = "".join(page.figure(f"{what}: {axes}", picture) for axes, what, picture in views)
    return page.section(f"Voxels of {name}", text, f'<div class="card views">{figures}</div>')


def _columns(values: Any) -> Floats:
    return np.asarray(values[:, :MAX_COLUMNS], dtype=np.float64)
