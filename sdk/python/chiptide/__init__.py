"""Lease accelerator chips from Chiptide.

    client = chiptide.Client.from_env()
    job = client.submit({"kind": "training", "name": "llm", "chips": 8, "lease_ttl": "60s", "grace": "2m"})
    with client.hold(job["id"], on_notice=lambda notice: stop.set()) as held:
        ...                       # held.chips, held.node_names
        held.checkpoint(step=100)  # an eviction loses only what came after

It needs nothing but Python's standard library, so that it runs inside any training image.
"""

from .client import ChiptideError, Client, Refused, Unreachable
from .held import Held, LeaseLost, Notice
from .types import Hold, Job, Lease, Placement, Problem

__all__ = [
    "ChiptideError",
    "Client",
    "Held",
    "Hold",
    "Job",
    "Lease",
    "LeaseLost",
    "Notice",
    "Placement",
    "Problem",
    "Refused",
    "Unreachable",
]
