//! Tables `claims` and `claimed_slots`: promises, each slot promised to one job.

use super::{Result, column, json, moment, unjson};
use chiptide_allocator::Claim;
use chiptide_model::{JobId, LeaseId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// Replaces the promises of these jobs: `None` deletes.
pub async fn replace(tx: &mut PgConnection, claims: &[(JobId, Option<Claim>)]) -> Result<()> {
    let touched: Vec<Uuid> = claims.iter().map(|(job, _)| job.0).collect();
    sqlx::query!("delete from claims where job_id = any($1)", &touched).execute(&mut *tx).await?;
    let made: Vec<(Uuid, &Claim)> = claims.iter().filter_map(|(job, claim)| Some((job.0, claim.as_ref()?))).collect();
    if made.is_empty() {
        return Ok(());
    }
    let jobs: Vec<Uuid> = made.iter().map(|(job, _)| *job).collect();
    let since: Vec<DateTime<Utc>> = made.iter().map(|(_, claim)| column(claim.since)).collect();
    let deadlines: Vec<DateTime<Utc>> = made.iter().map(|(_, claim)| column(claim.deadline)).collect();
    let victims: Vec<String> = made.iter().map(|(_, claim)| json(&claim.victims)).collect();
    let placements: Vec<String> = made.iter().map(|(_, claim)| json(&claim.placements)).collect();
    let choices: Vec<String> = made.iter().map(|(_, claim)| json(&claim.choice)).collect();
    sqlx::query!(
        "insert into claims (job_id, since, deadline, victims, placements, choice)
         select job_id, since, deadline, array(select jsonb_array_elements_text(victims::jsonb)::uuid),
             placements::jsonb, choice::jsonb
         from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
             as c (job_id, since, deadline, victims, placements, choice)",
        &jobs,
        &since,
        &deadlines,
        &victims,
        &placements,
        &choices
    )
    .execute(&mut *tx)
    .await?;
    let slots = || {
        made.iter().flat_map(|(job, claim)| {
            let holds = claim.placements.iter().flat_map(|placement| &placement.holds);
            holds.flat_map(move |hold| hold.slots.iter().map(move |slots| (*job, hold, slots)))
        })
    };
    let jobs: Vec<Uuid> = slots().map(|(job, ..)| job).collect();
    let chips: Vec<String> = slots().map(|(_, hold, _)| hold.chip.to_string()).collect();
    let starts: Vec<i32> = slots().map(|(.., slots)| slots.start().into()).collect();
    let ends: Vec<i32> = slots().map(|(.., slots)| slots.end().into()).collect();
    sqlx::query!(
        "insert into claimed_slots (job_id, chip, slots)
         select s.job_id, chips.number, int4range(s.lo, s.hi)
         from unnest($1::uuid[], $2::text[], $3::int[], $4::int[]) as s (job_id, chip_id, lo, hi)
         join chips on chips.id = s.chip_id",
        &jobs,
        &chips,
        &starts,
        &ends
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Every promise.
pub async fn load(tx: &mut PgConnection) -> Result<Vec<(JobId, Claim)>> {
    let rows = sqlx::query!("select job_id, since, deadline, victims, placements, choice from claims order by job_id");
    let rows = rows.fetch_all(tx).await?;
    rows.into_iter()
        .map(|row| {
            let claim = Claim {
                placements: unjson("claims", &row.job_id, row.placements)?,
                victims: row.victims.into_iter().map(LeaseId).collect(),
                since: moment(row.since),
                deadline: moment(row.deadline),
                choice: unjson("claims", &row.job_id, row.choice)?,
            };
            Ok((JobId(row.job_id), claim))
        })
        .collect()
}
