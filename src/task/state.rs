//! Shared application state: one value of each type, given to the worker at start.
//!
//! That every type a task asks for is there is checked by [`Registry`](super::Registry) at start,
//! so a missing one is never found by a running task.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Shared state as a parameter of a task, for example a database pool. It is not on the wire.
///
/// ```
/// use celeriac::{State, task};
///
/// struct Prices { pen: i64 }
///
/// #[task]
/// async fn total(prices: State<Prices>, pens: i64) -> i64 {
///     prices.pen * pens
/// }
/// # let _ = total::NAME;
/// ```
pub struct State<T: ?Sized>(Arc<T>);

impl<T: ?Sized> State<T> {
    /// Makes a state to call a task's function with, as in a test.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(value.into())
    }

    /// The shared pointer behind it.
    pub fn into_arc(self) -> Arc<T> {
        self.0
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&&*self.0).finish()
    }
}

/// At most one value of each type.
#[derive(Default)]
pub struct StateMap(HashMap<TypeId, Entry>);

struct Entry {
    /// An `Arc<T>`, so that `T` need not be sized.
    shared: Box<dyn Any + Send + Sync>,
    type_name: &'static str,
}

impl StateMap {
    /// No state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, replacing an earlier one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.insert_arc(Arc::new(value));
    }

    /// Adds a value that is shared already; `T` may be a trait object.
    pub fn insert_arc<T: ?Sized + Send + Sync + 'static>(&mut self, value: Arc<T>) {
        let entry = Entry { shared: Box::new(value), type_name: type_name::<T>() };
        self.0.insert(TypeId::of::<T>(), entry);
    }

    /// The value of type `T`.
    pub fn state<T: ?Sized + Send + Sync + 'static>(&self) -> Option<State<T>> {
        let shared = self.0.get(&TypeId::of::<T>())?.shared.downcast_ref::<Arc<T>>()?;
        Some(State(Arc::clone(shared)))
    }

    /// Whether there is a value of this type.
    pub fn contains(&self, id: TypeId) -> bool {
        self.0.contains_key(&id)
    }
}

impl fmt::Debug for StateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values().map(|entry| entry.type_name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_found_by_its_type() {
        let mut states = StateMap::new();
        states.insert(5_u32);
        states.insert("text");
        states.insert_arc::<dyn fmt::Debug + Send + Sync>(Arc::new('x'));
        assert_eq!(*states.state::<u32>().unwrap(), 5);
        let object = states.state::<dyn fmt::Debug + Send + Sync>().unwrap();
        assert_eq!(format!("{object:?}"), "State('x')");
        assert!(states.state::<i64>().is_none());
        assert!(states.contains(TypeId::of::<&str>()));
    }

    #[test]
    fn a_later_value_of_a_type_replaces_the_earlier_one() {
        let mut states = StateMap::new();
        states.insert(1_u32);
        states.insert(2_u32);
        assert_eq!(*states.state::<u32>().unwrap(), 2);
    }
}
