//! Events of nodes and chips.

use super::Applied;
use crate::cluster::Cluster;
use crate::fleet::{Chip, ChipIx, Node, NodeIx};
use chiptide_model::{
    ChipFacts, ChipId, Cordon, FaultEnd, Faults, Health, NodeId, Policy, Quarantine, SessionId, Timestamp,
};
use uuid::Uuid;

impl Cluster {
    pub(super) fn on_took_over(&mut self, at: Timestamp, epoch: u64) -> Applied {
        if epoch <= self.leader_epoch {
            return Err(format!("epoch {epoch} after {}", self.leader_epoch));
        }
        let before = self.dues_of_all();
        self.leader_epoch = epoch;
        self.took_over_at = Some(at);
        self.forget_known(at);
        self.retime(before);
        Ok(())
    }

    /// From now on every node is unheard; one that was so before stays so since then.
    fn forget_known(&mut self, at: Timestamp) {
        for node in 0..self.fleet.nodes.len() {
            if self.fleet.nodes[node].unknown_since.is_none() {
                self.mark_known(node, Some(at), at);
            }
        }
    }

    /// No session counts any more: every node has to register, and says then what it has seen.
    pub(super) fn on_database_replaced(&mut self, at: Timestamp) -> Applied {
        let before = self.dues_of_all();
        self.forget_known(at);
        for node in &mut self.fleet.nodes {
            node.session = SessionId(Uuid::nil());
            self.touched.nodes.insert(node.id.clone());
        }
        self.retime(before);
        Ok(())
    }

    pub(super) fn on_epoch_raised(&mut self, id: &ChipId, epoch: u64) -> Applied {
        let ix = self.chip_ix(id)?;
        let chip = &mut self.fleet.chips[ix];
        if epoch <= chip.epoch {
            return Err(format!("chip {id} epoch {epoch} after {}", chip.epoch));
        }
        self.touched.epochs.entry(id.clone()).or_insert(chip.epoch);
        chip.epoch = epoch;
        self.touched.chips.insert(id.clone());
        Ok(())
    }

    pub(super) fn on_policy(&mut self, at: Timestamp, policy: &Policy) -> Applied {
        let (before, proofs) = (self.dues_of_all(), self.proofs_of_all());
        self.policy = policy.clone();
        self.retime(before);
        let after = self.proofs_of_all();
        self.move_timers(proofs, after);
        self.note_all_leaving();
        self.fleet.obey(policy);
        self.arrange_ledger(at);
        self.ledger.tolerate_present();
        self.touched.policy = true;
        self.note_all_leaving();
        self.touched.queues.extend(policy.queues.keys().cloned());
        self.queue.supply_grew();
        Ok(())
    }

    pub(super) fn on_registered(&mut self, at: Timestamp, fresh: Node, chips: &[(ChipFacts, Health)]) -> Applied {
        let id = fresh.id.clone();
        let (node, is_new) = match self.nodes_by_id.get(&id).copied() {
            Some(ix) => {
                self.set_known(ix, None, at);
                let old = &mut self.fleet.nodes[ix];
                let cpu_used = old.facts.cpu_milli.saturating_sub(old.cpu_free);
                let memory_used = old.facts.memory_mib.saturating_sub(old.memory_free);
                old.cpu_free = fresh.facts.cpu_milli.saturating_sub(cpu_used);
                old.memory_free = fresh.facts.memory_mib.saturating_sub(memory_used);
                (old.facts, old.session, old.boot_id) = (fresh.facts, fresh.session, fresh.boot_id);
                (ix, false)
            }
            None => {
                self.fleet.nodes.push(fresh);
                self.nodes_by_id.insert(id.clone(), self.fleet.nodes.len() - 1);
                (self.fleet.nodes.len() - 1, true)
            }
        };
        let known_classes = self.fleet.classes.len();
        let (mut rebuild, mut reclassed, mut added) = (false, false, Vec::new());
        for (facts, health) in chips {
            match self.chips_by_id.get(&facts.id) {
                Some(&ix) if self.fleet.chips[ix].node == node => {
                    let chip = &mut self.fleet.chips[ix];
                    reclassed |= chip.facts.class != facts.class;
                    (chip.facts, chip.health) = (facts.clone(), health.clone());
                    self.touched.chip_facts.insert(facts.id.clone());
                }
                Some(_) => return Err(format!("chip {} belongs to another node", facts.id)),
                None => {
                    self.add_chip(node, facts, health);
                    self.touched.new_chips.insert(facts.id.clone());
                    added.push(&facts.class);
                    rebuild = true;
                }
            }
            self.touched.chips.insert(facts.id.clone());
        }
        for ix in self.fleet.nodes[node].chips.clone() {
            let chip = &mut self.fleet.chips[ix];
            if !chips.iter().any(|(facts, _)| facts.id == chip.facts.id) {
                chip.health = Health::Unhealthy { detail: "missing from the node's inventory".into() };
                self.touched.chips.insert(chip.facts.id.clone());
                self.touched.chip_facts.insert(chip.facts.id.clone());
            }
        }
        if is_new {
            self.fleet.append_pools(node);
        } else if rebuild || reclassed {
            self.fleet.rebuild_pools();
            self.recount_stakes();
        }
        if reclassed || self.fleet.classes.len() > known_classes {
            self.arrange_ledger(at);
        } else {
            added.into_iter().for_each(|class| self.capacity_grew(class, 1));
        }
        self.node_changed(node);
        self.check_claims_of(node);
        self.queue.supply_grew();
        Ok(())
    }

    pub(crate) fn add_chip(&mut self, node: NodeIx, facts: &ChipFacts, health: &Health) -> ChipIx {
        let ix = self.fleet.chips.len();
        self.fleet.chips.push(Chip {
            facts: facts.clone(),
            node,
            epoch: 0,
            health: health.clone(),
            quarantine: None,
            cordoned: self.fleet.nodes[node].cordon.is_some(),
            faults: Faults::default(),
            holds: Vec::new(),
            claims: Vec::new(),
            reserved: Vec::new(),
        });
        self.fleet.nodes[node].chips.push(ix);
        self.chips_by_id.insert(facts.id.clone(), ix);
        ix
    }

    pub(super) fn on_known(&mut self, node: &NodeId, unknown_since: Option<Timestamp>, at: Timestamp) -> Applied {
        let ix = *self.nodes_by_id.get(node).ok_or_else(|| format!("no node {node}"))?;
        self.set_known(ix, unknown_since, at);
        Ok(())
    }

    /// Its chips are told, so that whoever looks at a chip alone sees it. What is promised there is given up.
    pub(super) fn on_cordoned(&mut self, node: &NodeId, cordon: Option<&Cordon>) -> Applied {
        let ix = *self.nodes_by_id.get(node).ok_or_else(|| format!("no node {node}"))?;
        self.fleet.nodes[ix].cordon = cordon.cloned();
        for &chip in &self.fleet.nodes[ix].chips {
            self.fleet.chips[chip].cordoned = cordon.is_some();
        }
        self.node_changed(ix);
        self.check_claims_of(ix);
        self.queue.supply_grew();
        Ok(())
    }

    fn set_known(&mut self, node: NodeIx, unknown_since: Option<Timestamp>, at: Timestamp) {
        let before = self.dues_of_node(node);
        self.mark_known(node, unknown_since, at);
        self.retime(before);
    }

    fn mark_known(&mut self, node: NodeIx, unknown_since: Option<Timestamp>, at: Timestamp) {
        let before = self.proofs_of_node(node);
        let was_unknown = std::mem::replace(&mut self.fleet.nodes[node].unknown_since, unknown_since).is_some();
        if was_unknown {
            self.answers_since.insert(node, at);
        }
        let after = self.proofs_of_node(node);
        self.move_timers(before, after);
        self.node_changed(node);
        self.check_claims_of(node);
        if unknown_since.is_none() {
            self.queue.supply_grew();
        }
    }

    pub(super) fn on_chip(&mut self, chip: &ChipId, change: impl FnOnce(&mut Chip)) -> Applied {
        let ix = self.chip_ix(chip)?;
        change(&mut self.fleet.chips[ix]);
        let node = self.fleet.chips[ix].node;
        self.touched.chip_facts.insert(chip.clone());
        self.touched.chips.insert(chip.clone());
        self.fleet.recount_node(node);
        self.recount_stakes_of(node);
        self.check_claims_of(node);
        self.queue.supply_grew();
        Ok(())
    }

    /// A chip out of service is no longer pressed for proof; back in service it is again.
    pub(super) fn on_quarantine(&mut self, chip: &ChipId, quarantine: Option<&Quarantine>) -> Applied {
        let ix = self.chip_ix(chip)?;
        let before = self.proofs_due(ix);
        let is_orphaned = |known: Option<&Quarantine>| matches!(known, Some(Quarantine::Orphaned { .. }));
        if is_orphaned(quarantine) || is_orphaned(self.fleet.chips[ix].quarantine.as_ref()) {
            self.orders_changed(self.fleet.chips[ix].node);
        }
        self.on_chip(chip, |chip| chip.quarantine = quarantine.cloned())?;
        let after = self.proofs_due(ix);
        self.move_timers(before, after);
        Ok(())
    }

    /// An admin's word ends every fault and the quarantine.
    pub(super) fn on_released(&mut self, chip: &ChipId, end: &FaultEnd) -> Applied {
        self.on_chip(chip, |chip| chip.faults.end_all(end))?;
        self.on_quarantine(chip, None)
    }

    pub(crate) fn chip_ix(&self, id: &ChipId) -> Result<ChipIx, String> {
        self.chips_by_id.get(id).copied().ok_or_else(|| format!("no chip {id}"))
    }

    pub(super) fn node_changed(&mut self, node: NodeIx) {
        self.touched.nodes.insert(self.fleet.nodes[node].id.clone());
        self.fleet.recount_node(node);
        self.recount_stakes_of(node);
    }

    pub(super) fn orders_changed(&mut self, node: NodeIx) {
        self.fleet.nodes[node].orders_revision += 1;
        self.touched.orders.insert(self.fleet.nodes[node].id.clone());
    }

    /// Something about a node changed: claims and reservations on its chips are worth another look.
    pub(super) fn check_claims_of(&mut self, node: NodeIx) {
        for &chip in &self.fleet.nodes[node].chips {
            self.claims_to_check.extend(self.fleet.chips[chip].claims.iter().map(|(job, _)| *job));
            let reserved = &self.fleet.chips[chip].reserved;
            self.reservations.to_check.extend(reserved.iter().map(|(holder, _)| holder.clone()));
        }
    }
}
