//! Which right each route takes, and whose thing it is about. One list, read by one layer; a route that is served and not
//! listed is the admin's alone, and a test names it.

use crate::access::Right;
use axum::http::Method;
use rustc_hash::FxHashMap;

/// Whose thing a route is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// Nobody's in particular, or the handler itself keeps to the caller's queues.
    All,
    /// The job in its path.
    Job,
    /// The lease in its path.
    Lease,
    /// The node in its path, which speaks.
    Node,
}

/// What a route takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The right; absent for what is open to all.
    pub right: Option<Right>,
    /// Whose thing it is about.
    pub about: About,
    /// Whether what is done there is kept in the audit: all of it, or only what was refused, or nothing.
    pub audit: Audited,
}

/// What of a route's calls is kept in the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audited {
    /// Nothing: it changes nothing.
    Nothing,
    /// Only refusals: it is called all the time, and what it changes is in the log of events.
    Refused,
    /// Every call.
    All,
}

/// A route with its rule: method, path as the router has it, right, whose thing, what of it is audited.
type Line = (&'static str, &'static str, Right, About, Audited);

/// Open to all, and nothing else is. The contract says nothing of this cluster.
const OPEN: [&str; 6] = ["/healthz", "/readyz", "/version", "/docs", "/openapi.json", "/openapi.yaml"];

/// Takes a join token instead.
const JOIN: &str = "/v1/join";

#[rustfmt::skip]
const RULES: &[Line] = &[
    ("POST",   "/v1/jobs",                       Right::ManageJobs,   About::All,   Audited::All),
    ("GET",    "/v1/jobs",                       Right::ReadJobs,     About::All,   Audited::Nothing),
    ("GET",    "/v1/jobs/{id}",                  Right::ReadJobs,     About::Job,   Audited::Nothing),
    ("GET",    "/v1/jobs/{id}/explain",          Right::ReadJobs,     About::Job,   Audited::Nothing),
    ("POST",   "/v1/jobs/{id}/cancel",           Right::ManageJobs,   About::Job,   Audited::All),
    ("POST",   "/v1/jobs/{id}/done",             Right::ManageJobs,   About::Job,   Audited::All),
    ("GET",    "/v1/jobs/{id}/logs",             Right::ReadJobs,     About::Job,   Audited::Nothing),
    ("GET",    "/v1/queues",                     Right::ReadState,    About::All,   Audited::Nothing),
    ("GET",    "/v1/policy",                     Right::ReadState,    About::All,   Audited::Nothing),
    ("PUT",    "/v1/policy",                     Right::ChangePolicy, About::All,   Audited::All),
    ("POST",   "/v1/policy:dry-run",             Right::ReadState,    About::All,   Audited::Nothing),
    ("POST",   "/v1/jobs:dry-run",               Right::ManageJobs,   About::All,   Audited::Nothing),
    ("GET",    "/v1/policy/schema",              Right::ReadState,    About::All,   Audited::Nothing),
    ("GET",    "/v1/policy/versions",            Right::ReadState,    About::All,   Audited::Nothing),
    ("GET",    "/v1/policy/versions/{version}",  Right::ReadState,    About::All,   Audited::Nothing),
    ("POST",   "/v1/policy/versions/{version}/rollback", Right::ChangePolicy, About::All, Audited::All),
    ("GET",    "/v1/leases",                     Right::ReadJobs,     About::All,   Audited::Nothing),
    ("GET",    "/v1/leases/{id}",                Right::ReadJobs,     About::Lease, Audited::Nothing),
    ("POST",   "/v1/leases/{id}/renew",          Right::ManageJobs,   About::Lease, Audited::Refused),
    ("POST",   "/v1/leases/{id}/checkpoint",     Right::ManageJobs,   About::Lease, Audited::Refused),
    ("POST",   "/v1/leases/{id}/extension",      Right::ManageJobs,   About::Lease, Audited::All),
    ("POST",   "/v1/leases/{id}/release",        Right::ManageJobs,   About::Lease, Audited::All),
    ("GET",    "/v1/nodes",                      Right::ReadState,    About::All,   Audited::Nothing),
    ("GET",    "/v1/nodes/{id}",                 Right::ReadState,    About::All,   Audited::Nothing),
    ("POST",   "/v1/nodes/{id}/cordon",          Right::Operate,      About::All,   Audited::All),
    ("POST",   "/v1/nodes/{id}/drain",           Right::Operate,      About::All,   Audited::All),
    ("POST",   "/v1/nodes/{id}/uncordon",        Right::Operate,      About::All,   Audited::All),
    ("POST",   "/v1/nodes/{id}/declare-off",     Right::Operate,      About::All,   Audited::All),
    ("POST",   "/v1/nodes/{id}/register",        Right::ActAsNode,    About::Node,  Audited::All),
    ("POST",   "/v1/nodes/{id}/report",          Right::ActAsNode,    About::Node,  Audited::Refused),
    ("GET",    "/v1/nodes/{id}/orders",          Right::ActAsNode,    About::Node,  Audited::Nothing),
    ("POST",   "/v1/nodes/{id}/logs",            Right::ActAsNode,    About::Node,  Audited::Refused),
    ("GET",    "/v1/chips",                      Right::ReadState,    About::All,   Audited::Nothing),
    ("GET",    "/v1/chips/{id}",                 Right::ReadState,    About::All,   Audited::Nothing),
    ("POST",   "/v1/chips/{id}/quarantine",      Right::Operate,      About::All,   Audited::All),
    ("POST",   "/v1/chips/{id}/release",         Right::Operate,      About::All,   Audited::All),
    ("GET",    "/v1/usage",                      Right::ReadJobs,     About::All,   Audited::Nothing),
    ("GET",    "/v1/events",                     Right::ReadJobs,     About::All,   Audited::Nothing),
    ("GET",    "/v1/whoami",                     Right::BeKnown,      About::All,   Audited::Nothing),
    ("POST",   "/v1/tokens",                     Right::ManageAccess, About::All,   Audited::All),
    ("GET",    "/v1/tokens",                     Right::ManageAccess, About::All,   Audited::Nothing),
    ("DELETE", "/v1/tokens/{id}",                Right::ManageAccess, About::All,   Audited::All),
    ("POST",   "/v1/join-tokens",                Right::ManageAccess, About::All,   Audited::All),
    ("POST",   "/v1/nodes/{id}/credential",      Right::ActAsNode,    About::Node,  Audited::All),
    ("GET",    "/v1/audit",                      Right::ReadAudit,    About::All,   Audited::Nothing),
    ("GET",    "/v1/openapi.json",               Right::BeKnown,      About::All,   Audited::Nothing),
    ("GET",    "/metrics",                       Right::ReadMetrics,  About::All,   Audited::Nothing),
];

/// What an unlisted route takes.
const UNRULED: Rule = Rule { right: Some(Right::Unruled), about: About::All, audit: Audited::All };

/// The rules, for looking up.
#[derive(Debug)]
pub struct Rules {
    paths: FxHashMap<&'static str, Vec<(Method, Rule)>>,
}

impl Default for Rules {
    fn default() -> Rules {
        let mut paths: FxHashMap<&'static str, Vec<(Method, Rule)>> = FxHashMap::default();
        for (method, path, right, about, audit) in RULES {
            let method = Method::from_bytes(method.as_bytes()).expect("the list has methods, a test looks each up");
            paths.entry(path).or_default().push((method, Rule { right: Some(*right), about: *about, audit: *audit }));
        }
        for path in OPEN {
            let rule = Rule { right: None, about: About::All, audit: Audited::Nothing };
            paths.entry(path).or_default().push((Method::GET, rule));
        }
        // A join token is all that a new agent has.
        let join = Rule { right: None, about: About::All, audit: Audited::All };
        paths.entry(JOIN).or_default().push((Method::POST, join));
        Rules { paths }
    }
}

impl Rules {
    /// The rule of a route.
    pub fn of(&self, method: &Method, path: &str) -> Rule {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match self.paths.get(path) {
            None => UNRULED,
            Some(rules) => match rules.iter().find(|(of, _)| of == method) {
                Some((_, rule)) => *rule,
                None => UNRULED,
            },
        }
    }

    /// Whether a route is listed.
    pub fn has(&self, method: &Method, path: &str) -> bool {
        self.of(method, path) != UNRULED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_is_served_has_a_rule_and_every_rule_a_route() {
        let (rules, openapi) = (Rules::default(), super::super::routes().1);
        let mut served = vec![("GET".to_owned(), "/v1/openapi.json".to_owned())];
        for (path, item) in &openapi.paths.paths {
            let operations = [
                ("GET", &item.get),
                ("POST", &item.post),
                ("PUT", &item.put),
                ("DELETE", &item.delete),
                ("PATCH", &item.patch),
            ];
            let there = operations.iter().filter(|(_, operation)| operation.is_some());
            served.extend(there.map(|(method, _)| ((*method).to_owned(), path.clone())));
        }
        for (method, path) in &served {
            let method: Method = method.parse().expect("a method");
            assert!(rules.has(&method, path), "{method} {path} has no rule: say in RULES who may call it");
        }
        for (method, path, ..) in RULES {
            let line = ((*method).to_owned(), (*path).to_owned());
            assert!(served.contains(&line), "there is no {method} {path} any more");
        }
    }

    #[test]
    fn what_is_not_listed_is_the_admins_and_a_look_at_the_head_is_a_look() {
        let rules = Rules::default();
        assert_eq!(rules.of(&Method::GET, "/v1/secrets"), UNRULED);
        assert_eq!(rules.of(&Method::HEAD, "/v1/jobs"), rules.of(&Method::GET, "/v1/jobs"));
        assert_eq!(rules.of(&Method::GET, "/healthz").right, None);
        assert_eq!(rules.of(&Method::POST, "/healthz"), UNRULED);
    }
}
