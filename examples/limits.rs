//! Limits of the whole fleet: start as many of these workers as you like, none of the limits is
//! passed, whoever is killed.
//!
//! ```sh
//! cargo run --example limits --features cli
//! nc -lk 127.0.0.1 7000    # what is scarce: each line that is typed lets a call end
//! celeriac call limits.account --args '["7", "127.0.0.1:7000"]'
//! ```

use std::process::ExitCode;

use celeriac::{App, Config, TaskResult, task};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// At most two of these run at once in all workers together.
#[task(name = "limits.scarce", global_concurrency = 2)]
async fn scarce(label: String, address: String) -> TaskResult<String> {
    use_up(&label, &address).await?;
    Ok(label)
}

/// One at a time for each account.
#[task(name = "limits.account", global_concurrency = 1, concurrency_key = "account {account}")]
async fn account(account: String, address: String) -> TaskResult<String> {
    use_up(&account, &address).await?;
    Ok(account)
}

/// Two start within a second.
#[task(name = "limits.paced", global_rate_limit = "2/s")]
async fn paced(label: String, address: String) -> TaskResult<String> {
    use_up(&label, &address).await?;
    Ok(label)
}

/// Holds a connection to what is scarce until an answer comes.
async fn use_up(label: &str, address: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(format!("{} {label}\n", std::process::id()).as_bytes()).await?;
    stream.read_line(&mut String::new()).await?;
    Ok(())
}

fn main() -> ExitCode {
    celeriac::cli::main(App::new(Config::default()))
}
