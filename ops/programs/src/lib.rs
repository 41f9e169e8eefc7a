//! Where the distribution's server programs are, and as whom they run.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Whoever owns PostgreSQL's data when we are root.
pub const POSTGRES_USER: &str = "postgres";

/// Returns whether this process may do everything.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap_or_default().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Where the shell would find a program, and where an ordinary user's `PATH` leaves servers out.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

/// The newest installed PostgreSQL's programs.
pub fn postgresql_bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let bins = versions.filter_map(|dir| {
        let number: u32 = dir.file_name().to_str()?.parse().ok()?;
        let bin = dir.path().join("bin");
        bin.join("initdb").exists().then_some((number, bin))
    });
    bins.max().map(|(_, bin)| bin)
}

/// A program as [`POSTGRES_USER`] where we are root, since PostgreSQL and PgBouncer refuse to run as root; as ourselves
/// otherwise.
pub fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(on_path("setpriv").unwrap_or_else(|| "setpriv".into()));
    command.args(["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER, "--init-groups", "--"]).arg(program);
    command
}
