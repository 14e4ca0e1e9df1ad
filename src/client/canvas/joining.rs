//! How a chord is joined: the same words for chords with types, for groups that become one, and for
//! workflows without types.

use std::time::Duration;

use super::{Chord, Group, Workflow};
use crate::protocol::join::Mode;

macro_rules! joining {
    ($(#[$about:meta])* impl[$($generics:ident),*] $name:ty) => {
        $(#[$about])*
        impl<$($generics),*> $name {
            /// Says when the chord ends: at the first failure (the default), or when all parts have
            /// ended. Then the body gets `{"ok": value}` or `{"err": error}` for each.
            pub fn mode(self, mode: Mode) -> Self {
                self.join_setting("mode", mode.as_str())
            }

            /// Gives the chord up after this long. By default after a day.
            pub fn expires_after(self, time: Duration) -> Self {
                self.join_setting("expires", time.as_secs_f64())
            }

            /// Sends the results of the header to the caller as well, so that `parent()` of the
            /// result can be waited on. By default they go to the body only.
            pub fn header_results(self, wanted: bool) -> Self {
                self.join_setting("header_results", wanted)
            }

            /// Revokes the parts that have not begun when the chord fails or its time is over: they
            /// do not run, and those who wait for them get `REVOKED`. By default they run, and
            /// their results are dropped. What runs already goes on. Workers of Celery run such
            /// parts all the same.
            pub fn revoke_rest(self, wanted: bool) -> Self {
                self.join_setting("revoke_rest", wanted)
            }

            /// Keeps values of parts that need more than this many bytes (in MessagePack) in a
            /// queue of the chord, instead of sending them through the shard. Then neither the
            /// joiner nor any message grows with them, and the list may be as large as
            /// `join_max_parked` of the worker that runs the body. By default, all values together
            /// must fit `join_max_body`.
            ///
            /// For chords with a body that is one task of a worker of celeriac, or a chain that
            /// begins with one: a worker of Celery cannot gather the values, and refuses the body.
            /// Others send all values through the shard as ever. All workers that join must know of
            /// this.
            pub fn park_above(self, bytes: u32) -> Self {
                self.join_setting("park_above", bytes)
            }
        }
    };
}

joining! {
    impl[Out, In, H] Chord<Out, In, H>
}

joining! {
    /// How the chord is joined that the group becomes when a step follows it; a group on its own
    /// has no join, and ignores this.
    impl[Out, In] Group<Out, In>
}

joining! {
    /// How a chord is joined, or the one that a group becomes when a step follows it. For a task or
    /// a chain this is a mistake, reported when it is sent: set it before what follows.
    impl[] Workflow
}
