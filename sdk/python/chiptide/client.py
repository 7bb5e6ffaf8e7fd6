"""The calls. Each mutating one carries an idempotency key, so that it may be repeated until there is an answer."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Union

from .types import Job, Lease, Problem

if TYPE_CHECKING:
    from .held import Held, Notice

#: The daemon holds a long-poll for at most so many seconds.
LONG_POLL_MAX = 60.0
#: States in which a job is over.
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class ChiptideError(Exception):
    """Something did not work."""


class Unreachable(ChiptideError):
    """No daemon answered in time. Whether a call took effect is not known; repeated with its key it takes effect once."""


class Refused(ChiptideError):
    """The daemon refused, and says why."""

    def __init__(self, status: int, problem: Problem, retry_after: Optional[float]) -> None:
        field = f" [field {problem['field']}]" if "field" in problem else ""
        super().__init__(f"{problem.get('title', status)} ({problem.get('code', '-')}): {problem.get('detail', '')}{field}")
        self.status = status
        self.problem = problem
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The stable code of the problem."""
        return self.problem.get("code", "")


class Client:
    """A connection to a daemon, or to one of several (separated by commas) on the same database. May be used by many threads."""

    def __init__(self, url: str, token: str, patience: float = 60.0) -> None:
        """`patience`: for how many seconds a call is repeated while no daemon answers, or all are too busy to."""
        self._urls = [part.strip().rstrip("/") for part in url.split(",") if part.strip()]
        if not self._urls:
            raise ValueError("no URL of a daemon")
        self._at = 0
        self._token = token.strip()
        self._patience = patience

    @classmethod
    def from_env(cls) -> "Client":
        """A client as `CHIPTIDE_URL`, and `CHIPTIDE_TOKEN` or `CHIPTIDE_TOKEN_FILE`, say."""
        token = os.environ.get("CHIPTIDE_TOKEN", "")
        path = os.environ.get("CHIPTIDE_TOKEN_FILE")
        if not token and path:
            with open(path, encoding="utf-8") as file:
                token = file.read()
        return cls(os.environ.get("CHIPTIDE_URL", "http://127.0.0.1:7070"), token)

    def submit(self, job: Mapping[str, Any], key: Optional[str] = None) -> Job:
        """Submits a job. With a `key` of your own, submitting again after a crash gives the same job."""
        return self.call("POST", "/v1/jobs", body=job, key=key or str(uuid.uuid4()))

    def job(self, job_id: str, after: Optional[int] = None, wait: float = 0.0) -> Job:
        """A job; with `wait` (seconds), once it is past revision `after`, or the time is over."""
        query: Dict[str, Any] = {}
        if wait > 0:
            query["wait"] = f"{int(min(wait, LONG_POLL_MAX) * 1000)}ms"
        if after is not None:
            query["after"] = after
        return self.call("GET", f"/v1/jobs/{job_id}", query=query, timeout=wait + 30.0)

    def wait_for(self, job_id: str, until: Callable[[Job], bool], timeout: Optional[float] = None) -> Job:
        """Waits until a job is as wished, or over. Raises `TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self.job(job_id)
        while not until(job) and job["state"] not in ENDED:
            left = LONG_POLL_MAX if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} is {job['state']} after {timeout} s")
            job = self.job(job_id, after=job["revision"], wait=min(left, LONG_POLL_MAX))
        return job

    def wait_for_lease(self, job_id: str, timeout: Optional[float] = None) -> Job:
        """Waits until a job holds its chips, or is over."""
        return self.wait_for(job_id, lambda job: "lease" in job, timeout)

    def hold(self, job_id: str, on_notice: Optional[Callable[["Notice"], None]] = None) -> "Held":
        """Waits for the lease of a job and keeps it: renewed in the background, `on_notice` called once it is being taken."""
        from .held import Held

        return Held(self, self.wait_for_lease(job_id), on_notice)

    def cancel(self, job_id: str) -> Job:
        """Cancels a job."""
        return self.call("POST", f"/v1/jobs/{job_id}/cancel", key=str(uuid.uuid4()))

    def done(self, job_id: str, succeeded: bool = True, reason: Optional[str] = None) -> Job:
        """Reports a job over."""
        body: Dict[str, Any] = {"outcome": "succeeded" if succeeded else "failed"}
        if reason is not None:
            body["reason"] = reason
        return self.call("POST", f"/v1/jobs/{job_id}/done", body=body, key=str(uuid.uuid4()))

    def renew(self, lease_id: str) -> Lease:
        """Renews a lease by its job's `lease_ttl`."""
        return self.call("POST", f"/v1/leases/{lease_id}/renew")

    def checkpoint(self, lease_id: str, step: Optional[int] = None, leave: bool = False) -> Dict[str, Any]:
        """Says that the work is saved. With `leave`, a lease under notice ends now."""
        body: Dict[str, Any] = {"leave": leave}
        if step is not None:
            body["step"] = step
        return self.call("POST", f"/v1/leases/{lease_id}/checkpoint", body=body, key=str(uuid.uuid4()))

    def release(self, lease_id: str, requeue: bool = False) -> Job:
        """Gives a lease back; with `requeue` the job waits for chips again."""
        return self.call("POST", f"/v1/leases/{lease_id}/release", body={"requeue": requeue}, key=str(uuid.uuid4()))

    def jobs(self, **filters: Union[str, int]) -> Iterator[Job]:
        """Jobs, newest first, page after page; `filters` are the query parameters of `GET /v1/jobs`."""
        return self._pages("/v1/jobs", dict(filters))

    def events(self, after: int = 0, **filters: Union[str, int]) -> Iterator[Dict[str, Any]]:
        """What is in the event log after a position, to its end."""
        query: Dict[str, Any] = dict(filters, after=after)
        while True:
            page = self.call("GET", "/v1/events", query=query)
            yield from page["items"]
            if "next_cursor" not in page:
                return
            query["after"] = page["next_cursor"]

    def _pages(self, path: str, query: Dict[str, Any]) -> Iterator[Any]:
        while True:
            page = self.call("GET", path, query=query)
            items: List[Any] = page["items"]
            yield from items
            if "next_cursor" not in page:
                return
            query["cursor"] = page["next_cursor"]

    def call(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        body: Optional[Mapping[str, Any]] = None,
        key: Optional[str] = None,
        timeout: float = 30.0,
    ) -> Any:
        """Any call of the API. Repeated, with its key, while nobody answers or all are too busy, as long as `patience` lasts."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._once(method, path, query, body, key, timeout)
            except Unreachable:
                self._at = (self._at + 1) % len(self._urls)
                pause, last = 0.5, deadline - time.monotonic() < 0.5
                # A write without a key might take effect twice; renewing and reading may.
                if last or (method != "GET" and key is None and not path.endswith("/renew")):
                    raise
            except Refused as refused:
                pause = refused.retry_after or 1.0
                if refused.status not in (429, 503) or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)

    def _once(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]],
        body: Optional[Mapping[str, Any]],
        key: Optional[str],
        timeout: float,
    ) -> Any:
        url = self._urls[self._at] + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Accept", "application/json")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Idempotency-Key", key)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error) from None
        except (OSError, ValueError) as error:
            raise Unreachable(f"no answer from {url}: {error}") from error


def _refused(error: urllib.error.HTTPError) -> Refused:
    try:
        problem: Problem = json.loads(error.read())
    except (OSError, ValueError):
        problem = {"title": str(error.reason), "status": error.code}
    try:
        retry_after: Optional[float] = float(error.headers.get("Retry-After", ""))
    except ValueError:
        retry_after = None
    return Refused(error.code, problem, retry_after)
