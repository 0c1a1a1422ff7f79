//! Sorts units into groups: producers that share a unit, however indirectly, belong together.

use std::collections::{BTreeMap, BTreeSet};

use super::units::Units;
use super::{Axis, CouplingError, Group, GroupId, Owner, Segment, refuse};
use crate::model::graph::{Graph, NodeId, Op};

/// Which group each unit belongs to.
pub(super) struct Owners {
    /// By representative: owner and index among the owner's units.
    place: BTreeMap<usize, (Owner, usize)>,
    pub(super) groups: Vec<Group>,
    pub(super) heads: Vec<NodeId>,
}

impl Owners {
    /// Sorts the producers into groups, in walk order.
    pub(super) fn assign(graph: &Graph, units: &mut Units, order: &[NodeId]) -> Result<Self, CouplingError> {
        let mut owners = Self { place: BTreeMap::new(), groups: Vec::new(), heads: Vec::new() };
        owners.claim(&units.roots(NodeId(0)), Owner::Input);
        let outputs = units.roots(graph.output());
        if outputs.iter().any(|root| owners.place.contains_key(root)) {
            return Err(refuse(
                graph.node(graph.output()),
                "an output is an input of the network, added or passed through",
            ));
        }
        owners.claim(&outputs, Owner::Output);
        refuse_nonlinear_outputs(graph, units, &outputs)?;
        let shared = shared_units(units, order);
        for &producer in order {
            owners.place_producer(graph, units, producer, &shared)?;
        }
        Ok(owners)
    }

    /// Gives all of `roots` that nobody owns to `owner`, in order.
    fn claim(&mut self, roots: &[usize], owner: Owner) {
        let mut next = self.place.values().filter(|(other, _)| *other == owner).count();
        for &root in roots {
            self.place.entry(root).or_insert_with(|| {
                next += 1;
                (owner, next - 1)
            });
        }
    }

    /// Enters one producer, as a head, into the group whose units it shares, or into a new group.
    fn place_producer(
        &mut self,
        graph: &Graph,
        units: &mut Units,
        producer: NodeId,
        shared: &BTreeMap<usize, BTreeSet<NodeId>>,
    ) -> Result<(), CouplingError> {
        let roots = units.roots(producer);
        let owners: BTreeSet<Owner> =
            roots.iter().filter_map(|root| self.place.get(root)).map(|place| place.0).collect();
        if owners.contains(&Owner::Input) {
            return Err(refuse(
                graph.node(producer),
                "its units are added to the network's input, which the members share",
            ));
        }
        if owners.contains(&Owner::Output) {
            self.heads.push(producer);
            return Ok(());
        }
        let group = if let Some(Owner::Group(group)) = owners.first() {
            *group
        } else {
            self.new_group(&all_units(&roots, units, shared))
        };
        self.groups[group.0].producers.push(producer);
        Ok(())
    }

    /// Opens a group for `units`.
    fn new_group(&mut self, units: &[usize]) -> GroupId {
        let group = GroupId(self.groups.len());
        self.groups.push(Group { width: units.len(), producers: Vec::new(), consumers: Vec::new(), norms: Vec::new() });
        self.claim(units, Owner::Group(group));
        group
    }

    /// A node's channel axis as segments.
    pub(super) fn axis(&self, units: &mut Units, node: NodeId) -> Axis {
        let mut runs: Axis = Vec::new();
        for root in units.roots(node) {
            let (owner, unit) = self.place[&root];
            match runs.last_mut() {
                Some(run) if run.owner == owner && run.units == 1 && run.first == unit => run.repeat += 1,
                _ => runs.push(Segment { owner, first: unit, units: 1, repeat: 1 }),
            }
        }
        join(runs)
    }
}

/// Joins neighbouring stretches of consecutive units.
fn join(runs: Axis) -> Axis {
    let mut joined: Axis = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last)
                if last.owner == run.owner && last.repeat == run.repeat && last.first + last.units == run.first =>
            {
                last.units += 1;
            }
            _ => joined.push(run),
        }
    }
    joined
}

/// For every unit, the producers that make it.
fn shared_units(units: &mut Units, order: &[NodeId]) -> BTreeMap<usize, BTreeSet<NodeId>> {
    let mut shared: BTreeMap<usize, BTreeSet<NodeId>> = BTreeMap::new();
    for &producer in order {
        for root in units.roots(producer) {
            shared.entry(root).or_default().insert(producer);
        }
    }
    shared
}

/// All units of the group that begins with `roots`: those of every producer that is tied to it, however indirectly.
fn all_units(roots: &[usize], units: &mut Units, shared: &BTreeMap<usize, BTreeSet<NodeId>>) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    let mut known: BTreeSet<usize> = BTreeSet::new();
    let mut producers: BTreeSet<NodeId> = BTreeSet::new();
    let mut waiting: Vec<usize> = roots.to_vec();
    let mut at = 0;
    while at < waiting.len() {
        let root = waiting[at];
        at += 1;
        if !known.insert(root) {
            continue;
        }
        all.push(root);
        for &producer in shared.get(&root).into_iter().flatten() {
            if producers.insert(producer) {
                waiting.extend(units.roots(producer));
            }
        }
    }
    all
}

/// Outputs may be flattened, averaged and summed on their way, but not bent: the mean of the members would be lost.
fn refuse_nonlinear_outputs(graph: &Graph, units: &mut Units, outputs: &[usize]) -> Result<(), CouplingError> {
    let outputs: BTreeSet<usize> = outputs.iter().copied().collect();
    for (id, node) in graph.iter() {
        let bends = matches!(node.op, Op::Relu | Op::MaxPool2d { .. });
        if bends && units.roots(id).iter().any(|root| outputs.contains(root)) {
            return Err(refuse(
                node,
                "the network's outputs pass through it; the mean of the members needs linear outputs",
            ));
        }
    }
    Ok(())
}
