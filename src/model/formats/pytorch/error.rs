//! Why a file of PyTorch cannot be used.

use crate::model::formats::limits::{MAX_MODULE_DEPTH, MAX_MODULES, MAX_PICKLE_BYTES, MAX_PICKLE_VALUES};

/// Why a file of PyTorch cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PyTorchError {
    /// The pickle ends in the middle.
    #[error("the pickle is truncated at byte {0}: download or save the file again")]
    Truncated(usize),
    /// An operation that `torch.save` does not write.
    #[error(
        "the pickle has the operation {opcode:#04x} at byte {at}, which is not read; save the weights with `torch.save(model.state_dict(), file)`"
    )]
    Opcode {
        /// The operation.
        opcode: u8,
        /// Where it stands.
        at: usize,
    },
    /// Operations that do not fit each other.
    #[error("the pickle is damaged at byte {at}: {detail}")]
    Damaged {
        /// Where the operation stands.
        at: usize,
        /// What is wrong.
        detail: &'static str,
    },
    /// Over [`MAX_PICKLE_VALUES`].
    #[error(
        "the pickle holds more than {MAX_PICKLE_VALUES} values; save the weights alone with `torch.save(model.state_dict(), file)`"
    )]
    TooManyValues,
    /// Over [`MAX_PICKLE_BYTES`].
    #[error(
        "the pickle has {0} bytes; at most {MAX_PICKLE_BYTES} are read; save the weights alone with `torch.save(model.state_dict(), file)`"
    )]
    TooLong(u64),
    /// Nothing in it looks like weights.
    #[error(
        "the file holds no weights by their names ({found}); save them with `torch.save(model.state_dict(), file)`"
    )]
    NoWeights {
        /// What it holds.
        found: String,
    },
    /// Several things in it do.
    #[error("the file holds several sets of weights: {}; save the one that is meant with `torch.save(model.state_dict(), file)`", .0.join(", "))]
    SeveralWeights(Vec<String>),
    /// A tensor that is no plain array.
    #[error("tensor `{name}` is {kind}: convert it to a plain tensor before saving")]
    OddTensor {
        /// The tensor.
        name: String,
        /// What it is.
        kind: String,
    },
    /// A storage that is not there, or shorter than its tensors.
    #[error("tensor `{name}` lies in the storage `{key}`, {fault}")]
    Storage {
        /// The tensor.
        name: String,
        /// The storage.
        key: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Over [`MAX_MODULES`].
    #[error("the pickled model has more than {MAX_MODULES} modules; save `model.state_dict()` instead")]
    TooManyModules,
    /// Over [`MAX_MODULE_DEPTH`].
    #[error(
        "the modules of the pickled model are nested deeper than {MAX_MODULE_DEPTH}; save `model.state_dict()` instead"
    )]
    ModulesTooDeep,
    /// Bytes the other way round.
    #[error("the file was written on a big-endian machine; save it on a little-endian one")]
    BigEndian,
}
