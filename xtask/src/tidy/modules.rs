//! Imports go one way: no circle of modules within a package.
//!
//! A module and the modules below it may use each other. The check reads `use` items and paths that
//! begin with `crate`, `super` or `self`, without test modules and without the insides of macros.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

use super::Tree;

/// A path from the root of a package; the root itself is empty.
type Module = Vec<String>;

/// Which modules each module uses.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut packages: BTreeMap<PathBuf, BTreeMap<Module, &str>> = BTreeMap::new();
    for (path, text) in tree.with_ending("rs") {
        if let Some((package, module)) = module(path) {
            packages.entry(package).or_default().insert(module, text);
        }
    }
    let mut broken = Vec::new();
    for (package, sources) in &packages {
        for circle in circles(&uses(sources)) {
            let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
            broken.push(format!(
                "{}: modules import each other: {}",
                package.display(),
                names.join(", ")
            ));
        }
    }
    broken
}

/// The package and the module of a file below `src`.
fn module(path: &Path) -> Option<(PathBuf, Module)> {
    let text = path.with_extension("");
    let text = text.to_str()?;
    let (package, module) = text
        .split_once("/src/")
        .or_else(|| Some((text, "")).filter(|_| false))?;
    let mut module: Module = module.split('/').map(str::to_owned).collect();
    if module.iter().any(|part| part == "tests" || part == "bin") {
        return None;
    }
    if module.len() == 1 && ["lib", "main"].contains(&module[0].as_str()) {
        module.clear();
    }
    Some((package.into(), module))
}

fn uses(sources: &BTreeMap<Module, &str>) -> Uses {
    let mut uses = Uses::new();
    for (module, text) in sources {
        // The compiler reports a file that does not parse.
        let Ok(file) = syn::parse_file(text) else { continue };
        let mut paths = Paths {
            module,
            found: Vec::new(),
        };
        paths.visit_file(&file);
        let targets = paths.found.iter().map(|path| owner(path, sources));
        uses.insert(module.clone(), targets.filter(|target| target != module).collect());
    }
    uses
}

/// The module that a path leads into.
fn owner(path: &[String], sources: &BTreeMap<Module, &str>) -> Module {
    (0..=path.len())
        .rev()
        .map(|length| path[..length].to_vec())
        .find(|module| sources.contains_key(module))
        .unwrap_or_default()
}

/// Collects the paths within the package that a file names.
struct Paths<'a> {
    module: &'a Module,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    fn add(&mut self, path: Vec<String>) {
        let mut parts = path.into_iter().peekable();
        let mut base = match parts.peek().map(String::as_str) {
            Some("crate") => Module::new(),
            Some("super" | "self") => self.module.clone(),
            _ => return,
        };
        while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(&part.as_str())) {
            if part == "super" {
                base.pop();
            }
        }
        base.extend(parts);
        self.found.push(base);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(prefix.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !item.attrs.iter().any(is_test) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
}

/// The groups of modules that import each other. A module and its descendants may, so each
/// direction between them is left out in turn.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<Module>> {
    let without_upward = |from: &Module, to: &Module| !from.starts_with(to);
    let without_downward = |from: &Module, to: &Module| !to.starts_with(from);
    let mut circles = components(uses, without_upward);
    circles.extend(components(uses, without_downward));
    circles
}

fn components(uses: &Uses, counts: impl Fn(&Module, &Module) -> bool) -> BTreeSet<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = uses
        .keys()
        .map(|module| (module, reachable(uses, module, &counts)))
        .collect();
    let reaches = |from: &Module, to: &Module| reached.get(from).is_some_and(|modules| modules.contains(to));
    let circle = |module: &Module| -> BTreeSet<Module> {
        let others = uses
            .keys()
            .filter(|other| reaches(module, other) && reaches(other, module));
        others.cloned().collect()
    };
    uses.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

fn reachable<'a>(uses: &'a Uses, from: &'a Module, counts: &impl Fn(&Module, &Module) -> bool) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in uses
            .get(module)
            .into_iter()
            .flatten()
            .filter(|next| counts(module, next))
        {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::{Module, circles, module, uses};

    fn found(sources: &[(&str, &str)]) -> usize {
        let sources: BTreeMap<Module, &str> = sources
            .iter()
            .map(|(path, text)| (module(Path::new(path)).unwrap().1, *text))
            .collect();
        circles(&uses(&sources)).len()
    }

    #[test]
    fn two_modules_that_import_each_other_are_a_circle() {
        let a = ("x/src/a.rs", "use crate::b::B;");
        assert_eq!(
            found(&[
                ("x/src/lib.rs", "mod a; mod b;"),
                a,
                ("x/src/b.rs", "fn f(_: super::a::A) {}")
            ]),
            1
        );
        assert_eq!(found(&[("x/src/lib.rs", "mod a; mod b;"), a, ("x/src/b.rs", "")]), 0);
    }

    #[test]
    fn a_module_and_its_child_are_no_circle_but_a_third_module_between_them_makes_one() {
        let child = ("x/src/a/b.rs", "use super::A;");
        assert_eq!(found(&[("x/src/a.rs", "use self::b::B;"), child]), 0);
        let detour = [
            ("x/src/a.rs", "use self::b::B;"),
            ("x/src/a/b.rs", "use crate::c::C;"),
            ("x/src/c.rs", "use crate::a::A;"),
        ];
        assert_eq!(found(&detour), 1);
    }

    #[test]
    fn imports_of_test_modules_do_not_count() {
        let a = ("x/src/a.rs", "use crate::b::B;");
        let b = ("x/src/b.rs", "#[cfg(test)] mod tests { use crate::a::A; }");
        assert_eq!(found(&[a, b]), 0);
    }
}
