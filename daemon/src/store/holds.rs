//! Table `holds`: who has which slots. Its exclusion constraint is the last word against two holders.

use super::{Result, column, expect_rows, moment, signed, unsigned};
use chiptide_model::{ChipId, Hold, LeaseId, Timestamp};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A hold to add: its lease, the chip with its slots and epoch, and the bound of its vacancy proof if the lease has
/// ended already.
pub type HoldWrite<'a> = (LeaseId, &'a Hold, Option<Timestamp>);

/// Adds the holds of leases granted in this round, one row a range of slots.
pub async fn insert(tx: &mut PgConnection, holds: &[HoldWrite<'_>]) -> Result<()> {
    let ranges =
        || holds.iter().flat_map(|(lease, hold, by)| hold.slots.iter().map(move |slots| (lease, hold, by, slots)));
    let leases: Vec<Uuid> = ranges().map(|(lease, ..)| lease.0).collect();
    let chips: Vec<String> = ranges().map(|(_, hold, ..)| hold.chip.to_string()).collect();
    let starts: Vec<i32> = ranges().map(|(.., slots)| slots.start().into()).collect();
    let ends: Vec<i32> = ranges().map(|(.., slots)| slots.end().into()).collect();
    let epochs: Vec<i64> = ranges().map(|(_, hold, ..)| signed(hold.epoch)).collect();
    let by: Vec<Option<DateTime<Utc>>> = ranges().map(|(_, _, by, _)| by.map(column)).collect();
    let done = sqlx::query!(
        "insert into holds (lease_id, chip_id, slots, epoch, vacate_by)
         select lease_id, chip_id, int4range(lo, hi), epoch, vacate_by
         from unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::bigint[], $6::timestamptz[])
             as h (lease_id, chip_id, lo, hi, epoch, vacate_by)",
        &leases,
        &chips,
        &starts,
        &ends,
        &epochs,
        &by as _
    )
    .execute(tx)
    .await?;
    expect_rows("add holds", leases.len(), &done)
}

/// Marks every hold of leases that ended: by then the nodes must have proven them vacant.
pub async fn set_vacating(tx: &mut PgConnection, leases: &[(LeaseId, Timestamp)]) -> Result<()> {
    let ids: Vec<Uuid> = leases.iter().map(|(lease, _)| lease.0).collect();
    let by: Vec<DateTime<Utc>> = leases.iter().map(|(_, by)| column(*by)).collect();
    sqlx::query!(
        "update holds set vacate_by = l.vacate_by from unnest($1::uuid[], $2::timestamptz[]) as l (id, vacate_by)
         where holds.lease_id = l.id",
        &ids,
        &by
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes holds that were proven vacant. At least one row each.
pub async fn delete(tx: &mut PgConnection, proven: &[(&ChipId, LeaseId)]) -> Result<()> {
    let chips: Vec<String> = proven.iter().map(|(chip, _)| chip.to_string()).collect();
    let leases: Vec<Uuid> = proven.iter().map(|(_, lease)| lease.0).collect();
    let gone = sqlx::query_scalar!(
        "with gone as (
             delete from holds using unnest($1::text[], $2::uuid[]) as v (chip_id, lease_id)
             where holds.lease_id = v.lease_id and holds.chip_id = v.chip_id
             returning holds.chip_id, holds.lease_id)
         select count(distinct (chip_id, lease_id)) as \"n!\" from gone",
        &chips,
        &leases
    )
    .fetch_one(tx)
    .await?;
    let touched: u64 = unsigned("holds", &"delete", gone)?;
    if touched == proven.len() as u64 {
        Ok(())
    } else {
        Err(super::StoreError::Rows { what: "free proven chips", wanted: proven.len(), touched })
    }
}

/// Which chips of ended leases are still to be proven vacant, and by when.
pub async fn load_vacating(tx: &mut PgConnection) -> Result<Vec<(ChipId, LeaseId, Timestamp)>> {
    let rows = sqlx::query!(
        "select distinct chip_id, lease_id, vacate_by as \"vacate_by!\" from holds where vacate_by is not null
         order by chip_id, lease_id"
    );
    let rows = rows.fetch_all(tx).await?;
    rows.into_iter()
        .map(|row| {
            let chip = ChipId::new(&row.chip_id).map_err(|error| super::StoreError::Unreadable {
                table: "holds",
                row: row.chip_id.clone(),
                detail: error.to_string(),
            })?;
            Ok((chip, LeaseId(row.lease_id), moment(row.vacate_by)))
        })
        .collect()
}
