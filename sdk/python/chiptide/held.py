"""A lease that is kept: renewed in the background, watched for the notice that it is being taken."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Type

from .types import Job, Lease

if TYPE_CHECKING:
    from .client import Client

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class LeaseLost(Exception):
    """There is no lease to keep: the job is over, or lost its chips."""


@dataclass(frozen=True)
class Notice:
    """The lease is being taken: save the work, then `Held.checkpoint(leave=True)`, before the deadline."""

    #: When the lease ends at the latest, as the daemon writes it (RFC 3339).
    deadline: str
    #: Why: `preempt`, `reclaim`, `consolidate` or `max_duration`.
    cause: str


class Held:
    """A lease that is kept for as long as the process lives and `close` has not been called.

    The renewal runs on this machine's monotonic clock, every third of the job's `lease_ttl`. `on_notice` is called once, on the
    background's thread: let it set a flag. Leaving a `with` block gives the lease back, with the job succeeded, or, when an
    exception leaves it, waiting for chips again.
    """

    def __init__(self, client: "Client", job: Job, on_notice: Optional[Callable[[Notice], None]] = None) -> None:
        if "lease" not in job:
            raise LeaseLost(f"job {job['id']} is {job['state']}")
        self._client, self._job, self._on_notice = client, job, on_notice
        self._lease_id = job["lease"]["id"]
        self._ttl = seconds(job["spec"].get("lease_ttl"))
        self._notice: Optional[Notice] = None
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"chiptide {self._lease_id}", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> Lease:
        """The lease as it was granted."""
        return self._job["lease"]

    @property
    def job_id(self) -> str:
        """The job."""
        return self._job["id"]

    @property
    def chips(self) -> List[str]:
        """The ids of its chips, by replica."""
        return [hold["chip"] for placement in self.lease["placements"] for hold in placement["chips"]]

    @property
    def notice(self) -> Optional[Notice]:
        """The notice, once it has come."""
        return self._notice

    @property
    def is_lost(self) -> bool:
        """Whether the lease is over, whoever ended it: stop using the chips."""
        return self._lost.is_set()

    def checkpoint(self, step: Optional[int] = None, leave: bool = False) -> Any:
        """Says that the work is saved; with `leave`, after notice, that nothing holds us any more."""
        answer = self._client.checkpoint(self._lease_id, step, leave)
        if leave and self._notice is not None:
            self._lost.set()
        return answer

    def close(self) -> None:
        """Stops keeping the lease, without giving it back."""
        self._closed.set()

    def __enter__(self) -> "Held":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
        if not self.is_lost:
            self._client.release(self._lease_id, requeue=kind is not None)

    def _keep(self) -> None:
        from .client import ChiptideError, Refused

        every = None if self._ttl is None else self._ttl / 3
        due = None if every is None else time.monotonic() + every
        revision: Optional[int] = None
        while not self._closed.is_set() and not self._lost.is_set():
            try:
                if due is not None and every is not None and time.monotonic() >= due:
                    if self._notice is None:
                        self._client.renew(self._lease_id)
                    due = time.monotonic() + every
                wait = 5.0 if due is None else max(0.05, min(5.0, due - time.monotonic()))
                job = self._client.job(self.job_id, after=revision, wait=wait if revision is not None else 0.0)
                revision = job["revision"]
                self._look(job)
            except Refused as refused:
                # Being taken or over: what the job says next tells which.
                if refused.code not in ("lease_revoked", "lease_over", "no_such_lease"):
                    self._closed.wait(1.0)
                revision = None
            except ChiptideError:
                self._closed.wait(1.0)

    def _look(self, job: Job) -> None:
        lease = job.get("lease")
        if lease is None or lease["id"] != self._lease_id:
            self._lost.set()
        elif lease["state"] == "revoking" and self._notice is None:
            self._notice = Notice(deadline=lease.get("deadline", ""), cause=lease.get("cause", ""))
            if self._on_notice is not None:
                self._on_notice(self._notice)


def seconds(span: Optional[str]) -> Optional[float]:
    """A duration of the API, such as `1m30s`, in seconds."""
    if span is None:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[dhms])", span))
