"""Feature extraction on a dask cluster; this process writes the features to disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from .errors import BmnasError, DataError, in_line, quoted
from .feature_files import Extract, Part
from .networks import FeatureError
from .progress import progress_bar
from .tasks.task import Modality

if TYPE_CHECKING:
    from distributed import Client

#: The most ranges of items per thread of the cluster that are submitted and not yet written.
MAX_RANGES_PER_THREAD = 2

#: Held while a worker extracts, as its threads share a backbone, whose mode is changed.
_BACKBONE_LOCK = threading.Lock()


def on_cluster(client: Client, extract: Extract, progress: bool = True) -> Extract:
    """``extract`` on the workers of a cluster, a range of items each; the same to the bit.

    If a worker ends, another one extracts its range. Raises FeatureError unless ``client`` is a
    ``distributed.Client`` that is not asynchronous, and later DataError if the cluster is gone.
    """
    try:
        from distributed import Client
    except ImportError:
        raise FeatureError(
            "client", "no dask.distributed", "pip install 'bmnas[cluster]'"
        ) from None
    if not isinstance(client, Client) or client.asynchronous or client.status != "running":
        raise FeatureError("client", quoted(client), "a distributed.Client with a connection")

    def extracted(modality: Modality, ranges: Sequence[range]) -> Iterator[Part]:
        parts = _parts(client, extract, modality, ranges)
        yield from progress_bar(parts, f"{modality.name} features", len(ranges), show=progress)

    return extracted


def _parts(
    client: Client, extract: Extract, modality: Modality, ranges: Sequence[range]
) -> Iterator[Part]:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed
    from distributed.client import ClosedClientError

    threads = sum(client.nthreads().values())
    # A task of its own, so that the scheduler sends it again if workers have ended.
    sent = client.submit(_itself, modality, pure=False)
    left = list(ranges)
    running = as_completed()
    try:
        while left or running.count():
            while left and running.count() < MAX_RANGES_PER_THREAD * max(1, threads):
                running.add(client.submit(_extract_range, extract, sent, left.pop(0), pure=False))
            yield next(running).result()
    except (KilledWorker, CancelledError, OSError, ClosedClientError, StopIteration) as error:
        if isinstance(error, BmnasError):
            raise
        kept = "what was extracted before is kept, and the next call goes on from there"
        why = in_line(error) or type(error).__name__
        raise DataError(f"cluster: found it ended ({why}); {kept}") from None
    finally:
        if client.status == "running":
            client.cancel(list(running.futures))


def _itself(modality: Modality) -> Modality:
    return modality


def _extract_range(extract: Extract, modality: Modality, items: range) -> Part:
    with _BACKBONE_LOCK:
        parts = list(extract(modality, [items]))
    features = {
        name: torch.cat([part.features[name].half().cpu() for part in parts])
        for name in modality.channels
    }
    skipped = {item: why for part in parts for item, why in part.skipped.items()}
    return Part(items.start, items.stop, features, skipped)
