"""`resnet similar`: the nearest images in a features file."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.option_groups import FiniteRange
from resnet_tools.cli.shared.options import (
    BATCH_SIZE,
    Images,
    check_files,
    device_name,
    image_options,
    quick_imports,
    refuse_inputs,
)
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.text import counted, csv_cell, printable

if TYPE_CHECKING:
    import torch

    from resnet_tools.errors import ImageError
    from resnet_tools.features.opened import FeatureRows
    from resnet_tools.features.similar import Neighbour, Similar

STOPPED = "Stopped."
Write = Callable[["Similar"], None]


@click.command(
    epilog="Example: resnet similar photos.pt cat.jpg --top-k 5 --sheet similar.png",
    help="""Print the images of FEATURES that are most similar to each IMAGE, by the cosine of their features.

    FEATURES is a file that `resnet extract-features` wrote, in any format, or NAME.index.json for shards. The features
    of IMAGE (a file, a folder, a glob pattern, - for stdin) are computed by the net, layer, preprocessing, engine
    and kind of device that FEATURES records. Rows of zeros or with NaN are similar to nothing.""",
)
@click.argument("features", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@image_options
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Number of neighbours.")
@click.option("--all", "each", is_flag=True, help="Print the neighbours of each image of FEATURES, without a net.")
@click.option(
    "--duplicates",
    "threshold",
    type=FiniteRange(0, 1, min_open=True),
    metavar="COSINE",
    help="Print groups of images whose similarity is at least this, such as 0.98, directly or through others.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Write comma-separated values with a header.")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the first 24 results with their images: a .png file.",
)
@click.option("--model", type=click.Path(path_type=str), help="File of the net, if it has moved.")
@weights_option
@click.option("--batch-size", type=BATCH_SIZE, help="Number of images per forward pass.  [default: 32]")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=device_name,
    help="auto, cpu, cuda, cuda:1 (or 1): where features are computed and compared.",
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def command(
    features: Path,
    sources: Images,
    top_k: int,
    each: bool,
    threshold: float | None,
    as_json: bool,
    as_csv: bool,
    sheet: Path | None,
    model: str | None,
    weights: str | None,
    batch_size: int | None,
    device: str,
    quiet: bool,
) -> int:
    arguments = sources.arguments()
    if bool(arguments) + each + (threshold is not None) != 1:
        raise click.UsageError("give either IMAGE... (or --from-file), --all or --duplicates COSINE")
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    paths = check_files(model or "demo", arguments, allow_urls=sources.allow_urls)
    _check_sheet(sheet, [features, *sources.lists, *paths])
    with quick_imports():
        from resnet_tools.compute.device import find_device
        from resnet_tools.features.opened import open_features
        from resnet_tools.features.similar import passes, similar_images, similar_rows
    found_device = find_device(device)
    opened = open_features(features)
    form = "json" if as_json else "csv" if as_csv else "text"
    work = _Work(opened, found_device, quiet)
    if threshold is not None:
        return work.finish(_duplicates(work, threshold, form), sheet)
    if each:
        count = passes(opened, top_k, len(opened))
        results = work.results(count, lambda report: similar_rows(opened, found_device, top_k, report))
        return work.finish(_written(results, form), sheet)
    net = _net(opened, device, model, weights, batch_size)
    count = passes(opened, top_k, len(paths))
    with progress_bar(len(paths), "extract", quiet=True) as loaded:  # tells of images that cannot be read
        results = work.results(
            count, lambda report: similar_images(opened, paths, net, found_device, top_k, report, loaded)
        )
        return work.finish(_written(results, form), sheet, exif=net.loading.preprocessing.exif_orientation)


def _check_sheet(sheet: Path | None, inputs: Sequence[str | Path]) -> None:
    if sheet is None:
        return
    if sheet.suffix.lower() != ".png":
        raise click.UsageError(f"--sheet {sheet}: the extension is {sheet.suffix!r}; a sheet is a .png file")
    refuse_inputs(sheet, inputs)
    from resnet_tools.history.plotting import font_file

    font_file()


def _net(opened: FeatureRows, device: str, model: str | None, weights: str | None, batch: int | None) -> Any:
    from resnet_tools.features.query_net import query_net

    with warnings_as_lines():
        return query_net(opened, device, model=model, weights=weights, batch_size=batch)


class _Work:
    """Comparing under a progress bar: what came of it, the rows that are similar to nothing, and the exit code."""

    def __init__(self, features: FeatureRows, device: torch.device, quiet: bool) -> None:
        self.features, self.device, self.quiet = features, device, quiet
        self.without_direction: set[int] = set()
        self.failed = False

    def results(
        self, passes: int, begin: Callable[[Callable[[int, Any], None]], Iterator[Similar | ImageError]]
    ) -> Iterator[Similar]:
        """Results as they come; if there are several passes and a terminal shows the results, without a bar."""
        quiet = self.quiet or (passes > 1 and sys.stdout.isatty())
        with terminable(STOPPED), progress_bar(passes * len(self.features), "compare", quiet=quiet) as progress:
            found = begin(self.reporting(progress))
            results = list(found) if passes == 1 else found
            for result in results if passes > 1 else ():
                yield from self._good(result)
        for result in results if passes == 1 else ():
            yield from self._good(result)

    def reporting(self, progress: Callable[[int, list[str]], None]) -> Callable[[int, Any], None]:
        def report(first: int, usable: Any) -> None:
            if not usable.all():
                self.without_direction.update((first + (~usable).nonzero()[0]).tolist())
            progress(len(usable), [])

        return report

    def _good(self, result: Similar | ImageError) -> Iterator[Similar]:
        from resnet_tools.features.similar import Similar

        if isinstance(result, Similar):
            yield result
        else:
            self.failed = True

    def finish(self, shown: Sequence[Any], sheet: Path | None, *, exif: bool = False) -> int:
        """Draw the first results, and tell of rows that were left out. Returns: the exit code."""
        from resnet_tools.features.opened import listed_rows
        from resnet_tools.features.sheet import write_sheet

        if self.without_direction:
            rows = sorted(self.without_direction)
            text = f"{listed_rows(rows)} of {self.features.path}: only zeros, or NaN, which are similar to nothing."
            click.echo(f"Left out: {printable(text)}", err=True)
        if sheet is not None and shown:
            write_sheet(shown, sheet, exif=exif)
            click.echo(f"saved the sheet to {printable(str(sheet))}", err=True)
        return int(self.failed)


def _written(results: Iterator[Similar], form: str) -> list[Similar]:
    """Write all results; returns those that a sheet shows."""
    from resnet_tools.features.sheet import MOST_LINES

    shown: list[Similar] = []
    write = WRITERS[form]()
    for result in results:
        write(result)
        if len(shown) < MOST_LINES:
            shown.append(result)
    return shown


def _duplicates(work: _Work, threshold: float, form: str) -> list[list[Neighbour]]:
    from resnet_tools.features.similar import duplicate_groups, passes

    count = passes(work.features, 1, len(work.features)) * len(work.features)
    with terminable(STOPPED), progress_bar(count, "compare", quiet=work.quiet) as progress:
        groups = duplicate_groups(work.features, work.device, threshold, work.reporting(progress))
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        rows.writerow(["group", "row", "path", "similarity"])
    for number, group in enumerate(groups, 1):
        if form == "json":
            click.echo(json.dumps({"images": [_values(image) for image in group]}))
        elif form == "csv":
            rows.writerows([number, i.row, csv_cell(i.path), f"{i.similarity:.6f}"] for i in group)
        else:
            click.echo(f"Group of {len(group)}\n{_lines(group)}")
    images = sum(map(len, groups))
    click.echo(
        f"{images} of {len(work.features)} images are in {counted(len(groups), 'group')} of near-identical ones.",
        err=True,
    )
    return groups


def _lines(neighbours: Sequence[Neighbour]) -> str:
    return "".join(f"{neighbour.similarity:.6f}\t{printable(neighbour.path)}\n" for neighbour in neighbours)


def _values(neighbour: Neighbour) -> dict[str, Any]:
    return {"row": neighbour.row, "path": neighbour.path, "similarity": round(neighbour.similarity, 6)}


def _text_writer() -> Write:
    return lambda result: click.echo(f"Similar to\t{printable(result.path)}\n{_lines(result.neighbours)}")


def _json_writer() -> Write:
    def write(result: Similar) -> None:
        own = {} if result.row is None else {"row": result.row}
        click.echo(json.dumps({"path": result.path, **own, "similar": [_values(n) for n in result.neighbours]}))

    return write


def _csv_writer() -> Write:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["path", "rank", "row", "similar", "similarity"])

    def write(result: Similar) -> None:
        for rank, n in enumerate(result.neighbours, 1):
            rows.writerow([csv_cell(result.path), rank, n.row, csv_cell(n.path), f"{n.similarity:.6f}"])

    return write


WRITERS = {"text": _text_writer, "json": _json_writer, "csv": _csv_writer}
