//! What to make of a call that failed, and saying so once instead of on every retry.

use crate::state::StateError;
use chiptide_api::ClientError;
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{error, info, warn};

/// What a failed call asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The daemon does not know this session: register again.
    Register,
    /// It may work soon: keep the session, try again with backoff, not before the time the daemon asks for.
    Retry(Option<Duration>),
    /// Trying soon will not help: keep the session, try again slowly.
    Refused,
}

/// Failures already said.
#[derive(Debug)]
pub(crate) struct Complaints {
    node: String,
    silent: bool,
    forgetful: bool,
    said: BTreeSet<String>,
}

impl Complaints {
    pub(crate) fn new(node: &str) -> Complaints {
        Complaints { node: node.to_owned(), silent: false, forgetful: false, said: BTreeSet::new() }
    }

    /// Judges a failed call and logs it, once for each distinct code.
    pub(crate) fn judge(&mut self, call: &'static str, error: &ClientError) -> Verdict {
        match error {
            ClientError::Refused(problem) => match problem.code.as_str() {
                "node_not_registered" | "stale_session" => {
                    info!(node = %self.node, call, code = %problem.code, "the daemon does not know this session");
                    Verdict::Register
                }
                _ if problem.status >= 500 || problem.status == 429 => {
                    self.unanswered(call, &problem.to_string());
                    Verdict::Retry(problem.retry_after)
                }
                code => {
                    if self.said.insert(code.to_owned()) {
                        warn!(node = %self.node, call, code, "the daemon refuses: {problem}");
                    }
                    Verdict::Refused
                }
            },
            ClientError::Unexpected { status, .. } if *status < 500 => {
                if self.said.insert(format!("{call} {status}")) {
                    warn!(node = %self.node, call, status, "not an answer of a chiptide daemon: {error}");
                }
                Verdict::Refused
            }
            ClientError::Unreachable { .. } | ClientError::Unexpected { .. } => {
                self.unanswered(call, &error.to_string());
                Verdict::Retry(None)
            }
        }
    }

    /// No useful answer came: said once, until one does.
    pub(crate) fn unanswered(&mut self, call: &'static str, why: &str) {
        if !std::mem::replace(&mut self.silent, true) {
            warn!(node = %self.node, call, "the daemon does not answer, retrying: {why}");
        }
    }

    /// Orders could not be put on disk: said once, until they can.
    pub(crate) fn not_kept(&mut self, error: &StateError) {
        if !std::mem::replace(&mut self.forgetful, true) {
            error!(node = %self.node, "new orders are not carried out, since they cannot be remembered: {error}");
        }
    }

    /// Orders were put on disk.
    pub(crate) fn kept(&mut self) {
        if std::mem::take(&mut self.forgetful) {
            info!(node = %self.node, "orders can be remembered again");
        }
    }

    /// An answer came.
    pub(crate) fn answered(&mut self) {
        if std::mem::take(&mut self.silent) {
            info!(node = %self.node, "the daemon answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_api::Problem;

    fn refusal(status: u16, code: &str) -> ClientError {
        let (kind, title) = (format!("/problems/{code}"), code.to_owned());
        let (code, detail) = (code.to_owned(), String::new());
        ClientError::Refused(Box::new(Problem {
            kind,
            title,
            status,
            code,
            detail,
            field: None,
            request_id: None,
            retry_after: None,
        }))
    }

    #[test]
    fn a_lost_session_registers_again_and_other_refusals_wait() {
        let mut complaints = Complaints::new("n1");
        assert_eq!(complaints.judge("report", &refusal(404, "node_not_registered")), Verdict::Register);
        assert_eq!(complaints.judge("report", &refusal(409, "stale_session")), Verdict::Register);
        assert_eq!(complaints.judge("report", &refusal(401, "unauthorized")), Verdict::Refused);
        assert_eq!(complaints.judge("report", &refusal(503, "not_leading")), Verdict::Retry(None));
        let page = ClientError::Unexpected { status: 502, detail: "<html>".into() };
        assert_eq!(complaints.judge("report", &page), Verdict::Retry(None));
    }
}
