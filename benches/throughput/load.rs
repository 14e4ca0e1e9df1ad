//! The broker of the run, a fresh virtual host for every case, and the processes of the cases.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xtask::vhost::TestVhost;

use crate::measure::Figures;

/// The broker that everything is measured on.
pub(crate) struct Broker {
    probe: TestVhost,
}

impl Broker {
    pub(crate) fn find() -> Result<Self> {
        let probe = TestVhost::create("bench")?;
        Ok(Self { probe })
    }

    pub(crate) fn url(&self) -> String {
        let url = self.probe.url();
        url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned()
    }

    pub(crate) fn product(&self) -> Result<String> {
        let overview = self.probe.management().get(&["overview"])?.unwrap_or_default();
        Ok(overview["product_version"].as_str().unwrap_or("unknown").to_owned())
    }

    /// A virtual host for one case.
    pub(crate) fn vhost(&self, case: &str) -> Result<TestVhost> {
        Ok(TestVhost::create(case)?)
    }

    /// Runs one case in a process of its own.
    pub(crate) fn measure(&self, who: &str, case: &str, count: usize) -> Result<Figures> {
        let vhost = self.vhost(case)?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--case", who, case, vhost.url(), &count.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("start {who} {case}"))?;
        ensure!(output.status.success(), "{who} {case} failed: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().last().unwrap_or_default();
        serde_json::from_str(figures).with_context(|| format!("figures of {who} {case}: {text}"))
    }
}
