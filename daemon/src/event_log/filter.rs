//! Which events a reader wants.

use super::directory::About;
use chiptide_api::event::EVENT_TYPES;
use chiptide_model::JobId;

/// Which events a reader wants: of each list that is not empty, one must fit.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    /// Jobs.
    pub jobs: Vec<JobId>,
    /// Queues.
    pub queues: Vec<String>,
    /// Nodes.
    pub nodes: Vec<String>,
    /// Types of events.
    pub types: Vec<&'static str>,
    /// The queues of one who may not see the others; what is of no queue is everybody's.
    pub own: Option<Vec<String>>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_open(&self) -> bool {
        self.own.is_none()
            && self.jobs.is_empty()
            && self.queues.is_empty()
            && self.nodes.is_empty()
            && self.types.is_empty()
    }

    /// Whether it lets an event of this type, about this, through.
    pub fn fits(&self, kind: &str, about: &About) -> bool {
        let is_own = |queue: &str| self.own.as_ref().is_none_or(|own| own.iter().any(|known| known == queue));
        about.queue.as_deref().is_none_or(is_own)
            && (self.types.is_empty() || self.types.contains(&kind))
            && (self.jobs.is_empty() || about.job.is_some_and(|job| self.jobs.contains(&job)))
            && (self.queues.is_empty() || about.queue.as_deref().is_some_and(|of| self.queues.iter().any(|q| q == of)))
            && (self.nodes.is_empty() || about.nodes.iter().any(|on| self.nodes.iter().any(|n| n == on.as_str())))
    }

    /// The type of this name.
    pub fn event_type(name: &str) -> Option<&'static str> {
        EVENT_TYPES.into_iter().find(|known| *known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::NodeId;
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn each_list_narrows_and_each_entry_widens() {
        let job = JobId(Uuid::from_u128(1));
        let nodes = ["n1", "n2"].map(|name| NodeId::new(name).expect("a name"));
        let about = About { job: Some(job), queue: Some("ads".into()), nodes: Arc::from(nodes), ..About::default() };
        let fits = |filter: Filter| filter.fits("lease_granted", &about);
        assert!(fits(Filter::default()));
        assert!(fits(Filter { nodes: vec!["n3".into(), "n2".into()], ..Filter::default() }));
        assert!(fits(Filter { jobs: vec![job], queues: vec!["ads".into()], ..Filter::default() }));
        assert!(!fits(Filter { jobs: vec![job], queues: vec!["training".into()], ..Filter::default() }));
        assert!(!fits(Filter { types: vec!["lease_ended"], ..Filter::default() }));
        assert!(fits(Filter { own: Some(vec!["ads".into()]), ..Filter::default() }));
        let other = Filter { own: Some(vec!["training".into()]), ..Filter::default() };
        assert!(!fits(other.clone()) && other.fits("node_heard", &About::default()));
    }
}
