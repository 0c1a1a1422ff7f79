//! What can be requested: plain types, which parsers read, algorithms obey and reports show.

mod architecture;
mod calibration;
mod candidate;
mod compensation;
mod data;
mod device;
mod finetune;
mod importance;
mod method;
mod target;

pub use architecture::{
    Activation, Architecture, NetworkChoice, NormPlace, Padding, Pool, Settings, Strided, Summary, shown,
};
pub use calibration::{Calibration, Convolutions};
pub use candidate::ReportCandidate;
pub use compensation::Compensate;
pub use data::{DatasetRequest, Normalization, Normalize, Reference};
pub use device::Device;
pub use finetune::{Augment, Finetune, Objective, Optimizer, Schedule, Teacher};
pub use importance::Importance;
pub use method::{
    AlignmentOptions, BatchNorm, GroundCost, MemberWeights, Method, MethodName, Order, OutputAlignment, Start,
    WeightRule,
};
pub use target::{Allocation, Budget, LayerSize, Resource, Size, Target};
