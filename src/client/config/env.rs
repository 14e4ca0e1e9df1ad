//! Settings from the environment: `CELERIAC_<SETTING IN CAPITALS>`.

use std::ffi::OsString;

use super::error::{ConfigError, Origin, nearest};
use super::raw::{Kind, Raw};
use super::{Config, file, keys};

/// The variable that names the settings file.
pub(super) const FILE: &str = "CELERIAC_CONFIG";

const PREFIX: &str = "CELERIAC_";

/// Settings that are tables: their text is an inline table of TOML.
const TABLES: &[&str] = &["task_routes", "task_queues", "broker_use_ssl"];

/// Sets what `variables` say. Empty variables count as absent, as compose files produce them.
pub(super) fn apply(
    config: &mut Config,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let mut settings: Vec<(String, OsString)> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .filter(|(name, _)| !is_reserved(name))
        .collect();
    // The order of the environment is arbitrary; the first complaint should not be.
    settings.sort();
    for (variable, value) in settings {
        let key = variable.trim_start_matches(PREFIX).to_ascii_lowercase();
        let origin = Origin::Environment { variable: variable.clone() };
        let Some(text) = value.to_str() else {
            return Err(ConfigError::Syntax { origin, message: "is not UTF-8".to_owned() });
        };
        if variable[PREFIX.len()..].chars().any(char::is_lowercase) {
            return Err(unknown_variable(&variable, &key));
        }
        if !keys::KEYS.iter().any(|known| known.name == key) {
            return Err(unknown_variable(&variable, &key));
        }
        keys::set(config, &key, &raw(&key, text, &origin)?, origin)?;
    }
    Ok(())
}

/// The value that `text` stands for.
pub(super) fn raw(key: &str, text: &str, origin: &Origin) -> Result<Raw, ConfigError> {
    let is_inline = text.trim_start().starts_with(['{', '[']);
    if TABLES.contains(&key) && is_inline {
        let mut raw = file::parse_value(text)
            .map_err(|message| ConfigError::Syntax { origin: origin.clone(), message })?;
        raw.line = None;
        return Ok(raw);
    }
    Ok(Raw { kind: Kind::Text(text.trim().to_owned()), line: None })
}

/// Variables with the prefix that are no settings: the settings file, the log filter, what tests
/// and tools of the project use, and the mark of child processes.
fn is_reserved(variable: &str) -> bool {
    // The last two are a parent's word to its child processes.
    matches!(variable, FILE | "CELERIAC_LOG" | "CELERIAC_MANAGEMENT_URL")
        || matches!(variable, "CELERIAC_CHILD" | "CELERIAC_ISOLATE")
        || variable.starts_with("CELERIAC_TEST_")
}

fn unknown_variable(variable: &str, key: &str) -> ConfigError {
    let origin = Origin::Environment { variable: variable.to_owned() };
    match keys::unknown(key, origin) {
        ConfigError::Unknown { origin, key, .. } => {
            let suggestion = nearest(&key, keys::KEYS.iter().map(|known| known.name))
                .map(|name| format!("{PREFIX}{}", name.to_ascii_uppercase()));
            ConfigError::Unknown { origin, key, suggestion }
        }
        other => other,
    }
}
