//! Names of worker nodes: `name@host`.

/// The name before the `@` where none is given.
const DEFAULT_NAME: &str = "celeriac";

/// Expands what `-n` says: `%h` is this machine's host name with its domain, `%n` without, `%d`
/// the domain, `%%` a percent sign. Without an `@` the text is the host, as in Celery.
pub(super) fn node_name(text: Option<&str>) -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    expand(text.unwrap_or("%h"), &host)
}

fn expand(text: &str, host: &str) -> String {
    let (first, domain) = host.split_once('.').unwrap_or((host, ""));
    let mut expanded = String::with_capacity(text.len() + host.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            expanded.push(character);
            continue;
        }
        match rest.next() {
            Some('h') => expanded.push_str(host),
            Some('n') => expanded.push_str(first),
            Some('d') => expanded.push_str(domain),
            Some('%') => expanded.push('%'),
            Some(other) => expanded.extend(['%', other]),
            None => expanded.push('%'),
        }
    }
    match expanded.split_once('@') {
        None => format!("{DEFAULT_NAME}@{expanded}"),
        Some(("", host)) => format!("{DEFAULT_NAME}@{host}"),
        Some((name, "")) => format!("{name}@{host}"),
        Some(_) => expanded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_as_celery_does() {
        for (text, expected) in [
            ("%h", "celeriac@box.example.org"),
            ("one@%h", "one@box.example.org"),
            ("one@%n", "one@box"),
            ("one@%d", "one@example.org"),
            ("one@", "one@box.example.org"),
            ("@there", "celeriac@there"),
            ("there", "celeriac@there"),
            ("100%%@%x%", "100%@%x%"),
        ] {
            assert_eq!(expand(text, "box.example.org"), expected, "{text}");
        }
        assert_eq!(expand("one@%n%d", "box"), "one@box");
    }
}
