//! Reads a source tree into its imports: every path that leads to another module or to another crate, wherever it stands,
//! in `use`, in code, in types and in the arguments of macros, tests included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// Path of a module below the crate's root; empty for the root itself.
pub(crate) type Module = Vec<String>;

/// One path from one file to another, or to another crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The module that imports: its file's.
    pub(crate) from: Module,
    pub(crate) to: Target,
    /// Whether only tests import it.
    pub(crate) in_test: bool,
    /// Whether it only hands a name on (`pub use`): the module does not need what the name stands for.
    pub(crate) hands_on: bool,
}

/// What is imported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The module of this crate that defines it.
    Module(Module),
    /// Another crate.
    Crate(String),
}

/// All modules of a crate and their imports.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Every module that has a file, and that file below the root.
    pub(crate) files: BTreeMap<Module, PathBuf>,
    pub(crate) imports: Vec<Import>,
}

/// A path as it is written, in the module (inline ones included) that holds it.
#[derive(Debug)]
struct Written {
    inside: Module,
    path: Vec<String>,
    in_test: bool,
    hands_on: bool,
}

/// What one file says.
#[derive(Debug, Default)]
struct Sheet {
    written: Vec<Written>,
    /// Names that a module takes in: (module, name) to the path behind it.
    names: BTreeMap<(Module, String), Vec<String>>,
    /// Modules that it declares for tests alone.
    test_modules: BTreeSet<Module>,
}

impl Tree {
    /// Reads every file below `src`.
    pub(crate) fn read(src: &Path) -> Self {
        let mut paths = Vec::new();
        rust_files(src, &mut paths);
        let texts = paths.iter().map(|path| {
            let inner = path.strip_prefix(src).expect("below the root").to_path_buf();
            (inner, fs::read_to_string(path).expect("a readable file"))
        });
        Self::of(texts)
    }

    /// Reads files, given by their paths below the root and their texts.
    pub(crate) fn of(texts: impl Iterator<Item = (PathBuf, String)>) -> Self {
        let mut files = BTreeMap::new();
        let mut sheets = Vec::new();
        for (path, text) in texts {
            let module = module_of(&path);
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut reader = Reader { inside: module.clone(), in_test: false, sheet: Sheet::default() };
            reader.visit_file(&file);
            files.insert(module.clone(), path);
            sheets.push((module, reader.sheet));
        }
        let names: BTreeMap<_, _> = sheets.iter().flat_map(|(_, sheet)| sheet.names.clone()).collect();
        let test_modules: BTreeSet<_> = sheets.iter().flat_map(|(_, sheet)| sheet.test_modules.clone()).collect();
        let house = House { files: &files, names: &names };
        let mut imports = Vec::new();
        for (module, sheet) in &sheets {
            let all_test = (1..=module.len()).any(|depth| test_modules.contains(&module[..depth]));
            for written in &sheet.written {
                if let Some(to) = house.target(written).filter(|to| *to != Target::Module(module.clone())) {
                    let in_test = all_test || written.in_test;
                    imports.push(Import { from: module.clone(), to, in_test, hands_on: written.hands_on });
                }
            }
        }
        Self { files, imports }
    }
}

/// Resolves paths.
struct House<'a> {
    files: &'a BTreeMap<Module, PathBuf>,
    names: &'a BTreeMap<(Module, String), Vec<String>>,
}

impl House<'_> {
    /// The module of this crate in which the written path ends, or the crate that it leads to; none for what is in scope
    /// by another path.
    fn target(&self, written: &Written) -> Option<Target> {
        let (first, rest) = written.path.split_first()?;
        let mut module = written.inside.clone();
        match first.as_str() {
            "crate" | "engraft" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
            }
            name if self.knows(&module, name) => {
                return Some(Target::Module(self.file_of(self.walk(module, &written.path))));
            }
            name => return is_crate(name).then(|| Target::Crate(name.to_owned())),
        }
        Some(Target::Module(self.file_of(self.walk(module, rest))))
    }

    /// Whether `name` is a module below `module`.
    fn knows(&self, module: &[String], name: &str) -> bool {
        self.files.contains_key(&[module, &[name.to_owned()]].concat())
    }

    /// Follows `path` from `module`, through names that modules hand on, as far as it leads to modules.
    fn walk(&self, mut module: Module, path: &[String]) -> Module {
        for (place, segment) in path.iter().enumerate() {
            if segment == "super" {
                module.pop();
            } else if self.knows(&module, segment) {
                module.push(segment.clone());
            } else {
                let Some(behind) = self.names.get(&(module.clone(), segment.clone())) else { return module };
                let rest = [behind, &path[place + 1..]].concat();
                let written = Written { inside: module.clone(), path: rest, in_test: false, hands_on: false };
                return match self.target(&written) {
                    Some(Target::Module(found)) => found,
                    _ => module,
                };
            }
        }
        module
    }

    /// The module whose file holds `module`, which may be inline.
    fn file_of(&self, mut module: Module) -> Module {
        while !module.is_empty() && !self.files.contains_key(&module) {
            module.pop();
        }
        module
    }
}

/// `http/problem.rs` is `http::problem`, `http/mod.rs` is `http`, `lib.rs` and `main.rs` are the root.
fn module_of(path: &Path) -> Module {
    let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let file = module.pop().unwrap_or_default();
    match file.trim_end_matches(".rs") {
        "mod" | "lib" => {}
        name => module.push(name.to_owned()),
    }
    module
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("a readable entry")) {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a path that begins with `name` leads out of this crate: types and what is in scope begin otherwise.
fn is_crate(name: &str) -> bool {
    super::table::FRAMEWORKS.contains(&name)
}

/// Gathers the paths of one file.
struct Reader {
    inside: Module,
    in_test: bool,
    sheet: Sheet,
}

impl Reader {
    fn write(&mut self, path: Vec<String>, hands_on: bool) {
        self.sheet.written.push(Written { inside: self.inside.clone(), path, in_test: self.in_test, hands_on });
    }

    /// Every leaf of `use a::{b, c as d};` with the name that it takes.
    fn leaves(tree: &syn::UseTree, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => Self::leaves(&path.tree, &with(&path.ident), found),
            syn::UseTree::Name(name) if name.ident == "self" => {
                found.push((before.last().cloned().unwrap_or_default(), before.to_vec()));
            }
            syn::UseTree::Name(name) => found.push((name.ident.to_string(), with(&name.ident))),
            syn::UseTree::Rename(name) => found.push((name.rename.to_string(), with(&name.ident))),
            syn::UseTree::Glob(_) => found.push((String::new(), before.to_vec())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| Self::leaves(tree, before, found)),
        }
    }

    /// Paths among the arguments of a macro, which are no syntax until it is expanded.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut paths: Vec<Vec<String>> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            let before = std::mem::take(&mut colons);
            match token {
                TokenTree::Ident(word) => match paths.last_mut() {
                    Some(path) if before == 2 => path.push(word.to_string()),
                    _ => paths.push(vec![word.to_string()]),
                },
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons = before + 1,
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    paths.push(Vec::new());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => paths.push(Vec::new()),
            }
        }
        paths.into_iter().filter(|path| path.len() > 1).for_each(|path| self.write(path, false));
    }

    /// Whether `attributes` leave the item to tests.
    fn for_tests(attributes: &[syn::Attribute]) -> bool {
        attributes.iter().any(|attribute| match &attribute.meta {
            syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
            meta => meta.path().is_ident("test"),
        })
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs[..],
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        let outside = self.in_test;
        self.in_test |= Self::for_tests(attributes);
        visit::visit_item(self, item);
        self.in_test = outside;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inside.push(item.ident.to_string());
        if self.in_test && item.content.is_none() {
            self.sheet.test_modules.insert(self.inside.clone());
        }
        visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut leaves = Vec::new();
        Self::leaves(&item.tree, &[], &mut leaves);
        let hands_on = !matches!(item.vis, syn::Visibility::Inherited);
        for (name, path) in leaves {
            if !name.is_empty() {
                self.sheet.names.insert((self.inside.clone(), name), path.clone());
            }
            self.write(path, hands_on);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.write(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), false);
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // `pub(in crate::a)` says who may look, and imports nothing.
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}
