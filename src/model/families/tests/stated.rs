//! Networks that files state themselves.

use super::*;

/// `header` with `graph` in its metadata.
fn stating(header: CheckpointHeader, graph: &Graph) -> CheckpointHeader {
    CheckpointHeader { stated: Some(serde_json::json!(graph)), ..header }
}

#[test]
fn a_network_that_a_file_states_is_certain() {
    let architecture = |activation| Architecture {
        settings: Settings { activation: Some(activation), ..Settings::default() },
        ..Architecture::default()
    };
    let graph = |widths, activation| {
        let detected = detect(&[&mlp(widths)], &architecture(activation), None).unwrap();
        detected.graphs.into_iter().next().unwrap()
    };
    let (wide, narrow) = ([20, 32, 16, 10], [20, 8, 4, 10]);
    let tanh = graph(wide, Activation::Tanh);
    let auto = Architecture::default();

    // One member's statement settles all of them, whatever their widths.
    for members in [[stating(mlp(wide), &tanh), mlp(narrow)], [mlp(narrow), stating(mlp(wide), &tanh)]] {
        let detected = detect(&[&members[0], &members[1]], &auto, None).unwrap();
        let evidence = Evidence::of(&detected.candidates, detected.source);
        assert_eq!((evidence.degree, evidence.candidates), (Degree::Certain, 1));
        assert_eq!(detected.graphs[usize::from(members[0].stated.is_none())], tanh);
        assert_eq!(detected.graphs[usize::from(members[0].stated.is_some())], graph(narrow, Activation::Tanh));
    }

    // Two that state different functions are no ensemble, unless the client says what they are.
    let members = [stating(mlp(wide), &tanh), stating(mlp(narrow), &graph(narrow, Activation::Gelu))];
    let problem = detect(&[&members[0], &members[1]], &auto, None).unwrap_err();
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::MembersIncompatible, "/members/1"));
    assert!(detect(&[&members[0], &members[1]], &architecture(Activation::Gelu), None).is_ok());

    // What cannot be read, or is another network, is not passed over.
    let torn = CheckpointHeader { stated: Some("{".into()), ..mlp(wide) };
    let problem = detect(&[&torn], &auto, None).unwrap_err();
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::InvalidRequest, "/members/0"));
    assert!(problem.errors[0].detail.contains("engraft_graph"), "{problem:?}");
    assert!(inspect(&torn).unrecognised.is_some_and(|reason| reason.contains("engraft_graph")));
    assert_eq!(detect(&[&stating(lenet(), &tanh)], &auto, None).unwrap_err().code, Code::MembersIncompatible);
    assert_eq!(detect(&[&members[0]], &auto, Some(&vec![1, 28, 28])).unwrap_err().code, Code::InvalidRequest);
}

#[test]
fn what_has_no_tensors_may_be_called_otherwise_in_another_file() {
    let (wide, narrow) = ([20, 32, 16, 10], [20, 8, 4, 10]);
    let graph = |widths| only(&mlp(widths), None).graphs[0].clone();
    let renamed = |is_renamed: &dyn Fn(&Node) -> bool| {
        let rename = |node: &Node| {
            let name = if is_renamed(node) { format!("other.{}", node.name) } else { node.name.clone() };
            Node { name, ..node.clone() }
        };
        Graph::new(graph(narrow).nodes().iter().map(rename).collect()).unwrap()
    };
    let detected = |second: &Graph| {
        let members = [stating(mlp(wide), &graph(wide)), stating(mlp(narrow), second)];
        detect(&[&members[0], &members[1]], &Architecture::default(), None)
    };
    let without_tensors = renamed(&|node| parameters::of_node(node).is_empty());
    assert_ne!(without_tensors, graph(narrow));
    assert_eq!(detected(&without_tensors).unwrap().graphs, [graph(wide), graph(narrow)]);
    assert_eq!(detected(&renamed(&|_| true)).unwrap_err().code, Code::MembersIncompatible);
}
