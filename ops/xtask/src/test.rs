//! Every test, on one set of real servers, in parallel.
#[cfg(feature = "containers")]
use crate::servers::containers::Containers;
use crate::{
    install::{self, NEXTEST},
    interop, names,
    progress::{Step, run, run_quietly, unaware_of_us},
    servers::{
        Urls, engine::engine_answers, layout::Layout, levers::Levers, processes::Processes, secrets::write_private,
    },
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use gavel_accounts::{
    Passwords,
    postgres::{Role, roles_sql},
};
use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the servers come from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Services {
    /// Containers, one set for the run
    Containers,
    /// Private processes from the distribution's packages
    Processes,
    /// Servers that run already: GAVEL_TEST_POSTGRES_URL (no database), GAVEL_TEST_AMQP_URL (no vhost),
    /// GAVEL_TEST_RABBITMQ_API_URL, GAVEL_TEST_REDIS_URL, each with an administrator's rights
    Urls,
}

/// Tests of bids, which hold as well while a change of the schema is under way; but for one that is about its end.
const TWO_FORMS: &str = "test(/^(batching|cancelling|closing|contention|idempotency|kills|listing|live|model|spelling|\
                         travels)::/) - test(up_to_the_highest_amount_and_there_it_ends)";

/// Unit tests and the integration tests in tests/, with cargo-nextest.
#[derive(Args)]
pub(crate) struct Test {
    /// Where the servers come from; containers where a Docker engine answers, otherwise processes
    #[arg(long)]
    services: Option<Services>,
    /// Handed on to cargo nextest run, such as -E 'test(bid)'
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// What holds the servers up until the tests are done.
pub(crate) enum Held {
    #[cfg(feature = "containers")]
    Containers(Box<Containers>),
    Processes(Box<Processes>),
    Urls(Urls),
}

impl Held {
    pub(crate) fn urls(&self) -> &Urls {
        match self {
            #[cfg(feature = "containers")]
            Self::Containers(containers) => &containers.urls,
            Self::Processes(processes) => &processes.urls,
            Self::Urls(urls) => urls,
        }
    }

    /// What faults of whole servers are made with; nothing of servers that are somebody else's.
    fn levers(&self) -> Levers {
        match self {
            #[cfg(feature = "containers")]
            Self::Containers(containers) => containers.levers(),
            Self::Processes(processes) => processes.levers(),
            Self::Urls(_) => Levers::default(),
        }
    }
}

impl Test {
    pub(crate) fn new(services: Services, nextest: &[&str]) -> Self {
        Self { services: Some(services), nextest: nextest.iter().map(ToString::to_string).collect() }
    }

    pub(crate) fn services(&self) -> Services {
        chosen(self.services)
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // Tests start servers of their own too: one that is demoted, a gateway, a pooler.
        install::everything()?;
        // README calls it.
        install::ensure(&[install::CURL, install::PROMETHEUS])?;
        let python = interop::prepare()?;
        let nextest = NEXTEST.path()?;
        let prepared = Prepared::on(self.services())?;
        let pass = |arguments: &[String], schema: &str| {
            let mut command = prepared.command(&nextest);
            command
                .args(["nextest", "run", "--workspace", "--no-fail-fast"])
                .args(arguments)
                .env("GAVEL_TEST_SCHEMA", schema)
                .env("GAVEL_TEST_PYTHON", &python);
            run(&mut command)
        };
        let schema = env::var("GAVEL_TEST_SCHEMA").unwrap_or_else(|_| "over".to_owned());
        pass(&self.nextest, &schema)?;
        if self.nextest.is_empty() {
            eprintln!("  … tests of bids once more, where the schema has two forms of their amounts");
            pass(&["-E".to_owned(), TWO_FORMS.to_owned()], "expanded")?;
        }
        Ok(())
    }
}

/// Runs what was asked for by this program with the containers' client, which is built only now.
pub(crate) fn once_more_with_containers() -> anyhow::Result<()> {
    let asked: Vec<_> = env::args().skip(1).collect();
    with_containers(&asked.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|error| error.context(SaidAbove))
}

/// What went wrong was told already, by the same command once more.
#[derive(Debug)]
pub(crate) struct SaidAbove;

impl fmt::Display for SaidAbove {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("with containers")
    }
}

/// The same for something else.
pub(crate) fn with_containers(arguments: &[&str]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "xtask", "--features", "containers", "--"]);
    run(cargo.args(arguments).current_dir(crate::root()))
}

/// Servers that run already where their URLs are given, containers where there is an engine, unless somebody says
/// otherwise.
pub(crate) fn chosen(services: Option<Services>) -> Services {
    services.unwrap_or_else(|| match env::var_os("GAVEL_TEST_POSTGRES_URL") {
        Some(_) => Services::Urls,
        None if engine_answers() => Services::Containers,
        None => Services::Processes,
    })
}

/// Servers with a migrated database, and the programs: what tests are given.
pub(crate) struct Prepared {
    servers: Held,
    bins: PathBuf,
    /// Where those are that are tested.
    tested: PathBuf,
    template: String,
    passwords: Passwords,
}

impl Prepared {
    pub(crate) fn on(services: Services) -> anyhow::Result<Self> {
        let servers = servers(services)?;
        let bins = build(&EVERYTHING, false)?;
        let template = format!("gavel_template_{}", std::process::id());
        let step = Step::begin("migrating the template database");
        let passwords = Passwords::random();
        prepare(&bins, servers.urls(), &template, &passwords)?;
        step.done("template migrated");
        Ok(Self { servers, tested: bins.clone(), bins, template, passwords })
    }

    /// The same, where PostgreSQL has a disk that may be filled, if that can be.
    pub(crate) fn with_small_disk(mut self) -> anyhow::Result<Self> {
        if let Held::Processes(processes) = &mut self.servers {
            processes.mount_small_disk()?;
        }
        Ok(self)
    }

    /// The same, where the programs that are tested can have bugs on purpose.
    pub(crate) fn with_bugs(self) -> anyhow::Result<Self> {
        let tested = crate::root().join("target/planted/bin");
        fs::create_dir_all(&tested)?;
        build(&PLANTED, false)?;
        for program in [names::PROGRAM, "probe-worker"] {
            // Not over one that may be running.
            let _ = fs::remove_file(tested.join(program));
            fs::copy(self.bins.join(program), tested.join(program))?;
        }
        names::link(&tested)?;
        // What lies in the usual place has none.
        build(&EVERYTHING, false)?;
        Ok(Self { tested, ..self })
    }

    /// One of the programs that were built.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.command(&self.bins.join(name))
    }

    /// A program that is told of all of it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let passwords = self.passwords.at_postgres();
        let passwords =
            passwords.map(|(role, password)| (format!("GAVEL_TEST_PASSWORD_OF_{}", role.account()), password));
        let mut command = Command::new(program);
        // However it is run: nextest builds.
        unaware_of_us(&mut command)
            .current_dir(crate::root())
            .envs(self.servers.urls().variables())
            .envs(self.servers.levers().variables())
            .env("GAVEL_TEST_TEMPLATE", &self.template)
            .envs(passwords)
            .env("GAVEL_TEST_BIN_DIR", &self.tested);
        command
    }
}

/// Starts them.
pub(crate) fn servers(services: Services) -> anyhow::Result<Held> {
    Ok(match services {
        #[cfg(feature = "containers")]
        Services::Containers => Held::Containers(Box::new(Containers::start()?)),
        #[cfg(not(feature = "containers"))]
        Services::Containers => anyhow::bail!("this xtask was built without containers"),
        Services::Processes => Held::Processes(Box::new(Processes::start(Layout::claim("test")?, false)?)),
        Services::Urls => Held::Urls(Urls {
            postgres: variable("GAVEL_TEST_POSTGRES_URL")?,
            amqp: variable("GAVEL_TEST_AMQP_URL")?,
            rabbitmq_api: variable("GAVEL_TEST_RABBITMQ_API_URL")?,
            redis: variable("GAVEL_TEST_REDIS_URL")?,
        }),
    })
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is missing: --services urls needs it"))
}

/// What tests need built.
pub(crate) const EVERYTHING: [&str; 4] = ["--workspace", "--bins", "--tests", "--examples"];

/// What is tested, with bugs on purpose.
const PLANTED: [&str; 7] =
    ["--package", "gavel", "--package", "gavel-tests", "--bins", "--features", "gavel-runtime/planted"];

/// Builds, and says where the binaries are.
pub(crate) fn build(what: &[&str], release: bool) -> anyhow::Result<PathBuf> {
    build_with(what, release, &[])
}

/// The same, with variables for cargo.
pub(crate) fn build_with(what: &[&str], release: bool, variables: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let profile = if release { "release" } else { "dev" };
    eprintln!("  … building (cargo build {})", what.join(" "));
    let mut cargo = Command::new("cargo");
    cargo.arg("build").args(what).args(["--profile", profile]).current_dir(crate::root());
    run(cargo.envs(variables.iter().copied()))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    let bins = target.join(if release { "release" } else { "debug" });
    names::link(&bins)?;
    Ok(bins)
}

/// Creates the database where it is missing, with the roles, and migrates it as one of them: as on any installation.
pub(crate) fn prepare(bins: &Path, urls: &Urls, database: &str, passwords: &Passwords) -> anyhow::Result<()> {
    let roles = env::temp_dir().join(format!("gavel-roles-{}.sql", std::process::id()));
    write_private(&roles, &roles_sql(database, &passwords.at_postgres()))?;
    let mut bidctl = Command::new(bins.join("bidctl"));
    bidctl.arg("prepare").arg("--roles").arg(&roles).env("DATABASE_URL", urls.database(database));
    let prepared = run_quietly(&mut bidctl);
    fs::remove_file(&roles)?;
    prepared?;
    let mut bidctl = Command::new(bins.join("bidctl"));
    let url = urls.database_of(Role::Migrator, passwords, database);
    run_quietly(bidctl.arg("migrate").env("DATABASE_URL", url)).map(drop)
}
