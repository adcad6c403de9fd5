"""The processes of a job find each other through a store of keys and values that process 0, or torchrun, holds.

torchrun keeps one store over all restarts. Without a namespace per attempt, a process could read the address of a
partner that died in an earlier attempt, and fail.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from resnet_tools.compute.job import Place

POLL_SECONDS = 0.02
LONGEST_JOIN_SECONDS = 1800


def join(place: Place, backend: str, variables: Mapping[str, str] = os.environ) -> None:
    """Make torch's process group. Raises: RuntimeError or ValueError if the others are not there."""
    import torch.distributed as distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if place.address is not None:
        distributed.init_process_group(backend, place.address, rank=place.rank, world_size=place.count)
    elif "TORCHELASTIC_RUN_ID" not in variables:
        distributed.init_process_group(backend)
    else:
        store, _, _ = next(rendezvous("env://"))
        room = PrefixStore(_agreed_room(store, place), store)
        distributed.init_process_group(backend, store=room, rank=place.rank, world_size=place.count)


def _agreed_room(store: Any, place: Place) -> str:
    """A namespace in the store that only the processes of this attempt know.

    Each process asks with a fresh random key; process 0 answers every question until all the others confirm that
    they have the answer. It answers questions of earlier attempts too, but nobody reads those answers.
    """
    if place.rank > 0:
        own = uuid.uuid4().hex
        store.set(f"resnet_tools/ask/{place.rank}", own)
        room: str = store.get(f"resnet_tools/answer/{own}").decode()
        store.set(f"{room}/heard/{place.rank}", "")
        return room
    room, asking = f"resnet_tools/{uuid.uuid4().hex}", set(range(1, place.count))
    deadline = time.monotonic() + LONGEST_JOIN_SECONDS
    while asking:
        for rank in sorted(asking):
            if store.check([f"resnet_tools/ask/{rank}"]):
                store.set(f"resnet_tools/answer/{store.get(f'resnet_tools/ask/{rank}').decode()}", room)
        asking = {rank for rank in asking if not store.check([f"{room}/heard/{rank}"])}
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {min(asking)} did not come within {LONGEST_JOIN_SECONDS} seconds")
        time.sleep(POLL_SECONDS if asking else 0)
    return room
