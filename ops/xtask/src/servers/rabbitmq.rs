//! A private RabbitMQ, with the management API (which makes vhosts) and an epmd of its own.
use super::{Child, layout::Layout, secrets::write_private};
use crate::progress::{run_quietly, wait_until};
use gavel_accounts::{Passwords, rabbitmq_definitions};
use std::{fs, path::Path, process::Command, time::Duration};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Four times what an event may have.
pub(super) const MAX_MESSAGE_BYTES: u32 = 1 << 20;

pub(crate) struct RabbitMq {
    pub(crate) child: Child,
    epmd_port: u16,
}

pub(crate) fn start(layout: &Layout, passwords: &Passwords) -> anyhow::Result<RabbitMq> {
    let home = layout.dir.join("rabbitmq");
    fs::create_dir_all(&home)?;
    let (config, plugins) = (home.join("rabbitmq.conf"), home.join("enabled_plugins"));
    let definitions_file = home.join("definitions.json");
    write_private(&definitions_file, &rabbitmq_definitions("gavel", "/", passwords).to_string())?;
    fs::write(&config, configuration(layout, &definitions_file))?;
    fs::write(&plugins, "[rabbitmq_management].\n")?;
    let mut command = Command::new(SERVER);
    command
        .current_dir(&home)
        .env("HOME", &home)
        .env("ERL_EPMD_PORT", layout.epmd_port().to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", node(layout))
        .env("RABBITMQ_DIST_PORT", layout.erlang_port().to_string())
        .env("RABBITMQ_CONFIG_FILE", &config)
        .env("RABBITMQ_CONF_ENV_FILE", home.join("no-such-file"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins)
        .env("RABBITMQ_MNESIA_BASE", home.join("data"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_PID_FILE", home.join("server.pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none");
    let mut child = Child::start(layout, "rabbitmq", "TERM", &mut command)?;
    let log = layout.log("rabbitmq");
    let ready = || fs::read_to_string(&log).is_ok_and(|log| log.contains("Server startup complete"));
    wait_until("RabbitMQ", Duration::from_mins(2), || child.check(), ready)?;
    Ok(RabbitMq { child, epmd_port: layout.epmd_port() })
}

/// The words of its command line, without what it is to do.
pub(super) fn ctl(layout: &Layout) -> Vec<String> {
    let home = layout.dir.join("rabbitmq").display().to_string();
    let [home, none] = [format!("HOME={home}"), format!("RABBITMQ_CONF_ENV_FILE={home}/no-such-file")];
    let epmd = format!("ERL_EPMD_PORT={}", layout.epmd_port());
    ["env", &home, &none, &epmd, CTL, "--node", &node(layout)].map(str::to_owned).into()
}

fn node(layout: &Layout) -> String {
    format!("gavel-{}@localhost", layout.id)
}

fn configuration(layout: &Layout, definitions: &Path) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {}\n\
         load_definitions = {}\n\
         log.console = true\n\
         log.console.level = info\n\
         log.file = false\n\
         max_message_size = {MAX_MESSAGE_BYTES}\n\
         disk_free_limit.absolute = 50MB\n",
        layout.amqp_port(),
        layout.rabbitmq_api_port(),
        definitions.display(),
    )
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.child.stop();
        // epmd puts itself in the background and outlives its node; this one is ours alone.
        let port = self.epmd_port.to_string();
        let _ = run_quietly(Command::new("epmd").args(["-port", &port, "-kill"]));
    }
}
