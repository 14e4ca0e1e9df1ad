//! The result of any workflow: of a task, or of a group of them.

use std::sync::Arc;
use std::time::Duration;

use super::{AsyncResult, GroupResult, Inbox, ResultError};
use crate::protocol::Value;
use crate::protocol::canvas::ResultTree;

/// A result whose shape is known only at run time.
#[derive(Clone, Debug)]
pub enum AnyResult {
    /// Of one task.
    Task(AsyncResult),
    /// Of a group.
    Group(GroupResult),
}

impl AnyResult {
    /// Handles for everything in `tree` that reports to `inbox`.
    pub(crate) fn register(mut tree: ResultTree, inbox: Option<&Inbox>) -> Self {
        // From the earliest on, since a chain may have more steps than the stack has room for.
        let mut later = Vec::new();
        while let Some(parent) = tree.take_parent() {
            later.push(std::mem::replace(&mut tree, parent));
        }
        let mut result = Self::one(tree, inbox, None);
        while let Some(step) = later.pop() {
            result = Self::one(step, inbox, Some(Arc::new(result)));
        }
        result
    }

    fn one(mut tree: ResultTree, inbox: Option<&Inbox>, parent: Option<Arc<Self>>) -> Self {
        let id: Arc<str> = tree.id().into();
        match tree.take_members() {
            None => {
                let inbox = inbox.filter(|_| !tree.is_silent());
                let registration = inbox.map(|inbox| inbox.register(&id));
                Self::Task(AsyncResult::new(id, registration).after(parent))
            }
            Some(members) => {
                let members = members.into_iter().map(|member| Self::register(member, inbox));
                Self::Group(GroupResult::new(id, members.collect(), parent))
            }
        }
    }

    /// Id of the task or the group.
    pub fn id(&self) -> &str {
        match self {
            Self::Task(task) => task.id(),
            Self::Group(group) => group.id(),
        }
    }

    /// The result that this one follows from.
    pub fn parent(&self) -> Option<&Self> {
        match self {
            Self::Task(task) => task.parent(),
            Self::Group(group) => group.parent(),
        }
    }

    /// Whether everything in it has ended.
    pub fn ready(&self) -> bool {
        match self {
            Self::Task(task) => task.ready(),
            Self::Group(group) => group.ready(),
        }
    }

    /// Waits for the value, for at most `timeout`: of a group a list.
    ///
    /// # Errors
    /// As [`AsyncResult::get`], for the first task that gives no value.
    pub async fn get(&self, timeout: Duration) -> Result<Value, ResultError> {
        match self {
            Self::Task(task) => task.get(timeout).await,
            Self::Group(group) => group.typed::<Value>().get(timeout).await,
        }
    }

    /// The result of a task; of a group, one with its id to which nothing is ever reported.
    pub(crate) fn into_task(self) -> AsyncResult {
        match self {
            Self::Task(task) => task,
            Self::Group(group) => AsyncResult::new(group.shared_id(), None),
        }
    }

    /// The result of a group; of a task, one that has it as its only member.
    pub(crate) fn into_group(self) -> GroupResult {
        match self {
            Self::Group(group) => group,
            task @ Self::Task(_) => GroupResult::new(task.id().into(), vec![task], None),
        }
    }

    /// Drops a line of parents one after the other instead of each within the other.
    pub(super) fn drop_line(mut next: Option<Arc<Self>>) {
        while let Some(parent) = next.and_then(Arc::into_inner) {
            next = match parent {
                Self::Task(mut task) => task.take_parent(),
                Self::Group(mut group) => group.take_parent(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Signature;
    use crate::protocol::canvas::{Canvas, Ids, JoinDefaults};

    #[test]
    fn the_results_of_a_very_long_chain_are_held_and_dropped_within_the_stack() {
        let step = Canvas::Task(Signature::new("t"));
        let mut chain = Canvas::chain(vec![step; 100_000]).unwrap();
        let tree = chain.freeze(&mut Ids::Random, &JoinDefaults::default()).unwrap();
        let result = AnyResult::register(tree, None);
        let clone = result.clone();
        let mut length = 1;
        let mut next = result.parent();
        while let Some(parent) = next {
            length += 1;
            next = parent.parent();
        }
        assert_eq!(length, 100_000);
        drop(result);
        assert!(clone.parent().is_some());
    }
}
