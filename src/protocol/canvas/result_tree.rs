//! The shape of a workflow's results: which ids its callers wait for.

use crate::protocol::Value;

/// The result of a task or of a group, with the one that it follows from.
///
/// A chain's is the one of its last step, a chord's the one of its body; their `parent`s lead back
/// through the earlier steps, as in Celery.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultTree {
    id: String,
    members: Option<Vec<ResultTree>>,
    parent: Option<Box<ResultTree>>,
    silent: bool,
}

/// Results before one another that a reference tells.
const PARENTS_MAX: usize = 32;

impl ResultTree {
    pub(super) fn task(id: String, parent: Option<Box<Self>>) -> Self {
        Self { id, members: None, parent, silent: false }
    }

    pub(super) fn group(id: String, members: Vec<Self>, parent: Option<Box<Self>>) -> Self {
        Self { id, members: Some(members), parent, silent: false }
    }

    pub(super) fn silence(mut self, silent: bool) -> Self {
        self.silent = silent;
        self
    }

    /// Id of the task or of the group.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The members of a group, in order; `None` for a task.
    pub fn members(&self) -> Option<&[Self]> {
        self.members.as_deref()
    }

    /// The result that this one follows from.
    pub fn parent(&self) -> Option<&Self> {
        self.parent.as_deref()
    }

    /// Whether no report is sent to the caller: the value of a chord's part travels to the chord
    /// only. A group is silent if its members are.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Takes the members of a group.
    pub fn take_members(&mut self) -> Option<Vec<Self>> {
        self.members.take()
    }

    /// Takes the result that this one follows from.
    pub fn take_parent(&mut self) -> Option<Self> {
        self.parent.take().map(|parent| *parent)
    }

    /// The reference in Celery's form, as `children` of results hold it: `[[id, parent], null]`
    /// for a task, `[[id, parent], [members]]` for a group.
    ///
    /// Of a very long chain the earliest parents are left out.
    pub fn to_reference(&self) -> Value {
        let mut line = vec![self];
        while let Some(parent) = line.last().and_then(|last| last.parent()) {
            if line.len() > PARENTS_MAX {
                break;
            }
            line.push(parent);
        }
        line.into_iter().rev().fold(Value::Null, |parent, result| {
            let members = result
                .members()
                .map(|members| members.iter().map(Self::to_reference).collect::<Vec<_>>());
            let id = Value::from(result.id());
            Value::Array(vec![Value::Array(vec![id, parent]), members.into()])
        })
    }
}

impl Drop for ResultTree {
    /// Step by step: the parents of a chain are as many as its steps, and dropping one inside the
    /// other would exhaust the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut parent) = next {
            next = parent.parent.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_celerys_form() {
        let first = ResultTree::task("a".to_owned(), None);
        let members = ["b", "c"].map(|id| ResultTree::task(id.to_owned(), None)).to_vec();
        let group = ResultTree::group("g".to_owned(), members, Some(Box::new(first)));
        let mut text = Vec::new();
        crate::protocol::json::encode(&group.to_reference(), &mut text).unwrap();
        let expected =
            r#"[["g", [["a", null], null]], [[["b", null], null], [["c", null], null]]]"#;
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_long_chain_is_dropped_and_referred_to_within_bounds() {
        let mut result = ResultTree::task("0".to_owned(), None);
        for step in 1..100_000 {
            result = ResultTree::task(step.to_string(), Some(Box::new(result)));
        }
        let mut depth = 0;
        let mut reference = &result.to_reference();
        while let Some([Value::Array(head), _]) = reference.as_array() {
            depth += 1;
            reference = &head[1];
        }
        assert_eq!(depth, PARENTS_MAX + 2 - 1);
        drop(result);
    }
}
