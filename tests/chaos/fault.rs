//! What befalls a fleet, and how it is done.

use std::time::Duration;

use celeriac::Client;
use celeriac::amqp::ConnectionState;
use tokio::task::block_in_place;
use xtask::PrivateNode;

use crate::dice::Dice;
use crate::fleet::{Fleet, WORKERS};
use crate::load::Load;
use crate::marks::{Moment, now};
use crate::strike::{Strike, Struck};
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

    /// Whether its strike number `turn` comes while no task is in the broker. A queue takes its
    /// tasks along when it is deleted, which no worker can undo; and a memory alarm is to find
    /// all of them unsent, and another time the workers busy.
    pub(crate) fn strikes_an_idle_fleet(self, turn: u64) -> bool {
        self == Self::QueueDeleted || (self == Self::MemoryAlarm && turn % 2 == 1)
    }

    /// Whether the broker itself goes away, for the producer as well.
    pub(crate) fn takes_the_broker(self) -> bool {
        matches!(self, Self::BrokerRestarted | Self::BrokerKilled | Self::BrokerStopped)
    }

    /// Whether a task may run again because of it.
    pub(crate) fn repeats(self) -> bool {
        !matches!(self, Self::RollingRestart | Self::MemoryAlarm | Self::QueueDeleted)
    }

    /// Processes of each worker; 0 is one without a parent.
    pub(crate) fn processes(self) -> usize {
        if self == Self::ChildKilled { 2 } else { 0 }
    }

    /// Makes it happen, and ends it if it does not end by itself.
    pub(crate) async fn strike(
        self,
        (fleet, node): (&mut Fleet, &mut PrivateNode),
        (client, load): (&Client, &Load),
        (turn, dice): (u64, &mut Dice),
    ) -> Strike {
        let begun = now();
        let losing = self.takes_the_broker().then(|| tokio::spawn(loses(client.clone())));
        let (lost, mut struck) = block_in_place(|| self.make(fleet, node, dice));
        load.go_on();
        let ended = match self {
            Self::WorkerKilled | Self::ChildKilled => lost,
            Self::ConnectionsCut | Self::ConnectionsSilent => lost,
            Self::MemoryAlarm => {
                load.press_on();
                let busy = if self.strikes_an_idle_fleet(turn) { 0 } else { WORKERS };
                block_in_place(|| {
                    are_blocked(node, 1 + busy);
                    memory_alarm(node, false);
                });
                load.go_on();
                now()
            }
            _ => now(),
        };
        let lost = match losing {
            Some(losing) => losing.await.unwrap(),
            None => lost,
        };
        if self.strikes_an_idle_fleet(turn) {
            struck.iter_mut().for_each(|struck| struck.held = None);
        }
        Strike { begun, lost, ended, struck }
    }

    /// Makes it happen. Tells when it did, and to whom.
    fn make(
        self,
        fleet: &mut Fleet,
        node: &mut PrivateNode,
        dice: &mut Dice,
    ) -> (Moment, Vec<Struck>) {
        match self {
            Self::WorkerKilled | Self::ChildKilled => {
                let kill = if self == Self::WorkerKilled { Fleet::kill } else { Fleet::kill_child };
                let (killed, struck) = kill(fleet, dice);
                return (killed, vec![struck]);
            }
            Self::RollingRestart => {
                let begun = now();
                return (begun, fleet.restart_each());
            }
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
        (now(), fleet.all())
    }
}

/// When `client` loses its connection, which the workers lose in the same moment.
async fn loses(client: Client) -> Moment {
    let mut states = client.connection().state();
    let is_lost = |state: &ConnectionState| {
        matches!(state, ConnectionState::Lost { .. } | ConnectionState::Connecting { .. })
    };
    tokio::time::timeout(PATIENCE, states.wait_for(is_lost)).await.unwrap().unwrap();
    now()
}

/// Waits until `count` connections have tried to publish and were blocked.
fn are_blocked(node: &PrivateNode, count: usize) {
    let mut states = String::new();
    let waited = xtask::wait_until("connections are blocked", PATIENCE, || {
        states = node.rabbitmqctl(&["-q", "list_connections", "state"]).ok()?;
        (states.lines().filter(|state| *state == "blocked").count() >= count).then_some(())
    });
    assert!(waited.is_ok(), "{count} were to be blocked: {states}");
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
