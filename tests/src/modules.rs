//! Which file of a crate imports which, with re-exports followed to where a thing is defined.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use syn::{
    Attribute, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module's path below the crate, such as `triggers::rpc`; empty for the crate itself.
pub type Module = Vec<String>;

/// The files of a crate.
#[derive(Default)]
pub struct Modules(BTreeMap<Module, File>);

#[derive(Default)]
struct File {
    uses: Vec<Use>,
    /// Paths in its code that begin with `crate` or `super`.
    paths: Vec<Vec<String>>,
}

struct Use {
    path: Vec<String>,
    name: String,
    is_reexport: bool,
}

impl Modules {
    /// Reads every file below the directory of a crate's sources. Modules of tests are left out.
    ///
    /// # Panics
    /// When one can't be read.
    pub fn of(sources: &Path) -> Self {
        let mut modules = Self::default();
        modules.read(sources, &mut Vec::new());
        modules
    }

    fn read(&mut self, dir: &Path, at: &mut Module) {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                at.push(name);
                self.read(&path, at);
                at.pop();
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let is_dirs_own = matches!(name.as_str(), "mod" | "lib" | "main");
                let module = if is_dirs_own { at.clone() } else { [at.as_slice(), &[name]].concat() };
                self.add(module, &text);
            }
        }
    }

    /// Adds a file.
    ///
    /// # Panics
    /// When it is no Rust.
    pub fn add(&mut self, module: Module, text: &str) {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", module.join("::")));
        let mut file = File::default();
        file.visit_file(&parsed);
        self.0.insert(module, file);
    }

    /// Returns what each file imports, by where it is defined. A re-export is no import: whoever uses it imports what
    /// it leads to.
    pub fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let of = |(module, file): (&Module, &File)| {
            let uses = file.uses.iter().filter(|one| !one.is_reexport).map(|one| &one.path);
            let found = uses.chain(&file.paths).filter_map(|path| self.definer(&self.absolute(module, path)?, 0));
            (module.clone(), found.filter(|found| found != module && !found.is_empty()).collect())
        };
        self.0.iter().filter(|(module, _)| !module.is_empty()).map(of).collect()
    }

    /// The path below the crate; none for what another crate has.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                Some([module.get(..module.len().checked_sub(up)?)?, &path[up..]].concat())
            }
            _ => {
                let child = [module.as_slice(), std::slice::from_ref(first)].concat();
                self.0.contains_key(&child).then(|| [module, path].concat())
            }
        }
    }

    /// The module that a path leads to, or in which the thing that it leads to is defined.
    fn definer(&self, path: &[String], depth: usize) -> Option<Module> {
        // Re-exports that lead back to themselves.
        if depth > 12 {
            return None;
        }
        let known = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, rest) = (path[..known].to_vec(), &path[known..]);
        let Some(name) = rest.first() else { return Some(module) };
        let led_on = self.0[&module].uses.iter().filter(|one| one.name == *name).find_map(|one| {
            let onward = [self.absolute(&module, &one.path)?.as_slice(), &rest[1..]].concat();
            if onward == path { None } else { self.definer(&onward, depth + 1) }
        });
        Some(led_on.unwrap_or(module))
    }
}

/// Sets of files each of which imports, by way of others, all of its set.
pub fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(imports.get(module).into_iter().flatten().filter(|found| reached.insert((*found).clone())));
        }
        reached
    };
    let reach: BTreeMap<_, _> = imports.keys().map(|module| (module, reached(module))).collect();
    let circle = |module: &Module| -> BTreeSet<Module> {
        reach[module]
            .iter()
            .filter(|other| reach.get(other).is_some_and(|back| back.contains(module)))
            .cloned()
            .collect()
    };
    let found: BTreeSet<_> = imports.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

impl<'ast> Visit<'ast> for File {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !module.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, found: &'ast ItemUse) {
        let is_reexport = !matches!(found.vis, Visibility::Inherited);
        flatten(&found.tree, &mut Vec::new(), &mut |path, name| self.uses.push(Use { path, name, is_reexport }));
    }

    /// Who may see a thing is no import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if matches!(parts.first().map(String::as_str), Some("crate" | "super")) {
            self.paths.push(parts);
        }
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|only| only.is_ident("test"))
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, found: &mut impl FnMut(Vec<String>, String)) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
        UseTree::Name(name) if name.ident == "self" => {
            found(before.clone(), before.last().cloned().unwrap_or_default());
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            found([before.as_slice(), std::slice::from_ref(&name)].concat(), name);
        }
        UseTree::Rename(rename) => {
            let own = (rename.ident != "self").then(|| rename.ident.to_string());
            found(before.iter().cloned().chain(own).collect(), rename.rename.to_string());
        }
        UseTree::Glob(_) => found(before.clone(), String::new()),
    }
}
