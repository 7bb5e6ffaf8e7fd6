"""Against a real daemon, which CHIPTIDE_URL and CHIPTIDE_TOKEN name, with one node of one chip."""

import json
import os
import threading
import time
import unittest
import urllib.request
from typing import get_type_hints

import chiptide
from chiptide import types
from chiptide.held import seconds

SOON = 20.0


def body(**extra):
    return {"kind": "training", "name": "python", "chips": 1, "preemptible": True, "grace": "60s", **extra}


class AgainstADaemon(unittest.TestCase):
    def setUp(self):
        self.client = chiptide.Client.from_env()

    def test_a_lease_is_kept_and_left_in_time_when_notice_comes(self):
        job = self.client.submit(body(lease_ttl="1500ms", priority_class="best-effort"))
        told = threading.Event()
        held = self.client.hold(job["id"], on_notice=lambda notice: told.set())
        self.assertEqual(held.chips, ["n1-gpu0"])
        held.checkpoint(step=1)
        deadline = time.monotonic() + SOON
        while self.client.call("GET", f"/v1/leases/{held.lease['id']}")["expires_at"] <= held.lease["expires_at"]:
            self.assertLess(time.monotonic(), deadline, "the lease is not renewed")
            time.sleep(0.05)

        urgent = self.client.submit(body(priority_class="urgent"))
        self.assertTrue(told.wait(SOON), "notice came")
        self.assertEqual(held.notice.cause, "preempt")
        held.checkpoint(step=2, leave=True)
        self.assertTrue(held.is_lost)
        self.assertEqual(self.client.job(job["id"])["state"], "pending")
        self.client.cancel(job["id"])
        self.client.wait_for_lease(urgent["id"], timeout=SOON)
        self.client.done(urgent["id"])
        types_seen = {event["type"] for event in self.client.events(job=job["id"])}
        self.assertTrue({"lease_renewed", "lease_revoked", "lease_ended"} <= types_seen, types_seen)

    def test_a_block_gives_its_lease_back(self):
        job = self.client.submit(body())
        with self.client.hold(job["id"]):
            pass
        self.assertEqual(self.client.job(job["id"])["state"], "succeeded")
        self.assertIn(job["id"], [known["id"] for known in self.client.jobs(state="succeeded", limit=1)])

    def test_a_key_submits_once_and_a_refusal_names_its_field(self):
        first, again = (self.client.submit(body(chips=0, cpu_milli=1), key="once") for _ in range(2))
        self.assertEqual(first["id"], again["id"])
        with self.assertRaises(chiptide.Refused) as refused:
            self.client.submit(body(queue="nobody's"))
        self.assertEqual((refused.exception.code, refused.exception.problem["field"]), ("unknown_queue", "queue"))
        self.client.cancel(first["id"])

    def test_types_are_those_of_the_contract(self):
        with urllib.request.urlopen(os.environ["CHIPTIDE_URL"] + "/openapi.json") as answer:
            schemas = json.loads(answer.read())["components"]["schemas"]
        named = [(types.Job, "JobView"), (types.Lease, "LeaseView"), (types.Placement, "PlacementView"),
                 (types.Hold, "HoldView"), (types.Problem, "Problem")]
        for ours, theirs in named:
            self.assertLessEqual(set(get_type_hints(ours)), set(schemas[theirs]["properties"]), theirs)

    def test_durations(self):
        self.assertEqual(seconds("1m30s500ms"), 90.5)
        self.assertIsNone(seconds(None))


if __name__ == "__main__":
    unittest.main()
