//! What can be requested: plain types, which parsers read, algorithms obey and reports show.

mod architecture;
mod calibration;
mod candidate;
mod compensation;
mod compute;
mod data;
mod device;
mod ensemble;
mod finetune;
mod importance;
mod method;
mod precision;
mod target;
mod task;

pub use architecture::{
    Activation, Architecture, NetworkChoice, NormPlace, Padding, Pool, Settings, Strided, Summary, shown,
};
pub use calibration::{Calibration, Convolutions, OutputTargets};
pub use candidate::ReportCandidate;
pub use compensation::Compensate;
pub use compute::ComputeOptions;
pub use data::{DatasetRequest, HeldOut, Normalization, Normalize, OwnValidation, Reference, ValidationSource};
pub use device::Device;
pub use ensemble::EnsembleRule;
pub use finetune::{Augment, Finetune, Objective, Optimizer, PublishRule, RecoveryRule, Schedule, Teacher, Undecided};
pub use importance::Importance;
pub use method::{
    AlignmentOptions, BatchNorm, GroundCost, Grouping, MemberWeights, Method, MethodName, Order, OutputAlignment,
    Start, WeightRule,
};
pub use precision::Precision;
pub use target::{Allocation, Budget, LayerSize, Resource, Size, Target};
pub use task::PredictionTask;
