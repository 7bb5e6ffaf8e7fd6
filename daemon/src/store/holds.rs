//! Table `holds`: who has which slots. Its exclusion constraint is the last word against two holders.

use super::{Result, StoreError, expect_rows, moment, signed, unsigned};
use chiptide_allocator::fleet::ChipIx;
use chiptide_model::{ChipId, Hold, LeaseId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

/// A hold to add: its lease, the number of its chip, and the hold.
pub type HoldWrite = (LeaseId, ChipIx, Hold);

/// Adds the holds of leases granted in this round, one row a range of slots.
pub async fn insert(tx: &mut PgConnection, holds: &[HoldWrite]) -> Result<()> {
    let ranges = || {
        let each = |(lease, chip, hold): &HoldWrite| (*lease, *chip, hold.epoch);
        holds.iter().flat_map(move |write| write.2.slots.iter().map(move |slots| (each(write), slots)))
    };
    let leases: Vec<Uuid> = ranges().map(|((lease, ..), _)| lease.0).collect();
    let chips: Vec<i64> = ranges().map(|((_, chip, _), _)| signed(chip as u64)).collect();
    let epochs: Vec<i64> = ranges().map(|((.., epoch), _)| signed(epoch)).collect();
    let starts: Vec<i32> = ranges().map(|(_, slots)| slots.start().into()).collect();
    let ends: Vec<i32> = ranges().map(|(_, slots)| slots.end().into()).collect();
    let done = sqlx::query!(
        "insert into holds (lease_id, chip, slots, epoch)
         select lease_id, chip, int4range(lo, hi), epoch
         from unnest($1::uuid[], $2::bigint[], $3::int[], $4::int[], $5::bigint[]) as h (lease_id, chip, lo, hi, epoch)",
        &leases,
        &chips,
        &starts,
        &ends,
        &epochs
    )
    .execute(tx)
    .await?;
    expect_rows("add holds", leases.len(), &done)
}

/// Deletes holds that were proven vacant. At least one row each.
pub async fn delete(tx: &mut PgConnection, proven: &[(ChipIx, LeaseId)]) -> Result<()> {
    let chips: Vec<i64> = proven.iter().map(|(chip, _)| signed(*chip as u64)).collect();
    let leases: Vec<Uuid> = proven.iter().map(|(_, lease)| lease.0).collect();
    let gone = sqlx::query_scalar!(
        "with gone as (
             delete from holds using unnest($1::bigint[], $2::uuid[]) as v (chip, lease_id)
             where holds.lease_id = v.lease_id and holds.chip = v.chip
             returning holds.chip, holds.lease_id)
         select count(distinct (chip, lease_id)) as \"n!\" from gone",
        &chips,
        &leases
    )
    .fetch_one(tx)
    .await?;
    let touched: u64 = unsigned("holds", &"delete", gone)?;
    if touched == proven.len() as u64 {
        Ok(())
    } else {
        Err(StoreError::Rows { what: "free proven chips", wanted: proven.len(), touched })
    }
}

/// Which chips of ended leases are still to be proven vacant, and by when.
pub async fn load_vacating(tx: &mut PgConnection) -> Result<Vec<(ChipId, LeaseId, Timestamp)>> {
    let rows = sqlx::query!(
        "select distinct c.id as chip_id, l.id as lease_id, l.vacate_by as \"vacate_by!\"
         from holds h join leases l on l.id = h.lease_id join chips c on c.number = h.chip
         where l.state = 'ended' order by c.id, l.id"
    );
    let rows = rows.fetch_all(tx).await?;
    rows.into_iter()
        .map(|row| {
            let unreadable = |detail| StoreError::Unreadable { table: "chips", row: row.chip_id.clone(), detail };
            let chip = ChipId::new(&row.chip_id).map_err(|error| unreadable(error.to_string()))?;
            Ok((chip, LeaseId(row.lease_id), moment(row.vacate_by)))
        })
        .collect()
}
