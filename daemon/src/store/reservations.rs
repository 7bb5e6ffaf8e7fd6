//! Table `reservations`: chips set aside.

use super::{Result, StoreError, column, json, moment, unjson};
use chiptide_allocator::Reservation;
use chiptide_model::{Holder, JobId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Kind and name of a holder, as its columns have them.
fn key(holder: &Holder) -> (&'static str, String) {
    match holder {
        Holder::Job(job) => ("job", job.to_string()),
        Holder::Calendar(name) => ("calendar", name.clone()),
    }
}

/// Replaces what is set aside for these holders: `None` deletes.
pub async fn replace(tx: &mut PgConnection, reservations: &[(Holder, Option<Reservation>)]) -> Result<()> {
    let (kinds, holders): (Vec<String>, Vec<String>) =
        reservations.iter().map(|(holder, _)| key(holder)).map(|(kind, holder)| (kind.to_owned(), holder)).unzip();
    sqlx::query!(
        "delete from reservations using unnest($1::text[], $2::text[]) as h (kind, name)
         where holder_kind = h.kind and holder = h.name",
        &kinds,
        &holders
    )
    .execute(&mut *tx)
    .await?;
    let made: Vec<(&Holder, &Reservation)> =
        reservations.iter().filter_map(|(holder, made)| Some((holder, made.as_ref()?))).collect();
    if made.is_empty() {
        return Ok(());
    }
    let kinds: Vec<String> = made.iter().map(|(holder, _)| key(holder).0.to_owned()).collect();
    let holders: Vec<String> = made.iter().map(|(holder, _)| key(holder).1).collect();
    let since: Vec<DateTime<Utc>> = made.iter().map(|(_, made)| column(made.since)).collect();
    let starts: Vec<DateTime<Utc>> = made.iter().map(|(_, made)| column(made.starts_at)).collect();
    let ends: Vec<Option<DateTime<Utc>>> = made.iter().map(|(_, made)| made.ends_at.map(column)).collect();
    let open: Vec<bool> = made.iter().map(|(_, made)| made.open).collect();
    let placements: Vec<String> = made.iter().map(|(_, made)| json(&made.placements)).collect();
    sqlx::query!(
        "insert into reservations (holder_kind, holder, since, starts_at, ends_at, open, placements)
         select kind, holder, since, starts_at, ends_at, open, placements::jsonb
         from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::boolean[],
                 $7::text[])
             as r (kind, holder, since, starts_at, ends_at, open, placements)",
        &kinds,
        &holders,
        &since,
        &starts,
        &ends as _,
        &open,
        &placements
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Everything set aside, in the order of the holders.
pub async fn load(tx: &mut PgConnection) -> Result<Vec<(Holder, Reservation)>> {
    let rows =
        sqlx::query!("select holder_kind, holder, since, starts_at, ends_at, open, placements from reservations");
    let rows = rows.fetch_all(tx).await?;
    let read = rows.into_iter().map(|row| {
        let holder =
            match row.holder_kind.as_str() {
                "job" => Holder::Job(JobId(row.holder.parse().map_err(|error: uuid::Error| {
                    StoreError::Unreadable { table: "reservations", row: row.holder.clone(), detail: error.to_string() }
                })?)),
                _ => Holder::Calendar(row.holder.clone()),
            };
        let reservation = Reservation {
            placements: unjson("reservations", &row.holder, row.placements)?,
            since: moment(row.since),
            starts_at: moment(row.starts_at),
            ends_at: row.ends_at.map(moment),
            open: row.open,
        };
        Ok((holder, reservation))
    });
    let mut reservations = read.collect::<Result<Vec<_>>>()?;
    reservations.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(reservations)
}
