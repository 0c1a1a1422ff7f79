//! The element types that a fused network's tensors have: those that the members share.

use std::collections::BTreeMap;

use crate::model::header::{CheckpointHeader, Dtype};

/// Element type of every float tensor by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precision {
    by_name: BTreeMap<String, Dtype>,
    otherwise: Dtype,
}

impl Default for Precision {
    /// f32 throughout.
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), otherwise: Dtype::F32 }
    }
}

impl Precision {
    /// The members' own types. A tensor that they hold in different types becomes f32; one that none of them holds has the
    /// type that all their tensors share, or f32.
    #[must_use]
    pub fn shared(headers: &[&CheckpointHeader]) -> Self {
        let mut by_name: BTreeMap<String, Dtype> = BTreeMap::new();
        let floats = headers.iter().flat_map(|header| &header.tensors).filter(|info| info.dtype.is_float());
        for info in floats {
            let dtype = by_name.entry(info.name.clone()).or_insert(info.dtype);
            if *dtype != info.dtype {
                *dtype = Dtype::F32;
            }
        }
        let mut types = by_name.values();
        let first = types.next().copied().unwrap_or(Dtype::F32);
        let otherwise = if types.all(|dtype| *dtype == first) { first } else { Dtype::F32 };
        Self { by_name, otherwise }
    }

    /// The same with f32 in place of narrower types: for what is read again before it is final.
    #[must_use]
    pub fn widened(&self) -> Self {
        let wide = |dtype: Dtype| if dtype == Dtype::F64 { dtype } else { Dtype::F32 };
        let by_name = self.by_name.iter().map(|(name, dtype)| (name.clone(), wide(*dtype))).collect();
        Self { by_name, otherwise: wide(self.otherwise) }
    }

    /// Type of the float tensor `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> Dtype {
        self.by_name.get(name).copied().unwrap_or(self.otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::header::TensorInfo;

    fn header(tensors: &[(&str, Dtype)]) -> CheckpointHeader {
        let info =
            |(name, dtype): &(&str, Dtype)| TensorInfo { name: (*name).to_owned(), dtype: *dtype, shape: vec![1] };
        CheckpointHeader::new(tensors.iter().map(info).collect())
    }

    #[test]
    fn types_that_differ_become_f32_and_counters_do_not_count() {
        let a = header(&[("fc.weight", Dtype::F16), ("fc.bias", Dtype::F16), ("bn.num_batches_tracked", Dtype::I64)]);
        let b = header(&[("fc.weight", Dtype::F16), ("fc.bias", Dtype::Bf16)]);
        let shared = Precision::shared(&[&a, &b]);
        assert_eq!(
            [shared.of("fc.weight"), shared.of("fc.bias"), shared.of("other")],
            [Dtype::F16, Dtype::F32, Dtype::F32]
        );
        assert_eq!(Precision::shared(&[&a]).of("other"), Dtype::F16);
        let double = header(&[("fc.weight", Dtype::F64), ("fc.bias", Dtype::Bf16)]);
        let widened = Precision::shared(&[&double]).widened();
        assert_eq!([widened.of("fc.weight"), widened.of("fc.bias")], [Dtype::F64, Dtype::F32]);
    }
}
