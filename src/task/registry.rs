//! The tasks of one program, checked once at start.
//!
//! **Invariant:** every task in a registry has a name of its own, and all the state that it asks
//! for is there.

use std::collections::HashMap;
use std::fmt;

use super::definition::Submitted;
use super::{StateMap, TaskDef, builtin};

/// All tasks that are linked in, by name.
#[derive(Debug)]
pub struct Registry {
    tasks: HashMap<&'static str, &'static TaskDef>,
}

impl Registry {
    /// Collects every `#[task]` of the program, and `explicit` ones on top.
    ///
    /// Fails with all problems at once: no tasks, names used twice, and state that is missing.
    pub fn new(
        explicit: impl IntoIterator<Item = &'static TaskDef>,
        states: &StateMap,
    ) -> Result<Self, RegistryError> {
        let submitted = inventory::iter::<Submitted>.into_iter().map(|submitted| submitted.0);
        Self::of(submitted.chain(explicit), states)
    }

    /// A registry of these tasks and no others.
    pub fn of(
        definitions: impl IntoIterator<Item = &'static TaskDef>,
        states: &StateMap,
    ) -> Result<Self, RegistryError> {
        // The linker orders what registers itself; people want an order of their own.
        let mut definitions: Vec<&'static TaskDef> = definitions.into_iter().collect();
        definitions.sort_by_key(|def| (def.name, def.file, def.line));
        definitions.dedup_by(|a, b| std::ptr::eq(*a, *b));

        let mut problems = Vec::new();
        if definitions.is_empty() {
            problems.push(Problem::NoTasks);
        }
        for pair in definitions.windows(2) {
            if let [first, second] = pair
                && first.name == second.name
            {
                problems.push(Problem::DuplicateName { first, second });
            }
        }
        for def in &definitions {
            for state in def.states {
                if !states.contains(state.id()) {
                    problems.push(Problem::MissingState { task: def, type_name: state.name() });
                }
            }
        }
        if problems.is_empty() {
            Ok(Self { tasks: definitions.into_iter().map(|def| (def.name, def)).collect() })
        } else {
            Err(RegistryError { problems })
        }
    }

    /// The task of this name; Celery's own (`celery.map` and so on) are always there.
    pub fn task(&self, name: &str) -> Option<&'static TaskDef> {
        self.tasks.get(name).copied().or_else(|| builtin::find(name))
    }

    /// The tasks that run in processes of their own.
    pub(crate) fn isolated(&self) -> impl Iterator<Item = &'static TaskDef> {
        self.tasks.values().copied().filter(|task| task.options.isolate.is_some())
    }

    /// All names, sorted; like Celery's, without those that begin with `celery.`.
    pub fn names(&self) -> Vec<&'static str> {
        let shown = |name: &&str| !builtin::is_hidden(name);
        let mut names: Vec<_> = self.tasks.keys().copied().filter(shown).collect();
        names.sort_unstable();
        names
    }

    /// All tasks of the program, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static TaskDef> {
        self.tasks.values().copied()
    }

    /// The number of tasks.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Never true: a registry without tasks cannot be made.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// Why a worker cannot start with these tasks; lists every problem.
#[derive(Clone, Debug)]
pub struct RegistryError {
    problems: Vec<Problem>,
}

/// One thing that is wrong with the tasks of a program.
#[derive(Clone, Debug)]
enum Problem {
    NoTasks,
    DuplicateName { first: &'static TaskDef, second: &'static TaskDef },
    MissingState { task: &'static TaskDef, type_name: &'static str },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTasks => f.write_str(
                "no tasks: mark functions with #[task], and name each crate of tasks once in the \
                 program (`use my_tasks as _;`)",
            ),
            Self::DuplicateName { first, second } => write!(
                f,
                "two tasks are named '{}': {}:{} and {}:{}",
                first.name, first.file, first.line, second.file, second.line,
            ),
            Self::MissingState { task, type_name } => write!(
                f,
                "task '{}' ({}:{}) needs State<{type_name}>, which the worker was not given",
                task.name, task.file, task.line,
            ),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for RegistryError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;
    use crate::task::{Run, StateType, TaskOptions};

    struct Pool;

    const fn task(name: &'static str, line: u32, states: &'static [StateType]) -> TaskDef {
        TaskDef {
            name,
            file: "src/tasks.rs",
            line,
            options: TaskOptions::DEFAULT,
            params: &[],
            bound: false,
            states,
            run: Run::Blocking(|_| Ok(Value::Null)),
        }
    }

    static ADD: TaskDef = task("shop.add", 3, &[]);
    static ADD_AGAIN: TaskDef = task("shop.add", 9, &[]);
    static CHARGE: TaskDef = task("shop.charge", 20, &[StateType::of::<Pool>()]);

    #[track_caller]
    fn check(definitions: &[&'static TaskDef], text: &str) {
        let error = Registry::of(definitions.iter().copied(), &StateMap::new()).unwrap_err();
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn tasks_are_found_by_name() {
        let mut states = StateMap::new();
        states.insert(Pool);
        let registry = Registry::of([&CHARGE, &ADD, &CHARGE], &states).unwrap();
        assert_eq!(registry.names(), ["shop.add", "shop.charge"]);
        assert_eq!(registry.task("shop.charge").unwrap().line, 20);
        assert!(registry.task("shop.refund").is_none());
        assert!(registry.task("celery.map").is_some(), "built in, and not listed");
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        check(
            &[],
            "no tasks: mark functions with #[task], and name each crate of tasks once in the \
             program (`use my_tasks as _;`)",
        );
        check(
            &[&ADD_AGAIN, &CHARGE, &ADD],
            "two tasks are named 'shop.add': src/tasks.rs:3 and src/tasks.rs:9; \
             task 'shop.charge' (src/tasks.rs:20) needs \
             State<celeriac::task::registry::tests::Pool>, which the worker was not given",
        );
    }
}
