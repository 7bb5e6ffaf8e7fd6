//! Events of reservations: made, opened, dropped.

use super::Applied;
use crate::cluster::Cluster;
use crate::fleet::PoolFree;
use crate::reservations::Reservation;
use chiptide_model::Holder;
use std::collections::BTreeSet;

impl Cluster {
    pub(super) fn on_reserved(&mut self, holder: &Holder, mut reservation: Reservation) -> Applied {
        if let Holder::Job(job) = holder
            && self.claims.contains_key(job)
        {
            return Err(format!("job {job} holds a claim"));
        }
        if let Some(before) = self.reservations.by_holder.get(holder).cloned() {
            reservation.open = before.open;
            self.set_reserved(holder, &before, false)?;
        }
        self.set_reserved(holder, &reservation, true)?;
        self.reservation_changed(holder)
    }

    pub(super) fn on_reservation_opened(&mut self, holder: &Holder) -> Applied {
        let reservation = self.reservations.by_holder.get_mut(holder);
        reservation.ok_or_else(|| format!("no reservation for {holder}"))?.open = true;
        // While the window is open its queue is guaranteed as much more.
        self.arrange_ledger(self.at);
        self.queue.supply_grew();
        self.reservation_changed(holder)
    }

    pub(super) fn on_reservation_dropped(&mut self, holder: &Holder) -> Applied {
        // A calendar entry whose whole window passed unseen is dropped without ever having been made.
        match self.reservations.by_holder.get(holder).cloned() {
            Some(reservation) => {
                self.set_reserved(holder, &reservation, false)?;
                self.reservations.to_check.remove(holder);
                if reservation.open {
                    self.arrange_ledger(self.at);
                }
                self.reservation_changed(holder)
            }
            None if matches!(holder, Holder::Calendar(_)) => Ok(()),
            None => Err(format!("no reservation for {holder}")),
        }
    }

    /// Puts a reservation on its chips, or takes it off.
    pub(crate) fn set_reserved(&mut self, holder: &Holder, reservation: &Reservation, reserved: bool) -> Applied {
        self.reservations.barren.remove(holder);
        let mut nodes = BTreeSet::new();
        for placement in &reservation.placements {
            nodes.insert(*self.nodes_by_id.get(&placement.node).ok_or_else(|| format!("no node {}", placement.node))?);
            for hold in &placement.holds {
                let ix = self.chip_ix(&hold.chip)?;
                let chip = &mut self.fleet.chips[ix];
                if reserved {
                    chip.reserved.push((holder.clone(), hold.slots.clone()));
                } else {
                    chip.reserved.retain(|(owner, _)| owner != holder);
                }
            }
        }
        if reserved {
            self.reservations.by_holder.insert(holder.clone(), reservation.clone());
        } else {
            self.reservations.by_holder.remove(holder);
        }
        for node in nodes {
            let pools = self.fleet.pools_of(node);
            let before: Vec<PoolFree> = self.fleet.pools[pools.clone()].iter().map(|pool| pool.free).collect();
            self.settle_reserved(node);
            self.fleet.recount_node(node);
            // A job that starts on its own reserved chips frees nothing by giving the reservation up.
            if before.iter().zip(&self.fleet.pools[pools]).any(|(before, pool)| has_more(&pool.free, before)) {
                self.queue.supply_grew();
                self.reservations.freed += 1;
            }
        }
        Ok(())
    }

    fn reservation_changed(&mut self, holder: &Holder) -> Applied {
        self.touched.reservations.insert(holder.clone());
        if let Holder::Job(id) = holder {
            let job = self.jobs.get_mut(id).ok_or_else(|| format!("no job {id}"))?;
            job.revision += 1;
            self.touched.jobs.insert(*id);
        }
        Ok(())
    }
}

fn has_more(free: &PoolFree, than: &PoolFree) -> bool {
    free.whole > than.whole || free.most > than.most || free.cpu > than.cpu || free.memory > than.memory
}
