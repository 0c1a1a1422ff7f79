//! Vision transformers in the namings of torchvision, timm and Hugging Face (Dosovitskiy et al., ICLR 2021).

use crate::model::families::images::for_images;
use crate::model::families::named::{Net, Tensors};
use crate::model::families::variants::{Variants, activations, epsilons};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{NodeId, Op, Projections, Shape};
use crate::settings::{Activation, Settings};

/// Name of the family.
pub(super) const FAMILY: &str = "vit";

/// The tensors by which the namings are known, in the order of [`Naming::all`].
pub(super) const ANCHORS: [&str; 4] =
    ["encoder.pos_embedding", "pos_embed", "vit.embeddings.position_embeddings", "vit.embeddings.position_embeddings"];

/// Channels of a head in most published networks.
const HEAD_SIZE: usize = 64;

/// Published networks of other head sizes: channels and heads of ViT-H, ViT-g and ViT-G.
const OTHER_HEADS: [(usize, usize); 3] = [(1280, 16), (1408, 16), (1664, 16)];

/// Sizes that a head may have.
const HEAD_SIZES: std::ops::RangeInclusive<usize> = 4..=128;

/// Names of the modules.
#[derive(Clone)]
struct Naming {
    class_token: &'static str,
    positions: &'static str,
    patches: &'static str,
    /// What stands before the number of a block.
    block: &'static str,
    attention: &'static str,
    projections: Projections,
    norms: [&'static str; 2],
    matrices: [&'static str; 2],
    norm: &'static str,
    head: &'static str,
    eps: f64,
}

impl Naming {
    fn all() -> [Self; 4] {
        [Self::torchvision(), Self::timm(), Self::hugging_face(), Self::hugging_face_modules()]
    }

    fn torchvision() -> Self {
        Self {
            class_token: "class_token",
            positions: ANCHORS[0],
            patches: "conv_proj",
            block: "encoder.layers.encoder_layer_",
            attention: "self_attention",
            projections: Projections::torch(),
            norms: ["ln_1", "ln_2"],
            matrices: ["mlp.0", "mlp.3"],
            norm: "encoder.ln",
            head: "heads.head",
            eps: 1e-6,
        }
    }

    fn timm() -> Self {
        Self {
            class_token: "cls_token",
            positions: ANCHORS[1],
            patches: "patch_embed.proj",
            block: "blocks.",
            attention: "attn",
            projections: Projections::timm(),
            norms: ["norm1", "norm2"],
            matrices: ["mlp.fc1", "mlp.fc2"],
            norm: "norm",
            head: "head",
            eps: 1e-6,
        }
    }

    /// As files have them.
    fn hugging_face() -> Self {
        Self {
            class_token: "vit.embeddings.cls_token",
            positions: ANCHORS[2],
            patches: "vit.embeddings.patch_embeddings.projection",
            block: "vit.encoder.layer.",
            attention: "attention",
            projections: Projections::hugging_face(),
            norms: ["layernorm_before", "layernorm_after"],
            matrices: ["intermediate.dense", "output.dense"],
            norm: "vit.layernorm",
            head: "classifier",
            eps: 1e-12,
        }
    }

    /// As the modules of transformers 5 have them.
    fn hugging_face_modules() -> Self {
        let module = |name: &str| format!("{name}_proj");
        let (query, key, value, output) = (module("q"), module("k"), module("v"), module("o"));
        Self {
            block: "vit.layers.",
            projections: Projections::Separate { query, key, value, output },
            matrices: ["mlp.fc1", "mlp.fc2"],
            ..Self::hugging_face()
        }
    }
}

/// The network, once for every number of heads that may be meant.
pub(super) fn candidates(tensors: &Tensors<'_>, given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let found = Naming::all()
        .into_iter()
        .find(|naming| tensors.shape(naming.positions).is_some() && !tensors.places(naming.block).is_empty());
    let naming = found.ok_or_else(|| Unfit::Unknown("there are position embeddings but no known blocks".to_owned()))?;
    let [width, channels, patch, _] = tensors.kernels(naming.patches)?;
    let (tokens, size) = tokens(tensors, &naming, patch)?;
    let functions = [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu];
    let epsilon = [naming.eps, 1e-6, 1e-5, 1e-12];
    let heads = heads(width, given.settings.heads)?.into_iter();
    let variants = Variants::new(given.settings)
        .with(heads.map(|heads| Settings { heads: Some(heads), ..Settings::default() }))
        .with(activations(&functions))
        .with(epsilons(&epsilon));
    for_images(given.input, channels, size, &variants, |shape, settings| {
        network(tensors, &Naming { eps: settings.eps.unwrap_or(naming.eps), ..naming.clone() }, shape, tokens, settings)
    })
}

/// Number of tokens that have a position, and height and width of the square image that they are cut from.
fn tokens(tensors: &Tensors<'_>, naming: &Naming, patch: usize) -> Result<(usize, usize), Unfit> {
    let class = usize::from(tensors.shape(naming.class_token).is_some());
    let tokens = tensors.shape(naming.positions).and_then(|shape| shape.get(1)).copied().unwrap_or_default();
    let patches = tokens.saturating_sub(class);
    let side = patches.isqrt();
    match side.checked_mul(patch) {
        Some(size) if size > 0 && side * side == patches => Ok((tokens, size)),
        _ => {
            let detail =
                format!("`{}` has {patches} positions of patches, which make no square image", naming.positions);
            Err(Unfit::Unknown(detail))
        }
    }
}

/// Numbers of heads that may be meant, the most usual first.
fn heads(width: usize, given: Option<usize>) -> Result<Vec<usize>, Unfit> {
    if let Some(heads) = given {
        return if heads > 0 && width.is_multiple_of(heads) {
            Ok(vec![heads])
        } else {
            Err(Unfit::Setting("heads", format!("expected a number that divides {width} channels, got {heads}")))
        };
    }
    let published = OTHER_HEADS.iter().find(|(channels, _)| *channels == width).map(|(_, heads)| *heads);
    let usual = width.is_multiple_of(HEAD_SIZE).then_some(width / HEAD_SIZE);
    let mut sizes: Vec<usize> = HEAD_SIZES.filter(|&size| width.is_multiple_of(size)).collect();
    sizes.sort_by_key(|size| size.abs_diff(HEAD_SIZE));
    let mut heads: Vec<usize> = published.into_iter().chain(usual).collect();
    heads.extend(sizes.into_iter().map(|size| width / size));
    if heads.is_empty() {
        heads.push(1);
    }
    Ok(heads)
}

fn network(
    tensors: &Tensors<'_>,
    naming: &Naming,
    shape: &Shape,
    tokens: usize,
    settings: &Settings,
) -> Result<Candidate, Unfit> {
    let mut net = Net::new(tensors, shape);
    let has_class = embed(&mut net, naming, shape, tokens)?;
    for place in tensors.places(naming.block) {
        block(&mut net, naming, &format!("{}{place}", naming.block), settings)?;
    }
    let summary = if has_class { "the class token" } else { "the mean over all tokens" };
    head(&mut net, naming, has_class)?;
    net.finish(
        FAMILY,
        settings,
        vec!["LayerNorm before attention and matrices".to_owned(), format!("the output is read from {summary}")],
    )
}

/// Patches, class token and positions; whether there is a class token.
fn embed(net: &mut Net<'_>, naming: &Naming, shape: &Shape, tokens: usize) -> Result<bool, Unfit> {
    let input = net.last();
    let [_, _, height, width] = net.tensors.kernels(naming.patches)?;
    let image = net.patches(naming.patches, input)?;
    let features = net.channels(image);
    let patches = (shape[1] / height) * (shape[2] / width);
    let list = net.op("tokens", Op::Reshape { positions: vec![patches] }, &[image]);
    let has_class = net.take_if_any(naming.class_token, &[1, 1, features])?;
    if patches + usize::from(has_class) != tokens {
        let detail = format!("there are positions for {tokens} tokens, the image makes {patches} patches");
        return Err(Unfit::Unknown(detail));
    }
    let all =
        if has_class { net.weighted(naming.class_token, Op::ClassToken { features }, list, features) } else { list };
    net.take(naming.positions, &[1, tokens, features])?;
    net.weighted(naming.positions, Op::PositionalEmbedding { tokens, features }, all, features);
    Ok(has_class)
}

/// Attention, then two matrices, each behind a LayerNorm and with a sum around it.
fn block(net: &mut Net<'_>, naming: &Naming, name: &str, settings: &Settings) -> Result<(), Unfit> {
    let input = net.last();
    let normed = net.layer_norm(&format!("{name}.{}", naming.norms[0]), input, naming.eps)?;
    let mixed = attention(net, naming, &format!("{name}.{}", naming.attention), settings.heads.unwrap_or(1), normed)?;
    let middle = net.op(&format!("{name}.add1"), Op::Add, &[input, mixed]);
    let normed = net.layer_norm(&format!("{name}.{}", naming.norms[1]), middle, naming.eps)?;
    let [first, second] = naming.matrices.map(|matrix| format!("{name}.{matrix}"));
    net.linear(&first, normed)?;
    let active = net.activation(&format!("{name}.gelu"), settings);
    let out = net.linear(&second, active)?;
    net.op(&format!("{name}.add2"), Op::Add, &[middle, out]);
    Ok(())
}

fn attention(net: &mut Net<'_>, naming: &Naming, name: &str, heads: usize, input: NodeId) -> Result<NodeId, Unfit> {
    let features = net.channels(input);
    let (matrices, biases, rows, output) = match &naming.projections {
        Projections::Packed { weight, bias, output } => (vec![weight.clone()], vec![bias.clone()], 3, output),
        Projections::Separate { query, key, value, output } => {
            let tensors = |role: &str| [query, key, value].map(|module| format!("{module}.{role}")).to_vec();
            (tensors("weight"), tensors("bias"), 1, output)
        }
    };
    let rows = features.saturating_mul(rows);
    let bias = net.tensors.shape(&format!("{name}.{}", biases[0])).is_some();
    for (matrix, vector) in matrices.iter().zip(&biases) {
        net.take(&format!("{name}.{matrix}"), &[rows, features])?;
        if bias {
            net.take(&format!("{name}.{vector}"), &[rows])?;
        }
    }
    net.take(&format!("{name}.{output}.weight"), &[features, features])?;
    let output_bias = net.take_if_any(&format!("{name}.{output}.bias"), &[features])?;
    let projections = naming.projections.clone();
    let op = Op::Attention { features, heads, projections, bias, output_bias };
    Ok(net.weighted(name, op, input, features))
}

/// The last normalisation and the output. timm's `fc_norm` comes behind the mean over the tokens.
fn head(net: &mut Net<'_>, naming: &Naming, has_class: bool) -> Result<(), Unfit> {
    let last = net.last();
    let behind_mean = !has_class && net.tensors.has("fc_norm");
    let summary = if has_class { Op::TokenSelect { index: 0 } } else { Op::TokenMean };
    let features = if behind_mean {
        let mean = net.op("summary", summary, &[last]);
        net.layer_norm("fc_norm", mean, naming.eps)?
    } else {
        let normed = net.layer_norm(naming.norm, last, naming.eps)?;
        net.op("summary", summary, &[normed])
    };
    net.linear(naming.head, features)?;
    Ok(())
}
