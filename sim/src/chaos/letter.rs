//! What travels between clients, daemons and nodes.

use chiptide_allocator::NewJob;
use chiptide_api::node::{OrdersView, RegisterView, ReportBody, ReportView, SeenBody};
use chiptide_model::{ChipFacts, Health, JobId};
use uuid::Uuid;

/// Who sends and receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Clients,
    Daemon(usize),
    Node(usize),
}

/// A request or an answer. An answer repeats the number of its call, and is for that call only.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) call: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Register {
        boot_id: String,
        chips: Vec<(ChipFacts, Health)>,
        seen: Vec<SeenBody>,
    },
    Report(Box<ReportBody>),
    Poll {
        session: Uuid,
        after: Option<String>,
    },
    Submit(NewJob),
    Done(JobId),
    Cancel(JobId),
    Registered(RegisterView),
    Reported(Box<ReportView>),
    Orders(Box<OrdersView>),
    /// The job is accepted.
    Accepted(JobId),
    /// The job is over.
    Over(JobId),
    /// The session is not known.
    Stranger,
    /// Not now.
    Later,
}
