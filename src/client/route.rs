//! Routing: which queue a task goes to when the call does not say.
//!
//! Pure look-up; it does not know which queues exist. **Invariant:** what a call says always wins
//! over a route.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::protocol::{Map, Value};

/// Where tasks are sent, part by part; what is `None` is left to the defaults.
///
/// ```
/// use celeriac::client::Route;
///
/// let route = Route::queue("images").with_priority(3);
/// assert_eq!(route.queue.as_deref(), Some("images"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The queue's name.
    pub queue: Option<String>,
    /// The exchange to publish to, instead of straight to a queue.
    pub exchange: Option<String>,
    /// The routing key at that exchange.
    pub routing_key: Option<String>,
    /// The priority, 0 to 255; the queue must know priorities.
    pub priority: Option<u8>,
}

impl Route {
    /// A route to a queue.
    pub fn queue(name: impl Into<String>) -> Self {
        Self { queue: Some(name.into()), ..Self::default() }
    }

    /// A route to an exchange with a routing key.
    pub fn exchange(exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self {
            exchange: Some(exchange.into()),
            routing_key: Some(routing_key.into()),
            ..Self::default()
        }
    }

    /// The same route with a priority.
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }
}

/// What a routing function sees of a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RouteRequest<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The positional arguments.
    pub args: &'a [Value],
    /// The keyword arguments.
    pub kwargs: &'a Map,
}

impl<'a> RouteRequest<'a> {
    /// A call of `task` with these arguments.
    pub fn new(task: &'a str, args: &'a [Value], kwargs: &'a Map) -> Self {
        Self { task, args, kwargs }
    }
}

type RouteFn = dyn Fn(&RouteRequest<'_>) -> Option<Route> + Send + Sync;

/// The routes of a program.
///
/// A route for exactly the task's name is taken first, as in Celery; then patterns and functions
/// in the order in which they were given, and the first that answers is taken. Patterns are those
/// of a shell: `*` any text (dots included), `?` one character, `[abc]` one of these.
///
/// ```
/// use celeriac::client::{Route, RouteRequest, Routes};
/// use celeriac::protocol::Map;
///
/// let routes = Routes::new()
///     .route("images.*", Route::queue("images"))?
///     .route("images.logo", Route::queue("fast"))?
///     .function(|call| call.kwargs.contains_key("tenant").then(|| Route::queue("tenants")));
///
/// let queue_of = |task| {
///     let kwargs = Map::new();
///     routes.find(&RouteRequest::new(task, &[], &kwargs)).and_then(|route| route.queue)
/// };
/// assert_eq!(queue_of("images.resize").as_deref(), Some("images"));
/// assert_eq!(queue_of("images.logo").as_deref(), Some("fast"));
/// assert_eq!(queue_of("mail.send"), None);
/// # Ok::<(), celeriac::client::InvalidPattern>(())
/// ```
#[derive(Clone, Default)]
pub struct Routes {
    exact: HashMap<String, Route>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
enum Rule {
    Pattern(glob::Pattern, Route),
    Function(Arc<RouteFn>),
}

/// A pattern of a route that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the pattern '{pattern}' is malformed at character {}: {text}", at + 1)]
pub struct InvalidPattern {
    pattern: String,
    at: usize,
    text: &'static str,
}

impl Routes {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route for the task of this name, or for all tasks whose names match this pattern.
    ///
    /// # Errors
    /// If the pattern is malformed, such as `[` without its end.
    pub fn route(mut self, pattern: &str, route: Route) -> Result<Self, InvalidPattern> {
        if pattern.contains(['*', '?', '[']) {
            let pattern = glob::Pattern::new(pattern).map_err(|error| InvalidPattern {
                pattern: pattern.to_owned(),
                at: error.pos,
                text: error.msg,
            })?;
            self.rules.push(Rule::Pattern(pattern, route));
        } else {
            self.exact.insert(pattern.to_owned(), route);
        }
        Ok(self)
    }

    /// Adds a function that may choose a route for a call.
    #[must_use]
    pub fn function(
        mut self,
        choose: impl Fn(&RouteRequest<'_>) -> Option<Route> + Send + Sync + 'static,
    ) -> Self {
        self.rules.push(Rule::Function(Arc::new(choose)));
        self
    }

    /// The route for a call, if there is one.
    pub fn find(&self, call: &RouteRequest<'_>) -> Option<Route> {
        if let Some(route) = self.exact.get(call.task) {
            return Some(route.clone());
        }
        self.rules.iter().find_map(|rule| match rule {
            Rule::Pattern(pattern, route) => pattern.matches(call.task).then(|| route.clone()),
            Rule::Function(choose) => choose(call),
        })
    }

    /// The queues that names and patterns lead to; what functions choose is not known before.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().filter_map(|rule| match rule {
            Rule::Pattern(_, route) => Some(route),
            Rule::Function(_) => None,
        });
        self.exact.values().chain(rules).filter_map(|route| route.queue.as_deref())
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.rules.is_empty()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort_by_key(|(name, _)| *name);
        let rules = self.rules.iter().map(|rule| match rule {
            Rule::Pattern(pattern, route) => (pattern.as_str(), Some(route)),
            Rule::Function(_) => ("<function>", None),
        });
        f.debug_map()
            .entries(exact.into_iter().map(|(name, route)| (&**name, Some(route))).chain(rules))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(routes: &Routes, task: &str) -> Option<String> {
        routes.find(&RouteRequest::new(task, &[], &Map::new())).and_then(|route| route.queue)
    }

    #[test]
    fn an_exact_name_wins_over_an_earlier_pattern() {
        let routes = Routes::new().route("*", Route::queue("rest")).unwrap();
        let routes = routes.route("mail.send", Route::queue("mail")).unwrap();
        assert_eq!(queue_of(&routes, "mail.send").as_deref(), Some("mail"));
        assert_eq!(queue_of(&routes, "mail.sendall").as_deref(), Some("rest"));
    }

    #[test]
    fn the_first_pattern_or_function_that_answers_is_taken() {
        let routes = Routes::new()
            .function(|call| (call.task == "a.b").then(|| Route::queue("function")))
            .route("a.*", Route::queue("first"))
            .and_then(|routes| routes.route("a.?", Route::queue("second")))
            .unwrap();
        assert_eq!(queue_of(&routes, "a.b").as_deref(), Some("function"));
        assert_eq!(queue_of(&routes, "a.c").as_deref(), Some("first"));
        assert_eq!(queue_of(&routes, "b.c"), None);
    }

    #[test]
    fn a_star_matches_dots_and_slashes_as_in_python() {
        let routes = Routes::new().route("a.*.z", Route::queue("q")).unwrap();
        assert!(queue_of(&routes, "a.b.c/d.z").is_some());
        assert!(queue_of(&routes, "a.z").is_none());
    }

    #[test]
    fn a_malformed_pattern_says_where() {
        let error = Routes::new().route("a.[b", Route::queue("q")).unwrap_err();
        assert!(error.to_string().contains("'a.[b' is malformed at character 3"), "{error}");
    }
}
