//! Keeps a panic inside the task that raised it, with its place and backtrace.
//!
//! The process has one panic hook. Ours remembers what a task's panic says instead of printing
//! it, and hands every other panic to the hook that was there before.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

/// What a panic said, where it happened, and how it got there.
#[derive(Clone, Debug, Default)]
pub(super) struct Panicked {
    pub(super) message: String,
    /// `src/file.rs:12:5`, and the backtrace.
    pub(super) backtrace: String,
}

thread_local! {
    /// Whether this thread runs a task's code right now.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// The panic of the task that this thread runs, between the hook and the catch.
    static CAUGHT: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// Installs the hook, once for the process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                remember(info);
            } else {
                previous(info);
            }
        }));
    });
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = text(info.payload());
    let backtrace = format!("{place}\n{}", Backtrace::force_capture());
    CAUGHT.with_borrow_mut(|caught| *caught = Some(Panicked { message, backtrace }));
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the task panicked".to_owned())
}

/// Runs `code`; a panic becomes an error.
pub(super) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = GUARDED.replace(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(code));
    GUARDED.set(outer);
    ended.map_err(|payload| {
        let remembered = CAUGHT.with_borrow_mut(Option::take);
        remembered.unwrap_or_else(|| Panicked { message: text(&*payload), ..Panicked::default() })
    })
}

/// A future whose panics are caught at every poll.
pub(super) struct Guarded<T>(BoxFuture<'static, T>);

impl<T> Guarded<T> {
    pub(super) fn new(inner: BoxFuture<'static, T>) -> Self {
        Self(inner)
    }
}

impl<T> Future for Guarded<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.0.as_mut();
        match catch(|| inner.poll(cx)) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_after_an_await_is_caught_with_its_place() {
        install();
        let guarded = Guarded::new(Box::pin(async {
            tokio::task::yield_now().await;
            panic!("lost {}", "it");
        }));
        let panicked = guarded.await.map(|(): ()| ()).unwrap_err();
        assert_eq!(panicked.message, "lost it");
        assert!(panicked.backtrace.contains("guard.rs"), "{}", panicked.backtrace);
    }

    #[test]
    fn a_value_passes() {
        assert_eq!(catch(|| 4).ok(), Some(4));
    }
}
