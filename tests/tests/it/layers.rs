//! The shape of the code: no file imports one that imports it, and the runtime's directories are layers.
use gavel_tests::modules::{Module, Modules, circles};
use std::{collections::BTreeMap, fs, path::Path};

fn named(module: &Module) -> String {
    module.join("::")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The runtime's layers, as ARCHITECTURE.md lists them: the first knows none of the others.
fn layers() -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split_once("### The runtime's layers").expect("the section").1;
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"));
    rows.map(|(layer, _)| layer.to_owned()).collect()
}

/// Imports that lead to a later layer, or to or from none.
fn against(modules: &Modules, layers: &[String]) -> Vec<String> {
    let rank: BTreeMap<_, _> = layers.iter().enumerate().map(|(rank, layer)| (layer.as_str(), rank)).collect();
    let of = |module: &Module| module.first().and_then(|layer| rank.get(layer.as_str()).copied());
    let imports = modules.imports();
    let all = imports.iter().flat_map(|(module, found)| found.iter().map(move |found| (module, found)));
    let wrong = all.filter(|(module, found)| of(module).is_none() || of(found).is_none() || of(found) > of(module));
    wrong.map(|(module, found)| format!("{} imports {}", named(module), named(found))).collect()
}

fn circles_of(modules: &Modules) -> Vec<String> {
    let all = circles(&modules.imports());
    all.iter().map(|circle| circle.iter().map(named).collect::<Vec<_>>().join(" ↔ ")).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for sources in [
        "runtime/src",
        "handlers/src",
        "handlers/src/bin/gavel",
        "handlers/operators/src",
        "handlers/rules/src",
        "proto/src",
        "tests/src",
        "ops/xtask/src",
        "ops/bench/src",
        "ops/accounts/src",
        "ops/gateway/src",
        "ops/programs/src",
    ] {
        let found = circles_of(&Modules::of(&root().join(sources)));
        assert!(found.is_empty(), "{sources}: {found:#?}");
    }
}

#[test]
fn each_layer_of_the_runtime_imports_only_those_before_it() {
    let (layers, modules) = (layers(), Modules::of(&root().join("runtime/src")));
    assert!(layers.len() > 10, "ARCHITECTURE.md lists them: {layers:?}");
    let found = against(&modules, &layers);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_planted_circle_and_a_planted_import_are_found_through_their_reexports() {
    let mut modules = Modules::default();
    let mut add = |path: &str, text: &str| {
        modules.add(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect(), text);
    };
    add("", "mod low; mod high; pub use high::engine::Engine; pub use low::Spec;");
    add("low", "mod spec; pub use spec::Spec; pub(crate) mod pool;");
    // By way of the crate's own re-export.
    add("low::spec", "use crate::Engine; pub struct Spec;");
    add(
        "low::pool",
        "pub fn pool() -> super::Spec { todo!() } #[cfg(test)] mod tests { use crate::high::engine::go; }",
    );
    add("high", "pub mod engine;");
    add(
        "high::engine",
        "use crate::low::{self, pool::pool}; pub struct Engine(low::Spec); pub fn go() { crate::low::Spec; }",
    );
    let order = ["low", "high"].map(str::to_owned);
    assert_eq!(against(&modules, &order), ["low::spec imports high::engine"]);
    assert_eq!(circles_of(&modules), ["high::engine ↔ low::pool ↔ low::spec"]);
}
