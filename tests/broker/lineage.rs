//! Tasks that call tasks.

use celeriac::Value;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::tasks::{facts, parent, parent_of_workflow};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_made_by_a_task_names_its_parent_and_root_and_inherits_the_priority() {
    let bundle = Bundle::new("lineage").await;
    let worker = bundle.worker().await;
    let mut call = parent::s(None).priority(7);
    call = call.task_id("child-of-root");
    let mut options = call.options().clone();
    options.root_id = Some("root".to_owned());
    let result = bundle.client.send(call.with_options(options)).await.unwrap();
    let child = result.get(PATIENCE).await.unwrap();
    assert_eq!(child.get("parent_id"), Some(&Value::from("child-of-root")));
    assert_eq!(child.get("root_id"), Some(&Value::from("root")));
    assert_eq!(child.get("priority"), Some(&Value::Int(7)));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_of_its_own_wins_over_the_inherited_one() {
    let bundle = Bundle::new("own-priority").await;
    let worker = bundle.worker().await;
    let result = bundle.client.send(parent::s(Some(2)).priority(7)).await.unwrap();
    let child = result.get(PATIENCE).await.unwrap();
    assert_eq!(child.get("priority"), Some(&Value::Int(2)));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_sent_by_a_task_inherits_the_priority_unless_it_has_its_own() {
    let bundle = Bundle::new("workflow-priority").await;
    let worker = bundle.worker().await;
    for (own, expected) in [(None, 7), (Some(9), 9), (Some(2), 2)] {
        let call = parent_of_workflow::s(own).priority(7);
        let result = bundle.client.send(call).await.unwrap();
        let child = result.get(PATIENCE).await.unwrap();
        assert_eq!(child.get("priority"), Some(&Value::Int(expected)), "{own:?}");
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_outside_is_its_own_root() {
    let bundle = Bundle::new("root").await;
    let worker = bundle.worker().await;
    let result = facts::delay(&bundle.client).await.unwrap();
    let facts = result.get(PATIENCE).await.unwrap();
    assert_eq!(facts.get("root_id"), Some(&Value::from(result.id())));
    assert_eq!(facts.get("parent_id"), Some(&Value::Null));
    stop(worker).await;
}
