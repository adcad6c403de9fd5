"""What scripts/gpu found -> a page in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any


def markdown(report: dict[str, Any]) -> Iterator[str]:
    about = report["machine"]
    yield f"# {about.get('gpu', 'CPU')}, torch {about.get('torch', '')}, {report['seconds']:.0f} s"
    yield "\n" + ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    if report["tiny"]:
        yield "\nTiny sizes: this only tries the code, the figures say nothing."
    if report["missing"]:
        yield f"\nNot installed, and left out: {', '.join(report['missing'])}."
    for error in report.get("errors", []):
        yield f"\n**error** {error}"
    if "tests" in report:
        tests = report["tests"]
        yield f"\n## Tests\n\n{tests['passed']} passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped."
        if tests["not_run"]:
            yield f"\n{len(tests['not_run'])} did not run, no time: {', '.join(tests['not_run'])}"
        for name, text in tests["failed"].items():
            yield f"\n### {name}\n\n```\n{text}\n```"
        for reason, number in Counter(tests["skipped"].values()).items():
            yield f"- {number} times: {reason}"
    if report.get("rates"):
        yield "\n## Rates\n\n| what | images/s | its second half | ms | peak GB | waits |\n|---|---|---|---|---|---|"
        yield from map(rate_line, report["rates"])
        rates = {row["name"]: row.get("steady", row["images_per_second"]) for row in report["rates"]}
        yield from () if report["tiny"] else ratios(rates)
    if "profile" in report:
        yield from profile_lines(report["profile"])


def rate_line(row: dict[str, Any]) -> str:
    peak = "" if row.get("peak_gb") is None else f"{row['peak_gb']:.1f}"
    waits = f"{row['share_waiting']:.0%}" if "share_waiting" in row else ""
    steady = f"{row['steady']:,.0f}" if "steady" in row else ""
    rates = f"{row['images_per_second']:,.0f} | {steady} | {row['milliseconds']:,.1f}"
    return f"| {row['name']} | {rates} | {peak} | {waits} |"


AIMS = (
    ("our step, compiled", "torchvision's reference loop, AMP", 1.3),
    ("our step, eager", "torchvision's reference loop, AMP", 1.0),
    ("our step, compiled", "the best hand-tuned loop", 1.0),
    ("our step, compiled", "timm's loop, AMP, channels last", 1.0),
    ("our training from JPEGs", "our step, eager", 0.95),
    ("extract-features of JPEGs, single", "bare net, features, single", 0.9),
    ("extract-features of JPEGs, bf16", "bare net, features, bf16", 0.9),
    ("classify of JPEGs, single", "bare net, classes, single", 0.9),
    ("classify of JPEGs, bf16", "bare net, classes, bf16", 0.9),
    ("extract-features of JPEGs, bf16", "features of JPEGs by timm and its loader, bf16", 1.0),
)


def ratios(rates: dict[str, float]) -> Iterator[str]:
    yield "\n| ratio | found | aim |\n|---|---|---|"
    for mine, other, aim in AIMS:
        if mine in rates and rates.get(other):
            found = rates[mine] / rates[other]
            yield f"| {mine} : {other} | {found:.2f} | {aim:.2f}{'' if found >= aim else ' **missed**'} |"


def profile_lines(found: dict[str, Any]) -> Sequence[str]:
    lines = [f"\n## Profile of {found['steps']} steps\n", f"{found['milliseconds']:.1f} ms, the device idle for"]
    lines[-1] += f" {found['idle_share']:.1%} of it.\n\n| gaps by cause | number | ms | longest us |\n|---|---|---|---|"
    lines += [
        f"| {g['cause']} | {g['gaps']} | {g['milliseconds']:.2f} | {g['longest_us']:.0f} |" for g in found["gaps"]
    ]
    lines += ["\n| longest work | ms |\n|---|---|"]
    return [*lines, *(f"| {work['name']} | {work['milliseconds']:.2f} |" for work in found["longest_work"])]
