//! What befalls a fleet, and how it is done.

use std::time::Duration;

use celeriac::Client;
use celeriac::amqp::ConnectionState;
use tokio::task::block_in_place;
use xtask::PrivateNode;

use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::{PATIENCE, setting};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A worker is killed with -9, and another one started.
    WorkerKilled,
    /// A child of a worker of several processes is killed with -9; its parent starts another one.
    ChildKilled,
    /// Every worker in turn gets a SIGTERM, and another one is started.
    RollingRestart,
    /// The connections of all workers are cut.
    ConnectionsCut,
    /// Nothing passes through the connections of all workers any more, and nobody closes them.
    ConnectionsSilent,
    /// The broker has no memory left for what producers and workers publish.
    MemoryAlarm,
    /// Somebody deletes the queue from which the workers consume.
    QueueDeleted,
    /// The broker is stopped and started again.
    BrokerRestarted,
    /// The broker is killed with -9 and started again.
    BrokerKilled,
    /// The broker is stopped, and started again after an outage.
    BrokerStopped,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::WorkerKilled,
        Self::ChildKilled,
        Self::RollingRestart,
        Self::ConnectionsCut,
        Self::ConnectionsSilent,
        Self::MemoryAlarm,
        Self::QueueDeleted,
        Self::BrokerRestarted,
        Self::BrokerKilled,
        Self::BrokerStopped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker-killed",
            Self::ChildKilled => "child-killed",
            Self::RollingRestart => "rolling-restart",
            Self::ConnectionsCut => "connections-cut",
            Self::ConnectionsSilent => "connections-silent",
            Self::MemoryAlarm => "memory-alarm",
            Self::QueueDeleted => "queue-deleted",
            Self::BrokerRestarted => "broker-restarted",
            Self::BrokerKilled => "broker-killed",
            Self::BrokerStopped => "broker-stopped",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// How often it happens while many tasks are run.
    pub(crate) fn times(self) -> u64 {
        match self {
            Self::WorkerKilled | Self::ChildKilled => 10,
            Self::ConnectionsCut | Self::QueueDeleted => 5,
            Self::RollingRestart | Self::ConnectionsSilent | Self::MemoryAlarm => 2,
            Self::BrokerRestarted | Self::BrokerKilled => 2,
            Self::BrokerStopped => 1,
        }
    }

    /// Whether it strikes while no task is in the broker. A queue takes its tasks along when it is
    /// deleted, which no worker can undo; and a memory alarm should find all of them unsent.
    pub(crate) fn strikes_an_idle_fleet(self) -> bool {
        matches!(self, Self::QueueDeleted | Self::MemoryAlarm)
    }

    /// Whether a task may run again because of it.
    pub(crate) fn repeats(self) -> bool {
        !matches!(self, Self::RollingRestart | Self::MemoryAlarm | Self::QueueDeleted)
    }

    /// Processes of each worker; 0 is one without a parent.
    pub(crate) fn processes(self) -> usize {
        if self == Self::ChildKilled { 2 } else { 0 }
    }

    /// Makes it happen.
    pub(crate) fn strike(self, fleet: &mut Fleet, node: &mut PrivateNode, dice: &mut Dice) {
        match self {
            Self::WorkerKilled => fleet.kill(dice),
            Self::ChildKilled => fleet.kill_child(dice),
            Self::RollingRestart => fleet.restart_each(),
            Self::ConnectionsCut => fleet.proxy.cut(),
            Self::ConnectionsSilent => fleet.proxy.silence(),
            Self::MemoryAlarm => memory_alarm(node, true),
            Self::QueueDeleted => {
                node.management().delete(&["queues", "/", fleet.queue()]).unwrap();
            }
            Self::BrokerRestarted => node.restart().unwrap(),
            Self::BrokerKilled => {
                node.kill_9().unwrap();
                node.start_again().unwrap();
            }
            Self::BrokerStopped => {
                node.stop().unwrap();
                // The outage is the fault.
                std::thread::sleep(outage());
                node.start_again().unwrap();
            }
        }
    }

    /// Ends it, if it does not end by itself, once the producer has felt it.
    pub(crate) async fn relent(self, client: &Client, node: &PrivateNode) {
        if self == Self::MemoryAlarm {
            let mut states = client.connection().state();
            let blocked =
                |state: &ConnectionState| matches!(state, ConnectionState::Blocked { .. });
            tokio::time::timeout(PATIENCE, states.wait_for(blocked)).await.unwrap().unwrap();
            block_in_place(|| memory_alarm(node, false));
        }
    }
}

/// How long a broker that is stopped stays down.
pub(crate) fn outage() -> Duration {
    Duration::from_secs(setting("CELERIAC_TEST_CHAOS_OUTAGE_S").unwrap_or(3))
}

/// Lets the broker think that it has no memory, or that it has, until it has noticed.
fn memory_alarm(node: &PrivateNode, alarmed: bool) {
    let watermark = if alarmed { "0.00001" } else { "0.4" };
    node.rabbitmqctl(&["set_vm_memory_high_watermark", watermark]).unwrap();
    xtask::wait_until("the memory alarm", PATIENCE, || {
        let nodes = node.management().get(&["nodes"]).ok()??;
        (nodes[0]["mem_alarm"].as_bool()? == alarmed).then_some(())
    })
    .unwrap();
}
