//! The directory of one RabbitMQ node: its settings, ports, cookie, data and keeper.
//!
//! Nothing of the machine's own RabbitMQ is read or written: node name, Erlang cookie, home
//! directory and port mapper (epmd) are this node's alone, and everything listens on loopback.
//! Who uses the node, and for how long, is the business of `node` and `shared`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::install::Installation;
use crate::node::NodeOptions;
use crate::process::{is_alive, signal};
use crate::url::AmqpUrl;
use crate::{Error, Management, Result, broker, paths, slim_home, wait_until};

const KEEPER: &str = include_str!("keeper.sh");
// Six seconds on an idle machine; a busy one with two cores was seen to need twenty.
const START_WITHIN: Duration = Duration::from_secs(120);

/// The four ports of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) management: u16,
    pub(crate) epmd: u16,
    pub(crate) distribution: u16,
    /// Listened on only when the node has TLS files.
    pub(crate) tls: u16,
}

/// What to do with the directory when the last user vanished without stopping the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    Keep,
    Remove,
}

/// One node's directory, written and ready to be launched.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    pub(crate) directory: PathBuf,
    pub(crate) ports: Ports,
    name: String,
    installation: Installation,
    environment: Vec<(String, String)>,
}

impl NodeFiles {
    /// Writes the settings of a fresh node into `directory`; data of an earlier node is removed.
    pub(crate) fn create(
        installation: Installation,
        directory: PathBuf,
        preferred_port: u64,
        options: &NodeOptions,
    ) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(|error| {
            Error::while_doing(format!("creating {}", directory.display()), error)
        })?;
        for old in ["data", "log", "gen", "pid", "console.log"] {
            let path = directory.join(old);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let ports = match *paths::free_ports(5, preferred_port)? {
            [amqp, management, epmd, distribution, tls] => {
                Ports { amqp, management, epmd, distribution, tls }
            }
            _ => return Err(Error::new("five ports were asked for, another number came")),
        };
        let name =
            format!("celeriac{:x}@localhost", paths::checkout_hash() ^ u64::from(ports.amqp));
        let mut environment = options.environment.clone();
        if let Some(scripts) = slim_home::build(&installation.server, &directory.join("home")) {
            let scripts = scripts.to_string_lossy().into_owned();
            environment.push(("RABBITMQ_SCRIPTS_DIR".to_owned(), scripts));
        }
        let files = Self { directory, ports, name, installation, environment };
        files.write(options)?;
        Ok(files)
    }

    fn write(&self, options: &NodeOptions) -> Result<()> {
        let Ports { amqp, management, tls, .. } = self.ports;
        let mut config = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             collect_statistics_interval = 500\n\
             log.console = false\n\
             log.file.level = warning\n"
        );
        if let Some(files) = &options.tls {
            config.push_str(&format!(
                "listeners.ssl.1 = 127.0.0.1:{tls}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.verify = {}\n\
                 ssl_options.fail_if_no_peer_cert = {}\n",
                files.ca.display(),
                files.certificate.display(),
                files.key.display(),
                if files.client_certificate_required { "verify_peer" } else { "verify_none" },
                files.client_certificate_required,
            ));
        }
        for line in &options.config {
            config.push_str(line);
            config.push('\n');
        }
        let cookie = self.directory.join(".erlang.cookie");
        let _ = fs::remove_file(&cookie);
        fs::write(&cookie, format!("{:X}{:X}", paths::random(), paths::random()))?;
        // Erlang refuses a cookie that others may read.
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        fs::write(self.directory.join("rabbitmq.conf"), config)?;
        // When a node that starts tries again to dead-letter, if it could not; 3 min usually.
        let advanced = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n";
        fs::write(self.directory.join("advanced.config"), advanced)?;
        fs::write(self.directory.join("plugins"), "[rabbitmq_management].\n")?;
        fs::write(self.directory.join("env.conf"), "")?;
        fs::write(self.directory.join("lease"), "")?;
        Ok(())
    }

    /// Starts the node under its keeper. The caller holds a shared lock on [`Self::lease`].
    pub(crate) fn launch(&self, grace_s: u32, leftovers: Leftovers) -> Result<Child> {
        let mut command = self.command("sh");
        command
            .arg("-c")
            .arg(KEEPER)
            .arg("keeper")
            .arg(&self.directory)
            .arg(grace_s.to_string())
            .arg(if leftovers == Leftovers::Remove { "remove" } else { "keep" })
            .arg(&self.installation.server)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the terminal is for the tests; the node follows when they are gone.
            .process_group(0);
        let _ = fs::remove_file(self.directory.join("pid"));
        command.spawn().map_err(|error| Error::while_doing("failed to run sh", error))
    }

    /// Waits until the node answers AMQP and the management API.
    pub(crate) fn wait_ready(&self, keeper: &mut Child) -> Result<()> {
        let management = self.management();
        let mut dead = false;
        let ready = wait_until("the RabbitMQ node answers", START_WITHIN, || {
            if !matches!(keeper.try_wait(), Ok(None)) {
                dead = true;
                return Some(());
            }
            (self.answers() && management.answers()).then_some(())
        });
        match ready {
            Ok(()) if !dead => Ok(()),
            Ok(()) => Err(Error::new(format!("the RabbitMQ node ended at once: {}", self.log()))),
            Err(error) => Err(Error::while_doing(error, self.log())),
        }
    }

    /// Whether the AMQP port answers as RabbitMQ.
    pub(crate) fn answers(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp));
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok_and(broker::speaks_amqp)
    }

    /// The API of this node as its user guest.
    pub(crate) fn management(&self) -> Management {
        let base = format!("http://127.0.0.1:{}", self.ports.management);
        Management::new(&base, "guest", "guest")
    }

    /// The node's AMQP URL, with its default virtual host.
    pub(crate) fn url(&self) -> Result<AmqpUrl> {
        AmqpUrl::parse(&format!("amqp://guest:guest@127.0.0.1:{}/", self.ports.amqp))
    }

    /// The file whose shared lock keeps the node alive.
    pub(crate) fn lease(&self) -> PathBuf {
        self.directory.join("lease")
    }

    /// The process of the node itself, when it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        running_pid(&self.directory)
    }

    /// A command for this node's `rabbitmqctl`.
    pub(crate) fn ctl(&self) -> Command {
        let mut command = self.command(&self.installation.ctl);
        command.args(["-n", &self.name]);
        command
    }

    /// A command in this node's environment and in no other.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let at = |name: &str| self.directory.join(name);
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("LANG", "C.UTF-8")
            // Erlang reads its cookie here.
            .env("HOME", &self.directory)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", at("env.conf"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", at("gen"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_MNESIA_DIR", at("data/node"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            // The script then becomes the node instead of waiting for it, so one pid is enough.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +A 16 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            )
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory);
        command
    }

    /// The last words of the node, for error messages.
    fn log(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let log = self.directory.join("log").join(format!("{}.log", self.name));
        let text = read(&self.directory.join("console.log")) + &read(&log);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}

/// The process of the node in `directory`, when it runs.
pub(crate) fn running_pid(directory: &Path) -> Option<u32> {
    let pid = fs::read_to_string(directory.join("pid")).ok()?.trim().parse().ok()?;
    // A pid is reused sooner or later: only a process that names this directory is the node.
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let directory = directory.as_os_str().as_encoded_bytes();
    let ours = command_line.windows(directory.len()).any(|window| window == directory);
    (ours && is_alive(pid)).then_some(pid)
}

/// Kills the node in `directory` with -9, if it runs, and waits until it is gone.
pub(crate) fn kill_node(directory: &Path) -> Result<()> {
    let Some(pid) = running_pid(directory) else { return Ok(()) };
    signal(pid, "KILL")?;
    wait_until("the killed node is gone", Duration::from_secs(120), || {
        (!is_alive(pid)).then_some(())
    })
}
