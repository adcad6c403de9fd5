"""The layout: who may import whom, what lives in which room, and what stays out of `--help`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_tools.cli import COMMANDS
from tests.support.readme import LAYOUT, blocks

PACKAGE = Path(__file__).parents[1] / "resnet_tools"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from its own room and from rooms on later lines; rooms on one line do not know each other.
ROOMS = [
    ["__main__", "export"],
    ["cli"],
    ["jobs"],
    ["training"],
    ["evaluation", "features"],
    ["checkpoints"],
    ["compute"],
    ["data"],
    ["torch7"],
    ["history", "nets"],
    ["large_arrays", "locking", "metrics", "reading", "text", "writing"],
    ["errors"],
]
# The same inside the rooms: a file imports only from files later in its list.
INSIDE = {
    "jobs": [
        "train",
        "train_arguments",
        "run_pictures",
        "run",
        "evaluate",
        "extract_features",
        "classify",
        "activation_maps",
        "nets",
        "running",
        "images",
        "defaults",
    ],
    "training": [
        "option_checks",
        "setup",
        "pictures",
        "classifier_only",
        "run",
        "loading_watch",
        "events",
        "exchange",
        "start",
        "run_samples",
        "initial_net",
        "saving",
        "step",
        "counts",
        "compute_config",
        "board",
        "lua_run",
        "loading",
        "shared_samples",
        "views",
        "batches",
        "transforms",
        "linear_classifier",
        "memory",
        "mixing",
        "average",
        "optimizer",
        "arguments",
        "options",
        "run_state",
        "recipe",
        "run_files",
    ],
    "evaluation": ["classified_sheet", "explanations", "error_tables", "report", "evaluate", "options"],
    "features": [
        "map_files",
        "map_page",
        "projection",
        "groups",
        "sheet",
        "similar",
        "neighbours",
        "query_net",
        "begun",
        "opened",
        "setup",
        "extract",
        "files",
        "readers",
        "store",
        "layers",
        "options",
    ],
    "checkpoints": [
        "download",
        "transfer",
        "inspect",
        "convert",
        "verify",
        "nets_in_python",
        "runnable",
        "onnx_files",
        "onnx_engine",
        "onnx_export",
        "onnx_session",
        "openvino_session",
        "onnx_bytes",
        "onnx_graph",
        "layouts",
        "saving",
        "checkpoint",
        "weights",
        "lua_nets",
        "heads",
        "net_weights",
        "foreign",
        "model_files",
        "run_folder",
        "tensor_files",
        "torch_files",
        "torch_values",
        "stored",
        "pickles",
        "placeholders",
    ],
    "compute": [
        "activation_maps",
        "inference",
        "predictions",
        "loader_processes",
        "loader_server",
        "transfer",
        "engines",
        "device",
        "processes",
        "rendezvous",
        "launcher",
        "job",
        "cpus",
    ],
    "data": [
        "parts",
        "checking",
        "findings",
        "datasets",
        "custom",
        "labelled",
        "image_lists",
        "label_files",
        "label_rows",
        "splits",
        "folder",
        "files",
        "fetched",
        "cifar",
        "pickled",
        "loading",
        "augment",
        "sheets",
        "thumbnails",
        "transforms",
        "photo_cache",
        "photographs",
        "resample",
        "taps",
        "given_images",
        "image",
        "image_formats",
        "labels",
        "class_lists",
        "class_sections",
        "class_structures",
        "samples",
    ],
    "torch7": [
        "weights",
        "recognise",
        "export_modules",
        "template",
        "outline",
        "fields",
        "printing",
        "modules",
        "t7_writer",
        "value_writer",
        "byte_writer",
        "t7",
        "copying",
        "ascii_reader",
        "fast_reader",
        "reader",
        "payloads",
        "byte_reader",
        "lua",
        "sniff",
    ],
    "history": ["training_log", "plotting", "lines", "history"],
    "nets": ["state_dict", "resnet", "blocks", "layers", "parameters", "catalog", "architecture"],
}
INSIDE_REPORT = [
    "files",
    "folder",
    "page",
    "class_table",
    "html_text",
    "style",
    "confusion",
    "contact_sheet",
    "summary",
    "tables",
]
# A line of code knows its room by its noun.
NOUNS = {
    r"torch\.load\(": ["checkpoints/"],
    r"torch\.save\(": ["checkpoints/"],
    r"torch\.cuda|torch\.distributed": ["compute/", "training/step.py"],
    r"optim\.SGD\(": ["training/"],
    r"nn\.Conv2d\(": ["nets/blocks.py"],
    r"\b0\.485\b": ["data/transforms.py"],
    r"\(3, 24, 36, 3\)": ["nets/catalog.py"],
    r"\bclick\.": ["cli/", "__main__.py"],
    r"CudaTensor": ["torch7/"],
    r"(import|from) matplotlib": ["history/plotting.py"],
    r"weights_only=False": [],
}


def tier(room: str) -> int:
    [number] = [number for number, rooms in enumerate(ROOMS) if room in rooms]
    return number


def name_of(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports_of(file: Path) -> list[tuple[str, ...]]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = PACKAGE.parent.joinpath(*node.module.split("."))
            modules = [alias.name for alias in node.names if (inside / f"{alias.name}.py").exists()]
            found += [f"{node.module}.{name}" for name in modules] or [node.module]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [tuple(name.split(".")[1:]) for name in found if name.startswith("resnet_tools.")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(name_of(file)))
def test_imports_go_down_the_list_of_rooms(file):
    own = name_of(file)
    if own == ("__init__",):
        return  # names every public room
    for imported in imports_of(file):
        assert imported[0] == own[0] or tier(imported[0]) > tier(own[0]), f"{own} imports {imported}"
        if imported[0] == own[0] and own[0] in INSIDE and len(own) > 1:
            order, at = (INSIDE_REPORT, 2) if own[1] == imported[1] == "report" else (INSIDE[own[0]], 1)
            assert order.index(imported[at]) > order.index(own[at]), f"{own} imports {imported}"


def test_every_file_has_a_place_in_its_room():
    for file in FILES:
        own = name_of(file)
        assert len(own) == 1 or own[0] == "cli" or own[1] in INSIDE[own[0]], own


def test_the_layout_shows_rooms_and_files_in_their_order():
    text = LAYOUT.read_text()
    numbered = re.findall(r"^\d+\. (.*)$", text, re.MULTILINE)
    assert [re.findall(r"`(\w+)`", line) for line in numbered] == ROOMS
    tree = blocks(text, "")[0]
    for room, names in INSIDE.items():
        part = re.split(r"^  \w+/", tree.split(f"\n  {room}/")[1], maxsplit=1, flags=re.MULTILINE)[0]
        assert re.findall(r"^    (\w+)(?:\.py|/) ", part, re.MULTILINE) == names, room


@pytest.mark.parametrize("noun", NOUNS)
def test_each_noun_has_one_room(noun):
    for file in FILES:
        where = file.relative_to(PACKAGE).as_posix()
        if not any(where.startswith(room) for room in NOUNS[noun]):
            assert not re.search(noun, file.read_text()), f"{noun} in {where}"


def test_the_reader_needs_only_the_standard_library_numpy_and_torchfile():
    code = "import sys, resnet_tools.torch7.t7, resnet_tools.torch7.modules; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torchfile" in loaded
    assert not {"torch", "PIL", "click"} & set(loaded)


@pytest.mark.parametrize(
    "arguments",
    [*([name, "--help"] for name in COMMANDS), ["--help"], ["--version"], ["models"]],
)
def test_help_loads_neither_torch_nor_numpy(arguments):
    code = (
        "import sys; from resnet_tools.__main__ import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'torchfile', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_list_of_commands_imports_none_of_them():
    code = (
        "import sys; from resnet_tools.__main__ import run; run(['--help']); "
        "sys.exit(str([name for name in sys.modules if name.startswith('resnet_tools.cli.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == str(["resnet_tools.cli.shared", "resnet_tools.cli.shared.notices"])
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_classify_does_not_load_torchvision():
    images = str(PACKAGE / "assets" / "images" / "bag.png")
    code = (
        "import sys; from resnet_tools.__main__ import run; code = run(sys.argv[1:]); "
        "sys.exit('loaded torchvision' if 'torchvision' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "classify", "demo", images], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Classes for" in done.stdout
