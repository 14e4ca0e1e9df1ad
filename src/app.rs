//! The one object that a program builds: its settings, its tasks and its shared state.
//!
//! Does no IO itself; [`App::connect`] makes a [`Client`], and `Worker::new(app)` a worker.

use crate::client::{Client, Config, ConnectError};
use crate::task::{Registry, RegistryError, StateMap, TaskDef};

/// Settings, tasks and state of one program.
///
/// Tasks marked with [`#[task]`](macro@crate::task) are found by themselves wherever they are
/// linked in.
///
/// ```
/// use celeriac::{App, Config};
///
/// struct Greeting(&'static str);
///
/// let app = App::builder()
///     .config(Config::default())
///     .state(Greeting("hello"))
///     .build();
/// assert_eq!(app.config().task_default_queue, "celeriac");
/// ```
#[derive(Debug)]
pub struct App {
    config: Config,
    states: StateMap,
    registered: Vec<&'static TaskDef>,
}

impl App {
    /// An app with these settings, the linked tasks, and no state.
    pub fn new(config: Config) -> Self {
        Self::builder().config(config).build()
    }

    /// Starts building an app.
    pub fn builder() -> AppBuilder {
        AppBuilder::default()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings, to change them before anything is started.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// All tasks: the linked ones and those registered by hand.
    ///
    /// # Errors
    /// Lists every problem with file and line: no tasks at all, two tasks of one name, a task
    /// whose [`State`](crate::State) was not given to the app.
    pub fn registry(&self) -> Result<Registry, RegistryError> {
        Registry::new(self.registered.iter().copied(), &self.states)
    }

    /// Connects a client with these settings.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        Client::connect(self.config.clone()).await
    }

    /// Hands the shared state to a worker.
    pub(crate) fn into_states(self) -> StateMap {
        self.states
    }
}

/// Builds an [`App`].
#[derive(Debug, Default)]
pub struct AppBuilder {
    config: Config,
    states: StateMap,
    registered: Vec<&'static TaskDef>,
}

impl AppBuilder {
    /// The settings; the default is [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// State that tasks take as a [`State<T>`](crate::State) parameter, for example a database
    /// pool. One value of each type; a second one replaces the first.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// Registers a task by hand, `add::def()`, for where linking cannot find it.
    #[must_use]
    pub fn register(mut self, task: &'static TaskDef) -> Self {
        self.registered.push(task);
        self
    }

    /// The app.
    pub fn build(self) -> App {
        let Self { config, states, registered } = self;
        App { config, states, registered }
    }
}
