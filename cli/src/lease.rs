//! `chiptide lease …`.

use crate::args::Lease;
use crate::failure::Failure;
use crate::list::{follow, given};
use crate::output::Out;
use crate::show;
use chiptide_api::Client;
use chiptide_api::lease::ReleaseBody;
use chrono::Utc;
use uuid::Uuid;

/// Lists, shows, renews and gives back leases.
pub(crate) async fn run(command: Lease, client: &Client, out: Out) -> Result<(), Failure> {
    let key = Uuid::new_v4().to_string();
    let lease = match command {
        Lease::List { job, state, pages } => {
            let filters = given([("job", job.map(|job| job.to_string())), ("state", state)]);
            let leases = follow(filters, pages.max(), async |query| client.leases(&query).await).await?;
            return out.print(leases.as_slice(), |leases| show::leases(leases, Utc::now()));
        }
        Lease::Release { id, requeue } => {
            let job = client.release_lease(id, &ReleaseBody { requeue }, Some(&key)).await?;
            return out.print(&job, |job| show::job(job, Utc::now()));
        }
        Lease::Get { id } => client.lease(id).await?,
        Lease::Renew { id } => client.renew_lease(id, Some(&key)).await?,
    };
    out.print(&lease, |lease| show::lease(lease, Utc::now()))
}
