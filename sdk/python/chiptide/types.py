"""Bodies of the API, as far as this package looks into them. A test compares them with the contract."""

from __future__ import annotations

from typing import Any, Dict, List, TypedDict


class Hold(TypedDict):
    """Slots of one chip (`HoldView`). `epoch` grows with every grant: pass it to a store that must refuse a late writer."""

    chip: str
    slots: int
    epoch: int


class Placement(TypedDict):
    """Where one replica runs (`PlacementView`)."""

    replica: int
    node: str
    chips: List[Hold]


class Lease(TypedDict, total=False):
    """A lease (`LeaseView`)."""

    id: str
    job: str
    attempt: int
    state: str
    cause: str
    for_job: str
    deadline: str
    granted_at: str
    expires_at: str
    placements: List[Placement]


class Job(TypedDict, total=False):
    """A job (`JobView`)."""

    id: str
    state: str
    reason: str
    reasons: List[Dict[str, Any]]
    deadline: str
    lease: Lease
    attempt: int
    preemptions: int
    revision: int
    priority: int
    spec: Dict[str, Any]


class Problem(TypedDict, total=False):
    """Why a call was refused (`Problem`)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str
    request_id: str
