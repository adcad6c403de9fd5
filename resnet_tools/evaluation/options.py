"""The options of `resnet evaluate`, except those about running nets on images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PAGE = "index.html"  # of a report
MAPS = "mistake_maps.png"
Format = Literal["lines", "table", "json", "csv"]


@dataclass(frozen=True)
class EvaluateOptions:
    """The fields are named as the options are; None stands for an option that was not given."""

    models: tuple[str, ...]
    data: Path
    split: str | None
    labels: Path | None
    synsets: Path | None
    class_names: Path | None
    average: Literal["outputs", "softmax"]
    on_error: Literal["skip", "fail"]
    report: Path | None
    json: bool
    csv: bool
    quiet: bool
    weights: str | None

    @property
    def format(self) -> Format:
        """A single model has the original's line, several have a table."""
        if self.json or self.csv:
            return "json" if self.json else "csv"
        return "lines" if len(self.models) == 1 else "table"

    def conditions(self, model: str, engine: str, precision: str) -> dict[str, str | None]:
        """What a summary says of how a model was evaluated."""
        return {
            "model": model,
            "data": str(self.data),
            "split": self.split,
            "labels": None if self.labels is None else str(self.labels),
            "engine": engine,
            "precision": precision,
        }

    @property
    def report_folders(self) -> list[Path | None]:
        """For each model: the folder of --report itself if there is one model, else a folder in it named after it."""
        if self.report is None or len(self.models) == 1:
            return [self.report] * len(self.models)
        names: list[str] = []
        for model in self.models:
            stem = Path(os.path.abspath(model)).stem or "model"  # `..` and `/` have no name of their own
            name, number = stem, 1
            while name.casefold() in map(str.casefold, names):  # one folder where case does not count
                number += 1
                name = f"{stem}-{number}"
            names.append(name)
        return [self.report / name for name in names]
