//! A small client of RabbitMQ's management API.
//!
//! Paths are given as segments and encoded here, because virtual hosts and queues may hold `/`.
//! An answer that says the thing is not there is `None` or fine, other refusals are errors.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use crate::url::encode;
use crate::{Error, Result};

// As patient as the waits of the tests. It answers in milliseconds unless the node is starting or
// dying, but to get a message from a quorum queue it writes to the disk, for each one.
const TIMEOUT: Duration = Duration::from_secs(120);

// The tag of users who may do everything.
const ADMINISTRATOR: &str = "administrator";

/// The management API of one broker, as one user.
#[derive(Clone)]
pub struct Management {
    base: String,
    authorization: String,
    agent: Agent,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Management {
    /// The API at `base`, e.g. `http://127.0.0.1:15672`. Nothing is sent yet.
    pub fn new(base: &str, user: &str, password: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A node that was killed leaves dead connections; loopback ones are cheap to make.
            .max_idle_connections(0)
            .proxy(None)
            .build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            agent: config.into(),
        }
    }

    /// Where the API is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether the API answers this user.
    pub fn answers(&self) -> bool {
        self.get(&["whoami"]).is_ok_and(|answer| answer.is_some())
    }

    /// Whether the API answers this user, who may create virtual hosts.
    pub fn answers_administrator(&self) -> bool {
        let Ok(Some(whoami)) = self.get(&["whoami"]) else { return false };
        match &whoami["tags"] {
            // RabbitMQ before 3.9 wrote them with commas.
            Value::String(tags) => tags.split(',').any(|tag| tag.trim() == ADMINISTRATOR),
            Value::Array(tags) => tags.iter().any(|tag| tag == ADMINISTRATOR),
            _ => false,
        }
    }

    /// `GET /api/…`; `None` when it is not there.
    pub fn get(&self, path: &[&str]) -> Result<Option<Value>> {
        let url = self.address(path);
        let answer = self.agent.get(&url).header("authorization", &self.authorization).call();
        self.read("GET", &url, answer)
    }

    /// `PUT /api/…` with a JSON body: creates what is not there yet.
    pub fn put(&self, path: &[&str], body: &Value) -> Result<()> {
        let url = self.address(path);
        let request = self.agent.put(&url).header("authorization", &self.authorization);
        match self.read("PUT", &url, request.send_json(body))? {
            Some(_) => Ok(()),
            None => Err(Error::new(format!("PUT {url}: not found"))),
        }
    }

    /// `POST /api/…` with a JSON body.
    pub fn post(&self, path: &[&str], body: &Value) -> Result<Option<Value>> {
        let url = self.address(path);
        let request = self.agent.post(&url).header("authorization", &self.authorization);
        self.read("POST", &url, request.send_json(body))
    }

    /// `DELETE /api/…`; what is not there is fine.
    pub fn delete(&self, path: &[&str]) -> Result<()> {
        let url = self.address(path);
        let answer = self.agent.delete(&url).header("authorization", &self.authorization).call();
        self.read("DELETE", &url, answer).map(drop)
    }

    fn address(&self, path: &[&str]) -> String {
        path.iter()
            .fold(format!("{}/api", self.base), |url, part| format!("{url}/{}", encode(part)))
    }

    /// The JSON of an answer; JSON null when it has no body.
    fn read(
        &self,
        verb: &str,
        url: &str,
        answer: std::result::Result<Response<Body>, ureq::Error>,
    ) -> Result<Option<Value>> {
        let fail = |cause: &dyn fmt::Display| Error::while_doing(format!("{verb} {url}"), cause);
        let mut answer = answer.map_err(|error| fail(&error))?;
        let status = answer.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(256 << 20)
            .read_to_string()
            .map_err(|error| fail(&error))?;
        if !status.is_success() {
            return Err(fail(&format!("{status} {text}")));
        }
        if text.trim().is_empty() {
            return Ok(Some(Value::Null));
        }
        serde_json::from_str(&text).map(Some).map_err(|error| fail(&error))
    }
}
