//! The few functions and classes whose calls stand for data: storages, tensors, parameters, dicts and sizes.

use super::value::{Heap, PickleValue, Storage, StorageElement, StorageView, Text};
use crate::model::formats::limits::MAX_RANK;
use crate::model::header::Dtype;

/// Arguments of a call that are looked at.
const MAX_ARGUMENTS: usize = 8;

/// Types of storages in the module `torch` (and `torch.cuda`).
const STORAGES: [(&str, Dtype); 10] = [
    ("FloatStorage", Dtype::F32),
    ("DoubleStorage", Dtype::F64),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::Bf16),
    ("LongStorage", Dtype::I64),
    ("IntStorage", Dtype::I32),
    ("ShortStorage", Dtype::I16),
    ("CharStorage", Dtype::I8),
    ("ByteStorage", Dtype::U8),
    ("BoolStorage", Dtype::Bool),
];

/// Element types in the module `torch`, of tensors that say themselves what their storage holds.
const ELEMENTS: [(&str, Dtype); 13] = [
    ("float32", Dtype::F32),
    ("float64", Dtype::F64),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::Bf16),
    ("int64", Dtype::I64),
    ("int32", Dtype::I32),
    ("int16", Dtype::I16),
    ("int8", Dtype::I8),
    ("uint64", Dtype::U64),
    ("uint32", Dtype::U32),
    ("uint16", Dtype::U16),
    ("uint8", Dtype::U8),
    ("bool", Dtype::Bool),
];

/// What a persistent id stands for: `("storage", type, key, device, elements)`, to which the old container adds
/// `(key of the view, first element, elements)` or None, or `("module", class, …)`, which is its class. `None` for any other.
pub(super) fn persistent(heap: &mut Heap, bytes: &[u8], id: PickleValue) -> Option<PickleValue> {
    let PickleValue::Tuple(id) = id else { return None };
    let parts = &heap.lists[id as usize];
    let (PickleValue::Text(kind), rest) = parts.split_first()? else { return None };
    match (kind.of(bytes), rest) {
        (
            "storage",
            &[PickleValue::Global(class), PickleValue::Text(key), _device, PickleValue::Int(elements), ref rest @ ..],
        ) => {
            let name = heap.globals[class as usize].name;
            let (elements, first) = match rest.first() {
                None | Some(PickleValue::None) => (elements, 0),
                Some(PickleValue::Tuple(view)) => match heap.lists[*view as usize][..] {
                    [_, PickleValue::Int(first), PickleValue::Int(elements)] => (elements, first),
                    _ => return None,
                },
                Some(_) => return None,
            };
            let (elements, first) = (u64::try_from(elements).ok()?, u64::try_from(first).ok()?);
            heap.storages.push(Storage { element: element_of(bytes, name), key, elements, first });
            Some(PickleValue::Storage(heap.storages.len() as u32 - 1))
        }
        ("module", &[class, ..]) => Some(class),
        _ => None,
    }
}

/// What the elements of a storage of this type are.
fn element_of(bytes: &[u8], name: Text) -> StorageElement {
    let text = name.of(bytes);
    if matches!(text, "UntypedStorage" | "_UntypedStorage") {
        return StorageElement::Untyped;
    }
    let known = STORAGES.iter().find(|(known, _)| *known == text);
    known.map_or(StorageElement::Unknown(name), |(_, dtype)| StorageElement::Known(*dtype))
}

/// What calling `class` with `arguments` stands for; none where the call is not known, and so makes an inert object.
///
/// # Errors
/// What is wrong with the arguments of a known call.
pub(super) fn call(
    heap: &mut Heap,
    bytes: &[u8],
    class: PickleValue,
    arguments: PickleValue,
) -> Result<Option<PickleValue>, &'static str> {
    let (PickleValue::Global(global), PickleValue::Tuple(list)) = (class, arguments) else { return Ok(None) };
    let global = heap.globals[global as usize];
    let (module, name) = (global.module.of(bytes), global.name.of(bytes));
    let arguments = heap.lists[list as usize].iter().take(MAX_ARGUMENTS).copied().collect::<Vec<_>>();
    match (module, name, &arguments[..]) {
        ("collections", "OrderedDict" | "defaultdict", _) | ("builtins" | "__builtin__", "dict", _) => {
            Ok(Some(dict(heap, &arguments)))
        }
        (
            "builtins" | "__builtin__",
            "set" | "frozenset" | "list" | "tuple",
            &[items @ (PickleValue::List(_) | PickleValue::Tuple(_))],
        )
        | ("torch", "Size", &[items @ PickleValue::Tuple(_)]) => Ok(Some(items)),
        _ if module == "torch" || module.starts_with("torch.") => of_torch(heap, bytes, global.name, &arguments),
        _ => Ok(None),
    }
}

/// As [`call`], for the function `function` of PyTorch.
fn of_torch(
    heap: &mut Heap,
    bytes: &[u8],
    function: Text,
    arguments: &[PickleValue],
) -> Result<Option<PickleValue>, &'static str> {
    match (function.of(bytes), arguments) {
        ("_rebuild_parameter" | "_rebuild_parameter_with_state", &[data, ..]) => Ok(Some(data)),
        // What `torch.compile` returns holds the network itself.
        ("OptimizedModule", &[network @ PickleValue::PickledObject(_), ..]) => Ok(Some(network)),
        ("_rebuild_tensor" | "_rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
            tensor(heap, [storage, offset, shape, strides], None).map(Some)
        }
        ("_rebuild_tensor_v3", &[storage, offset, shape, strides, _, _, PickleValue::Global(dtype), ..]) => {
            let name = heap.globals[dtype as usize].name;
            let known = ELEMENTS.iter().find(|(known, _)| *known == name.of(bytes));
            let element = known.map_or(StorageElement::Unknown(name), |(_, dtype)| StorageElement::Known(*dtype));
            tensor(heap, [storage, offset, shape, strides], Some(element)).map(Some)
        }
        (name, _) if name.starts_with("_rebuild_") => Ok(Some(PickleValue::OddTensor(function))),
        _ => Ok(None),
    }
}

/// A dict of the pairs that its arguments list.
fn dict(heap: &mut Heap, arguments: &[PickleValue]) -> PickleValue {
    let pair = |heap: &Heap, item: &PickleValue| match item {
        PickleValue::List(pair) | PickleValue::Tuple(pair) => match heap.lists[*pair as usize][..] {
            [key, value] => Some((key, value)),
            _ => None,
        },
        _ => None,
    };
    let entries = match arguments {
        [PickleValue::List(list) | PickleValue::Tuple(list)] => {
            heap.lists[*list as usize].iter().filter_map(|item| pair(heap, item)).collect()
        }
        _ => Vec::new(),
    };
    heap.dicts.push(entries);
    PickleValue::Dict(heap.dicts.len() as u32 - 1)
}

/// A view of a storage: the storage, the elements before the first, shape and strides.
fn tensor(
    heap: &mut Heap,
    parts: [PickleValue; 4],
    element: Option<StorageElement>,
) -> Result<PickleValue, &'static str> {
    let [
        PickleValue::Storage(storage),
        PickleValue::Int(offset),
        PickleValue::Tuple(shape),
        PickleValue::Tuple(strides),
    ] = parts
    else {
        return Err("a tensor is described in an unknown way");
    };
    let sizes = |list: u32| -> Option<Vec<u64>> {
        let sizes = heap.lists[list as usize].iter().take(MAX_RANK + 1);
        let size =
            |value: &PickleValue| if let PickleValue::Int(size) = value { u64::try_from(*size).ok() } else { None };
        sizes.map(size).collect()
    };
    let (Ok(offset), Some(shape), Some(strides)) = (u64::try_from(offset), sizes(shape), sizes(strides)) else {
        return Err("a tensor has an offset, size or stride below 0");
    };
    if shape.len() != strides.len() || shape.len() > MAX_RANK {
        return Err("a tensor has too many axes, or not as many strides");
    }
    let element = element.unwrap_or(heap.storages[storage as usize].element);
    heap.tensors.push(StorageView { storage, element, offset, shape, strides });
    Ok(PickleValue::StorageView(heap.tensors.len() as u32 - 1))
}
