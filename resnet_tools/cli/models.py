"""`resnet models`: the published checkpoints and the names of all architectures."""

from __future__ import annotations

import json

import click


@click.command(
    epilog="Example: resnet models",
    help="""List the published checkpoints with their ImageNet errors, and the names that `build_resnet` accepts.

    Errors are top-1 / top-5 in percent on the 50,000 validation images, for one crop and for ten crops of 224 x 224
    pixels from images whose shorter side is resized to 256 pixels.""",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    from resnet_tools.nets.catalog import PUBLISHED, PUBLISHED_AT, architecture_names

    rows = [
        {
            "file": published.file,
            "architecture": f"published-{published.file.removesuffix('.t7')}",
            "parameters": published.architecture.parameters,
            "top1_error": published.top1_error,
            "top5_error": published.top5_error,
            "ten_crop_top1_error": published.ten_crop_top1_error,
            "ten_crop_top5_error": published.ten_crop_top5_error,
            "address": published.address,
            "note": "; ".join(filter(None, (published.note, _large_crop(published.large_crop_errors)))),
        }
        for published in PUBLISHED
    ]
    if as_json:
        click.echo(json.dumps({"published": rows, "published_at": PUBLISHED_AT, "architectures": architecture_names()}))
        return 0
    click.echo("| file | architecture | parameters | 1-crop error | 10-crop error | notes | address |")
    click.echo("|---|---|--:|--:|--:|---|---|")
    for row in rows:
        one, ten = (f"{row[f'{kind}top1_error']:.2f} / {row[f'{kind}top5_error']:.2f}" for kind in ("", "ten_crop_"))
        cells = (row["file"], row["architecture"], f"{row['parameters']:,}", one, ten, row["note"], row["address"])
        click.echo(f"| {' | '.join(map(str, cells))} |")
    fetch = "`resnet download resnet-50.t7` fetches one, if its address still works"
    click.echo(f"\nPublished at {PUBLISHED_AT}; {fetch}\n\nArchitectures:\n" + "\n".join(architecture_names()))
    return 0


def _large_crop(errors: tuple[float, float] | None) -> str:
    return f"{errors[0]:.2f} / {errors[1]:.2f} with a crop of 320 x 320" if errors else ""
