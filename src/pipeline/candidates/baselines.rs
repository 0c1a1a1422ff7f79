//! Other methods on the same members.

use super::Comparer;
use crate::cost::interpolation::levels_of;
use crate::fusion::{self, FusionError, Recipe};
use crate::pipeline::methods::aligned::{self, Matching};
use crate::pipeline::methods::neuron_interpolation;
use crate::pipeline::phases::Halt;
use crate::report::CandidateKind;
use crate::settings::{MethodName, ReportCandidate};

impl Comparer<'_, '_> {
    /// What other methods make of the members.
    pub(super) fn baselines(&mut self) -> Result<(), Halt> {
        if self.wants(ReportCandidate::Average) {
            match fusion::average(self.ensemble).and_then(Recipe::build) {
                Ok(average) => {
                    self.network("average", CandidateKind::Average, &average.graph, &average.weights)?;
                }
                Err(error @ FusionError::WidthsDiffer { .. }) => {
                    self.context.phases.warn(format!("no plain average: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let aligned = [
            (
                ReportCandidate::OptimalTransport,
                Matching::Transport,
                MethodName::OptimalTransport,
                CandidateKind::OptimalTransport,
            ),
            (
                ReportCandidate::PermutationAlignment,
                Matching::Permutation,
                MethodName::PermutationAlignment,
                CandidateKind::PermutationAlignment,
            ),
        ];
        for (candidate, matching, name, kind) in aligned {
            if !self.wants(candidate) {
                continue;
            }
            if self.ensemble.has_one_shape() {
                let fused = aligned::mean(self.context, self.ensemble, matching, true)?;
                self.network(name.as_str(), kind, &fused.graph, &fused.weights)?;
            } else {
                self.context.phases.warn(format!("no {}: it needs members of one shape", name.as_str()));
            }
        }
        if self.wants(ReportCandidate::NeuronInterpolation) {
            self.interpolated()?;
        }
        Ok(())
    }

    /// Units that compute means of groups of the members' units, where the network can be fitted level after level.
    fn interpolated(&mut self) -> Result<(), Halt> {
        let fusion = &self.context.planned.network.fusion;
        if let Err(error) = levels_of(&fusion.fused, &self.context.planned.network.detected.graphs) {
            self.context.phases.warn(format!("no neuron interpolation: {error}"));
            return Ok(());
        }
        let fused = neuron_interpolation::interpolated(self.context, self.ensemble)?;
        let name = MethodName::NeuronInterpolation.as_str();
        self.network(name, CandidateKind::NeuronInterpolation, &fused.graph, &fused.weights)?;
        Ok(())
    }
}
