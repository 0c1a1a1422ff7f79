//! Names that tell of sums. To what a block adds its input, or that it does, stands in no shape: modules with such names may fit a chain,
//! and are none.

/// What people call a block that adds its input to its output, and what lies beside it.
const WORDS: [&str; 9] =
    ["res", "resblock", "res_block", "resblocks", "residual", "residual_block", "residualblock", "shortcut", "skip"];

/// The first of `names` in which a module is called by such a word, numbered or not (`res1.0.conv`, `blocks.residual`).
pub(super) fn first<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_word = |part: &str| {
        let word = part.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_').to_ascii_lowercase();
        WORDS.contains(&word.as_str())
    };
    names.into_iter().find(|name| name.split('.').any(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_as_whole_parts_of_names() {
        for name in ["res1.0.0", "layer1.residual.conv", "block.Shortcut", "ResBlock_2.conv", "net.skip"] {
            assert_eq!(first(["fc1", name, "res9"]), Some(name));
        }
        assert_eq!(first(["resnet.conv1", "restore", "fc1", "features.0", "skipped.0", "blocks.0.conv1"]), None);
    }
}
