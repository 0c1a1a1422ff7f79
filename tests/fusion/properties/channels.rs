//! Operations that see all channels at once: the virtual concatenation runs them member by member.

use std::collections::BTreeMap;

use engraft::domain::problem::{Code, FaultCode};
use engraft::fusion::reference::verify;
use engraft::fusion::{self, Ensemble, Member};
use engraft::model::graph::{Graph, NodeId};
use engraft::model::parameters::{self, Role};
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::settings::{Allocation, Budget, LayerSize, Resource, Size, Target};
use engraft::tensors::{StateDict, Weights};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::networks::{noise, weights};

/// A network from nodes that each read the one before, or those that are named; weights at random.
fn network(nodes: &serde_json::Value, rng: &mut ChaCha8Rng) -> (Graph, StateDict) {
    let graph = engraft::model::graph::json::parse(&serde_json::json!({ "nodes": nodes })).unwrap();
    let weights = weights(&graph, rng);
    (graph, weights)
}

/// The virtual concatenation of two such networks equals their mean.
fn check_concatenation(networks: &[(Graph, StateDict)], rng: &mut ChaCha8Rng) {
    let list = networks.iter().map(|(graph, weights)| Member { graph, weights });
    let ensemble = Ensemble::new(list.collect()).unwrap();
    let inputs = noise(&networks[0].0, 3, rng);
    let mean = verify::mean_of_members(&ensemble, &inputs, 3).unwrap();
    let stacked = verify::concatenation(&ensemble, &inputs, 3).unwrap();
    assert!(verify::Agreement::of(&mean, &stacked).holds(), "{mean:?} {stacked:?}");
    assert!(mean.iter().any(|logit| logit.abs() > 1e-3), "{mean:?}");
}

#[test]
fn normalisations_over_channels_see_one_member_at_a_time() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut convnext = |width: usize, inner: usize| {
        let nodes = serde_json::json!([
            {"name": "input", "op": "input", "shape": [3, 8, 8]},
            {"name": "stem", "op": "conv2d", "in_channels": 3, "out_channels": width, "kernel": 2, "stride": 2},
            {"name": "norm", "op": "layer_norm", "features": width},
            {"name": "depthwise", "op": "conv2d", "in_channels": width, "out_channels": width, "groups": width,
             "kernel": 3, "padding": 1, "bias": true},
            {"name": "inner_norm", "op": "layer_norm", "features": width},
            {"name": "expand", "op": "linear", "in_features": width, "out_features": inner, "bias": true},
            {"name": "gelu", "op": "gelu"},
            {"name": "project", "op": "linear", "in_features": inner, "out_features": width},
            {"name": "scale", "op": "layer_scale", "features": width, "unit_axes": 2},
            {"name": "sum", "op": "add", "inputs": ["scale", "norm"]},
            {"name": "groups", "op": "group_norm", "groups": width / 2, "features": width},
            {"name": "one_group", "op": "group_norm", "groups": 1, "features": width},
            {"name": "softmax", "op": "softmax"},
            {"name": "mean", "op": "global_avg_pool2d"},
            {"name": "flatten", "op": "flatten"},
            {"name": "head", "op": "linear", "in_features": width, "out_features": 4, "bias": true},
        ]);
        network(&nodes, &mut rng)
    };
    let networks = [convnext(4, 7), convnext(6, 3)];
    check_concatenation(&networks, &mut rng);
    let list: Vec<Member<'_>> = networks.iter().map(|(graph, weights)| Member { graph, weights }).collect();
    let fused = fusion::joint(&list, &[2, 3]).unwrap();
    assert_eq!(fused.weights.f32("depthwise.weight").unwrap().len() / 9, fused.weights.f32("scale").unwrap().len());
    assert_eq!(fused.graph.shape(fused.graph.output()), &vec![4]);
}

#[test]
fn attentions_are_concatenated_head_by_head_and_pruned_by_whole_heads() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut transformer = |width: usize, projections: serde_json::Value| {
        let nodes = serde_json::json!([
            {"name": "input", "op": "input", "shape": [1, 6, 6]},
            {"name": "patches", "op": "conv2d", "in_channels": 1, "out_channels": width, "kernel": 2, "stride": 2},
            {"name": "tokens", "op": "reshape", "positions": [9]},
            {"name": "class_token", "op": "class_token", "features": width},
            {"name": "pos_embed", "op": "positional_embedding", "features": width, "tokens": 10},
            {"name": "norm1", "op": "layer_norm", "features": width},
            {"name": "attn", "op": "attention", "features": width, "heads": 2, "projections": projections},
            {"name": "sum1", "op": "add", "inputs": ["attn", "pos_embed"]},
            {"name": "fc1", "op": "linear", "in_features": width, "out_features": 5, "bias": true},
            {"name": "gelu", "op": "gelu"},
            {"name": "fc2", "op": "linear", "in_features": 5, "out_features": width, "bias": true},
            {"name": "sum2", "op": "add", "inputs": ["fc2", "sum1"]},
            {"name": "first", "op": "token_select", "index": 0},
            {"name": "head", "op": "linear", "in_features": width, "out_features": 3, "bias": true},
        ]);
        network(&nodes, &mut rng)
    };
    let packed = serde_json::json!({"weight": "in_proj_weight", "bias": "in_proj_bias", "output": "out_proj"});
    let separate = serde_json::json!({"query": "q", "key": "k", "value": "v", "output": "o"});
    for projections in [packed, separate] {
        let networks = [transformer(4, projections.clone()), transformer(6, projections)];
        check_concatenation(&networks, &mut ChaCha8Rng::seed_from_u64(7));
        let list: Vec<Member<'_>> = networks.iter().map(|(graph, weights)| Member { graph, weights }).collect();
        let refused = fusion::joint(&list, &[5, 5, 2]).unwrap_err().to_string();
        assert!(refused.contains("`attn`") && refused.contains("different widths"), "{refused}");
        let plan = |graphs: &[Graph], target: &Target| FusionPlan::new(graphs, target, &Precision::default(), None);
        let graphs: Vec<Graph> = networks.iter().map(|(graph, _)| graph.clone()).collect();
        let problem = plan(&graphs, &Target::default()).unwrap_err();
        assert_eq!(problem.code, Code::NotSupportedYet);
        assert!(problem.detail.contains("`attn`"), "{}", problem.detail);
        // Two members of one shape become one of it, or one of half the channels with half the heads.
        let pair = [graphs[0].clone(), graphs[0].clone()];
        let widths = |target: &Target| plan(&pair, target).unwrap().targets;
        assert_eq!(widths(&Target::default()), [4, 5, 2]);
        assert_eq!(widths(&Size::Factor(0.6).into()), [2, 3, 1]);
        let odd = Target { layers: BTreeMap::from([("patches".to_owned(), LayerSize::Width(3))]), ..Target::default() };
        assert_eq!(plan(&pair, &odd).unwrap_err().errors[0].code, FaultCode::NotWholeHeads);
        let budget = Budget { resource: Resource::Parameters, limit: 150, allocation: Allocation::Uniform };
        let fitting = plan(&pair, &Size::Budget(budget).into()).unwrap();
        assert_eq!((fitting.targets[0] / 2, fitting.targets[0] % 2), (fitting.targets[2], 0));
        let both = [list[0], list[0]];
        for (targets, channels) in [([4, 5, 2], 4), ([2, 3, 1], 2)] {
            let fused = fusion::joint(&both, &targets).unwrap();
            assert_eq!(fused.graph.shape(NodeId(3)), &vec![channels, 10]);
            let elements: usize = parameters::of_graph(&fused.graph)
                .iter()
                .filter(|tensor| tensor.role == Role::Projection)
                .map(|tensor| fused.weights.f32(&tensor.name).unwrap().len())
                .sum();
            assert_eq!(elements, 3 * channels * channels);
            assert_eq!(verify::reference(fused.as_member(), &[0.5; 36], 1).unwrap().len(), 3);
        }
        // Everything that is kept is the concatenation, with one norm over all channels.
        let all = fusion::joint(&both, &[8, 10, 4]).unwrap();
        assert_eq!(all.graph.shape(NodeId(3)), &vec![8, 10]);
        let halved = fusion::joint(&list[..1], &[4, 2, 2]).unwrap();
        assert_eq!(halved.weights.f32("fc1.weight").unwrap().len(), 8);
    }
}
