//! Who is let in when too many come at once. Each kind of request has places of its own, so that no crowd of one kind keeps
//! another waiting: what agents and holders of leases say is worth more than new work, and new work more than a look.

use crate::config::Admission as Limits;
use crate::metrics;
use axum::http::Method;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in one permit of a body's budget.
const GRAIN: usize = 1024;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An agent's report, or output that it brings.
    Report,
    /// An agent's registration: dearer than a report, and all agents may come at once.
    Registration,
    /// A long-poll: of an agent for its orders.
    Poll,
    /// What a holder says of a lease or a job: renewed, given back, done.
    Lease,
    /// New jobs.
    Submit,
    /// A long-poll of somebody who watches.
    Watch,
    /// A look.
    Read,
    /// Whether the daemon lives: never refused.
    Health,
}

impl Kind {
    /// The kind of a request: by its route, and by whether it asks to wait.
    pub fn of(method: &Method, route: &str, query: Option<&str>) -> Kind {
        let waits = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("wait=")));
        match (method, route) {
            (_, "/healthz" | "/readyz" | "/version" | "/metrics") => Kind::Health,
            (_, "/v1/nodes/{id}/orders") => Kind::Poll,
            (&Method::POST, "/v1/nodes/{id}/register") => Kind::Registration,
            (&Method::POST, route) if route.starts_with("/v1/nodes/") => Kind::Report,
            (&Method::POST, "/v1/jobs") => Kind::Submit,
            (&Method::GET | &Method::HEAD, _) if waits => Kind::Watch,
            (&Method::GET | &Method::HEAD, _) => Kind::Read,
            _ => Kind::Lease,
        }
    }

    /// Its name, for metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Report => "report",
            Kind::Registration => "registration",
            Kind::Poll => "poll",
            Kind::Lease => "lease",
            Kind::Submit => "submit",
            Kind::Watch => "watch",
            Kind::Read => "read",
            Kind::Health => "health",
        }
    }

    /// After how many seconds one who was refused may try again. Registrations all come at once, and each refused one comes
    /// again: they are told to take their time.
    pub fn retry_after_s(self) -> u64 {
        match self {
            Kind::Registration => 3,
            _ => 1,
        }
    }
}

/// Places by kind, and the bytes of bodies that may be held at once: agents' apart from everyone else's.
#[derive(Debug)]
pub struct Admission {
    places: [(Kind, Arc<Semaphore>); 7],
    agent_bytes: Arc<Semaphore>,
    other_bytes: Arc<Semaphore>,
}

/// A place, kept until the request has been answered.
#[derive(Debug)]
pub struct Admitted {
    _place: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// The places that the configuration gives.
    pub fn new(limits: &Limits) -> Admission {
        let places = [
            (Kind::Report, limits.reports),
            (Kind::Registration, limits.registrations),
            (Kind::Poll, limits.polls),
            (Kind::Lease, limits.leases),
            (Kind::Submit, limits.submits),
            (Kind::Watch, limits.watches),
            (Kind::Read, limits.reads),
        ];
        let bytes = Arc::new(Semaphore::new(limits.bodies_mib as usize * (1024 * 1024 / GRAIN)));
        Admission {
            places: places.map(|(kind, count)| (kind, Arc::new(Semaphore::new(count as usize)))),
            agent_bytes: bytes,
            other_bytes: Arc::new(Semaphore::new(limits.bodies_mib as usize * (1024 * 1024 / GRAIN))),
        }
    }

    /// A place for a request whose body may have so many bytes; the reason when there is none.
    pub fn admit(&self, kind: Kind, body_max: usize) -> Result<Admitted, &'static str> {
        let places = self.places.iter().find(|(of, _)| *of == kind).map(|(_, places)| places.clone());
        let place = places.map(Semaphore::try_acquire_owned).transpose();
        let place = place.map_err(|_| refused(kind, "too many at once"))?;
        let budget = match kind {
            Kind::Report | Kind::Registration => &self.agent_bytes,
            _ => &self.other_bytes,
        };
        let grains = u32::try_from(body_max.div_ceil(GRAIN)).unwrap_or(u32::MAX);
        let bytes = (grains > 0).then(|| budget.clone().try_acquire_many_owned(grains)).transpose();
        let bytes = bytes.map_err(|_| refused(kind, "too many bytes at once"))?;
        Ok(Admitted { _place: place, _bytes: bytes })
    }
}

fn refused(kind: Kind, reason: &'static str) -> &'static str {
    metrics::shed(kind.as_str(), reason);
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            reports: 1,
            registrations: 1,
            polls: 1,
            leases: 1,
            submits: 2,
            watches: 1,
            event_watches: 1,
            reads: 1,
            bodies_mib: 1,
            connections: 1,
            head_limit: std::time::Duration::from_secs(1),
            body_limit: std::time::Duration::from_secs(1),
        }
    }

    #[test]
    fn a_crowd_of_one_kind_leaves_the_places_of_the_others() {
        let admission = Admission::new(&limits());
        let first = admission.admit(Kind::Read, 0).expect("a place");
        assert_eq!(admission.admit(Kind::Read, 0).expect_err("full"), "too many at once");
        let _report = admission.admit(Kind::Report, 100).expect("a place of its own");
        let _health = admission.admit(Kind::Health, 0).expect("never refused");
        drop(first);
        admission.admit(Kind::Read, 0).expect("free again");
    }

    #[test]
    fn bodies_are_bounded_together_but_not_those_of_agents_with_the_rest() {
        let admission = Admission::new(&limits());
        let _half = admission.admit(Kind::Submit, 600 * 1024).expect("room");
        assert_eq!(admission.admit(Kind::Submit, 600 * 1024).expect_err("no room"), "too many bytes at once");
        admission.admit(Kind::Report, 600 * 1024).expect("room of its own");
    }

    #[test]
    fn kinds_follow_the_route() {
        let kind = |method: Method, route, query| Kind::of(&method, route, query);
        assert_eq!(kind(Method::GET, "/v1/nodes/{id}/orders", Some("wait=30s")), Kind::Poll);
        assert_eq!(kind(Method::POST, "/v1/nodes/{id}/register", None), Kind::Registration);
        assert_eq!(kind(Method::POST, "/v1/nodes/{id}/report", None), Kind::Report);
        assert_eq!(kind(Method::POST, "/v1/jobs", None), Kind::Submit);
        assert_eq!(kind(Method::POST, "/v1/leases/{id}/renew", None), Kind::Lease);
        assert_eq!(kind(Method::POST, "/v1/jobs/{id}/cancel", None), Kind::Lease);
        assert_eq!(kind(Method::GET, "/v1/jobs/{id}", Some("after=3&wait=30s")), Kind::Watch);
        assert_eq!(kind(Method::GET, "/v1/jobs/{id}", None), Kind::Read);
        assert_eq!(kind(Method::GET, "/readyz", None), Kind::Health);
    }
}
