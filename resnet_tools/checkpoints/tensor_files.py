"""Path <-> tensors by name, in files that nobody vouches for: PyTorch (.pt, .pth) and safetensors.

`torch.load` is always `weights_only=True`, and only of files that hold as many bytes as they claim.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_tools.errors import CheckpointError
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind
from resnet_tools.writing import written_whole

MAX_NESTING = 3  # of tables around the tensors


def format_of(path: Path) -> str:
    """Which loader reads the file: pt (also for state dicts of PyTorch), safetensors, or t7 for all else.

    Raises: CheckpointError if it is no regular file or cannot be read.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path}: a pipe or device; expected a file")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        kind = content_kind(head, path.stat().st_size)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return {"zip": "pt", "pickle": "pt", "safetensors": "safetensors"}.get(kind or "", "t7")


def tensors_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch or safetensors file as they are stored, by name; nested tables are searched.

    Raises: CheckpointError if the file cannot be read.
    """
    try:
        content = torch_load(path) if format_of(path) == "pt" else read_safetensors(path)[0]
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, Tensor) and value.layout == torch.strided:
            found[name] = value
        elif isinstance(value, Mapping) and name.count("/") < MAX_NESTING:
            waiting += [(f"{name}/{key}".lstrip("/"), inner) for key, inner in value.items()]
    return found


def torch_load(path: Path) -> Any:
    """What torch.load gives, for files that hold no more than their own size."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in the file is checked by us
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it holds more than tensors and plain values (perhaps a whole pickled model), so it is not loaded, as it "
            "could run code; save the model's state_dict() in the program that made it"
        ) from error
    except Exception as error:  # torch.load raises whatever its damaged input leads to
        reason = str(error).partition("\n")[0].partition("  (")[0]
        raise CheckpointError(f"not a whole PyTorch file ({type(error).__name__}: {reason:.200})") from error


def torch_save(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values for `torch_load`; a whole file replaces an earlier one.

    Raises: CheckpointError if it cannot be written, with the OSError or RuntimeError as its cause.
    """
    try:
        with written_whole(path) as partial:
            torch_write(content, partial)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


def torch_write(content: Mapping[str, Any], path: Path) -> None:
    """Write for `torch_load` where it belongs. Raises: OSError, or RuntimeError, as torch.save reports a full disk."""
    torch.save(content, path)


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"not a whole PyTorch file ({error}); is the download complete?") from error
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise CheckpointError("a compressed zip archive; expected a PyTorch file, whose parts are stored as they are")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata. Raises: CheckpointError if the file is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return state, file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"not a whole safetensors file ({error}); is the download complete?") from error


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors. Raises: OSError if the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(state), path, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)  # as any new file; safetensors makes it readable for the owner only


def checked_state(content: Any) -> dict[str, Tensor]:
    """Float32 tensors by name. Raises: CheckpointError for anything else, or for a tensor larger than its data."""
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"it holds a {type(content).__name__}; expected a state dict of parameter names and tensors"
        )
    state: dict[str, Tensor] = {}
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(
                f"it holds {key!r:.80}: {type(tensor).__name__}; expected parameter names and dense tensors"
            )
        if tensor.device.type != "cpu" or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{key} claims {tensor.numel()} elements, more than its data holds")
        if not tensor.dtype.is_floating_point and not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{key} holds {tensor.dtype}; expected floating-point weights")
        state[key.removeprefix("module.")] = tensor.float() if tensor.dtype.is_floating_point else tensor
    if len(state) < len(content):
        raise CheckpointError("it holds parameters both with and without the prefix 'module.'; expected one kind")
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in content.values()}
    if sum(t.numel() * t.element_size() for t in content.values()) > sum(stored.values()):
        raise CheckpointError("its tensors overlap in the file; expected each weight stored once")
    return state
