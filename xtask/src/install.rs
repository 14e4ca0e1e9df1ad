//! Where the programs of an installed RabbitMQ are, and how the package gets there.
//!
//! Debian's `/usr/sbin/rabbitmq-server` insists on a system user, so the scripts behind it are
//! used: they run as anybody.

use std::path::{Path, PathBuf};

use crate::{Error, Result, apt};

const ADVICE: &str = "no RabbitMQ was found: set CELERIAC_BROKER_URL, start one on localhost:5672 \
    with its management plugin, start Docker, or run `sudo apt-get install rabbitmq-server`";

const DIRECTORIES: [&str; 3] =
    ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/lib/rabbitmq/sbin"];

/// The programs of one installed RabbitMQ.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// Starts a node in the foreground.
    pub(crate) server: PathBuf,
    /// Talks to a node.
    pub(crate) ctl: PathBuf,
}

impl Installation {
    /// What is installed, if anything is.
    pub(crate) fn find() -> Option<Self> {
        DIRECTORIES.iter().map(Path::new).find(|path| path.join("rabbitmq-server").exists()).map(
            |path| Self { server: path.join("rabbitmq-server"), ctl: path.join("rabbitmqctl") },
        )
    }

    /// What is installed, or else the distribution's package, where the user may install it.
    pub(crate) fn find_or_install() -> Result<Self> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        if !apt::may_install() {
            return Err(Error::new(ADVICE));
        }
        // The package also starts a node of the system, and calls it a failure when that does
        // not work, as in a container. Only the files matter here.
        let outcome = apt::install(&["rabbitmq-server"]);
        match Self::find() {
            Some(found) => Ok(found),
            None => Err(Error::while_doing(
                ADVICE,
                outcome.err().unwrap_or_else(|| {
                    Error::new("the package brought no scripts to /usr/lib/rabbitmq/bin")
                }),
            )),
        }
    }
}
