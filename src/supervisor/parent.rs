//! The child's side: it does not outlive its parent.

use std::fs::File;
use std::io::{self, Read};

use crate::process;

/// Lets this process be killed as soon as its supervisor is gone, however that ended.
///
/// For programs that a [`Supervisor`](super::Supervisor) starts; call it first in `main`. Takes
/// standard input, which is a pipe from the supervisor that nothing is ever written to: its end is
/// the end of the supervisor. The program finds an empty standard input.
///
/// # Errors
/// If the system gives no descriptor or no thread.
pub fn end_with_parent() -> io::Result<()> {
    let mut pipe = File::from(process::take_stdin()?);
    std::thread::Builder::new().name("celeriac-parent".to_owned()).spawn(move || {
        let mut nothing = [0; 16];
        loop {
            match pipe.read(&mut nothing) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => process::kill_self(),
            }
        }
    })?;
    Ok(())
}
