//! Rules of the protocol that can be switched off, to see that the simulation notices.

/// Which rules are off. All in force by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// A proof frees whichever lease is leaving the chip, not the one it names.
    pub proof_names_no_lease: bool,
    /// Answers and orders leave before their commit.
    pub acts_before_commit: bool,
    /// Clients are answered before the commit; nothing else is.
    pub answers_before_commit: bool,
    /// A restarted agent does not look for what ran before.
    pub no_adoption: bool,
    /// A proof does not wait for the keeper: the driver's list is enough.
    pub driver_only: bool,
    /// A fence does not cancel a start under way.
    pub start_outlives_fence: bool,
    /// Chips are freed when their time to prove it is over.
    pub freed_by_time: bool,
    /// Transactions are not guarded by the leader row, nor events by their number.
    pub unguarded: bool,
    /// After a commit of unknown outcome memory goes on as if it had failed.
    pub no_reload: bool,
}

/// Every rule, alone switched off, by name.
pub const MUTANTS: [(&str, Rules); 9] = {
    const ALL: Rules = Rules {
        proof_names_no_lease: false,
        acts_before_commit: false,
        answers_before_commit: false,
        no_adoption: false,
        driver_only: false,
        start_outlives_fence: false,
        freed_by_time: false,
        unguarded: false,
        no_reload: false,
    };
    [
        ("a proof that names no lease", Rules { proof_names_no_lease: true, ..ALL }),
        ("acting before the commit", Rules { acts_before_commit: true, ..ALL }),
        ("answering before the commit", Rules { answers_before_commit: true, ..ALL }),
        ("no adoption", Rules { no_adoption: true, ..ALL }),
        ("the driver's list alone as proof", Rules { driver_only: true, ..ALL }),
        ("a start that outlives its fence", Rules { start_outlives_fence: true, ..ALL }),
        ("chips freed by time", Rules { freed_by_time: true, ..ALL }),
        ("commits without guard", Rules { unguarded: true, ..ALL }),
        ("no reload after an unknown outcome", Rules { no_reload: true, ..ALL }),
    ]
};
