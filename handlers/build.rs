//! A new file of a migration is embedded as well, without any other change.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
